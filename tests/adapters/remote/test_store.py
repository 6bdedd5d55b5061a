"""The store in a bucket: a real S3 service, and one that lies, is slow, breaks off, forbids or is not there."""

from __future__ import annotations

import concurrent.futures
import functools
import http.server
import os
import subprocess
import sys
import threading

import pytest

from mlseal.errors import (
    Error,
    MalformedEvidence,
    MissingExtra,
    Misuse,
    NoEvidence,
    ServiceUnavailable,
    Unreadable,
)
from mlseal.evidence import bundle as bundles
from mlseal.evidence import paths, store
from mlseal.evidence.bucket import BucketStore
from mlseal.evidence.bucket_url import parse
from mlseal.evidence.deadlines import Limits
from mlseal.evidence.store import Store
from tests.adapters.remote.conftest import PATIENT, SECRET, enveloped, unsigned
from tests.adapters.remote.relay import Lie

HASTY = Limits(call=0.3, total=0.3, workers=4)  # for what never answers


def test_what_was_put_is_got_and_listed_and_lies_as_in_a_directory(remote, tmp_path):
    kept, made = store.resolve(remote.url), [unsigned(f"urn:{n}") for n in range(3)]
    for one in made:
        kept.put(one)
    assert sorted(kept.ids()) == sorted(one.evidence_id for one in made)
    local = Store(tmp_path / "copy")
    for one in made:
        local.put(one)
    assert remote.keys() == sorted(
        f"{remote.prefix}/{file.relative_to(local.root)}" for file in local.root.rglob("*.json")
    )
    fresh = remote.open(cached=False)
    assert [fresh.get(one.evidence_id) for one in made] == made
    assert dict(fresh.fetch([one.evidence_id for one in made])) == {one.evidence_id: one for one in made}
    assert [fresh.has(made[0].evidence_id), fresh.has("0" * 64)] == [True, False]
    assert list(fresh.ids(made[0].evidence_id[:9])) == [made[0].evidence_id]
    with pytest.raises(NoEvidence, match="has no evidence"):
        fresh.get("0" * 64)


def test_the_first_encoding_stays_and_is_asked_for_in_one_request(remote):
    first = unsigned("urn:1")
    second = enveloped(first.statement.payload, "BBBB")
    assert first.evidence_id == second.evidence_id
    kept = remote.open()
    kept.put(first)
    kept.put(second)
    assert remote.read(first.evidence_id) == first.raw
    puts = [head for (method, _), head in zip(remote.relay.asked, remote.relay.heads, strict=True) if method == "PUT"]
    assert [head.get("If-None-Match") for head in puts] == ["*", "*"]


def test_where_no_first_write_is_known_it_is_looked_before(remote):
    """An S3 that answers 501 to the condition, as older ones do."""
    remote.relay.lie = lambda method, path: (
        Lie(501, "NotImplemented") if method == "PUT" and remote.relay.heads[-1].get("If-None-Match") else None
    )
    first = unsigned("urn:1")
    kept = remote.open()
    kept.put(first)
    kept.put(enveloped(first.statement.payload, "BBBB"))
    assert remote.read(first.evidence_id) == first.raw


def test_a_first_write_that_is_refused_is_not_tried_without_its_condition(remote):
    remote.relay.lie = lambda method, _: (
        Lie(403, "AccessDenied") if method == "PUT" and remote.relay.heads[-1].get("If-None-Match") else None
    )
    with pytest.raises(ServiceUnavailable, match="refuses evidence"):
        remote.open().put(unsigned("urn:1"))
    assert remote.keys() == []


def test_many_writers(remote):
    made = unsigned("urn:1")
    encodings = [enveloped(made.statement.payload, f"AAA{letter}") for letter in "ABCDEFGH"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: remote.open().put(one), encodings))
    assert remote.read(made.evidence_id) in {one.raw for one in encodings}
    assert len(remote.keys()) == 1


