"""A privacy budget is never overdrawn: not by the next run, not by one at the same time, not by hiding or renaming."""

import json
import secrets
from decimal import Decimal

import pytest

from mlseal.errors import RuleBroken, Unchecked, Withheld
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive, revocation_subject
from mlseal.evidence.digest import measure
from mlseal.evidence.planning import Plan, Privacy
from mlseal.evidence.predicates import data_policy, revocation
from mlseal.policy import budget
from mlseal.policy.budget import Account, Cost
from mlseal.policy.preflight import Preflight
from mlseal.stages import registry, runner
from mlseal.stages.base import Bounds, Context, DatasetPath, Finding, OutputDataset, stage
from tests.unit.stages.test_runner import FIELDS

END = "2999-01-01T00:00:00Z"


@stage("testing.probe", predicate="source-verification", releases=Bounds("epsilon", "delta", "unit"))
def private(
    data: DatasetPath,
    out: OutputDataset,
    epsilon: str,
    delta: str = "0.00001",
    unit: str = "person",
    spent: str = "",
    fail: bool = False,
    *,
    context: Context,
) -> Finding:
    """A stage that keeps privacy, as its signature says."""
    if fail:
        raise Unchecked("the training stopped")
    out.write_text(epsilon)
    return Finding(("data",), FIELDS, not_proven=("much",), spent=Privacy(spent, delta, unit) if spent else None)


@stage("testing.open", predicate="source-verification")
def unbounded(data: DatasetPath, *, context: Context) -> Finding:
    """A stage that keeps none."""
    return Finding(("data",), FIELDS, not_proven=("much",))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text(str(tmp_path))
    return folder


@pytest.fixture
def allow(authority, data):
    """Signs the owner's data policy with a budget of 1."""

    def go(about=None, role="owner", more=None, **changes):
        stated = {"maxEpsilon": "1", "maxDelta": "0.0001", "unit": "person"} | changes
        claim = {"purposes": ["training"], "expires": END, "notProven": ["copies"], "nonce": secrets.token_hex(16)}
        return sign(
            authority,
            measure(about or data).subjects,
            role,
            data_policy.URI,
            {**claim, "budget": stated, **(more or {})},
        )

    return go


@pytest.fixture
def run(authority, data, tmp_path, monkeypatch):
    """Runs the private stage; returns what its evidence says of the preflight."""
    for name, function in (("testing.probe", "private"), ("testing.open", "unbounded")):
        monkeypatch.setitem(registry.BUILTIN, name, f"{__name__}:{function}")

    def go(epsilon, about=None, name="testing.probe", role="producer", **arguments):
        given = {"data": str(about or data), **arguments}
        if name == "testing.probe":
            given |= {"epsilon": epsilon, "out": str(tmp_path / f"out-{secrets.token_hex(4)}")}
        told = {"purpose": "training", "preflight": Preflight(()), "quiet": True, "run_id": secrets.token_hex(4)}
        made = runner.run(name, given, signer=authority.signer(role), store=authority.store, **told)
        return made.statement.predicate["preflight"]

    return go


def sign(authority, subjects, role, uri, claim):
    return authority.signer(role).sign(statement.make(subjects, uri, claim))


def release(authority, evidence_id, role="owner"):
    claim = {"evidenceId": evidence_id, "reason": "withdrawn", "nonce": secrets.token_hex(16)}
    return sign(authority, [revocation_subject(evidence_id)], role, revocation.URI, claim)


def opened(authority):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    return archive


def reservations(authority):
    return [b.evidence_id for b in opened(authority).of_type(["budget-reservation"])]


def spent(authority, owner):
    """What the ledger of the account that `owner`'s policy opens says."""
    archive = opened(authority)
    fact = budget._verified(archive, owner)
    return budget.ledger(archive, Account.of(fact, fact.predicate.budget), []).spent


# --- the next run -----------------------------------------------------------------------------------------------------


