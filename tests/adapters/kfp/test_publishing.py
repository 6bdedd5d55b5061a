"""A step leaves all of its outputs or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlseal_kfp.executor_input import Artifact, Task
from mlseal_kfp.publishing import Outputs

from mlseal.errors import Misuse, Unchecked, Unreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pipeline root of its own; the test's home lies beside it."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def _task(root: Path) -> Task:
    return Task(
        output_artifacts={name: Artifact(name, f"s3://b/{name}", root / name, "17") for name in ("out", "evidence")},
        output_parameters={"evidence_sha256": root / "params" / "evidence_sha256"},
        output_file=root / "executor_output.json",
    )


def _left(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_everything_appears(root: Path) -> None:
    """Files, a directory, parameters, and the document that names them by the given URI."""
    with Outputs(_task(root)) as outputs:
        model = outputs.stage("out")
        model.mkdir()
        (model / "weights").write_text("w")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.describe("evidence", sha256="abc")
        assert _left(root) == sorted(_left(root))
        assert not (root / "out").exists()
        outputs.publish()
    assert _left(root) == ["evidence", "executor_output.json", "out/weights", "params/evidence_sha256"]
    document = json.loads((root / "executor_output.json").read_text())
    assert document["artifacts"]["evidence"]["artifacts"] == [
        {"name": "17", "uri": "s3://b/evidence", "metadata": {"sha256": "abc"}}
    ]
    assert document["parameterValues"] == {"evidence_sha256": "abc"}


def test_failure_leaves_nothing(root: Path) -> None:
    """An exception in the middle: not even the private directories stay."""
    with pytest.raises(RuntimeError), Outputs(_task(root)) as outputs:
        outputs.stage("out").write_text("half")
        raise RuntimeError
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("missing", ["out", "evidence", "evidence_sha256"])
def test_incomplete_is_refused(root: Path, missing: str) -> None:
    """A declared output that was not made."""
    with pytest.raises(Unchecked, match="did not make every output") as caught, Outputs(_task(root)) as outputs:
        for port in ("out", "evidence"):
            path = outputs.stage(port)
            if port != missing:
                path.write_text("x")
        if missing != "evidence_sha256":
            outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert missing in str(caught.value)
    assert _left(root) == []


def test_failure_while_publishing_takes_back(root: Path) -> None:
    """The parameter's place is a file where a directory must be: what was placed before goes away again."""
    (root / "params").write_text("in the way")
    with pytest.raises(Unreadable), Outputs(_task(root)) as outputs:
        outputs.stage("out").write_text("m")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert _left(root) == ["params"]


def test_retry_replaces_the_earlier_attempt(root: Path) -> None:
    """KFP retries a task in the same place."""
    (root / "out").mkdir()
    (root / "out" / "stale").write_text("old")
    with Outputs(_task(root)) as outputs:
        outputs.stage("out").write_text("new")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert (root / "out").read_text() == "new"


def test_unknown_names(root: Path) -> None:
    """A component compiled from another signature."""
    with Outputs(_task(root)) as outputs:
        with pytest.raises(Misuse, match="no output 'nope'"):
            outputs.stage("nope")
        with pytest.raises(Misuse, match="no output parameter"):
            outputs.value("nope", "x")
