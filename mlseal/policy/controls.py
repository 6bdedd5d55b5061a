"""Negative controls: a policy proves that it refuses what it should.

A policy ships its tests under ``tests:`` or in files beside it (``NAME.tests/*.yaml`` for ``NAME.yaml``). Besides,
every test that expects *allowed* is varied without the author's help, and each variation must be stopped: without the
evidence for any one requirement, with that signed by a stranger, with a stale revocation snapshot, with a
withheld log leaf, with each decision of OPA false, and without its answer. Unless a test sets the clock (``at``),
every requirement is in force and no window is closed. A policy without a test that expects a stop is itself a failure.

What decisions of OPA answer, the tests say; or the servers themselves are asked about the imagined evidence, so that
these tests are tests of the Rego too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlseal.errors import MalformedEvidence, PolicyInvalid, Unchecked, Unreadable
from mlseal.evidence.clock import SKEW, rfc3339
from mlseal.evidence.identity import Identity
from mlseal.evidence.keyholder import KeyHolder, listed
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.revocation import Revocation, Revocations
from mlseal.policy import opa_answer, plainyaml, samples
from mlseal.policy.document import Document
from mlseal.policy.facts import Target
from mlseal.policy.gate import decide
from mlseal.policy.model import Policy, Requirement
from mlseal.policy.opa import Engines
from mlseal.policy.opa_answer import Said
from mlseal.policy.remedies import short_name
from mlseal.policy.samples import SampleFact, SampleSource
from mlseal.policy.schema import Assurance, Control, Controls, Opa, Sample
from mlseal.policy.verdict import Verdict

_STRANGER = Identity("https://stranger.example", "https://stranger.example/someone")


@dataclass(frozen=True)
class Imagined:
    """Decisions of OPA as a test says they come out: results by id; one that is not there gives no answer."""

    results: Mapping[str, Any]

    def ask(self, engine: Opa, document: Document) -> Said:
        """The imagined result, read as strictly as a server's."""
        del document
        if engine.id not in self.results:
            raise Unchecked(
                f"the test does not say what {engine.id} answers",
                expected=f"opa: {{{engine.id}: true}}",
                remedy="say it, or ask the server: mlseal policy test --ask-opa",
            )
        return opa_answer.of_result(self.results[engine.id])


@dataclass(frozen=True)
class _Without:
    """What `rest` answers, but for one decision: that one refuses, or gives no answer."""

    rest: Engines
    id: str
    allow: bool | None

    def ask(self, engine: Opa, document: Document) -> Said:
        if engine.id != self.id:
            return self.rest.ask(engine, document)
        return Imagined({} if self.allow is None else {self.id: self.allow}).ask(engine, document)


@dataclass(frozen=True)
class Outcome:
    """One test, run: what was expected, what came out, and whether that is right."""

    name: str
    expected: str
    verdict: Verdict
    passed: bool
    problem: str | None = None


def files_of(file: Path) -> list[Path]:
    """The files with tests beside the policy in `file`."""
    beside = file.with_suffix(".tests")
    return sorted([*beside.glob("*.yaml"), *beside.glob("*.yml")]) if beside.is_dir() else []


def tests_of(policy: Policy, file: Path) -> tuple[Control, ...]:
    """The tests in the policy and beside it. Raises `PolicyInvalid` if there are none that expect a stop."""
    found = list(policy.part.tests or ())
    beside = file.with_suffix(".tests")
    for path in files_of(file):
        found += _read(path)
    names = [control.name for control in found]
    if len(set(names)) != len(names):
        raise PolicyInvalid(f"{file}: two tests have one name", expected="each name once")
    if not any(control.expect != "allowed" for control in found):
        raise PolicyInvalid(
            f"{file} ships no negative control",
            expected="a test that expects refused or undecided",
            remedy="add one under tests: or in " + str(beside),
        )
    return tuple(found)


