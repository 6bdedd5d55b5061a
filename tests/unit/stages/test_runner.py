"""The runner: bytes before and after, nothing published without evidence, one sentence for whatever goes wrong."""

import json
import os
import sys
import types

import pytest

from mlseal.errors import DigestMismatch, MalformedEvidence, Misuse, ServiceUnavailable, Unchecked, Unreadable
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.stages import registry, runner
from mlseal.stages.base import Context, DatasetPath, Finding, OutputModel, stage


@pytest.fixture
def define(monkeypatch):
    """Registers `function` as a built-in stage for this test."""

    def go(function, name="testing.probe", predicate="source-verification"):
        module = types.ModuleType("probe_stage")
        module.probe = stage(name, predicate=predicate)(function)
        monkeypatch.setitem(sys.modules, "probe_stage", module)
        monkeypatch.setitem(registry.BUILTIN, name, "probe_stage:probe")

    return go


FIELDS = {
    "source": {
        "evidenceId": "0" * 64,
        "predicateType": "x:y",
        "issuer": "i",
        "san": "s",
        "signedOn": "2026-01-01T00:00:00Z",
    },
    "assurance": {},
    "files": 1,
    "size": 1,
}


def finding(**changes):
    return Finding(
        **{
            "subjects": ("data",),
            "fields": FIELDS,
            "not_proven": ("much",),
            "seed": 4,
            "libraries": {"numpy": "2"},
            **changes,
        }
    )


@pytest.fixture
def data(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rows").write_text("1\n")
    return tmp_path / "in"


def test_the_common_fields_are_the_runners(define, perform, data):
    def probe(data: DatasetPath, count: int = 2, seed: int = 0, *, context: Context) -> Finding:
        """Probe."""
        assert os.stat(context.workspace).st_mode & 0o777 == 0o700
        return finding()

    define(probe)
    made = perform("testing.probe", data=data)
    said = made.predicate
    assert made.subjects == measure(data).subjects
    assert said["harness"]["name"] == "testing.probe"
    assert said["harness"]["provider"] == "mlseal"
    assert said["harness"]["libraries"] == {"numpy": "2"}
    assert (said["runId"], said["seed"], said["strength"], said["notProven"]) == ("run-1", 4, "measured", ["much"])
    assert said["startedOn"] <= said["finishedOn"]
    again = perform("testing.probe", data=data, seed=9).predicate["harness"]["configDigest"]
    assert again == said["harness"]["configDigest"]
    assert perform("testing.probe", data=data, count=3).predicate["harness"]["configDigest"] != again


@pytest.mark.parametrize("change", ["edit", "add", "rename"])
def test_an_input_that_changes_while_the_stage_runs_refuses(define, perform, data, change):
    def probe(data: DatasetPath, *, context: Context) -> Finding:
        """Probe."""
        if change == "edit":
            (data / "rows").write_text("2\n")
        elif change == "add":
            (data / "more").write_text("x")
        else:
            (data / "rows").rename(data / "sworn")
        return finding()

    define(probe)
    with pytest.raises(DigestMismatch, match="input data changed"):
        perform("testing.probe", data=data)


def writer(data: DatasetPath, out: OutputModel, how: str = "file", *, context: Context) -> Finding:
    """Write."""
    if how == "directory":
        out.mkdir()
        (out / "model.bin").write_text("weights")
    elif how == "empty":
        out.write_text("")
    elif how == "link":
        out.symlink_to(data)
    elif how == "fail":
        out.mkdir()
        (out / "half").write_text("half")
        raise Unchecked("the trainer gave up")
    elif how == "bug":
        out.write_text("half")
        raise ZeroDivisionError("division by zero")
    elif how != "nothing":
        out.write_text("weights")
    return finding(subjects=("out",))


@pytest.mark.parametrize("how", ["file", "directory"])
def test_outputs_are_published_under_their_name_and_measured_so(define, perform, data, tmp_path, how):
    define(writer)
    made = perform("testing.probe", data=data, out=tmp_path / "deep" / "model", how=how)
    assert made.subjects == measure(tmp_path / "deep" / "model").subjects
    assert os.listdir(tmp_path / "deep") == ["model"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "left no usable output out"),
        ("nothing", "left no usable output out"),
        ("link", "left a link"),
        ("fail", "the trainer gave up"),
        ("bug", "unexpected ZeroDivisionError; got line [0-9]+ of tests.unit.stages.test_runner"),
    ],
)
def test_a_failed_stage_leaves_no_output(define, perform, data, tmp_path, how, message):
    define(writer)
    (tmp_path / "place").mkdir()
    with pytest.raises(Unchecked, match=message):
        perform("testing.probe", data=data, out=tmp_path / "place" / "model", how=how)
    assert os.listdir(tmp_path / "place") == []
    assert (data / "rows").read_text() == "1\n"


def test_what_is_not_published_disappears_with_the_block(define, data, tmp_path):
    define(writer)
    (tmp_path / "place").mkdir()
    with runner.performed("testing.probe", {"data": str(data), "out": str(tmp_path / "place/model")}, archive=None):
        assert not (tmp_path / "place/model").exists()
    assert os.listdir(tmp_path / "place") == []


