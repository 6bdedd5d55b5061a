"""The gate as two tasks: decide writes the signed verdict, enforce stops the run.

Two, because a back end drops the outputs of a task that fails: a gate that wrote its verdict and then refused would
leave no trace of why. Neither judges; `mlseal.policy` does.

decide, performed under these numbers:

1. The model is hashed. If it cannot be read there is nothing that a verdict could be about, and the task fails.
2. Each evidence file must have the digest that its own task reported, and verify; what does not becomes a reason.
3. Policy judges these bytes by everything that the log holds about them.
4. The verdict, with this run's id as nonce, is signed as the gate and written, whatever it says: exit status 0.

enforce, performed under these numbers:

1. The image is set and fits (`mlseal_kfp.step`). The verdict file has the digest that decide reported.
2. The model is hashed again, from its bytes.
3. The verdict verifies as a statement about these bytes by an identity that the policies name as gate, unrevoked;
   nothing that a revoker signed after it is withheld.
4. It was made for this run (nonce), this action, and by exactly the policies that apply here.
5. It allows: exit status 0 and the digest of what passed. Refused exits 10, undecided 11.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from mlseal.errors import (
    DigestMismatch,
    Error,
    MalformedEvidence,
    Misuse,
    PolicyInvalid,
    Refusal,
    RuleBroken,
    Unchecked,
    Withheld,
)
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import MEDIA_TYPE, Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.predicates import slsa_vsa
from mlseal.evidence.signing import signer_for
from mlseal.evidence.verifying import VerifiedStatement, self_verify
from mlseal.policy import gate
from mlseal.policy.layers import governing
from mlseal.policy.model import Policy
from mlseal.policy.names import Action, canonical_facts
from mlseal.policy.verdict import Outcome, Reason, Refused, Undecided, Verdict, to_statement
from mlseal_kfp import surroundings
from mlseal_kfp.executor_input import Artifact, Task
from mlseal_kfp.policies import policies_of
from mlseal_kfp.ports import EVIDENCE_PORTS
from mlseal_kfp.publishing import Outputs

TOOL = "kfp"
_SETTLE = (0.1, 0.3, 0.8)
"""Seconds to wait for a bundle whose leaf exists: a neighbour logs its evidence an instant before it stores it."""


def decide(task: Task, outputs: Outputs, reference: str, *, clock: Clock = utcnow) -> None:
    """Write the signed verdict about the model; see the module for the steps.

    Raises `Unreadable` for a model that cannot be hashed, `Misuse` for a task without a run id, and whatever keeps the
    verdict from being signed; a refusal raises nothing.
    """
    del reference
    trust = surroundings.trust()
    nonce, action = _nonce(task), _action(task)
    policies = policies_of(task, action, clock())
    model = _model(task)
    measured = measure(model.require())  # 1
    reasons = [*_model_reasons(task, measured)]
    with surroundings.store(task, trust, clock) as store:
        archive = Archive.open(trust, store, clock=clock)
        reasons += _take_evidence(task, archive, clock)  # 2
        verdict = _judge(measured, action, policies, archive, clock)  # 3
        if reasons:
            verdict = _refused(verdict, reasons)
        made = to_statement(verdict, measured.subjects, nonce=nonce)
        bundle = signer_for(surroundings.gate_role(), trust=trust, store=store, clock=clock).sign(made)  # 4
    bundle.write(outputs.stage("verdict"))
    outputs.value("verdict_sha256", bundle.sha256)
    outputs.describe(
        "verdict", sha256=bundle.sha256, predicateType=slsa_vsa.URI, mediaType=MEDIA_TYPE, verdict=verdict.kind
    )
    print(f"mlseal: {verdict.summary()}", flush=True)


def enforce(task: Task, outputs: Outputs, reference: str, *, clock: Clock = utcnow) -> None:
    """Return only if a verdict of this run allows exactly these bytes; see the module for the steps.

    Raises `RuleBroken` or another `Refusal` (exit 10) and `Unchecked` (exit 11) with every reason of the verdict.
    """
    del reference
    trust = surroundings.trust()
    nonce, action = _nonce(task), _action(task)
    policies = policies_of(task, action, clock())
    bundle = _bundle(task, "verdict")  # 1
    measured = surroundings.measured(task, _model(task))  # 2
    with surroundings.store(task, trust, clock) as store:
        archive = Archive.open(trust, store, clock=clock)
        archive.refresh()
        applying = _applying(policies, action, clock)
        verified = _verified(bundle, measured, applying, archive)  # 3
        _require_no_hidden_withdrawal(verified, applying, archive)  # 3
    details = _details(verified)
    _require_this_run(details, nonce, action)  # 4
    _require_these_policies(details, applying)
    _require_passing(details)  # 5
    outputs.value("passed_sha256", measured.sha256)
    print(f"mlseal: {details.verdict} by {', '.join(p.name for p in details.policies)}", flush=True)


# --- what both are told -----------------------------------------------------------------------------------------------


def _nonce(task: Task) -> str:
    run_id = task.text("run_id").strip()
    if not run_id or "{{" in run_id:
        raise Misuse(
            "the gate does not know its run",
            got=run_id or "an empty run_id",
            expected="the id of this run",
            remedy="build the gate with mlseal_kfp.gate, or pass dsl.PIPELINE_JOB_ID_PLACEHOLDER as run_id",
        )
    return run_id


def _action(task: Task) -> Action:
    facts = {
        "model": task.text("model_name"),
        "workspace": task.text("workspace") or "default",
        "builder": surroundings.builder(),
    }
    action = Action(TOOL, task.text("action") or "gate", facts)
    try:
        canonical_facts(action)
    except ValueError as error:
        raise Misuse("a name that no policy can be matched with", got=str(error), expected="printable ASCII") from error
    return action


def _model(task: Task) -> Artifact:
    artifact = task.artifact("model")
    if artifact is None:
        raise Misuse("the gate was given no model", expected="the artifact that is to pass, at input 'model'")
    return artifact


def _bundle(task: Task, port: str) -> Bundle:
    """The bundle at `port`, which must have the announced digest."""
    artifact = task.artifact(port)
    if artifact is None:
        raise Misuse(f"input {port!r} is not connected", expected="the bundle that an earlier task made")
    return _announced(artifact, surroundings.announced(task, port))


def _announced(artifact: Artifact, expected: str) -> Bundle:
    if not expected:
        raise Misuse(
            f"{artifact.port} comes without its digest", expected=f"{artifact.port}_sha256 from the task that made it"
        )
    bundle = Bundle.read(artifact.require())
    if bundle.sha256 != expected:
        raise DigestMismatch(
            f"the file at {artifact.port!r} is not the one that its task made",
            got=bundle.sha256,
            expected=expected,
            remedy="find the task that wrote in between, or run the pipeline again",
        )
    return bundle


# --- decide -----------------------------------------------------------------------------------------------------------


def _model_reasons(task: Task, measured: Measured) -> Iterator[Reason]:
    expected = surroundings.announced(task, "model")
    if expected and measured.sha256 != expected:
        yield Reason(
            "model-digest",
            "the model is not the one that an earlier task made",
            "refused",
            got=measured.sha256,
            expected=expected,
            remedy="find the task that wrote in between, or run the pipeline again",
        )


def _take_evidence(task: Task, archive: Archive, clock: Clock) -> Iterator[Reason]:
    """Put each evidence file into the store after it has verified; a reason for each that has not."""
    for artifact, port, expected in _evidence(task):
        try:
            if artifact is None:
                raise Refusal(f"{port} was dropped: its digest arrived, the file did not", expected=expected)
            bundle = _announced(artifact, expected)
            self_verify(bundle, archive.trust, clock=clock)
            archive.store.put(bundle)
        except Error as error:
            outcome: Outcome = "undecided" if isinstance(error, Unchecked) else "refused"
            yield Reason(
                f"evidence:{port}", error.message, outcome, got=error.got, expected=error.expected, remedy=error.remedy
            )


def _evidence(task: Task) -> Iterator[tuple[Artifact | None, str, str]]:
    """(file, port, announced digest) of every evidence port that either is connected or announced."""
    for number in range(1, EVIDENCE_PORTS + 1):
        port = f"evidence_{number}"
        artifact, expected = task.artifact(port), surroundings.announced(task, port)
        if artifact is not None or expected:
            yield artifact, port, expected
    collected, digests = task.inputs.get("collected", ()), task.parameters.get("collected_sha256") or []
    if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
        raise Misuse("collected_sha256 is no list of digests", got=repr(digests)[:80])
    for index in range(max(len(collected), len(digests))):
        artifact = collected[index] if index < len(collected) else None
        yield artifact, f"collected[{index}]", digests[index] if index < len(digests) else ""


def _judge(measured: Measured, action: Action, policies: tuple[Policy, ...], archive: Archive, clock: Clock) -> Verdict:
    for pause in (*_SETTLE, None):
        archive.refresh()
        if pause is None or not archive.unresolved():
            break
        time.sleep(pause)
    return gate.judge(measured, action, policies, archive, clock=clock)


def _refused(verdict: Verdict, reasons: list[Reason]) -> Verdict:
    """`verdict` with reasons of ours in front; the worse outcome wins, and observing excuses nothing forged."""
    every = (*reasons, *verdict.reasons)
    kind = Refused if verdict.kind == "refused" or any(r.outcome == "refused" for r in reasons) else Undecided
    fields = {f.name: getattr(verdict, f.name) for f in dataclasses.fields(verdict)} | {
        "reasons": every,
        "mode": "enforce",
    }
    return kind(**fields)


# --- enforce ----------------------------------------------------------------------------------------------------------


def _applying(policies: tuple[Policy, ...], action: Action, clock: Clock) -> tuple[Policy, ...]:
    """The policies by which the gate must have judged: those that govern the action, else those that exempt it."""
    facts, now = canonical_facts(action), clock()
    frozen = [policy for policy in policies if any(policy.frozen(facts, now))]
    applying = governing(policies, facts)
    if not any(policy.binding(now) for policy in applying):
        applying = tuple(policy for policy in policies if policy.exempts(facts, now))
    applying += tuple(policy for policy in frozen if applying and policy not in applying)
    if not applying:
        raise Refusal(
            "no policy governs this action, so it is refused",
            got=str(action),
            expected="a policy whose applies covers it",
            remedy="add it to a policy, or under ungoverned",
        )
    for policy in applying:
        if not policy.gate:
            raise PolicyInvalid(
                f"policy {policy.name} names no gate, so no verdict can be believed",
                expected="gate: [{issuer: …, san: …}]",
                remedy="add the identity that decide signs as",
            )
    return applying


def _verified(bundle: Bundle, measured: Measured, applying: tuple[Policy, ...], archive: Archive) -> VerifiedStatement:
    """The verdict, verified once for each policy: every one of them must name its signer as a gate."""
    verified = [
        archive.verifier.verify(
            bundle,
            predicate_type=slsa_vsa.URI,
            identities=policy.gate,
            subjects=[s.sha256 for s in measured.subjects],
            revocations=archive.revocations(policy.revokers),
        )
        for policy in applying
    ]
    return verified[0]


def _require_no_hidden_withdrawal(verified: VerifiedStatement, applying: tuple[Policy, ...], archive: Archive) -> None:
    """A pod may have no store, so that older evidence is not shown here; only what came later can take this back."""
    origins = [log.origin for log in archive.trust.logs]  # oldest first
    signed = (origins.index(verified.log.origin), verified.log.index)
    revokers = [matcher for policy in applying for matcher in policy.revokers]
    for leaf in archive.unresolved():
        later = (origins.index(leaf.origin), leaf.index) > signed
        if later and any(matcher.matches(leaf.identity) for matcher in revokers):
            raise Withheld(
                "somebody who may revoke signed something after the verdict, and nobody shows it",
                got=f"leaf {leaf.index} of {leaf.origin}, evidence {leaf.evidence_id[:16]}… by {leaf.identity}",
                expected=f"its bundle in {archive.store}",
                remedy="run the pipeline again, with a store that holds it",
            )


def _details(verified: VerifiedStatement) -> slsa_vsa.Details:
    predicate = verified.predicate
    if not isinstance(predicate, slsa_vsa.Predicate) or predicate.mlseal is None:
        raise MalformedEvidence("the verdict is not one of ours: it has no mlseal details")
    if (predicate.verification_result == "PASSED") != (predicate.mlseal.verdict == "allowed"):
        raise MalformedEvidence(
            "the verdict contradicts itself", got=f"{predicate.verification_result}, {predicate.mlseal.verdict}"
        )
    return predicate.mlseal


def _require_this_run(details: slsa_vsa.Details, nonce: str, action: Action) -> None:
    if details.nonce != nonce:
        raise Refusal(
            "the verdict was made for another run",
            got=str(details.nonce),
            expected=nonce,
            remedy="switch caching off on decide and enforce, and run again",
        )
    asked = dict(action.items)
    if dict(details.action) != asked:
        raise Refusal(
            "the verdict is about another action",
            got=str(dict(details.action))[:200],
            expected=str(asked)[:200],
            remedy="give decide and enforce the same model_name, action and workspace",
        )


def _require_these_policies(details: slsa_vsa.Details, applying: tuple[Policy, ...]) -> None:
    judged, here = {p.sha256 for p in details.policies}, {p.sha256 for p in applying}
    if judged != here:
        raise Refusal(
            "the verdict was made by other policies than apply here",
            got=", ".join(f"{p.name} {p.sha256[:12]}" for p in details.policies) or "none",
            expected=", ".join(f"{p.name} {p.sha256[:12]}" for p in applying),
            remedy="give both tasks the same policy and run again",
        )


def _require_passing(details: slsa_vsa.Details) -> None:
    if details.verdict == "allowed" or (details.mode == "observe" and details.policies):
        return
    stopping = " | ".join(
        f"{r.rule}: {r.message}"
        + (f"; got {r.got}" if r.got else "")
        + (f"; expected {r.expected}" if r.expected else "")
        for r in details.reasons
    )
    remedies = list(dict.fromkeys(r.remedy for r in details.reasons if r.remedy))
    error: type[Error] = RuleBroken if details.verdict == "refused" else Unchecked
    raise error(
        f"{details.verdict} by {', '.join(p.name for p in details.policies) or 'no policy'}: {stopping}",
        remedy="; ".join(remedies) or None,
    )