def test_runs_add_up_exactly_until_nothing_is_left(authority, allow, run):
    owner = allow(maxEpsilon="0.3")
    first = run("0.1")
    reserved = authority.store.get(first["reservation"]).statement
    assert first["spent"] == {"epsilon": "0.1", "delta": "0.00001"}
    assert reserved.predicate["accounts"][0]["dataPolicy"] == owner.evidence_id
    assert reserved.predicate["epsilon"] == "0.1" and reserved.predicate["unit"] == "person"
    run("0.2")  # binary floats say 0.1 + 0.2 > 0.3
    assert spent(authority, owner) == Cost(Decimal("0.3"), Decimal("0.00002"))
    before = set(authority.store.ids())
    with pytest.raises(
        RuleBroken, match=r"not enough of its privacy budget left for epsilon 0\.000000000000000001"
    ) as caught:
        run("0.000000000000000001")
    assert "mlseal budget" in str(caught.value)
    assert set(authority.store.ids()) == before, "a run that is not allowed reserves nothing"


def test_delta_is_counted_too(allow, run):
    allow(maxDelta="0.00003")
    run("0.1", delta="0.00002")
    with pytest.raises(RuleBroken, match="privacy budget"):
        run("0.1", delta="0.00002")


def test_what_was_not_spent_comes_back_with_the_evidence(authority, allow, run):
    owner = allow()
    assert run("0.9", spent="0.25")["spent"]["epsilon"] == "0.25"
    assert spent(authority, owner).epsilon == Decimal("0.25")
    assert run("0.75")


def test_a_stage_that_spent_more_than_it_reserved_makes_no_evidence_and_all_counts(authority, allow, run, tmp_path):
    owner = allow()
    with pytest.raises(RuleBroken, match="more privacy than was reserved"):
        run("0.5", spent="0.51")
    assert not list(tmp_path.glob("out-*")) and spent(authority, owner).epsilon == Decimal("0.5")


def test_an_abandoned_reservation_is_spent_until_the_owner_releases_it(authority, allow, run):
    owner = allow()
    with pytest.raises(Unchecked, match="the training stopped"):
        run("0.8", fail="true")
    assert spent(authority, owner).epsilon == Decimal("0.8")
    abandoned = reservations(authority)[-1]
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8")
    release(authority, abandoned, "producer")
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8")  # whoever reserved cannot take it back: they may have kept what they made
    release(authority, abandoned)
    assert run("0.8")


def test_a_release_of_what_evidence_says_was_spent_frees_nothing(authority, allow, run):
    allow()
    release(authority, run("0.8")["reservation"])
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8")


def test_the_ledger_can_be_read(authority, allow, run, data):
    allow()
    run("0.5", spent="0.4")
    with pytest.raises(Unchecked):
        run("0.25", fail="true")
    done = authority.call("budget", "--store", str(authority.store.root), str(data))
    assert done.returncode == 0, done.stderr
    first, *rows = done.stdout.splitlines()
    assert first.endswith("for each person: epsilon 0.65, delta 0.00002 of epsilon 1, delta 0.0001 spent or reserved")
    assert [row.split(": ")[-1] for row in rows] == ["spent epsilon 0.4, delta 0.00001", "reserved"]
    (account,) = json.loads(authority.call("budget", "--store", str(authority.store.root), str(data), "--json").stdout)[
        "accounts"
    ]
    assert account["spent"] == {"epsilon": "0.65", "delta": "0.00002"}
    assert [one["state"] for one in account["reservations"]] == ["spent", "reserved"]
    (data / "more").write_text("other data")
    assert authority.call("budget", "--store", str(authority.store.root), str(data)).returncode == 11


# --- at the same time -------------------------------------------------------------------------------------------------


def plan(authority, data, epsilon):
    by = authority.signer().identity()
    return Plan(
        "testing.probe",
        "training",
        by,
        {"data": measure(data)},
        {},
        Privacy(epsilon, "0", "person"),
        secrets.token_hex(4),
        "https://mlseal.dev/source-verification/v0.1",
    )


def test_of_two_that_saw_the_same_ledger_the_later_in_the_log_loses(authority, allow, run, data):
    owner, signer = allow(), authority.signer()
    judge, archive = Preflight(()), opened(authority)
    one, two = (judge(plan(authority, data, "0.6"), archive) for _ in range(2))
    second = signer.sign(two.reservation).evidence_id
    first = signer.sign(one.reservation).evidence_id
    two.confirm(second)
    with pytest.raises(RuleBroken, match="another run drew on the privacy budget first"):
        one.confirm(first)
    assert spent(authority, owner).epsilon == Decimal("0.6"), "what came too late costs nothing"
    assert run("0.4")


