"""What the gate decides, case by case, each against the same small world."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from mlseal.errors import ForgedEvidence, RuleBroken, ServiceUnavailable, SplitView, Unchecked, Unreadable
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.predicates import uri_of
from mlseal.policy import samples
from mlseal.policy.facts import Elsewhere, Found, Rejected, Target, inputs_of
from mlseal.policy.gate import Action, decide, judge
from mlseal.policy.load import parse
from mlseal.policy.verdict import raise_for

DAY = timedelta(days=1)


def stops(verdict) -> set[str]:
    return {reason.rule for reason in verdict.reasons if reason.outcome != "note"}


def test_good_evidence_is_allowed_and_listed(world, rules) -> None:
    fact = world.fairness(0.1)
    verdict = world.judge(rules["fairness"])
    assert verdict.kind == "allowed"
    assert [i.evidence_id for i in verdict.inputs] == [fact.evidence_id]
    assert (verdict.tree_size, verdict.mode) == (17, "enforce")
    raise_for(verdict)


def test_nothing_is_undecided_and_names_the_command(world, rules) -> None:
    verdict = world.judge(rules["fairness"])
    assert (verdict.kind, verdict.exit_code) == ("undecided", 11)
    assert "mlseal run governance.fairness" in (verdict.reasons[0].remedy or "")
    assert "evaluator" in (verdict.reasons[0].expected or "")
    with pytest.raises(Unchecked, match="fairness"):
        raise_for(verdict)


def test_a_false_condition_refuses_with_value_rule_and_command(world, rules) -> None:
    world.fairness(0.356)
    verdict = world.judge(rules["fairness"])
    assert (verdict.kind, verdict.exit_code, stops(verdict)) == ("refused", 10, {"gap"})
    reason = verdict.reasons[0]
    assert "0.356" in (reason.got or "")
    assert reason.expected == 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'
    assert "mlseal run governance.fairness" in (reason.remedy or "")
    assert "mlseal waive PATH --rule gap" in (reason.remedy or ""), "the policy lists somebody who may"
    with pytest.raises(RuleBroken, match=r"0\.356"):
        raise_for(verdict)


def test_of_several_reasons_each_stands_beside_its_remedy_in_brief(world, rules) -> None:
    drift = rules["fairness"].partition("    when:")[0].replace("fairness", "drift")
    verdict = replace(world.judge(rules["fairness"], drift), subjects=(Subject("target", samples.digest("target")),))
    with pytest.raises(Unchecked) as caught:
        raise_for(verdict)
    judged = samples.digest("target")[:16]
    brief, (first, second) = caught.value.brief or "", verdict.reasons
    assert brief.startswith(f"undecided by test/1: 2 reasons against target (sha256 {judged}…): ")
    assert f": (1) fairness: no fairness evidence; remedy: {first.remedy}; (2) " in brief
    assert f"remedy: {second.remedy}; expected, where nothing else is said: {first.expected}" in brief
    assert brief.count(judged) == brief.count("signed by") == 1
    assert str(caught.value).count("signed by") == 2
    with pytest.raises(Unchecked) as alone:
        raise_for(world.judge(rules["fairness"]))
    assert alone.value.brief is None


@pytest.mark.parametrize("order", [(0.1, 0.3), (0.3, 0.1)])
def test_the_worst_of_all_runs_counts(world, rules, order) -> None:
    """Re-run until green: the red run still counts, whichever came last and whoever of the listed signed it."""
    found = [world.fairness(order[0], age=DAY), world.fairness(order[1], who="second")]
    verdict = world.judge(rules["fairness"])
    assert verdict.kind == "refused"
    red = found[order.index(0.3)]
    assert f"mlseal revoke {red.evidence_id} --reason superseded" in (verdict.reasons[0].remedy or "")


def test_an_old_failure_counts_when_only_passes_are_fresh(world, rules) -> None:
    world.fairness(0.3, age=300 * DAY)
    world.fairness(0.1)
    assert world.judge(rules["fairness"] + "    maxAge: 30d\n").kind == "refused"


def test_superseded_by_a_revoker_with_something_newer(world, rules) -> None:
    red = world.fairness(0.3, age=DAY)
    world.fairness(0.1)
    world.revoke(red, "superseded")
    assert world.judge(rules["fairness"]).kind == "allowed"


def test_a_result_of_the_same_moment_is_nothing_newer(world, rules) -> None:
    red = world.fairness(0.3)
    world.fairness(0.1)
    world.revoke(red, "superseded")
    assert world.judge(rules["fairness"]).kind == "refused"


def test_superseded_with_nothing_newer_still_counts(world, rules) -> None:
    world.fairness(0.1, age=2 * DAY)
    red = world.fairness(0.3, age=DAY)
    world.revoke(red, "superseded")
    assert world.judge(rules["fairness"]).kind == "refused"


def test_a_superseder_that_was_itself_taken_back_is_nothing_newer(world, rules) -> None:
    red, green = world.fairness(0.3, age=DAY), world.fairness(0.1)
    world.revoke(red, "superseded")
    world.revoke(green, "withdrawn")
    assert world.judge(rules["fairness"]).kind == "refused"


def test_only_a_successor_that_stands_lets_a_failure_be_superseded(world, rules) -> None:
    world.fairness(0.1, age=3 * DAY)  # stands, but is older than the failure
    red = world.fairness(0.3, age=2 * DAY)
    world.revoke(red, "superseded")
    world.revoke(world.fairness(0.1, age=DAY), "withdrawn")
    assert world.judge(rules["fairness"]).kind == "refused"


def test_a_condition_without_an_answer_is_undecided(world, rules) -> None:
    world.add("fairness", "evaluator", {"metrics": [{"name": "other", "ciHigh": 0.0}]})
    verdict = world.judge(rules["fairness"])
    assert (verdict.kind, stops(verdict)) == ("undecided", {"gap"})
    assert "no answer" in verdict.reasons[0].message
    world.fairness(0.1)
    assert world.judge(rules["fairness"]).kind == "undecided", "beside a good result too: the worst counts"


@pytest.mark.parametrize("reason", ["withdrawn", "expired"])
def test_withdrawn_evidence_satisfies_nothing_but_still_fails(world, rules, reason) -> None:
    green = world.fairness(0.1)
    world.revoke(green, reason)
    assert world.judge(rules["fairness"]).kind == "refused"
    world.fairness(0.12)
    assert world.judge(rules["fairness"]).kind == "allowed"
    world.revoke(world.fairness(0.3), reason)
    assert world.judge(rules["fairness"]).kind == "refused"


@pytest.mark.parametrize(
    ("age", "kind"),
    [
        (timedelta(days=30), "allowed"),
        (timedelta(days=30, minutes=5), "allowed"),
        (timedelta(days=30, minutes=6), "undecided"),
        (timedelta(minutes=-5), "allowed"),
        (timedelta(minutes=-6), "undecided"),
    ],
)
def test_freshness_by_verified_time_with_five_minutes_of_skew(world, rules, age, kind) -> None:
    world.fairness(0.1, age=age)
    assert world.judge(rules["fairness"] + "    maxAge: 30d\n").kind == kind


def test_another_subject_is_no_evidence(world, rules) -> None:
    world.fairness(0.1, about="other")
    assert world.judge(rules["fairness"]).kind == "undecided"


def test_a_stranger_is_refused_and_does_no_harm_beside_the_listed(world, rules) -> None:
    world.fairness(0.1, who="stranger")
    verdict = world.judge(rules["fairness"])
    assert verdict.kind == "refused"
    assert "stranger" in (verdict.reasons[0].got or "")
    world.fairness(0.1)
    assert world.judge(rules["fairness"]).kind == "allowed"


def test_a_failing_result_of_a_stranger_does_not_count(world, rules) -> None:
    world.fairness(0.9, who="stranger")
    world.fairness(0.1)
    assert world.judge(rules["fairness"]).kind == "allowed"


def test_the_gate_is_not_a_producer(world) -> None:
    own = "  - {predicate: fairness, by: [{issuer: https://oidc.example, san: gate}]}\n"
    world.fairness(0.1, who="gate")
    verdict = world.judge(own)
    assert verdict.kind == "refused"
    assert "not a producer" in verdict.reasons[0].message
    listed = own.replace("san: gate", "san: other")
    world.fairness(0.1, who="other")
    assert world.judge(listed).kind == "allowed"
    assert world.judge(listed, gate=[Identity("https://oidc.example", "other")]).kind == "refused"


@pytest.mark.parametrize(
    ("who", "trainer", "claimed", "kind"),
    [
        ("evaluator", "producer", "measured", "allowed"),
        ("evaluator", "producer", "declared", "undecided"),
        ("evaluator", "producer", "inferred", "undecided"),
        ("evaluator", "evaluator", "measured", "undecided"),  # the training account measures itself
        ("evaluator", None, "measured", "undecided"),  # nobody knows who trained
    ],
)
def test_strength(world, rules, who, trainer, claimed, kind) -> None:
    if trainer:
        world.add("slsa-provenance", trainer)
    world.fairness(0.1, who=who, body={"strength": claimed})
    assert world.judge(rules["fairness"] + "    strength: measured\n").kind == kind


@pytest.mark.parametrize("kind", ["slsa-provenance", "dp-training", "federated-training"])
def test_whoever_trained_in_any_way_neither_measures_nor_approves_nor_waives(world, rules, kind) -> None:
    asked = rules["fairness"] + "    strength: measured\n"
    world.fairness(0.1)
    assert world.judge(asked).kind == "undecided", "nobody knows who trained"
    world.add(kind, "alice")
    assert world.judge(asked).kind == "allowed"
    world.add("human-approval", "alice")
    assert world.judge(asked, rules["approval"]).kind == "refused"
    world.add("human-approval", "bob")
    assert world.judge(asked, rules["approval"]).kind == "allowed"
    world.fairness(0.3)
    waive(world)
    assert world.judge(asked).kind == "allowed"
    world.add(kind, "officer")
    assert world.judge(asked).kind == "refused"
    world.facts = [fact for fact in world.facts if fact.predicate_type == uri_of("waiver")]
    world.fairness(0.1)
    world.add(kind, "evaluator")
    assert world.judge(asked).kind == "undecided"


def test_declared_is_enough_where_declared_is_asked(world, rules) -> None:
    world.fairness(0.1, body={"strength": "declared"})
    assert world.judge(rules["fairness"] + "    strength: declared\n").kind == "allowed"
    assert world.judge(rules["fairness"] + "    strength: inferred\n").kind == "allowed"


@pytest.mark.parametrize("axis", ["identity", "log", "time"])
def test_assurance_is_what_the_verifier_says(world, rules, header, axis) -> None:
    high = {"identity": "verified-token", "log": "pinned", "time": "independent"}
    strict = header.replace(
        "identity: local, log: unwitnessed, time: local", ", ".join(f"{k}: {v}" for k, v in high.items())
    )
    world.fairness(0.1, assurance={**high, axis: {"identity": "local", "log": "unwitnessed", "time": "local"}[axis]})
    verdict = world.judge(rules["fairness"], header=strict)
    assert verdict.kind == "undecided"
    assert axis in (verdict.reasons[0].got or "")
    world.fairness(0.1, assurance=high)
    assert world.judge(rules["fairness"], header=strict).kind == "allowed"
    assert world.judge(rules["fairness"], header=strict).assurance[axis] != high[axis], "the weakest input shows"


def test_a_requirement_may_ask_for_more_assurance_than_its_policy(world, rules) -> None:
    stricter = rules["fairness"] + "    assurance: {identity: local, log: pinned, time: local}\n"
    world.fairness(0.1)
    verdict = world.judge(stricter)
    assert (verdict.kind, verdict.reasons[0].got) == ("undecided", "log unwitnessed")
    world.fairness(0.1, assurance={"log": "pinned"})
    assert world.judge(stricter).kind == "allowed"


@pytest.mark.parametrize("axis", ["identity", "log", "time"])
def test_a_level_that_nobody_knows_is_below_all(world, rules, axis) -> None:
    fact = world.fairness(0.1)
    odd = SimpleNamespace(**{"identity": "local", "log": "unwitnessed", "time": "local", axis: "supreme"})
    world.facts[:] = [replace(fact, assurance=odd)]
    verdict = world.judge(rules["fairness"])
    assert (verdict.kind, verdict.reasons[0].got) == ("undecided", f"{axis} supreme")


def test_revocation_knowledge_must_be_fresh_and_believable(world, rules, header) -> None:
    world.fairness(0.1)
    world.snapshot_age = timedelta(hours=25)
    assert stops(world.judge(rules["fairness"])) == {"revocations"}
    world.snapshot_age = None
    assert world.judge(rules["fairness"]).kind == "undecided"
    world.snapshot_age = timedelta(hours=1)
    nobody = "\n".join(line for line in header.splitlines() if not line.startswith("revokers")) + "\n"
    verdict = world.judge(rules["fairness"], header=nobody)
    assert stops(verdict) == {"revocations"}
    assert "nobody who may revoke" in verdict.reasons[0].message


def test_a_withheld_leaf_leaves_it_undecided(world, rules) -> None:
    world.fairness(0.1)
    world.withheld = (Leaf("log1.example", 5, "ab" * 32, Identity("https://oidc.example", "evaluator")),)
    verdict = world.judge(rules["fairness"])
    assert (verdict.kind, stops(verdict)) == ("undecided", {"log"})
    assert "leaf 5" in verdict.reasons[0].message
    assert "ab" * 32 in (verdict.reasons[0].remedy or "")


@pytest.mark.parametrize(("leaves", "kind"), [(2, "undecided"), (0, "allowed")])
def test_leaves_that_another_store_holds_are_one_reason_and_nothing_to_revoke(world, rules, header, leaves, kind):
    world.fairness(0.1)
    world.withheld = tuple(Leaf("log1.example", n, f"{n:064x}", Identity("i", "s")) for n in range(leaves))
    source = world.source
    object.__setattr__(source, "elsewhere", lambda: Elsewhere("the store x does not exist", "pass --store DIR"))
    policy = parse((header + rules["fairness"]).encode())
    verdict = decide(source, Target("target", samples.digest("target")), None, (policy,), now=world.now)
    told = [(one.rule, "x does not exist" in one.message, one.remedy) for one in verdict.reasons]
    assert (verdict.kind, told) == (kind, [("log", True, "pass --store DIR")] if leaves else [])


def test_where_selects_and_must_have_an_answer(world, rules) -> None:
    chosen = rules["fairness"] + "    where: 'p.attribute == \"sex\"'\n"
    world.fairness(0.1, body={"attribute": "sex"})
    world.fairness(0.9, body={"attribute": "age"})
    assert world.judge(chosen).kind == "allowed"
    assert world.judge(rules["fairness"] + "    where: 'p.attribute == \"income\"'\n").kind == "undecided"
    world.fairness(0.1, body={"attribute": "sex", "clusters": 7})
    verdict = world.judge(rules["fairness"] + "    where: 'p.clusters > 1'\n")
    assert verdict.kind == "undecided", "for the others nobody knows whether they are meant"
    assert "where" in verdict.summary()


@pytest.mark.parametrize(("error", "kind"), [(ForgedEvidence("spoilt"), "refused"), (Unreadable("gone"), "undecided")])
def test_listed_evidence_that_does_not_verify_stops_beside_good_evidence(world, rules, header, error, kind) -> None:
    """Otherwise a spoilt file would hide a failed result."""
    world.fairness(0.1)
    good = world.source.find

    def find(target, predicate_type, identities):
        found = good(target, predicate_type, identities)
        return Found(found.facts, (Rejected("cd" * 32, error),), found.others)

    source = world.source
    object.__setattr__(source, "find", find)
    policy = parse((header + rules["fairness"]).encode())
    verdict = decide(source, Target("target", samples.digest("target")), None, (policy,), now=world.now)
    assert verdict.kind == kind
    assert "cdcdcd" in verdict.summary()


@pytest.mark.parametrize("part", ["find", "signers", "revocations", "unresolved"])
@pytest.mark.parametrize(
    ("error", "kind"), [(SplitView("two trees"), "refused"), (ServiceUnavailable("no log"), "undecided")]
)
def test_whatever_cannot_be_asked_stops(world, rules, header, part, error, kind) -> None:
    world.add("slsa-provenance", "producer")
    world.fairness(0.1)

    def fail(*_: object) -> None:
        raise error

    source = world.source
    object.__setattr__(source, part, fail)
    policy = parse((header + rules["fairness"] + "    strength: measured\n").encode())
    verdict = decide(source, Target("target", samples.digest("target")), None, (policy,), now=world.now)
    assert verdict.kind == kind
    assert all(reason.remedy for reason in verdict.reasons if reason.outcome != "note")


def test_a_log_that_cannot_be_read_is_told_by_the_policies_that_govern(world, rules, header) -> None:
    """Others are not the verdict's: 'enforce' compares its policies with those that apply."""

    def fail() -> None:
        raise ServiceUnavailable("no log")

    policies = [
        parse((header.replace("test/1", name).replace("risk-*", model) + rules["fairness"]).encode())
        for name, model in (("risk/1", "risk-*"), ("other/1", "other"))
    ]
    subject = [Subject("target", samples.digest("target"))]
    asked = Action("t", "a", {"model": "risk-1"})
    verdict = judge(subject, asked, policies, SimpleNamespace(refresh=fail), clock=lambda: world.now)
    assert (verdict.kind, [name for name, _ in verdict.policies]) == ("undecided", ["risk/1"])
    assert verdict.reasons[0].remedy


