"""The admission gateway: what verified evidence lists comes in, whoever sends it, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.buckets import CREDENTIALS, Bucket
from adapters.dvc.gates import SUFFIX, Gate, Push, WebStore, directory_of, file_of, start, stored
from adapters.dvc.people import COLLIDING, Person, Scene, fresh, policy_text
from mlseal_dvc.gateway_paths import target
from mlseal_dvc.gateway_spool import Limits
from mlseal_dvc.gateway_upstream import DirectoryUpstream, open_upstream

from mlseal.errors import DigestMismatch, Misuse, NoEvidence, Unchecked


def test_evidence_then_data_come_in_and_arrive_unchanged(gate: Gate, push: Push, store: Path) -> None:
    gate.send_evidence(push)
    for name in push.objects:
        assert gate.put(name, push.data(name), chunked=name.endswith(".dir")) == 201
    everything = [name for name in push.names("")]
    assert stored(store) == sorted(everything)
    assert {name: gate.get(name) for name in everything} == {name: push.data(name) for name in everything}
    status, body = gate.call("HEAD", f"/{push.objects[0]}")
    assert (status, body) == (200, b"")
    # The same again changes nothing, and is no error.
    assert set(gate.send(push, [*push.manifests, *push.log, *push.bundles, *push.objects])) == {200}
    assert gate.reasons() == []


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_other_stores_behind_it(
    kind: str, open_gate: Callable[..., Gate], push: Push, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    web = WebStore()
    upstream = open_upstream(web.url) if kind == "http" else open_upstream(f"s3://{bucket.name}/team", bucket.endpoint)
    gate = open_gate(upstream)
    assert gate.put(file_of(push), push.data(file_of(push))) == 403
    gate.send_evidence(push)
    assert gate.put(file_of(push), COLLIDING[1] + SUFFIX) == 403
    assert set(gate.send(push, push.objects)) == {201}
    assert set(gate.send(push, [*push.bundles, *push.objects])) == {200}
    inside = {n.removeprefix("/store/"): d for n, d in web.files.items()} | {
        key.removeprefix("team/"): bucket.get(key) for key in bucket.keys()
    }
    assert inside == {name: push.data(name) for name in push.names("")}
    assert gate.get(directory_of(push)) == push.data(directory_of(push))
    assert gate.get("files/md5/00/" + "0" * 30) is None
    # Somebody with other keys put something there: it stays, and is no answer to the right bytes.
    planted = push.objects[0]
    if kind == "http":
        web.files[f"/store/{planted}"] = b"planted"
    else:
        bucket.put(f"team/{planted}", b"planted")
    assert gate.put(planted, push.data(planted)) == 409
    web.shutdown()
    web.server_close()


def test_order_manifest_bundle_object(gate: Gate, push: Push, store: Path) -> None:
    assert set(gate.send(push, push.objects)) == {403}
    assert "nobody signed" in gate.said
    directory = next(name for name in push.bundles if ".dir/" in name)
    assert gate.put(directory, push.data(directory)) == 403
    assert "manifest" in gate.said
    assert gate.send(push, push.manifests) == [201]
    assert stored(store) == []  # no signature names it yet
    gate.send(push, push.log)
    assert gate.put(directory, push.data(directory)) == 201
    assert gate.put(file_of(push), push.data(file_of(push))) == 403  # the other output's evidence is still missing
    assert [n for n in stored(store) if n.startswith("files/")] == []


def test_a_collision_and_a_swapped_body_are_refused_and_kept_aside(gate: Gate, push: Push, store: Path) -> None:
    gate.send_evidence(push)
    evil = COLLIDING[1] + SUFFIX
    assert hashlib.md5(evil).hexdigest() == hashlib.md5(push.data(file_of(push))).hexdigest()
    assert gate.put(file_of(push), evil) == 403
    assert "nobody signed" in gate.said
    assert gate.put(file_of(push), b"something else") == 403
    assert "does not have the MD5 in its name" in gate.said
    assert gate.put(directory_of(push), push.data(directory_of(push)).replace(b"}, {", b"},  {")) == 403
    assert [n for n in stored(store) if n.startswith("files/")] == []
    reasons = gate.reasons()
    assert [row["path"] for row in reasons] == [f"/{file_of(push)}"] * 2 + [f"/{directory_of(push)}"]
    assert reasons[0]["sha256"] == hashlib.sha256(evil).hexdigest()
    assert "nobody signed" in reasons[0]["reason"]
    assert evil in gate.kept()
    assert gate.put(file_of(push), push.data(file_of(push))) == 201


def test_a_directory_object_lists_exactly_the_manifest(gate: Gate, push: Push) -> None:
    gate.send_evidence(push)
    gate.send(push, push.objects)
    rows = json.loads(push.data(directory_of(push)))
    name = next(name for name in push.bundles if ".dir/" in name)
    judged = gate.admission._holding(name)
    gate.admission._require_tree(judged, json.dumps(rows).encode())
    with pytest.raises(DigestMismatch, match="does not list the files"):
        gate.admission._require_tree(judged, json.dumps(rows[1:]).encode())
    rows[0]["md5"], rows[1]["md5"] = rows[1]["md5"], rows[0]["md5"]
    with pytest.raises(DigestMismatch, match="puts another object"):
        gate.admission._require_tree(judged, json.dumps(rows).encode())


def test_evidence_of_another_signer_admits_nothing(
    open_gate: Callable[..., Gate], authority: Any, push: Push, store: Path
) -> None:
    gate = open_gate(san=authority.san("tester"))
    gate.send(push, [*push.manifests, *push.log])
    assert set(gate.send(push, push.bundles)) == {403}
    assert set(gate.send(push, push.objects)) == {403}
    assert [n for n in stored(store) if "/log/" not in n] == []


def test_a_policy_decides_who_may_sign_what(
    open_gate: Callable[..., Gate], authority: Any, push: Push, tmp_path: Path
) -> None:
    policy = tmp_path / "gate.yaml"
    text = policy_text(authority.issuer, authority.san("producer"))
    policy.write_text(text.replace('action: "*"', 'action: "*", output: "imgs"'))
    gate = open_gate(policy=policy)
    gate.send(push, [*push.manifests, *push.log])
    assert {(".dir/" in name): gate.put(name, push.data(name)) for name in push.bundles} == {True: 201, False: 403}
    assert "nobody is named who may sign data.csv" in " ".join(text for _, text in gate.replies)
    assert {name: gate.put(name, push.data(name)) for name in push.objects} == {
        name: 403 if name == file_of(push) else 201 for name in push.objects
    }


def test_evidence_counts_only_where_it_belongs(gate: Gate, push: Push, store: Path) -> None:
    gate.send(push, [*push.manifests, *push.log])
    name = next(name for name in push.bundles if ".dir/" not in name)
    head, oid, path, signer = name.rsplit("/", 3)
    others = [
        f"{head}/{oid}/{'0' * 32}/{signer}",  # of another output
        f"{head}/{'0' * 32}/{path}/{signer}",  # of another object
        f"{head}/{oid}/{path}/{'0' * 32}.sigstore.json",  # by somebody else
    ]
    for other in others:
        assert gate.put(other, push.data(name)) == 403
        assert "belongs somewhere else" in gate.said
    changed = json.loads(push.data(name))
    changed["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    assert gate.put(name, json.dumps(changed).encode()) == 403
    assert gate.put(name, b"{}") == 403
    assert [n for n in stored(store) if "bundles" in n] == []


def test_nothing_stored_is_replaced(gate: Gate, push: Push, store: Path) -> None:
    gate.send_evidence(push)
    bundle = push.bundles[0]
    assert gate.put(bundle, push.data(bundle) + b"\n") == 409
    planted = store / file_of(push)
    planted.parent.mkdir(parents=True)
    planted.write_bytes(COLLIDING[1] + SUFFIX)
    assert gate.put(file_of(push), push.data(file_of(push))) == 409
    assert planted.read_bytes() == COLLIDING[1] + SUFFIX
    salt = "attestations/v1/names.salt"
    assert gate.put(salt, b"ab" * 32 + b"\n") == 201
    assert gate.put(salt, b"cd" * 32 + b"\n") == 409
    assert gate.put(salt, b"forgotten\n") == 403
    assert (store / bundle).read_bytes() == push.data(bundle)


def test_renewal_is_for_newer_evidence_only(open_gate: Callable[..., Gate], push: Push, store: Path) -> None:
    gate = open_gate(renew=True)
    gate.send_evidence(push)
    bundle = push.bundles[0]
    assert gate.put(bundle, push.data(bundle) + b"\n") == 403  # the same evidence written otherwise is not newer
    assert "newer evidence is stored" in gate.said
    damaged = store / bundle
    damaged.chmod(0o644)
    damaged.write_bytes(b"{}")
    assert gate.put(bundle, push.data(bundle)) == 201  # what holds no longer gives way
    assert damaged.read_bytes() == push.data(bundle)


def test_restart_between_bundle_and_object(open_gate: Callable[..., Gate], push: Push, tmp_path: Path) -> None:
    first = open_gate(state="one")
    first.send_evidence(push)
    objects = push.objects
    assert first.put(objects[0], push.data(objects[0])) == 201
    first.stop()
    (tmp_path / "one" / "incoming" / "left").write_bytes(b"half a body")
    again = open_gate(state="one")
    assert not (tmp_path / "one" / "incoming" / "left").exists()
    assert again.put(objects[1], push.data(objects[1])) == 201  # verified again from what is stored
    # Without its state: a push reads the bundles first, and that is enough.
    lost = open_gate(state="two")
    assert lost.put(objects[2], push.data(objects[2])) == 403
    for name in push.bundles:
        assert lost.get(name) == push.data(name)
    assert set(lost.send(push, objects[2:])) == {201}


def test_evidence_that_left_the_store_admits_nothing(gate: Gate, push: Push, store: Path) -> None:
    gate.send_evidence(push)
    for name in push.bundles:
        (store / name).unlink()
    gate.admission._holds.clear()  # as after `HOLDS_SECONDS`
    assert set(gate.send(push, push.objects)) == {403}


def test_reads_can_be_verified(open_gate: Callable[..., Gate], push: Push, store: Path) -> None:
    gate = open_gate(verify_reads=True)
    gate.send_evidence(push)
    gate.send(push, push.objects)
    assert [gate.get(name) for name in push.objects] == [push.data(name) for name in push.objects]
    swapped = store / file_of(push)
    swapped.chmod(0o644)
    swapped.write_bytes(COLLIDING[1] + SUFFIX)
    status, body = gate.call("GET", f"/{file_of(push)}")
    assert (status, b"nobody signed" in body) == (403, True)
    plain = open_gate(state="plain")
    assert plain.get(file_of(push)) == COLLIDING[1] + SUFFIX  # without it, the reader's own check finds it


def test_log_copies_come_in_only_as_the_log_signed_them(gate: Gate, push: Push, store: Path) -> None:
    *tiles, checkpoint = push.log
    wrong = bytearray(push.data(tiles[0]))
    wrong[0] ^= 1
    gate.send(push, tiles)
    assert gate.put(tiles[0], bytes(wrong)) == 201  # it waits: nobody knows yet
    assert gate.put(checkpoint, push.data(checkpoint)) == 403
    assert stored(store) == []
    assert set(gate.send(push, [*tiles, checkpoint])) == {201}
    assert gate.put(tiles[0], bytes(wrong)) == 403
    assert gate.put(checkpoint, push.data(checkpoint).replace(b"\n", b"\n9", 1)) == 403
    other = checkpoint.replace(checkpoint.split("/")[3], "log.elsewhere.example")
    assert gate.put(other, push.data(checkpoint)) == 403
    assert gate.get(checkpoint) == push.data(checkpoint)


def test_a_revocation_needs_a_revoker(gate: Gate, push: Push) -> None:
    assert gate.put(f"attestations/v1/revocations/{'0' * 64}.sigstore.json", push.data(push.bundles[0])) == 403
    assert "nobody who may revoke" in gate.said


def test_bodies_are_bounded(open_gate: Callable[..., Gate], push: Push, store: Path) -> None:
    gate = open_gate(limits=Limits(body=1000, quarantine=1500))
    name = file_of(push)
    assert gate.put(name, b"x" * 1001) == 413
    assert gate.put(name, b"x" * 5000, chunked=True) == 413
    assert list((gate.state / "incoming").iterdir()) == []
    for _ in range(3):
        assert gate.put(name, b"y" * 600) == 403
    assert len(gate.kept()) <= 2  # the oldest made way
    assert gate.gateway._spool._incoming == 0
    busy = open_gate(state="busy", limits=Limits(incoming=100))
    assert busy.put(name, b"x" * 200) == 503
    assert stored(store) == []


def test_a_slow_client_is_sent_away(open_gate: Callable[..., Gate], push: Push) -> None:
    gate = open_gate(grace=0.3)
    began = time.monotonic()
    got = gate.raw(f"PUT /{file_of(push)} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode(), b"abc")
    assert got.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 5
    assert list((gate.state / "incoming").iterdir()) == []


_HOST = b"Host: x\r\n"
_NAME = b"/files/md5/79/054025255fb1a26e4bc422aef54eb4"


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (400, b"GET /files/md5/../../etc/passwd HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (400, b"GET /files/md5/%2e%2e/secret HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (400, b"PUT /files%2fmd5/79/054025255fb1a26e4bc422aef54eb4 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n"),
        (400, b"GET //files/md5/79/054025255fb1a26e4bc422aef54eb4 HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (400, b"GET " + _NAME + b"?versionId=1 HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (404, b"GET / HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n"),
        (404, b"GET /files/md5/ HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n"),
        (404, b"PUT /files/md5/79/054025255FB1A26E4BC422AEF54EB4 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n"),
        (404, b"PUT /79/054025255fb1a26e4bc422aef54eb4 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n"),
        (404, b"PUT /runs/ab/cd/ef HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n"),
        (405, b"DELETE " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (411, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Content-Length: +3\r\n\r\nabc"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
        (400, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n"),
        (413, b"PUT " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Content-Length: 999999999999999\r\n\r\n"),
        (400, b"GET " + _NAME + b" HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\n\r\nabc"),
        (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n"),
        (400, b"nonsense\r\n\r\n"),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)  # fmt: skip
def test_requests_that_could_be_read_in_two_ways(wire: Gate, status: int, request_bytes: bytes) -> None:
    got = wire.raw(request_bytes)
    assert got.split(b" ")[1] == str(status).encode(), got[:200]
    assert got.count(b"HTTP/1.1 ") == 1


@pytest.fixture(scope="module")
def wire(push: Push, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One gateway for all tests of framing: nothing is ever admitted there."""
    base = tmp_path_factory.mktemp("wire")
    (base / "store").mkdir()
    gate = start(DirectoryUpstream(base / "store"), base / "state", push)
    yield gate
    assert stored(base / "store") == []
    gate.stop()


