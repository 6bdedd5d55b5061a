"""Statements and JSON: one spelling for signing, strictness for reading."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlseal.errors import MalformedEvidence, UnknownName
from mlseal.evidence import canonical, predicates, statement
from mlseal.evidence.digest import Subject

DIGEST = "ab" * 32


def document(**changes):
    base = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": DIGEST}}],
        "predicateType": "https://mlseal.dev/x/v0.1",
        "predicate": {"a": 1},
    }
    return json.dumps({**base, **changes}).encode()


def test_make_gives_canonical_bytes_that_parse_back():
    made = statement.make([Subject("m", DIGEST)], "https://mlseal.dev/x/v0.1", {"b": 1, "a": [1.5, "é"]})
    assert statement.parse(made.payload) == made
    assert made.payload == canonical.dumps(json.loads(made.payload))
    assert len(made.evidence_id) == 64


@pytest.mark.parametrize(
    "data",
    [
        document(_type="https://in-toto.io/Statement/v0.1"),
        document(subject=[]),
        document(subject=[{"name": "m", "digest": {}}]),
        document(subject=[{"name": "m", "digest": {"sha256": DIGEST, "md5": "00"}}]),
        document(subject=[{"name": "m", "digest": {"sha256": DIGEST.upper()}}]),
        document(subject=[{"name": "m", "digest": {"sha256": DIGEST[:-1]}}]),
        document(subject=[{"name": "", "digest": {"sha256": DIGEST}}]),
        document(subject=[{"name": "m", "digest": {"sha256": DIGEST}}] * 2),
        document(predicate=[]),
        document(predicateType="fairness"),
        document(extra=1),
        document(predicate={"x": "y" * 70_000}),
        b"{",
        b"\xff",
        b'{"_type":"a","_type":"b"}',
        b'{"a":NaN}',
        b"[" * 100_000,
    ],
)
def test_statement_that_is_not_exactly_one_is_refused(data):
    with pytest.raises(MalformedEvidence):
        statement.parse(data)


def test_pae_is_that_of_dsse():
    # secure-systems-lab/dsse, protocol.md, test vector
    assert (
        statement.pae(b"hello world", "http://example.com/HelloWorld")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_duplicate_key_is_named():
    with pytest.raises(MalformedEvidence, match="'result'"):
        canonical.parse(b'{"result":"FAILED","result":"PASSED"}', what="predicate")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: 2}, {"a": object()}])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(MalformedEvidence):
        canonical.dumps(value)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=5), st.booleans(), st.none()),
        max_size=5,
    )
)
def test_canonical_round_trip(value):
    assert canonical.parse(canonical.dumps(value), what="value") == value


def test_limit_is_checked_before_parsing():
    with pytest.raises(MalformedEvidence, match="too large"):
        canonical.parse(b" " * 101, what="value", limit=100)


@pytest.mark.parametrize("uri", sorted(predicates.MODELS))
def test_every_predicate_has_a_schema_and_refuses_an_empty_claim(uri):
    assert predicates.schema(uri)["properties"]
    with pytest.raises(MalformedEvidence):
        predicates.check(uri, {})


def test_unknown_predicate_type_is_refused():
    with pytest.raises(UnknownName):
        predicates.check("https://example.com/x", {})


@pytest.mark.parametrize(
    "bad",
    [
        {"evidenceId": "00" * 32, "reason": "because"},
        {"evidenceId": "x", "reason": "withdrawn"},
        {"evidenceId": 1, "reason": "withdrawn"},
    ],
)
def test_predicate_fields_are_strict(bad):
    with pytest.raises(MalformedEvidence):
        predicates.check("revocation", bad)


def test_unknown_predicate_fields_are_ignored_when_verifying():
    assert (
        predicates.check(
            "revocation", {"evidenceId": "00" * 32, "reason": "withdrawn", "nonce": "0" * 32, "future": 1}
        ).reason
        == "withdrawn"
    )


@pytest.mark.parametrize(
    ("kind", "claim", "where"),
    [
        ("test-result", {"result": "PASSED", "configuration": [], "foo": 1}, "foo"),
        ("test-result", {"result": "PASSED", "configuration": [{"name": "x", "digset": {"sha256": "y"}}]}, "digset"),
        ("test-result", {"result": "PASSED", "configuration": [], "passed_tests": ["a"]}, "passed_tests"),
    ],
)
def test_makers_may_not_state_fields_that_the_schema_does_not_have(kind, claim, where):
    predicates.check(predicates.SHORT[kind], claim)  # a verifier passes over it
    with pytest.raises(MalformedEvidence, match=where):
        predicates.check_own(predicates.SHORT[kind], claim)


def test_makers_may_use_every_field_and_free_members_of_open_objects():
    predicates.check_own(
        predicates.SHORT["slsa-provenance"],
        {
            "buildDefinition": {
                "buildType": "urn:x",
                "externalParameters": {"anything": {"at": ["all"]}},
                "resolvedDependencies": [{"name": "d", "digest": {"gitCommit": "1"}, "annotations": {"any": 1}}],
            },
            "runDetails": {"builder": {"id": "urn:b"}, "metadata": {"invocationId": None}},
        },
    )
