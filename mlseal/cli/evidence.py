"""``mlseal sign · verify · revoke``: evidence by hand. Thin: arguments in, one core call, words out."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from mlseal.errors import Error, MalformedEvidence, Misuse, Unchecked
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import Identity

TRUST = click.option("--trust", "trust_path", metavar="FILE", help="Trust root to use (default: the pinned one).")
STORE = click.option(
    "--store",
    "store_path",
    metavar="DIR|URL",
    type=click.Path(path_type=str),  # text: as a path, s3://bucket would be s3:/bucket
    help="Evidence store: a directory, or a bucket such as s3://bucket/prefix.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
ROLE = click.option("--role", default="producer", show_default=True, help="Role to sign as.")
KEY = click.option(
    "--key",
    "key_uri",
    metavar="URI",
    envvar="MLSEAL_KEY",
    help="Sign with this key, in place of a role (docs/keys.md).",
)
TOKEN = click.option("--token-file", type=click.Path(path_type=Path), help="Identity token (JWT) to show to the CA.")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--type", "predicate_type", required=True, help="Predicate type: URI or short name.")
@click.option("--predicate", "predicate_file", type=click.Path(path_type=Path), help="JSON file with the claim.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the bundle.")
@ROLE
@TRUST
@STORE
@TOKEN
@KEY
@JSON
def sign(
    path: Path,
    predicate_type: str,
    predicate_file: Path | None,
    output: Path | None,
    role: str,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    key_uri: str | None,
    as_json: bool,
) -> None:
    """Sign a claim about PATH, a file or directory.

    \b
    Example: mlseal sign model/ --type test-result --predicate result.json -o model.sigstore.json
             mlseal sign model/ --type oms-signature -o model.sig
             mlseal sign model/ --type oms-signature --key file2:release.pem
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.cli.progress import bar
    from mlseal.evidence import oms, predicates, statement, store
    from mlseal.evidence.digest import measure
    from mlseal.evidence.hashcache import HashCache
    from mlseal.evidence.signing import signer_for

    uri = predicates.uri_of(predicate_type)
    with HashCache() as cache, bar(f"reading {path}"):
        measured = measure(path, cache=cache)
    if uri == oms.URI:
        made = oms.make(measured)
    else:
        if predicate_file is None:
            raise Misuse("a claim is needed", remedy=f"pass --predicate FILE with the fields of {predicate_type}")
        made = statement.make(measured.subjects, uri, _claim(uri, predicate_type, predicate_file))
    kept = store.resolve(store_path)
    signer = signer_for(role, trust=trust_roots.resolve(trust_path), store=kept, token_file=token_file, key=key_uri)
    with bar("signing"):
        bundle = signer.sign(made)
    if output is not None:
        bundle.write(output)
    say(
        as_json,
        {
            "evidenceId": bundle.evidence_id,
            "bundle": str(output or kept.where(bundle.evidence_id)),
            "sha256": measured.sha256,
        },
        f"signed {measured.path} (sha256 {measured.sha256[:16]}…) as evidence {bundle.evidence_id}"
        f" → {output or kept.where(bundle.evidence_id)}",
    )


