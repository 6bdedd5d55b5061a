"""`mlseal init | serve | trust …` as they are typed."""

import json
import stat
from pathlib import Path

import pytest


def fingerprint(lab):
    return json.loads(lab.mlseal("trust", "show", "--json").stdout)["fingerprint"]


def test_token_starts_the_service_and_is_good(lab):
    """On demand: nobody started a service, the socket is not there, and a token comes back all the same."""
    lab.init()
    assert not Path(lab.socket).exists()
    text = lab.mlseal("trust", "token", "reviewer/alice").stdout.strip()
    try:
        certificate, _ = lab.leaf(text)
        assert lab.san("reviewer", "alice") in str(certificate.extensions)
        assert "alice" not in str(certificate.extensions)
    finally:
        end_service(lab)


def end_service(lab):
    """Its state vanishing ends a service that nobody holds a handle of."""
    (lab.state / "authority.json").unlink()


def test_token_file_is_private(service, tmp_path):
    target = tmp_path / "token"
    target.write_text("old")
    target.chmod(0o644)
    assert service.mlseal("trust", "token", "producer", "-o", target).stdout == ""
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert service.certificate(target.read_text())[0] == 201
    told = json.loads(service.mlseal("trust", "token", "producer", "-o", target, "--json").stdout)
    assert told == {"subject": "producer", "file": str(target)}
    told = json.loads(service.mlseal("trust", "token", "producer", "--json").stdout)
    assert service.certificate(told["token"])[0] == 201
    link = tmp_path / "link"
    link.symlink_to(target)
    assert service.mlseal("trust", "token", "producer", "-o", link, ok=False).returncode == 11


def test_token_for_no_identity(service):
    done = service.mlseal("trust", "token", "root", ok=False)
    assert done.returncode in (2, 11)
    assert "Traceback" not in done.stderr


def test_list_use_and_show(lab, tmp_path):
    lab.init()
    first = fingerprint(lab)
    assert first in lab.mlseal("trust", "list").stdout
    other = tmp_path / "other"
    other.mkdir()
    lab.mlseal("init", other / "dot", "--name", "other.mlseal.local", "--state", tmp_path / "state2")
    second = fingerprint(lab)
    assert second != first
    lab.mlseal("trust", "use", first)
    assert fingerprint(lab) == first
    rows = json.loads(lab.mlseal("trust", "list", "--json").stdout)["roots"]
    assert {(row["fingerprint"], row["default"]) for row in rows} == {(first, True), (second, False)}
    shown = json.loads(lab.mlseal("trust", "show", other / "dot" / "trusted_root.json", "--json").stdout)
    assert (shown["fingerprint"], shown["signs"]) == (second, False)


@pytest.mark.parametrize(
    "args",
    [
        ("trust", "use", "nonsense"),
        ("trust", "use", "sha256:" + "0" * 64),
        ("trust", "add", "/nowhere", "--fingerprint", "sha256:" + "0" * 64),
        ("trust", "add", "/etc/passwd", "--fingerprint", "sha256:" + "0" * 64),
        ("trust", "show", "/nowhere"),
        ("trust", "rotate", "--state", "/nowhere"),
        ("trust", "rotate"),
        ("trust", "export", "out"),
        ("trust", "grant", "--uid", "7", "roles/gate"),
        ("trust", "token", "producer"),
        ("serve",),
        ("serve", "--state", "/nowhere"),
        ("serve", "--idle", "0"),
        ("init", "--lifetime", "soon"),
        ("init", "--lifetime", "0s"),
        ("init", "--url", "http://plain.example"),
        ("init", "--url", "https://host.example/path"),
    ],
    ids=" ".join,
)
def test_wrong_calls_are_one_sentence(lab, args):
    done = lab.mlseal(*args, ok=False)
    assert done.returncode in (2, 10, 11), (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert not list(lab.project.iterdir())


def test_grants_need_identities_or_revoke(lab):
    lab.init()
    assert lab.mlseal("trust", "grant", "--uid", "7", ok=False).returncode == 2
    assert lab.mlseal("trust", "grant", "--uid", "7", "roles/root/x/y", ok=False).returncode == 2
    lab.mlseal("trust", "grant", "--uid", "7", "roles/gate", "roles/gate", "roles/monitor")
    assert json.loads((lab.state / "grants.json").read_text()) == {"7": ["roles/gate", "roles/monitor"]}
    lab.mlseal("trust", "grant", "--uid", "7", "--revoke")
    assert json.loads((lab.state / "grants.json").read_text()) == {}


def test_a_hostile_clone_brings_no_trust(lab, tmp_path):
    """A project that carries its own .mlseal is not believed because one stands in it."""
    lab.init()
    lab.env["HOME"] = str(tmp_path / "victim")
    done = lab.mlseal("trust", "show", ok=False)
    assert done.returncode == 2
    assert "no trust root is configured" in done.stderr
