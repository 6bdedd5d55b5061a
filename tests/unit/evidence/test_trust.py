"""Which services and logs a trust configuration leads to, and what is said of one that leads nowhere or never ends."""

import base64
import http.server
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlseal.cli import main
from mlseal.errors import MalformedEvidence, NotInitialised
from mlseal.evidence import statement, trust
from mlseal.evidence.archive import Archive
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.digest import Subject
from mlseal.evidence.signing import Signer
from mlseal.evidence.tiles import service_tiles
from mlseal.services import entries
from mlseal.tlog import checkpoint
from mlseal.tlog.writer import LogWriter

RESULT = "https://in-toto.io/attestation/test-result/v0.1"
GOLDEN = Path(__file__).parents[2] / "golden" / "v0.1"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MEMBERS = {"caUrls": 1, "rekorTlogUrls": 2, "tsaUrls": 1, "oidcUrls": 1}


def service(url, version, start="2026-01-01T00:00:00Z", end=None):
    valid = {"start": start} | ({"end": end} if end else {})
    return {"url": url, "majorApiVersion": version, "validFor": valid, "operator": "x"}


def config(**members):
    """A ClientTrustConfig whose services are at https://live, but for the members that a test gives."""
    signing = {name: [service("https://live", version)] for name, version in MEMBERS.items()} | members
    root = json.loads((GOLDEN / "trusted_root.json").read_text())
    kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
    return json.dumps({"mediaType": kind, "trustedRoot": root, "signingConfig": signing}).encode()


def parsed(**members):
    return trust.parse(config(**members), source="it", clock=lambda: NOW)


@pytest.mark.parametrize("member", sorted(MEMBERS))
@pytest.mark.parametrize(
    ("other", "chosen"),
    [
        ({"start": "2099-01-01T00:00:00Z"}, "live"),  # not yet
        ({"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T00:00:00Z"}, "live"),  # no more
        ({"start": "2026-02-01T00:00:00Z", "end": rfc3339(NOW)}, "live"),  # ends now
        ({"start": rfc3339(NOW)}, "other"),  # begins now
        ({"start": "2026-02-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}, "other"),  # the newer of two
        ({"start": rfc3339(NOW + timedelta(minutes=1))}, "live"),  # the skew of clocks serves only who has no other
    ],
)
def test_of_several_services_the_newest_that_is_valid_now_is_taken(member, other, chosen):
    version = MEMBERS[member]
    listed = [service("https://other/", version, **other), service("https://live", version)]
    for order in (listed, listed[::-1]):
        endpoints = parsed(**{member: order}).endpoints
        field = {"caUrls": "ca", "rekorTlogUrls": "log", "tsaUrls": "tsa", "oidcUrls": "issuer"}[member]
        assert getattr(endpoints, field) == f"https://{chosen}"


def test_a_service_that_begins_within_the_skew_of_clocks_is_better_than_none():
    soon = [service("https://soon", 2, start=rfc3339(NOW + timedelta(minutes=4)))]
    assert parsed(rekorTlogUrls=soon).endpoints.log == "https://soon"
    late = [service("https://late", 2, start=rfc3339(NOW + timedelta(minutes=6)))]
    assert parsed(rekorTlogUrls=late).endpoints is None


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"rekorTlogUrls": [service("https://v1", 1)]}, "names no Rekor v2 log that is valid now"),
        ({"rekorTlogUrls": []}, "names no Rekor v2 log that is valid now"),
        ({"rekorTlogUrls": [service("https://old", 2, end="2026-02-01T00:00:00Z")]}, "names no Rekor v2 log"),
        ({"tsaUrls": [], "caUrls": []}, "no certificate authority .Fulcio v1. and no time-stamping authority"),
    ],
)
def test_configuration_without_a_service_says_which_one(members, said):
    chosen = parsed(**members)
    with pytest.raises(NotInitialised, match=said) as caught:
        Signer(chosen, lambda: "x")
    assert "trust_config.json" not in str(caught.value), "it is one already"


def test_bare_root_says_what_to_pass_instead():
    with pytest.raises(NotInitialised, match=r"pass trust_config\.json"):
        Signer(trust.load(GOLDEN / "trusted_root.json"), lambda: "x")


@pytest.mark.parametrize("wrong", [[{"majorApiVersion": 1}], [service("u", 1, start="soon")], ["x"], 5])
def test_malformed_services_are_refused(wrong):
    with pytest.raises(MalformedEvidence, match="signing configuration"):
        parsed(caUrls=wrong)


