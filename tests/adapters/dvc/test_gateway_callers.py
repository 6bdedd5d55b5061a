"""Who asks at the gateway: tokens of the authority and of providers outside, two lists, S3 keys; and S3 clients.

The second half is about S3: botocore, s3fs, signatures, parts, and what is left of an upload that ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from adapters.dvc.buckets import CREDENTIALS, Bucket
from adapters.dvc.gates import Gate, Push, WebStore, directory_of, file_of, stored
from adapters.dvc.people import COLLIDING
from cryptography.hazmat.primitives.asymmetric import ec
from mlseal_dvc.gateway_access import (
    Access,
    Callers,
    Key,
    NotListed,
    OwnAuthority,
    Unknown,
    load_access,
    load_keys,
    verifier_for,
)
from mlseal_dvc.gateway_parts import NoSuchUpload, Parts, WrongParts
from mlseal_dvc.gateway_paths import target
from mlseal_dvc.gateway_sigv4 import Misframed, unframed, verify
from mlseal_dvc.gateway_spool import Limits, Spool, TooLarge
from mlseal_dvc.gateway_upstream import open_upstream

from mlseal.errors import Misuse, Refusal
from mlseal.evidence.clock import utcnow
from mlseal.evidence.identity import EmailDomain, Identity
from mlseal.evidence.signing.tokens import from_embedded
from mlseal.services.tokens import TokenVerifier


def token_of(authority: Any, role: str = "producer") -> str:
    return from_embedded(authority.trust, authority.trust.endpoints.issuer, role, 10)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def access(authority: Any) -> Access:
    """The producer reads and writes, the evaluator reads, nobody else does anything."""
    producer, evaluator = (Identity(authority.issuer, authority.san(role)) for role in ("producer", "evaluator"))
    return Access(read=(producer, evaluator), write=(producer,))


@pytest.fixture
def guarded(open_gate: Callable[..., Gate], authority: Any, access: Access, tmp_path: Path) -> Gate:
    return open_gate(callers=Callers(access, verifier_for(authority.trust, None, tmp_path)))


def test_each_list_lets_in_whom_it_names_and_nobody_else(
    guarded: Gate, authority: Any, push: Push, store: Path
) -> None:
    tokens = {role: bearer(token_of(authority, role)) for role in ("producer", "evaluator", "gate")}
    names = [*push.manifests, *push.log, *push.bundles, *push.objects]
    for name in names:
        assert guarded.call("PUT", f"/{name}", push.data(name))[0] == 401
        assert guarded.call("PUT", f"/{name}", push.data(name), **tokens["gate"])[0] == 403
        assert guarded.call("PUT", f"/{name}", push.data(name), **tokens["evaluator"])[0] == 403
    assert stored(store) == []
    assert guarded.reasons() == [], "what was not let in is not kept"
    for name in names:
        assert guarded.call("PUT", f"/{name}", push.data(name), **tokens["producer"])[0] == 201
    data = file_of(push)
    for method in ("GET", "HEAD"):
        seen = {role: guarded.call(method, f"/{data}", **headers)[0] for role, headers in tokens.items()}
        assert seen == {"producer": 200, "evaluator": 200, "gate": 403}
        assert guarded.call(method, f"/{data}")[0] == 401
    # Basic, as DVC's `auth basic` sends it: the password is the token.
    basic = base64.b64encode(f"anybody:{token_of(authority)}".encode()).decode()
    assert guarded.call("GET", f"/{data}", Authorization=f"Basic {basic}") == (200, push.data(data))


def test_who_writes_still_writes_only_what_was_signed(guarded: Gate, authority: Any, push: Push, store: Path) -> None:
    status, body = guarded.call("PUT", f"/{file_of(push)}", push.data(file_of(push)), **bearer(token_of(authority)))
    assert (status, b"nobody signed" in body) == (403, True)
    (row,) = guarded.reasons()
    assert row["peer"].endswith(authority.san("producer")), "the quarantine says who sent it"
    assert stored(store) == []


def test_answers_say_what_is_wanted(guarded: Gate, push: Push) -> None:
    got = guarded.raw(f"GET /{file_of(push)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 401 no Authorization")
    assert b"WWW-Authenticate: Bearer" in got


def test_a_refused_reader_goes_on_and_a_refused_writer_is_cut_off(guarded: Gate, authority: Any, push: Push) -> None:
    """An unread body must never be taken for the next request."""
    ask = f"GET /{file_of(push)} HTTP/1.1\r\nHost: x\r\n".encode()
    smuggled = ask + f"Authorization: Bearer {token_of(authority)}\r\n\r\n".encode()
    got = guarded.raw(ask + b"\r\n" + ask + b"Connection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 401 ") == 2
    put = f"PUT /{file_of(push)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(smuggled)}\r\n\r\n".encode()
    got = guarded.raw(put + smuggled)
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.startswith(b"HTTP/1.1 401 ")


def forged(claims: dict[str, Any], kid: str) -> str:
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": kid})


def test_tokens_that_prove_nothing(authority: Any, access: Access, tmp_path: Path) -> None:
    good = token_of(authority)
    head, claims = (jwt.get_unverified_header(good), jwt.decode(good, options={"verify_signature": False}))
    tokens = verifier_for(authority.trust, None, tmp_path)
    callers = Callers(access, tokens)
    assert callers.bearer([f"Bearer {good}"]) == Identity(authority.issuer, authority.san("producer"))
    later = Callers(access, TokenVerifier([OwnAuthority(authority.trust)], clock=lambda: utcnow() + timedelta(hours=1)))
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    public = hashlib.sha256(b"the key that everybody can read").hexdigest()
    wrong = {
        "nothing": (callers, []),
        "two": (callers, [f"Bearer {good}"] * 2),
        "another scheme": (callers, [f"Digest {good}"]),
        "not a token": (callers, ["Bearer x"]),
        "not even text": (callers, ["Basic \xff"]),
        "somebody else's key": (callers, [f"Bearer {forged(claims, head['kid'])}"]),
        "no signature": (callers, [f"Bearer {none}.{body}."]),
        "a shared secret": (
            callers,
            [f"Bearer {jwt.encode(claims, public, algorithm='HS256', headers=head | {'alg': 'HS256'})}"],
        ),
        "edited": (callers, ["Bearer " + good.replace(good.split(".")[1], body.replace("a", "b", 1))]),
        "ended": (later, [f"Bearer {good}"]),
        "no issuer is known": (Callers(access, None), [f"Bearer {good}"]),
    }
    for name, (asked, headers) in wrong.items():
        with pytest.raises(Unknown):
            asked.bearer(headers)
            pytest.fail(name)


def test_a_session_is_opened_by_a_token_that_holds_and_ends(
    authority: Any, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [utcnow()]
    tokens = TokenVerifier([OwnAuthority(authority.trust)], clock=lambda: now[0])
    shown, unseen = token_of(authority), token_of(authority)
    strict, lasting = Callers(access, tokens), Callers(access, tokens, session=3600)
    producer = Identity(authority.issuer, authority.san("producer"))
    assert strict.bearer([f"Bearer {shown}"]) == lasting.bearer([f"Bearer {shown}"]) == producer
    now[0] += timedelta(minutes=30)
    assert lasting.bearer([f"Bearer {shown}"]) == producer
    for callers, token in ((strict, shown), (lasting, unseen), (lasting, shown + "x")):
        with pytest.raises(Unknown):
            callers.bearer([f"Bearer {token}"])
    import mlseal_dvc.gateway_access as module

    began = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: began + 3601)
    with pytest.raises(Unknown, match="expired"):
        lasting.bearer([f"Bearer {shown}"])


def test_providers_outside(access: Access, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k", "use": "sig"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    entry = {"issuer": "https://ci.example", "audience": "gateway", "jwks": str(tmp_path / "jwks.json")}

    def configured(san: str, **more: str) -> Path:
        path = tmp_path / "issuers.json"
        path.write_text(json.dumps({"issuers": [entry | {"san": san} | more]}))
        return path

    from mlseal.evidence.trust import Trust

    bare = Trust({}, "sha256:0", None, "nowhere")
    callers = Callers(access, verifier_for(bare, configured("https://ci.example/{job}"), tmp_path))
    now = int(utcnow().timestamp())
    claims = {"iss": "https://ci.example", "aud": "gateway", "sub": "x", "iat": now, "exp": now + 60, "job": "train"}

    def token(**changed: Any) -> str:
        return jwt.encode(claims | changed, key, algorithm="ES256", headers={"kid": "k"})

    assert callers.bearer([f"Bearer {token()}"]) == Identity("https://ci.example", "https://ci.example/train")
    for changed in ({"aud": "sigstore"}, {"exp": now - 1}, {"iss": "https://other.example"}, {"job": "../x"}):
        with pytest.raises(Unknown):
            callers.bearer([f"Bearer {token(**changed)}"])
    with pytest.raises(Misuse, match="pseudonyms"):
        verifier_for(bare, configured("person"), tmp_path)
    assert verifier_for(bare, None, tmp_path) is None


def test_the_lists_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "access.yaml"
    good = "read:\n  - {issuer: https://a.example, emailDomain: b.example}\nwrite:\n  - {issuer: https://a.example, san: x}\n"
    path.write_text(good)
    read = load_access(path)
    assert read == Access((EmailDomain("https://a.example", "b.example"),), (Identity("https://a.example", "x"),))
    read.require(Identity("https://a.example", "c@b.example"), "read")
    for who, action in (
        (Identity("https://a.example", "c@b.example"), "write"),
        (Identity("https://a.example", "x"), "read"),
    ):
        with pytest.raises(NotListed):
            read.require(who, action)
    for bad in (
        "",
        "{}",
        "reed: []",
        "read: everybody",
        "read: [{issuer: https://a.example}]",
        'read: [{issuer: https://a.example, san: "*"}]',
        "read: [{issuer: https://a.example, role: owner}]",
        "read: [{issuer: https://a.example, san: x, extra: y}]",
        "read: &a []\nwrite: *a",
        "read: []\nread: []",
    ):
        path.write_text(bad)
        with pytest.raises(Misuse):
            load_access(path)


def test_keys_lie_where_only_their_owner_reads_them(tmp_path: Path) -> None:
    row = {"accessKeyId": "A" * 20, "secretAccessKey": "s" * 40, "issuer": "https://a.example", "san": "x"}
    path = tmp_path / "keys.json"

    def written(*rows: dict[str, str], mode: int = 0o600) -> Path:
        path.write_text(json.dumps({"keys": rows}))
        path.chmod(mode)
        return path

    (found,) = load_keys(written(row)).values()
    assert (found.secret, found.owner) == ("s" * 40, Identity("https://a.example", "x"))
    with pytest.raises(Refusal, match="open to others"):
        load_keys(written(row, mode=0o640))
    for rows in (
        [],
        [row, row],
        [row | {"accessKeyId": "short"}],
        [row | {"secretAccessKey": "short"}],
        [row | {"more": "x"}],
    ):
        with pytest.raises(Misuse):
            load_keys(written(*rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--access FILE"),
        (["--anonymous", "--access", "FILE"], "either nobody is asked"),
        (["--access", "FILE", "--s3-keys", "FILE"], "--s3-bucket NAME"),
        (["--access", "FILE", "--s3-bucket", "team"], "--s3-keys FILE"),
        (["--anonymous", "--s3-bucket", "files"], "not a name for a bucket"),
    ],
)
def test_a_gateway_asks_or_says_that_it_does_not(authority: Any, tmp_path: Path, options: list[str], says: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text("read: []\n")
    given = [str(path) if word == "FILE" else word for word in options]
    signer = ["--identity", authority.san("producer"), "--issuer", authority.issuer]
    done = authority.home.call(
        "dvc", "gateway", "--listen", "127.0.0.1:0", "--upstream", str(tmp_path), *signer, *given
    )
    assert done.returncode == 2
    assert says in done.stderr


# --- S3 clients ---

WRITER, READER = ("AKIAWRITERWRITER0000", "w" * 40), ("AKIAREADERREADER0000", "r" * 40)
ANN, BEN = Identity("https://a.example", "ann"), Identity("https://a.example", "ben")
KEYS = {WRITER[0]: Key(WRITER[1], ANN), READER[0]: Key(READER[1], BEN)}
PART = 5 << 20


def callers(**keys: Key) -> Callers:
    return Callers(Access(read=(ANN, BEN), write=(ANN,)), None, keys or KEYS)


def client(url: str, key: tuple[str, str] = WRITER) -> Any:
    import botocore.session
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        config=config,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
    )


def code(call: Callable[[], object]) -> tuple[int, str]:
    """HTTP status and message of a call that fails."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as raised:
        call()
    answer = raised.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"].get("Message", "")


