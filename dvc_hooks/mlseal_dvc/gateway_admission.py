"""Which bytes may be stored: those that a verified statement lists.

Steps of `Admission.judge` for a bundle, as `checking` has them for a reader, under these numbers; an exception refuses:

1. The statement says for which path and object it is; who may sign that comes from the gateway's policy or options.
2. A file has one subject; a directory has two, OMS root and ``#manifest``, both recomputed from the manifest's bytes.
3. `mlseal.evidence.verifying.Verifier`, all its steps, revocations included.
4. The name that the bundle was sent under is the one that follows from what it says and from who signed it: evidence
   does not count for another path, object or signer.
5. Every matching policy accepts signer, age and assurance.

Then `object_allowed`: a file passes when a bundle that still holds lists the SHA-256 of the whole body. A directory
object passes when a bundle names its id and its bytes list exactly the manifest's paths, with no object of which this
gateway knows that it has other bytes than the manifest says. The MD5 in the name is compared with the body, and decides
nothing else.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from mlseal.errors import (
    DigestMismatch,
    Error,
    ForgedEvidence,
    MalformedEvidence,
    NoEvidence,
    NotInitialised,
    Refusal,
    StaleEvidence,
)
from mlseal.evidence import predicates
from mlseal.evidence.bundle import MAX_BYTES as MAX_BUNDLE
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Manifest
from mlseal.evidence.predicates import data_provenance, revocation, revocation_snapshot
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocations
from mlseal.evidence.statement import Statement
from mlseal.evidence.trust import LogKey, Trust
from mlseal.evidence.verifying import Verifier
from mlseal.tlog.tiles import TileSource
from mlseal_dvc import governing, layout, logcopy, objects, revoked
from mlseal_dvc.checking import filed
from mlseal_dvc.gateway_ledger import Ledger
from mlseal_dvc.gateway_upstream import EvidenceUpstream, Upstream, UpstreamFailed, evidence_name, read_small
from mlseal_dvc.governing import Rule
from mlseal_dvc.session import Session

HOLDS_SECONDS = 300.0
"""How long a bundle counts as verified; then it is read and verified again, revocations included."""

ReadManifest = Callable[[str], bytes | None]
"""Bytes of the manifest with a digest, None if nobody sent it."""


@dataclass(frozen=True)
class Judged:
    """A bundle that may be stored, and what it allows."""

    statement: Statement
    oid: str
    manifest: Manifest | None
    time: datetime

    @cached_property
    def listed(self) -> frozenset[str]:
        """SHA-256 of every file."""
        if self.manifest is None:
            return frozenset({self.statement.subjects[0].sha256})
        return frozenset(entry.sha256 for entry in self.manifest.files)


class Admission:
    """Judges bundles and objects under one trust root and the session's rules."""

    def __init__(self, trust: Trust, session: Session, upstream: Upstream, ledger: Ledger) -> None:
        self.trust, self._session, self._upstream, self._ledger = trust, session, upstream, ledger
        self.policies = () if session.identities else governing.load_policies(session)
        self._place = EvidenceUpstream(upstream)
        self.tiles = logcopy.tiles_for(trust, [self._place])
        self._verifier = Verifier(trust, tiles=self.tiles, clock=session.clock)
        self._lock = threading.RLock()
        self._holds: dict[str, tuple[float, Judged]] = {}
        self._known: tuple[float, Revocations] | None = None

    def require_signers(self) -> None:
        """Raise `NotInitialised` if nobody is named who may sign anything."""
        facts = {"tool": "dvc", "action": "push"}
        if not self._session.identities and not any(policy.applies(facts) for policy in self.policies):
            raise NotInitialised(
                "nobody is named whose data the gateway admits",
                expected="--policy with an entry for tool: dvc, or --identity SAN --issuer URL",
            )

    def require_consistent(self, log: LogKey, note: str, tiles: TileSource) -> None:
        """Raise `SplitView` unless the log's signed `note` continues what this gateway has seen; remember it."""
        with self._lock:
            self._verifier.checkpoints.require_consistent(log, note, tiles)

    def judge(self, name: str, bundle: Bundle, manifest: ReadManifest) -> Judged:
        """Verify `bundle`, sent as `name`; see the module. Raises `Error`."""
        said = bundle.statement
        if said.predicate_type != data_provenance.URI:
            raise MalformedEvidence("not a statement about data", got=said.predicate_type, expected=data_provenance.URI)
        claim = predicates.check(said.predicate_type, said.predicate)
        assert isinstance(claim, data_provenance.Predicate)
        rules = self._rules(claim)  # (1)
        parsed = _manifest(said, claim, manifest)  # (2)
        digests = [parsed.oms_root, parsed.sha256] if parsed else [said.subjects[0].sha256]
        with self._lock:
            verified = self._verifier.verify(  # (3)
                bundle,
                predicate_type=data_provenance.SHORT,
                identities=[identity for rule in rules for identity in rule.identities],
                subjects=digests,
                revocations=self._revocations(),
            )
        if evidence_name(filed(verified)) != name:  # (4)
            raise ForgedEvidence(
                "this evidence belongs somewhere else", got=name, expected=evidence_name(filed(verified))
            )
        for rule in rules:  # (5)
            rule.require(verified)
        return Judged(verified.statement, claim.dvc.oid, parsed, verified.time)

    def admit(self, name: str, bundle: Bundle, judged: Judged) -> None:
        """From now on `judged`, stored at `name`, allows what it lists."""
        self._ledger.note(name, judged.oid, bundle.sha256, judged.listed)
        self._hold(name, judged)

    def require_newer(self, name: str, judged: Judged) -> None:
        """Raise unless the bundle stored at `name` holds no longer, or is older than `judged`."""
        raw = read_small(self._upstream, name, MAX_BUNDLE)
        try:
            stored = self.judge(name, Bundle(raw or b""), self.stored_manifest)
        except UpstreamFailed:
            raise
        except Error:
            return
        if stored.time >= judged.time:
            raise StaleEvidence(
                "newer evidence is stored under this name", got=str(judged.time), expected=str(stored.time)
            )

    def seen(self, name: str, raw: bytes) -> None:
        """Somebody read the bundle at `name` from the store: every push does so first. Noted if it holds."""
        bundle = Bundle(raw)
        if self._ledger.known(name) != bundle.sha256:
            self.admit(name, bundle, self.judge(name, bundle, self.stored_manifest))

    def stored_manifest(self, sha256: str) -> bytes | None:
        """The manifest in the store."""
        return self._place.read(layout.manifest(sha256))

    def object_allowed(self, oid: str, sha256: str, read: Callable[[], bytes]) -> None:
        """Raise unless the bytes with this digest may stand under `oid`; `read` gives them, for directory objects."""
        directory = oid.endswith(".dir")
        why: Error | None = None
        for name in self._ledger.about(oid) if directory else self._ledger.listing(sha256):
            try:
                judged = self._holding(name)
                if directory:
                    self._require_tree(judged, read())
                elif sha256 not in judged.listed:
                    continue
            except UpstreamFailed:
                raise
            except Error as error:
                why = error
            else:
                return
        if why is not None:
            raise why
        raise NoEvidence(
            f"nobody signed {oid} with sha256 {sha256[:16]}…",
            expected="a verified bundle that lists it, sent before the data",
            remedy="push with mlseal: 'dvc push' with the autoload, or 'mlseal dvc push'",
        )

    def _holding(self, name: str) -> Judged:
        """What the bundle at `name` allows, verified within the last minutes. Raises `Error` if it allows nothing."""
        held = self._holds.get(name)
        if held is not None and time.monotonic() - held[0] < HOLDS_SECONDS:
            return held[1]
        raw = read_small(self._upstream, name, MAX_BUNDLE)
        try:
            if raw is None:
                raise NoEvidence(f"the bundle {name} is no longer in the store", remedy="push again")
            judged = self.judge(name, Bundle(raw), self.stored_manifest)
        except Refusal:
            self._ledger.forget(name)
            raise
        self._hold(name, judged)
        return judged

    def _hold(self, name: str, judged: Judged) -> None:
        with self._lock:
            self._holds = {n: h for n, h in self._holds.items() if time.monotonic() - h[0] < HOLDS_SECONDS}
            self._holds[name] = time.monotonic(), judged

    def _require_tree(self, judged: Judged, raw: bytes) -> None:
        if judged.manifest is None:
            raise ForgedEvidence("the evidence for this directory object is about a file")
        tree = objects.read_tree(raw, "the sent directory")
        signed = {entry.path: entry.sha256 for entry in judged.manifest.files}
        if tree.keys() != signed.keys():
            differing = min(tree.keys() ^ signed.keys())
            raise DigestMismatch(
                "the directory object does not list the files of the signed manifest",
                got=f"{len(tree)} files, {differing!r} in only one of both",
                expected=f"{len(signed)} files",
            )
        known = self._ledger.stored(set(tree.values()))
        for path, oid in tree.items():
            if known.get(oid, signed[path]) != signed[path]:
                raise DigestMismatch(
                    f"the directory object puts another object at {path!r} than the signed manifest", got=oid
                )

    def _rules(self, claim: data_provenance.Predicate) -> Sequence[Rule]:
        if self._session.identities:
            return (Rule("the command line", self._session.identities),)
        from mlseal.policy import dates, layers

        closed = dates.refusals(self.policies, _facts(claim), self._session.clock())
        governing.require_open([why for _, why in closed])
        policies = layers.governing(self.policies, _facts(claim))
        if not policies:
            raise Refusal(
                f"nobody is named who may sign {claim.path}", expected="a policy for tool: dvc at the gateway"
            )
        return governing.rules_of(policies, self._session)

    def _revocations(self) -> Revocations:
        now = time.monotonic()
        if self._known is None or now - self._known[0] > HOLDS_SECONDS / 5:
            known = revoked.known(self.trust, self.policies, [self._place], self._session.clock)
            self._known = now, known
        return self._known[1]

    def require_revocation(self, evidence_id: str, bundle: Bundle) -> None:
        """Raise unless a revoker of the gateway's policies signed this revocation or snapshot."""
        revokers = [identity for policy in self.policies for identity in policy.revokers]
        if not revokers:
            raise Refusal("the gateway's policy names nobody who may revoke", remedy="list them under 'revokers' there")
        with self._lock:
            verified = self._verifier.verify(
                bundle,
                predicate_type=(revocation.URI, revocation_snapshot.URI),
                identities=revokers,
                subjects=[bundle.statement.subjects[0].sha256],
                revocations=NOTHING_REVOCABLE,
            )
        if verified.evidence_id != evidence_id:
            raise ForgedEvidence("a revocation is filed by its id", got=evidence_id, expected=verified.evidence_id)
        self._known = None
        self._holds = {}


