"""Tokens for users of this machine: the kernel says who calls, grants say which identity that user may have.

The user who owns the authority may ask for every role. Anybody else needs a grant, which names identities by glob; a
star does not cross a slash, so ``roles/reviewer/*`` gives every reviewer but no other role.

A person is asked for by name (``roles/reviewer/alice``) and certified by pseudonym (``roles/reviewer/p-…``), since what
is certified stays in a log (`mlseal.services.people`). Grants are about what was asked for. Who asks for a pseudonym
needs a grant for the person behind it, or for exactly that pseudonym: a glob that happens to fit one is none.

This is the weakest identity that mlseal knows (assurance ``local``): it is as good as the separation of the machine's
users. Real identity providers are in `mlseal.services.providers`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import MalformedEvidence, Misuse, Unreadable, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.identity import PSEUDONYM
from mlseal.services import files
from mlseal.services.keys import spki
from mlseal.services.people import People, Person
from mlseal.services.tokens import PublicKey

AUDIENCE = "sigstore"
ROLES = ("producer", "evaluator", "gate", "reviewer", "monitor", "owner", "policy-owner")
LIFETIME = timedelta(minutes=5)

_SUBJECT = re.compile(rf"roles/({'|'.join(ROLES)})(/[a-z0-9][a-z0-9._@-]{{0,63}})?")
_GLOB = re.compile(r"roles/[a-z*?]{1,32}(/[a-z0-9._@*?-]{1,64})?")


def check_subject(subject: str) -> str:
    """`subject`, if it is ``roles/ROLE`` or ``roles/ROLE/person``. Raises `Misuse`."""
    if not _SUBJECT.fullmatch(subject):
        raise Misuse(
            "not an identity of this authority",
            got=subject[:100],
            expected=f"roles/ROLE[/person], ROLE of {', '.join(ROLES)}",
        )
    return subject


def check_person(name: str) -> str:
    """`name`, if a person of this machine may be called that: no pseudonym. Raises `Misuse`."""
    if PSEUDONYM.fullmatch(name) or "/" in name or not _SUBJECT.fullmatch(f"roles/reviewer/{name}"):
        raise Misuse(
            "not a person's name for a role", got=name[:100], expected="NAME of roles/reviewer/NAME, no pseudonym"
        )
    return name


class Grants:
    """Which user may ask for which identity, in ``grants.json``; read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def allows(self, uid: int, subject: str) -> bool:
        """Whether a grant for `uid` covers `subject`."""
        return any(_covers(pattern, subject) for pattern in self.read().get(str(uid), []))

    def read(self) -> dict[str, list[str]]:
        """All grants, by uid. Raises `Refusal` if others can write them, `MalformedEvidence` if they are damaged."""
        value = canonical.parse(files.read_private(self.path), what=str(self.path))
        if not isinstance(value, dict) or not all(
            key.isdecimal() and isinstance(globs, list) and all(isinstance(glob, str) for glob in globs)
            for key, globs in value.items()
        ):
            raise MalformedEvidence(f"{self.path} is damaged", expected="lists of globs by uid")
        return value

    def add(self, uid: int, patterns: Sequence[str]) -> dict[str, list[str]]:
        """Grant `patterns` to `uid`, from now on; returns all grants. Raises `Misuse` for a bad pattern or uid."""
        for pattern in patterns:
            if not _GLOB.fullmatch(pattern):
                raise Misuse("not an identity glob", got=pattern[:100], expected="roles/gate or roles/reviewer/*")
        if uid < 0:
            raise Misuse("not a uid", got=uid)
        grants = self.read()
        grants[str(uid)] = sorted({*grants.get(str(uid), []), *patterns})
        self._write(grants)
        return grants

    def remove(self, uid: int) -> dict[str, list[str]]:
        """Take every grant of `uid` back; tokens that were given out last their few minutes."""
        grants = self.read()
        grants.pop(str(uid), None)
        self._write(grants)
        return grants

    def forget(self, names: Sequence[str]) -> list[str]:
        """Take back, from every uid, the grants whose person is exactly one of `names`; returns them."""
        grants = self.read()
        gone = {pattern for globs in grants.values() for pattern in globs if _person(pattern) in names}
        if gone:
            left = {uid: [glob for glob in globs if glob not in gone] for uid, globs in grants.items()}
            self._write({uid: globs for uid, globs in left.items() if globs})
        return sorted(gone)

    def _write(self, grants: dict[str, list[str]]) -> None:
        files.write(self.path, canonical.dumps(grants), mode=files.PRIVATE)