def test_who_lost_does_not_win_later_when_the_others_spent_less(authority, allow, run, data):
    """Its place in the log decides, not what became of the others: budget would be lost to a run that never was."""
    owner, signer = allow(), authority.signer()
    judge, archive = Preflight(()), opened(authority)
    slow = judge(plan(authority, data, "0.6"), archive)
    sign_first = runner._Asking._sign

    def interleaved(asking, what):
        signed = sign_first(asking, what)
        if what.predicate_type.startswith("https://mlseal.dev/budget-reservation"):
            late.append(signer.sign(slow.reservation).evidence_id)
        return signed

    late = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner._Asking, "_sign", interleaved)
        run("0.7", spent="0.1")
    with pytest.raises(RuleBroken, match="another run drew on the privacy budget first"):
        slow.confirm(late[0])
    assert spent(authority, owner).epsilon == Decimal("0.1")
    assert run("0.9")


# --- around the ledger ------------------------------------------------------------------------------------------------


def test_a_renamed_file_opens_no_new_account(allow, run, data):
    allow()
    run("0.8")
    (data / "a").rename(data / "b")
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8")


def test_data_of_one_cohort_share_a_budget_and_others_do_not(allow, run, data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "b").write_text(f"the same people {tmp_path}")
    cohort = f"hospital.example/{tmp_path.name.replace('_', '-').lower()}"
    allow(cohort=cohort)
    allow(other, cohort=cohort)
    run("0.8")
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8", about=other)
    third = tmp_path / "third"
    third.mkdir()
    (third / "c").write_text(f"other people {tmp_path}")
    allow(third)
    assert run("0.8", about=third)


def test_a_stage_without_a_bound_and_one_for_another_unit_are_refused(allow, run):
    allow()
    with pytest.raises(RuleBroken, match="without a bound"):
        run("", name="testing.open")
    with pytest.raises(RuleBroken, match="for each row"):
        run("0.1", unit="row")


def test_another_identity_draws_on_the_same_budget(allow, run):
    allow()
    run("0.8", role="producer")
    with pytest.raises(RuleBroken, match=r"0\.8"):
        run("0.8", role="evaluator")


def test_a_smaller_budget_does_not_forget_what_was_spent_under_the_larger(authority, allow, run):
    allow()
    run("0.9")
    allow(maxEpsilon="0.5")
    with pytest.raises(RuleBroken, match=r"got epsilon 0\.9, .* expected at most epsilon 0\.5"):
        run("0.05")


def test_a_reservation_that_nobody_shows_leaves_the_budget_unknown(authority, allow, run):
    allow()
    hidden = authority.store.path(run("0.2")["reservation"])
    kept = hidden.read_bytes()
    hidden.unlink()
    try:
        with pytest.raises(Withheld):
            run("0.1")
    finally:
        hidden.write_bytes(kept)
    assert run("0.1")


def test_who_drew_on_it_cannot_hide_that_by_taking_it_back_but_the_owner_can(authority, allow, run, data):
    allow()
    judge, archive = Preflight(()), opened(authority)
    hidden = authority.signer(store=None).sign(judge(plan(authority, data, "0.9"), archive).reservation)
    release(authority, hidden.evidence_id, "producer")
    with pytest.raises(Withheld, match="may draw on the privacy budget"):
        run("0.9")
    release(authority, hidden.evidence_id)
    assert run("0.9")


def test_entries_of_who_may_not_run_need_not_be_shown(authority, allow, run, data):
    """In a shared log others' bundles lie elsewhere; whoever the owner does not let run cannot have drawn on it."""
    allow(more={"runBy": [{"issuer": authority.issuer, "san": authority.san("producer")}]})
    strange = sign(
        authority, measure(data).subjects, "evaluator", "https://example.org/note/v1", {"a": secrets.token_hex(4)}
    )
    path = authority.store.path(strange.evidence_id)
    kept = path.read_bytes()
    path.unlink()
    try:
        assert run("0.1")
    finally:
        path.write_bytes(kept)


def test_no_stage_can_make_a_reservation():
    from mlseal.errors import Misuse

    with pytest.raises(Misuse, match="people and gates"):
        stage("testing.forger", predicate="budget-reservation")
