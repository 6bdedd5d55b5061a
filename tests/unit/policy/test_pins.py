"""Pinned policies: what is swapped, old, of somebody else, or from the tree that is judged never gets into force."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlseal.errors import (
    DigestMismatch,
    Error,
    ForgedEvidence,
    MalformedEvidence,
    Misuse,
    NoEvidence,
    PolicyInvalid,
    Revoked,
    RuleBroken,
    ServiceUnavailable,
    SplitView,
    Unchecked,
    Unreadable,
    UntrustedSigner,
    Withheld,
)
from mlseal.evidence import paths, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Subject, measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.naming import PLAIN
from mlseal.evidence.revoking import revoke
from mlseal.evidence.store import Store
from mlseal.policy import load, pins, releases
from mlseal.policy.fetching import SUFFIX, fetch
from mlseal.policy.pinning import _seen, accept, newer

TEXT = """policy: NAME
applies: [{tool: t, action: a}]
revocationMaxAge: 24h
require: [{predicate: slsa-provenance, by: [{issuer: i, san: s}]}]
"""


class Desk:
    """An owner who releases versions of one policy, and a machine that pins them."""

    def __init__(self, authority: Any, folder: Path) -> None:
        self.authority, self.folder = authority, folder
        self.name = f"p{secrets.token_hex(4)}/1"  # the log is shared by the tests of this module
        self.archive = Archive.open(authority.trust, authority.store)
        self.owner = Identity(authority.issuer, authority.san("policy-owner"))
        self.file = folder / "policy.yaml"
        self.home = folder / "config"

    def write(self, age: str = "24h") -> Any:
        self.file.write_text(TEXT.replace("NAME", self.name).replace("24h", age))
        return load.load(self.file)

    def sign(self, age: str = "24h", *, role: str = "policy-owner", back: str | None = None) -> Bundle:
        policy, signer = self.write(age), self.authority.signer(role)
        self.archive.refresh()
        act, owners = (releases.roll_back if back else releases.sign), [signer.identity()]
        bundle = act(self.archive, signer, policy, owners=owners, reason=back)
        bundle.write(self.file.with_name(self.file.name + SUFFIX))
        return bundle

    def pin(self, source: str | None = None, *, store: Path | None = None, **more: Any) -> Any:
        archive = Archive.open(self.authority.trust, Store(store)) if store else self.archive
        kept = pins.read(self.home)
        more.setdefault("owners", [] if kept.by_name else [self.owner])
        return accept(archive, fetch(str(source or self.file)), kept, **more)[0]

    def versions(self, *ages: str) -> list[Path]:
        """Signed versions, one after the other; the folder of each."""
        kept = []
        for number, age in enumerate(ages):
            self.sign(age)
            place = self.folder / f"v{number + 1}"
            place.mkdir()
            for name in (self.file.name, self.file.name + SUFFIX):
                shutil.copy(self.folder / name, place / name)
            kept.append(place)
        return kept

    @property
    def in_force(self) -> list[str]:
        return [policy.sha256 for policy in pins.read(self.home).policies()]


@pytest.fixture
def desk(authority, tmp_path: Path) -> Desk:
    return Desk(authority, tmp_path)


def refused(desk: Desk, kind: type[Error], said: str, source: Path | str | None = None, **more: Any) -> None:
    before = (desk.home / pins.FILE).read_bytes() if (desk.home / pins.FILE).exists() else None
    with pytest.raises(kind) as caught:
        desk.pin(str(source) if source else None, **more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy, caught.value
    after = (desk.home / pins.FILE).read_bytes() if (desk.home / pins.FILE).exists() else None
    assert after == before, "what was pinned stays"


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_a_swapped_file_is_refused_before_and_after_it_is_pinned(desk) -> None:
    desk.sign()
    good = desk.file.read_text()
    desk.file.write_text(good.replace("24h", "999d"))
    with pytest.raises(Error):
        desk.pin()
    desk.file.write_text(good)
    refused(desk, DigestMismatch, "not the policy that was asked for", sha256="0" * 64)
    pin = desk.pin(sha256=hashlib.sha256(good.encode()).hexdigest())
    assert desk.in_force == [pin.sha256]
    (desk.home / "policies" / f"{pin.sha256}.yaml").write_text(good.replace("24h", "999d"))
    with pytest.raises(DigestMismatch, match="was changed"):
        pins.read(desk.home).policies()
    (desk.home / "policies" / f"{pin.sha256}.yaml").unlink()
    with pytest.raises(Unreadable, match="cannot be read"):
        pins.read(desk.home).policies()


def test_an_older_version_validly_signed_is_refused(desk) -> None:
    first, second = desk.versions("24h", "12h")
    desk.pin(second / "policy.yaml")
    refused(desk, RuleBroken, "going back is a signed act of its own", first / "policy.yaml")
    fresh = Desk(desk.authority, desk.folder / "other")
    fresh.home = desk.folder / "another-machine"
    assert not fresh.home.exists()
    refused(
        fresh, RuleBroken, "older version", first / "policy.yaml", owners=[desk.owner]
    )  # the log knows, no pin does


def test_an_older_version_is_refused_where_the_store_is_empty(desk) -> None:
    """What an owner signed after it and nobody shows may be a newer version."""
    first, second = desk.versions("24h", "12h")
    refused(desk, Withheld, "may be a newer version", first / "policy.yaml", store=desk.folder / "empty")
    desk.pin(second / "policy.yaml", store=desk.folder / "empty2")
    refused(desk, Unchecked, "", first / "policy.yaml", store=desk.folder / "empty3")


def test_what_was_pinned_here_counts_though_the_log_shows_nothing(desk) -> None:
    first, second = desk.versions("24h", "12h")
    desk.pin(second / "policy.yaml")
    kept = pins.read(desk.home).by_name[desk.name]
    old = releases.Release(desk.name, "a" * 64, kept.serial - 1, "release", None, "b" * 64, (0, 0))
    with pytest.raises(RuleBroken, match="older version"):
        releases.require_newest(old, _seen(kept))
    with pytest.raises(SplitView, match="have the number 2"):
        releases.require_newest(
            releases.Release(desk.name, "a" * 64, 2, "release", None, "b" * 64, (0, 0)), _seen(kept)
        )


def test_the_signature_of_another_file_is_refused(desk) -> None:
    first, second = desk.versions("24h", "12h")
    shutil.copy(first / f"policy.yaml{SUFFIX}", second / f"policy.yaml{SUFFIX}")
    refused(desk, DigestMismatch, "", second / "policy.yaml")
    (second / f"policy.yaml{SUFFIX}").write_text("{}")
    refused(desk, MalformedEvidence, "", second / "policy.yaml")
    raw = json.loads((first / f"policy.yaml{SUFFIX}").read_text())
    raw["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    (first / f"policy.yaml{SUFFIX}").write_text(json.dumps(raw))
    refused(desk, ForgedEvidence, "", first / "policy.yaml")


def test_an_unsigned_policy_is_refused(desk) -> None:
    desk.write()
    refused(desk, NoEvidence, "is not signed: no release lies beside it")
    claim = {"evidenceId": "0" * 64, "reason": "withdrawn", "nonce": secrets.token_hex(16)}
    made = statement.make(measure(desk.file).subjects, "https://mlseal.dev/revocation/v0.1", claim)
    desk.authority.signer("policy-owner").sign(made).write(desk.file.with_name(desk.file.name + SUFFIX))
    refused(desk, MalformedEvidence, "another type")  # signed by an owner, about these bytes, and no release


def test_a_signer_who_is_not_listed_is_refused_and_nobody_is_listed_by_the_file(desk) -> None:
    desk.sign(role="producer")
    refused(desk, UntrustedSigner, "")
    refused(desk, Misuse, "nobody is named who may release", owners=[])
    desk.sign("12h")
    desk.pin()
    stranger = Identity(desk.authority.issuer, desk.authority.san("producer"))
    refused(desk, RuleBroken, "is pinned with other owners", owners=[stranger])
    desk.sign("6h", role="producer")
    refused(desk, UntrustedSigner, "")


def test_a_pin_in_the_tree_that_is_judged_is_never_read(desk, monkeypatch) -> None:
    tree = desk.folder / "tree"
    desk.sign()
    desk.home = tree
    desk.pin()
    assert (tree / pins.FILE).exists()
    shutil.copytree(tree, tree / ".mlseal")
    shutil.copytree(tree, tree / ".config" / "mlseal")
    monkeypatch.chdir(tree)
    monkeypatch.delenv("MLSEAL_POLICY", raising=False)
    monkeypatch.setenv("MLSEAL_CONFIG_DIR", str(desk.folder / "own"))
    assert tree not in paths.config_dir().parents
    assert not pins.exist()
    assert load.in_force() == ()


def test_an_earlier_version_dressed_as_a_new_one_is_refused(desk) -> None:
    first, second = desk.versions("24h", "12h")
    desk.pin(second / "policy.yaml")
    desk.write("24h")
    with pytest.raises(Misuse, match="were released before"):
        desk.sign("24h")
    claim = dict(Bundle.read(second / f"policy.yaml{SUFFIX}").statement.predicate)
    _resign(desk, first, {**claim, "serial": 3, "nonce": secrets.token_hex(16)})
    refused(desk, RuleBroken, "without saying so", first / "policy.yaml")
    with pytest.raises(MalformedEvidence, match="a rollback names what it replaces, and why"):
        _resign(desk, first, {**claim, "serial": 4, "act": "rollback", "nonce": secrets.token_hex(16)})


def _resign(desk: Desk, place: Path, claim: dict[str, Any]) -> None:
    about = Subject(desk.name, hashlib.sha256((place / "policy.yaml").read_bytes()).hexdigest())
    made = statement.make([about], "https://mlseal.dev/policy-release/v0.1", claim, names=PLAIN)
    desk.authority.signer("policy-owner").sign(made).write(place / f"policy.yaml{SUFFIX}")


def test_two_releases_under_one_number_are_two_stories(desk) -> None:
    first, second = desk.versions("24h", "12h")
    claim = dict(Bundle.read(second / f"policy.yaml{SUFFIX}").statement.predicate)
    third = desk.folder / "v3"
    third.mkdir()
    desk.write("6h")
    shutil.copy(desk.file, third / "policy.yaml")
    _resign(desk, third, {**claim, "nonce": secrets.token_hex(16)})
    refused(desk, SplitView, "have the number 2", third / "policy.yaml")


def test_a_release_of_another_policy_and_one_taken_back(desk) -> None:
    desk.sign()
    claim = dict(Bundle.read(desk.file.with_name(desk.file.name + SUFFIX)).statement.predicate)
    _resign(desk, desk.folder, {**claim, "policy": "other/1", "nonce": secrets.token_hex(16)})
    with pytest.raises(RuleBroken, match="the release is of another policy"):
        desk.pin()
    bundle = desk.sign("12h")
    desk.archive.refresh()
    revoke(desk.archive, desk.authority.signer("policy-owner"), bundle.evidence_id, reason="withdrawn")
    refused(desk, Revoked, "took this release back")


def test_whoever_looks_is_told_of_a_newer_release_and_of_one_taken_back(desk) -> None:
    bundle = desk.sign()
    pin = desk.pin()
    kept = pins.read(desk.home)
    assert newer(desk.archive, kept, pin) is None
    desk.sign("12h")
    assert newer(desk.archive, kept, pin) is None, "nobody read the log meanwhile"
    desk.archive.refresh()
    later = newer(desk.archive, kept, pin)
    assert later is not None and (later.serial, later.policy) == (2, desk.name)
    revoke(desk.archive, desk.authority.signer("policy-owner"), bundle.evidence_id, reason="withdrawn")
    desk.archive.refresh()
    with pytest.raises(Revoked, match="took this release back"):
        newer(desk.archive, kept, pin)


# --- what is right ----------------------------------------------------------------------------------------------------


def test_versions_go_forward_and_back_by_a_signed_act(desk) -> None:
    first, second = desk.versions("24h", "12h")
    assert [desk.pin(place / "policy.yaml").serial for place in (second,)] == [2]
    assert desk.pin(second / "policy.yaml").serial == 2, "again is no harm"
    bundle = desk.sign("24h", back="the new limit stopped every model")
    assert bundle.statement.predicate["replaces"] == hashlib.sha256((second / "policy.yaml").read_bytes()).hexdigest()
    pin = desk.pin()
    assert (pin.serial, [version.serial for version in pin.seen]) == (3, [2])
    assert desk.in_force == [hashlib.sha256((first / "policy.yaml").read_bytes()).hexdigest()]
    refused(desk, RuleBroken, "older version", first / "policy.yaml")  # the same bytes, by their first release
    refused(desk, RuleBroken, "older version", second / "policy.yaml")
    for age, reason in (("24h", "again"), ("1h", "never released")):
        with pytest.raises(Misuse, match="nothing to go back to"):
            desk.sign(age, back=reason)
    desk.sign("6h")
    assert desk.pin().serial == 4


def test_what_is_pinned_is_in_force_and_no_other_version_of_it(desk, monkeypatch) -> None:
    monkeypatch.setenv("MLSEAL_CONFIG_DIR", str(desk.home))
    monkeypatch.delenv("MLSEAL_POLICY", raising=False)
    desk.sign()
    pin = desk.pin()
    assert [policy.sha256 for policy in load.in_force()] == [pin.sha256]
    other = desk.folder / "other.yaml"
    other.write_text(desk.file.read_text() + "# changed\n")
    with pytest.raises(DigestMismatch, match="this file is not the pinned version"):
        load.in_force([other])
    (paths.config_dir() / "policy.yaml").write_text(other.read_text())
    with pytest.raises(DigestMismatch, match="not the pinned version"):
        load.in_force()
    (paths.config_dir() / "policy.yaml").write_bytes(desk.file.read_bytes())
    assert [policy.sha256 for policy in load.in_force()] == [pin.sha256], "the same bytes count once"
    assert [policy.sha256 for policy in load.in_force([desk.file])] == [pin.sha256]
    (desk.home / pins.FILE).write_text('{"pins": [], "more": 1}')
    with pytest.raises(MalformedEvidence, match="not a file of pins"):
        load.in_force()
    (desk.home / pins.FILE).write_text("")
    with pytest.raises(MalformedEvidence):
        load.in_force()


def test_what_an_administrator_pinned_is_in_force_whatever_a_user_names(desk, monkeypatch) -> None:
    machine = desk.folder / "etc"
    monkeypatch.setattr(paths, "machine_config_dir", lambda: machine)
    monkeypatch.setenv("MLSEAL_CONFIG_DIR", str(desk.folder / "own"))
    desk.sign()
    desk.home = machine
    pin = desk.pin()
    own = desk.folder / "mine.yaml"
    own.write_text(TEXT.replace("NAME", "mine/1"))
    assert [policy.name for policy in load.in_force([own])] == ["mine/1", desk.name]
    for file in (machine / pins.FILE, machine / "policies" / f"{pin.sha256}.yaml"):
        assert file.stat().st_mode & 0o777 == 0o644, "every user of the machine reads it"
    desk.home = desk.folder / "own"
    desk.pin(owners=[desk.owner])
    assert desk.home.stat().st_mode & 0o777 == 0o700
    assert (desk.home / pins.FILE).stat().st_mode & 0o777 == 0o600
    assert [policy.name for policy in load.in_force()] == [desk.name], "pinned by both, counted once"


def test_a_layer_is_pinned_on_what_it_extends_and_stops_beside_a_newer_one(desk, monkeypatch) -> None:
    monkeypatch.setenv("MLSEAL_CONFIG_DIR", str(desk.home))
    monkeypatch.delenv("MLSEAL_POLICY", raising=False)
    layer = Desk(desk.authority, desk.folder / "layer")
    layer.folder.mkdir()
    layer.home = desk.home
    beneath = desk.write()
    layer.write = lambda _="24h": load.load(layer.file, beside=[desk.file])
    layer.file.write_text(f"policy: {layer.name}\nextends: {{policy: {desk.name}, sha256: {beneath.sha256}}}\n")
    layer.sign()
    refused(layer, Unreadable, "the policy that it extends is not at hand", owners=[desk.owner])
    desk.sign()
    desk.pin(owners=[desk.owner])
    layer.pin(owners=[desk.owner])
    assert {policy.name for policy in load.in_force()} == {layer.name, desk.name}
    desk.sign("12h")
    desk.pin()
    with pytest.raises(PolicyInvalid, match="two policies have one name"):
        load.in_force()


def test_from_git_by_revision(desk) -> None:
    repo = desk.folder / "repo"
    subprocess.run(["git", "init", "-q", "-b", "main", str(repo)], check=True)
    desk.sign()
    (repo / "org").mkdir()
    for name in ("policy.yaml", f"policy.yaml{SUFFIX}"):
        shutil.copy(desk.folder / name, repo / "org" / name)
    git = ["git", "-C", str(repo), "-c", "user.name=o", "-c", "user.email=o@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "policy"], check=True)
    assert desk.pin(f"git+file://{repo}@main#org/policy.yaml").serial == 1
    subprocess.run([*git, "rm", "-q", f"org/policy.yaml{SUFFIX}"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "unsigned"], check=True)
    refused(desk, NoEvidence, "is not signed", f"git+file://{repo}@main#org/policy.yaml")
    for gone in (
        f"git+file://{repo}@none#org/policy.yaml",
        f"git+file://{repo}2@main#org/policy.yaml",
        f"git+file://{repo}@main#org/no.yaml",
    ):
        refused(desk, ServiceUnavailable, "cannot fetch", gone)
    marker = desk.folder / "ran"
    subprocess.run(["git", "config", "--global", "protocol.ext.allow", "always"], check=True)
    refused(desk, ServiceUnavailable, "", f"git+ext::sh -c touch% {marker}@main#policy.yaml")
    for wrong in (
        "git+-u@main#p",
        "git+url@-x#p",
        "git+url#p",
        "git+url@main",
        "git+url@main#../p",
        "git+url@main#/p",
        "git+u@main#a:b",
    ):
        with pytest.raises(Misuse, match="not a policy in git"):
            desk.pin(wrong)
    assert not marker.exists()


def test_what_is_too_large_or_not_there_stops(desk) -> None:
    refused(desk, Unreadable, "cannot read", desk.folder / "none.yaml")
    desk.sign()
    desk.file.write_text("# " + "x" * 1_000_000)
    refused(desk, PolicyInvalid, "is too large")
    with pytest.raises(PolicyInvalid, match="is too large"):
        fetch(str(desk.file))


def test_the_commands(home, authority, tmp_path: Path, monkeypatch) -> None:
    desk = Desk(authority, tmp_path)
    store = ("--store", str(authority.dir / "evidence"))
    desk.write()

    def call(*command: str, code: int = 0) -> Any:
        done = authority.call("policy", *command)
        assert done.returncode == code, done.stderr
        return done

    said = json.loads(call("release", str(desk.file), *store, "--json").stdout)
    assert (said["serial"], said["act"], said["policy"]) == (1, "release", desk.name)
    owner = ("--owner", desk.owner.issuer, desk.owner.san)
    assert "nobody is named" in call("pin", str(desk.file), *store, code=2).stderr
    assert f"pinned release 1 of {desk.name}" in call("pin", str(desk.file), *owner, *store).stdout
    assert f"{desk.name} number 1" in call("pin").stdout
    desk.write("12h")
    call("release", str(desk.file), *store)
    assert json.loads(call("pin", str(desk.file), *store, "--json").stdout)["serial"] == 2
    desk.write("24h")
    assert "were released before" in call("release", str(desk.file), *store, code=2).stderr
    call("rollback", str(desk.file), *store, code=2)
    call("rollback", str(desk.file), "--reason", "too strict", *store)
    assert "pinned rollback 3" in call("pin", str(desk.file), *store).stdout
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    done = authority.call("gate", str(model), *store)
    assert (done.returncode, desk.name in done.stdout) == (11, True), "no --policy: what is pinned judges"
    desk.write("999h")
    done = authority.call("gate", str(model), "--policy", str(desk.file), *store)
    assert (done.returncode, "not the pinned version" in done.stderr) == (10, True)
    call("pin", "--remove", desk.name)
    assert "no policy" in call("pin", "--remove", desk.name, code=2).stderr
    assert call("pin").stdout == "nothing is pinned\n"
