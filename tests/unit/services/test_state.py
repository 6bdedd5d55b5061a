"""What `init` leaves on the disk, and what it never leaves: half of something, or something else than was there."""

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAME = "lab.mlseal.local"


def picture(*roots):
    """Every file below `roots` with its mode and content."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            facts = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (oct(facts.st_mode), content)
    return found


def test_modes(lab):
    lab.init()

    def mode(path):
        return stat.S_IMODE((lab.state / path).stat().st_mode)

    assert [mode(p) for p in (".", "keys", "keys/1", "logs", "authority.json", "grants.json")] == [
        0o711,
        0o700,
        0o700,
        0o755,
        0o644,
        0o600,
    ]
    assert {mode(p.relative_to(lab.state)) for p in (lab.state / "keys" / "1").iterdir()} == {0o600}
    assert sorted(p.name for p in (lab.project / ".mlseal").iterdir()) == [
        "evidence",
        "policy.tests",
        "policy.yaml",
        "trust_config.json",
        "trusted_root.json",
    ]
    config = Path(lab.env["HOME"]) / ".config" / "mlseal"
    assert stat.S_IMODE((config / "services.json").stat().st_mode) == 0o600


def test_no_root_key_is_kept(lab):
    """The roots above CA and TSA signed one certificate each and are gone."""
    lab.create()
    assert {p.name for p in (lab.state / "keys" / "1").iterdir()} == {
        "ca.pem", "tsa.pem", "ct.pem", "issuer.pem", "log.pem", "issuance.pem", "ca_chain.pem", "tsa_chain.pem"
    }  # fmt: skip
    text = "".join(p.read_text() for p in (lab.state / "keys" / "1").iterdir())
    assert text.count("BEGIN PRIVATE KEY") == 6


def test_init_pins_and_registers(lab):
    made = json.loads(lab.mlseal("init", "--json", "--name", NAME, "--state", lab.state).stdout)
    shown = json.loads(lab.mlseal("trust", "show", "--json").stdout)
    assert shown["fingerprint"] == made["fingerprint"]
    assert shown["logs"] == [f"log1.{NAME}"]
    services = json.loads((Path(lab.env["HOME"]) / ".config/mlseal/services.json").read_text())
    assert services == {made["fingerprint"]: {"state": str(lab.state)}}


@pytest.mark.parametrize(
    "second", [["other", "--state", "STATE"], [".mlseal", "--state", "elsewhere"], [".mlseal", "--state", "STATE"]]
)
def test_init_twice_changes_nothing(lab, second):
    lab.init()
    before = picture(lab.root)
    args = [str(lab.state) if a == "STATE" else a for a in second]
    if "elsewhere" in args:
        args[-1] = str(lab.root / "elsewhere")
    done = lab.mlseal("init", *args, "--name", NAME, ok=False)
    assert done.returncode == 2
    assert "already" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert picture(lab.root) == before


@pytest.mark.parametrize(
    "name", ["x", "UPPER.example", "a..b", "-a.b.c", "a.b/c", "..", "a b.c", "é.example", "a" * 64 + ".b", ""]
)
def test_bad_names(lab, name):
    done = (
        lab.mlseal("init", "--name", name, "--state", lab.state, ok=False)
        if name
        else lab.mlseal("init", "--url", "http://x", "--state", lab.state, ok=False)
    )
    assert done.returncode == 2
    assert not lab.state.exists()
    assert not (lab.project / ".mlseal").exists()


def test_keys_inside_the_repository_are_refused(lab):
    (lab.project / ".git").mkdir()
    done = lab.mlseal("init", "--state", lab.project / "state", ok=False)
    assert done.returncode == 2
    assert "inside the project" in done.stderr


def test_default_name_comes_from_the_folder(lab):
    made = json.loads(lab.mlseal("init", "--json").stdout)
    assert made["name"] == "project.mlseal.local"
    assert made["state"] == str(Path(lab.env["HOME"]) / ".local/share/mlseal/project.mlseal.local")


def limited(size):
    """Every file stops growing at `size` bytes, as on a disk that is full."""

    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return apply


@pytest.mark.parametrize("size", [0, 230, 1500, 4400, 5500])
def test_full_disk_leaves_nothing(lab, size):
    done = lab.init(ok=False, preexec_fn=limited(size))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not lab.state.exists()
    left = [p for p in lab.root.rglob("*") if p.is_file() and p.name not in {"init.lock", "services.lock"}]
    assert [p for p in left if p.read_bytes() not in (b"", b"{}")] == []
    assert [p for p in lab.root.rglob(".*") if p.name.startswith((".state", ".mlseal", ".."))] == []
    lab.init()
    lab.start()
    assert lab.bundle()


def test_killed_at_any_moment_init_can_be_repeated(lab):
    """kill -9 as soon as so many files are on the disk: afterwards the same command succeeds and leaves no remains."""
    command = [sys.executable, "-m", "mlseal", "init", "--name", NAME, "--state", str(lab.state)]

    def files():
        return sum(name.endswith((".pem", ".json", ".yaml")) for _, _, names in os.walk(lab.root) for name in names)

    for count in (1, 5, 9, 11, 13):
        before = files()
        process = subprocess.Popen(
            command, env=lab.env, cwd=lab.project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and files() < before + count and not lab.state.exists():
            time.sleep(0.0005)
        process.kill()
        process.wait()
        if lab.state.exists():
            break
    if not (lab.state / "published").exists():
        lab.init()
    assert not [path for path in lab.root.rglob(".*") if ".new-" in path.name]
    assert json.loads(lab.mlseal("trust", "show", "--json").stdout)["logs"] == [f"log1.{NAME}"]
    lab.start()
    assert lab.bundle()


@pytest.mark.parametrize("reached", ["state", "files", "registered"])
def test_each_step_of_init_can_be_the_last(lab, reached):
    """As above, at the exact places: STATE made, files for clients made, registered but not yet marked."""
    import shutil

    lab.init()
    fingerprint = json.loads(lab.mlseal("trust", "show", "--json").stdout)["fingerprint"]
    (lab.state / "published").unlink()
    if reached != "registered":
        shutil.rmtree(Path(lab.env["HOME"]) / ".config")
    if reached == "state":
        shutil.rmtree(lab.project / ".mlseal")
    lab.init()
    assert json.loads(lab.mlseal("trust", "show", "--json").stdout)["fingerprint"] == fingerprint
    lab.start()
    assert lab.bundle()


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: (s / "keys/1/ca.pem").chmod(0o644),
        lambda s: (s / "keys/1/log.pem").unlink(),
        lambda s: (s / "keys/1/tsa.pem").write_bytes(b"not a key"),
        lambda s: (s / "keys/1/log.pem").write_bytes((s / "keys/1/ca.pem").read_bytes()),
        lambda s: (s / "keys/1/ca_chain.pem").write_bytes(b""),
        lambda s: (s / "authority.json").write_text("{}"),
        lambda s: (s / "authority.json").write_text("{"),
        lambda s: (s / "authority.json").unlink(),
        lambda s: s.chmod(0o777),
    ],
    ids=[
        "open key",
        "missing key",
        "garbage key",
        "wrong key",
        "no chain",
        "empty record",
        "cut record",
        "no record",
        "writable state",
    ],
)
def test_damaged_state_is_refused_with_one_sentence(lab, damage):
    lab.create()
    damage(lab.state)
    done = lab.mlseal("serve", "--state", lab.state, "--idle", "0.2", ok=False)
    assert done.returncode in (2, 10, 11), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not os.path.exists(lab.state / "sock")


def test_starter_policy_loads_and_is_strict(lab):
    from mlseal.policy import load

    lab.init()
    policy = load.load(lab.project / ".mlseal" / "policy.yaml")
    assert {"slsa-provenance", "fairness", "human-approval"} <= {requirement.id for requirement in policy.require}
    assert lab.mlseal("policy", "lint", ".mlseal/policy.yaml", ok=False).returncode == 0
    tested = lab.mlseal("policy", "test", ".mlseal/policy.yaml", "--json")
    assert {row["passed"] for row in json.loads(tested.stdout)["tests"]} == {True}
