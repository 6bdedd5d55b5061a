"""Who asks, and whether they may: one list of those who read through the gateway, one of those who write.

    read:
      - {issuer: "https://team.example/issuer", san: "https://team.example/roles/producer"}
      - {issuer: "https://login.hospital.example", emailDomain: hospital.example}
    write:
      - {issuer: "https://team.example/issuer", san: "https://team.example/roles/producer"}

Nobody else does anything, and writing does not imply reading: a push reads too, so who pushes stands in both. An
identity is proved in one of two ways.

* A token, as ``Authorization: Bearer``, or as the password of ``Basic`` (the user name says nothing). It is verified as
  the trust service verifies one before it certifies (`mlseal.services.tokens`), against the keys of the gateway's own
  authority and of the providers that its operator lists.
* A signature of AWS's version 4 with an access key that the operator gave to that identity (`gateway_sigv4`).

What may be stored is not decided here: who may write still writes only what verified evidence lists.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from mlseal.errors import MalformedEvidence, Misuse, ServiceUnavailable, Unreadable, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.identity import Identity, IdentityMatcher
from mlseal.evidence.trust import Trust
from mlseal.services.tokens import Provider, PublicKey, TokenVerifier

Action = Literal["read", "write"]
_LIMIT = 256 * 1024
_REMEMBERED = 1024
_FRESH, _RETRY, _DEADLINE = 300.0, 10.0, 5.0


class Unknown(Exception):
    """Nobody has shown who they are; one sentence. The answer is 401."""


class NotListed(Exception):
    """Who asks is known and may not; one sentence. The answer is 403."""


@dataclass(frozen=True)
class Access:
    """The two lists."""

    read: tuple[IdentityMatcher, ...]
    write: tuple[IdentityMatcher, ...]

    def require(self, who: Identity, action: Action) -> None:
        """Raise `NotListed` unless `who` is on the list for `action`."""
        listed = self.read if action == "read" else self.write
        if not any(matcher.matches(who) for matcher in listed):
            raise NotListed(f"{who} may not {action} here: the gateway's operator lists who may")


def load_access(path: Path) -> Access:
    """The lists in `path`, strict YAML as a policy is. Raises `Misuse`, also for a file that lets nobody in."""
    from pydantic import TypeAdapter, ValidationError

    from mlseal.errors import Error
    from mlseal.policy import plainyaml
    from mlseal.policy.model import matchers
    from mlseal.policy.schema import Signer

    try:
        value = plainyaml.parse(path.read_bytes()[: _LIMIT + 1], str(path)).value
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror) from error
    except Error as error:
        raise Misuse(f"{path} is not a list of who may read and write: {error.message}", got=error.got) from error
    if not value or not set(value) <= {"read", "write"}:
        raise Misuse(f"{path} is not a list of who may read and write", expected="'read' and 'write', nothing else")
    try:
        found = {name: TypeAdapter(list[Signer]).validate_python(rows) for name, rows in value.items()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Misuse(
            f"{path} names nobody at {where}: {first['msg']}", expected="issuer with san or emailDomain"
        ) from error
    if any(signer.role is not None for rows in found.values() for signer in rows):
        raise Misuse(f"{path} lists a role", expected="san or emailDomain: the gateway reads no ownership statements")
    return Access(matchers(found.get("read")), matchers(found.get("write")))


@dataclass(frozen=True)
class Key:
    """An S3 access key and whom the operator gave it to."""

    secret: str
    owner: Identity


def load_keys(path: Path) -> Mapping[str, Key]:
    """S3 keys by their id.

    ``{"keys": [{"accessKeyId": …, "secretAccessKey": …, "issuer": …, "san": …}]}`` in a file that only its owner can
    read. Raises `Misuse`, `Refusal` if others can read it.
    """
    from mlseal.services import files

    try:
        document = canonical.parse(files.read_private(path), what=str(path), limit=_LIMIT)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got) from error
    rows = document.get("keys") if isinstance(document, dict) and set(document) == {"keys"} else None
    members = {"accessKeyId", "secretAccessKey", "issuer", "san"}
    if not isinstance(rows, list) or not rows:
        raise Misuse(f"{path} is not a list of S3 keys", expected='{"keys": […]}')
    found: dict[str, Key] = {}
    for row in rows:
        if not isinstance(row, dict) or set(row) != members or not all(isinstance(v, str) and v for v in row.values()):
            raise Misuse(f"an entry of {path} is no S3 key", expected=", ".join(sorted(members)))
        name, secret = row["accessKeyId"], row["secretAccessKey"]
        if not (name.isascii() and name.isalnum() and 16 <= len(name) <= 128) or name in found:
            raise Misuse(f"{path} holds an accessKeyId twice or an odd one", expected="16 to 128 letters and digits")
        if len(secret) < 32:
            raise Misuse(f"the secret of {name} can be guessed", got=f"{len(secret)} characters", expected="32 or more")
        found[name] = Key(secret, Identity(row["issuer"], row["san"]))
    return found


class Callers:
    """Knows who sends a token, and asks the lists.

    Args:
        tokens: None where no provider of tokens is known; then only S3 keys count.
        session: seconds for which a token counts after it was first shown, although it ended meanwhile: a push may
            take longer than a token lives. Nothing counts that had ended when it was first shown.
    """

    def __init__(
        self,
        access: Access,
        tokens: TokenVerifier | None,
        keys: Mapping[str, Key] | None = None,
        *,
        session: float = 0.0,
        clock: Clock = utcnow,
    ) -> None:
        self.access, self.keys, self.clock = access, dict(keys or {}), clock
        self._tokens, self._session, self._lock = tokens, session, threading.Lock()
        self._seen: dict[str, tuple[float, Identity]] = {}

    def bearer(self, headers: Sequence[str]) -> Identity:
        """Whom the ``Authorization`` headers of a request name. Raises `Unknown`, `ServiceUnavailable`."""
        if len(headers) != 1:
            raise Unknown(
                f"{'no' if not headers else 'more than one'} Authorization; this gateway wants to know who asks"
            )
        if self._tokens is None:
            raise Unknown("this gateway knows no issuer of tokens")
        token = _token(headers[0])
        digest, now = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest(), time.monotonic()
        with self._lock:
            held = self._seen.get(digest)
        if held is not None and now < held[0]:
            return held[1]
        try:
            caller = self._tokens.verify(token)
        except UntrustedSigner as error:
            raise Unknown(str(error)) from error
        who = Identity(caller.issuer, caller.san)
        if self._session:
            with self._lock:
                self._seen = {d: row for d, row in self._seen.items() if now < row[0]} | {
                    digest: (now + self._session, who)
                }
                while len(self._seen) > _REMEMBERED:
                    self._seen.pop(next(iter(self._seen)))
        return who


def _token(header: str) -> str:
    scheme, _, rest = header.strip().partition(" ")
    text = rest.strip()
    if scheme.lower() == "basic":
        try:
            text = base64.b64decode(text, validate=True).decode("ascii").partition(":")[2]
        except ValueError as error:  # not base64, or not text
            raise Unknown("the Basic credentials are not what a client sends") from error
    elif scheme.lower() != "bearer":
        raise Unknown(f"credentials of kind {scheme[:20]!r} are not known here; send a token as Bearer or Basic")
    return text


class OwnAuthority:
    """The private authority of the gateway's trust root as a provider of tokens; its name and keys are asked for.

    Its word is trusted as far as its certificates are. The identities are those that it certifies.
    """

    lifetime = timedelta(minutes=10)
    personal = False

    def __init__(self, trust: Trust) -> None:
        from mlseal.services.issuer import AUDIENCE

        issuer = trust.require_services().issuer
        if issuer is None:
            raise Misuse("the trust root's services give no tokens", remedy="name the issuers: --external-issuer FILE")
        self.audience, self._trust, self._lock = AUDIENCE, trust, threading.Lock()
        self._url = issuer
        self.issuer = str(self._get("/.well-known/openid-configuration").get("issuer"))
        self._keys: list[tuple[str | None, PublicKey]] = []
        self._fetched = float("-inf")

    def keys(self, key_id: str | None) -> Sequence[PublicKey]:
        """See `Provider`."""
        from mlseal.services.providers import public_keys

        with self._lock:
            age = time.monotonic() - self._fetched
            if age > _FRESH or (age > _RETRY and key_id not in [name for name, _ in self._keys]):
                self._keys = public_keys(self._get("/keys"))
                self._fetched = time.monotonic()
            return [key for name, key in self._keys if name == key_id]

    def san(self, claims: Mapping[str, Any]) -> str:
        """The subject, below the authority's own name."""
        subject, prefix = str(claims.get("sub")), f"{self.issuer.removesuffix('/issuer')}/roles/"
        if not subject.startswith(prefix):
            raise UntrustedSigner("not an identity of this authority", got=subject[:100], expected=prefix + "…")
        return subject

    def _get(self, path: str) -> dict[str, Any]:
        from mlseal.evidence.signing import embedded
        from mlseal.evidence.signing.transport import Connection

        embedded.ensure_running(self._trust)
        answer = Connection(self._url, _DEADLINE).request("GET", path)
        try:
            document = canonical.parse(answer.body, what="answer of the issuer", limit=_LIMIT)
        except MalformedEvidence as error:
            raise ServiceUnavailable(error.message, got=error.got) from error
        if answer.status != 200 or not isinstance(document, dict):
            raise ServiceUnavailable("the authority does not say how it signs tokens", got=f"status {answer.status}")
        return document


def verifier_for(trust: Trust, issuers: Path | None, state: Path, clock: Clock = utcnow) -> TokenVerifier | None:
    """Verifies tokens of the trust root's own authority, if it names its services, and of the providers in `issuers`.

    Raises `Misuse` where a provider would give pseudonyms: they are the authority's to make.
    """
    found: list[Provider] = []
    if trust.endpoints is not None and trust.endpoints.issuer is not None:
        found.append(OwnAuthority(trust))
    if issuers is not None:
        from mlseal.services import providers
        from mlseal.services.people import People

        outside = providers.load(issuers, reserved="gateway.invalid", people=People(state))
        for provider in outside:
            if provider.personal:
                raise Misuse(
                    f"{issuers}: pseudonyms are made by an authority, not by a gateway",
                    got=provider.mapping,
                    expected="kubernetes, email or a template over claims",
                )
            if any(provider.issuer == own.issuer for own in found):
                raise Misuse(f"{issuers} names the trust root's own authority", got=provider.issuer)
        found += outside
    return TokenVerifier(found, clock=clock) if found else None
