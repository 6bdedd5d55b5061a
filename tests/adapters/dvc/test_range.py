"""The supported range of DVC: stated once, tried at both ends, and refused where the insides are others.

Every other test here runs with the newest; the oldest is fetched from the package index into a directory of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.people import Scene, fresh, replace, statement_in
from mlseal_dvc import SUPPORTED, contract

ROOT = Path(__file__).resolve().parents[3]
FIRST, END = (".".join(map(str, bound)) for bound in SUPPORTED)
# What the oldest needs and this environment has too new; the rest it shares.
OLDEST = (f"dvc=={FIRST}", "dvc-data>=3.16.2,<3.17", "pathspec<1")
BEFORE = ("dvc==3.63.0", "dvc-data>=3.16.2,<3.17", "pathspec<1")


def fetched(where: Path, *requirements: str) -> str:
    """A directory with these distributions and nothing else, for PYTHONPATH."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(where), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"the package index gives no {requirements[0]}: {done.stderr.strip()[-200:]}"
    return str(where)


@pytest.mark.slow
def test_the_oldest_dvc_signs_verifies_and_refuses(scene: Scene, tmp_path: Path) -> None:
    scene.owner.env["PYTHONPATH"] = fetched(tmp_path / "oldest", *OLDEST)
    assert scene.owner.dvc("--version").stdout.strip() == FIRST
    data = scene.add("data.csv")
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    assert "signed 2 outputs" in scene.owner.dvc("push").stderr
    assert {statement_in(bundle)["predicate"]["dvc"]["version"] for bundle in scene.bundles()} == {FIRST}
    reader = scene.newcomer()
    assert reader.dvc("--version").stdout.strip() == FIRST
    assert "verified 2 outputs before checkout" in reader.dvc("pull").stderr
    assert (reader.cwd / "data.csv").read_bytes() == data.read_bytes()
    (tmp_path / "far.csv").write_bytes(fresh())
    assert "signed 1 outputs" in scene.owner.dvc("add", str(tmp_path / "far.csv"), "--to-remote").stderr
    replace(scene.object_of("data.csv.dvc"), b"other bytes")
    victim = scene.newcomer("victim")
    assert "these bytes are not the signed ones" in victim.dvc("pull", ok=False).stderr
    assert not (victim.cwd / "data.csv").exists()
    shutil.rmtree(scene.repo / ".dvc" / "cache")  # which get would read before the remote
    victim.dvc("get", str(scene.repo), "data.csv", "-o", "got.csv", ok=False)
    assert not (victim.cwd / "got.csv").exists()


@pytest.mark.slow
def test_the_dvc_before_the_oldest_is_refused_at_start(scene: Scene, tmp_path: Path) -> None:
    scene.add("data.csv")
    scene.owner.env["PYTHONPATH"] = fetched(tmp_path / "before", *BEFORE)
    done = scene.owner.dvc("push", ok=False)
    assert "got dvc 3.63.0" in done.stderr
    assert f"dvc >={FIRST},<{END}" in done.stderr
    assert "Traceback" not in done.stderr
    assert scene.owner.mlseal("dvc", "push", ok=False).returncode == 11
    assert not scene.remote.exists()


def test_the_range_is_stated_alike_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    short = [".".join(map(str, bound[:2])) for bound in SUPPORTED]
    assert project["optional-dependencies"]["dvc"] == [f"dvc>={short[0]},<{short[1]}"]
    assert f"`dvc>={short[0]},<{short[1]}`" in (ROOT / "docs" / "dvc.md").read_text()
    newest = tuple(int(part) for part in version("dvc").split(".")[:2])
    assert newest == (SUPPORTED[1][0], SUPPORTED[1][1] - 1), "the tests run with the newest supported minor version"
    assert f"dvc=={version('dvc')}" in (ROOT / "constraints.txt").read_text().splitlines()


def holders_of(module: str, path: str) -> tuple[list[Any], str]:
    """Whatever has the last part of `path` as its own: a module, or a class and those that it inherits from."""
    *before, last = path.split(".")
    found: Any = import_module(module)
    for name in before:
        found = getattr(found, name)
    return [each for each in getattr(found, "__mro__", [found]) if not before or last in vars(each)], last


@pytest.mark.parametrize(("module", "path", "parameters"), contract.RELIED_ON, ids=lambda v: v if "." in v else None)
def test_each_part_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, path: str, parameters: tuple[str, ...]
) -> None:
    assert contract.broken() is None
    holders, last = holders_of(module, path)
    with monkeypatch.context() as patch:
        for holder in holders:
            patch.delattr(holder, last)
        assert contract.broken() == f"dvc {version('dvc')} without {module}.{path}"
    if parameters:
        monkeypatch.setattr(holders[0], last, lambda: None)
        assert contract.broken() == f"dvc {version('dvc')}, {module}.{path} without {', '.join(sorted(parameters))}"
