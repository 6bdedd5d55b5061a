"""Take each check of the policy code out once: some test of this directory must then fail.

A mutant is one line of source changed so that a check is gone. It is loaded as a second copy of the whole package, and
the test functions beside this file are called against that copy, in this process. A mutant that nothing notices is a
check that is dead or untested. Left out are checks that stand twice on purpose: an alias cannot exist without an anchor
and the composer refuses a second document itself; an approval that says no is refused as a rejection first; what CEL
calls an error is not BOOL either.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

import mlseal.policy

HERE = Path(__file__).parent
PACKAGE = Path(mlseal.policy.__file__).parent

MUTANTS: dict[str, list[tuple[str, str]]] = {
    "case": [
        ("else identity.san.casefold()", "else identity.san"),
        ("last if PSEUDONYM.fullmatch(last) else identity.san.casefold()", "identity.san.casefold()"),
        ("return any(matcher.matches(identity) for matcher in self.gate)", "return False"),
        (
            'if not (self.revoked(fact) == "superseded" and self._has_successor(fact, facts))',
            'if not self.revoked(fact) == "superseded"',
        ),
        ("other.time > fact.time and self.revoked(other) is None", "other.time > fact.time"),
        ("other.time > fact.time and self.revoked(other) is None", "self.revoked(other) is None"),
        ("return found.reason if found else None", "return None"),
        ("return fact.time > self.now + SKEW", "return False"),
        ("self.now - fact.time > max_age + SKEW", "self.now - fact.time > max_age"),
        ("return max_age is not None and", "return False and"),
        ("return parse_rfc3339(moment) <= self.now", "return False"),
        ('return ", ".join(low) or None', "return None"),
        ("{person(who) for kind", "{(who.issuer, who.san) for kind"),
        ("for kind in TRAINING for", "for kind in TRAINING[:1] for"),
        ("for kind in TRAINING for", "for kind in TRAINING[1:] for"),
        ("for rejected in found.rejected:", "for rejected in ():"),
        ('outcome="refused" if isinstance(error, Refusal) else "undecided"', 'outcome="note"'),
        ("other.time > fact.time and", "other.time >= fact.time and"),
        ("if level in levels else -1", "if level in levels else 99"),
        ("            self.look_at(own)", "            pass"),
        (
            '                expected="another identity",\n                remedy=remedy,',
            "                expected='',",
        ),
    ],
    "rule": [
        ("if found.holds is not True]", "if found.holds is False]"),
        ("for fact in facts]\n            bad", "for fact in facts[-1:]]\n            bad"),
        ("for fact in facts]\n            bad", "for fact in facts[:1]]\n            bad"),
        ("if not inputs:", "if False:"),
        ("if not target.sha256:", "if False:"),
        ("if person(fact.identity) in trainers:", "if False:"),
        ("if not trainers and self.requirement.part.of is None:", "if False:"),
        ("if claimed not in _STRENGTHS or", "if False and"),
        ("if (reason := self.case.revoked(fact)) is not None:", "if False:"),
        ("if self.case.is_future(fact):", "if False:"),
        ("if self.case.is_older(fact, part.max_age):", "if False:"),
        ("if low := shortfall(fact, self.case.policy.assurance_of(self.requirement)):", "if False:"),
        ("                self._missing(found)", "                pass"),
        ("elif found.holds:", "elif True:"),
        ("if found.holds is None:", "if False:"),
        ("if found.others:", "if False:"),
        ("rule.waivable and waiver.excuse(", "waiver.excuse("),
        ("(), due=self.requirement.by):", "()):"),
        ("return (case.target,)", "return (Target('x', '0'),)"),
        ("if not closed and waiver.excuse(", "if waiver.excuse("),
        ("if not closed and waiver.excuse(", "if False and waiver.excuse("),
        ("self.target, {fact.identity for fact in sound}\n", "self.target, ()\n"),
        ("        self.case.look_at(found.facts)", "        pass"),
        ("        self.case.weigh(facts, wanted.id)", "        pass"),
        ("        self.case.weigh(facts, wanted.id)", "        self.case.weigh(facts)"),
        ("            remedy=self._remedy(rule, fact, of),", "            remedy=None,"),
        ("                remedy=self._command,\n            )\n        return []", "            )\n        return []"),
        ("                remedy=self._command,\n            )\n        else:", "            )\n        else:"),
        ('{expected}",\n                remedy=self._command,', '{expected}",'),
        ('by digest",\n            remedy=remedy,', 'by digest",'),
        ('cannot be followed",\n                remedy=remedy,', 'cannot be followed",'),
        ('remedy=f"{self._command}; then', 'remedy=None and f"{self._command}; then'),
        ("        if of > 1:", "        if False:"),
        ("        if rule.waivable and policy.waivers:", "        if False:"),
        ("None if self.target is self.case.target else self.target", "None"),
    ],
    "approval": [
        ("len({person(fact.identity) for fact in good}) >= wanted", "len(good) >= wanted"),
        ("        _refuse_rejections(case, requirement, facts)", "        pass"),
        ("if (reason := case.revoked(fact)) is not None:", "if False:"),
        ("if case.has_ended(claim.expires) or", "if False or"),
        ("if case.is_future(fact):", "if False:"),
        ("if low := shortfall(", "if False and shortfall("),
        ("if person(fact.identity) in excluded:", "if False:"),
        ("if person(fact.identity) in _authors(case):", "if False:"),
        ("if requirement.part.reviewed and unread:", "if False:"),
        ("        if found.holds is not True:", "        if False:"),
        ("        if not people:", "        if False:"),
        (" | case.trainers(case.target)", ""),
        ("or case.is_older(fact, requirement.part.max_age)", ""),
        ("        case.look_at(found.facts)", "        pass"),
        ("        case.weigh(facts, requirement.id)", "        pass"),
        ("        case.weigh(facts, requirement.id)", "        case.weigh(facts)"),
        ("return not taken_back and waiver.excuse(", "return waiver.excuse("),
        ("control=requirement.control,\n            remedy=asked,", "control=requirement.control,"),
        ("        remedy=asked,\n        control", "        control"),
        ("and not case.has_ended(claim.expires)\n", "\n"),
    ],
    "waiver": [
        ("or claim.rule != rule", ""),
        ("or claim.policy != case.policy.stating(rule)", ""),
        ("if case.has_ended(claim.expires):", "if False:"),
        ("if case.is_future(fact):", "if False:"),
        ("if (reason := case.revoked(fact)) is not None:", "if False:"),
        ("if low := shortfall(", "if False and shortfall("),
        ("if person(fact.identity) in makers:", "if False:"),
        ("if person(fact.identity) in makers:", "if (fact.identity.issuer, fact.identity.san) in makers:"),
        (" | case.trainers(target)", ""),
        ("for maker in producers}", "for maker in ()}"),
        ("        case.look_at([fact])", "        pass"),
        ("        case.weigh([fact])\n        case.say", "        case.say"),
        ("case.policy.waivers", "(fact_identity_anyone,)"),
        ("if obstacle is None and any(matcher.matches(fact.identity) for matcher in due):", "if False:"),
        ("    if not claim.reason.strip():", "    if False:"),
        ("    if not claim.reason.strip():", "    if not claim.reason:"),
        ("if parse_rfc3339(claim.expires) > fact.time + LONGEST:", "if False:"),
        ("> fact.time + LONGEST:", ">= fact.time + LONGEST:"),
    ],
    "roles": [
        ("or case.has_ended(claim.expires)", ""),
        ("or case.revoked(fact) is not None", ""),
        ("if case.is_future(fact) or shortfall(", "if shortfall("),
        ("if case.is_future(fact) or shortfall(fact, case.policy.part.assurance)", "if case.is_future(fact)"),
        ("(case.target, *(t for t in inputs_of(evidence) if t.sha256))", "(case.target,)"),
        ("            case.look_at([fact])", "            pass"),
        ("            case.weigh([fact])", "            pass"),
    ],
    "gate": [
        ("except ValueError as error:", "except ZeroDivisionError as error:"),
        ("if not any(policy.binding(now) for policy in matching):", "if False:"),
        ("if not any(policy.binding(now) for policy in matching):", "if not any(p.require for p in matching):"),
        ("        if policy.binding(now):  # what", "        if True:  # what"),
        ("        if policy.binding(now):  # what", "        if False:  # what"),
        ("return stopping + [policy for policy, _ in frozen]", "return stopping"),
        ("any(not policy.observes(now) for policy in _stopping(cases, frozen))", "False"),
        ("any(not policy.observes(now) for policy in _stopping(cases, frozen))", "bool(_stopping(cases, frozen))"),
        ("reasons = [reason for _, reason in frozen] + [", "reasons = ["),
        ("_verdict([*closed, note]", "_verdict([note]"),
        ("[*closed, reason, *waiting]", "[reason, *waiting]"),
        ("[*closed, reason, *waiting]", "[*closed, reason]"),
        ("for policy, _ in (*exempt, *frozen))", "for policy, _ in exempt)"),
        ("bool(frozen) and all(policy.observes(now) for policy, _ in frozen)", "bool(frozen)"),
        ("bool(frozen) and all(policy.observes(now) for policy, _ in frozen)", "False"),
        ("if p in matching or p in [policy for policy, _ in frozen]", "if p in matching"),
        ("_require_complete(case)  # (3)", "pass"),
        ("elsewhere = case.source.elsewhere() if withheld else None", "elsewhere = case.source.elsewhere()"),
        ("    if elsewhere is not None:  # taking", "    if False:  # taking"),
        ("_require_fresh_revocations(case)  # (4)", "pass"),
        ("    if not case.policy.revokers:", "    if False:"),  # the same outcome, but then nobody is told why
        ('Refused if "refused" in outcomes else Undecided', "Undecided"),
        ('Undecided if "undecided" in outcomes else Allowed', "Allowed"),
        ("bool(stopping) and all(", "bool(stopping) and any("),
        ("governing(policies, facts if action else None)  # (2)", "tuple(policies)"),
        ("action is not None and (who := policy.exempts(facts, now))", "(who := 'x')"),
        ('"refused" if outcome == "refused" else "undecided"', '"note"'),
        (
            "return _verdict([reason], [], (), policies, source.tree_size, action, now, observing=False)\n    policies = with_layers",
            "return _verdict([reason], [], (), (), source.tree_size, action, now, observing=False)\n    policies = with_layers",
        ),
        (
            "[*closed, reason, *waiting], [], (), policies, source",
            "[*closed, reason, *waiting], [], (), (), source",
        ),
        ('error.remedy or "find', 'error.remedy and "find'),
        ("remedy=hints.govern(", "remedy=None and hints.govern("),
        ("governing = _matching(policies, action)", "governing = policies"),
        ("        _ask(case, answering, stopped=stopped)  # (6)", "        pass"),
        ("    if not case.policy.binding(case.now):  # what is not in force yet stops nothing\n        return\n", ""),
        ("revocations, gate, hints, action=facts)", "revocations, gate, hints)"),
        ("        asked=asked,\n", ""),
        ("answering = engines or Servers()", "answering = Servers()"),
    ],
    "dates": [
        ('                "refused",', '                "note",'),
        ("    if requirement.binds(case.now):", "    if True:"),
        ("    case.look_at(aside.seen.values())", "    pass"),
        ("reasons=[], support", "reasons=case.reasons, support"),
        ("    case.reasons += coming(case.policy, requirement)", "    pass"),
        ('message=f"not yet asked, and open: {reason.message}", outcome="note"', 'message="x", outcome="note"'),
    ],
    "verdict": [
        ("    if verdict.passes:\n        return", "    return"),
        ("if verdict.subjects and {", "if False and {"),
        ('verification_result="PASSED" if allowed else "FAILED"', 'verification_result="PASSED"'),
        ('self.kind == "allowed" or self.mode == "observe"', "True"),
        ("            mode=verdict.mode,", '            mode="enforce",'),
        ("            assurance=dict(verdict.assurance),", "            assurance={},"),
        ("(r.policy, r.rule) in asked else r", "False else r"),
        ("(r.policy, r.rule) in asked else r", '(r.policy, r.rule) in asked and r.outcome == "refused" else r'),
        ('said if reason.outcome == "refused" else reason.message, got=None', "said"),
        ('said if reason.outcome == "refused" else reason.message', "reason.message"),
        ("            opa=[slsa_vsa.Asked.model_validate(one.to_dict()) for one in verdict.asked] or None,\n", ""),
        (
            "            for i in verdict.inputs\n        ],\n        verification",
            "            for i in verdict.inputs[:1]\n        ],\n        verification",
        ),
    ],
    "remedies": [
        ("--script SCRIPT --data DATA --out NEW", "--script SCRIPT --data DATA --out {path}"),
        ('"slsa-provenance": ", then judge NEW"', '"slsa-provenance": ""'),
        ("if name in asked]", "]"),
        ("([] if asked or short in _OPEN else list(stages))", "list(stages)"),
        ("([] if asked or short in _OPEN", "([] if asked"),
        ('if "." in name}', "}"),
        ("_KINDS.get(name, name)", "name"),
        ('return "DATASET", f"', 'return shlex.quote(self.path), f"'),
        ("(sha256 {target.sha256})", "(unknown)"),
        ("if requirement.part.remedy is not None:", "if False:"),
        ('return shlex.quote(self.path), ""', 'return self.path, ""'),
    ],
    "names": [
        ("not name.isascii() or", ""),
        ("or name != name.strip()", ""),
        (".casefold()", ""),
        ("if key in facts else absent", "if key in facts else not absent"),
    ],
    "model": [
        ("if now < entry.until and", "if"),
        (
            "return self.part.observe is not None and now < self.part.observe.until",
            "return self.part.observe is not None",
        ),
        ("facts, absent=True) for entry", "facts, absent=False) for entry"),
        ("facts, absent=True):", "facts, absent=False):"),
        ("entry.since <= now <", "entry.since < now <"),
        (
            "now < entry.until and matches(patterns(entry), facts, absent=True)",
            "matches(patterns(entry), facts, absent=True)",
        ),
        ("self.part.effective_on <= now", "self.part.effective_on < now"),
        ("if requirement.binds(now))", "if True)"),
        ("return stated.get(rule) or self.name", "return self.name"),
        ("absent=False", "absent=True"),
        ("requirement.part.assurance or self.part.assurance", "self.part.assurance"),
        ("frozenset({*TRAINING, fairness.URI})", "frozenset(TRAINING)"),
        ("frozenset({*TRAINING, fairness.URI})", "frozenset({TRAINING[0], fairness.URI})"),
    ],
    "guards": [
        ('    if node.name == "_&&_":', '    if node.name in {"_&&_", "_||_"}:'),
        ('"_>_": 0, "_>=_": 1, "_!=_": 0', '"_>_": -1, "_>=_": 1, "_!=_": 0'),
        ('"_>_": 0, "_>=_": 1, "_!=_": 0', '"_>_": 0, "_>=_": 0, "_!=_": 0'),
        ('bound == 0 if node.name == "_!=_" else bound >= least', "bound >= least"),
        ("return known_false(node.args[0])", "return known_true(node.args[0])"),
        (
            '    if node.kind == "call" and node.name == "_||_":',
            '    if node.kind == "call" and node.name in {"_||_", "_&&_"}:',
        ),
        (
            'if node.kind == "call" and node.name == "!_":\n        return known_true',
            'if node.kind == "call" and node.name == "!_":\n        return known_false',
        ),
    ],
    "shape": [
        ('frozenset({"number", "time", "duration"})', 'frozenset({"number", "time", "duration", "text"})'),
        ('nonempty=schema.get("minItems", 0) > 0', "nonempty=True"),
        ('choices=frozenset(schema.get("enum", ()))', "choices=frozenset()"),
        ('any(o.get("type") == "null" for o in part.get("anyOf", ()))', "False"),
        (
            "    if isinstance(value, bool):\n        return BOOL",
            "    if isinstance(value, bool):\n        return NUMBER",
        ),
    ],
    "syntax": [
        (
            '        raise PolicyInvalid(\n            "a condition may loop only by',
            '        inner = step; PolicyInvalid(\n            "a condition may loop only by',
        ),
        (
            '    raise PolicyInvalid("a condition may not build maps',
            '    return _make("const", wire); PolicyInvalid("a condition may not build maps',
        ),
        ("and _keeps(step.args[1], variable)", ""),
        ('"has" if fields.get(3) else "select"', '"select"'),
        ('if step.name == "_&&_" and start.value is True:', 'if step.name == "_||_" and start.value is False:'),
    ],
    "controls": [
        ("    if verdict.kind != control.expect:", "    if False:"),
        ("    elif control.rule is not None and control.rule not in stopping:", "    elif False:"),
        ('    if not any(control.expect != "allowed" for control in found):', "    if False:"),
        ("    if len(set(names)) != len(names):", "    if False:"),
        ('    passed = verdict.kind != "allowed"', "    passed = True"),
        ("    if unknown:", "    if False:"),
        ("if control.at is None else (policy, control.at)", "if True else ()"),
        ("for wanted in policy.binding(now):", "for wanted in ():"),
        ("(whole, then) if control.at is None", "(policy, now) if control.at is None"),
        ("    if touched - set(found):", "    if False:"),
        ("        if name in found and control.like is None:", "        if False:"),
        ("        if control.like not in by_name or", "        if"),
        ("and listed(wanted.by, fact.identity, fact.time)", ""),
        ("fact.predicate_type == wanted.predicate_type and listed", "listed"),
        ("replace(fact, identity=_STRANGER) if fact in own else fact", "fact"),
        ("replace(source, facts=rest)", "source"),
        ("replace(source.taken_back, snapshot_time=stale)", "source.taken_back"),
        ("replace(source, withheld=(hidden,))", "source"),
        ("    for engine in policy.engines:", "    for engine in ():"),
        ("{**beneath, **control.opa}", "dict(control.opa)"),
        ("        if engine.id not in self.results:", "        if False:"),
        ("answering = engines or Imagined(", "answering = Imagined("),
        ("        if engine.id != self.id:", "        if True:"),
    ],
    "samples": [
        ("if keyholder.listed(identities, f.identity, f.time))", "if identities)"),
        (
            "if f.predicate_type == predicate_type and target.sha256 in {s.sha256 for s in f.subjects}\n        ]\n",
            "if f.predicate_type == predicate_type\n        ]\n",
        ),
        (
            "if f.predicate_type == predicate_type and target.sha256 in {s.sha256 for s in f.subjects}\n        ]\n",
            "if target.sha256 in {s.sha256 for s in f.subjects}\n        ]\n",
        ),
        ("return self.taken_back if revokers else Revocations()", "return Revocations()"),
        ("if revocations.of(leaf.evidence_id) is None]", "if False]"),
        ("predicates.check(uri, claim)", "predicates.check(uri, least)"),
    ],
    "preflight": [
        ("        archive.refresh()  # (1)", "        pass"),
        ("if not judged.found and not asked:", "if True:"),
        ("if not judged.found and not asked:", "if not judged.found:"),
        ("        raise_for(verdict)", "        pass"),
        ("        self._require_shown()", "        pass"),
        ("if not self.archive.accounted(leaf, self.revokers):", "if False:"),
        ("if not self.archive.accounted(leaf, self.revokers):", "if True:"),
        ("self.archive.accounted(leaf, self.revokers)", "self.archive.accounted(leaf, [])"),
        ("held = [fact for fact in facts if self._stands(fact, facts)]", "held = facts[:1]"),
        (
            "held = [fact for fact in facts if self._stands(fact, facts)]",
            "held = [f for f in facts if self._stands(f, facts)][:1]",
        ),
        ("                self._judge(fact, measured)  # (4)", "                pass"),
        ("                self._missing(name, measured)", "                pass"),
        ('Refused if "refused" in outcomes else Undecided', "Undecided"),
        ('Undecided if "undecided" in outcomes else Allowed', "Allowed"),
        ("[*self.found.values(), *self.read]", "[]"),
        ("for matcher in (*self.owners, *self.revokers))", "for matcher in self.owners)"),
        ("for matcher in (*self.owners, *self.revokers))", "for matcher in self.revokers)"),
        ("or (not self.owners and _in_owner_role(who))", ""),
        ("(not self.owners and _in_owner_role(who))", "_in_owner_role(who)"),
        ("{subject.sha256 for subject in measured.subjects}", "{measured.sha256}"),
        (
            "if leaf is None or (self.owners and not any(m.matches(leaf.identity) for m in self.owners)):",
            "if leaf is None:",
        ),
        ("if leaf is None or (self.owners and not any(m", "if leaf is None or (not any(m"),
        ("                if hidden.identity == leaf.identity:", "                if False:"),
        ("found.append(self._verified(bundle, leaf.identity, digests))", "found.append(bundle.fact)"),
        ("self.archive.revocations([fact.identity, *self.revokers])", "self.archive.revocations(self.revokers)"),
        ("self.archive.revocations([fact.identity, *self.revokers])", "self.archive.revocations([fact.identity])"),
        ('if reason == "superseded" and any(', "if any("),
        ('if reason == "superseded" and any(', 'if reason == "superseded" or any('),
        ("other.identity == fact.identity and other.time > fact.time", "other.time > fact.time"),
        ("and other.time > fact.time and", "and"),
        ("and other.time > fact.time and self._taken_back(other) is None", "and other.time > fact.time"),
        ("        if reason is not None:", "        if False:"),
        ("if fact.time > self.now + SKEW:", "if False:"),
        ("if fact.time > self.now + SKEW:", "if fact.time > self.now:"),
        ("if parse_rfc3339(claim.expires) <= self.now:", "if False:"),
        ("if parse_rfc3339(claim.expires) <= self.now:", "if parse_rfc3339(claim.expires) < self.now:"),
        ("is not None and policy.part.data_policy.required:", "is not None and False:"),
        ("        self._purpose(fact, claim)", "        pass"),
        ("        self._who(fact, claim)", "        pass"),
        ("        self._privacy(fact, claim)", "        pass"),
        ("        self._export(fact, claim)", "        pass"),
        ("            self._approvals(fact, claim.approvals, measured)", "            pass"),
        ("if self.plan.purpose is None:", "if False:"),
        ("elif self.plan.purpose not in claim.purposes:", "elif False:"),
        ('outcome="undecided",\n                expected=allowed,', "expected=allowed,"),
        ("if claim.run_by is not None and not any(", "if claim.run_by and not any("),
        ('if least is None or kept == "digests":', "if True:"),
        ('if least is None or kept == "digests":', "if least is None:"),
        (
            "        if not isinstance(kept, Privacy):",
            "        if False:",
        ),
        ("Decimal(kept.epsilon) <= Decimal(least.max_epsilon) and", "True and"),
        (
            "Decimal(kept.epsilon) <= Decimal(least.max_epsilon)",
            "float(kept.epsilon) <= float(least.max_epsilon) + 1e-6",
        ),
        ('least.max_delta or "0"\n', '"1"\n'),
        ('least.max_delta or "0"\n', 'least.max_delta or "1"\n'),
        ("or kept.unit.casefold() != least.unit.casefold()", ""),
        ("kept.unit.casefold() != least.unit.casefold()", "kept.unit != least.unit"),
        ("            if kind in claim.no_export:", "            if False:"),
        ("            if any(matcher.matches(leaf.identity) for matcher in matchers):", "            if False:"),
        ("        people -= {person(self.plan.by)}", "        pass"),
        ("if len(people) < asked.distinct:", "if not people:"),
        ("people = {person(approval.identity) for", "people = {(approval.identity, approval.time) for"),
        ("if leaf is None or not any(matcher.matches(leaf.identity) for matcher in matchers):", "if leaf is None:"),
        ("            self.read.append(approval)", "            pass"),
        ("or parse_rfc3339(claim.expires) <= self.now:", "or False:"),
        ('if claim.decision != "approve":', "if False:"),
        ("                if taken_back is None:", "                if True:"),
        ("elif taken_back is None and approval.time", "elif approval.time"),
        ("and approval.time <= self.now + SKEW and", "and"),
        ("approval.time <= self.now + SKEW", "approval.time <= self.now"),
        ("and fact.evidence_id in claim.reviewed:", "and True:"),
        ('who.san == base or who.san.startswith(base + "/")', "who.san == base"),
        ('who.san == base or who.san.startswith(base + "/")', "who.san.startswith(base)"),
        ('who.san == base or who.san.startswith(base + "/")', "who.san.endswith(_OWNER)"),
    ],
    "unsigned": [
        ("if not isinstance(claim, source_verification.Predicate) or claim.unsigned is None:", "if True:"),
        ("if claim.unsigned.sha256 != target.sha256:", "if False:"),
        ("if entry.name == form]", "if True]"),
        ("form = canonical(name)", "form = name"),
        ("    if not listed:", "    if not listed and policy.part.unsigned:"),
        ("if entry.sha256 in {None, target.sha256}]", "if True]"),
        ("if entry.sha256 in {None, target.sha256}]", "if entry.sha256 == target.sha256]"),
        ("    if not fitting:\n", "    if not fitting and len(listed) > 1:\n"),
        ("if not any(now < entry.until for entry in fitting):", "if False:"),
        (
            "if not any(now < entry.until for entry in fitting):",
            "if not any(now < entry.until for entry in policy.part.unsigned):",
        ),
    ],
    "facts": [
        ("if name + _MANIFEST not in names", "if True"),
        ("if isinstance(predicate, federated_training.Predicate):", "if False:"),
    ],
    "opa": [
        ("if own or stopped:  # (1)", "if False:"),
        ("if own or stopped:  # (1)", "if own:"),
        ("if own or stopped:  # (1)", "if stopped:"),
        (
            "    for engine in case.policy.engines:\n        _judge(",
            "    for engine in case.policy.engines[:1]:\n        _judge(",
        ),
        ('expected=error.expected or "an answer"', 'outcome="note", expected="an answer"'),
        ('said.reasons or ("without saying why",):', "said.reasons:"),
        ('            outcome="refused",', '            outcome="undecided",'),
        ("        case.asked.append(asked)\n", ""),
        ('answer="allowed" if said.allow else "refused"', 'answer="allowed"'),
        ("replace(asked, revision=said.revision, decision_id=said.decision_id)", "asked"),
    ],
    "opa_answer": [
        ("    if response.status in _REDIRECT:", "    if False:"),
        ("    if response.status != _OK:", "    if False:"),
        ('    if "result" not in answer:', '    if answer.setdefault("result", True) is None:'),
        ("    if decision_id is not None and not _is_words(decision_id):", "    if False:"),
        (
            "    if isinstance(result, bool):\n        return Said(result)",
            "    if result in (0, 1):\n        return Said(bool(result))",
        ),
        (" or not set(result) <= _MEMBERS:", ":"),
        ("    if not isinstance(allow, bool):", "    if False:"),
        (" or len(reasons) > _REASONS", ""),
        (" or not all(map(_is_words, reasons)):", ":"),
        ("    if allow and reasons:", "    if False:"),
        ("    if not isinstance(answer, dict):", "    if False:"),
        ("    if engine.bundle is None and len(found) > 1:", "    if False:"),
        ("    if got != engine.revision:", "    if False:"),
        ("    if got != engine.revision:", "    if not str(got).startswith(engine.revision):"),
        (" and value.isprintable()\n", "\n"),
        ("0 < len(value) <= _LONGEST", "len(value) <= _LONGEST"),
        ("len(value) <= _LONGEST", "len(value) > 0"),
        ("    if isinstance(bundles, dict) and bundles:", '    if not provenance.get("revision"):'),
        ("found.get(engine.bundle) if engine.bundle is not None else", ""),
        ("limit=LARGEST", "limit=10 * LARGEST"),
        ("return ascii(value)[:80]", "return str(value)[:80]"),
        ("code.isascii() and code.isprintable()", "True"),
    ],
    "opa_server": [
        ("        if engine.server in self._failed:  # (2)", "        if False:"),
        ("&strict-builtin-errors=true", ""),
        ("provenance=true&", ""),
        ("except (ServiceUnavailable, ValueError) as error:", "except ServiceUnavailable as error:"),
        ("        if not _TOKEN.fullmatch(token):", "        if False:"),
        ("_listed().get(engine.server, Access())", "next(iter(_listed().values()), Access())"),
        ("            ca_file=str(access.ca_file) if access.ca_file else None,\n", ""),
        ("            most=opa_answer.LARGEST,\n", ""),
        ("            engine.timeout.total_seconds(),", "            40,"),
        ("        and set(entry) <= _MEMBERS\n", ""),
        (' and path.startswith("/")', ""),
        ("if named or place.is_file()", "if place.is_file()"),
        (' and set(document) == {"servers"} else', " else"),
    ],
    "document": [
        ("case.policy.binding(case.now)", "case.policy.require"),
        ("naming.in_force().subject(case.target.name)", "case.target.name"),
        ("None if case.action is None else dict(case.action)", "None"),
        ('"revoked": case.revoked(fact)', '"revoked": None'),
        ('"satisfies": fact.evidence_id in standing', '"satisfies": True'),
        ("    if len(raw) > LARGEST:", "    if False:"),
        ("case.counted.get(requirement.id, {}).values()", "case.support[requirement.id]"),
    ],
    "cel": [
        ('if node.kind == "call" and node.name in {"_&&_", "_||_"}:', "if False:"),
        ("if isinstance(plain, float) and not math.isfinite(plain):", "if False:"),
        ("        if errors:  # (4)", "        if False:"),
        ("if len(found) != 1:", "if not found:"),
        ("if not _DECIMAL.fullmatch(text):", "if False:"),
        ("    conditions.check(root, of_predicate(predicate_type))", "    pass"),
        ("if not conditions.reads_predicate(root):", "if False:"),
        ("if len(source) > MAX_LENGTH:", "if False:"),
        ("return result.value() is True", "return bool(result.value()) or True"),
        ("re.fullmatch(", "re.search("),
    ],
    "conditions": [
        ("        if node.name not in base.fields:", "        if False:"),
        ('if looped and node.name in base.optional and f"has {node.path}" not in guards:', "if False:"),
        ('node.name == "all" and not over.nonempty and f"full {range_.path}" not in guards', "False"),
        ("        if node.variable in scope:", "        if False:"),
        ("        if looped:\n", "        if False:\n"),
        ("if left.kind != right.kind or left.kind not in ORDERED:", "if False:"),
        ('if left.kind != right.kind or left.kind in {"object", "map", "list", "any", "null"}:', "if False:"),
        ("if shape.choices and other.kind", "if False and other.kind"),
        ('if found.kind != "bool":', "if False:"),
        ("known_false(node.args[0]) if node.name ==", "known_true(node.args[0]) if node.name =="),
        ("guards | when, looped=looped", "guards, looped=looped"),
    ],
    "plainyaml": [
        ("            if key in result:", "            if False:"),
        ('elif getattr(event, "anchor", None) is not None:', "elif False:"),
        ('elif getattr(event, "tag", None) is not None:', "elif False:"),
        ('"deep nesting" if depth > MAX_DEPTH else None', "None"),
        ("if not text or not node.value:", "if False:"),
        ("    if size > MAX_BYTES:", "    if False:"),
        ("if not isinstance(value, dict) or not value:", "if False:"),
        ("if not math.isfinite(number):", "if False:"),
    ],
    "building": [
        ("if signer.key is not None and uri in DECISIONS:", "if False:"),
        ("if identifier in self._ids:", "if False:"),
        ("if part.of is not None and part.of not in earlier:", "if False:"),
        ("if part.of is not None and not earlier[part.of].has_inputs:", "if False:"),
        ("if part.input is not None and part.of is None:", "if False:"),
        ("if check.id not in {rule.id for rule in kept}", "if True"),
        ("        self._require_in_force(part, earlier, place)", "        pass"),
        ("part.effective_on is None or part.effective_on < later", "part.effective_on is None"),
        ("part.effective_on is None or part.effective_on < later", "part.effective_on and part.effective_on < later"),
        ('if part.strength == "measured" and', "if False and"),
        ("if value is not None and not approval:", "if False:"),
        ("            if name not in earlier:", "            if False:"),
        ("self._require_kept(beneath, entry.stated, place)", "pass"),
        ("        if stated_type != beneath.predicate_type:", "        if False:"),
        ("waivable=waivable[rule.id]", "waivable=True"),
        ("lambda: layers.require_chain(self._part.policy, parent)", "lambda: None"),
        ("                whole.require_whole()", "                pass"),
        ("origin=rule.origin or self._parent.name) for", "origin=None) for"),
        ("if not entry.needs & open_ - {entry.id}", "if True"),
        ("layers.take_over(self._part, self._parent)", "self._part"),
        ("layers.together(beneath.part, again.part) if again", "again.part if again"),
        ("            if engine.id in again:", "            if True:"),
        ("{*RESERVED, *self._beneath}", "{*RESERVED}"),
    ],
    "load": [
        ("if len(set(names)) != len(names):", "if False:"),
        ("    if not policies:", "    if False:"),
        ("        if depth >= layers.MAX_LAYERS:", "        if False:"),
        ("hashlib.sha256(raw).hexdigest() != wanted.sha256:", "False:"),
        ("    if parent.name != wanted.policy:", "    if False:"),
        ("        _require_tighter(policy, parent, name, document, part)", "        pass"),
        ("policies = with_layers(given)", "policies = tuple(given)"),
    ],
    "layers": [
        ('found.relation in {"looser", "changed"}', 'found.relation == "looser"'),
        ('found.relation in {"looser", "changed"}', 'found.relation == "changed"'),
        ("    if name in [layer.name for layer in parent.layers]:", "    if False:"),
        ("check.waivable and check.id not in closed", "check.waivable"),
        ("check.check != known[check.id].condition.source:", "False:"),
        ("            and not known[check.id].waivable\n", "            and False\n"),
        ("if policy.applies(facts) for layer in policy.layers}", "if policy.applies(facts) for layer in [policy]}"),
        ("for layer in p.layers))}", "for layer in [p]))}"),
        ('"gate", "ownership"', '"ownership"'),
        ('"waivers", "unsigned",', '"waivers", "unsigned", "observe", "ungoverned",'),
        ('_OWN = {"applies",', '_OWN = {"applies", "require",'),
        ("for engine in (*parent.engines, *(part.opa or ()))", "for engine in (part.opa or parent.engines)"),
        ('    if path[0] == "opa":', "    if False:"),
    ],
    "ordering": [
        ('return "same" if before == after else "changed"', 'return "same"'),
        ("_by(steps.index(after) - steps.index(before))", "_by(0)"),
        ("return _by((before - after).total_seconds())\n\n\ndef at_least", "return _by(0)\n\n\ndef at_least"),
        ('"same" if before is after else "stricter" if before is None else "looser"', '"same"'),
        ("return _by((after or 1) - (before or 1))", "return _by(0)"),
        ('"same" if before is after else "looser" if before is None else "stricter"', '"same"'),
        ("return _by((before - after).total_seconds())\n\n\ndef pinned", "return _by(0)\n\n\ndef pinned"),
        ("not stated and pattern == ", "pattern == "),
        ('not stated and pattern == "*"', "not stated"),
        ("covers(pattern, mine[key]) if key in mine", "True if key in mine"),
        ("(isinstance(inner, Identity) and outer.matches(inner))", "isinstance(inner, Identity)"),
        ("(isinstance(inner, Identity) and outer.matches(inner))", "False"),
        ("outer.fingerprint == inner.fingerprint and _spans(outer, inner)", "_spans(outer, inner)"),
        ("outer.fingerprint == inner.fingerprint and _spans(outer, inner)", "outer.fingerprint == inner.fingerprint"),
        ("inner.since is not None and outer.since <= inner.since", "True"),
        ("inner.until is not None and inner.until <= outer.until", "True"),
        ('("local", "key", "verified-token")', '("local", "verified-token", "key")'),
        ('return "same" if not_stricter else "stricter"', 'return "stricter"'),
        ("old <= new, new <= old", "new <= old, old <= new"),
        ('"stricter" if before is None else "looser" if after is None else "changed"', '"stricter"'),
    ],
    "compare": [
        ("        if unknown:", "        if False:"),
        ("    require_known()", "    pass"),
        ('yield Difference(path, "looser", old[name].short, "absent")', "pass"),
        ('yield Difference(place, "looser", rules[name].condition.source, "absent")', "pass"),
        ('    yield from _keys(("assurance",), ASSURANCE', '    yield from () and _keys(("assurance",), ASSURANCE'),
        ("before.assurance_of(old), after.assurance_of(new)", "old.part.assurance or A, new.part.assurance or A"),
        ("and inner.until <= outer.until\n\n\ndef _covers_exemption", "\n\n\ndef _covers_exemption"),
        ("within(inner, outer, stated=True) and inner.until <= outer.until", "within(inner, outer, stated=True)"),
        ("within(inner, outer, stated=True)", "within(inner, outer, stated=False)"),
        ("outer.name == inner.name and", ""),
        ("outer.sha256 in {None, inner.sha256} and", ""),
        ("inner.sha256} and inner.until <= outer.until", "inner.sha256}"),
        ('"revokers": fewer', '"revokers": words'),
        ('"gate": same_people', '"gate": fewer'),
        ('(("ownership", "by"), same_people', '(("ownership", "by"), fewer'),
        ('(("dataPolicy", "by"), same_people', '(("dataPolicy", "by"), words'),
        ('(("waivers", "by"), fewer', '(("waivers", "by"), words'),
        ('"where": exact', '"where": words'),
        ('"server": exact', '"server": words'),
        ('"decision": exact', '"decision": words'),
        ('"bundle": exact', '"bundle": words'),
        ('"revision": pinned', '"revision": words'),
        ('yield Difference(path, "looser", before[name].decision, "absent")', "pass"),
        ("    yield from _engines(before.engines, after.engines)", "    pass"),
        ("for found in differences(before.parent, after.parent):", "for found in ():"),
        ('relation: Relation = "looser" if after.parent is None else "stricter"', 'relation: Relation = "stricter"'),
    ],
    "thresholds": [
        ("if not old or not new or", "if"),
        ('(old["what"].split(), old["sign"]) != (new["what"].split(), new["sign"])', 'old["sign"] != new["sign"]'),
        ('(old["what"].split(), old["sign"]) != (new["what"].split(), new["sign"])', 'old["what"] != new["what"]'),
        ("[^&|?!<>=]+", ".+?"),
        ('(difference < 0) == old["sign"].startswith("<")', "difference < 0"),
    ],
    "schema": [
        ('extra="forbid"', 'extra="ignore"'),
        ('if any("*" in text', 'if False and any("*" in text'),
        ("if (self.applies is None) != (self.require is None):", "if False:"),
        ("if all(part is None for part in (self.require", "if False and ((self.require"),
        ("if self.until <= self.since:", "if False:"),
        ("if self.bundle is not None and self.revision is None:", "if False:"),
        ("if self.opa is not None and self.require is None:", "if False:"),
        ("|localhost|", "|[a-z.]+|"),
        ("if urlsplit(self.server).port == 0:", "if False:"),
        ("(:[0-9]{1,5})?$", "(:[0-9]{1,5})?"),
        ("(:[0-9]{1,5})?$", "(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*$"),
        ("(:[0-9]{1,5})?$", r"(:[0-9]{1,5})?$|^http\+unix://%2F[A-Za-z0-9._%-]+$"),
        ("[12][0-9]|30)s", "[1-9][0-9])s"),
        ('= "verified-token"', '= "local"'),
        ('= "witnessed"', '= "unwitnessed"'),
        ('= "independent"', '= "local"'),
        ("if self.since is not None or self.until is not None:", "if False:"),
        ("if self.issuer == KEY_ISSUER:", "if False:"),
        ("if any(named is not None for named in (self.issuer,", "if False and any(named for named in (self.issuer,"),
        ("self.since is not None and self.until is not None and self.until <= self.since", "False"),
        ("if any(signer.key is not None for signer in signers):", "if False:"),
        ("    revokers: Deciders | None = None", "    revokers: Signers | None = None"),
        ("    gate: Deciders | None = None", "    gate: Signers | None = None"),
    ],
}
BY_MODULE = {
    "opa": ["test_opa"],
    "opa_answer": ["test_opa_answer"],
    "opa_server": ["test_opa_server"],
    "document": ["test_opa"],
    "rule": ["test_gate", "test_opa"],
    "approval": ["test_gate", "test_opa"],
    "preflight": ["test_preflight_scenes"],
    "unsigned": ["test_unsigned"],
    "cel": ["test_conditions"],
    "conditions": ["test_conditions"],
    "plainyaml": ["test_plainyaml"],
    "dates": ["test_dates"],
    "layers": ["test_layers", "test_opa"],
    "ordering": ["test_layers", "test_compare", "test_keys", "test_opa"],
    "compare": ["test_layers", "test_compare", "test_opa"],
    "thresholds": ["test_compare"],
    "building": ["test_load", "test_dates", "test_layers", "test_keys", "test_opa"],
    "gate": ["test_gate", "test_dates", "test_opa"],
    "load": ["test_load", "test_layers"],
    "schema": ["test_load", "test_dates", "test_keys", "test_opa"],
    "names": ["test_load", "test_gate"],
    "model": ["test_load", "test_gate", "test_dates", "test_layers"],
    "remedies": ["test_remedies"],
    "guards": ["test_conditions"],
    "shape": ["test_conditions"],
    "syntax": ["test_conditions"],
    "controls": ["test_controls", "test_dates", "test_opa"],
    "samples": ["test_controls", "test_gate", "test_keys"],
    "verdict": ["test_gate", "test_verdict", "test_opa"],
}


class _Mutated(SourceFileLoader):
    change = ("", "")

    def get_code(self, fullname: str) -> Any:
        return compile(self.get_data(self.path).decode().replace(*self.change), self.path, "exec")


@contextmanager
def mutated(module: str, change: tuple[str, str]) -> Iterator[None]:
    """Within, ``mlseal.policy`` is a fresh copy of itself in which one module is changed."""
    kept = {name: found for name, found in sys.modules.items() if name.startswith("mlseal.policy")}
    for name in kept:
        del sys.modules[name]
    loader = _Mutated(f"mlseal.policy.{module}", str(PACKAGE / f"{module}.py"))
    loader.change = change

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> Any:
            return importlib.util.spec_from_loader(name, loader) if name == loader.name else None

    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)
        for name in [name for name in sys.modules if name.startswith("mlseal.policy")]:
            del sys.modules[name]
        sys.modules.update(kept)
        mlseal.policy = kept["mlseal.policy"]


def fresh(name: str) -> Any:
    """A test module of this directory, imported anew against whatever ``mlseal.policy`` is."""
    spec = importlib.util.spec_from_file_location(f"mutant_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calls(module: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each test function with each of its parametrizations; those that need files or processes are left out."""
    for name, function in list(vars(module).items()):  # a test that warns adds a name to its module
        if not name.startswith("test_") or hasattr(function, "hypothesis") or name.endswith("many_threads"):
            continue
        marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
        axes = []
        for mark in marks:
            names = (
                mark.args[0] if isinstance(mark.args[0], tuple) else tuple(n.strip() for n in mark.args[0].split(","))
            )
            axes.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in mark.args[1]])
        for combination in itertools.product(*axes):
            yield function, {key: value for part in combination for key, value in part.items()}


