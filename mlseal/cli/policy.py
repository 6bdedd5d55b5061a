"""``mlseal gate · explain · policy``, and ``approve · waive`` by name. Thin: arguments in, one core call, words out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, STORE, TOKEN, TRUST
from mlseal.cli.group import WholeSentences
from mlseal.cli.people import approve, sign_as, waive
from mlseal.cli.policy_input import ACTION, FACT, POLICY, action_of, policies_of, policy_input
from mlseal.cli.policy_new import policy_new
from mlseal.cli.policy_pins import policy_pin, policy_release, policy_rollback
from mlseal.cli.policy_text import policy_diff, policy_explain, policy_schema
from mlseal.errors import Error, Refusal, Unchecked
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.clock import rfc3339, utcnow

if TYPE_CHECKING:
    from mlseal.evidence.bundle import Bundle
    from mlseal.policy.gate import Action
    from mlseal.policy.model import Policy
    from mlseal.policy.verdict import Verdict

_SAYS = {"allowed": "true", "refused": "false", "none": "nothing that counts"}
__all__ = ["approve", "explain", "gate", "policy", "waive"]


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@POLICY
@ACTION
@FACT
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Sign the verdict (SLSA VSA) and write it here.")
@click.option("--role", default="gate", show_default=True, help="Role to sign the verdict as.")
@click.option("--nonce", help="Run or request id to bind the signed verdict to.")
@TRUST
@STORE
@TOKEN
@JSON
@click.pass_context
def gate(
    ctx: click.Context,
    path: Path,
    policy_paths: tuple[Path, ...],
    action_name: str | None,
    facts: tuple[str, ...],
    output: Path | None,
    role: str,
    nonce: str | None,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Judge PATH, a file or directory, by the policies; exit 0 only when allowed.

    \b
    Example: mlseal gate model/ --policy .mlseal/policy.yaml
             mlseal gate model/ --policy policies/ --action mlflow/alias --fact alias=champion --fact model=risk-a
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.policy.verdict import to_statement

    verdict = _judged(path, policy_paths, action_of(action_name, facts), trust_path, store_path)
    if output is not None:
        bundle = sign_as(to_statement(verdict, nonce=nonce), role, trust_path, store_path, token_file, output)
        click.echo(f"signed verdict: evidence {bundle.evidence_id} in {output}", err=True)
    click.echo(json.dumps(verdict.to_dict()) if as_json else _words(verdict))
    ctx.exit(0 if verdict.passes else verdict.exit_code)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@POLICY
@ACTION
@FACT
@TRUST
@STORE
@JSON
def explain(
    path: Path,
    policy_paths: tuple[Path, ...],
    action_name: str | None,
    facts: tuple[str, ...],
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Say what the policies want for PATH and what is missing; or what a signed verdict says, if PATH is one.

    Exit 0 means explained, not allowed. The signer of a verdict is checked against the policies' gate identities.
    """
    verdict_bundle = _verdict_bundle(path)
    if verdict_bundle is not None:
        _explain_verdict(verdict_bundle, policy_paths, trust_path, as_json=as_json)
        return
    verdict = _judged(path, policy_paths, action_of(action_name, facts), trust_path, store_path)
    document = {"wants": [_wants(policy) for policy in policies_of(policy_paths)], **verdict.to_dict()}
    if as_json:
        click.echo(json.dumps(document))
        return
    for policy in policies_of(policy_paths):
        click.echo(f"{policy.name} (sha256 {policy.sha256[:16]}…) asks for:")
        open_rules = {
            reason.rule for reason in verdict.reasons if reason.outcome != "note" and reason.policy == policy.name
        }
        for requirement in policy.require:
            rules = [rule.id for rule in requirement.rules]
            missing = requirement.id in open_rules or bool(open_rules & set(rules))
            mark = ("✗" if missing else "✓") if requirement.binds(verdict.time) else "·"
            click.echo(f"  {mark} {requirement.id}" + (f" ({', '.join(rules)})" if rules else ""))
            click.echo(f"      by {' or '.join(map(str, requirement.by))}")
        said = {one.id: one.answer for one in verdict.asked if one.policy == policy.name}
        for engine in policy.engines:
            mark = {"allowed": "✓", None: "·"}.get(said.get(engine.id), "✗")
            click.echo(f"  {mark} {engine.id}\n      by OPA: {engine.decision} of {engine.server}")
    click.echo(_words(verdict))


