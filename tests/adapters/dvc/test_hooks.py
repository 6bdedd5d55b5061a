"""The pre-push hook is the control: it verifies, chains with what is there, and sits where git looks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene, fresh


@pytest.fixture
def upstream(scene: Scene, tmp_path: Path) -> Path:
    bare = tmp_path / "upstream.git"
    scene.owner.git("init", "-q", "--bare", str(bare))
    scene.owner.git("remote", "add", "origin", str(bare))
    return bare


def put_hook(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    hook = directory / "pre-push"
    hook.write_text(f"#!/bin/sh\n{text}\n")
    hook.chmod(0o755)
    return hook


def reinstall(person: Person, **env: str) -> None:
    person.mlseal("dvc", "install", "--no-autoload", **env)


def branches(scene: Scene, upstream: Path) -> str:
    return scene.owner.git("-C", str(upstream), "branch", "--list").stdout


def test_unsigned_output_stops_git_push(scene: Scene, upstream: Path, interpreters) -> None:
    scene.add("data.csv")
    done = scene.owner.git("push", "-q", "origin", "main", ok=False)
    assert "no provenance of data.csv" in done.stderr
    assert branches(scene, upstream) == ""
    # Pushed by a DVC without mlseal: the data are on the remote, the evidence is not.
    plain = Person(interpreters["plain"], scene.owner.env, scene.repo)
    plain.dvc("push")
    assert scene.objects()
    scene.owner.git("push", "-q", "origin", "main", ok=False)
    scene.owner.dvc("push")
    scene.owner.git("push", "-q", "origin", "main")
    assert "main" in branches(scene, upstream)


def test_an_earlier_commit_in_the_push_counts_too(scene: Scene, upstream: Path) -> None:
    scene.add("data.csv")
    (scene.repo / "data.csv.dvc").unlink()
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.git("config", "--unset", "mlseal.dvc")
    scene.owner.commit("remove it, and the marker")
    del scene.owner.env["MLSEAL_POLICY"]
    done = scene.owner.git("push", "-q", "origin", "main", ok=False)
    assert "data.csv" in done.stderr
    assert branches(scene, upstream) == ""


def test_hook_runs_an_existing_one_first_and_gives_it_back(scene: Scene, upstream: Path, tmp_path: Path) -> None:
    hooks = scene.repo / ".git" / "hooks"
    (hooks / "pre-push").unlink()
    told = tmp_path / "told"
    mine = put_hook(hooks, f'echo "$1" > {told}; cat >> {told}; exit ${{HOOK_EXIT:-0}}')
    before = mine.read_text()
    reinstall(scene.owner)
    reinstall(scene.owner)  # twice is once
    scene.owner.git("push", "-q", "origin", "main")
    assert told.read_text().splitlines()[0] == "origin"
    assert "refs/heads/main" in told.read_text(), "the hook that was there gets git's input"
    scene.owner.git("commit", "-q", "--allow-empty", "-m", "more")
    scene.owner.git("push", "-q", "origin", "main", ok=False, HOOK_EXIT="3")
    scene.owner.mlseal("dvc", "uninstall", "--no-autoload")
    assert (hooks / "pre-push").read_text() == before
    assert not list(hooks.glob("pre-push.before*"))


def test_dvc_install_then_ours(scene: Scene, upstream: Path) -> None:
    """``dvc install``'s hook pushes (and signs) the data, then ours verifies: one ``git push`` does it all."""
    for name in ("pre-push", "pre-commit", "post-checkout"):
        (scene.repo / ".git" / "hooks" / name).unlink(missing_ok=True)
    path = f"{scene.owner.python.parent}{os.pathsep}{os.environ['PATH']}"
    command = scene.owner.python.parent / "dvc"
    if not command.exists():
        command.write_text(f"#!{scene.owner.python}\nimport sys\nfrom dvc.cli import main\nsys.exit(main())\n")
        command.chmod(0o755)
    scene.owner.dvc("install")
    reinstall(scene.owner)
    scene.owner.env["PATH"] = path
    scene.add("data.csv")
    done = scene.owner.git("push", "-q", "origin", "main")
    assert "signed 1 outputs" in done.stderr
    assert "verified the provenance" in done.stderr
    assert scene.bundles()


def test_hooks_path_and_worktree(scene: Scene, upstream: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "hooks"
    scene.owner.git("config", "core.hooksPath", str(elsewhere))
    reinstall(scene.owner)
    assert (elsewhere / "pre-push").exists()
    scene.add("data.csv")
    scene.owner.git("push", "-q", "origin", "main", ok=False)
    scene.owner.git("config", "--unset", "core.hooksPath")
    tree = tmp_path / "linked"
    scene.owner.git("worktree", "add", "-q", str(tree), "-b", "side")
    (scene.repo / ".git" / "hooks" / "pre-push").unlink()
    scene.owner.mlseal("dvc", "install", "--no-autoload", cwd=tree)
    assert (scene.repo / ".git" / "hooks" / "pre-push").exists()
    scene.owner.git("push", "-q", "origin", "side", cwd=tree, ok=False)
    assert branches(scene, upstream) == ""


def test_missing_interpreter_stops_the_push(scene: Scene, upstream: Path) -> None:
    hook = scene.repo / ".git" / "hooks" / "pre-push"
    hook.write_text(hook.read_text().replace(str(scene.owner.python), "/nowhere/python"))
    scene.owner.git("push", "-q", "origin", "main", ok=False)
    assert branches(scene, upstream) == ""
    rows = scene.owner.mlseal("dvc", "doctor", ok=None)
    assert rows.returncode == 11
    assert "FAIL pre-push" in rows.stdout


def test_verify_revisions_for_ci(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    signed = scene.owner.git("rev-parse", "HEAD").stdout.strip()
    scene.add("more.csv", fresh())
    ci = scene.newcomer("ci", autoload=False)
    assert ci.mlseal("dvc", "verify", "--rev", signed).returncode == 0
    assert ci.mlseal("dvc", "verify", "--rev", "HEAD", ok=None).returncode == 11
    assert ci.mlseal("dvc", "verify", "--rev", "nonsense", ok=None).returncode == 2
    from adapters.dvc.people import replace

    replace(scene.object_of("data.csv.dvc"), b"poison")
    assert ci.mlseal("dvc", "verify", "--rev", signed, ok=None).returncode == 10
    assert ci.mlseal("dvc", "verify", "--rev", signed, "--evidence-only").returncode == 0
    assert not (ci.cwd / "data.csv").exists()