# --- chaining ---------------------------------------------------------------------------------------------------------

CHAIN = """
  - predicate: slsa-provenance
    by: [{issuer: https://oidc.example, san: producer}]
  - predicate: data-provenance
    of: slsa-provenance
    by: [{issuer: https://oidc.example, san: producer}]
"""


def trained(world, *inputs: tuple[str, str | None], who: str = "producer"):
    listed = [{"name": name, **({"digest": {"sha256": samples.digest(of)}} if of else {})} for name, of in inputs]
    return world.add("slsa-provenance", who, {"buildDefinition": {"resolvedDependencies": listed}})


def test_every_input_needs_its_own_evidence(world) -> None:
    trained(world, ("data", "a"), ("more", "b"))
    world.add("data-provenance", "producer", about="a")
    verdict = world.judge(CHAIN)
    assert verdict.kind == "undecided"
    assert "more" in verdict.reasons[0].message
    world.add("data-provenance", "producer", about="b")
    assert world.judge(CHAIN).kind == "allowed"


def test_input_narrows_to_one_name(world) -> None:
    trained(world, ("data", "a"), ("code", "b"))
    world.add("data-provenance", "producer", about="a")
    assert world.judge(CHAIN + "    input: data\n").kind == "allowed"
    assert world.judge(CHAIN + "    input: dat\n").kind == "undecided"