def run(
    policy: Policy, controls: tuple[Control, ...], *, now: datetime, engines: Engines | None = None
) -> Iterator[Outcome]:
    """Run every test and every variation of the tests that expect *allowed*; `engines` answer instead of the tests."""
    by_name = {control.name: control for control in controls}
    whole, then = _in_force(policy, now)
    for control in controls:
        judged, moment = (whole, then) if control.at is None else (policy, control.at)
        facts, source = _imagine(control, by_name, moment)
        answering = engines or Imagined(_answers_of(control, by_name))
        verdict = _judge(judged, source, moment, answering)
        yield _compare(control, verdict)
        if control.expect == "allowed" and verdict.kind == "allowed":
            yield from _variations(judged, control, facts, source, moment, answering)


def _in_force(policy: Policy, now: datetime) -> tuple[Policy, datetime]:
    """`policy` without its windows, and a moment from which all its requirements bind: what samples are judged by."""
    days = [requirement.part.effective_on for requirement in policy.require]
    return (
        replace(policy, part=policy.part.model_copy(update={"freeze": None})),
        max([now, *(day for day in days if day)]),
    )


def _compare(control: Control, verdict: Verdict) -> Outcome:
    problem = None
    stopping = {reason.rule for reason in verdict.reasons if reason.outcome != "note"}
    if verdict.kind != control.expect:
        problem = verdict.summary()
    elif control.rule is not None and control.rule not in stopping:
        problem = f"stopped by {', '.join(sorted(stopping)) or 'nothing'}, not by {control.rule}"
    return Outcome(control.name, control.expect, verdict, problem is None, problem)


def _variations(
    policy: Policy,
    control: Control,
    facts: Mapping[str, SampleFact],
    source: SampleSource,
    now: datetime,
    engines: Engines,
) -> Iterator[Outcome]:
    for wanted in policy.binding(now):
        own = [fact for fact in facts.values() if _answers(wanted, fact)]
        rest = tuple(fact for fact in facts.values() if fact not in own)
        foreign = tuple(replace(fact, identity=_STRANGER) if fact in own else fact for fact in facts.values())
        yield _stopped(policy, f"{control.name}, without {wanted.id}", replace(source, facts=rest), now, engines)
        yield _stopped(
            policy, f"{control.name}, {wanted.id} by a stranger", replace(source, facts=foreign), now, engines
        )
    stale = now - policy.revocation_max_age - SKEW - timedelta(seconds=1)
    old = replace(source, taken_back=replace(source.taken_back, snapshot_time=stale))
    yield _stopped(policy, f"{control.name}, revocations stale", old, now, engines)
    hidden = Leaf("log1.sample", 7, samples.digest("withheld"), _STRANGER)
    yield _stopped(policy, f"{control.name}, a log leaf withheld", replace(source, withheld=(hidden,)), now, engines)
    for engine in policy.engines:
        yield _stopped(
            policy, f"{control.name}, {engine.id} is false", source, now, _Without(engines, engine.id, False)
        )
        yield _stopped(
            policy, f"{control.name}, {engine.id} gives no answer", source, now, _Without(engines, engine.id, None)
        )


def _answers(wanted: Requirement, fact: SampleFact) -> bool:
    return fact.predicate_type == wanted.predicate_type and listed(wanted.by, fact.identity, fact.time)


def _stopped(policy: Policy, name: str, source: SampleSource, now: datetime, engines: Engines) -> Outcome:
    verdict = _judge(policy, source, now, engines)
    passed = verdict.kind != "allowed"
    return Outcome(name, "a stop", verdict, passed, None if passed else "allowed although it must not be")


def _judge(policy: Policy, source: SampleSource, now: datetime, engines: Engines) -> Verdict:
    return decide(source, Target("target", samples.digest("target")), None, (policy,), now=now, engines=engines)


def _answers_of(control: Control, by_name: Mapping[str, Control]) -> dict[str, Any]:
    """What the test says decisions of OPA answer: that of ``like`` first, then its own; `_collect` refuses circles."""
    beneath = {} if control.like is None else _answers_of(by_name[control.like], by_name)
    return {**beneath, **control.opa}