def test_a_body_that_ends_early_is_not_stored(gate: Gate, push: Push, store: Path) -> None:
    gate.send_evidence(push)
    data = push.data(file_of(push))
    with socket.create_connection(gate.address) as connection:
        head = f"PUT /{file_of(push)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        connection.sendall(head + data[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert not (store / file_of(push)).exists()


def test_who_waits_to_be_asked_is_asked(gate: Gate, push: Push) -> None:
    gate.send_evidence(push)
    data = push.data(file_of(push))
    head = f"PUT /{file_of(push)} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    got = gate.raw(head.encode(), data)
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


def test_several_clients_at_once(gate: Gate, push: Push, store: Path) -> None:
    """Everybody sends everything: each file is stored once, and nobody is refused."""
    names = [*push.manifests, *push.log, *push.bundles, *push.objects]
    ready = threading.Barrier(6)

    def client(_: int) -> list[int]:
        ready.wait()
        return [gate.call("PUT", f"/{name}", push.data(name))[0] for name in names]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(client, range(6)))
    assert {status for row in answers for status in row} <= {200, 201}
    assert [row.count(201) for row in zip(*(row[-len(push.objects) :] for row in answers), strict=True)] == [1] * len(
        push.objects
    )
    assert stored(store) == sorted(push.names(""))