def test_a_directory_is_bound_by_its_manifest(world) -> None:
    trained(world, ("data", "root"), ("data#manifest", "manifest"))
    root = world.add("data-provenance", "producer", about="root")
    assert world.judge(CHAIN).kind == "undecided"
    world.facts.remove(root)
    world.add("data-provenance", "producer", about="manifest")
    assert world.judge(CHAIN).kind == "allowed"


@pytest.mark.parametrize("inputs", [(), (("data", None),), (("data", "a"), ("code", None))])
def test_a_chain_that_cannot_be_followed_is_no_chain(world, inputs) -> None:
    trained(world, *inputs)
    world.add("data-provenance", "producer", about="a")
    assert world.judge(CHAIN).kind == "undecided"


def test_two_inputs_of_one_name_are_both_followed(world) -> None:
    trained(world, ("data", "a"), ("data", "b"))
    assert {t.sha256 for t in inputs_of(world.facts)} == {samples.digest("a"), samples.digest("b")}
    world.add("data-provenance", "producer", about="b")
    assert world.judge(CHAIN).kind == "undecided"


def test_provenance_that_does_not_stand_chains_nothing(world) -> None:
    world.revoke(trained(world, ("data", "a")), "withdrawn")
    world.add("data-provenance", "producer", about="a")
    verdict = world.judge(CHAIN)
    assert {"slsa-provenance", "data-provenance"} <= stops(verdict)
    (said,) = [reason for reason in verdict.reasons if reason.rule == "data-provenance"]
    assert said.message == "is about the inputs that slsa-provenance names, of which no evidence counts yet"
    assert said.remedy == "mend slsa-provenance first"


