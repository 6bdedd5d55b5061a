"""What an OPA server may answer: true, false, or reasons; whatever else comes back does not count, and says why."""

from __future__ import annotations

import json

import pytest

from mlseal.errors import Unchecked
from mlseal.evidence.signing.transport import Response
from mlseal.policy import opa_answer
from mlseal.policy.schema import Opa

PLAIN = {"server": "http://127.0.0.1:8181", "decision": "mlseal/gate/allow"}
PINNED = {**PLAIN, "revision": "r1"}
NAMED = {**PINNED, "bundle": "gate"}


def read(body: object, *, status: int = 200, engine: dict[str, str] = PLAIN) -> opa_answer.Said:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return opa_answer.read(Opa.model_validate(engine), Response(status, raw))


COUNTS = {
    "true": ({"result": True}, (True, ())),
    "false": ({"result": False}, (False, ())),
    "an object": ({"result": {"allow": True, "reasons": []}}, (True, ())),
    "an object without reasons": ({"result": {"allow": False}}, (False, ())),
    "reasons": ({"result": {"allow": False, "reasons": ["a", "zu groß"]}}, (False, ("a", "zu groß"))),
    "members that OPA may add": ({"result": True, "metrics": {}, "warning": {"code": "x"}}, (True, ())),
}


@pytest.mark.parametrize(("body", "wanted"), COUNTS.values(), ids=COUNTS.keys())
def test_what_counts(body: object, wanted: tuple[bool, tuple[str, ...]]) -> None:
    said = read(body)
    assert (said.allow, said.reasons) == wanted


DEEP = b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
COUNTS_NOT = {
    "undefined": ({}, "undefined"),
    "undefined with an id": ({"decision_id": "1"}, "undefined"),
    "null": ({"result": None}, "another shape"),
    "one": ({"result": 1}, "another shape"),
    "a text": ({"result": "true"}, "another shape"),
    "a list": ({"result": [True]}, "another shape"),
    "a set of reasons": ({"result": []}, "another shape"),
    "an empty object": ({"result": {}}, "another shape"),
    "a whole package": ({"result": {"allow": True, "deny": ["x"]}}, "another shape"),
    "allow as one": ({"result": {"allow": 1}}, "no boolean"),
    "allow as text": ({"result": {"allow": "true"}}, "no boolean"),
    "allow as null": ({"result": {"allow": None, "reasons": []}}, "no boolean"),
    "reasons as text": ({"result": {"allow": False, "reasons": "no"}}, "no list"),
    "reasons as numbers": ({"result": {"allow": False, "reasons": [1]}}, "no list"),
    "reasons as null": ({"result": {"allow": True, "reasons": None}}, "no list"),
    "an empty reason": ({"result": {"allow": False, "reasons": [""]}}, "no list"),
    "a reason that writes on the terminal": ({"result": {"allow": False, "reasons": ["\x1b[2J"]}}, "no list"),
    "a reason over lines": ({"result": {"allow": False, "reasons": ["a\nALLOWED"]}}, "no list"),
    "a long reason": ({"result": {"allow": False, "reasons": ["x" * 501]}}, "no list"),
    "many reasons": ({"result": {"allow": False, "reasons": ["x"] * 51}}, "no list"),
    "a member that writes on the terminal": (b'{"result": {"\\u001b[2JALLOWED": 1}}', "another shape"),
    "a member that no log could hold": (b'{"result": {"\\ud800": 1}}', "another shape"),
    "a member beyond ASCII": ({"result": {"zu groß": 1}}, "another shape"),
    "a key twice that writes on the terminal": ('{"\\u001b[2Jß": 1, "\\u001b[2Jß": 1}'.encode(), "duplicate key"),
    "allowed with a reason against": ({"result": {"allow": True, "reasons": ["but"]}}, "gives reasons against"),
    "an id that is no text": ({"result": True, "decision_id": 7}, "decision_id"),
    "two results": (b'{"result": false, "result": true}', "duplicate key"),
    "two allows": (b'{"result": {"allow": false, "allow": true}}', "duplicate key"),
    "NaN": (b'{"result": true, "metrics": {"x": NaN}}', "not strict JSON"),
    "cut off": (b'{"result": true', "not strict JSON"),
    "something after it": (b'{"result": true} {"result": false}', "not strict JSON"),
    "nothing": (b"", "not strict JSON"),
    "no UTF-8": (b'{"result": true, "x": "\xff"}', "not strict JSON"),
    "HTML": (b"<html>sign in</html>", "not strict JSON"),
    "a bare true": (b"true", "no object"),
    "a list around it": (b'[{"result": true}]', "no object"),
    "very deep": (DEEP, "not strict JSON"),
    "very long": (b'{"result": true, "x": "' + b"x" * opa_answer.LARGEST + b'"}', "too large"),
}