class LocalIssuer:
    """The authority's own identity provider, and (as `mlseal.services.tokens.Provider`) its keys for the CA.

    Args:
        name: the authority; ``iss`` is ``https://NAME/issuer``, identities are ``https://NAME/roles/…``.
        key: signs the tokens, ES256.
        grants: what users other than the owner may ask for.
        owner: uid that may ask for everything.
        people: whose pseudonym is whose.
    """

    audience = AUDIENCE
    lifetime = timedelta(minutes=10)
    personal = False  # the subject of its tokens is a pseudonym already

    def __init__(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        grants: Grants,
        owner: int,
        people: People,
        *,
        clock: Clock = utcnow,
    ) -> None:
        self.name, self.issuer = name, f"https://{name}/issuer"
        self._key, self._grants, self._owner, self._clock = key, grants, owner, clock
        self._people = people
        self._key_id = hashlib.sha256(spki(key.public_key())).hexdigest()[:16]

    def token(self, subject: str, uid: int) -> str:
        """A token, valid for minutes, that says the caller is `subject`, a person by pseudonym.

        Raises `Misuse` for something that is no identity and `UntrustedSigner` if `uid` may not have it, or if a
        pseudonym is asked for that stands for nobody (any more).
        """
        import jwt

        check_subject(subject)
        behind = self._behind(subject)
        if uid != self._owner and not self._allowed(uid, subject, behind):
            raise UntrustedSigner(
                f"user {uid} may not act as this identity",
                got=subject,
                expected="a grant by the owner of the service",
                remedy=f"the owner runs 'mlseal trust grant --uid {uid} {subject}'",
            )
        now = int(self._clock().timestamp())
        claims = {
            "iss": self.issuer,
            "sub": f"https://{self.name}/{self._pseudonymous(subject, behind)}",
            "aud": self.audience,
            "iat": now,
            "nbf": now,
            "exp": now + int(LIFETIME.total_seconds()),
            "jti": uuid.uuid4().hex,
            "uid": uid,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})

    def keys(self, key_id: str | None) -> Sequence[PublicKey]:
        """The issuer's key, if `key_id` is its."""
        return [self._key.public_key()] if key_id == self._key_id else []

    def san(self, claims: Mapping[str, Any]) -> str:
        """The subject, which is an identity of this authority, without a person's name, or nothing."""
        subject, prefix = str(claims.get("sub")), f"https://{self.name}/"
        if not subject.startswith(prefix):
            raise UntrustedSigner("not an identity of this authority", got=subject[:100], expected=prefix + "roles/…")
        try:
            person = _person(check_subject(subject.removeprefix(prefix)))
        except Misuse as error:
            raise UntrustedSigner("not an identity of this authority", got=subject[:100]) from error
        if person and not PSEUDONYM.fullmatch(person):
            raise UntrustedSigner(
                "the token names a person, and certificates do not", got=subject[:100], remedy="get a fresh token"
            )
        return subject

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self._key_id,
            "x": _url64(numbers.x.to_bytes(32, "big")),
            "y": _url64(numbers.y.to_bytes(32, "big")),
        }
        return {"keys": [key]}

    def _behind(self, subject: str) -> Person | None:
        """The person of this machine whose pseudonym `subject` asks for; None if it asks by name, or for nobody."""
        asked = _person(subject)
        person = self._people.get(asked) if PSEUDONYM.fullmatch(asked) else None
        return person if person is not None and person.issuer == self.issuer else None

    def _allowed(self, uid: int, subject: str, behind: Person | None) -> bool:
        asked = _person(subject)
        try:
            if not PSEUDONYM.fullmatch(asked):
                return self._grants.allows(uid, subject)
            if subject in self._grants.read().get(str(uid), []):
                return True
            return behind is not None and self._grants.allows(uid, subject.removesuffix(asked) + behind.subject)
        except Unreadable:
            return False

    def _pseudonymous(self, subject: str, behind: Person | None) -> str:
        asked = _person(subject)
        if not asked or behind is not None:
            return subject
        if PSEUDONYM.fullmatch(asked):  # as a name it would be kept, and tie an erased person to a new one
            raise UntrustedSigner(
                "this pseudonym stands for nobody of this machine",
                got=subject,
                expected="roles/ROLE/NAME, or the pseudonym that 'mlseal trust people' shows",
                remedy="ask by name; who was erased gets a new pseudonym",
            )
        return subject.removesuffix(asked) + self._people.pseudonym_of(self.issuer, asked)


def _person(subject: str) -> str:
    """The person's part of ``roles/ROLE/person``; empty without one."""
    return subject.split("/")[2] if subject.count("/") == 2 else ""


def _covers(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("/"), subject.split("/")
    return len(wanted) == len(given) and all(fnmatchcase(g, w) for w, g in zip(wanted, given, strict=True))


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
