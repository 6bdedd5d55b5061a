"""Identity providers outside: Kubernetes service accounts, people's login, CI systems; any OpenID Connect issuer.

Configured by whoever runs the authority, in one JSON file:

    {"issuers": [
      {"issuer": "https://oidc.cluster-a.example", "audience": "sigstore", "san": "kubernetes",
       "jwks": "https://kubernetes.default.svc/openid/v1/jwks",
       "caFile": "/var/run/secrets/…/ca.crt", "tokenFile": "/var/run/secrets/…/token"},
      {"issuer": "https://login.hospital.example", "audience": "mlseal", "san": "person"},
      {"issuer": "https://token.actions.githubusercontent.com", "audience": "sigstore",
       "san": "https://github.com/{job_workflow_ref}"}]}

``jwks`` is a file or an https URL; without it the issuer's discovery document names it. ``san`` maps verified claims to
one identity, which stays in a log that cannot forget:

===============  =========================================================================================
kubernetes       a service account, as Fulcio does
person           ``https://AUTHORITY/people/DOMAIN/p-…``: a pseudonym of ``sub`` below the domain of the verified
                 ``email``, so that a policy's ``emailDomain`` fits; who it is stands in `mlseal.services.people`
personBySubject  ``https://AUTHORITY/people/p-…``: the same without a domain, and without need of an address
email            the verified address itself, as Fulcio does: it is published for ever
https://…{x}     a template over claims; for machines: a claim that names a person is published for ever, too
===============  =========================================================================================

Keys are fetched with a deadline,
kept for five minutes, and looked up again at most every ten seconds for a key id that is not among them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mlseal.errors import MalformedEvidence, Misuse, ServiceUnavailable, Unreadable, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.identity import is_person_uri, person_uri
from mlseal.services.people import People
from mlseal.services.tokens import PublicKey

_FRESH, _RETRY, _TIMEOUT = 300.0, 10.0, 5.0
_MAX_DOCUMENT = 256 * 1024
_MEMBERS = {"issuer", "audience", "jwks", "san", "caFile", "tokenFile", "maxLifetimeSeconds"}
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9][a-z0-9-]{0,62}):([a-z0-9][a-z0-9.-]{0,252})")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FIXED, _PERSONAL = {"kubernetes", "email"}, {"person", "personBySubject"}
_PLAIN, _WITH_SLASH = re.compile(r"[A-Za-z0-9._~:@+=-]{1,200}"), re.compile(r"[A-Za-z0-9._~:@+=/-]{1,300}")


@dataclass(frozen=True)
class Issuer:
    """One configured identity provider (`mlseal.services.tokens.Provider`)."""

    issuer: str
    audience: str
    mapping: str
    source: KeySource
    lifetime: timedelta
    authority: str
    people: People

    @property
    def personal(self) -> bool:
        """Whether the subjects of its tokens are people's, to be kept out of certificates."""
        return self.mapping in _PERSONAL

    def keys(self, key_id: str | None) -> Sequence[PublicKey]:
        """Keys with this id; without an id, the only key there is."""
        return self.source.find(key_id)

    def san(self, claims: Mapping[str, Any]) -> str:
        """The identity of verified `claims`. Raises `UntrustedSigner` if they do not name exactly one."""
        if self.mapping == "kubernetes":
            return _service_account(claims)
        if self.mapping == "email":
            return _email(claims)
        if self.personal:
            return self._person(claims)
        return _filled(self.mapping, claims)

    def _person(self, claims: Mapping[str, Any]) -> str:
        """The person is who ``sub`` says: addresses change, and are given to others. Only its domain is published."""
        subject = str(claims.get("sub"))
        if self.mapping == "personBySubject":
            return person_uri(self.authority, self.people.pseudonym_of(self.issuer, subject))
        address = _email(claims)
        domain = address.rpartition("@")[2].lower()
        pseudonym = self.people.pseudonym_of(self.issuer, subject, login=address, domain=domain)
        return person_uri(self.authority, pseudonym, domain)