@pytest.fixture
def gate(open_gate: Callable[..., Gate]) -> Gate:
    return open_gate(callers=callers(), bucket="team")


@pytest.fixture
def writer(gate: Gate) -> Any:
    return client(gate.url)


def send_evidence(writer: Any, push: Push) -> None:
    for name in [*push.manifests, *push.log, *push.bundles]:
        writer.put_object(Bucket="team", Key=name, Body=push.data(name))


def in_parts(writer: Any, name: str, *pieces: bytes) -> Callable[[], object]:
    """Begin an upload and send its parts; what puts them together."""
    at = {"Bucket": "team", "Key": name}
    at["UploadId"] = writer.create_multipart_upload(**at)["UploadId"]
    tags = [writer.upload_part(**at, PartNumber=n, Body=piece)["ETag"] for n, piece in enumerate(pieces, 1)]
    listed = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
    return lambda: writer.complete_multipart_upload(**at, MultipartUpload={"Parts": listed})


def held(gate: Gate) -> list[str]:
    return sorted(
        p.relative_to(gate.state).as_posix() for d in ("parts", "incoming") for p in (gate.state / d).rglob("*")
    )


def test_the_same_files_by_both_ways(gate: Gate, writer: Any, push: Push, store: Path) -> None:
    data = file_of(push)
    assert code(lambda: writer.put_object(Bucket="team", Key=data, Body=push.data(data)))[0] == 403
    send_evidence(writer, push)
    for name in push.objects:
        writer.put_object(Bucket="team", Key=name, Body=push.data(name))
        writer.put_object(Bucket="team", Key=name, Body=push.data(name))  # the same again is no error
    assert stored(store) == sorted(push.names(""))
    reader = client(gate.url, READER)
    for name in push.names(""):
        assert reader.get_object(Bucket="team", Key=name)["Body"].read() == push.data(name)
        assert reader.head_object(Bucket="team", Key=name)["ContentLength"] == len(push.data(name))
    whole = push.data(data)
    for asked, piece in (
        ("bytes=3-9", whole[3:10]),
        ("bytes=5-", whole[5:]),
        ("bytes=-4", whole[-4:]),
        ("bytes=0-99999", whole),
    ):
        answer = reader.get_object(Bucket="team", Key=data, Range=asked)
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"].read()) == (206, piece)
    assert code(lambda: reader.get_object(Bucket="team", Key=data, Range=f"bytes={len(whole)}-"))[0] == 416
    assert code(lambda: reader.head_object(Bucket="team", Key="files/md5/00/" + "0" * 30))[0] == 404
    evil = COLLIDING[1] + whole[128:]
    assert code(lambda: writer.put_object(Bucket="team", Key=data, Body=evil))[0] == 403
    assert (store / data).read_bytes() == whole