@pytest.mark.parametrize("how", ["file", "directory"])
def test_a_name_taken_meanwhile_is_not_overwritten(define, data, tmp_path, how):
    define(writer)
    given = {"data": str(data), "out": str(tmp_path / "model"), "how": how}
    with runner.performed("testing.probe", given, archive=None) as done:
        if how == "file":
            (tmp_path / "model").write_text("another's")
        else:
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "x").write_text("another's")
        with pytest.raises(Unreadable, match="cannot publish"):
            done.publish()
    assert "another's" in {(tmp_path / "model").read_text() if how == "file" else (tmp_path / "model/x").read_text()}
    assert not list(tmp_path.glob(".model*"))


def test_findings_that_break_the_schema_or_name_nothing_are_not_stated(define, perform, data):
    for changed, error in (
        ({"fields": {**FIELDS, "files": 0}}, MalformedEvidence),
        ({"fields": {}}, MalformedEvidence),
        ({"not_proven": ()}, MalformedEvidence),
        ({"subjects": ("nowhere",)}, Misuse),
        ({"subjects": ()}, MalformedEvidence),
    ):

        def probe(data: DatasetPath, *, context: Context, changed=changed) -> Finding:
            """Probe."""
            return finding(**changed)

        probe.__signature__ = None
        del probe.__signature__
        define(_without_extra(probe))
        with pytest.raises(error):
            perform("testing.probe", data=data)


def _without_extra(probe):
    def bare(data: DatasetPath, *, context: Context) -> Finding:
        """Probe."""
        return probe(data, context=context)

    return bare


def test_a_stage_that_returns_something_else_is_refused(define, perform, data):
    def probe(data: DatasetPath, *, context: Context) -> Finding:
        """Probe."""
        return {"fine": True}

    define(probe)
    with pytest.raises(Misuse, match="no finding; got dict"):
        perform("testing.probe", data=data)


def test_run_signs_stores_publishes_and_writes_the_bundle_last(define, data, tmp_path, authority):
    define(writer)
    out = tmp_path / "place" / "bundle.json"
    bundle = runner.run(
        "testing.probe",
        {"data": str(data), "out": str(tmp_path / "model")},
        signer=authority.signer("producer"),
        store=authority.store,
        out=out,
        run_id="kfp-17",
        quiet=True,
    )
    assert Bundle.read(out) == bundle == authority.store.get(bundle.evidence_id)
    assert bundle.statement.subjects == measure(tmp_path / "model").subjects
    assert bundle.statement.predicate["runId"] == "kfp-17"


def test_without_a_signature_nothing_is_published(define, data, tmp_path, new_authority):
    define(writer)
    authority = new_authority()
    authority.stop()
    (authority.state).rename(authority.state.with_name("gone"))  # nothing to start on demand either
    before = set(authority.store.ids())
    with pytest.raises((ServiceUnavailable, Unchecked)):
        runner.run(
            "testing.probe",
            {"data": str(data), "out": str(tmp_path / "place/model")},
            signer=authority.signer("producer"),
            store=authority.store,
            out=tmp_path / "bundle.json",
            quiet=True,
        )
    assert list(tmp_path.glob("place/*")) == [] and not (tmp_path / "bundle.json").exists()
    assert set(authority.store.ids()) == before


def test_a_bundle_cannot_be_written_over_a_directory(define, data, tmp_path, authority):
    define(writer)
    with pytest.raises(Misuse, match="is a directory"):
        runner.run(
            "testing.probe",
            {"data": str(data), "out": str(tmp_path / "model")},
            signer=authority.signer(),
            store=authority.store,
            out=tmp_path,
            quiet=True,
        )
    assert not (tmp_path / "model").exists()


def test_the_command_line_runs_a_stage_and_prints_json(data, tmp_path, authority):
    done = authority.call("run", "ingestion.source", "--dataset", str(data), "--issuer", "x", "--san", "y", "--json")
    assert done.returncode == 11 and json.loads(done.stderr)["error"] == "NoEvidence"
    script = tmp_path / "train.py"
    script.write_text("import sys, pathlib; pathlib.Path(sys.argv[4]).write_text(' '.join(sys.argv[5:]))")
    done = authority.call(
        "run",
        "training.run",
        "--script",
        str(script),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "model"),
        "--parameters",
        "rate=0.1",
        "--parameters",
        "label=a=b",
        "-o",
        str(tmp_path / "b.json"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["evidenceId"] == Bundle.read(tmp_path / "b.json").evidence_id
    assert facts["subjects"] == [{"name": "model", "sha256": measure(tmp_path / "model").sha256}]
    assert (tmp_path / "model").read_text() == "--param label=a=b --param rate=0.1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope.stage"], 2, "there is no stage 'nope.stage'; expected"),
        (["governance.fairnes"], 2, "there is no stage 'governance.fairnes'; did you mean governance.fairness"),
        (["pii"], 2, "did you mean ingestion.pii?"),
        (["governance.fairness"], 2, "Missing option '--model'"),
        (["training.run", "--script", "s", "--data", "d", "--out", "o", "--parameters", "x"], 2, "NAME=VALUE"),
        (["training.run", "--script", "s", "--data", "d", "--out", "o"], 11, "does not exist"),
    ],
)
def test_wrong_calls_are_one_sentence(authority, arguments, code, message):
    done = authority.call("run", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
