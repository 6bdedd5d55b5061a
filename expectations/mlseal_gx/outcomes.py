"""What Great Expectations found, read so that only what was judged and held counts as passed.

Great Expectations calls a suite without Expectations a success, leaves out an Expectation of a type that it does not
know with no more than a line in its log, and lets every Expectation about a column without any value pass. Here each
Expectation is built on its own, every one must have come back with a result, and one that judged nothing has failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlseal.errors import Misuse
from mlseal.evidence import canonical

_MARK = "mlsealPosition"
_LIMIT = 256 * 1024
_MOST = 300
_LONGEST = 150
"""So many names of so many characters keep a predicate under 64 kB."""
_SMALL_CELL = 10
_WITHOUT_RESULT = frozenset({"expect_column_to_exist"})
"""These say what they have to say by success alone."""
_COLUMNS = ("column", "column_A", "column_B", "column_list", "column_set")


@dataclass(frozen=True)
class Outcome:
    """One Expectation, judged.

    Attributes:
        name: position in the suite, type and columns, such as ``2 expect_column_values_to_not_be_null(age)``.
        verdict: whether it held; ``warned`` if it did not and the suite calls it no more than a warning.
        why: for a person who waits: counts and column names, never a value.
    """

    name: str
    verdict: Literal["passed", "warned", "failed"]
    why: str = ""


def suite_of(raw: bytes) -> tuple[str, list[dict[str, Any]]]:
    """Name and Expectations of a suite file as Great Expectations writes it.

    Raises `Misuse` for what is no suite, has no Expectation, or has one that cannot fail.
    """
    document = canonical.parse(raw, what="expectation suite", limit=_LIMIT)
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise Misuse("the suite has no name", expected='an object with "name" and "expectations"')
    listed = document.get("expectations")
    if not isinstance(listed, list) or not listed:
        raise Misuse(
            "the suite has no expectations",
            expected="at least one",
            remedy="a suite that judges nothing proves nothing",
        )
    if len(listed) > _MOST:
        raise Misuse("the suite is too long", got=len(listed), expected=f"at most {_MOST} expectations")
    for number, one in enumerate(listed, 1):
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not isinstance(one.get("kwargs"), dict):
            raise Misuse(f"expectation {number} of the suite has no type and kwargs")
        if one["kwargs"].get("mostly", 1) in (0, False):
            raise Misuse(f"expectation {number} of the suite can never fail", got="mostly 0")
    return document["name"], listed


def build(listed: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The Expectations as objects, in order. Raises `Misuse` for an unknown type or arguments that it does not take."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    made = []
    for number, one in enumerate(listed, 1):
        meta = {**(one.get("meta") or {}), _MARK: number}
        rest = {key: one[key] for key in ("severity", "notes", "description") if one.get(key) is not None}
        try:
            made.append(
                ExpectationConfiguration(type=one["type"], kwargs=one["kwargs"], meta=meta, **rest).to_domain_obj()
            )
        except Exception as error:
            # Whatever GX and its pydantic raise: the suite is the caller's, and an Expectation that cannot be built
            # must not be left out.
            raise Misuse(
                f"expectation {number} of the suite cannot be built",
                got=f"{one['type']}: {' '.join(str(error).split())[:300]}",
                remedy="correct the suite",
            ) from error
    return made


def judge(listed: Sequence[Mapping[str, Any]], results: Sequence[Any]) -> list[Outcome]:
    """One outcome for each Expectation of the suite, in order; one that came back without a result has failed."""
    by_position = {(result.expectation_config.meta or {}).get(_MARK): result for result in results}
    return [_outcome(number, one, by_position.get(number)) for number, one in enumerate(listed, 1)]


def _outcome(number: int, one: Mapping[str, Any], result: Any) -> Outcome:
    name = f"{number} {one['type']}({', '.join(_columns(one['kwargs']))})"[:_LONGEST]
    if result is None:
        return Outcome(name, "failed", "it has no result")
    if (raised := _raised(result.exception_info)) is not None:
        return Outcome(name, "failed", raised)
    if (nothing := _judged_nothing(one["type"], result.result)) is not None:
        return Outcome(name, "failed", nothing)
    if result.success is True:
        return Outcome(name, "passed")
    why = _counted(result.result.get("unexpected_count"), result.result.get("element_count"))
    return Outcome(name, "failed" if str(one.get("severity", "critical")) == "critical" else "warned", why)


def _counted(unexpected: int | None, of: int | None) -> str:
    if unexpected is None or of is None:
        return "it does not hold"
    return f"{unexpected if unexpected >= _SMALL_CELL else f'under {_SMALL_CELL}'} of {of} unexpected"


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[key] for key in _COLUMNS if key in kwargs]
    return [str(column) for one in named for column in (one if isinstance(one, list) else [one])]


def _raised(information: Any) -> str | None:
    """That something was raised; GX nests one record for each metric. The message stays here: it may quote a value."""
    if not isinstance(information, Mapping):
        return "it came back in an unknown form"
    records = [information] if "raised_exception" in information else list(information.values())
    if all(isinstance(record, Mapping) and record.get("raised_exception") is False for record in records):
        return None
    missing = any("does not exist" in str(record) for record in records)
    return "its column does not exist" if missing else "it could not be evaluated"


def _judged_nothing(kind: str, result: Mapping[str, Any]) -> str | None:
    if "element_count" in result:
        judged = (result["element_count"] or 0) - (result.get("missing_count") or 0)
        return None if judged > 0 else "it judged no value"
    if kind in _WITHOUT_RESULT:
        return None
    return "it judged no value" if result.get("observed_value") in (None, []) else None