class KeySource:
    """Public keys of a JSON Web Key Set, in a file or at a URL. Thread-safe."""

    def __init__(self, issuer: str, where: str | None, ca_file: str | None, token_file: str | None) -> None:
        self._issuer, self._where, self._ca_file, self._token_file = issuer, where, ca_file, token_file
        self._lock = threading.Lock()
        self._keys: list[tuple[str | None, PublicKey]] = []
        self._fetched = self._failed = float("-inf")

    def find(self, key_id: str | None) -> list[PublicKey]:
        """The keys for `key_id`. Raises `ServiceUnavailable` when the set is not to be had and none is fresh.

        After a failure the next attempt waits ten seconds, so that callers do not queue behind a provider that hangs.
        """
        with self._lock:
            age, since_failure = time.monotonic() - self._fetched, time.monotonic() - self._failed
            if age > _FRESH or (age > _RETRY and not _matching(self._keys, key_id)):
                if since_failure < _RETRY:
                    raise ServiceUnavailable(f"the keys of {self._issuer} could not be had a moment ago")
                try:
                    self._keys = self._load()
                except ServiceUnavailable:
                    self._failed = time.monotonic()
                    raise
                self._fetched = time.monotonic()
            return _matching(self._keys, key_id)

    def _load(self) -> list[tuple[str | None, PublicKey]]:
        try:
            if self._where is not None and not _is_url(self._where):
                data = Path(self._where).read_bytes()
            else:
                data = self._get(self._where or self._discovered())
            return public_keys(canonical.parse(data, what=f"keys of {self._issuer}", limit=_MAX_DOCUMENT))
        except MalformedEvidence as error:
            raise ServiceUnavailable(error.message, got=error.got) from error
        except OSError as error:
            raise ServiceUnavailable(f"cannot get the keys of {self._issuer}", got=type(error).__name__) from error

    def _discovered(self) -> str:
        data = self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        document = canonical.parse(data, what=f"discovery document of {self._issuer}", limit=_MAX_DOCUMENT)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ServiceUnavailable(f"{self._issuer} does not describe itself", expected="its own name as 'issuer'")
        if not _is_url(document.get("jwks_uri")):
            raise ServiceUnavailable(f"{self._issuer} names no https jwks_uri")
        return str(document["jwks_uri"])

    def _get(self, url: str) -> bytes:
        import requests

        headers = {}
        if self._token_file:
            headers["Authorization"] = f"Bearer {Path(self._token_file).read_text().strip()}"
        with requests.Session() as session:  # its errors are OSErrors
            session.trust_env = False
            answer = session.get(
                url,
                timeout=_TIMEOUT,
                allow_redirects=False,
                headers=headers,
                verify=self._ca_file or True,
                stream=True,
            )
            body = answer.raw.read(_MAX_DOCUMENT + 1, decode_content=True)
        if answer.status_code != requests.codes.ok:
            raise ServiceUnavailable(f"cannot get the keys of {self._issuer}", got=f"status {answer.status_code}")
        return bytes(body)


