"""RFC 3161: what stock programs verify, and what garbage gets."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from asn1crypto import tsp
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from mlseal.errors import Misuse
from mlseal.evidence.clock import utcnow
from mlseal.services import der, keys, timestamping

DER = {"Content-Type": "application/timestamp-query"}
JSON = {"Content-Type": "application/json"}


def query(data=b"signature", *, nonce=True, algorithm=HashAlgorithm.SHA256, certificate=True):
    return (
        TimestampRequestBuilder()
        .hash_algorithm(algorithm)
        .data(data)
        .nonce(nonce=nonce)
        .cert_request(cert_request=certificate)
        .build()
    )


def verifier(root_json):
    chain = root_json["timestampAuthorities"][0]["certChain"]["certificates"]
    leaf, root = (x509.load_der_x509_certificate(base64.b64decode(c["rawBytes"])) for c in chain)
    return VerifierBuilder(roots=[root], tsa_certificate=leaf).build()


@pytest.fixture(scope="module")
def authority():
    now = utcnow()
    made = keys.generate("tsa.example", 1, now, now + timedelta(days=1))
    return timestamping.TimestampAuthority(made.tsa, made.tsa_chain[0])


@pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA256, HashAlgorithm.SHA512])
@pytest.mark.parametrize("certificate", [True, False])
def test_stock_client_verifies(shared, algorithm, certificate):
    asked = query(algorithm=algorithm, certificate=certificate)
    status, data = shared.call("POST", "/api/v1/timestamp", asked.as_bytes(), DER)
    assert status == 201
    answer = decode_timestamp_response(data)
    assert answer.tst_info.nonce == asked.nonce
    check = verifier(json.loads(shared.trusted_root.read_text()))
    assert check.verify_message(answer, b"signature")
    with pytest.raises(VerificationError):
        check.verify_message(answer, b"another signature")
    assert abs(answer.tst_info.gen_time - datetime.now(UTC)) < timedelta(seconds=5)
    assert bool(tsp.TimeStampResp.load(data)["time_stamp_token"]["content"]["certificates"].native) == certificate


def test_json_form_of_sigstore_js(shared):
    body = {
        "artifactHash": base64.b64encode(hashlib.sha256(b"x").digest()).decode(),
        "hashAlgorithm": "sha256",
        "nonce": 77,
        "certificates": True,
    }
    status, data = shared.call("POST", "/api/v1/timestamp", body)
    assert status == 201
    answer = decode_timestamp_response(data)
    assert answer.tst_info.nonce == 77
    assert verifier(json.loads(shared.trusted_root.read_text())).verify_message(answer, b"x")


@pytest.mark.parametrize(
    "body",
    [{}, {"artifactHash": "AAAA", "hashAlgorithm": "sha256"}, {"artifactHash": "", "hashAlgorithm": "sha1"}, {"artifactHash": 5},
     {"artifactHash": base64.b64encode(bytes(32)).decode(), "hashAlgorithm": "sha256", "nonce": "7"},
     {"artifactHash": base64.b64encode(bytes(32)).decode(), "hashAlgorithm": "sha256", "nonce": 10**100}],
    ids=str,
)  # fmt: skip
def test_json_that_is_no_request(shared, body):
    status, document = shared.call("POST", "/api/v1/timestamp", body)
    assert (status, set(document)) == (400, {"code", "message"})


GOOD = query().as_bytes()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x30\x80\x00\x00", GOOD[:-1], GOOD + b"\x00", b"\x30\x82\x00" + GOOD[1:], b"\x31" + GOOD[1:], b"\xff" * 64,
     b"\x30\x84\xff\xff\xff\xff", GOOD.replace(b"\x02\x01\x01", b"\x02\x01\x02", 1), GOOD.replace(b"\x01\x01\xff", b"\x01\x01\x01"),
     GOOD.replace(bytes.fromhex("0609608648016503040201"), bytes.fromhex("0609608648016503040209"))],
    ids=map(str, range(12)),  # the bytes hold a fresh nonce; parallel workers must agree on the names of tests
)  # fmt: skip
def test_garbage_gets_one_sentence(shared, data):
    status, document = shared.call("POST", "/api/v1/timestamp", data, DER)
    assert (status, document["code"]) == (400, 400)
    assert document["message"]


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_parsed_or_refused(data):
    try:
        timestamping.parse_query(data)
    except Misuse:
        return
    tsp.TimeStampReq.load(data, strict=True).native  # what we accept, a general parser reads too


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_one_byte_off(position, byte):
    changed = GOOD[:position] + bytes([byte]) + GOOD[position + 1 :]
    try:
        parsed = timestamping.parse_query(changed)
    except Misuse:
        return
    assert tsp.TimeStampReq.load(changed, strict=True)["message_imprint"].dump() == parsed.imprint


def test_extensions_and_other_policies_are_refused_not_ignored():
    imprint = der.value(
        der.SEQUENCE, der.value(der.SEQUENCE, der.oid("2.16.840.1.101.3.4.2.1")), der.value(der.OCTET_STRING, bytes(32))
    )

    def request(*more):
        return der.value(der.SEQUENCE, der.integer(1), imprint, *more)

    assert timestamping.parse_query(request()).nonce is None
    assert timestamping.parse_query(request(der.oid(timestamping.POLICY), der.integer(5))).nonce == 5
    for bad in (der.oid("1.2.3.4"), der.value(0xA0, b""), der.integer(1 << 300), der.integer(1) + der.integer(1)):
        with pytest.raises(Misuse):
            timestamping.parse_query(request(bad))


def test_response_is_der_that_others_read_the_same(authority):
    data = authority.respond(timestamping.make_query("sha384", bytes(48), nonce=-3, certificate=True))
    parsed = tsp.TimeStampResp.load(data, strict=True)
    signed = parsed["time_stamp_token"]["content"]
    signer = signed["signer_infos"][0]
    info = signed["encap_content_info"]["content"].parsed
    assert info["nonce"].native == -3
    assert info["policy"].native == timestamping.POLICY
    assert {a["type"].native for a in signer["signed_attrs"]} == {
        "content_type",
        "message_digest",
        "signing_time",
        "signing_certificate_v2",
    }
    members = [a.dump() for a in signer["signed_attrs"]]
    assert members == sorted(members)  # X.690 11.6
    assert parsed.dump(force=True) == data


def test_serial_numbers_differ(authority):
    asked = timestamping.make_query("sha256", bytes(32))
    numbers = {decode_timestamp_response(authority.respond(asked)).tst_info.serial_number for _ in range(50)}
    assert len(numbers) == 50


def test_time_is_the_clocks_cut_down(authority):
    moment = datetime(2030, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)
    made = keys.generate("tsa.example", 1, moment, moment + timedelta(days=1))
    stamp = timestamping.TimestampAuthority(made.tsa, made.tsa_chain[0], clock=lambda: moment)
    answer = decode_timestamp_response(stamp.respond(timestamping.make_query("sha256", bytes(32))))
    assert answer.tst_info.gen_time == moment.replace(microsecond=0)
