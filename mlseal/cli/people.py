"""``mlseal approve · waive``: what people decide. Thin: arguments in, one signed statement, words out."""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, STORE, TOKEN, TRUST
from mlseal.errors import Misuse, UnknownName, Unreadable
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.clock import rfc3339, utcnow

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.identity import Identity
    from mlseal.evidence.statement import Statement
    from mlseal.policy.model import Policy

OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bundle here as well.")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--evidence", metavar="ID|BUNDLE", multiple=True, required=True, help="Evidence you have read; may be repeated."
)
@click.option("--days", type=click.IntRange(1, 730), default=90, show_default=True, help="Validity of the approval.")
@click.option("--capacity", help="In what capacity, such as clinical-safety.")
@click.option("--scope", help="For what, such as production.")
@click.option("--comment-file", type=click.Path(path_type=Path), help="Your comment; only its digest is signed.")
@click.option("--reject", is_flag=True, help="Say no instead of yes.")
@click.option("--role", default="reviewer", show_default=True, help="Role to sign as, such as reviewer/17.")
@OUTPUT
@TRUST
@STORE
@TOKEN
@JSON
def approve(
    path: Path,
    evidence: tuple[str, ...],
    days: int,
    capacity: str | None,
    scope: str | None,
    comment_file: Path | None,
    reject: bool,
    role: str,
    output: Path | None,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Approve PATH, a file or directory, as a person who has read the named evidence.

    \b
    Example: mlseal approve model/ --evidence 9f2c… --capacity clinical-safety --role reviewer/17
    """  # noqa: D301
    from mlseal.cli.progress import bar
    from mlseal.evidence import statement
    from mlseal.evidence.digest import measure
    from mlseal.evidence.predicates import human_approval

    claim = human_approval.Predicate(
        decision="reject" if reject else "approve",
        role=capacity,
        scope=scope,
        reviewed=[_reviewed(item, store_path) for item in evidence],
        expires=rfc3339(utcnow() + timedelta(days=days)),
        comment_digest=hashlib.sha256(_bytes(comment_file)).hexdigest() if comment_file else None,
        not_proven=["that the person understood what was read"],
        nonce=secrets.token_hex(16),
    )
    with bar(f"reading {path}"):
        measured = measure(path)
    made = statement.make(measured.subjects, human_approval.URI, claim.to_json())
    bundle = sign_as(made, role, trust_path, store_path, token_file, output)
    _say(
        {
            "evidenceId": bundle.evidence_id,
            "decision": claim.decision,
            "sha256": measured.sha256,
            "expires": claim.expires,
        },
        f"{claim.decision} of {path} ({measured.sha256[:16]}…) until {claim.expires}: evidence {bundle.evidence_id}",
        as_json=as_json,
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--rule", required=True, help="Id of the rule to excuse.")
@click.option("--policy", "policy_path", required=True, type=click.Path(path_type=Path), help="The policy that has it.")
@click.option("--reason", required=True, help="Why; goes into the signed statement, so name no person.")
@click.option("--days", type=click.IntRange(1, 365), required=True, help="After how many days the waiver ends.")
@click.option("--role", default="owner", show_default=True, help="Role to sign as.")
@OUTPUT
@TRUST
@STORE
@TOKEN
@JSON
def waive(
    path: Path,
    rule: str,
    policy_path: Path,
    reason: str,
    days: int,
    role: str,
    output: Path | None,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Excuse one rule of a policy for PATH, with a reason and an end.

    It counts if the policy lists you under waivers and you made none of the evidence that it excuses. Where the policy
    lists nobody, or not the role that signs, nothing is signed.
    """
    from mlseal.cli.progress import bar
    from mlseal.evidence import statement
    from mlseal.evidence.digest import measure
    from mlseal.evidence.predicates import waiver
    from mlseal.policy.load import load

    policy = load(policy_path)
    _require_waivable(policy, rule)
    _require_listed(policy, None)
    if not reason.strip():
        raise Misuse("a waiver without a reason counts nowhere", expected="--reason TEXT", remedy="say why")
    claim = waiver.Predicate(
        rule=rule,
        policy=policy.stating(rule),
        reason=reason,
        expires=rfc3339(utcnow() + timedelta(days=days)),
        not_proven=["that the rule holds"],
        nonce=secrets.token_hex(16),
    )
    with bar(f"reading {path}"):
        measured = measure(path)
    made = statement.make(measured.subjects, waiver.URI, claim.to_json())
    bundle = sign_as(
        made, role, trust_path, store_path, token_file, output, allowed=lambda who: _require_listed(policy, who)
    )
    _say(
        {"evidenceId": bundle.evidence_id, "rule": rule, "policy": claim.policy, "expires": claim.expires},
        f"rule {rule} of {claim.policy} waived for {path} until {claim.expires}: evidence {bundle.evidence_id}",
        as_json=as_json,
    )


def sign_as(
    made: Statement,
    role: str,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    output: Path | None,
    *,
    allowed: Callable[[Identity], None] | None = None,
) -> Bundle:
    """Sign, publish to the store (a log entry without its bundle would stop every judge), and write a copy.

    `allowed` is told who signs, and raises where that would be in vain; nothing is signed then.
    """
    from mlseal.evidence import store
    from mlseal.evidence.signing import signer_for

    signer = signer_for(
        role, trust=trust_roots.resolve(trust_path), store=store.resolve(store_path), token_file=token_file
    )
    if allowed is not None:
        allowed(signer.identity())
    bundle = signer.sign(made)
    if output is not None:
        bundle.write(output)
    return bundle


def _reviewed(item: str, store_path: str | None) -> str:
    """The evidence id that `item` stands for: an id, its unique beginning of 8 digits or more, or a bundle file."""
    from mlseal.evidence import store
    from mlseal.evidence.beginning import full
    from mlseal.evidence.bundle import Bundle

    if Path(item).is_file():
        return Bundle.read(item).evidence_id
    kept = store.resolve(store_path)
    return full(item, kept.ids, where=f"in {kept}", remedy="take the id from 'mlseal explain', or name a bundle file")


def _require_waivable(policy: Policy, rule: str) -> None:
    known = {r.id: True for r in policy.require} | {c.id: c.waivable for r in policy.require for c in r.rules}
    if rule not in known:
        raise UnknownName(f"{policy.name} has no rule {rule!r}", expected=", ".join(sorted(known)))
    if not known[rule]:
        raise Misuse(f"rule {rule} of {policy.name} cannot be waived", remedy="satisfy it")


def _require_listed(policy: Policy, who: Identity | None) -> None:
    """Raise `Misuse` where a waiver by `who`, or by anybody, could not count: success must not be reported for one."""
    if not policy.waivers:
        raise Misuse(
            f"{policy.name} lists nobody under waivers, so no waiver of its rules counts",
            expected="waivers: {by: […]} in the policy",
            remedy="satisfy the rule, or have the policy's owner list who may waive",
        )
    if who is not None and not any(matcher.matches(who) for matcher in policy.waivers):
        raise Misuse(
            f"{policy.name} does not list this signer under waivers, so the waiver would not count",
            got=who,
            expected=" or ".join(map(str, policy.waivers)),
            remedy="sign as somebody who is listed: --role ROLE, or --token-file FILE",
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror) from error


def _say(document: dict[str, object], words: str, *, as_json: bool) -> None:
    click.echo(json.dumps(document) if as_json else words)