def test_a_store_that_fails_leaves_nothing_half_admitted(open_gate: Callable[..., Gate], push: Push) -> None:
    web = WebStore()
    gate = open_gate(open_upstream(web.url))
    gate.send(push, [*push.manifests, *push.log])
    web.failing = {"PUT"}
    assert set(gate.send(push, push.bundles)) == {502}
    assert set(gate.send(push, push.objects)) == {403}
    assert gate.ledger.listing(hashlib.sha256(push.data(file_of(push))).hexdigest()) == []
    web.failing = {"GET", "HEAD"}
    assert gate.call("GET", f"/{file_of(push)}")[0] == 502
    web.failing = set()
    assert set(gate.send(push, push.bundles)) == {201}
    web.failing = {"PUT"}
    assert set(gate.send(push, push.objects)) == {502}
    web.shutdown()
    web.server_close()
    assert gate.put(push.objects[0], push.data(push.objects[0])) == 502
    assert [row["path"] for row in gate.reasons()] == [f"/{name}" for name in push.objects]


@pytest.mark.parametrize("url", ["ftp://host/x", "s3:///x", "s3://", "mlseals3://b/p", "nowhere", "http:/x"])
def test_no_upstream_of_another_kind(url: str) -> None:
    with pytest.raises(Misuse):
        open_upstream(url)


