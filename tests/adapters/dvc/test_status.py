"""``mlseal dvc status`` and ``doctor``: each state of an output, and each hole in the protection, is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene, fresh, oid_in, policy_text, replace
from mlseal_dvc import doctor, frameworks, reports

NAMES = ("signed", "unsigned", "changed", "local", "gone", "altered")


def rows(person: Person, *arguments: str, code: int) -> dict[str, dict]:
    done = person.mlseal("dvc", "status", *arguments, "--json", ok=None)
    assert done.returncode == code, done.stdout + done.stderr
    return {row["path"]: row for row in json.loads(done.stdout)["outputs"]}


def test_every_state_of_an_output_is_told(scene: Scene, authority) -> None:
    for name in NAMES:
        (scene.repo / name).write_bytes(fresh())
    scene.owner.dvc("add", "-q", *NAMES)
    scene.owner.commit("data")
    scene.owner.dvc("push", "signed", "changed", "gone", "altered")
    found = rows(scene.owner, "signed", "changed", code=0)
    assert {row["state"] for row in found.values()} == {"signed"}
    row = found["signed"]
    assert row["signer"] == authority.san("producer") and row["origin"] == "added" and row["names"] == "plain"
    assert row["signedOn"].endswith("Z") and "error" not in row

    scene.owner.mlseal("dvc", "sign", "local")
    (scene.repo / "changed").chmod(0o644)
    (scene.repo / "changed").write_bytes(fresh())
    scene.object_of("gone.dvc").unlink()
    oid = oid_in(scene.repo / "altered.dvc")
    poisoned = scene.repo / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]
    replace(poisoned, b"poison")
    found = rows(scene.owner, code=10)
    assert {path: row["state"] for path, row in found.items()} == {
        "signed": "signed",
        "unsigned": "unsigned",
        "changed": "changed",
        "local": "not on remote",
        "gone": "not on remote",
        "altered": "altered",
    }
    assert poisoned.exists(), "status moves nothing"
    assert "dvc push" in found["local"]["error"]["remedy"]
    replace(poisoned, (scene.repo / "altered").read_bytes())
    someone = ("--identity", "https://elsewhere.example/x", "--issuer", "https://elsewhere.example")
    assert rows(scene.owner, "signed", *someone, "--quick", code=10)["signed"]["state"] == "foreign"
    text = scene.owner.mlseal("dvc", "status", "unsigned", "--quick", ok=None)
    assert text.returncode == 11 and "unsigned       unsigned: no provenance" in text.stdout
    assert "hook: yes" in text.stdout and "ci: none" in text.stdout


def test_revoked_and_unreachable(scene: Scene, authority, tmp_path: Path) -> None:
    scene.owner.env["MLSEAL_STORE"] = str(tmp_path / "store")
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.owner.mlseal("revoke", "--snapshot")
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    scene.add("data", {"a": fresh(), "b/c": fresh()})
    scene.owner.dvc("push")
    row = rows(scene.owner, code=0)["data"]
    scene.owner.mlseal("revoke", row["evidenceId"], "--reason", "withdrawn")
    assert rows(scene.owner, code=10)["data"]["state"] == "revoked"
    shutil.rmtree(scene.remote)
    scene.remote.write_text("no directory")
    scene.owner.env["MLSEAL_STATE_DIR"] = str(tmp_path / "empty")
    assert rows(scene.owner, code=11)["data"]["state"] in ("unsigned", "unchecked")


def test_what_protects_and_what_gets_round_it(scene: Scene, interpreters) -> None:
    """Nothing tracked yet, so the outputs say nothing; the rest does."""
    (scene.repo / frameworks.CONFIG).write_text(
        "repos:\n- repo: https://github.com/treeverse/dvc\n  rev: 3.67.1\n  hooks:\n  - id: dvc-pre-push\n"
    )
    workflow = scene.repo / ".github" / "workflows" / "x.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("steps: [{uses: org/mlseal/dvc_hooks/ci/github@0}]\n")
    told = json.loads(scene.owner.mlseal("dvc", "status", "--json").stdout)
    assert told["protected"] and told["hook"] and told["thisClone"] and told["marker"] and told["autoload"]
    assert told["ci"] == [".github/workflows/x.yml"] and told["names"] == "plain" and told["outputs"] == []
    assert "dvc-pre-push" in told["notes"][0] and "language: system" in told["notes"][0]

    frozen = scene.repo / "bin" / "dvc"
    frozen.parent.mkdir()
    frozen.write_bytes(b"\x7fELF frozen")
    frozen.chmod(0o755)
    (scene.repo / ".git" / "hooks" / "pre-push").chmod(0o644)
    done = scene.owner.mlseal("dvc", "doctor", "--json", ok=None, PATH=f"{frozen.parent}:{scene.owner.env['PATH']}")
    assert done.returncode == 11
    failed = {row["name"]: row for row in json.loads(done.stdout) if row["required"] and not row["ok"]}
    assert failed.keys() == {"pre-commit program", "command", "pre-push"}
    assert "frozen" in failed["command"]["detail"] and "executable" in failed["pre-push"]["detail"]

    # The same, mended: a dvc whose interpreter has the autoload.
    (scene.repo / frameworks.CONFIG).unlink()
    frozen.write_text(f"#!{interpreters['auto']}\n")
    (scene.repo / ".git" / "hooks" / "pre-push").chmod(0o755)
    done = scene.owner.mlseal("dvc", "doctor", "--json", PATH=f"{frozen.parent}:{scene.owner.env['PATH']}")
    by_name = {row["name"]: row for row in json.loads(done.stdout)}
    assert by_name["command"]["ok"] and by_name["CI"]["ok"] and "plain" in by_name["names"]["detail"]


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("#!/x/bin/python3.12\n", "/x/bin/python3.12"),
        ("#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a b/bin/python"),
        ("#!/usr/bin/env nothing-of-this-name\n", None),
        ("#!/bin/sh\nexec something\n", None),
        ("\x7fELF", None),
        ("", None),
    ],
)
def test_the_interpreter_of_a_command_is_found(tmp_path: Path, text: str, python: str | None) -> None:
    (tmp_path / "dvc").write_text(text)
    assert doctor.interpreter_of(tmp_path / "dvc") == python


def test_an_environment_without_the_autoload_is_told(interpreters, monkeypatch, tmp_path: Path) -> None:
    for kind, ok in (("plain", False), ("auto", True)):
        command = tmp_path / kind / "dvc"
        command.parent.mkdir()
        command.write_text(f"#!{interpreters[kind]}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(command.parent))
        (finding,) = doctor._command(tmp_path)
        assert finding.ok is ok


def test_ci_files_that_run_the_check(tmp_path: Path) -> None:
    (tmp_path / ".gitlab-ci.yml").write_text("script: make\n")
    assert reports.named_in(tmp_path) == []
    (tmp_path / ".gitlab-ci.yml").write_text("include: {file: dvc_hooks/ci/gitlab/mlseal.gitlab-ci.yml}\n")
    assert reports.named_in(tmp_path) == [".gitlab-ci.yml"]