def test_the_table_of_every_client_is_followed(world) -> None:
    tables = [{"client": name, "dataSha256": samples.digest(name)} for name in ("north", "south")]
    world.add("federated-training", "producer", {"clients": tables})
    asked = CHAIN.replace("slsa-provenance", "federated-training")
    world.add("data-provenance", "producer", about="north")
    verdict = world.judge(asked)
    assert (verdict.kind, stops(verdict)) == ("undecided", {"data-provenance"})
    assert "south" in verdict.reasons[0].message
    world.add("data-provenance", "producer", about="south")
    assert world.judge(asked).kind == "allowed"
    world.facts[0] = world.add("federated-training", "producer")
    assert world.judge(asked).kind == "undecided", "nobody's table is no chain"


FOLLOWED = """
  - predicate: source-verification
    of: fairness
    by: [{issuer: https://oidc.example, san: evaluator}]
"""


def measured_on(world, about: str | None):
    digest = {"digest": {"sha256": samples.digest(about)}} if about else {}
    return world.fairness(0.1, body={"dataset": {"name": "data", **digest}})


def test_the_data_set_that_was_measured_is_followed(world, rules) -> None:
    """Otherwise fairness may be measured on a table that somebody made up."""
    world.add("source-verification", "evaluator", about="patients")
    measured_on(world, "patients")
    assert world.judge(rules["fairness"], FOLLOWED).kind == "allowed"
    measured_on(world, "made up")
    verdict = world.judge(rules["fairness"], FOLLOWED)
    assert (verdict.kind, stops(verdict)) == ("undecided", {"source-verification"})
    said = verdict.reasons[0].remedy or ""
    assert "--dataset DATASET --issuer ISSUER --san SAN" in said
    assert samples.digest("made up") in said, "a path is not known here; the digest says which data set is meant"


def test_a_data_set_without_a_digest_cannot_be_followed(world, rules) -> None:
    measured_on(world, None)
    verdict = world.judge(rules["fairness"], FOLLOWED)
    assert (verdict.kind, stops(verdict)) == ("undecided", {"source-verification"})
    assert "mlseal run governance.fairness" in (verdict.reasons[0].remedy or "")


# --- people -----------------------------------------------------------------------------------------------------------


def test_approvals_are_of_distinct_people(world, rules) -> None:
    two = rules["approval"] + "    distinct: 2\n"
    world.add("human-approval", "alice")
    world.add("human-approval", "alice")
    verdict = world.judge(two)
    assert verdict.kind == "undecided"
    assert "1 of 2" in verdict.reasons[0].message
    assert "mlseal approve" in (verdict.reasons[0].remedy or "")
    world.add("human-approval", "bob")
    assert world.judge(two).kind == "allowed"