def noticed(module: str, tmp_path: Path) -> str | None:
    """The first test that fails, if any does."""
    conftest = fresh("conftest")
    given = {
        "rules": {"fairness": conftest.FAIRNESS, "provenance": conftest.PROVENANCE, "approval": conftest.APPROVAL},
        "header": conftest.HEADER,
    }
    for file in BY_MODULE.get(module, ["test_gate"]):
        for number, (function, arguments) in enumerate(calls(fresh(file))):
            wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
            place = tmp_path / f"{file}-{number}"
            if "tmp_path" in wanted:
                place.mkdir()
            offered = {**given, "world": conftest.World(), "tmp_path": place, **arguments}
            try:
                function(**{name: offered[name] for name in wanted})
            except BaseException as error:  # pytest.fail is one
                return f"{function.__name__}: {type(error).__name__}"
    return None


@pytest.mark.parametrize(
    ("module", "change"),
    [
        pytest.param(module, change, id=f"{module}-{index}")
        for module, changes in MUTANTS.items()
        for index, change in enumerate(changes)
    ],
)
@pytest.mark.slow
def test_taking_a_check_out_is_noticed(module: str, change: tuple[str, str], tmp_path: Path) -> None:
    assert change[0] in (PACKAGE / f"{module}.py").read_text(), "the table must follow the source"
    with mutated(module, change):
        assert noticed(module, tmp_path), f"nothing notices {change[1]!r} in place of {change[0]!r}"


