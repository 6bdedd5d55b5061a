"""Parts become a whole only if they are all the parts, of these bytes and this question, by this signer."""

import secrets
import sys
import types
from datetime import timedelta

import pytest

from mlseal.errors import Error, Misuse, NoEvidence, RuleBroken, StaleEvidence, Withheld
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive, revocation_subject
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import partial_result, revocation
from mlseal.stages import registry, runner
from mlseal.stages.base import Bounds, Context, DatasetPath, Finding, Merge, OutputModel, stage
from mlseal.stages.manner import Manner
from mlseal.stages.shard import Shard
from tests.unit.stages.test_runner import FIELDS


def summed(parts):
    return {**parts[0], "files": sum(part["files"] for part in parts), "size": sum(part["size"] for part in parts)}


def sizes(data: DatasetPath, least: int = 0, seed: int = 0, *, context: Context) -> Finding:
    """Count files and bytes."""
    whole = context.measured["data"]
    files = whole.manifest.files if context.shard is None else context.shard.files(whole)
    fields = {**FIELDS, "files": len(files), "size": sum(file.size for file in files)}
    return Finding(("data",), fields, not_proven=("much",), seed=seed, libraries={"counter": "1"})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(7):
        (folder / f"f{number}").write_text("x" * (number + 1) + str(tmp_path))
    return folder


@pytest.fixture(autouse=True)
def probe(monkeypatch):
    module = types.ModuleType("probe_stage")
    for name in ("probe", "twin"):
        made = stage(f"testing.{name}", predicate="source-verification", merge=Merge("data", summed))(sizes)
        setattr(module, name, made)
        monkeypatch.setitem(registry.BUILTIN, f"testing.{name}", f"probe_stage:{name}")
    monkeypatch.setitem(sys.modules, "probe_stage", module)


@pytest.fixture
def run(authority, data):
    def go(manner, name="testing.probe", role="producer", about=None, clock=utcnow, **arguments):
        given = {"data": str(about or data), **{key: str(value) for key, value in arguments.items()}}
        options = {"store": authority.store, "quiet": True, "manner": manner, "clock": clock}
        return runner.run(name, given, signer=authority.signer(role), **options)

    return go


@pytest.fixture
def part(run):
    return lambda index, count, **more: run(Manner(shard=Shard(index, count)), **more)


@pytest.fixture
def merge(run):
    return lambda *parts, **more: run(Manner(partials=parts), **more)


def test_all_parts_make_what_the_stage_makes_at_once(run, part, merge, data):
    parts = [part(index, 3) for index in (3, 1, 2)]
    assert {bundle.statement.predicate_type for bundle in parts} == {partial_result.URI}
    assert "this is one part" in parts[0].statement.predicate["notProven"][0]
    whole, at_once = merge(*parts).statement, run(Manner()).statement
    assert whole.predicate_type == at_once.predicate_type and whole.subjects == at_once.subjects
    assert whole.predicate["files"] == at_once.predicate["files"] == 7
    assert whole.predicate["size"] == at_once.predicate["size"]
    order = [parts[1].evidence_id, parts[2].evidence_id, parts[0].evidence_id]
    assert whole.predicate["harness"] == {**at_once.predicate["harness"], "partials": order}
    assert whole.predicate["notProven"] == ["much"]


def test_merging_does_not_make_old_measurements_fresh(part, merge):
    """The merged evidence has the time of merging; what it says was found when its oldest part was measured."""
    hour = timedelta(hours=1)
    parts = [part(1, 2, clock=lambda: utcnow() - 2 * hour), part(2, 2)]
    started = parts[0].statement.predicate["startedOn"]
    assert started < parts[1].statement.predicate["startedOn"]
    assert merge(*parts).statement.predicate["startedOn"] == started
    assert merge(*parts, clock=lambda: utcnow() + 23 * hour).statement.predicate["startedOn"] == started
    with pytest.raises(StaleEvidence, match=r"part 1/2 was made too long ago.*--shard 1/2"):
        merge(*parts, clock=lambda: utcnow() + 25 * hour)


