"""The small examples end as they say, and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts import console

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_example_ends_in_a_refusal_and_needs_no_torch(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "torch.py").write_text("raise ImportError('no torch here')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/01_refused_without_evidence.py")],
        env={**os.environ, "HOME": str(place), "TMPDIR": str(place), "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 10, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("model.bin")]
    assert said == [f"model.bin: {kind}" for kind in ("undecided", "allowed", "undecided", "refused")]
    assert "do: mlseal sign" in done.stdout
    assert sorted(path.name for path in place.iterdir()) == ["torch.py"]


@pytest.mark.slow
def test_the_second_example_prints_what_its_page_shows(home, tmp_path):
    """A real ``mlflow models serve`` behind the guard, until an alarm closes it: line for line as docs/guard.md."""
    (step,) = console.steps(ROOT / "docs/guard.md", first='$ python "$MLSEAL_EXAMPLES/02_guarded_model.py"')
    assert len(step.output) == 8, "a line for each answer"
    own = {"TMPDIR": str(tmp_path), "MLSEAL_EXAMPLES": str(ROOT / "examples")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", step.command],
        env=home.env | own | {"PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [line.split() for line in step.output], done.stderr
    assert not list(tmp_path.glob("mlseal-*")), "nothing is left behind"
