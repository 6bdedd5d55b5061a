"""What an OPA server answered, read strictly: true, false with reasons, or nothing that counts.

OPA's REST API says 200 for an undefined decision and leaves ``result`` out; a rule that does not fire and a path that
nobody wrote look alike. So only two shapes count: a boolean, or ``{"allow": boolean, "reasons": [text]}``. Whatever
else comes back raises `Unchecked` with one sentence: a status other than 200, an answer that is not strict JSON, a
result of another type, a bundle of another revision. What the server sent stands in it short and escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlseal.errors import MalformedEvidence, Unchecked
from mlseal.evidence import canonical
from mlseal.evidence.signing.transport import Response
from mlseal.policy.schema import Opa

LARGEST = 256 * 1024
"""Bytes of an answer."""
_REASONS, _LONGEST = 50, 500
_SHAPE = 'true, false or {"allow": boolean, "reasons": [text]}'
_MEMBERS = {"allow", "reasons"}
_OK, _REDIRECT = 200, range(300, 400)


@dataclass(frozen=True)
class Said:
    """An answer that counts: `allow`, why not, and what the server says of itself."""

    allow: bool
    reasons: tuple[str, ...] = ()
    revision: str | None = None
    decision_id: str | None = None


def read(engine: Opa, response: Response) -> Said:
    """The answer of `engine` in `response`. Raises `Unchecked` for everything that does not count."""
    if response.status in _REDIRECT:
        raise _not_understood(
            "it redirects, which is not followed", f"status {response.status}", "name the server itself in the policy"
        )
    if response.status != _OK:
        raise _not_understood("it could not decide", f"status {response.status}{_code(response.body)}", _LOG)
    answer = _parsed(response.body)
    revision = _revision(engine, answer.get("provenance"))
    if "result" not in answer:
        raise Unchecked(
            f"the answer of OPA does not count: {engine.decision} is undefined",
            got="no result",
            expected=_SHAPE,
            remedy="correct the path, or give the rule a default in Rego: default allow := false",
        )
    decision_id = answer.get("decision_id")
    if decision_id is not None and not _is_words(decision_id):
        raise _not_understood("its decision_id is no text", _shown(decision_id), _LOG)
    said = of_result(answer["result"])
    return Said(said.allow, said.reasons, revision, decision_id)


def of_result(result: object) -> Said:
    """A ``result`` as an answer. Raises `Unchecked` unless it has one of the two shapes."""
    if isinstance(result, bool):
        return Said(result)
    if not isinstance(result, dict) or "allow" not in result or not set(result) <= _MEMBERS:
        got = f"members {_shown(sorted(result))}" if isinstance(result, dict) else type(result).__name__
        raise _not_understood("its result has another shape", got, "let the rule give one of these")
    allow, reasons = result["allow"], result.get("reasons", [])
    if not isinstance(allow, bool):
        raise _not_understood("'allow' is no boolean", _shown(allow), "let the rule give one of these")
    if not isinstance(reasons, list) or len(reasons) > _REASONS or not all(map(_is_words, reasons)):
        raise _not_understood(
            "'reasons' is no list of short printable texts",
            _shown(reasons),
            f"let it give at most {_REASONS} texts of at most {_LONGEST} characters",
        )
    if allow and reasons:
        raise _not_understood("it allows, and gives reasons against", _shown(reasons), "let allow follow from reasons")
    return Said(allow, tuple(reasons))


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = canonical.parse(body, what="the answer", limit=LARGEST)
    except MalformedEvidence as error:
        raise _not_understood(error.message, _shown(error.got), _LOG) from error
    if not isinstance(answer, dict):
        raise _not_understood("the answer is no object", type(answer).__name__, _LOG)
    return answer


def _revision(engine: Opa, provenance: object) -> str | None:
    """The revision of the bundle that decided, by the server's own word; what the policy pins must be it."""
    found = _revisions(provenance)
    if engine.revision is None:
        return next(iter(found.values())) if len(found) == 1 else None
    if engine.bundle is None and len(found) > 1:
        raise Unchecked(
            "the answer of OPA does not count: it has several bundles, and the policy does not say which is meant",
            got=_shown(sorted(found)),
            expected=f"one bundle, of revision {engine.revision}",
            remedy="name it in the policy: bundle: NAME",
        )
    got = found.get(engine.bundle) if engine.bundle is not None else next(iter(found.values()), None)
    if got != engine.revision:
        raise Unchecked(
            "the answer of OPA does not count: another revision of its bundle decided",
            got=_shown(got) if got else "no revision",
            expected=engine.revision,
            remedy="let the server load that bundle, or release a policy that names the new one",
        )
    return got


def _revisions(provenance: object) -> dict[str, str]:
    """Bundle → revision; a server without configured bundles names one revision without a bundle."""
    if not isinstance(provenance, dict):
        return {}
    bundles = provenance.get("bundles")
    if isinstance(bundles, dict) and bundles:
        named = {name: bundle.get("revision") if isinstance(bundle, dict) else None for name, bundle in bundles.items()}
    else:
        named = {"": provenance.get("revision")}
    return {name: revision if _is_words(revision) else "" for name, revision in named.items() if revision is not None}


def _code(body: bytes) -> str:
    """The code of OPA's error object, if the body is one."""
    try:
        code = _parsed(body).get("code")
    except Unchecked:
        return ""
    return f", {code[:60]}" if isinstance(code, str) and code.isascii() and code.isprintable() else ""


def _shown(value: object) -> str:
    """`value` as ASCII that neither writes on a terminal nor breaks a log, and not much of it."""
    return ascii(value)[:80]


def _is_words(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


_LOG = "look at the server's own log, and whether this is an OPA server"


def _not_understood(message: str, got: str, remedy: str) -> Unchecked:
    return Unchecked(f"the answer of OPA does not count: {message}", got=got, expected=_SHAPE, remedy=remedy)