def test_no_item_is_in_two_parts_or_in_none(data):
    whole = measure(data)
    for count in (1, 2, 3, 10):
        found = [entry for index in range(1, count + 1) for entry in Shard(index, count).files(whole)]
        assert sorted(found) == sorted(whole.manifest.files)


def test_missing_and_doubled_parts_make_no_whole(part, merge, authority):
    one, two, again = part(1, 3), part(2, 3), part(2, 3)
    other, before = part(2, 2), set(authority.store.ids())
    with pytest.raises(
        NoEvidence,
        match=r"parts are missing; got 2 of 3; expected also 3/3; remedy: mlseal run testing.probe --shard 3/3",
    ):
        merge(one, two)
    with pytest.raises(RuleBroken, match="twice"):
        merge(one, two, again)
    with pytest.raises(RuleBroken, match="different divisions"):
        merge(one, other)
    assert set(authority.store.ids()) == before


def test_parts_of_another_question_make_no_whole(part, merge, data, tmp_path):
    one = part(1, 2)
    for more, what in (
        ({"least": 1}, "configDigest"),
        ({"seed": 1}, "inputsDigest"),
        ({"name": "testing.twin"}, "name"),
    ):
        with pytest.raises(RuleBroken, match=f"of another {what}"):
            merge(one, part(2, 2, **more))


def test_parts_of_other_bytes_make_no_whole(part, merge, data):
    one, two = part(1, 2), part(2, 2)
    (data / "f0").write_text("changed")
    with pytest.raises(Error):
        merge(one, two)


def test_a_part_that_another_identity_signed_is_foreign(part, merge):
    with pytest.raises(Error, match=r"evaluator|identity"):
        merge(part(1, 2), part(2, 2, role="evaluator"))


def test_a_withdrawn_part_does_not_count(authority, part, merge):
    one, two = part(1, 2), part(2, 2)
    claim = {"evidenceId": two.evidence_id, "reason": "withdrawn", "nonce": secrets.token_hex(16)}
    subject = revocation_subject(two.evidence_id)
    authority.signer("producer").sign(statement.make([subject], revocation.URI, claim))
    with pytest.raises(Error, match="withdrawn"):
        merge(one, two)


def test_a_withdrawal_that_nobody_shows_stops(new_authority, data):
    """Of any age and kind: what the account that merges, or a monitor, signed may be the end of a part."""
    for role in ("producer", "monitor"):
        authority = new_authority()

        def run(**manner):
            signer = authority.signer("producer")  # noqa: B023 - called in this turn of the loop
            given = {"signer": signer, "store": authority.store, "quiet": True}  # noqa: B023
            return runner.run("testing.probe", {"data": str(data)}, manner=Manner(**manner), **given)

        parts = tuple(run(shard=Shard(index, 2)) for index in (1, 2))
        for part in parts:
            authority.store.path(part.evidence_id).unlink()
        assert run(partials=parts).statement.predicate["files"] == 7, "made on other machines, and shown"
        assert {part.evidence_id for part in parts} <= set(authority.store.ids()), "a gate wants to see them too"
        claim = {"evidenceId": parts[0].evidence_id, "reason": "withdrawn", "nonce": secrets.token_hex(16)}
        subject = revocation_subject(parts[0].evidence_id)
        revoked = authority.signer(role).sign(statement.make([subject], revocation.URI, claim))
        authority.store.path(revoked.evidence_id).unlink()
        with pytest.raises(Withheld, match="nobody shows"):
            run(partials=parts)
        authority.store.put(revoked)
        with pytest.raises(Error, match="withdrawn"):
            run(partials=parts)