@pytest.mark.parametrize("module", ["rule", "cel", "plainyaml", "load", "verdict", "preflight", "unsigned"])
def test_without_a_change_nothing_is_noticed(module: str, tmp_path: Path) -> None:
    with mutated(module, ("", "")):
        assert noticed(module, tmp_path) is None


# Checks of the source over an archive, and the test that notices: these need a real authority, so each runs alone.
SOURCE: list[tuple[str, str, str]] = [
    (
        "if not self._archive.signed_by(bundle.evidence_id, identities):",
        "if False:",
        "test_the_gate_and_strangers_beside_listed_evidence",
    ),
    (
        "others.append(self._archive.verifier.signer(bundle))",
        "rejected.append(Rejected(bundle.evidence_id, KeyOutOfTerm('x')))",
        "test_a_key_counts_for_its_time_and_is_a_stranger_outside",
    ),
    (
        "if known is not None and listed(identities, known.identity, *known.times):",
        "if known is not None and any(matcher.matches(known.identity) for matcher in identities):",
        "test_a_key_counts_for_its_time_and_is_a_stranger_outside",
    ),
    (
        "listed(identities, known.identity, *known.times)",
        "listed(identities, known.identity, known.time)",
        "test_a_key_whose_stamp_lies_on_the_other_side_of_its_end_stops",
    ),
    ("rejected.append(Rejected(bundle.evidence_id, error))", "pass", "test_what_does_not_verify_is_reported"),
    ("others += [leaf.identity] if leaf else []", "pass", "test_the_gate_and_strangers_beside_listed_evidence"),
    (
        "oms.require_names(verified.statement, target.manifest)",
        "pass",
        "test_an_oms_signature_is_compared_file_by_file",
    ),
    (
        "            if self._archive.signed_by(bundle.evidence_id, revokers)\n",
        "",
        "test_a_strangers_revocation_is_no_input",
    ),
    ("return self._archive.unresolved(revocations)", "return []", "test_a_withheld_leaf_alone_stops"),
    ("        if why is None:", "        if False:", "test_a_withheld_leaf_alone_stops"),
    (
        "return frozenset(leaf.identity for i in ids if (leaf := self._archive.index.leaf(i)) is not None)",
        "return frozenset()",
        "test_the_training_account_cannot_measure_itself",
    ),
    (
        "oms.named_digest(predicate_type, target.sha256, target.manifest)",
        "target.manifest.oms_root if target.manifest is not None else target.sha256",
        "test_a_renamed_file_is_another_model",
    ),
]


@pytest.mark.parametrize(("old", "new", "test"), SOURCE, ids=[row[2] for row in SOURCE])
def test_taking_a_check_of_the_source_out_is_noticed(old, new, test, authority, tmp_path) -> None:
    assert old in (PACKAGE / "source.py").read_text(), "the table must follow the source"
    with mutated("source", (old, new)):
        assert _fails(test, authority, tmp_path), f"{test} does not notice {new!r} in place of {old!r}"
    assert not _fails(test, authority, tmp_path / "again"), f"{test} fails without a change too"


def _fails(test: str, authority: Any, path: Path) -> bool:
    path.mkdir(exist_ok=True)
    module = fresh("test_archive")
    function = getattr(module, test)
    offered = {"bench": module.Bench(authority, path / "model"), "authority": authority}
    try:
        function(**{name: offered[name] for name in function.__code__.co_varnames[: function.__code__.co_argcount]})
    except BaseException:  # pytest.fail is one
        return True
    return False