def test_upper_case_makes_no_second_person(world) -> None:
    domain = (
        "  - {predicate: human-approval, by: [{issuer: https://oidc.example, emailDomain: h.example}], distinct: 2}\n"
    )
    world.add("human-approval", "alice@h.example")
    world.add("human-approval", "Alice@h.example")
    assert world.judge(domain).kind == "undecided"
    world.add("human-approval", "bob@h.example")
    assert world.judge(domain).kind == "allowed"


def test_a_pseudonym_is_one_person_in_every_role_and_domain(world) -> None:
    one, two, host = "p-" + "a" * 26, "p-" + "b" * 26, "https://team.example/people"
    both = (
        "{issuer: https://oidc.example, emailDomain: h.example}, {issuer: https://oidc.example, emailDomain: k.example}"
    )
    policy = f"  - {{predicate: human-approval, by: [{both}], distinct: 2}}\n"
    for domain in ("h.example", "k.example", "l.example"):
        world.add("human-approval", f"{host}/{domain}/{one}")
    assert world.judge(policy).kind == "undecided"
    world.add("human-approval", f"{host}/k.example/{two}")
    assert world.judge(policy).kind == "allowed"


def test_who_measured_under_a_pseudonym_does_not_approve_in_another_role(world, rules) -> None:
    role = "https://oidc.example/roles"
    one, two = f"{role}/evaluator/p-{'a' * 26}", f"{role}/reviewer/p-{'a' * 26}"
    policy = (
        (rules["fairness"] + rules["approval"])
        .replace("san: second", f'san: "{one}"')
        .replace("san: bob", f'san: "{two}"')
    )
    world.fairness(0.1, who=one)
    world.add("human-approval", two)
    assert world.judge(policy).kind == "refused"
    world.add("human-approval", "alice")
    assert world.judge(policy).kind == "allowed"


def test_an_approval_from_the_future_does_not_count(world, rules) -> None:
    world.add("human-approval", "alice", age=-DAY)
    assert world.judge(rules["approval"]).kind == "undecided"


HIGH = {"identity": "verified-token", "log": "pinned", "time": "independent"}


def raised(header: str) -> str:
    return header.replace(
        "identity: local, log: unwitnessed, time: local", ", ".join(f"{k}: {v}" for k, v in HIGH.items())
    )


def test_assurance_of_approvals_ownership_and_waivers(world, rules, header) -> None:
    world.add("human-approval", "alice", assurance={**HIGH, "log": "unwitnessed"})
    assert world.judge(rules["approval"], header=raised(header)).kind == "undecided"
    world.add("human-approval", "bob", assurance=HIGH)
    assert world.judge(rules["approval"], header=raised(header)).kind == "allowed"
    own(world, assurance={**HIGH, "identity": "local"})
    assert world.judge(rules["approval"] + NOT_BY, header=raised(header)).kind == "undecided"
    own(world, assurance=HIGH)
    assert world.judge(rules["approval"] + NOT_BY, header=raised(header)).kind == "allowed"
    world.fairness(0.3, assurance=HIGH)
    waive(world, assurance={**HIGH, "time": "local"})
    assert world.judge(rules["fairness"], header=raised(header)).kind == "refused"
    waive(world, assurance=HIGH)
    assert world.judge(rules["fairness"], header=raised(header)).kind == "allowed"


def test_a_rejection_that_has_ended_stops_nothing(world, rules) -> None:
    world.add("human-approval", "alice", {"decision": "reject", "expires": "2026-11-23T11:00:00Z"}, age=DAY)
    world.add("human-approval", "bob")
    assert world.judge(rules["approval"]).kind == "allowed"


def test_an_approval_grows_old(world, rules) -> None:
    world.add("human-approval", "alice", age=31 * DAY)
    assert world.judge(rules["approval"] + "    maxAge: 30d\n").kind == "undecided"
    world.add("human-approval", "bob", age=29 * DAY)
    assert world.judge(rules["approval"] + "    maxAge: 30d\n").kind == "allowed"


def test_an_approval_ends(world, rules) -> None:
    world.add("human-approval", "alice", {"expires": "2026-11-23T12:00:00Z"})
    assert world.judge(rules["approval"]).kind == "undecided"
    world.add("human-approval", "bob", {"expires": "2026-11-23T12:00:01Z"})
    assert world.judge(rules["approval"]).kind == "allowed"


def test_a_rejection_stops_until_it_ends_or_is_superseded(world, rules) -> None:
    no = world.add("human-approval", "alice", {"decision": "reject"}, age=DAY)
    world.add("human-approval", "bob")
    assert world.judge(rules["approval"]).kind == "refused"
    world.revoke(no, "superseded")
    assert world.judge(rules["approval"]).kind == "allowed"


def test_a_withdrawn_approval_closes_the_gate(world, rules) -> None:
    yes = world.add("human-approval", "alice")
    assert world.judge(rules["approval"]).kind == "allowed"
    world.revoke(yes, "withdrawn")
    assert world.judge(rules["approval"]).kind == "refused"


def test_whoever_made_evidence_approves_their_own_work(world, rules) -> None:
    world.fairness(0.1)
    world.add("human-approval", "evaluator")
    verdict = world.judge(rules["fairness"], rules["approval"])
    assert verdict.kind == "refused"
    assert any("self-approval" in reason.message for reason in verdict.reasons)
    world.add("human-approval", "alice")
    assert world.judge(rules["fairness"], rules["approval"]).kind == "allowed"


def test_whoever_trained_cannot_approve_even_without_a_rule_about_it(world, rules) -> None:
    world.add("slsa-provenance", "alice")
    world.add("human-approval", "alice")
    assert world.judge(rules["approval"]).kind == "refused"


CHAIN_START = CHAIN.partition("  - predicate: data-provenance")[0]
NOT_BY = "    notBy: [trainer]\n"


