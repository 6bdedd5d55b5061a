"""The strict checks by themselves, each with what it refuses and its nearest neighbour that it lets pass.

Most stand behind a stock check on purpose, so no bundle shows that they work; certificates and times made by hand do.
"""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlseal.errors import ForgedEvidence, MalformedEvidence, StaleEvidence, UntrustedSigner
from mlseal.evidence import canonical, strict
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import SKEW
from mlseal.evidence.identity import Identity
from mlseal.evidence.trust import LogKey, load
from mlseal.services import timestamping

V1, V2 = (x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{n}") for n in (1, 8))
ISSUER = "https://issuer.example"
SAN = "https://issuer.example/roles/producer"
KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def utf8(text):
    data = text.encode()
    return b"\x0c" + (bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])) + data


def certificate(names=(x509.UniformResourceIdentifier(SAN),), first=ISSUER.encode(), second=utf8(ISSUER)):
    """A certificate with these alternative names and issuer extensions; None leaves one out."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + HOUR)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for oid, value in ((V1, first), (V2, second)):
        if value is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(KEY, hashes.SHA256())


@pytest.mark.parametrize(
    ("name", "san"),
    [(x509.UniformResourceIdentifier(SAN), SAN), (x509.RFC822Name("a@example.org"), "a@example.org")],
)
def test_one_name_and_one_issuer_are_an_identity(name, san):
    assert strict.certificate_identity(certificate([name])) == Identity(ISSUER, san)


def test_long_issuers_are_compared_too():
    long = "https://" + "i" * 150 + ".example"
    made = certificate(first=long.encode(), second=utf8(long))
    assert strict.certificate_identity(made).issuer == long
    with pytest.raises(ForgedEvidence, match="two issuers"):
        strict.certificate_identity(certificate(first=long.encode(), second=utf8(long + "x")))


@pytest.mark.parametrize(
    "names",
    [
        [x509.UniformResourceIdentifier(SAN), x509.UniformResourceIdentifier(SAN + "2")],
        [x509.UniformResourceIdentifier(SAN), x509.RFC822Name("a@example.org")],
        [x509.UniformResourceIdentifier(SAN), x509.UniformResourceIdentifier(SAN)],
        [x509.DNSName("issuer.example")],
        [x509.OtherName(V1, b"\x0c\x01x")],
    ],
    ids=["two-uris", "uri-and-mail", "twice", "dns", "other-name"],
)
def test_certificate_must_name_exactly_one_identity(names):
    with pytest.raises(ForgedEvidence, match="exactly one identity"):
        strict.certificate_identity(certificate(names))


@pytest.mark.parametrize(
    "second",
    [utf8("https://evil.example"), utf8(ISSUER + "/"), ISSUER.encode(), utf8(ISSUER) + b"\0", b""],
    ids=["another", "longer", "raw", "trailing", "empty"],
)
def test_both_extensions_must_name_one_issuer(second):
    with pytest.raises(ForgedEvidence, match="two issuers"):
        strict.certificate_identity(certificate(second=second))


@pytest.mark.parametrize("absent", ["names", "first", "second"])
def test_certificate_without_name_or_issuer_is_no_identity(absent):
    with pytest.raises(x509.ExtensionNotFound):  # the verifier turns it into ForgedEvidence
        strict.certificate_identity(certificate(**{absent: None}))


LOG = LogKey("log1.example", b"\0" * 32, b"\0" * 32, NOW - HOUR, NOW + HOUR)
ENDLESS = LogKey("log1.example", b"\0" * 32, b"\0" * 32, NOW - HOUR, None)


@pytest.fixture(scope="module")
def stamp():
    """A function that makes a timestamp of a moment."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tsa")])
    own = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(2)
        .not_valid_before(NOW)
        .not_valid_after(NOW + HOUR)
        .sign(KEY, hashes.SHA256())
    )
    query = timestamping.make_query("sha256", b"\1" * 32)
    return lambda moment: timestamping.TimestampAuthority(KEY, own, clock=lambda: moment).respond(query)


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("moment", [NOW, LOG.start - SKEW, LOG.end + SKEW])
def test_time_within_the_logs_validity_is_taken(stamp, moment):
    assert strict.verified_time(stamp(moment), LOG, NOW + 2 * HOUR) == moment


@pytest.mark.parametrize("moment", [LOG.start - SKEW - SECOND, LOG.end + SKEW + SECOND])
def test_log_that_was_not_valid_at_the_time_is_refused(stamp, moment):
    with pytest.raises(ForgedEvidence, match="was not valid at the time of signing"):
        strict.verified_time(stamp(moment), LOG, NOW + 2 * HOUR)