def test_listing_shows_files_of_a_remote_only(gate: Gate, writer: Any, push: Push, store: Path) -> None:
    send_evidence(writer, push)
    for name in push.objects:
        writer.put_object(Bucket="team", Key=name, Body=push.data(name))
    (store / "files" / "secret.txt").write_text("not of a remote")
    pages = writer.get_paginator("list_objects_v2").paginate(Bucket="team", PaginationConfig={"PageSize": 2})
    rows = [row for page in pages for row in page["Contents"]]
    assert [row["Key"] for row in rows] == sorted(push.names(""))
    assert {row["Key"]: row["Size"] for row in rows} == {name: len(push.data(name)) for name in push.names("")}
    one = push.objects[0]
    assert [r["Key"] for r in writer.list_objects_v2(Bucket="team", Prefix=one[:14])["Contents"]] == [one]
    below = writer.list_objects_v2(Bucket="team", Prefix="files/", Delimiter="/")
    assert ([row["Prefix"] for row in below["CommonPrefixes"]], below.get("Contents")) == (["files/md5/"], None)
    for prefix in ("../", "/", "files/../", "runs/", "fil/"):
        assert "Contents" not in writer.list_objects_v2(Bucket="team", Prefix=prefix)


def test_readers_do_not_write_and_strangers_do_nothing(gate: Gate, writer: Any, push: Push, store: Path) -> None:
    reader, stranger = client(gate.url, READER), client(gate.url, ("AKIASTRANGER00000000", "w" * 40))
    wrong = client(gate.url, (WRITER[0], "x" * 40))
    name = push.manifests[0]
    for who in (reader, stranger, wrong):
        assert code(lambda who=who: who.put_object(Bucket="team", Key=name, Body=push.data(name)))[0] == 403
        assert code(lambda who=who: who.create_multipart_upload(Bucket="team", Key=name))[0] == 403
    for who in (stranger, wrong):
        assert code(lambda who=who: who.list_objects_v2(Bucket="team"))[0] == 403
        assert code(lambda who=who: who.head_bucket(Bucket="team"))[0] == 403
    assert gate.call("GET", "/team?list-type=2")[0] == 403
    assert gate.call("GET", f"/{name}")[0] == 401, "the HTTP side asks too"
    assert gate.call("GET", f"/team/{name}?X-Amz-Signature=x")[0] == 400
    assert not stored(store) + held(gate)


