"""What the service hands out is believed by programs that know nothing of it."""

import base64
import json

import stock
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

NAME = "lab.mlseal.local"
ISSUER = f"https://{NAME}/issuer"
SAN = f"https://{NAME}/roles/producer"


def test_bundle_from_http_calls_verifies_with_stock_verifiers(shared):
    bundle = shared.bundle(1)
    assert stock.sigstore_python(bundle, shared.trusted_root, SAN, ISSUER)
    assert stock.sigstore_js(bundle, shared.trusted_root, SAN, ISSUER)


def test_stock_verifiers_refuse_another_identity(shared):
    bundle = shared.bundle(2)
    for verify in (stock.sigstore_python, stock.sigstore_js):
        try:
            verify(bundle, shared.trusted_root, SAN.replace("producer", "gate"), ISSUER)
        except stock.Rejected:
            continue
        raise AssertionError(f"{verify.__name__} took the wrong identity")


def test_certificate_follows_the_fulcio_profile(shared):
    certificate, key = shared.leaf(shared.token("roles/reviewer/alice"))
    assert certificate.public_key() == key.public_key()
    assert not list(certificate.subject)
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    pseudonymous = shared.san("reviewer", "alice")
    assert san.value.get_values_for_type(x509.UniformResourceIdentifier) == [pseudonymous]
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CODE_SIGNING
    ]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() == 600
    by_oid = {e.oid.dotted_string: e.value for e in certificate.extensions}
    assert by_oid["1.3.6.1.4.1.57264.1.1"].value == ISSUER.encode()
    assert by_oid["1.3.6.1.4.1.57264.1.24"].value == bytes([12, len(pseudonymous)]) + pseudonymous.encode()
    assert by_oid["1.3.6.1.4.1.57264.1.8"].value == bytes([12, len(ISSUER)]) + ISSUER.encode()
    assert (
        len(list(certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value))
        == 1
    )


def test_every_validity_has_an_end(shared):
    config = json.loads((shared.project / ".mlseal" / "trust_config.json").read_text())
    root = config["trustedRoot"]
    entries = [
        e for group in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities") for e in root[group]
    ]
    assert len(entries) == 4
    for entry in entries:
        valid = entry.get("validFor") or entry["publicKey"]["validFor"]
        assert valid["start"] < valid["end"]
    assert root == json.loads(shared.trusted_root.read_text())


def test_sct_is_honest_the_certificate_is_in_the_issuance_log(shared):
    from mlseal.tlog.tiles import DirectoryTiles, iter_entries

    certificate, _ = shared.leaf(shared.token())
    sct = next(
        iter(certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value)
    )
    leaves = [
        entry for _, entry in iter_entries(DirectoryTiles(shared.state / "logs" / f"ct1.{NAME}"), shared.size("ct"))
    ]
    mine = [leaf for leaf in leaves if certificate.tbs_precertificate_bytes in leaf]
    assert len(mine) == 1
    # RFC 6962: the leaf is what the SCT signs, so the promise can be checked against the log by anybody.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(
        base64.b64decode(json.loads(shared.trusted_root.read_text())["ctlogs"][0]["publicKey"]["rawBytes"])
    )
    key.verify(sct.signature, mine[0], ec.ECDSA(hashes.SHA256()))
