"""Three users of one machine: who trains, who runs the registry, who serves. None can do what another is for.

The server runs as its own user with the gate's role, owns the database and the storage, and is reached over HTTP. The
trainer logs a model and signs evidence. The loader has the exported public root, the evidence and nothing else.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlseal.evidence import statement, trust
from mlseal.evidence.predicates import slsa_vsa, test_result
from mlseal.evidence.signing import signer_for, tokens
from mlseal.evidence.store import Store
from tests.adapters.mlflow import conftest
from tests.attacks.as_user import as_user, home_of

PRODUCER, SERVER, LOADER = 42011, 42012, 42013
POLICY = """\
policy: users/1
applies: [{{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{producer}"}}]
ungoverned: [{{tool: mlflow, action: create, owner: tests, until: "2100-01-01T00:00:00Z"}}]
"""
# Another user may not be allowed to read this interpreter, wherever it lies; the server may, and may no more than that.
AS_SERVER = ("setpriv", f"--reuid={SERVER}", f"--regid={SERVER}", "--clear-groups", "--no-new-privs")
READS_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@dataclass
class Machine:
    """The server, three homes, what all may read, and a model that the trainer brought to ``champion``."""

    shop: Any
    homes: dict[int, Path]
    public: Path
    name: str = ""
    uri: str = ""
    files: dict[str, bytes] | None = None

    @property
    def config(self) -> Path:
        return self.public / "trust_config.json"

    def run(self, uid: int, work: Any) -> Any:
        """`work` as `uid`, who knows the public root, the evidence and the server's address."""
        store = str(self.shop.store_root)
        return as_user(uid, self.homes[uid], work, MLSEAL_TRUST=str(self.config), MLSEAL_STORE=store)

    def sign(self, said: Any, role: str = "producer") -> Any:
        """A statement signed in the name of whoever runs this, published to the shared store."""
        store = Store(self.shop.store_root)
        return signer_for(role, trust=trust.load(self.config), store=store).sign(said)

    def prove(self, files: dict[str, bytes]) -> str:
        predicate = {"result": "PASSED", "configuration": [{"name": uuid.uuid4().hex, "digest": {"sha256": "0" * 64}}]}
        return str(self.sign(statement.make(measured(files), test_result.URI, predicate)).evidence_id)

    def load(self, uri: str) -> Any:
        """What the model at `uri` says, loaded by whoever runs this."""
        import mlflow

        mlflow.set_tracking_uri(self.shop.url)
        mlflow.set_registry_uri(self.shop.url)
        return mlflow.pyfunc.load_model(uri).predict(None)


def measured(files: dict[str, bytes]) -> Any:
    """The subjects of a model with these files, from a private copy in this user's home."""
    from mlseal.evidence.digest import measure

    place = Path.home() / uuid.uuid4().hex / "model"
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return measure(place).subjects


@pytest.fixture
def machine(new_authority, monkeypatch):
    assert os.getuid() == 0, "this test needs root to become three users"
    assert shutil.which("setpriv"), "this test needs setpriv (util-linux)"
    authority = new_authority()
    base = authority.state.parent  # all may pass through; pytest's own directories are closed to them
    homes = {uid: home_of(uid, base) for uid in (PRODUCER, SERVER, LOADER)}
    public, shared = base / "public", base / "store"
    public.mkdir(mode=0o755)
    for name in ("trusted_root.json", "trust_config.json"):
        (public / name).write_bytes((authority.dir / name).read_bytes())
        (public / name).chmod(0o644)
    shared.mkdir()
    shared.chmod(0o777)
    for uid, role in ((PRODUCER, "producer"), (SERVER, "gate")):
        done = authority.run("trust", "grant", "--uid", str(uid), f"roles/{role}")
        assert done.returncode == 0, done.stderr
    server = {key: f"{homes[SERVER]}/{key}" for key in authority.env if key.startswith("XDG_")}
    shop = conftest.build(
        authority,
        base / "mlflow",
        policy=POLICY.replace("{producer}", authority.san("producer")),
        workers=1,
        **server,
        HOME=str(homes[SERVER]),
        MLSEAL_TRUST=str(public / "trust_config.json"),
        MLSEAL_STORE=str(shared),
    )
    shop.store_root, shop.prefix = shared, (*AS_SERVER, *READS_ALL)
    shop.base.chmod(0o755)  # others may look at the database and the storage, as on a careless machine
    for path in (shop.base, *shop.base.rglob("*")):
        os.chown(path, SERVER, SERVER)
    conftest.enter(shop, monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = Machine(shop, homes, public)
    try:
        snapshot(authority, shared)
        shop.start()
        warm(made)
        promote(made)
        yield made
    finally:
        shop.stop()
        import mlflow

        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        sys.modules.pop("canary_loader", None)


def snapshot(authority, store):
    from datetime import timedelta

    from mlseal.evidence import revoking
    from mlseal.evidence.archive import Archive

    signer = authority.signer("monitor", store=Store(store))
    revoking.snapshot(Archive.open(authority.trust, Store(store)), signer, valid_for=timedelta(hours=24))


def warm(machine):
    """Import all that the children will need: they may not be able to."""
    files = machine.shop.pyfunc("warm")
    name, version, _ = machine.shop.model(files)
    machine.prove(files)
    machine.shop.client.set_registered_model_alias(name, "champion", version)
    assert machine.load(f"attested:/{name}@champion") == "warm"
    assert machine.load(f"models:/{name}@champion") == "warm"
    sys.modules.pop("canary_loader", None)


def promote(machine):
    """The trainer's day: log, sign, promote; and the loader's."""
    machine.files = machine.shop.pyfunc("fine")

    def train():
        name, version, uri = machine.shop.model(machine.files)
        machine.prove(machine.files)
        machine.shop.client.set_registered_model_alias(name, "champion", version)
        return [name, uri]

    done = machine.run(PRODUCER, train)
    assert "value" in done, done
    machine.name, machine.uri = done["value"]
    loaded = machine.run(LOADER, lambda: machine.load(f"attested:/{machine.name}@champion"))
    assert loaded == {"value": "fine"}


def test_three_users_cannot_do_what_another_is_for(machine):
    """One server for all of it: it takes long to start."""
    no_token_of_the_gate(machine)
    no_way_into_the_servers_files(machine)
    no_verdict_of_ones_own(machine)
    nothing_is_signed_by_who_only_loads(machine)


def no_token_of_the_gate(machine):
    root = trust.load(machine.config)
    for role in ("gate", "monitor", "roles/gate"):
        tried = machine.run(PRODUCER, lambda role=role: tokens.from_embedded(root, root.endpoints.issuer, role, 10))
        assert tried.get("error") in ("UntrustedSigner", "Misuse"), tried

    def look():
        """What a token, or a key, could be read from."""
        seen = []
        pid = machine.shop.server.process.pid
        for path in (f"/proc/{pid}/environ", f"/proc/{pid}/mem", f"/proc/{pid}/fd", str(machine.homes[SERVER])):
            try:
                seen.append(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1).hex())
            except OSError:
                continue
        try:
            os.kill(pid, 9)
        except OSError:
            return seen
        return "killed"

    assert machine.run(PRODUCER, look) == {"value": []}
    assert machine.shop.server.process.poll() is None


def no_way_into_the_servers_files(machine):
    database = machine.shop.base / "registry.db"
    assert database.stat().st_uid == SERVER  # the server made it, as the user that it is

    def write():
        done = []

        def sql():
            with sqlite3.connect(database) as connection:
                connection.execute("update registered_model_aliases set version = 2")

        (mine := Path.home() / "evil.db").write_bytes(b"")
        stored = machine.shop.artifacts / machine.uri.removeprefix("mlflow-artifacts:/")
        for attempt in (
            sql,
            lambda: open(database, "r+b"),
            lambda: os.replace(mine, database),
            lambda: os.unlink(database),
            lambda: os.chmod(database, 0o666),
            lambda: (stored / "model.pkl").write_bytes(b""),
            lambda: (stored / "attestations" / "x.json").write_bytes(b""),
            lambda: (machine.shop.policy).write_text("policy: mine/1"),
        ):
            try:
                attempt()
            except (OSError, sqlite3.Error):
                continue
            done.append(True)
        return done

    assert machine.run(PRODUCER, write) == {"value": []}
    assert machine.shop.aliases(machine.name) == {"champion": "1"}


def no_verdict_of_ones_own(machine):
    """Other bytes through the artifact proxy, and beside them the gate's own words about them, signed by the trainer."""
    ran = machine.homes[LOADER] / "ran"
    evil = {**machine.files, "model.pkl": machine.shop.canary(ran)}
    store = Store(machine.shop.store_root)
    truth = next(
        dict(said.predicate)
        for said in (store.get(evidence_id).statement for evidence_id in store.ids())
        if said.predicate_type == slsa_vsa.URI and said.predicate["mlseal"]["action"]["model"] == machine.name
    )
    assert truth["verificationResult"] == "PASSED"

    def forge():
        machine.prove(evil)
        said = statement.make(measured(evil), slsa_vsa.URI, truth)
        try:
            machine.sign(said, "gate")
        except Exception:
            bundle = machine.sign(said)
        machine.shop.overwrite(machine.uri, "model.pkl", evil["model.pkl"])
        for name in ("verdict-0000000000000000.sigstore.json", "forged.sigstore.json"):
            machine.shop.overwrite(machine.uri, f"attestations/{name}", bundle.raw)
        return True

    assert machine.run(PRODUCER, forge) == {"value": True}
    tried = machine.run(LOADER, lambda: machine.load(f"attested:/{machine.name}@champion"))
    assert "never allowed these bytes" in tried.get("text", ""), tried
    assert not ran.exists()
    machine.run(LOADER, lambda: machine.load(f"models:/{machine.name}@champion"))
    assert ran.exists()  # the canary is alive: what does not ask, runs it
    assert ran.stat().st_uid == LOADER


def nothing_is_signed_by_who_only_loads(machine):
    for role in ("gate", "producer"):
        tried = machine.run(LOADER, lambda role=role: machine.sign(claim(machine), role).evidence_id)
        assert tried.get("error") == "UntrustedSigner", tried


def claim(machine):
    predicate = {"result": "PASSED", "configuration": [], "url": f"urn:{uuid.uuid4().hex}"}
    return statement.make(measured(machine.files), test_result.URI, predicate)