@click.command()
@click.argument("bundle_path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--subject", type=click.Path(path_type=Path), help="File or directory that the evidence must be about.")
@click.option("--identity", "san", help="Expected signer (SAN).")
@click.option("--issuer", help="Expected issuer of the signer's token.")
@click.option("--key", "fingerprint", metavar="sha256:…", help="Expected key, in place of an identity.")
@click.option(
    "--policy", "policy_path", type=click.Path(path_type=Path), help="Policy that names the expected signers."
)
@TRUST
@STORE
@JSON
def verify(
    bundle_path: Path,
    subject: Path | None,
    san: str | None,
    issuer: str | None,
    fingerprint: str | None,
    policy_path: Path | None,
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Verify one BUNDLE against the bytes it is about.

    The signer is --identity with --issuer, or --key, or what the policy lists for this predicate type. Without
    --subject the bytes stay unchecked and the exit code is 11.

    What the policy's revokers took back is refused; without a policy that lists any, what the signer or the local
    authority's monitor took back. If the log or the store cannot be read the answer is 11 under such a policy, else the
    output says that revocations were not checked. Their freshness and everything else that the log holds about the
    subject is what 'mlseal gate' looks at.
    """
    from mlseal.cli.progress import bar
    from mlseal.evidence import oms
    from mlseal.evidence.digest import measure
    from mlseal.evidence.revocation import NOTHING_REVOCABLE
    from mlseal.evidence.tiles import service_tiles
    from mlseal.evidence.verifying import Verifier

    bundle = _bundle(bundle_path)
    said = bundle.statement
    identities, revokers = _expected(san, issuer, fingerprint, policy_path, said.predicate_type)
    chosen = trust_roots.resolve(trust_path)
    with bar(f"reading {subject}"):
        measured = measure(subject) if subject is not None else None
    about = said.subjects[0].sha256
    if measured is not None:
        about = oms.named_digest(said.predicate_type, measured.sha256, measured.manifest)
    verified = Verifier(chosen, tiles=dict(service_tiles(chosen))).verify(
        bundle,
        predicate_type=said.predicate_type,
        identities=identities,
        subjects=[about],
        revocations=NOTHING_REVOCABLE,  # asked for below, so that a bundle that is wrong anyway costs no log
    )
    if measured is not None and said.predicate_type == oms.URI:
        oms.require_names(verified.statement, measured.manifest)
    with bar("looking for revocations"):
        unchecked = _require_not_revoked(verified, chosen, store_path, revokers)
    facts = {
        "evidenceId": verified.evidence_id,
        "predicateType": verified.predicate_type,
        "identity": verified.identity.san,
        "issuer": verified.identity.issuer,
        "time": rfc3339(verified.time),
        "logIndex": verified.log.index,
        "assurance": vars(verified.assurance),
        "bytesChecked": measured is not None,
        "revocationsChecked": unchecked is None,
    }
    doubt = f"; revocations not checked: {unchecked}" if unchecked else ""
    if measured is None:
        if as_json:
            click.echo(json.dumps(facts))
        raise Unchecked(
            "signature is good, bytes not checked",
            got=f"signed by {verified.identity.san}{doubt}",
            remedy="pass --subject PATH",
        )
    say(
        as_json,
        facts,
        f"verified: {verified.predicate_type} about {measured.path},"
        f" signed by {verified.identity} on {rfc3339(verified.time)}{doubt}",
    )


@click.command()
@click.argument("evidence_id", required=False)
@click.option(
    "--reason", type=click.Choice(["superseded", "expired", "withdrawn"]), default="withdrawn", show_default=True
)
@click.option("--comment", help="Why; everyone who gets the revocation reads it, so name no person.")
@click.option("--snapshot", is_flag=True, help="Only state anew which evidence is revoked.")
@click.option(
    "--valid-hours", type=click.IntRange(1, 24 * 90), default=24, show_default=True, help="Validity of the snapshot."
)
@click.option("--role", default="monitor", show_default=True, help="Role to sign as.")
@TRUST
@STORE
@TOKEN
@JSON
def revoke(
    evidence_id: str | None,
    reason: str,
    comment: str | None,
    snapshot: bool,
    valid_hours: int,
    role: str,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Take evidence EVIDENCE_ID (its first 8 digits or more) back, and sign a fresh snapshot of all that is revoked.

    \b
    Example: mlseal revoke 9f2c… --reason withdrawn --comment "drift alarm"
             mlseal revoke --snapshot
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.evidence.revoking import named
    from mlseal.evidence.revoking import revoke as revoke_one
    from mlseal.evidence.revoking import snapshot as sign_snapshot

    if (evidence_id is None) == (not snapshot):
        raise Misuse(
            "name one evidence id, or pass --snapshot", remedy="mlseal revoke EVIDENCE_ID, or mlseal revoke --snapshot"
        )
    archive, signer = _archive_and_signer(trust_path, store_path, role, token_file)
    made: dict[str, Any] = {}
    if evidence_id is not None:
        evidence_id = named(archive, evidence_id)
        made["revocation"] = revoke_one(archive, signer, evidence_id, reason=reason, comment=comment).evidence_id
    try:
        made["snapshot"] = sign_snapshot(archive, signer, valid_for=timedelta(hours=valid_hours)).evidence_id
    except Error:
        if evidence_id is not None:
            click.echo(f"{evidence_id} is revoked; what follows is about the snapshot alone", err=True)
        raise
    say(
        as_json,
        made,
        (f"revoked {evidence_id} ({reason}); " if evidence_id else "")
        + f"snapshot {made['snapshot'][:16]}… valid {valid_hours} h",
    )


def _archive_and_signer(
    trust_path: str | None, store_path: str | None, role: str, token_file: Path | None
) -> tuple[Any, Any]:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.signing import signer_for

    archive = Archive.open(trust_roots.resolve(trust_path), store_path)
    archive.refresh()
    return archive, signer_for(role, trust=archive.trust, store=archive.store, token_file=token_file)


def _expected(
    san: str | None, issuer: str | None, fingerprint: str | None, policy_path: Path | None, predicate_type: str
) -> tuple[list[Any], list[Any]]:
    """Who may have signed, and who a policy says may take it back."""
    if (san is None) != (issuer is None):
        raise Misuse("--identity and --issuer belong together", remedy="pass both, or neither with a policy")
    if fingerprint is not None and san is not None:
        raise Misuse("a bundle has one signer", got="--identity and --key", remedy="pass one of them")
    named: list[Any] = [Identity(issuer, san)] if san is not None and issuer is not None else []
    if fingerprint is not None:
        from mlseal.evidence.keyholder import KeyHolder

        named = [KeyHolder(fingerprint)]
    if named and policy_path is None:
        return list(named), []
    from mlseal.policy.load import in_force

    policies = in_force([policy_path] if policy_path else [])
    if not policies:
        raise Misuse(
            "nobody is expected to have signed",
            expected="--identity with --issuer, --key, or a policy",
            remedy="pass --policy FILE, or set MLSEAL_POLICY",
        )
    wanted = [r for policy in policies for r in policy.require if r.predicate_type == predicate_type]
    signers = named or [matcher for requirement in wanted for matcher in requirement.by]
    return list(signers), [matcher for policy in policies for matcher in policy.revokers]


def _require_not_revoked(verified: Any, trust: Any, store_path: str | None, revokers: list[Any]) -> str | None:
    """Refuse what was taken back; returns why that is not known, where nothing demands that it is."""
    from mlseal.evidence.archive import Archive

    heard = revokers or [verified.identity, trust_roots.LocalRole(trust, "monitor")]
    try:
        archive = Archive.open(trust, store_path)
        archive.refresh()
        archive.require_shown(heard)
        known = archive.revocations(heard)
    except Unchecked as error:
        if revokers:
            raise
        return error.message
    known.require_not_revoked(verified.evidence_id)
    return None


def _bundle(path: Path) -> Bundle:
    """The bundle in `path`; what is something else was most likely meant as the artifact."""
    bundle = Bundle.read(path)
    try:
        _ = bundle.document
    except MalformedEvidence as error:
        raise MalformedEvidence(
            f"{path} is no bundle: {error.message}",
            got=error.got,
            expected=error.expected,
            remedy="pass the bundle first and the artifact as --subject: mlseal verify BUNDLE --subject PATH",
        ) from error
    return bundle


def _claim(uri: str, name: str, path: Path) -> dict[str, Any]:
    """The claim in a file that the caller wrote; what is wrong with it is theirs to mend."""
    from mlseal.evidence import predicates

    try:
        claim = _object(path)
        predicates.check(uri, claim)
    except MalformedEvidence as error:
        known = next((short for short, long in predicates.SHORT.items() if long == uri), name)
        raise Misuse(
            f"{path} holds no {known} claim: {error.message}",
            got=error.got,
            expected=error.expected,
            remedy=f"docs/predicates/{known}.md has its fields and a whole example",
        ) from error
    return claim


def _object(path: Path) -> dict[str, Any]:
    from mlseal.evidence import canonical

    value = canonical.parse(_read(path), what=str(path))
    if not isinstance(value, dict):
        raise MalformedEvidence("no JSON object", got=type(value).__name__)
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        from mlseal.errors import Unreadable

        raise Unreadable(f"cannot read {path}", got=error.strerror) from error


def say(as_json: bool, document: dict[str, Any], words: str) -> None:
    """Print `document` as JSON, or `words`."""
    click.echo(json.dumps(document) if as_json else words)
