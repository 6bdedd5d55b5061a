"""The scans as components, run from their compiled YAML: reports and evidence of each come out."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

from mlseal_kfp import compiling

from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import partial_result, test_result
from tests.adapters.kfp.conftest import CANARY, require_no_row_printed
from tests.contracts import console

ROOT = Path(__file__).resolve().parents[3]
STAGES = {"testing.code", "testing.dependencies", "testing.model_file"}
ENTRY = {
    "id": "PYSEC-2021-142",
    "modified": "2026-03-01T10:20:30Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "pyyaml"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.4"}]}],
        }
    ],
}


def test_the_scans_run_from_their_compiled_yaml(bench: Any) -> None:
    """Clean code and model, one vulnerable dependency: each says so about the bytes that it was given."""
    code, model, advisories = bench.base / "code", bench.base / "model.pkl", bench.base / "advisories"
    wanted = bench.base / "requirements.txt"
    for folder in (code, advisories):
        folder.mkdir()
    (code / "main.py").write_text(f"def add(a, b):\n    return a + b  # {CANARY}\n")
    (advisories / "entry.json").write_text(json.dumps(ENTRY))
    wanted.write_text("pyyaml==5.3\n")
    model.write_bytes(pickle.dumps({"weights": [0.5], "label": CANARY}))
    given = {"code": code, "requirements": wanted, "advisories": advisories, "model": model}
    result = bench.run("scanned", **{name: str(path) for name, path in given.items()}).require()
    assert {t.stage for t in result.tasks} == STAGES
    require_no_row_printed(result, code)
    require_no_row_printed(result, model)
    said = {}
    for stage, subject in (("testing-code", code), ("testing-dependencies", wanted), ("testing-model-file", model)):
        evidence = Bundle.read(result.output(stage, "evidence")).statement
        assert {s.sha256 for s in evidence.subjects} == {s.sha256 for s in measure(subject).subjects}
        said[stage] = evidence.predicate
    assert said["testing-code"]["passedTests"] == ["code", "secrets"]
    assert said["testing-code"]["failedTests"] == ["dependencies"]
    assert said["testing-dependencies"]["vulnerabilities"] == 1
    assert said["testing-model-file"]["passedTests"] == ["allow-list", "picklescan"]
    for stage in ("testing-code", "testing-model-file"):
        report = result.output(stage, "report").read_bytes()
        assert json.loads(report)["version"] == "2.1.0"
        assert hashlib.sha256(report).hexdigest() in json.dumps(said[stage]["configuration"])


def test_a_model_is_scanned_in_a_loop_and_merged(bench: Any) -> None:
    """The pipeline of the page: a pickle planted in one of the files fails the model, whichever part holds it."""
    model = bench.base / "model"
    model.mkdir()
    for number in range(4):
        (model / f"weights-{number}.pkl").write_bytes(pickle.dumps({"weights": [number]}))
    (model / "weights-4.pkl").write_bytes(b'cos\nsystem\n(S"echo planted"\ntR.')
    (page,) = [text for language, text, _ in console.fences(ROOT / "docs" / "kfp.md") if language == "python"]
    (bench.base / "in_parts.py").write_text(page)
    bench.pipelines = compiling.compile_pipelines(bench.base / "in_parts.py")
    result = bench.run("in-parts", model=str(model)).require()
    assert [task.stage for task in result.tasks] == ["testing.model_file"] * 3
    made = [Bundle.read(file).statement for file in sorted(Path(result.log).parent.rglob("evidence"))]
    whole = [one for one in made if one.predicate_type == test_result.URI]
    parts = [one for one in made if one.predicate_type == partial_result.URI]
    assert sorted(one.predicate["shard"]["index"] for one in parts) == [1, 2]
    assert [one.predicate["result"] for one in whole] == ["FAILED"]
    allowed = next(one for one in whole[0].predicate["configuration"] if one["name"] == "allow-list")
    assert (allowed["annotations"]["files"], allowed["annotations"]["flawed"]) == (5, 1)