@click.group(cls=WholeSentences)
def policy() -> None:
    """Check policies before they judge; release, pin and roll back the ones in force."""


for command in (
    policy_new,
    policy_input,
    policy_diff,
    policy_explain,
    policy_schema,
    policy_release,
    policy_pin,
    policy_rollback,
):
    policy.add_command(command)


@policy.command("lint")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@JSON
def policy_lint(files: tuple[Path, ...], as_json: bool) -> None:
    """Load FILES strictly, and say aloud where a policy is weaker than it could be."""
    from mlseal.policy import controls, load
    from mlseal.policy.lint import remarks

    load.load_all(files)  # what is wrong between them
    rows = [
        {"policy": p.name, "sha256": p.sha256, "remarks": list(remarks(p, tested=bool(controls.files_of(file))))}
        for p, file in zip(load.each(files), load.files_of(files), strict=True)
    ]
    words = [
        f"{row['policy']} (sha256 {str(row['sha256'])[:16]}…) is valid"
        + "".join(f"\n  {remark}" for remark in row["remarks"])
        for row in rows
    ]
    _say({"policies": rows}, "\n".join(words), as_json=as_json)


@policy.command("test")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--ask-opa", is_flag=True, help="Ask the OPA servers themselves, instead of what the tests say of them.")
@JSON
def policy_test(files: tuple[Path, ...], ask_opa: bool, as_json: bool) -> None:
    """Run the negative controls of FILES: imagined evidence that must be stopped, and is it?

    Tests stand under tests: in the policy, or in NAME.tests/*.yaml beside NAME.yaml. Nothing is signed or read from the
    log.
    """
    from mlseal.policy import controls
    from mlseal.policy.load import load
    from mlseal.policy.opa_server import Servers

    rows = []
    for file in files:
        loaded = load(file)
        engines = Servers() if ask_opa else None
        for outcome in controls.run(loaded, controls.tests_of(loaded, file), now=utcnow(), engines=engines):
            rows.append(
                {"policy": loaded.name, "test": outcome.name, "passed": outcome.passed, "problem": outcome.problem}
            )
            if not as_json:
                mark = "ok    " if outcome.passed else "FAILED"
                click.echo(f"{mark} {loaded.name}: {outcome.name}: {outcome.problem or outcome.verdict.kind}")
    if as_json:
        click.echo(json.dumps({"tests": rows}))
    failed = [row for row in rows if not row["passed"]]
    if failed:
        raise Refusal(
            f"{len(failed)} of {len(rows)} tests failed", got=str(failed[0]["test"]), remedy="mend the policy"
        )
    if not as_json:
        click.echo(f"{len(rows)} tests passed")


def _judged(
    path: Path, policy_paths: Sequence[Path], action: Action | None, trust_path: str | None, store_path: str | None
) -> Verdict:
    from mlseal.cli.progress import bar
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import measure
    from mlseal.policy.gate import judge
    from mlseal.policy.remedies import Hints

    policies = policies_of(policy_paths)
    archive = Archive.open(trust_roots.resolve(trust_path), store_path)
    with bar(f"reading {path}"):
        measured = measure(path)
    hints = Hints(path=str(path), policy_file=str(policy_paths[0]) if policy_paths else "POLICY")
    with bar(f"judging {path}") as archive.progress:
        return judge(measured, action, policies, archive, clock=archive.clock, hints=hints)