def load(path: Path, *, reserved: str, people: People) -> tuple[Issuer, ...]:
    """The providers configured in `path`, for the authority `reserved` and its `people`.

    Raises `Misuse` for a typo, an unknown member, an issuer twice, a URL that is not https, or a mapping into
    `reserved`, the authority's own identities.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror) from error
    try:
        document = canonical.parse(data, what=str(path), limit=_MAX_DOCUMENT)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got) from error
    if not isinstance(document, dict) or set(document) != {"issuers"} or not isinstance(document["issuers"], list):
        raise Misuse(f"{path} is not a list of issuers", expected='{"issuers": […]}')
    found = tuple(_issuer(entry, reserved, people) for entry in document["issuers"])
    if len({issuer.issuer for issuer in found}) != len(found):
        raise Misuse(f"{path} names an issuer twice")
    return found


def _issuer(entry: object, reserved: str, people: People) -> Issuer:
    if not isinstance(entry, dict) or not {"issuer", "audience", "san"} <= set(entry) <= _MEMBERS:
        got = ", ".join(sorted(map(str, entry))) if isinstance(entry, dict) else type(entry).__name__
        raise Misuse("an issuer has missing or unknown members", got=got, expected=", ".join(sorted(_MEMBERS)))
    seconds = entry.get("maxLifetimeSeconds", 86_400)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
        raise Misuse("maxLifetimeSeconds is not a number of seconds", got=seconds)
    texts = {name: entry.get(name) for name in _MEMBERS - {"maxLifetimeSeconds"}}
    for name, text in texts.items():
        if not (isinstance(text, str) and text) and not (text is None and name in {"jwks", "caFile", "tokenFile"}):
            raise Misuse(f"an issuer's '{name}' is not text", got=str(text)[:60])
    issuer, mapping, where = str(entry["issuer"]), str(entry["san"]), entry.get("jwks")
    if not _is_url(issuer) or issuer == f"https://{reserved}/issuer":
        raise Misuse("not an https URL of an issuer outside", got=issuer[:120])
    if where is not None and "://" in where and not _is_url(where):
        raise Misuse("an issuer's keys must come from a file or over https", got=where[:120])
    _check_mapping(mapping, reserved)
    source = KeySource(issuer, where, entry.get("caFile"), entry.get("tokenFile"))
    return Issuer(issuer, str(entry["audience"]), mapping, source, timedelta(seconds=seconds), reserved, people)


def _check_mapping(mapping: str, reserved: str) -> None:
    if mapping in _FIXED | _PERSONAL:
        return
    host = urlsplit(_FIELD.sub("x", mapping)).hostname
    if not mapping.startswith("https://") or not _FIELD.search(mapping) or not host:
        raise Misuse(
            "not a mapping to an identity",
            got=mapping[:120],
            expected=f"{', '.join(sorted(_FIXED | _PERSONAL))} or https://…/{{claim}}",
        )
    if "{" in urlsplit(mapping).netloc or host == reserved or host.endswith("." + reserved):
        raise Misuse("a mapping may not make this authority's own identities", got=mapping[:120])


def _service_account(claims: Mapping[str, Any]) -> str:
    match = _SERVICE_ACCOUNT.fullmatch(str(claims.get("sub")))
    if match is None:
        raise UntrustedSigner("not a Kubernetes service account", got=str(claims.get("sub"))[:120])
    return f"https://kubernetes.io/namespaces/{match[1]}/serviceaccounts/{match[2]}"


def _email(claims: Mapping[str, Any]) -> str:
    address = str(claims.get("email"))
    if claims.get("email_verified") is not True or not _EMAIL.fullmatch(address):
        raise UntrustedSigner("the token has no verified e-mail address", got=address[:120])
    return address


def _filled(template: str, claims: Mapping[str, Any]) -> str:
    fields = _FIELD.findall(template)
    # A slash inside one of several values could make two different sets of claims look the same.
    allowed = _WITH_SLASH if len(fields) == 1 else _PLAIN
    result = template
    for name in fields:
        text = claims.get(name)
        if not isinstance(text, str) or not allowed.fullmatch(text) or ".." in text or "//" in text:
            raise UntrustedSigner(f"the token's '{name}' cannot be part of an identity", got=str(text)[:120])
        result = result.replace("{" + name + "}", text)
    if is_person_uri(result):  # whoever chooses a claim would choose the domain that a policy asks for
        raise UntrustedSigner("the token's claims make a person's identity, which only the mapping 'person' may")
    return result


def public_keys(document: Any) -> list[tuple[str | None, PublicKey]]:
    """The signature keys of a JWKS that are of a kind we verify with; symmetric and unknown ones are passed over."""
    import jwt

    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise MalformedEvidence("not a JSON Web Key Set")
    found: list[tuple[str | None, PublicKey]] = []
    for entry in document["keys"]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
            continue
        try:
            key = jwt.PyJWK.from_dict(entry).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            identifier = entry.get("kid")
            found.append((identifier if isinstance(identifier, str) else None, key))
    return found


def _matching(keys: list[tuple[str | None, PublicKey]], key_id: str | None) -> list[PublicKey]:
    if key_id is None:
        return [key for _, key in keys] if len(keys) == 1 else []
    return [key for identifier, key in keys if identifier == key_id]


def _is_url(text: object) -> bool:
    return isinstance(text, str) and urlsplit(text).scheme == "https" and bool(urlsplit(text).hostname)