def test_what_is_not_served_changes_nothing(gate: Gate, writer: Any, push: Push, store: Path) -> None:
    send_evidence(writer, push)
    data, at = file_of(push), {"Bucket": "team", "Key": file_of(push)}
    writer.put_object(**at, Body=push.data(data))
    for call in (
        lambda: writer.delete_object(**at),
        lambda: writer.delete_objects(Bucket="team", Delete={"Objects": [{"Key": data}]}),
        lambda: writer.copy_object(**at, CopySource={"Bucket": "team", "Key": push.bundles[0]}),
        lambda: writer.put_object_tagging(**at, Tagging={"TagSet": []}),
        lambda: writer.get_object(**at, VersionId="1"),
        lambda: writer.list_object_versions(Bucket="team"),
        lambda: writer.put_bucket_policy(Bucket="team", Policy="{}"),
    ):
        assert code(call)[0] in (403, 501)
    assert code(lambda: writer.put_object(Bucket="team", Key="runs/x", Body=b"x"))[0] == 403
    assert (store / data).read_bytes() == push.data(data)


def test_parts_are_judged_together(gate: Gate, writer: Any, push: Push, store: Path) -> None:
    whole = push.data(directory_of(push))
    pieces = whole[:10], whole[10:11], whole[11:]
    done = in_parts(writer, directory_of(push), *pieces)
    assert len(held(gate)) == 4
    assert not stored(store)
    assert code(done)[0] == 403, "nobody has signed it yet"
    assert not held(gate), "refused: it is in quarantine, and nowhere else"
    assert gate.kept() == [whole]
    send_evidence(writer, push)
    for wrong in ((pieces[1], pieces[0], pieces[2]), pieces[:2], (*pieces, b"x")):
        assert code(in_parts(writer, directory_of(push), *wrong))[0] == 403
    assert not (store / directory_of(push)).exists()
    in_parts(writer, directory_of(push), *pieces)()
    assert (store / directory_of(push)).read_bytes() == whole
    assert not held(gate)
    assert gate.gateway._spool._incoming == 0


