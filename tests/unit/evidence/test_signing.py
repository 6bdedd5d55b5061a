"""Signing against a real service: what fails leaves nothing behind, what crashes loses nothing."""

import gc
import os
import signal
import socket
import subprocess
import threading
import time
import warnings
from dataclasses import replace
from urllib.parse import quote

import pytest

from mlseal.errors import Error, MalformedEvidence, Misuse, NotInitialised, ServiceUnavailable, Unchecked, Unreadable
from mlseal.evidence import statement, trust
from mlseal.evidence.archive import Archive
from mlseal.evidence.audit import audit
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.signing import Signer, signer_for
from mlseal.evidence.signing.transport import Connection
from mlseal.evidence.store import Store
from mlseal.evidence.tiles import service_tiles
from tests.stock import sigstore_js_many, sigstore_python

SUBJECT = Subject("model", "ab" * 32)


def claim():
    return statement.make(
        [SUBJECT],
        "https://in-toto.io/attestation/test-result/v0.1",
        {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"},
    )


@pytest.fixture(autouse=True)
def settled(request):
    """The module's authority and journal are shared: what another test left between signing and storing is finished."""
    if "authority" in request.fixturenames:
        request.getfixturevalue("authority").signer("producer").recover()


def size(authority):
    return Archive.open(authority.trust, authority.store).refresh()


def test_bundle_passes_both_stock_verifiers_and_lies_in_the_store(authority):
    bundle = authority.signer("producer").sign(claim())
    san = authority.san("producer")
    assert (
        sigstore_python(bundle.raw, authority.trusted_root, san, authority.issuer).payload == bundle.statement.payload
    )
    (accepted,) = sigstore_js_many([(bundle.raw, san, authority.issuer)], authority.trusted_root)
    assert accepted.issuer == authority.issuer
    assert authority.store.get(bundle.evidence_id) == bundle


@pytest.fixture
def silent():
    """A service that accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("part", ["ca", "tsa", "log"])
def test_hung_service_ends_at_the_deadline_and_leaves_no_orphan(authority, silent, part):
    before = size(authority)
    endpoints = replace(authority.trust.endpoints, **{part: silent})
    signer = signer_for(
        "producer", trust=replace(authority.trust, endpoints=endpoints), store=authority.store, deadline=0.5
    )
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="did not answer"):
        signer.sign(claim())
    assert time.monotonic() - started < 10
    assert size(authority) == before


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
    ids=["status", "status-line", "header", "body"],
)
def test_a_trickle_of_bytes_does_not_stretch_the_deadline(sent):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle():
            peer, _ = server.accept()
            with peer:
                peer.sendall(sent)
                try:
                    for _ in range(200):
                        peer.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=trickle, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="within 0.5 s"):
            Connection(f"http://127.0.0.1:{server.getsockname()[1]}", 0.5).request("GET", "/")
        assert time.monotonic() - started < 4


def test_connections_of_threads_that_ended_are_closed(authority, recwarn):
    """As are those of threads that go on when the whole client goes away in another."""
    client = Connection(authority.trust.endpoints.ca, 30)
    ask, go = threading.Event(), threading.Event()

    def work(client):
        assert client.request("GET", "/").status == 404
        ask.set()
        go.wait(30)

    threads = [threading.Thread(target=work, args=(client,)) for _ in range(2)]
    warnings.simplefilter("always", ResourceWarning)
    for thread in threads:
        thread.start()
    assert ask.wait(30)
    go.set()
    for thread in threads:
        thread.join()
        del thread
    del client, threads
    gc.collect()
    assert [str(seen.message) for seen in recwarn if issubclass(seen.category, ResourceWarning)] == []


def test_a_service_that_reads_nothing_ends_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(ServiceUnavailable):
            Connection(f"http://127.0.0.1:{server.getsockname()[1]}", 0.5).request("POST", "/", b"x" * (64 << 20))
        assert time.monotonic() - started < 4


def test_nobody_listens(authority, tmp_path):
    gone = f"http+unix://{quote(str(tmp_path / 'sock'), safe='')}"
    endpoints = trust.Endpoints(gone, gone, gone, gone)
    with pytest.raises(ServiceUnavailable):
        signer_for(
            "producer", trust=replace(authority.trust, endpoints=endpoints, fingerprint="sha256:" + "0" * 64)
        ).sign(claim())


@pytest.mark.parametrize("url", ["http://log.example.org", "ftp://127.0.0.1", "file:///etc/passwd", "http+unix://", ""])
def test_tokens_do_not_travel_in_the_clear(url):
    with pytest.raises(Misuse):
        Connection(url, 1)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://[::1]", "::1", 80),
        ("https://[2001:db8::1:443]", "2001:db8::1:443", 443),
        ("https://[2001:db8::1]:8181/behind", "2001:db8::1", 8181),
        ("https://opa.example", "opa.example", 443),
        ("http://127.0.0.1:1", "127.0.0.1", 1),
        ("http+unix://%2Frun%2Fs", "localhost", 80),
    ],
)
def test_the_host_that_is_named_is_asked_and_no_part_of_its_address_is_a_port(url, host, port):
    from mlseal.evidence.signing.transport import _Http

    asked = _Http(url, None)
    assert (asked.host, asked.port) == (host, port)


def test_root_without_services_cannot_sign(authority):
    with pytest.raises(NotInitialised, match="trust_config"):
        Signer(trust.load(authority.trusted_root), lambda: "x")


@pytest.mark.parametrize("token", ["", "abc", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
def test_worthless_tokens_are_refused(authority, tmp_path, token):
    before = size(authority)
    (tmp_path / "token").write_text(token)
    with pytest.raises(Error):
        authority.signer("producer", token_file=tmp_path / "token").sign(claim())
    assert size(authority) == before


def test_store_that_cannot_be_written_loses_nothing(authority, tmp_path):
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store should be")
    said = claim()
    with pytest.raises(Unreadable, match="store"):
        authority.signer("producer", store=Store(blocked)).sign(said)
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    assert [leaf.evidence_id for leaf in archive.unresolved()] == [said.evidence_id]
    (published,) = authority.signer("producer").recover()
    assert published.evidence_id == said.evidence_id
    archive.refresh()
    assert archive.unresolved() == []


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4])
def test_signer_killed_at_any_write_loses_nothing(authority, kill_at):
    said = claim()
    child = os.fork()
    if child == 0:
        from mlseal.evidence import bundle as bundles
        from mlseal.evidence.signing import journal as signing

        calls = 0
        original = bundles.write_atomic

        def dying(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls * 2 - 1 == kill_at:
                os._exit(9)  # before the write
            original(*args, **kwargs)
            if calls * 2 == kill_at:
                os._exit(9)  # after it
            return

        signing.write_atomic = bundles.write_atomic = dying
        try:
            authority.signer("producer").sign(said)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    authority.signer("producer").recover()
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    assert archive.unresolved() == []
    assert authority.store.path(said.evidence_id).is_file() == (kill_at > 1)


def test_signing_twice_the_same_words_is_one_leaf(authority):
    signer, said = authority.signer("producer"), claim()
    first = signer.sign(said)
    before = size(authority)
    assert signer.sign(said).evidence_id == first.evidence_id
    assert size(authority) == before
    assert authority.store.get(first.evidence_id) == first


def test_saying_somebodys_words_first_does_not_speak_for_them(authority):
    said = claim()
    authority.signer("producer").sign(said)
    with pytest.raises(Unchecked, match="already"):
        authority.signer("gate").sign(said)


def test_two_processes_sign_at_once(authority):
    children = []
    before = size(authority)
    for _ in range(2):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signer = authority.signer("producer")
                for _ in range(5):
                    signer.sign(claim())
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    archive = Archive.open(authority.trust, authority.store)
    assert archive.refresh() == before + 10
    assert archive.unresolved() == []


def test_service_starts_on_demand_and_two_starters_get_one(new_authority):
    authority = new_authority(start=False)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                authority.signer("producer").sign(claim())
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert size(authority) == 2
    end = time.monotonic() + 30
    while len(running := services_of(authority)) > 1 and time.monotonic() < end:
        time.sleep(0.05)  # the second one found the lock taken and is on its way out
    (pid,) = running
    os.kill(pid, signal.SIGTERM)


def services_of(authority) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", f"mlseal serve --state {authority.state}"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_service_of_another_user_is_not_started(new_authority, monkeypatch):
    authority = new_authority(start=False)
    os.chown(authority.state, 42009, 42009)
    try:
        with pytest.raises(ServiceUnavailable, match="ask the user who owns it"):
            authority.signer("producer").sign(claim())
    finally:
        os.chown(authority.state, os.getuid(), os.getgid())


def test_recovering_for_one_identity_leaves_what_others_wait_for(authority, tmp_path):
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store should be")
    said = {role: claim() for role in ("producer", "gate")}
    for role, one in said.items():
        with pytest.raises(Unreadable):
            authority.signer(role, store=Store(blocked)).sign(one)
    signer = authority.signer("gate")
    who = Identity(authority.issuer, authority.san("gate"))
    assert [bundle.evidence_id for bundle in signer.recover([who])] == [said["gate"].evidence_id]
    assert signer.recover([who]) == []
    assert [bundle.evidence_id for bundle in signer.recover()] == [said["producer"].evidence_id]


@pytest.mark.parametrize("spoilt", [b"{}", b'{"verificationMaterial":{"certificate":{"rawBytes":"AAAA"}}}', b"no JSON"])
def test_a_spoilt_entry_is_named_and_does_not_stop_the_others(authority, tmp_path, spoilt):
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store should be")
    said = claim()
    with pytest.raises(Unreadable):
        authority.signer("producer", store=Store(blocked)).sign(said)
    (entry,) = authority.home.path.glob(".local/state/mlseal/unpublished/*/*.json")
    odd = entry.with_name("0" * 64 + ".json")
    odd.write_bytes(spoilt)
    signer = authority.signer("producer")
    try:
        with pytest.raises(MalformedEvidence, match="journal 0000"):
            signer.recover([Identity(authority.issuer, authority.san("producer"))])
        assert authority.store.path(said.evidence_id).is_file()
    finally:
        odd.unlink()


def test_the_audit_names_the_command_for_what_was_logged_and_not_stored(authority, tmp_path):
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store should be")
    said = claim()
    with pytest.raises(Unreadable):
        authority.signer("producer", store=Store(blocked)).sign(said)

    def findings():
        return audit(authority.trust, authority.store, service_tiles(authority.trust)).findings

    (finding,) = [one for one in findings() if said.evidence_id in (one.error.got or "")]
    assert authority.san("producer") in finding.error.got
    assert "mlseal log recover" in finding.error.remedy
    done = authority.call("log", "recover", "--store", str(authority.store.root))
    assert (done.returncode, done.stdout) == (0, "published 1 bundle(s) that were waiting\n"), done.stderr
    assert not [one for one in findings() if said.evidence_id in (one.error.got or "")]


def test_words_that_the_log_will_never_take_do_not_block_recovery(authority):
    said = claim()
    authority.signer("producer").sign(said)
    with pytest.raises(Unchecked, match="already"):
        authority.signer("gate").sign(said)
    assert said.evidence_id not in {bundle.evidence_id for bundle in authority.signer("gate").recover()}


def test_signing_again_after_a_crash_publishes_the_first_signature(authority, tmp_path):
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store should be")
    said = claim()
    with pytest.raises(Unreadable):
        authority.signer("producer", store=Store(blocked)).sign(said)
    assert authority.signer("producer").sign(said).evidence_id == said.evidence_id
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    assert archive.unresolved() == []


def test_field_that_the_schema_does_not_have_is_not_signed(authority):
    before = size(authority)
    said = statement.make([SUBJECT], claim().predicate_type, {"result": "PASSED", "configuration": [], "foo": 1})
    with pytest.raises(MalformedEvidence, match="foo"):
        authority.signer("producer").sign(said)
    assert size(authority) == before
