"""Take each refusal out of what reads untrusted bytes once: something wrong must come through.

Each row is a refusal by function and message, and a call that must be refused by it: with the refusal the call raises,
without it the call returns or stumbles over something else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from mlseal.errors import Error
from mlseal.evidence import beginning, bundle, canonical, oms, statement
from mlseal.evidence.digest import FileEntry, Manifest, Measured
from mlseal.evidence.statement import Statement
from tests.attacks.mutants import mutants, names

GOOD = {
    "_type": statement.STATEMENT_TYPE,
    "subject": [{"name": "a", "digest": {"sha256": "ab" * 32}}],
    "predicateType": "https://example.org/x/v1",
    "predicate": {},
}
SOMETIME = {statement.SIGNED_AT: "some day"}
FILES = Manifest((FileEntry("a", 1, "ab" * 32), FileEntry("b", 1, "cd" * 32)))


def said(**changes: Any) -> bytes:
    """A statement with some members changed."""
    return json.dumps({**GOOD, **changes}).encode()


def subject(**changes: Any) -> bytes:
    """A statement whose only subject is changed."""
    return said(subject=[{**GOOD["subject"][0], **changes}])


def enveloped(**changes: Any) -> bytes:
    """A bundle of the right kind, with some members of its envelope changed."""
    envelope = {"payloadType": statement.PAYLOAD_TYPE, "payload": base64.b64encode(said()).decode(), **changes}
    return json.dumps({"mediaType": bundle.MEDIA_TYPE, "dsseEnvelope": envelope}).encode()


def signed(**changes: Any) -> Statement:
    """What a verified OMS signature of `FILES` says, with some members changed."""
    predicate = {
        "resources": [{"name": f.path, "digest": f.sha256, "algorithm": "sha256"} for f in FILES.files],
        "serialization": {"method": "files"},
    }
    return Statement(b"", (), oms.URI, {**predicate, **changes})


CALLS: dict[Any, dict[str, Callable[[Any, Any], object]]] = {
    bundle: {
        "document: not a Sigstore bundle v0.3": lambda m, _: m.Bundle(b'{"mediaType":"x"}').document,
        "statement: bundle holds no in-toto envelope": lambda m, _: m.Bundle(enveloped(payloadType="x")).statement,
        "claimed_tree: the bundle holds no checkpoint": lambda m, _: m.Bundle(enveloped()).claimed_tree,
        "read: cannot read bundle …": lambda m, path: m.Bundle.read(path / "none"),
        "read: bundle … is …": lambda m, path: m.Bundle.read(_file(path, b"")),
        "unbase64: … is missing or not text": lambda m, _: m.unbase64(b"YQ==", "x"),
        "unbase64: … is not base64": lambda m, _: m.unbase64("a", "x"),
        "unbase64: … is not canonical base64": lambda m, _: m.unbase64("YR==", "x"),
    },
    canonical: {
        "parse: … is too large": lambda m, _: m.parse(b"[1,2,3]", what="x", limit=3),
        "parse: … is not strict JSON": lambda m, _: m.parse(b"{", what="x"),
        "dumps: value cannot be written as canonical JSON": lambda m, _: m.dumps({"a": float("nan")}),
        "_no_duplicates: duplicate key …": lambda m, _: m.parse(b'{"a":1,"a":2}', what="x"),
        "_no_constant: … is not a JSON number": lambda m, _: m.parse(b"[NaN]", what="x"),
    },
    statement: {
        "parse: statement has missing or unknown members": lambda m, _: m.parse(said(extra=1)),
        "parse: wrong statement type": lambda m, _: m.parse(said(_type="https://in-toto.io/Statement/v0.1")),
        "parse: predicate must be an object and predicateType a URI": lambda m, _: m.parse(said(predicateType="x")),
        "parse: predicate is too large": lambda m, _: m.parse(said(predicate={"a": "x" * 70_000})),
        "parse: two subjects share a name": lambda m, _: m.parse(said(subject=GOOD["subject"] * 2)),
        "signed_at: the annotation … is no time": lambda m, _: m.signed_at(m.parse(subject(annotations=SOMETIME))),
        "_nonempty_list: statement has no subject": lambda m, _: m.parse(said(subject=[])),
        "_subject: subject has missing or unknown members": lambda m, _: m.parse(subject(uri="x")),
        "_subject: subject needs a name and exactly one digest, sha256": lambda m, _: m.parse(
            subject(digest={"sha256": "ab" * 32, "md5": "ab" * 16})
        ),
        "_subject: subject digest is not 64 lower-case hex digits": lambda m, _: m.parse(
            subject(digest={"sha256": "AB" * 32})
        ),
    },
    beginning: {
        "full: … names no …": lambda m, _: m.full("ab", lambda _: ["ab" * 32]),
        "full: … is the beginning of … …": lambda m, _: m.full("ab" * 4, lambda _: ["ab" * 32, "ab" * 31 + "cd"]),
        "full: no … … begins with …": lambda m, _: m.full("ab" * 4, lambda _: []),
    },
    oms: {
        "make: an OMS signature covers a directory": lambda m, path: m.make(_measured(path)),
        "require_names: an OMS signature covers a directory": lambda m, _: m.require_names(signed(), None),
        "require_names: OMS predicate lacks resources or serialization": lambda m, _: m.require_names(
            signed(resources=None), FILES
        ),
        "require_names: the OMS signature leaves paths out": lambda m, _: m.require_names(
            signed(serialization={"ignore_paths": ["b"]}), FILES
        ),
        "require_names: files differ from the OMS signature": lambda m, _: m.require_names(
            signed(), Manifest((FileEntry("a", 1, "ab" * 32), FileEntry("c", 1, "cd" * 32)))
        ),
    },
}
NOT_READING = {"write_atomic: cannot write …"}  # a full disk; tests/unit/evidence have it
ROWS = [(module, where) for module, calls in CALLS.items() for where in calls]


def _file(path: Any, data: bytes) -> Any:
    (path / "file").write_bytes(data)
    return path / "file"


def _measured(path: Any) -> Measured:
    from mlseal.evidence.digest import measure

    return measure(_file(path, b"x"))


@pytest.mark.parametrize("module", CALLS, ids=lambda module: module.__name__)
def test_every_refusal_is_in_the_table(module: Any) -> None:
    assert set(names(module)) - NOT_READING == set(CALLS[module])


@pytest.mark.parametrize(("module", "where"), ROWS, ids=[where for _, where in ROWS])
def test_taking_a_refusal_out_lets_something_through(module: Any, where: str, tmp_path: Any) -> None:
    call = CALLS[module][where]
    with pytest.raises(Error) as refused:
        call(module, tmp_path)
    mutant = next(made for name, made in mutants(module) if name == where)
    try:
        call(mutant, tmp_path)
    except Exception as error:  # it stumbles: the refusal was what said why
        assert str(error) != str(refused.value)


def test_nothing_in_the_table_is_refused_for_another_reason() -> None:
    assert statement.parse(said()).subjects
    assert bundle.Bundle(enveloped()).statement.predicate_type == GOOD["predicateType"]
    oms.require_names(signed(), FILES)