def test_parts_that_are_taken_back_or_replaced(gate: Gate, writer: Any, push: Push) -> None:
    at = {"Bucket": "team", "Key": file_of(push)}
    at["UploadId"] = writer.create_multipart_upload(**at)["UploadId"]
    first = writer.upload_part(**at, PartNumber=1, Body=b"first")["ETag"]
    second = writer.upload_part(**at, PartNumber=1, Body=b"second, longer")["ETag"]

    def complete(*rows: tuple[int, str]) -> Callable[[], object]:
        listed = [{"PartNumber": n, "ETag": tag} for n, tag in rows]
        return lambda: writer.complete_multipart_upload(**at, MultipartUpload={"Parts": listed})

    for rows in ([(1, first)], [(2, second)], [(1, second), (1, second)], []):
        assert code(complete(*rows))[0] == 400
    assert gate.gateway._spool._incoming == len(b"second, longer")
    assert code(lambda: writer.upload_part(**at, PartNumber=10_001, Body=b"x"))[0] == 400
    other = at | {"Key": push.objects[0] if push.objects[0] != file_of(push) else push.objects[1]}
    assert code(lambda: writer.upload_part(**other, PartNumber=1, Body=b"x"))[0] == 404, "an upload is for one object"
    writer.abort_multipart_upload(**at)
    assert not held(gate)
    assert gate.gateway._spool._incoming == 0
    assert code(complete((1, second)))[0] == 404
    writer.abort_multipart_upload(**at)  # twice is no error: clients do it after a refusal