def test_names_are_hidden_in_the_parts_and_in_the_whole_or_in_neither(part, merge, monkeypatch):
    plain = [part(index, 2) for index in (1, 2)]
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    hidden = [part(index, 2) for index in (1, 2)]
    with pytest.raises(RuleBroken, match="got plain; expected committed"):
        merge(hidden[0], plain[1])
    assert merge(*hidden).statement.predicate["files"] == 7
    monkeypatch.setenv("MLSEAL_NAMES", "plain")
    with pytest.raises(RuleBroken, match="got committed; expected plain"):
        merge(hidden[0], plain[1])


def test_whole_evidence_is_no_part(run, part, merge):
    with pytest.raises(Error):
        merge(part(1, 2), run(Manner()))


def test_a_part_that_lies_about_its_division_is_found(authority, part, merge, data):
    one, two = part(1, 2), part(2, 2)
    lie = {
        **two.statement.predicate,
        "runId": "lie",
        "shard": {**two.statement.predicate["shard"], "partDigest": "0" * 64},
    }
    forged = authority.signer("producer").sign(statement.make(measure(data).subjects, partial_result.URI, lie))
    with pytest.raises(RuleBroken, match="another division"):
        merge(one, forged)


def test_a_part_is_not_evidence_of_the_stages_type(authority, part, data):
    part(1, 2)
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    assert archive.candidates([measure(data).sha256], ["source-verification"]) == []


def test_evidence_of_the_whole_serves_again_for_no_part(authority, run, data):
    whole = run(Manner())
    given = {"signer": authority.signer("producer"), "store": authority.store, "quiet": True, "reuse": True}
    assert runner.run("testing.probe", {"data": str(data)}, **given).evidence_id == whole.evidence_id
    part = runner.run("testing.probe", {"data": str(data)}, manner=Manner(shard=Shard(1, 2)), **given)
    assert part.statement.predicate_type == partial_result.URI


def test_the_command_line_runs_and_merges(authority, data, tmp_path):
    store = ("--store", str(authority.store.root))
    files = [tmp_path / f"part-{index}.json" for index in (1, 2)]
    for index, file in enumerate(files, 1):
        done = authority.call(
            "run", "testing.probe", "--data", str(data), "--shard", f"{index}/2", "-o", str(file), *store
        )
        assert done.returncode == 0, done.stderr
    merged = ["run", "testing.probe", "--data", str(data), *store]
    assert authority.call(*merged, "--merge", str(files[0])).returncode == 11
    done = authority.call(*merged, "--merge", str(files[0]), "--merge", str(files[1]))
    assert done.returncode == 0, done.stderr
    assert authority.call(*merged, "--shard", "1/2", "--merge", str(files[0])).returncode == 2


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/501", "1/4/4"])
def test_what_is_no_shard_is_misuse(text):
    with pytest.raises(Misuse):
        Shard.parse(text)


def test_what_cannot_run_in_shards_says_so(run, data):
    with pytest.raises(Misuse, match="does not run in shards"):
        runner.performed(
            "ingestion.source", {"dataset": str(data)}, archive=lambda: None, manner=Manner(shard=Shard(1, 2))
        ).__enter__()

    def makes(data: DatasetPath, out: OutputModel, *, context: Context) -> Finding:
        """Make."""

    def private(data: DatasetPath, epsilon: str, delta: str, unit: str, *, context: Context) -> Finding:
        """Keep privacy."""

    with pytest.raises(Misuse, match="cannot run in shards"):
        stage("testing.makes", predicate="source-verification", merge=Merge("data", summed))(makes)
    assert stage("testing.makes", predicate="source-verification", merge=Merge("data"))(makes).merge == Merge("data")
    with pytest.raises(Misuse, match="cannot run in shards"):
        bounds = Bounds("epsilon", "delta", "unit")
        stage("testing.private", predicate="source-verification", releases=bounds, merge=Merge("data", summed))(private)
    with pytest.raises(Misuse, match="no parameter"):
        stage("testing.absent", predicate="source-verification", merge=Merge("rows", summed))(sizes)