def own(world, who: str = "owner", holder: str = "alice", **more):
    return world.add(
        "ownership", who, {"roles": {"trainer": [{"issuer": "https://oidc.example", "san": holder}]}}, **more
    )


def test_roles_resolve_through_ownership(world, rules) -> None:
    world.add("human-approval", "alice")
    assert world.judge(rules["approval"] + NOT_BY).kind == "undecided", "a role that resolves to nobody"
    own(world)
    verdict = world.judge(rules["approval"] + NOT_BY)
    assert verdict.kind == "refused"
    assert any("trainer" in reason.message for reason in verdict.reasons)
    world.add("human-approval", "bob")
    assert world.judge(rules["approval"] + NOT_BY).kind == "allowed"


@pytest.mark.parametrize("how", ["stranger", "expired", "withdrawn", "future", "other role", "gate"])
def test_ownership_that_does_not_count_resolves_to_nobody(world, rules, how) -> None:
    world.add("human-approval", "bob")
    if how == "stranger":
        own(world, who="stranger")
    elif how == "expired":
        world.add(
            "ownership",
            "owner",
            {"roles": {"trainer": [{"issuer": "i", "san": "s"}]}, "expires": "2026-11-01T00:00:00Z"},
        )
    elif how == "withdrawn":
        world.revoke(own(world), "withdrawn")
    elif how == "future":
        own(world, age=-DAY)
    elif how == "gate":
        own(world, who="gate")
    else:
        world.add("ownership", "owner", {"roles": {"owner": [{"issuer": "i", "san": "s"}]}})
    assert world.judge(rules["approval"] + NOT_BY).kind in {"undecided", "refused"}


def test_roles_resolve_through_the_inputs_too(world, rules) -> None:
    """Whoever owns the data is named in a statement about the data, not about the model."""
    trained(world, ("data", "a"))
    world.add("human-approval", "alice")
    asked = rules["approval"] + "    notBy: [dataOwner]\n"
    assert world.judge(CHAIN_START, asked).kind == "undecided", "nobody is known to own the data"
    about = world.add(
        "ownership", "owner", {"roles": {"dataOwner": [{"issuer": "https://oidc.example", "san": "alice"}]}}, about="a"
    )
    verdict = world.judge(CHAIN_START, asked)
    assert verdict.kind == "refused"
    assert any("dataOwner" in reason.message for reason in verdict.reasons)
    assert about.evidence_id in {i.evidence_id for i in verdict.inputs}


def test_approval_must_have_read_the_evidence(world, rules) -> None:
    read = rules["approval"] + "    reviewed: [fairness]\n"
    fact = world.fairness(0.1)
    world.add("human-approval", "alice", {"reviewed": []})
    verdict = world.judge(rules["fairness"], read)
    assert verdict.kind == "undecided"
    assert fact.evidence_id in " ".join(reason.remedy or "" for reason in verdict.reasons)
    world.add("human-approval", "bob", {"reviewed": [fact.evidence_id]})
    assert world.judge(rules["fairness"], read).kind == "allowed"
    world.fairness(0.12)  # new evidence: the approval was of something else
    assert world.judge(rules["fairness"], read).kind == "undecided"


def test_approvals_may_have_conditions(world, rules) -> None:
    scoped = (
        rules["approval"]
        + "    when: [{id: scope, message: scope, check: 'has(p.scope) && p.scope == \"production\"'}]\n"
    )
    world.add("human-approval", "alice", {"scope": "staging"})
    assert world.judge(scoped).kind == "refused"
    world.add("human-approval", "bob", {"scope": "production"})
    assert world.judge(scoped).kind == "allowed"


# --- waivers ----------------------------------------------------------------------------------------------------------


def waive(world, who: str = "officer", **more):
    body = {"rule": "gap", "policy": "test/1", "expires": "2026-12-31T00:00:00Z", **more.pop("body", {})}
    return world.add("waiver", who, body, **more)


def test_a_waiver_excuses_one_rule_and_is_noted(world, rules) -> None:
    world.fairness(0.3)
    fact = waive(world)
    verdict = world.judge(rules["fairness"])
    assert verdict.kind == "allowed"
    assert [r.outcome for r in verdict.reasons] == ["note"]
    assert fact.evidence_id in {i.evidence_id for i in verdict.inputs}


@pytest.mark.parametrize(
    "how",
    [
        "signer",
        "rule",
        "policy",
        "subject",
        "ended",
        "revoked",
        "future",
        "producer",
        "gate",
        "trainer",
        "not waivable",
        "no reason",
        "blank reason",
        "no end to speak of",
    ],
)
def test_waivers_that_do_not_count(world, rules, header, how) -> None:
    who = "officer" if how in {"producer", "trainer"} else "evaluator"
    text = rules["fairness"].replace("san: second", "san: officer")
    world.fairness(0.3, who=who if how == "producer" else "evaluator")
    if how == "trainer":
        world.add("slsa-provenance", "officer")
    if how == "gate":
        header = header.replace("san: gate", "san: officer")
    if how == "not waivable":
        text = text.replace("ciHigh <= 0.15'", "ciHigh <= 0.15', waivable: false")
    fact = waive(
        world,
        "stranger" if how == "signer" else "officer",
        about="other" if how == "subject" else "target",
        age=-DAY if how == "future" else DAY,
        body={
            "rule": {"rule": "enough"},
            "policy": {"policy": "test/2"},
            "ended": {"expires": "2026-11-23T12:00:00Z"},
            "no reason": {"reason": ""},
            "blank reason": {"reason": " \n"},
            "no end to speak of": {"expires": "2027-11-24T12:00:00Z"},
        }.get(how, {}),
    )
    if how == "revoked":
        world.revoke(fact, "withdrawn")
    assert world.judge(text, header=header).kind == "refused"