def test_parts_are_bounded(open_gate: Callable[..., Gate], push: Push, store: Path) -> None:
    gate = open_gate(callers=callers(), bucket="team", limits=Limits(body=1000, incoming=2000))
    writer, at = client(gate.url), {"Bucket": "team", "Key": file_of(push)}
    at["UploadId"] = writer.create_multipart_upload(**at)["UploadId"]
    writer.upload_part(**at, PartNumber=1, Body=b"x" * 600)
    assert code(lambda: writer.upload_part(**at, PartNumber=2, Body=b"x" * 600))[0] == 413
    assert code(lambda: writer.upload_part(**at, PartNumber=2, Body=b"x" * 1100))[0] == 413
    again = {"Bucket": "team", "Key": file_of(push)}
    again["UploadId"] = writer.create_multipart_upload(**again)["UploadId"]
    writer.upload_part(**again, PartNumber=1, Body=b"x" * 300)
    assert code(lambda: writer.upload_part(**again, PartNumber=2, Body=b"x" * 600))[0] == 503, "too much on its way in"
    assert gate.gateway._spool._incoming == 900
    for upload in (at, again):
        writer.abort_multipart_upload(**upload)
    assert gate.gateway._spool._incoming == 0
    assert not held(gate) + stored(store)


def test_a_killed_upload_leaves_nothing(tmp_path: Path) -> None:
    """Its client never comes back: time ends it, or the next start of the gateway does."""
    spool, name = Spool(tmp_path, Limits()), target(f"/files/md5/00/{'0' * 30}")
    parts = Parts(tmp_path, spool, idle=0.0)
    upload = parts.begin(name, ANN)
    parts.add(upload, name, ANN, 1, [b"abc"], 10)
    parts.sweep()
    assert list((tmp_path / "parts").iterdir()) == []
    assert spool._incoming == 0
    with pytest.raises(NoSuchUpload):
        parts.add(upload, name, ANN, 2, [b"abc"], 10)
    patient = Parts(tmp_path, spool)
    upload = patient.begin(name, ANN)
    patient.add(upload, name, ANN, 1, [b"abc"], 10)
    patient.sweep()
    with patient.whole(upload, name, ANN, [(1, hashlib.md5(b"abc").hexdigest())]) as chunks:
        assert b"".join(chunks) == b"abc"
    for owner, number, raised in ((BEN, 2, NoSuchUpload), (ANN, 0, WrongParts)):
        with pytest.raises(raised):
            patient.add(upload, name, owner, number, [b"x"], 10)
    with pytest.raises(TooLarge):
        patient.add(upload, name, ANN, 2, [b"x" * 8], 10)

    def vanishes() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        patient.add(upload, name, ANN, 2, vanishes(), 10)
    assert spool._incoming == 3
    Parts(tmp_path, Spool(tmp_path, Limits()))
    assert list((tmp_path / "parts").iterdir()) == []


