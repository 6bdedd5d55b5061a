"""The scans as components, run from their compiled YAML: reports and evidence of each come out."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure

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
    (code / "main.py").write_text("def add(a, b):\n    return a + b\n")
    (advisories / "entry.json").write_text(json.dumps(ENTRY))
    wanted.write_text("pyyaml==5.3\n")
    model.write_bytes(pickle.dumps({"weights": [0.5]}))
    given = {"code": code, "requirements": wanted, "advisories": advisories, "model": model}
    result = bench.run("scanned", **{name: str(path) for name, path in given.items()}).require()
    assert {t.stage for t in result.tasks} == STAGES
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