@pytest.mark.parametrize(("body", "said"), COUNTS_NOT.values(), ids=COUNTS_NOT.keys())
def test_what_does_not_count(body: object, said: str) -> None:
    with pytest.raises(Unchecked) as caught:
        read(body)
    assert said in str(caught.value)
    assert caught.value.got
    assert str(caught.value).isascii()  # what a server says is shown escaped
    assert str(caught.value).isprintable()
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 403, 404, 500, 503])
def test_only_200_counts(status: int) -> None:
    with pytest.raises(Unchecked, match=f"status {status}") as caught:
        read({"result": True}, status=status)
    assert ("redirect" in caught.value.message) is (300 <= status < 400)


def test_the_code_of_an_error_is_told() -> None:
    with pytest.raises(Unchecked, match="status 500, internal_error"):
        read({"code": "internal_error", "message": "error(s) occurred"}, status=500)
    for body in (b"<html>", {"code": "\x1b[2J"}, {"code": "größer"}, {"code": 7}):
        with pytest.raises(Unchecked, match=r"status 500;"):
            read(body, status=500)


def bundles(**revisions: object) -> dict[str, object]:
    return {"bundles": {name: {"revision": revision} for name, revision in revisions.items()}}


REVISIONS = {
    "the one": (PINNED, bundles(gate="r1"), True),
    "without bundles": (PINNED, {"version": "1.20.2", "revision": "r1"}, True),
    "by name": (NAMED, bundles(gate="r1", other="r9"), True),
    "another": (PINNED, bundles(gate="r2"), False),
    "one that begins so": (PINNED, bundles(gate="r12"), False),
    "upper case": (PINNED, bundles(gate="R1"), False),
    "of another bundle": (NAMED, bundles(gate="r2", other="r1"), False),
    "several, none named": (PINNED, bundles(gate="r1", other="r1"), False),
    "a bundle without revision": (PINNED, {"bundles": {"gate": {}}}, False),
    "another name": (NAMED, bundles(other="r1"), False),
    "a bundle and the old way": (PINNED, {**bundles(gate="r2"), "revision": "r1"}, False),
    "as a number": (PINNED, bundles(gate=1), False),
    "none": (PINNED, {"version": "1.20.2"}, False),
    "no provenance": (PINNED, None, False),
    "a text": (PINNED, "r1", False),
    "not demanded": (PLAIN, None, True),
}


@pytest.mark.parametrize(("engine", "provenance", "counts"), REVISIONS.values(), ids=REVISIONS.keys())
def test_the_revision_that_decided_is_the_one_that_was_pinned(
    engine: dict[str, str], provenance: object, counts: bool
) -> None:
    body = {"result": True, **({} if provenance is None else {"provenance": provenance})}
    if counts:
        assert read(body, engine=engine).revision == engine.get("revision")
        return
    with pytest.raises(Unchecked, match="does not count") as caught:
        read(body, engine=engine)
    assert "r1" in str(caught.value.expected)


def test_a_revision_that_nobody_demands_is_told_all_the_same() -> None:
    assert read({"result": True, "provenance": bundles(gate="r7")}).revision == "r7"
    assert read({"result": True, "decision_id": "4ca6"}).decision_id == "4ca6"
