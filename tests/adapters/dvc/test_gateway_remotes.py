"""DVC itself in front of S3: straight to the bucket, through the gateway by HTTP, through the gateway by S3.

The gateway is a program of its own with TLS that asks who comes, moto's S3 lies behind. Somebody who holds the bucket's
keys then does what the gateway does not let anybody do, and a reader refuses on each of the three ways.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.buckets import CREDENTIALS, Bucket
from adapters.dvc.people import Person, Scene, fresh, oid_in
from adapters.dvc.test_gateway import write_certificate

from mlseal.evidence.signing.tokens import from_embedded

KEYS = {"producer": ("AKIAPRODUCER00000000", "p" * 40), "evaluator": ("AKIAEVALUATOR0000000", "e" * 40)}
WAYS = ["straight", "http", "s3"]
LARGE = 101 << 20
"""s3fs sends what is larger than 100 MiB in parts of 50 MiB."""


@dataclass
class Front:
    """A gateway program in front of a bucket."""

    url: str
    certificate: Path
    log: Path
    bucket: Bucket
    token: Callable[[str], str]

    def point(self, person: Person, way: str, role: str) -> None:
        """Have `person`'s clone use the remote by `way`, with the credentials of `role`."""
        settings = {
            "straight": [f"url = s3://{self.bucket.name}/kept", f"endpointurl = {self.bucket.endpoint}"],
            "http": [f"url = {self.url}", "auth = custom", "custom_auth_header = Authorization"],
            "s3": ["url = s3://team", f"endpointurl = {self.url}"],
        }[way]
        if way == "http":
            settings += [f"password = Bearer {self.token(role)}"]
        if way == "s3":
            settings += [f"access_key_id = {KEYS[role][0]}", f"secret_access_key = {KEYS[role][1]}"]
        if way != "straight":
            settings += [f"ssl_verify = {self.certificate}"]
        lines = ["[core]", "    remote = store", "['remote \"store\"']", *(f"    {line}" for line in settings)]
        (person.cwd / ".dvc" / "config.local").write_text("\n".join(lines) + "\n")
        person.env |= CREDENTIALS