def test_what_paths_name() -> None:
    assert target(f"/files/md5/ab/{'c' * 30}.dir").key == "ab" + "c" * 30 + ".dir"
    assert target("/attestations/v1/log/a..b/checkpoint") is None
    assert target(f"/attestations/v1/bundles/md5-dos2unix/{'c' * 32}/{'d' * 32}/{'e' * 32}.sigstore.json") is None
    assert target("/attestations/v1/log/log.example/tile/0/x001/000.p/7").tile == "tile/0/x001/000.p/7"


def test_errors_are_told_apart() -> None:
    from mlseal_dvc.gateway import status_of
    from mlseal_dvc.gateway_upstream import UpstreamFailed

    assert [status_of(e) for e in (DigestMismatch("x"), NoEvidence("x"), Unchecked("x"), UpstreamFailed("x"))] == [
        403,
        403,
        503,
        502,
    ]


@dataclass
class Team:
    """A repository whose remote is a gateway that runs as a program of its own, with TLS."""

    scene: Scene
    store: Path
    state: Path
    certificate: Path
    url: str

    def point(self, repo: Path) -> None:
        lines = ["[core]", "    remote = store", "['remote \"store\"']", f"    url = {self.url}"]
        (repo / ".dvc" / "config").write_text("\n".join([*lines, f"    ssl_verify = {self.certificate}"]) + "\n")