def test_a_waiver_may_last_a_year_and_is_by_nobody_who_should_have_made_what_is_missing(world, rules) -> None:
    asked = rules["fairness"].replace("san: second", "san: officer")
    waive(world, body={"rule": "fairness"})
    verdict = world.judge(asked)
    assert verdict.kind == "undecided"
    assert any("its signer should have made the evidence" in reason.message for reason in verdict.reasons)
    assert world.judge(rules["fairness"]).kind == "allowed"
    world.fairness(0.3)
    waive(world, age=DAY, body={"expires": "2027-11-23T12:00:00Z"})  # 366 days
    assert world.judge(rules["fairness"]).kind == "allowed"


def test_a_waiver_of_a_requirement_excuses_what_is_missing(world, rules) -> None:
    waive(world, body={"rule": "fairness"})
    assert world.judge(rules["fairness"]).kind == "allowed"
    world.fairness(0.3)
    assert world.judge(rules["fairness"]).kind == "refused", "what is there and fails is another rule"


@pytest.mark.parametrize("how", ["old", "weak"])
def test_a_waiver_of_a_requirement_excuses_what_is_old_or_weak_but_not_by_its_maker(world, rules, how) -> None:
    asked = rules["fairness"].replace("san: second", "san: officer") + (
        "    maxAge: 30d\n" if how == "old" else "    strength: measured\n"
    )
    age = 31 * DAY if how == "old" else DAY
    fact = world.fairness(0.1, who="officer", age=age)
    waive(world, body={"rule": "fairness"})
    verdict = world.judge(asked)
    assert verdict.kind == "undecided", "who made it may not excuse it"
    assert any("made the evidence" in reason.message for reason in verdict.reasons)
    world.facts.remove(fact)
    world.fairness(0.1, age=age)
    assert world.judge(asked).kind == "allowed"


def test_who_made_it_is_a_person_in_whatever_letters(world, header) -> None:
    """Approvals compare people without letter case, so waivers and training accounts must too."""
    signer = "{issuer: https://oidc.example, emailDomain: h.example}"
    header = header.replace("{issuer: https://oidc.example, san: officer}", signer)
    asked = f"  - {{predicate: fairness, by: [{signer}], maxAge: 30d, when: [{{id: gap, message: m, check: 'p.n >= 10'}}]}}\n"
    world.add("fairness", "ana@h.example", {"n": 1})
    waive(world, "Ana@h.example")
    assert world.judge(asked, header=header).kind == "refused"
    waive(world, "Bea@h.example")
    assert world.judge(asked, header=header).kind == "allowed"
    world.add("slsa-provenance", "bea@h.example")
    assert world.judge(asked, header=header).kind == "refused"


def test_the_training_account_is_a_person_in_whatever_letters(world) -> None:
    asked = (
        "  - {predicate: fairness, by: [{issuer: https://oidc.example, emailDomain: h.example}], strength: measured}\n"
    )
    world.add("slsa-provenance", "ANA@h.example")
    world.fairness(0.1, who="ana@h.example")
    assert world.judge(asked).kind == "undecided"
    world.fairness(0.1, who="bea@h.example")
    assert world.judge(asked).kind == "allowed"


@pytest.mark.parametrize("reason", ["withdrawn", "expired", "superseded"])
@pytest.mark.parametrize("kind", ["fairness", "approval"])
def test_a_waiver_does_not_reopen_what_a_revoker_closed(world, rules, kind, reason) -> None:
    taken = world.fairness(0.1) if kind == "fairness" else world.add("human-approval", "alice")
    waive(world, body={"rule": "fairness" if kind == "fairness" else "human-approval"})
    assert world.judge(rules[kind]).kind == "allowed"
    world.revoke(taken, reason)
    assert world.judge(rules[kind]).kind == "refused"


def test_a_waiver_that_does_not_count_lends_the_verdict_no_weakness(world, rules, header) -> None:
    strict = raised(header)
    world.fairness(0.3, assurance=HIGH)
    weak = waive(world, assurance={**HIGH, "time": "local"})
    waive(world, assurance=HIGH)
    verdict = world.judge(rules["fairness"], header=strict)
    assert (verdict.kind, verdict.assurance["time"]) == ("allowed", "independent")
    assert weak.evidence_id in {i.evidence_id for i in verdict.inputs}, "looked at, and said so"


def test_a_waiver_never_excuses_a_withheld_leaf(world, rules) -> None:
    world.fairness(0.1)
    waive(world, body={"rule": "log"})
    world.withheld = (Leaf("log1.example", 5, "ab" * 32, Identity("i", "s")),)
    assert world.judge(rules["fairness"]).kind == "undecided"


# --- several policies, actions, observing -----------------------------------------------------------------------------


def test_unmatched_actions_are_refused(world, rules) -> None:
    world.fairness(0.1)
    ok = Action("t", "a", {"model": "Risk-1"})
    assert world.judge(rules["fairness"], action=ok).kind == "allowed"
    for action in (
        Action("t", "b", {"model": "risk-1"}),
        Action("u", "a", {"model": "risk-1"}),
        Action("t", "a", {"model": "other"}),
    ):
        verdict = world.judge(rules["fairness"], action=action)
        assert (verdict.kind, stops(verdict)) == ("refused", {"applies"})
        assert [name for name, _ in verdict.policies] == ["test/1"], (
            "pinned: who asks later sees by what it was refused"
        )
        asked = f"--action {action.tool}/{action.action} --fact model={action.items['model']}"
        assert asked in (verdict.reasons[0].remedy or "")


def test_names_that_are_not_plain_are_refused(world, rules) -> None:
    world.fairness(0.1)
    for name in ("risk-\u0430", "risk-1 ", "risk-\u200b1", "r\uff49sk-1"):
        verdict = world.judge(rules["fairness"], action=Action("t", "a", {"model": name}))
        assert (stops(verdict), [name for name, _ in verdict.policies]) == ({"name"}, ["test/1"])