def test_an_upload_that_ends_while_a_part_comes(tmp_path: Path) -> None:
    spool, name = Spool(tmp_path, Limits()), target(f"/files/md5/00/{'0' * 30}")
    parts = Parts(tmp_path, spool)
    upload, begun, go_on = parts.begin(name, ANN), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def slowly() -> Iterator[bytes]:
        yield b"abc"
        begun.set()
        go_on.wait(20)

    def sends() -> None:
        try:
            parts.add(upload, name, ANN, 1, slowly(), 10)
        except NoSuchUpload as error:
            raised.append(error)

    thread = threading.Thread(target=sends)
    thread.start()
    assert begun.wait(20)
    parts.end(upload, name, ANN)
    go_on.set()
    thread.join(20)
    assert len(raised) == 1
    assert spool._incoming == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_store_that_fails_can_be_asked_again(open_gate: Callable[..., Gate], push: Push) -> None:
    web = WebStore()
    gate = open_gate(open_upstream(web.url), callers=callers(), bucket="team")
    writer = client(gate.url)
    send_evidence(writer, push)
    whole = push.data(file_of(push))
    done = in_parts(writer, file_of(push), whole[:50], whole[50:])
    web.failing = {"PUT"}
    assert code(done)[0] == 502
    web.failing = set()
    done()
    assert web.files[f"/store/{file_of(push)}"] == whole
    assert code(lambda: writer.list_objects_v2(Bucket="team"))[0] == 502, "an HTTP store cannot be listed"
    web.shutdown()
    web.server_close()


