"""`mlseal kfp` as a person types it, and the two pipelines of the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiled, compiling, lint

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo" / "pipeline.py"
REAL = "ghcr.io/example/mlseal@sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"


def test_compile_then_lint(home: Any, tmp_path: Path) -> None:
    """A filled pipeline is clean; the checked-in component is refused until it is filled."""
    done = home.run("kfp", "compile", str(DEMO), "--image", REAL, "-o", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)["written"]
    assert sorted(Path(path).name for path in written) == ["build.yaml", "release.yaml"]
    clean = home.run("kfp", "lint", *written, "--allow-image", REAL)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    refused = home.run("kfp", "lint", str(ROOT / "kfp_components" / "compiled" / "enforce.yaml"), "--json")
    assert refused.returncode == 10
    assert json.loads(refused.stdout)["files"][0]["problems"][0]["rule"] == "image-digest"
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--image", REAL, "--host"],
        ["--image", "ghcr.io/example/mlseal:latest"],
        ["--image", "ghcr.io/example/mlseal@sha256:" + "0" * 64],
    ],
)
def test_compile_wants_one_image_by_digest(home: Any, tmp_path: Path, options: list[str]) -> None:
    """Exit 2, nothing written."""
    done = home.run("kfp", "compile", *options, "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_rules_are_listed(home: Any) -> None:
    """What the linter looks for, from the one table."""
    done = home.run("kfp", "lint", "--rules", "--json")
    assert json.loads(done.stdout) == lint.RULES


def test_demo_pipelines() -> None:
    """Clean; the release run measures fairness itself and hands it to the gate; the build run judges nothing."""
    made = compiling.compile_pipelines(DEMO, REAL)
    assert set(made) == {"build", "release"}
    assert lint.lint(made["build"]) == []
    assert lint.lint(made["release"], lint.Demands(required_stages=("governance.fairness",))) == []
    assert {made["build"].stage_of(task) for task in made["build"].tasks()} == {
        None,
        "ingestion.source",
        "training.run",
    }


def test_unknown_version_of_kfp_is_refused(home: Any, tmp_path: Path) -> None:
    """A distribution that calls itself kfp 9.9.9 stands before the real one on the path."""
    fake = tmp_path / "path" / "kfp-9.9.9.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: kfp\nVersion: 9.9.9\n")
    file = compiling.write(compiling.compile_component("enforce", compiling.image.host_reference()), tmp_path)
    parameters = ["model_name=x", "run_id=x", "verdict_sha256=x"]
    command = [sys.executable, "-m", "mlseal", "kfp", "run", str(file), "--root", str(tmp_path / "root")]
    done = subprocess.run(
        [*command, *(part for p in parameters for part in ("--param", p))],
        env={**home.env, "PYTHONPATH": str(fake.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 11, done.stderr
    assert "got 9.9.9" in done.stderr


def test_run_refuses_a_file_that_is_no_pipeline(home: Any, tmp_path: Path) -> None:
    """One sentence, exit 2 or 11."""
    (tmp_path / "x.yaml").write_text("a: 1")
    done = home.run("kfp", "run", str(tmp_path / "x.yaml"))
    assert done.returncode == 2
    assert home.run("kfp", "run", str(tmp_path / "absent.yaml")).returncode == 11


def test_components_import_no_kfp(home: Any) -> None:
    """What runs in the image needs mlseal alone."""
    program = (
        "import sys; sys.modules['kfp'] = None; import mlseal_kfp.step as s, mlseal_kfp.gating, mlseal_kfp.staging, mlseal_kfp.lint; "
        "sys.exit(s.main(['enforce', '--image', 'x', '--executor-input', '{}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=home.env | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "not an image reference" in done.stderr


def test_checked_in_files_parse_with_kfp() -> None:
    """The released YAML is what kfp itself can load."""
    from kfp import components

    for file in sorted((ROOT / "kfp_components" / "compiled").glob("*.yaml")):
        loaded = components.load_component_from_file(str(file))
        assert loaded.name == compiled.read(file).name
    assert os.environ["HOME"]