def _facts(claim: data_provenance.Predicate) -> dict[str, str]:
    """What policies match. A committed path is left out, which they read as covered, so all of them must accept."""
    from mlseal.policy.names import canonical

    facts = {"tool": "dvc", "action": "push"}
    if claim.names_salt is None:
        try:
            facts["output"] = canonical(claim.path)
        except ValueError:
            return facts
    return facts


def _manifest(said: Statement, claim: data_provenance.Predicate, read: ReadManifest) -> Manifest | None:
    """Step 2."""
    if not claim.dvc.oid.endswith(".dir"):
        if len(said.subjects) != 1:
            raise MalformedEvidence("evidence about a file has one subject", got=len(said.subjects))
        return None
    if len(said.subjects) != 2 or not said.subjects[1].name.endswith("#manifest"):
        raise MalformedEvidence("evidence about a directory has a root and a manifest", got=len(said.subjects))
    sha256 = said.subjects[1].sha256
    raw = read(sha256)
    if raw is None:
        raise NoEvidence(
            f"manifest {sha256[:16]}… was not sent", expected="manifest, then bundle, then data", remedy="push again"
        )
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise DigestMismatch("the stored manifest is not the signed one", expected=sha256[:16])
    manifest = Manifest.from_bytes(raw)
    if (claim.files, claim.size) != (len(manifest.files), manifest.total_size):
        raise ForgedEvidence("the evidence contradicts its manifest", got=f"{claim.files} files")
    return manifest