def test_several_policies_must_all_allow(world, rules, header) -> None:
    world.fairness(0.1)
    first = parse((header + rules["fairness"]).encode())
    second = parse((header.replace("test/1", "test/2") + rules["approval"]).encode())
    target = Target("target", samples.digest("target"))
    action = Action("t", "a", {"model": "risk-1"})
    verdict = decide(world.source, target, action, (first, second), now=world.now)
    assert (verdict.kind, [n for n, _ in verdict.policies]) == ("undecided", ["test/1", "test/2"])
    world.add("human-approval", "alice")
    assert decide(world.source, target, action, (first, second), now=world.now).kind == "allowed"
    assert decide(world.source, target, action, (), now=world.now).kind == "refused"
    assert decide(world.source, target, None, (), now=world.now).kind == "refused"


def test_exemptions(world) -> None:
    raw = (
        b"policy: free/1\nungoverned: [{tool: t, action: a, model: scratch, owner: lead, until: 2026-12-01T00:00:00Z}]"
    )
    free, target = parse(raw), Target("target", samples.digest("target"))
    action = Action("t", "a", {"model": "Scratch"})
    verdict = decide(world.source, target, action, (free,), now=world.now)
    assert (verdict.kind, verdict.reasons[0].outcome) == ("allowed", "note")
    assert "lead" in (verdict.reasons[0].got or "")
    assert decide(world.source, target, action, (free,), now=world.now + 30 * DAY).kind == "refused"
    assert decide(world.source, target, Action("t", "a"), (free,), now=world.now).kind == "refused"


def test_a_policy_that_applies_outweighs_an_exemption(world, rules, header) -> None:
    world.fairness(0.3)
    strict = parse((header + rules["fairness"]).encode())
    free = parse(
        b"policy: free/1\nungoverned: [{tool: t, action: a, model: '*', owner: lead, until: 2026-12-01T00:00:00Z}]"
    )
    target = Target("target", samples.digest("target"))
    assert (
        decide(world.source, target, Action("t", "a", {"model": "risk-1"}), (free, strict), now=world.now).kind
        == "refused"
    )


def test_observing_records_lets_pass_and_ends(world, rules, header) -> None:
    world.fairness(0.3)
    watching = header.replace("require:", "observe: {until: 2026-12-01T00:00:00Z, owner: lead}\nrequire:")
    verdict = world.judge(rules["fairness"], header=watching)
    assert (verdict.kind, verdict.mode, verdict.passes) == ("refused", "observe", True)
    raise_for(verdict)
    world.now += 30 * DAY
    late = world.judge(rules["fairness"], header=watching)
    assert (late.mode, late.passes) == ("enforce", False)


def test_observing_never_softens_an_enforcing_policy(world, rules, header) -> None:
    world.fairness(0.3)
    watching = parse(
        (
            header.replace("require:", "observe: {until: 2026-12-01T00:00:00Z, owner: lead}\nrequire:").replace(
                "test/1", "w/1"
            )
            + rules["fairness"]
        ).encode()
    )
    strict = parse((header + rules["fairness"]).encode())
    target = Target("target", samples.digest("target"))
    assert decide(world.source, target, None, (watching, strict), now=world.now).mode == "enforce"
    calm = parse((header.replace("test/1", "c/1") + rules["fairness"].replace("0.15", "0.5")).encode())
    assert decide(world.source, target, None, (watching, calm), now=world.now).mode == "observe"


# --- what a verdict is made of ----------------------------------------------------------------------------------------


def test_everything_that_was_looked_at_is_an_input(world, rules) -> None:
    """What was set aside too: a reader must see that there was a failure, and by whose word it counts no longer."""
    red = world.fairness(0.3, age=DAY)
    other = world.fairness(0.9, body={"attribute": "age"})
    green = world.fairness(0.1, body={"attribute": "sex"})
    old = own(world, holder="eve", age=DAY)
    yes = world.add("human-approval", "bob", {"reviewed": [green.evidence_id]})
    no = world.add("human-approval", "alice", {"decision": "reject"}, age=2 * DAY)
    about = own(world)
    world.revoke(red, "superseded")
    world.revoke(no, "superseded")
    world.revoke(old, "withdrawn")
    chosen = rules["fairness"] + "    where: 'p.attribute != \"age\"'\n"
    verdict = world.judge(chosen, rules["approval"] + NOT_BY)
    assert verdict.kind == "allowed"
    listed = [i.evidence_id for i in verdict.inputs]
    assert set(listed) == {fact.evidence_id for fact in (red, other, green, yes, no, about, old)}
    assert len(listed) == len(set(listed))


def test_what_was_set_aside_lends_the_verdict_no_weakness(world, rules, header) -> None:
    red = world.fairness(0.3, age=DAY)
    world.fairness(0.1, assurance=HIGH)
    world.revoke(red, "superseded")
    verdict = world.judge(rules["fairness"], header=raised(header))
    assert (verdict.kind, verdict.assurance) == ("allowed", HIGH)


def test_people_count_for_the_assurance_of_a_verdict(world, rules) -> None:
    world.add("human-approval", "alice", assurance=HIGH)
    assert world.judge(rules["approval"]).assurance == HIGH
    own(world, holder="eve", assurance={**HIGH, "time": "local"})
    assert world.judge(rules["approval"] + NOT_BY).assurance == {**HIGH, "time": "local"}


def test_a_waiver_counts_for_the_assurance_of_a_verdict(world, rules) -> None:
    world.fairness(0.3, assurance=HIGH)
    waive(world, assurance={**HIGH, "time": "local"})
    assert world.judge(rules["fairness"]).assurance == {**HIGH, "time": "local"}


def test_the_gates_own_word_is_listed_where_it_is_the_reason(world) -> None:
    fact = world.fairness(0.1, who="gate")
    verdict = world.judge("  - {predicate: fairness, by: [{issuer: https://oidc.example, san: gate}]}\n")
    assert [i.evidence_id for i in verdict.inputs] == [fact.evidence_id]
