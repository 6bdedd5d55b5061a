"""DER against two other implementations."""

import pytest
from asn1crypto import core
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from mlseal.errors import Misuse
from mlseal.services import der


@given(st.integers(-(2**200), 2**200))
def test_integers(number):
    encoded = der.integer(number)
    assert encoded == core.Integer(number).dump()
    assert der.Reader(encoded, "it").take_integer() == number


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.integers(0, 2), st.integers(0, 39))
def test_object_identifiers(arcs, first, second):
    dotted = ".".join(map(str, (first, second, *arcs)))
    assert der.oid(dotted) == core.ObjectIdentifier(dotted).dump()


@given(st.binary(max_size=70_000))
def test_octets_of_any_length(data):
    encoded = der.value(der.OCTET_STRING, data)
    assert encoded == core.OctetString(data).dump()
    reader = der.Reader(encoded, "it")
    assert reader.take(der.OCTET_STRING) == data
    reader.finish()


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_sets_are_sorted(members):
    encoded = [der.value(der.OCTET_STRING, m) for m in members]
    assert der.set_of(*encoded) == der.set_of(*reversed(encoded))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "04",
        "0405",
        "048101ff",
        "04820001ff",
        "0480ff0000",
        "0485000000000100",
        "0200",
        "02020001",
        "0202ff80",
        "1f0100",
        "0501",
    ],
)
def test_what_ber_allows_and_der_does_not(data):
    reader = der.Reader(bytes.fromhex(data), "it")
    with pytest.raises(Misuse, match="it is not DER"):
        (
            reader.take_integer
            if data.startswith("02")
            else lambda: reader.take(0x1F if data.startswith("1f") else 0x04)
        )()


def test_left_over_bytes():
    with pytest.raises(Misuse, match="1 bytes are left over"):
        der.Reader(b"\x00", "it").finish()


def test_object_identifier_agrees_with_cryptography():
    dotted = "1.3.6.1.4.1.57264.1.8"
    certificate_oid = x509.ObjectIdentifier(dotted)
    assert core.ObjectIdentifier.load(der.oid(dotted)).dotted == certificate_oid.dotted_string