def _words(verdict: Verdict) -> str:
    from mlseal.policy.verdict import once

    lines = [f"{verdict.kind.upper()}" + (" (observed only, not enforced)" if verdict.mode == "observe" else "")]
    lines[0] += " by " + (
        ", ".join(f"{name} (sha256 {sha256[:16]}…)" for name, sha256 in verdict.policies) or "no policy"
    )
    for reason in once(verdict.reasons):
        lines.append(f"  {'·' if reason.outcome == 'note' else '✗'} {reason.rule}: {reason.message}")
        lines += [
            f"      {name}: {text}" for name, text in (("got", reason.got), ("expected", reason.expected)) if text
        ]
        lines += [f"      do: {reason.remedy}"] if reason.remedy else []
        lines += [f"      control: {', '.join(reason.control)}"] if reason.control else []
    lines += [
        f"  asked OPA: {one.decision} of {one.server} says {_SAYS[one.answer]}"
        + (f", revision {one.revision} by its own word" if one.revision else "")
        for one in verdict.asked
    ]
    levels = ", ".join(f"{axis} {level}" for axis, level in verdict.assurance.items())
    lines.append(f"  rests on {len(verdict.inputs)} pieces of evidence, log size {verdict.tree_size}; {levels}")
    return "\n".join(lines)


def _wants(policy: Policy) -> dict[str, object]:
    return {
        "policy": policy.name,
        "sha256": policy.sha256,
        "require": [
            {
                "id": r.id,
                "predicateType": r.predicate_type,
                "by": [str(m) for m in r.by],
                "rules": [rule.id for rule in r.rules],
                **({"effectiveOn": rfc3339(r.part.effective_on)} if r.part.effective_on else {}),
            }
            for r in policy.require
        ],
        "opa": [{"id": engine.id, "server": engine.server, "decision": engine.decision} for engine in policy.engines],
    }


def _verdict_bundle(path: Path) -> Bundle | None:
    """The bundle at `path` if it holds a signed verdict; None for anything else, which is then judged."""
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.predicates import slsa_vsa

    if not path.is_file() or not path.name.endswith(".json"):
        return None
    try:
        bundle = Bundle.read(path)
        is_verdict = bundle.statement.predicate_type == slsa_vsa.URI
    except Error:
        return None
    return bundle if is_verdict else None


def _explain_verdict(bundle: Bundle, policy_paths: Sequence[Path], trust_path: str | None, *, as_json: bool) -> None:
    from mlseal.evidence.predicates import slsa_vsa
    from mlseal.evidence.revocation import NOTHING_REVOCABLE
    from mlseal.evidence.tiles import service_tiles
    from mlseal.evidence.verifying import Verifier

    said = bundle.statement
    gates = [matcher for policy in (policies_of(policy_paths) if policy_paths else ()) for matcher in policy.gate]
    if gates:
        trust = trust_roots.resolve(trust_path)
        Verifier(trust, tiles=dict(service_tiles(trust))).verify(
            bundle,
            predicate_type=slsa_vsa.URI,
            identities=gates,
            subjects=[said.subjects[-1].sha256],
            revocations=NOTHING_REVOCABLE,
        )
    if as_json:
        click.echo(json.dumps({"verified": bool(gates), "statement": json.loads(said.payload)}))
    else:
        details = dict(said.predicate.get("mlseal") or {})
        kind = str(details.get("verdict", said.predicate.get("verificationResult")))
        click.echo(f"{kind.upper()} of {said.subjects[0].name}")
        for reason in details.get("reasons", []):
            click.echo(f"  {reason.get('rule')}: {reason.get('message')}")
            for name in ("got", "expected", "remedy"):
                if reason.get(name):
                    click.echo(f"      {name}: {reason[name]}")
    if not gates:
        raise Unchecked(
            "the verdict's signer was not checked", expected="a policy with gate:", remedy="pass --policy FILE"
        )


def _say(document: dict[str, object], words: str, *, as_json: bool) -> None:
    click.echo(json.dumps(document) if as_json else words)