def _imagine(
    control: Control, by_name: Mapping[str, Control], now: datetime
) -> tuple[dict[str, SampleFact], SampleSource]:
    collected = _collect(control, by_name, ())
    facts: dict[str, SampleFact] = {}
    for name, sample in collected.items():
        who = sample.by.matcher
        identity = who.identity if isinstance(who, KeyHolder) else who
        if not isinstance(identity, Identity):
            raise PolicyInvalid(
                f"test {control.name!r}: {name} is signed by a whole domain or role", expected="one san"
            )
        body = _filled(sample.body, {key: fact.evidence_id for key, fact in facts.items()}, now)
        try:
            facts[name] = samples.make(
                sample.predicate,
                body,
                identity,
                now - sample.age,
                about=sample.about,
                now=now + timedelta(days=365),
                assurance=Assurance(identity="key") if isinstance(who, KeyHolder) else None,
                salt=name,
            )
        except MalformedEvidence as error:
            raise PolicyInvalid(f"test {control.name!r}: {name}: {error.message}", got=error.got) from error
    unknown = set(control.revoked) - set(facts)
    if unknown:
        raise PolicyInvalid(f"test {control.name!r} revokes {min(unknown)}, which it does not have")
    revoked = {
        facts[name].evidence_id: Revocation(facts[name].evidence_id, reason, "test")
        for name, reason in control.revoked.items()
    }
    taken_back = Revocations(revoked, now - control.snapshot_age, now + timedelta(days=1))
    return facts, SampleSource(tuple(facts.values()), taken_back)


def _collect(control: Control, by_name: Mapping[str, Control], seen: tuple[str, ...]) -> dict[str, Sample]:
    """The samples of a test: those of ``like`` first, then its own, then the changes."""
    found: dict[str, Sample] = {}
    if control.like is not None:
        if control.like not in by_name or control.like in (*seen, control.name):
            raise PolicyInvalid(
                f"test {control.name!r} is like {control.like!r}, which does not exist or comes back to it"
            )
        found = _collect(by_name[control.like], by_name, (*seen, control.name))
    for sample in control.evidence:
        name = sample.id or short_name(sample.predicate)
        if name in found and control.like is None:
            raise PolicyInvalid(f"test {control.name!r}: two samples are called {name}", remedy="give each an id")
        found[name] = sample
    touched = {*control.without, *control.signer, *control.ages, *(path.partition(".")[0] for path in control.set)}
    if touched - set(found):
        raise PolicyInvalid(f"test {control.name!r} changes {min(touched - set(found))}, which it does not have")
    return {name: _changed(control, name, sample) for name, sample in found.items() if name not in control.without}


def _changed(control: Control, name: str, sample: Sample) -> Sample:
    body = copy.deepcopy(sample.body)
    for path, value in control.set.items():
        first, _, rest = path.partition(".")
        if first == name:
            _put(body, rest.split("."), value, f"test {control.name!r}: {path}")
    changes: dict[str, Any] = {"body": body}
    if name in control.signer:
        changes["by"] = control.signer[name]
    if name in control.ages:
        changes["age"] = control.ages[name]
    return sample.model_copy(update=changes)


def _put(body: Any, steps: list[str], value: object, what: str) -> None:
    try:
        for step in steps[:-1]:
            body = body[int(step)] if isinstance(body, list) else body[step]
        if isinstance(body, list):
            body[int(steps[-1])] = value
        else:
            body[steps[-1]] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise PolicyInvalid(f"{what} is no place in the sample", got=str(error)) from error


def _filled(value: Any, ids: Mapping[str, str], now: datetime) -> Any:
    """`value` with ``{sha256:NAME}``, ``{evidence:ID}`` and ``{now+365d}`` replaced."""
    if isinstance(value, dict):
        return {key: _filled(item, ids, now) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, ids, now) for item in value]
    if not isinstance(value, str) or not value.startswith("{") or not value.endswith("}"):
        return value
    kind, _, name = value[1:-1].partition(":")
    if kind == "sha256":
        return samples.digest(name)
    if kind == "evidence" and name in ids:
        return ids[name]
    if kind == "now" and name.removeprefix("-").isdecimal():
        return rfc3339(now + timedelta(days=int(name)))
    raise PolicyInvalid(
        f"a test uses {value}", expected="{sha256:NAME}, {evidence:ID of an earlier sample} or {now:DAYS}"
    )


def _read(path: Path) -> list[Control]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror) from error
    document = plainyaml.parse(raw, str(path))
    try:
        return list(Controls.model_validate(document.value).tests)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PolicyInvalid(
            f"{path} line {document.line(tuple(first['loc']))}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