def request(now: datetime, body: bytes = b"data") -> dict[str, Any]:
    """A request as botocore signs it."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {"Host": "gate.example", "x-amz-acl": "private"}
    signed = AWSRequest("PUT", "https://gate.example/team/files/x?partNumber=1&uploadId=ab", headers=headers, data=body)
    S3SigV4Auth(Credentials(*WRITER), "s3", "eu-west-1").add_auth(signed)
    return {"method": "PUT", "url": signed.url, "headers": list(signed.headers.items()), "keys": KEYS, "now": now}


def test_signatures_bind_what_they_are_about() -> None:
    now = datetime.now(UTC)
    good = request(now)
    found = verify(**good, tls=False)
    assert (found.by, found.body, found.framed) == (ANN, hashlib.sha256(b"data").hexdigest(), False)

    def headers(**changed: str | None) -> dict[str, Any]:
        names = {name.replace("_", "-"): value for name, value in changed.items()}
        rows = [(name, names.get(name.lower(), value)) for name, value in good["headers"]]
        return {"headers": [row for row in rows if row[1] is not None]}

    sent = dict(good["headers"])
    authorization, moment = sent["Authorization"], sent["X-Amz-Date"]
    changes: dict[str, dict[str, Any]] = {
        "method": {"method": "GET"},
        "path": {"url": good["url"].replace("/x?", "/y?")},
        "query": {"url": good["url"].replace("=1", "=2")},
        "host": headers(host="other.example"),
        "a header": headers(x_amz_acl="public-read"),
        "a header less": headers(x_amz_acl=None),
        "a header more": {"headers": [*good["headers"], ("x-amz-meta", "1")]},
        "a header twice": {"headers": [*good["headers"], ("x-amz-acl", "private")]},
        "body": headers(x_amz_content_sha256=hashlib.sha256(b"other").hexdigest()),
        "open body": headers(x_amz_content_sha256="UNSIGNED-PAYLOAD"),
        "date": headers(x_amz_date=f"{now + timedelta(minutes=1):%Y%m%dT%H%M%SZ}"),
        "no date": headers(x_amz_date="now"),
        "late": {"now": now + timedelta(minutes=6)},
        "early": {"now": now - timedelta(minutes=6)},
        "scope": headers(authorization=authorization.replace(moment[:8], "20200101")),
        "service": headers(authorization=authorization.replace("/s3/", "/sts/")),
        "region": headers(authorization=authorization.replace("eu-west-1", "us-east-1")),
        "fewer signed headers": headers(authorization=authorization.replace("x-amz-acl;", "")),
        "host unsigned": headers(authorization=authorization.replace("host;", "")),
        "key": {"keys": {READER[0]: KEYS[READER[0]]}},
        "secret": {"keys": {WRITER[0]: KEYS[READER[0]]}},
        "no signature": headers(authorization=None),
        "two": {"headers": [*good["headers"], ("Authorization", authorization)]},
        "a token": headers(authorization="Bearer x.y.z"),
    }
    for name, change in changes.items():
        with pytest.raises(Unknown):
            verify(**(good | change), tls=True)
            pytest.fail(f"accepted with another {name}")


def test_a_body_left_out_of_the_signature_needs_tls() -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    now = datetime.now(UTC)
    for said, framed in (("UNSIGNED-PAYLOAD", False), ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", True)):
        signed = AWSRequest("PUT", "https://gate.example/team/x", headers={"Host": "gate.example"})
        signer = S3SigV4Auth(Credentials(*WRITER), "s3", "eu-west-1")
        signer.payload = lambda _, said=said: said
        signer.add_auth(signed)
        asked = {"method": "PUT", "url": signed.url, "headers": list(signed.headers.items()), "keys": KEYS, "now": now}
        assert (verify(**asked, tls=True).body, verify(**asked, tls=True).framed) == (None, framed)
        with pytest.raises(Unknown, match="not signed in a way"):
            verify(**asked, tls=False)


def test_a_body_is_the_one_that_was_signed(gate: Gate, push: Push, store: Path) -> None:
    """Somebody on the way who changes the body changes nothing that is stored."""
    import botocore.auth

    writer, name = client(gate.url), push.manifests[0]
    before = botocore.auth.sha256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth.SigV4Auth, "payload", lambda *_: before(b"another body").hexdigest())
        status, message = code(lambda: writer.put_object(Bucket="team", Key=name, Body=push.data(name)))
    assert (status, "not the one that was signed" in message) == (400, True)
    assert list((gate.state / "waiting").iterdir()) == []


def test_framing_of_chunked_bodies() -> None:
    good = b"4\r\nabcd\r\n2\r\nef\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"
    for size in (1, 3, 100):
        pieces = (good[i : i + size] for i in range(0, len(good), size))
        assert b"".join(unframed(pieces, 6)) == b"abcdef"
    assert b"".join(unframed(iter([b"0\r\n\r\n"]), 0)) == b""
    for wrong, length in (
        (good, 5),
        (good, 7),
        (good[:-30], 6),
        (b"4\r\nabcd", 4),
        (b"4\r\nabcdx\r\n0\r\n\r\n", 4),
        (b"4;chunk-signature=ab\r\nabcd\r\n0\r\n\r\n", 4),
        (b"-4\r\nabcd\r\n0\r\n\r\n", 4),
        (b"x" * 500, 4),
        (b"0\r\n" + b"x" * 2000, 0),
        (b"", 0),
    ):
        with pytest.raises(Misframed):
            list(unframed(iter([wrong]), length))


def test_s3fs_sends_large_objects_in_parts(
    open_gate: Callable[..., Gate], push: Push, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system that DVC uses, S3 (moto) behind, with parts as small as S3 has them."""
    from s3fs import S3FileSystem

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    gate = open_gate(open_upstream(f"s3://{bucket.name}/kept", bucket.endpoint), callers=callers(), bucket="team")
    fs = S3FileSystem(
        key=WRITER[0], secret=WRITER[1], endpoint_url=gate.url, skip_instance_cache=True, use_listings_cache=False
    )
    large = tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * (11 << 16))
    name = (
        f"files/md5/{hashlib.md5(large.read_bytes()).hexdigest()[:2]}/{hashlib.md5(large.read_bytes()).hexdigest()[2:]}"
    )
    with pytest.raises(PermissionError, match="nobody signed"):
        fs.put_file(str(large), f"team/{name}", chunksize=PART)
    assert not bucket.keys() + held(gate)
    gate.admission.object_allowed = lambda *_: None  # as if somebody had signed it: what is tried here is the way
    fs.put_file(str(large), f"team/{name}", chunksize=PART)
    assert bucket.get(f"kept/{name}") == large.read_bytes()
    assert not held(gate)
    assert fs.exists(f"team/{name}")
    assert fs.find("team/files") == [f"team/{name}"]
    with fs.open(f"team/{name}", "rb", block_size=PART) as file:
        file.seek(PART + 5)
        assert file.read(16) == b"56789abcdef01234"
    fs.get_file(f"team/{name}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