def ends(**changes):
    """The end of a root in which groups of authorities end at other times; None takes an end away."""
    root = json.loads((GOLDEN / "trusted_root.json").read_text())
    for group, end in changes.items():
        for entry in root[group]:
            valid = (entry.get("publicKey") or entry)["validFor"]
            valid.pop("end")
            if end:
                valid["end"] = end
    return trust.parse(json.dumps(root).encode(), source="it").expires


GROUPS = ("tlogs", "certificateAuthorities", "timestampAuthorities", "ctlogs")


@pytest.mark.parametrize("group", GROUPS)
def test_a_root_ends_with_the_first_of_its_kinds_of_authority(group):
    assert ends(**{group: "2026-12-01T00:00:00Z"}) == datetime(2026, 12, 1, tzinfo=UTC)
    assert ends(**{group: None}) == ends()


def test_a_root_of_which_nothing_ends_has_no_end():
    assert ends(**dict.fromkeys(GROUPS)) is None


# Rekor v2, as rekor-tiles serves it: everything below /api/v2, nothing beside it.


class Shard:
    """One log with its own server, key and origin; the origin is the host by which it is reached."""

    def __init__(self, folder, host):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def translate_path(self, path):
                inside = path.startswith("/api/v2/")
                return super().translate_path(path.removeprefix("/api/v2") if inside else "/absent")

            def log_message(self, *_):
                pass

        self.host, self.key = host, Ed25519PrivateKey.generate()
        self.writer = LogWriter(folder, host, self.key, identity_of=entries.identity_of)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://{host}:{self.server.server_port}"

    def entry(self):
        """The log as a TrustedRoot names it."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        raw = self.key.public_key().public_bytes_raw()
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64.b64encode(spki).decode(),
                "keyDetails": "PKIX_ED25519",
                "validFor": {"start": "2026-01-01T00:00:00Z"},
            },
            "logId": {"keyId": base64.b64encode(checkpoint.key_id(self.host, 1, raw)).decode()},
        }

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.writer.close()


@pytest.fixture
def shards(tmp_path):
    made = [Shard(tmp_path / host, host) for host in ("localhost", "127.0.0.1")]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def rekor(shards):
    """A configuration that signs with the second shard and still believes the first, which is retired."""
    document = json.loads(config())
    document["trustedRoot"]["tlogs"] = [shard.entry() for shard in shards]
    for member, version in MEMBERS.items():
        document["signingConfig"][member] = [service(shards[1].url, version)]
    return trust.parse(json.dumps(document).encode(), source="it")


@pytest.fixture
def append(authority):
    """A function that appends the entry of a new statement to a shard."""

    def append(shard):
        claim = {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"}
        bundle = authority.signer().sign(statement.make([Subject("model", "ab" * 32)], RESULT, claim))
        body = base64.b64decode(bundle.document["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])
        shard.writer.append(body, entries.identity_of(body))

    return append


def test_rekor_v2_is_read_below_its_prefix_again_and_again(shards, rekor, append):
    assert sorted(service_tiles(rekor)) == ["127.0.0.1", "localhost"]
    for shard, log in zip(shards, rekor.logs, strict=True):
        for number in range(2):  # the second contact needs tiles, for the proof of consistency
            append(shard)
            tiles = service_tiles(rekor)[log.origin]
            seen = PinnedCheckpoints.of_user().require_consistent(log, tiles.read("checkpoint").decode(), tiles)
            assert seen == (number == 1)


def test_archive_reads_every_shard_of_rekor_v2(shards, rekor, append, tmp_path):
    for shard in shards:
        append(shard)
    archive = Archive.open(rekor, tmp_path / "store")
    assert archive.refresh() == 2
    append(shards[1])
    assert archive.refresh() == 3


@pytest.mark.parametrize("endless", [False, True])
def test_pinning_and_doctor_say_when_a_root_has_no_end(tmp_path, endless):
    root = json.loads((GOLDEN / "trusted_root.json").read_text())
    for entry in (entry for group in GROUPS for entry in root[group]):
        valid = (entry.get("publicKey") or entry)["validFor"]
        valid["end"] = "2099-01-01T00:00:00Z"
        if endless:
            del valid["end"]
    file = tmp_path / "root.json"
    file.write_text(json.dumps(root))

    def run(*command):
        return CliRunner().invoke(main, command)

    added = run("trust", "add", str(file), "--fingerprint", trust.load(file).fingerprint)
    assert added.exit_code == 0
    assert ("no end" in added.output) == endless
    assert ("no end" in run("trust", "list").output) == endless
    checked = run("doctor")
    assert ("names no end" in checked.output) == endless
    assert (checked.exit_code == 11) == endless