@pytest.fixture
def front(scene: Scene, authority: Any, bucket: Bucket, tmp_path: Path) -> Iterator[Front]:
    certificate, secret, access, keys, log = (
        tmp_path / name for name in ("cert.pem", "key.pem", "access.yaml", "keys.json", "gateway.log")
    )
    write_certificate(certificate, secret)
    rows = {role: f'{{issuer: "{authority.issuer}", san: "{authority.san(role)}"}}' for role in KEYS}
    access.write_text(f"read: [{', '.join(rows.values())}]\nwrite: [{rows['producer']}]\n")
    row = [
        {"accessKeyId": key, "secretAccessKey": word, "issuer": authority.issuer, "san": authority.san(role)}
        for role, (key, word) in KEYS.items()
    ]
    keys.touch(0o600)
    keys.write_text(json.dumps({"keys": row}))
    command = [scene.owner.python, "-m", "mlseal", "dvc", "gateway", "--listen", "127.0.0.1:0"]
    command += ["--upstream", f"s3://{bucket.name}/kept", "--endpoint-url", bucket.endpoint, "--state", tmp_path / "g"]
    command += ["--cert", certificate, "--key", secret, "--policy", scene.policy, "--access", access]
    command += ["--s3-bucket", "team", "--s3-keys", keys, "--session", "60"]
    with (
        log.open("w") as said,
        subprocess.Popen(
            [str(word) for word in command],
            env=scene.owner.env | CREDENTIALS,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        line = process.stdout.readline()
        assert line, log.read_text()

        def token(role: str) -> str:
            return from_embedded(authority.trust, authority.trust.endpoints.issuer, role, 30)

        yield Front(line.split(" in front of")[0], certificate, log, bucket, token)
        process.terminate()
        assert process.wait(60) == 0


def evidence_of(bucket: Bucket, path: str) -> str:
    """Key of the bundle about an output."""
    import base64

    for key in bucket.keys():
        if "/bundles/" in key:
            said = json.loads(base64.b64decode(json.loads(bucket.get(key))["dsseEnvelope"]["payload"]))
            if said["predicate"]["path"] == path:
                return key
    raise AssertionError(path)


@pytest.mark.parametrize("way", WAYS)
def test_swaps_and_replays_are_refused_on_every_way(front: Front, scene: Scene, way: str) -> None:
    bucket = front.bucket
    names = ["good.csv", "swapped.csv", "one.csv", "two.csv"]
    (scene.repo / "imgs").mkdir()
    for name in (*names, "imgs/a", "imgs/b"):
        (scene.repo / name).write_bytes(fresh())
    scene.owner.dvc("add", "-q", *names, "imgs")
    scene.owner.commit("data")
    front.point(scene.owner, way, "producer")
    assert "signed 5 outputs" in scene.owner.dvc("push").stderr
    oids = {name: oid_in(scene.repo / f"{name}.dvc") for name in ("swapped.csv", "imgs", "good.csv")}
    keys = {name: f"kept/files/md5/{oid[:2]}/{oid[2:]}" for name, oid in oids.items()}
    tree = json.loads(bucket.get(keys["imgs"]))
    bucket.put(keys["swapped.csv"], b"other bytes")
    bucket.put(keys["imgs"], json.dumps([tree[0] | {"relpath": "b"}, tree[1] | {"relpath": "a"}]).encode())
    bucket.put(evidence_of(bucket, "one.csv"), bucket.get(evidence_of(bucket, "two.csv")))
    reader = scene.newcomer()
    front.point(reader, way, "evaluator")
    done = reader.mlseal("dvc", "pull", ok=False)
    assert "Traceback" not in done.stderr
    assert not any((reader.cwd / name).exists() for name in ("swapped.csv", "imgs", "one.csv"))
    rows = {
        row["path"]: row for row in json.loads(reader.mlseal("dvc", "verify", "--json", ok=False).stdout)["outputs"]
    }
    assert {name for name, row in rows.items() if not row["ok"]} == {"swapped.csv", "imgs", "one.csv"}
    assert "is about something else" in json.dumps(rows["one.csv"])
    reader.dvc("pull", "good.csv.dvc")
    assert (reader.cwd / "good.csv").read_bytes() == (scene.repo / "good.csv").read_bytes()


def test_dvc_says_who_it_is_and_large_objects_come_in_parts(front: Front, scene: Scene) -> None:
    large = scene.repo / "large.bin"
    large.write_bytes(hashlib.sha256(fresh()).digest() * (LARGE // 32))
    scene.owner.dvc("add", "-q", str(large))
    scene.owner.commit("large")
    front.point(scene.owner, "s3", "evaluator")
    assert "may not write here" in scene.owner.dvc("push", ok=False).stderr
    front.point(scene.owner, "http", "producer")
    lines = (scene.repo / ".dvc" / "config.local").read_text().splitlines()
    nobody = [line for line in lines if "auth" not in line and "password" not in line]
    (scene.repo / ".dvc" / "config.local").write_text("\n".join(nobody) + "\n")
    assert "401" in scene.owner.dvc("push", ok=False).stderr
    assert front.bucket.keys() == []
    front.point(scene.owner, "s3", "producer")
    scene.owner.dvc("push")
    assert "put together files/md5/" in front.log.read_text()
    oid = oid_in(scene.repo / "large.bin.dvc")
    stored = front.bucket.get(f"kept/files/md5/{oid[:2]}/{oid[2:]}")
    assert hashlib.sha256(stored).digest() == hashlib.sha256(large.read_bytes()).digest()
    reader = scene.newcomer()
    front.point(reader, "s3", "evaluator")
    assert "verified 1 outputs" in reader.dvc("pull").stderr
    assert (reader.cwd / "large.bin").stat().st_size == len(stored)