@pytest.fixture
def team(scene: Scene, tmp_path: Path) -> Iterator[Team]:
    store, state, certificate, key = (tmp_path / name for name in ("store", "gate", "cert.pem", "key.pem"))
    store.mkdir()
    write_certificate(certificate, key)
    keeper = scene.newcomer("keeper", clone=False)
    command = [keeper.python, "-m", "mlseal", "dvc", "gateway", "--listen", "127.0.0.1:0", "--upstream", store]
    command += ["--cert", certificate, "--key", key, "--state", state, "--policy", scene.policy, "--anonymous"]
    with subprocess.Popen(
        [str(word) for word in command], env=keeper.env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        made = Team(scene, store, state, certificate, line.split(" in front of")[0])
        made.point(scene.repo)
        scene.owner.commit("gateway")
        yield made
        process.terminate()
        assert process.wait(20) == 0


def write_certificate(certificate: Path, key: Path) -> None:
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    made = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def test_with_dvc_itself_over_tls(team: Team) -> None:
    """Without the plugin nothing gets in; with it everything, and another person pulls and verifies through it."""
    scene = team.scene
    scene.owner.python, auto = scene.newcomer("x", autoload=False, clone=False).python, scene.owner.python
    data = scene.add("data.csv", fresh())
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    done = scene.owner.dvc("push", ok=False)
    assert "403" in done.stderr
    assert "nobody signed" in done.stderr
    assert stored(team.store) == []
    assert len(list((team.state / "quarantine").glob("*.json"))) >= 3
    scene.owner.python = auto
    assert "signed 2 outputs" in scene.owner.dvc("push").stderr
    assert len([name for name in stored(team.store) if name.startswith("files/")]) == 4
    assert "signed 0 outputs" in scene.owner.dvc("push").stderr
    reader = scene.newcomer()
    assert "verified 2 outputs" in reader.dvc("pull").stderr
    assert (reader.cwd / "data.csv").read_bytes() == data.read_bytes()
    rows = json.loads(reader.mlseal("dvc", "verify", "--json").stdout)["outputs"]
    assert [row["ok"] for row in rows] == [True, True]


def test_two_pushes_of_the_same_data_at_once(team: Team) -> None:
    """One may find the other's evidence in its place; a second try always succeeds."""
    scene = team.scene
    scene.add("data.csv", fresh())
    other = Person(
        scene.owner.python, scene.owner.env | {"DVC_SITE_CACHE_DIR": str(team.store.parent / "o")}, scene.repo
    )
    copy = team.store.parent / "copy"
    shutil.copytree(scene.repo, copy, symlinks=True)
    other.cwd = copy
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda person: person.dvc("push", ok=None), (scene.owner, other)))
    for person in (scene.owner, other):
        assert person.dvc("push").returncode == 0
    assert len([name for name in stored(team.store) if "/bundles/" in name]) == 1
    assert len([name for name in stored(team.store) if name.startswith("files/")]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "0.0.0.0:0"], "with TLS only"),
        (["--listen", "localhost"], "HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--upstream", "gs://b"], "no upstream of this kind"),
        (["--listen", "127.0.0.1:0", "--anonymous"], "nobody is named"),
    ],
)
def test_a_gateway_that_would_protect_nothing_does_not_start(
    authority: Any, tmp_path: Path, arguments: list[str], says: str
) -> None:
    upstream = [] if "--upstream" in arguments else ["--upstream", str(tmp_path)]
    done = authority.home.call("dvc", "gateway", *arguments, *upstream)
    assert done.returncode == 2
    assert says in done.stderr
