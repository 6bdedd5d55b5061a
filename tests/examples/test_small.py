"""The small examples end as they say, and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

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
