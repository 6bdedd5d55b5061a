"""What ``make demo ARGS=--full`` adds, on the demo's own data; the job that it is added to has a test of its own."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"


@pytest.mark.slow
def test_a_private_retrain_its_attacks_and_notes_with_names(tmp_path, home, monkeypatch):
    """The steps of ``--full``: nothing of what the models score is asserted, only that it is told and judged."""
    from rich.console import Console

    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(DEMO))
    main, full, workbench = (importlib.import_module(name) for name in ("main", "full", "workbench"))
    bench = workbench.Workbench(tmp_path / "demo", Console(file=io.StringIO(), width=400))
    bench.project.mkdir()
    main.shutil.copytree(DEMO / "policies", bench.root / "policies")
    job = main.Job(bench, "randhie", {}, Path(sys.executable))
    try:
        job.found_authority(workbench.Row("", ""))
        bench.run("python", DEMO / "data.py", "--name", "randhie", "--out", "data")
        about = json.loads((bench.project / "data" / "dataset.json").read_text())
        full.steps(bench, about, None)
    finally:
        job.stop()
    private, members, moved, notes = bench.rows
    assert "epsilon 2.9" in private.proved
    assert "measured-data" in private.refused, "nobody checked where the data come from"
    assert "at 1 % false alarms" in members.proved
    assert "within 5 % of a column's range" in moved.proved
    assert "personal data were found" in notes.refused
    assert "PERSON" in notes.proved
    assert "lets them pass" in notes.proved
    assert [stage for row in bench.rows for stage, _ in row.stages] == [
        *("training.dp", "governance.fairness", "testing.membership", "testing.evasion"),
        *("ingestion.pii", "ingestion.redact"),
    ]