def test_log_without_an_end_goes_on(stamp):
    late = NOW + timedelta(days=9000)
    assert strict.verified_time(stamp(late), ENDLESS, late) == late


def test_time_in_the_future_is_refused_beyond_the_skew(stamp):
    assert strict.verified_time(stamp(NOW + SKEW), LOG, NOW) == NOW + SKEW
    with pytest.raises(StaleEvidence, match="future"):
        strict.verified_time(stamp(NOW + SKEW + SECOND), LOG, NOW)


HISTORY = Path(__file__).parents[2] / "golden" / "v0.1"
ROOT = load(HISTORY / "trusted_root.json")
GOLDEN = Bundle.read(next((HISTORY / "evidence").rglob("*.sigstore.json")))


def parts(change=lambda document: None):
    document = json.loads(GOLDEN.raw)
    change(document)
    return strict.parts_of(Bundle(json.dumps(document).encode()))


def entry(**changes):
    made = json.loads(GOLDEN.raw)["verificationMaterial"]["tlogEntries"][0]
    for path, value in changes.items():
        part = made
        *way, last = path.split("__")
        for name in way:
            part = part[name]
        part[last] = value
    return made


def test_golden_entry_passes():
    log, index, size, _ = strict.require_log_entry(entry(), ROOT)
    assert log == ROOT.logs[0]
    assert index < size
    strict.require_body(parts(), GOLDEN.statement)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"kindVersion": {"kind": "dsse", "version": "0.0.2"}}, ForgedEvidence, "wrong kind"),
        ({"kindVersion__version": "0.0.1"}, ForgedEvidence, "wrong kind"),
        ({"integratedTime": "1"}, ForgedEvidence, "time that nobody signed"),
        ({"logId__keyId": base64.b64encode(b"\1" * 32).decode()}, UntrustedSigner, "not one of the trust root"),
        ({"logIndex": "99"}, ForgedEvidence, "two log indexes"),
        ({"inclusionProof__treeSize": "99"}, ForgedEvidence, "disagrees with its signed checkpoint"),
        ({"inclusionProof__rootHash": base64.b64encode(b"\1" * 32).decode()}, ForgedEvidence, "disagrees"),
        ({"inclusionProof__treeSize": "-1"}, MalformedEvidence, "not a number"),
        ({"inclusionProof__logIndex": "01"}, MalformedEvidence, "not a number"),
        ({"inclusionProof__logIndex": True}, MalformedEvidence, "not a number"),
        ({"logIndex": "\u0661"}, MalformedEvidence, "not a number"),
    ],
)
def test_log_entry_that_lies_is_refused(changes, error, said):
    with pytest.raises(error, match=said):
        strict.require_log_entry(entry(**changes), ROOT)


def body(change):
    """The golden bundle's parts with its log body changed."""

    def within(document):
        one = document["verificationMaterial"]["tlogEntries"][0]
        one["canonicalizedBody"] = base64.b64encode(change(base64.b64decode(one["canonicalizedBody"]))).decode()

    return parts(within)


def edited(path, value):
    def change(data):
        record = json.loads(data)
        part = record["spec"]["hashedRekordV002"]
        *way, last = path.split(".")
        for name in way:
            part = part[name]
        part[last] = value
        return canonical.dumps(record)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited("data.digest", base64.b64encode(b"\1" * 32).decode()), "another statement, signature or certificate"),
        (edited("signature.content", "AAAA"), "another statement, signature or certificate"),
        (edited("signature.verifier", {"x509Certificate": {"rawBytes": "AAAA"}}), "another statement"),
        (edited("signature.verifier", {"publicKey": {}}), "not a hashedrekord of a certificate"),
        (lambda data: b'{"spec": 5}', "not a hashedrekord of a certificate"),
        (lambda data: json.dumps(json.loads(data)).encode(), "not canonical"),
    ],
    ids=["digest", "signature", "certificate", "key", "other", "spaces"],
)
def test_log_body_of_something_else_is_refused(change, said):
    with pytest.raises(ForgedEvidence, match=said):
        strict.require_body(body(change), GOLDEN.statement)


def test_no_certificate_passes_for_a_bare_key():
    """An issuer of certificates that wrote the reserved name could otherwise say that any key signed."""
    name = "urn:mlseal:key"
    with pytest.raises(ForgedEvidence, match="stands for bare keys"):
        strict.certificate_identity(certificate(first=name.encode(), second=utf8(name)))
    near = name + "s"
    assert strict.certificate_identity(certificate(first=near.encode(), second=utf8(near))).issuer == near
