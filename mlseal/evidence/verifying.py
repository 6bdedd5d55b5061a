"""The only maker of `VerifiedStatement`.

Everything before this module is claim, everything after it may rely on these steps, performed under these numbers.
Any exception refuses; there is no partial result.

0. Parse strictly: the exact members of bundle v0.3 in certificate or key form, one signature, one log entry, one
   timestamp, canonical base64, no duplicate keys.
1. The trust root has not expired.
2. Stock verification by sigstore-python: chain, SCT, key usage, timestamp, inclusion, checkpoint signature, envelope
   signature, log body (its own steps 0 to 8). Where a key signed, the same code for timestamp, inclusion and
   checkpoint; key, signature and body are then asked in step 3 (`mlseal.evidence.keysigned`).
3. What stock verifiers let pass (tried on sigstore-python 4.5.1 and @sigstore/verify 4.1.3): top-level log index,
   tree size, root hash, integrated time, leftovers of Rekor v1, entry kind, checkpoint origin and key name, log id,
   validity of the log at the verified time, times in the future, several or unnamed identities in the certificate.
   With it, a key that is listed is asked for the time of its signature, before anything that whoever stole it could
   get wrong on purpose: what it signs outside of its time is a stranger's, whatever it says.
4. The checkpoint is consistent with the one this verifier pinned for that log.
5. The evidence is not revoked, as far as the given revocations know.
6. The statement is about every digest that the caller recomputed from bytes.
7. The predicate is of the expected type and obeys its schema.
8. The signer is an identity expected for that predicate type; a key only for work.

The caller owes: the digests (from bytes, of the copy that it then uses), the expected identities (from a policy, never
from the evidence), freshness, and the freshness of the revocations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NoReturn, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel

from mlseal.errors import DigestMismatch, Error, ForgedEvidence, MalformedEvidence, UntrustedSigner
from mlseal.evidence import canonical, keyholder, keysigned, predicates, statement, strict
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import KEY_ISSUER, Identity, IdentityMatcher
from mlseal.evidence.revocation import Revocations
from mlseal.evidence.statement import Statement
from mlseal.evidence.trust import LogKey, Trust
from mlseal.tlog.tiles import TileSource

if TYPE_CHECKING:
    from sigstore.models import Bundle as StockBundle
    from sigstore.verify import Verifier as StockVerifier

_SEAL = object()

_REMEMBERED = 4096

IDENTITY_LEVELS = ("local", "key", "verified-token")
LOG_LEVELS = ("unwitnessed", "pinned", "witnessed")
TIME_LEVELS = ("local", "independent")


@dataclass(frozen=True)
class Assurance:
    """How much stands behind a verified statement, per axis, computed here and never read from a statement.

    Attributes:
        identity: ``local`` when the authority's own issuer vouched for a local user, ``key`` when whoever holds a key
            signed, ``verified-token`` when the CA verified the token of an external identity provider.
        log: ``unwitnessed`` at first contact, ``pinned`` when consistency with a remembered checkpoint was proved.
        time: ``local`` when the authority that signs also tells the time, ``independent`` when another one does.
    """

    identity: Literal["local", "key", "verified-token"]
    log: Literal["unwitnessed", "pinned", "witnessed"]
    time: Literal["local", "independent"]


@dataclass(frozen=True)
class LogPosition:
    """Where the log holds the evidence."""

    origin: str
    index: int
    tree_size: int


@final
@dataclass(frozen=True)
class VerifiedStatement:
    """A statement that passed every step. Only this module makes one.

    Python cannot forbid ``object.__new__``; a test of the architecture finds every module that would go around.
    """

    statement: Statement
    predicate: BaseModel
    identity: Identity
    time: datetime
    log: LogPosition
    assurance: Assurance
    bundle_sha256: str
    seal: InitVar[object]

    def __init_subclass__(cls) -> None:
        raise TypeError("a VerifiedStatement has no subclass: one could leave its seal out")

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a VerifiedStatement comes from Verifier.verify only")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a VerifiedStatement is not carried between processes: verify the bundle there")

    @property
    def evidence_id(self) -> str:
        """Hex SHA-256 of the signed bytes."""
        return self.statement.evidence_id

    @property
    def times(self) -> tuple[datetime, ...]:
        """The verified time; before it, where a key signed, the time that the signed bytes state."""
        return _times(self.statement, self.identity, self.time)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What the statement is about."""
        return self.statement.subjects

    @property
    def predicate_type(self) -> str:
        """URI of the claim's type."""
        return self.statement.predicate_type