def test_what_is_spoilt_under_the_name_is_put_right_and_what_does_not_stay_is_told(remote):
    made = unsigned("urn:1")
    remote.lay(made.evidence_id, b"{}")
    remote.open().put(made)
    assert remote.read(made.evidence_id) == made.raw
    other = unsigned("urn:2")
    remote.relay.lie = lambda method, _: Lie(body=lambda _: other.raw) if method == "GET" else None
    with pytest.raises(MalformedEvidence, match="holds other evidence"):
        remote.open(cached=False).put(made)


@pytest.mark.parametrize(
    ("lie", "error", "words"),
    [
        (Lie(body=lambda body: body[: len(body) // 2]), MalformedEvidence, "JSON"),
        (Lie(body=lambda body: unsigned("urn:other").raw), MalformedEvidence, "holds other evidence"),
        (Lie(body=lambda body: b""), Unreadable, "is empty"),
        (Lie(416, "InvalidRange"), Unreadable, "is empty"),
        (Lie(body=lambda body: b" " * (bundles.MAX_BYTES + 5)), Unreadable, "is too large"),
        (Lie(404, "NoSuchKey"), NoEvidence, "has no evidence"),
        (Lie(404, "NoSuchBucket"), ServiceUnavailable, "no bucket"),
        (Lie(403, "AccessDenied"), ServiceUnavailable, "refuses evidence .*AccessDenied.*to get, to list"),
        (Lie(500, "InternalError"), ServiceUnavailable, "cannot be reached .*InternalError"),
        (Lie(503, "SlowDown"), ServiceUnavailable, "cannot be reached .*SlowDown"),
        (Lie(cut=True), ServiceUnavailable, "cannot be reached"),
        (Lie(drop=True), ServiceUnavailable, "cannot be reached"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, Lie) else None,
)
def test_each_way_to_answer_wrongly_is_one_sentence(remote, lie, error, words):
    """What is about one bundle is told of that one; what says nothing about it stops whoever asks for several."""
    made, good = unsigned("urn:1"), unsigned("urn:2")
    for one in (made, good):
        remote.lay(one.evidence_id, one.raw)
    remote.relay.lie = lambda method, path: lie if method == "GET" and made.evidence_id[2:] in path else None
    kept = remote.open(cached=False)
    with pytest.raises(error, match=words) as caught:
        kept.get(made.evidence_id)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    if error is ServiceUnavailable:
        with pytest.raises(ServiceUnavailable):
            dict(kept.fetch([made.evidence_id, good.evidence_id]))
    else:
        found = dict(kept.fetch([made.evidence_id, good.evidence_id]))
        assert isinstance(found[made.evidence_id], error)
        assert found[good.evidence_id] == good


def test_a_store_that_does_not_answer_ends_in_time_and_keeps_what_came(remote):
    made = [unsigned(f"urn:{n}") for n in range(6)]
    for one in made:
        remote.lay(one.evidence_id, one.raw)
    hung, released = made[0].evidence_id, threading.Event()
    remote.relay.lie = lambda method, path: Lie(wait=released) if hung[2:] in path else None
    kept = remote.open(limits=Limits(call=6.0, total=60.0, workers=4))
    kept.require_answering()
    try:
        came = []
        with pytest.raises(ServiceUnavailable, match="did not answer; got 5 of 6 answers; expected one within 6 s"):
            came.extend(kept.fetch([one.evidence_id for one in made]))
        kept._limits = HASTY
        with pytest.raises(ServiceUnavailable, match="did not answer; expected within 0.3 s"):
            kept.get(hung)
        remote.relay.lie = lambda method, path: Lie(wait=released)
        for doing in (lambda: kept.put(unsigned("urn:new")), lambda: list(kept.ids()), lambda: kept.has("0" * 64)):
            with pytest.raises(ServiceUnavailable, match="did not answer"):
                doing()
        assert {kept.get(one.evidence_id) for one in made[1:]} == set(made[1:])  # from the cache
    finally:
        released.set()


def test_nobody_is_there(remote, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    kept = remote.open()
    for doing in (
        lambda: kept.get("0" * 64),
        lambda: kept.put(unsigned("urn:1")),
        lambda: list(kept.ids()),
        kept.require_answering,
    ):
        with pytest.raises(ServiceUnavailable, match="cannot be reached") as caught:
            doing()
        assert SECRET not in str(caught.value)


def test_no_bucket_is_not_an_empty_one(remote):
    kept = BucketStore(parse("s3://b-nobody-made-this/x"), limits=remote.open()._limits)
    for doing in (lambda: list(kept.ids()), lambda: kept.get("0" * 64), lambda: kept.put(unsigned("urn:1"))):
        with pytest.raises(ServiceUnavailable, match="no bucket"):
            doing()


def test_a_list_that_lies_names_nothing_outside_of_its_own(remote):
    made = unsigned("urn:1")
    remote.lay(made.evidence_id, made.raw)
    for key in (
        "bundles/../../x.sigstore.json",
        f"bundles/zz/{'0' * 62}.sigstore.json",
        "bundles/ab/short.sigstore.json",
    ):
        remote.client.put_object(Bucket=remote.bucket, Key=f"{remote.prefix}/{key}", Body=b"x")
    kept = remote.open()
    assert list(kept.ids()) == [made.evidence_id]
    wrong = f"<Key>{remote.prefix}/{store.relative('f' * 64)}</Key>".encode()
    right = f"<Key>{remote.key(made.evidence_id)}</Key>".encode()
    remote.relay.lie = lambda _, path: Lie(body=lambda b: b.replace(right, wrong)) if "list-type" in path else None
    assert list(kept.ids()) == ["f" * 64]
    with pytest.raises(NoEvidence):
        kept.get("f" * 64)


def test_a_poisoned_cache_is_harmless(remote):
    made, other = unsigned("urn:1"), unsigned("urn:2")
    for one in (made, other):
        remote.lay(one.evidence_id, one.raw)
    kept = remote.open()
    assert kept.get(made.evidence_id) == made
    before = remote.relay.count("GET")
    assert kept.get(made.evidence_id) == made
    assert remote.relay.count("GET") == before, "what is cached is not asked for again"
    (cached,) = paths.cache_dir().rglob("*.sigstore.json")
    assert [cached.parents[n].stat().st_mode & 0o777 for n in (2,)] == [0o700]
    for poison in (other.raw, b"", b"{}", b"x" * 100):
        cached.write_bytes(poison)
        assert kept.get(made.evidence_id) == made
        assert cached.read_bytes() == made.raw, "what is good takes its place"
    cached.unlink()
    cached.symlink_to("/dev/zero")
    assert kept.get(made.evidence_id) == made
    kept.doubted(made.evidence_id)
    remote.drop(made.evidence_id)
    with pytest.raises(NoEvidence):
        kept.get(made.evidence_id)
    assert kept.afresh().ids is not None


def test_an_audit_does_not_believe_the_cache(remote):
    made = unsigned("urn:1")
    kept = remote.open()
    kept.put(made)
    remote.lay(made.evidence_id, b"{}")
    assert kept.get(made.evidence_id) == made
    with pytest.raises(MalformedEvidence):
        kept.afresh().get(made.evidence_id)


@pytest.mark.slow
def test_a_thousand_bundles_come_at_once_and_one_folder_answers_for_one(remote):
    made = {one.evidence_id: one for one in (unsigned(f"urn:{n}") for n in range(1000))}
    for evidence_id, one in made.items():
        remote.lay_at_once(evidence_id, one.raw)
    kept, told = remote.open(), []
    assert sorted(made) == list(kept.ids())
    remote.relay.asked.clear()
    found = dict(kept.fetch(list(made), lambda done, total: told.append((done, total))))
    assert found == made
    assert (told[0], told[-1], remote.relay.count("GET")) == ((1, 1000), (1000, 1000), 1000)
    remote.relay.asked.clear()
    assert dict(kept.fetch(list(made))) == made
    assert remote.relay.asked == [], "a warm cache asks nothing"
    one = next(iter(made))
    assert list(kept.ids(one[:8])) == [one]
    assert all(f"bundles%2F{one[:2]}" in path for _, path in remote.relay.asked)


def test_a_path_never_leads_out(remote):
    for wrong in ("../" * 3 + "etc/passwd", "/etc/passwd", "A" * 64, "a" * 63, "a" * 65, ""):
        for doing in (remote.open().get, remote.open().has, remote.open().where):
            with pytest.raises(MalformedEvidence, match="not an evidence id"):
                doing(wrong)
    assert remote.relay.asked == []


def test_what_lies_below_an_id_is_not_it(remote):
    remote.client.put_object(Bucket=remote.bucket, Key=remote.key("a" * 64) + "/x", Body=b"x")
    assert not remote.open().has("a" * 64)
    assert list(remote.open().ids()) == []
    with pytest.raises(NoEvidence):
        remote.open().get("a" * 64)


def test_a_bundle_that_is_too_large_is_not_put(remote):
    large = enveloped(b"x" * bundles.MAX_BYTES, "AAAA")
    with pytest.raises(Error):
        remote.open().put(large)
    assert remote.keys() == []


def test_without_the_extra_and_with_an_unknown_scheme_it_is_one_sentence(remote, monkeypatch):
    with pytest.raises(Misuse, match=r"no file system for this store; got nothing-like-this://"):
        list(store.resolve("nothing-like-this://bucket/x").ids())
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for known in ("s3", "s3a"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, known, raising=False)
    with pytest.raises(MissingExtra, match="needs the extra 'remote' and fsspec's part .*s3fs"):
        remote.open().get("0" * 64)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mlseal\[remote\]'"):
        remote.open().get("0" * 64)


def test_a_directory_costs_no_fsspec(tmp_path):
    code = (
        "import sys; from mlseal.evidence import archive, store; kept = store.resolve(sys.argv[1]); list(kept.ids());"
        "assert not {'fsspec', 's3fs', 'mlseal.evidence.bucket'} & set(sys.modules)"
    )
    for place in (tmp_path, tmp_path.as_uri()):
        done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr


def test_a_process_that_was_forked_opens_its_own_connection(remote):
    made = unsigned("urn:1")
    kept = remote.open(cached=False)
    kept.put(made)
    child = os.fork()
    if not child:
        try:
            os._exit(0 if kept.get(made.evidence_id) == made else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kept.get(made.evidence_id) == made


def test_usable_says_whether_it_can_be_written(remote):
    kept = remote.open()
    kept.require_usable(writing=True)
    kept.require_usable(writing=True)
    assert remote.keys() == [f"{remote.prefix}/mlseal-can-write-here"]
    remote.relay.lie = lambda method, _: Lie(403, "AccessDenied") if method == "PUT" else None
    kept.require_usable(writing=False)
    with pytest.raises(ServiceUnavailable, match="refuses a test object"):
        kept.require_usable(writing=True)
    remote.relay.lie = lambda *_: Lie(403, "AccessDenied")
    with pytest.raises(ServiceUnavailable, match="refuses an answer"):
        kept.require_usable(writing=False)


def test_usable_is_tried_by_a_write_where_no_first_write_is_known(remote):
    kept = remote.open()
    kept.require_usable(writing=True)
    remote.relay.lie = lambda method, _: (
        (Lie(501, "NotImplemented") if remote.relay.heads[-1].get("If-None-Match") else Lie(403, "AccessDenied"))
        if method == "PUT"
        else None
    )
    with pytest.raises(ServiceUnavailable, match="refuses a test object"):
        kept.require_usable(writing=True)


def test_other_file_systems_of_fsspec_keep_the_same(home):
    kept = store.resolve("memory://org/evidence")
    made = unsigned("urn:1")
    kept.put(made)
    kept.put(enveloped(made.statement.payload, "BBBB"))
    again = BucketStore(parse("memory://org/evidence"), cached=False)
    assert again.get(made.evidence_id) == made
    assert list(again.ids()) == [made.evidence_id]
    assert list(store.resolve("memory://org/elsewhere").ids()) == []


def test_a_web_server_is_a_store_to_read(home, tmp_path):
    made = unsigned("urn:1")
    Store(tmp_path / "shown").put(made)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "shown")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kept = BucketStore(parse(f"http://127.0.0.1:{server.server_port}"), limits=PATIENT)
        assert kept.get(made.evidence_id) == made
        assert list(kept.ids()) == [made.evidence_id]
        with pytest.raises(NoEvidence):
            kept.get("0" * 64)
        with pytest.raises(ServiceUnavailable):
            kept.put(unsigned("urn:2"))
        server.shutdown()


class Endless(http.server.BaseHTTPRequestHandler):
    """Ignores ranges, and sends four times what a bundle may have; below ``/slow`` a little, and then never the end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        slow = self.path.startswith("/slow")
        part = b" " * (10 if slow else bundles.MAX_BYTES // 16)
        try:
            for _ in range(1 if slow else 64):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.server.released.wait(60 if slow else 0)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.left.set()
        self.server.ended.set()
        self.close_connection = True

    def log_message(self, *_):
        pass


def test_a_web_server_that_never_ends_is_left(home):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.left, server.ended, server.released = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            kept = BucketStore(parse(f"http://127.0.0.1:{server.server_port}/x"), limits=PATIENT)
            with pytest.raises(Unreadable, match="is too large"):
                kept.get("0" * 64)
            assert server.ended.wait(30)
            assert server.left.is_set(), "all of it was read"
            before = set(threading.enumerate())
            kept = BucketStore(parse(f"http://127.0.0.1:{server.server_port}/slow"), limits=HASTY)
            with pytest.raises(ServiceUnavailable):
                kept.get("0" * 64)
            for one in set(threading.enumerate()) - before:
                if one.name == "mlseal-fetch":
                    one.join(30)
                    assert not one.is_alive(), "the call that nobody waits for goes on"
        finally:
            server.released.set()
            server.shutdown()


def test_object_lock_takes_what_is_put_and_keeps_it(remote):
    name = f"{remote.bucket}-locked"
    remote.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}}
    remote.client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=rule)
    made, kept = unsigned("urn:1"), BucketStore(parse(f"s3://{name}/x"), limits=PATIENT)
    kept.put(made)
    kept.put(made)
    key = f"x/{store.relative(made.evidence_id)}"
    versions = remote.client.list_object_versions(Bucket=name, Prefix=key)["Versions"]
    assert len(versions) == 1
    assert kept.afresh().get(made.evidence_id) == made


def test_another_service_by_fsspecs_configuration_is_another_store(home, monkeypatch):
    from fsspec.config import conf

    def name(**options):
        monkeypatch.setitem(conf, "s3", options)
        return parse("s3://bucket/x").name

    before = name()
    assert len({before, name(endpoint_url="http://one"), name(client_kwargs={"endpoint_url": "http://one"})}) == 3
    assert name(secret="w", config_kwargs={"retries": {}}) == before, "no secret is hashed"
    azure = [name(connection_string=f"AccountName={account};AccountKey={key}") for account, key in ("aw", "ax", "bw")]
    assert azure[0] == azure[1] != azure[2]


def test_seconds_to_wait_come_from_the_environment(home, monkeypatch):
    monkeypatch.setenv("MLSEAL_STORE_SECONDS", "7")
    assert store.resolve("memory://x/y")._limits == Limits(call=7.0, total=42.0)
    for wrong in ("0", "3601", "ten", "", "-1"):
        monkeypatch.setenv("MLSEAL_STORE_SECONDS", wrong)
        with pytest.raises(Misuse, match="MLSEAL_STORE_SECONDS"):
            store.resolve("memory://x/y")
