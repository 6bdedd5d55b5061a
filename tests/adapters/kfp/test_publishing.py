"""A step leaves all of its outputs or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlseal.errors import Misuse, Unchecked, Unreadable
from mlseal_kfp.executor_input import Artifact, Task
from mlseal_kfp.publishing import Outputs


def _task(root: Path) -> Task:
    return Task(
        output_artifacts={name: Artifact(name, f"s3://b/{name}", root / name, "17") for name in ("out", "evidence")},
        output_parameters={"evidence_sha256": root / "params" / "evidence_sha256"},
        output_file=root / "executor_output.json",
    )


def _left(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_everything_appears(tmp_path: Path) -> None:
    """Files, a directory, parameters, and the document that names them by the given URI."""
    with Outputs(_task(tmp_path)) as outputs:
        model = outputs.stage("out")
        model.mkdir()
        (model / "weights").write_text("w")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.describe("evidence", sha256="abc")
        assert _left(tmp_path) == sorted(_left(tmp_path))
        assert not (tmp_path / "out").exists()
        outputs.publish()
    assert _left(tmp_path) == ["evidence", "executor_output.json", "out/weights", "params/evidence_sha256"]
    document = json.loads((tmp_path / "executor_output.json").read_text())
    assert document["artifacts"]["evidence"]["artifacts"] == [{"name": "17", "uri": "s3://b/evidence", "metadata": {"sha256": "abc"}}]
    assert document["parameterValues"] == {"evidence_sha256": "abc"}


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    """An exception in the middle: not even the private directories stay."""
    with pytest.raises(RuntimeError), Outputs(_task(tmp_path)) as outputs:
        outputs.stage("out").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["out", "evidence", "evidence_sha256"])
def test_incomplete_is_refused(tmp_path: Path, missing: str) -> None:
    """A declared output that was not made."""
    with pytest.raises(Unchecked, match="did not make every output") as caught, Outputs(_task(tmp_path)) as outputs:
        for port in ("out", "evidence"):
            path = outputs.stage(port)
            if port != missing:
                path.write_text("x")
        if missing != "evidence_sha256":
            outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert missing in str(caught.value)
    assert _left(tmp_path) == []


def test_failure_while_publishing_takes_back(tmp_path: Path) -> None:
    """The parameter's place is a file where a directory must be: what was placed before goes away again."""
    (tmp_path / "params").write_text("in the way")
    with pytest.raises(Unreadable), Outputs(_task(tmp_path)) as outputs:
        outputs.stage("out").write_text("m")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert _left(tmp_path) == ["params"]


def test_retry_replaces_the_earlier_attempt(tmp_path: Path) -> None:
    """KFP retries a task in the same place."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_text("old")
    with Outputs(_task(tmp_path)) as outputs:
        outputs.stage("out").write_text("new")
        outputs.stage("evidence").write_text("e")
        outputs.value("evidence_sha256", "abc")
        outputs.publish()
    assert (tmp_path / "out").read_text() == "new"


def test_unknown_names(tmp_path: Path) -> None:
    """A component compiled from another signature."""
    with Outputs(_task(tmp_path)) as outputs:
        with pytest.raises(Misuse, match="no output 'nope'"):
            outputs.stage("nope")
        with pytest.raises(Misuse, match="no output parameter"):
            outputs.value("nope", "x")
