"""The commands: fixed exit codes, nothing allowed by accident, one sentence on failure.

The first of each kind is a process of its own (`run`), as for people; the others are called in this one (`call`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

POLICY = Path(__file__).with_name("production.yaml")
POLICY_FILE = str(POLICY)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "w.bin").write_bytes(b"weights of " + str(tmp_path).encode())
    return path


def run(authority, *command: str):
    """Run as the owner, on the evidence directory that `mlseal init` made."""
    return authority.call(*command, "--store", str(authority.dir / "evidence"))


def call(authority, *command: str):
    return authority.call(*command, "--store", str(authority.dir / "evidence"))


def starter(authority) -> str:
    return str(authority.dir / "policy.yaml")


def test_policy_lint_and_test(home) -> None:
    done = home.call("policy", "lint", POLICY_FILE)
    assert (done.returncode, "production-clinical/3" in done.stdout) == (0, True)
    done = home.call("policy", "test", POLICY_FILE, "--json")
    assert done.returncode == 0
    assert all(row["passed"] for row in json.loads(done.stdout)["tests"])


def test_policy_test_fails_for_a_weakened_policy(home, tmp_path) -> None:
    weak = tmp_path / "weak.yaml"
    weak.write_text(POLICY.read_text().replace("<= 0.15", "<= 0.5"))
    done = home.call("policy", "test", str(weak))
    assert done.returncode == 10
    assert "FAILED production-clinical/3: wide gap" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("maxAge", "maxage"), "maxage"),
        (("p.smallestGroupPositives", "p.smalestGroupPositives"), "smallestGroupPositives"),
        (("require:", "require: &x"), "anchor"),
    ],
)
def test_a_wrong_policy_is_one_sentence_with_a_line(home, tmp_path, model, change, said) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(POLICY.read_text().replace(*change))
    for command in (
        ("policy", "lint", str(bad)),
        ("policy", "test", str(bad)),
        ("gate", str(model), "--policy", str(bad)),
    ):
        done = home.call(*command)
        assert done.returncode == 2, command
        assert "line " in done.stderr
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_gate_says_what_is_missing_and_which_command_makes_it(authority, model) -> None:
    done = run(authority, "gate", str(model), "--policy", starter(authority))
    assert done.returncode == 11
    assert f"mlseal run governance.fairness --model {model}" in done.stdout
    assert "mlseal approve" in done.stdout
    document = json.loads(call(authority, "gate", str(model), "--policy", starter(authority), "--json").stdout)
    assert (document["verdict"], document["exitCode"]) == ("undecided", 11)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--action", "mlflow/other"], 10),
        (["--action", "mlflow/alias", "--fact", "alias=ch\u0430mpion"], 10),
        (["--fact", "alias=champion"], 2),
        (["--action", "mlflow"], 2),
        (["--action", "mlflow/alias", "--fact", "alias"], 2),
        (["--action", "mlflow/alias", "--fact", "alias=a", "--fact", "alias=b"], 2),
        (["--action", "mlflow/alias", "--fact", "tool=kfp"], 2),
        (["--action", "mlflow/alias", "--fact", "alias=champion"], 11),
    ],
)
def test_actions(authority, model, arguments, code) -> None:
    assert call(authority, "gate", str(model), "--policy", starter(authority), *arguments).returncode == code


def test_misuse(authority, tmp_path, model) -> None:
    assert call(authority, "gate", str(model)).returncode == 2
    assert call(authority, "gate", str(model), "--policy", str(tmp_path / "none.yaml")).returncode == 11
    assert call(authority, "gate", str(tmp_path / "none"), "--policy", starter(authority)).returncode == 11
    (tmp_path / "empty").mkdir()
    assert call(authority, "gate", str(tmp_path / "empty"), "--policy", starter(authority)).returncode == 11
    (tmp_path / "zero.bin").touch()
    assert call(authority, "gate", str(tmp_path / "zero.bin"), "--policy", starter(authority)).returncode == 11


def test_a_signed_verdict_is_explained_by_whoever_trusts_the_gate(authority, model, tmp_path) -> None:
    out = tmp_path / "verdict.sigstore.json"
    done = call(authority, "gate", str(model), "--policy", starter(authority), "-o", str(out), "--nonce", "run-17")
    assert done.returncode == 11
    done = call(authority, "explain", str(out), "--policy", starter(authority))
    assert (done.returncode, "UNDECIDED" in done.stdout) == (0, True)
    assert call(authority, "explain", str(out)).returncode == 11
    other = tmp_path / "other.yaml"
    other.write_text(Path(starter(authority)).read_text().replace("/roles/gate", "/roles/other"))
    assert call(authority, "explain", str(out), "--policy", str(other)).returncode == 10
    done = call(authority, "explain", str(model), "--policy", starter(authority))
    assert (done.returncode, "fairness (gap, enough)" in done.stdout) == (0, True)


def test_approve_and_waive(authority, model, tmp_path) -> None:
    snapshot = json.loads(call(authority, "revoke", "--snapshot", "--json").stdout)["snapshot"]
    comment = tmp_path / "comment.txt"
    comment.write_text("read it twice")
    done = call(
        authority,
        "approve",
        str(model),
        "--evidence",
        snapshot[:16],
        "--capacity",
        "clinical-safety",
        "--comment-file",
        str(comment),
        "--role",
        "reviewer/17",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    said = authority.store.get(json.loads(done.stdout)["evidenceId"]).statement.predicate
    assert (said["decision"], said["reviewed"], said["role"]) == ("approve", [snapshot], "clinical-safety")
    assert "twice" not in str(said)
    assert call(authority, "approve", str(model), "--evidence", "0" * 64).returncode == 11
    assert call(authority, "approve", str(model), "--evidence", snapshot[:4]).returncode == 2
    assert call(authority, "approve", str(model)).returncode == 2
    nobody = ("waive", str(model), "--policy", starter(authority), "--reason", "pilot", "--days", "3", "--rule", "gap")
    kept = sorted(authority.store.ids())
    done = call(authority, *nobody)
    assert (done.returncode, "lists nobody under waivers" in done.stderr) == (2, True)
    listing = tmp_path / "listing.yaml"
    owner = f'{{issuer: "{authority.issuer}", san: "{authority.san("owner")}"}}'
    listing.write_text(Path(starter(authority)).read_text() + f"waivers: {{by: [{owner}]}}\n")
    waive = ("waive", str(model), "--policy", str(listing), "--reason", "pilot", "--days", "3")
    done = call(authority, *waive, "--rule", "gap", "--role", "producer")
    assert (done.returncode, "does not list this signer" in done.stderr) == (2, True)
    assert sorted(authority.store.ids()) == kept, "nothing was signed"
    assert call(authority, *waive, "--rule", "gap").returncode == 0
    assert call(authority, *waive, "--rule", "gapp").returncode == 2
    assert (
        call(
            authority, "waive", str(model), "--policy", POLICY_FILE, "--reason", "x", "--days", "3", "--rule", "enough"
        ).returncode
        == 2
    )
    assert call(authority, *waive[:-2], "--days", "0", "--rule", "gap").returncode == 2
    done = call(authority, *[" " if word == "pilot" else word for word in waive], "--rule", "gap")
    assert (done.returncode, "without a reason" in done.stderr) == (2, True)