class Verifier:
    """Verifies bundles under one trust root.

    Args:
        trust: the root, chosen by the caller (`mlseal.evidence.trust.resolve`).
        tiles: for each log origin a source of tiles for consistency proofs; untrusted.
        checkpoints: what this verifier remembers; by default in this user's state directory, for all roots.
        clock: the injected clock.
        doubted: told the evidence id of a bundle that is refused, whose copies may be spoilt.
    """

    def __init__(
        self,
        trust: Trust,
        *,
        tiles: dict[str, TileSource] | None = None,
        checkpoints: PinnedCheckpoints | None = None,
        clock: Clock = utcnow,
        doubted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.trust = trust
        self.checkpoints = checkpoints or PinnedCheckpoints.of_user()
        self._tiles = tiles or {}
        self._clock, self._doubted = clock, doubted
        self._stock = _stock_verifier(trust)
        self._seen: dict[str, _Facts] = {}

    def verify(
        self,
        bundle: Bundle,
        *,
        predicate_type: str | Collection[str],
        identities: Sequence[IdentityMatcher],
        subjects: Collection[str],
        revocations: Revocations,
    ) -> VerifiedStatement:
        """The verified statement of `bundle`; see the module for the steps.

        Args:
            bundle: untrusted bytes.
            predicate_type: URI or short name expected, or several of them.
            identities: who may have signed; empty means nobody.
            subjects: SHA-256 digests that the statement must all name.
            revocations: what is known to be revoked. `NOTHING_REVOCABLE` where the caller judges that itself, as the
                policy does (superseded and withdrawn differ there), and for revocations themselves.

        Raises:
            Refusal, Unchecked: as the table of errors says; any other failure inside is turned into `ForgedEvidence`.
        """
        with self._refusing(bundle):
            return self._verify(bundle, predicate_type, identities, subjects, revocations)

    def signer(self, bundle: Bundle) -> Identity:
        """Who signed `bundle`, by steps 0 to 3 alone: nothing else about it may be believed.

        For choosing whose bundles must verify. What a listed identity signed has to pass `verify` or stop the caller;
        passing it over because the log cannot be compared just now would hide it. Raises as `verify`.
        """
        with self._refusing(bundle):
            return self._facts(bundle).identity

    @contextmanager
    def _refusing(self, bundle: Bundle) -> Iterator[None]:
        try:
            with _refusing():
                yield
        except (ForgedEvidence, MalformedEvidence):
            with suppress(Error):  # what has no statement has no id
                self._doubted(bundle.evidence_id)
            raise

    def _verify(
        self,
        bundle: Bundle,
        predicate_type: str | Collection[str],
        identities: Sequence[IdentityMatcher],
        subjects: Collection[str],
        revocations: Revocations,
    ) -> VerifiedStatement:
        facts = self._facts(bundle)  # (0) to (3)
        keyholder.require_term(identities, facts.identity, *facts.times)  # (3)
        tiles = self._tiles.get(facts.log.origin)
        consistent = self.checkpoints.require_consistent(facts.log, facts.note, tiles)  # (4)
        revocations.require_not_revoked(facts.statement.evidence_id)  # (5)
        _require_subjects(facts.statement, subjects)  # (6)
        predicate = _require_predicate(facts.statement, predicate_type)  # (7)
        _require_identity(facts, facts.statement.predicate_type, identities)  # (8)
        return VerifiedStatement(
            statement=facts.statement,
            predicate=predicate,
            identity=facts.identity,
            time=facts.time,
            log=LogPosition(facts.log.origin, facts.index, facts.size),
            assurance=_assurance(self.trust, facts, consistent),
            bundle_sha256=bundle.sha256,
            seal=_SEAL,
        )

    def _facts(self, bundle: Bundle) -> _Facts:
        """Steps 0 to 3, remembered by bundle digest: what they find depends on bytes and trust root only.

        What depends on the present is asked every time: whether the root has ended, and everything from step 4 on.
        """
        known = self._seen.get(bundle.sha256)
        if known is not None:
            self.trust.require_current(self._clock())  # (1)
            return known
        facts = _crypto(bundle, self.trust, self._stock, self._clock())
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[bundle.sha256] = facts
        return facts


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever goes wrong in the block refuses."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        raise ForgedEvidence("the bundle cannot be verified", got=f"{type(error).__name__}: {error}"[:200]) from error


def self_verify(bundle: Bundle, trust: Trust, *, clock: Clock = utcnow) -> None:
    """Steps 0 to 3 and 7 on one's own bundle, before it is published. Pins nothing, trusts nobody."""
    facts = _crypto(bundle, trust, _stock_verifier(trust), clock())
    if facts.statement.predicate_type in predicates.MODELS:
        predicates.check(facts.statement.predicate_type, facts.statement.predicate)


def stamped(timestamp: bytes, signature: bytes, trust: Trust) -> bool:
    """Whether a time-stamping authority of `trust` gave this RFC 3161 response over `signature`."""
    from rfc3161_client import decode_timestamp_response

    return keysigned.stamp_verifies(_stock_verifier(trust), decode_timestamp_response(timestamp), signature)


@dataclass(frozen=True)
class _Facts:
    statement: Statement
    identity: Identity
    time: datetime
    log: LogKey
    index: int
    size: int
    note: str

    @property
    def times(self) -> tuple[datetime, ...]:
        return _times(self.statement, self.identity, self.time)


def _times(said: Statement, identity: Identity, time: datetime) -> tuple[datetime, ...]:
    stated = statement.signed_at(said) if identity.issuer == KEY_ISSUER else None
    return (time,) if stated is None else (stated, time)


def _crypto(bundle: Bundle, trust: Trust, stock: StockVerifier, now: datetime) -> _Facts:
    parts = strict.parts_of(bundle)  # (0)
    trust.require_current(now)  # (1)
    said = bundle.statement
    if parts.hint is None:
        parsed = _stock_verify(stock, bundle)  # (2)
        log, index, size, note = strict.require_log_entry(parts.entry, trust)  # (3)
        strict.require_body(parts, said)  # (3)
        identity = strict.certificate_identity(parsed.signing_certificate)  # (3)
        time = strict.verified_time(parts.timestamp, log, now)  # (3)
    else:
        keysigned.stock_verify(stock, parts)  # (2)
        log, index, size, note = strict.require_log_entry(parts.entry, trust)  # (3)
        identity = keysigned.require_signature(parts, said)  # (3)
        time = strict.verified_time(parts.timestamp, log, now)  # (3)
        keysigned.require_own_time(said, time)  # (3)
    return _Facts(said, identity, time, log, index, size, note)


def _stock_verify(stock: StockVerifier, bundle: Bundle) -> StockBundle:
    """Step 2. The identity is left to step 8, which knows the predicate type; it is never left out."""
    from sigstore.errors import Error as StockError
    from sigstore.models import Bundle as StockBundle

    try:
        parsed = StockBundle.from_json(bundle.raw)
        stock.verify_dsse(parsed, _IdentityIsStepEight())
    except (StockError, ValueError, InvalidSignature) as error:
        raise ForgedEvidence(
            "stock verification refused the bundle", got=str(error)[:200] or type(error).__name__
        ) from error
    return parsed


class _IdentityIsStepEight:
    def verify(self, cert: x509.Certificate) -> None:
        """sigstore-python asks for a policy; ours runs as step 8 on the same certificate."""


def _require_subjects(said: Statement, subjects: Collection[str]) -> None:
    named = {subject.sha256 for subject in said.subjects}
    missing = [digest for digest in subjects if digest not in named]
    if not subjects or missing:
        raise DigestMismatch(
            "the statement is not about these bytes",
            got=", ".join(d[:16] for d in missing) or "no digest",
            expected=", ".join(sorted(d[:16] for d in named)),
            remedy="run the stage again on what you have, or restore what was attested",
        )


def _require_predicate(said: Statement, expected: str | Collection[str]) -> BaseModel:
    wanted = [expected] if isinstance(expected, str) else list(expected)
    if said.predicate_type not in {predicates.uri_of(name) for name in wanted}:
        raise MalformedEvidence("the statement is of another type", got=said.predicate_type, expected=", ".join(wanted))
    return predicates.check(said.predicate_type, said.predicate)


def _require_identity(facts: _Facts, predicate_type: str, identities: Sequence[IdentityMatcher]) -> None:
    identity = facts.identity
    keyholder.require_work(identity, predicate_type)
    if not keyholder.listed(identities, identity, *facts.times):
        raise UntrustedSigner(
            f"this identity may not make {predicate_type} evidence",
            got=str(identity),
            expected=" or ".join(map(str, identities)) or "an identity (none is listed)",
            remedy="sign as a listed identity, or have the policy list this one",
        )


def _assurance(trust: Trust, facts: _Facts, consistent: bool) -> Assurance:
    issuer = facts.identity.issuer
    identity: Literal["local", "key", "verified-token"] = "local" if trust.local_issuer(issuer) else "verified-token"
    # The last two labels of a host name stand for its operator: coarse, and wrong only towards "local".
    operators = {_operator(str(entry.get("uri", ""))) for entry in trust.root.get("timestampAuthorities", [])}
    independent = bool(operators) and not operators & {_operator(facts.log.origin), ""}
    return Assurance(
        identity="key" if issuer == KEY_ISSUER else identity,
        log="pinned" if consistent else "unwitnessed",
        time="independent" if independent else "local",
    )


def _operator(url: str) -> str:
    host = url.rsplit("://", maxsplit=1)[-1].split("/", maxsplit=1)[0].split(":", maxsplit=1)[0]
    return ".".join(host.split(".")[-2:])


_STOCK: dict[str, StockVerifier] = {}


def _stock_verifier(trust: Trust) -> StockVerifier:
    """sigstore-python's verifier for this root; building one costs about as much as half a verification."""
    if trust.fingerprint not in _STOCK:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier as StockVerifier
        from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootModel

        try:
            model = TrustedRootModel.from_json(canonical.dumps(trust.root).decode())
            _STOCK[trust.fingerprint] = StockVerifier(trusted_root=TrustedRoot(model))
        except Exception as error:
            raise MalformedEvidence(f"trust root {trust.source} cannot be used", got=str(error)[:200]) from error
    return _STOCK[trust.fingerprint]
