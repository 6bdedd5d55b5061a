"""Which trust root, chosen by whom.

A trust root (Sigstore TrustedRoot) says which certificate authority, time-stamping authority and log keys are
believed. It is chosen by the person or machine that verifies, in this order: an explicit path, ``$MLSEAL_TRUST``, the
default pinned in this user's configuration directory, the machine's (``/etc/mlseal/trust.json``). It is never taken
from the tree that is being verified: a hostile clone that brings its own ``.mlseal`` brings its own keys.

A root has an end. After it, nothing new is believed until somebody pins the next one.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from mlseal.errors import DigestMismatch, MalformedEvidence, NotInitialised, StaleEvidence, Unreadable
from mlseal.evidence import canonical, paths
from mlseal.evidence.beginning import full
from mlseal.evidence.bundle import unbase64, write_atomic
from mlseal.evidence.clock import SKEW, Clock, parse_rfc3339, utcnow
from mlseal.evidence.identity import Identity, RoleMember

_CLIENT_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
_ROOT_PREFIX = "application/vnd.dev.sigstore.trustedroot"
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # DER header before the 32 raw bytes, RFC 8410
_LOG_MARKER = "/log/"  # in the URL of a log of the trust service
_EVER = datetime.min.replace(tzinfo=UTC) + SKEW
_NEVER = datetime.max.replace(tzinfo=UTC) - SKEW
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Endpoints:
    """URLs of the services that sign for this root; http+unix URLs reach the embedded service."""

    ca: str
    log: str
    tsa: str
    issuer: str | None


@dataclass(frozen=True)
class LogKey:
    """One log of the root: origin (host of its base URL), 32-byte log id, raw Ed25519 key, validity, base URL."""

    origin: str
    log_id: bytes
    public_key: bytes
    start: datetime
    end: datetime | None
    base_url: str = ""


@dataclass(frozen=True)
class Trust:
    """A trust root, chosen. ``source`` says where it came from, for messages.

    ``missing`` names what a signing configuration lacks, so that there are no ``endpoints``; () for a bare root.
    """

    root: dict[str, Any]
    fingerprint: str
    endpoints: Endpoints | None
    source: str
    missing: tuple[str, ...] = ()

    def require_services(self) -> Endpoints:
        """The services that sign. Raises `NotInitialised` that says which are missing."""
        if self.endpoints is not None:
            return self.endpoints
        if self.missing:
            raise NotInitialised(
                f"the trust configuration {self.source} names no {' and no '.join(self.missing)} that is valid now",
                expected="one of each kind of service, with its API version",
                remedy="use the configuration of an instance that runs them, such as one of 'mlseal serve'",
            )
        raise NotInitialised(
            f"the trust root {self.source} names no services to sign with",
            expected="a ClientTrustConfig",
            remedy="pass trust_config.json instead of trusted_root.json",
        )

    @cached_property
    def logs(self) -> tuple[LogKey, ...]:
        """The Ed25519 logs of the root; logs with other keys are left out and so verify nothing."""
        return tuple(key for entry in self.root.get("tlogs", []) if (key := _log_key(entry)) is not None)

    def log(self, log_id: bytes) -> LogKey | None:
        """The log with this id, if the root has it."""
        return next((key for key in self.logs if key.log_id == log_id), None)

    def tile_urls(self) -> dict[str, str]:
        """Where the tiles of each log of this root are read, by origin, retired logs included; {} without endpoints.

        The trust service serves every log of its authority at ``/log/ORIGIN``. Any other log is a Rekor v2 server,
        which serves its tiles below ``/api/v2`` of its own base URL.
        """
        if self.endpoints is None:
            return {}
        base, marker, _ = self.endpoints.log.rpartition(_LOG_MARKER)
        if marker:
            return {log.origin: f"{base}{marker}{log.origin}" for log in self.logs}
        return {log.origin: f"{log.base_url}/api/v2" for log in self.logs if log.base_url}

    def retired_logs(self) -> tuple[str, ...]:
        """URLs of logs of the trust service that take nothing new; () for other services, which know no such thing."""
        if self.endpoints is None or _LOG_MARKER not in self.endpoints.log:
            return ()
        return tuple(url for url in self.tile_urls().values() if url != self.endpoints.log)

    @property
    def expires(self) -> datetime | None:
        """The moment after which no authority of the root is valid; None if the root names no end."""
        groups = ("tlogs", "certificateAuthorities", "timestampAuthorities", "ctlogs")
        ends = [[_end(entry) for entry in self.root.get(group, [])] for group in groups]
        latest = [None if None in group else max((e for e in group if e), default=None) for group in ends]
        known = [end for end in latest if end is not None]
        return min(known) if known else None

    def require_current(self, now: datetime) -> None:
        """Raise `StaleEvidence` when the root has ended."""
        if self.expires is not None and now > self.expires:
            raise StaleEvidence(
                "the trust root has expired",
                got=f"end {self.expires:%Y-%m-%dT%H:%M:%SZ}",
                expected=f"an end after {now:%Y-%m-%dT%H:%M:%SZ}",
                remedy="get the rotated root from its operator and run 'mlseal trust add FILE --fingerprint …'",
            )

    def local_issuer(self, issuer: str) -> bool:
        """Whether `issuer` is the authority's own token issuer, which knows local users only.

        An authority NAME runs logs ``logN.NAME`` and the issuer ``https://NAME/issuer``; everything else is an
        external identity provider whose tokens the CA verified.
        """
        names = {key.origin.split(".", 1)[1] for key in self.logs if "." in key.origin}
        return any(issuer == f"https://{name}/issuer" for name in names)

    def state_directory(self) -> Path:
        """Where this user's verifier keeps what it can learn again about this root: indexes.

        What must outlive a rotation (pinned checkpoints, unpublished signatures) lies elsewhere, whatever the root.
        """
        return paths.private(paths.state_dir() / "trust" / self.fingerprint.removeprefix("sha256:")[:32])


@dataclass(frozen=True)
class LocalRole:
    """Whoever an authority of `trust` itself gave `role`: ``https://NAME/roles/ROLE``, or a person with that role."""

    trust: Trust
    role: str

    def matches(self, other: Identity) -> bool:
        """Whether `other` holds the role, vouched for by the authority's own issuer."""
        itself = f"{other.issuer.removesuffix('/issuer')}/roles/{self.role}"
        held = other.san == itself or RoleMember(other.issuer, self.role).matches(other)
        return held and self.trust.local_issuer(other.issuer)

    def __str__(self) -> str:
        return f"a {self.role} of the authority"


def load(path: str | os.PathLike[str], *, clock: Clock = utcnow) -> Trust:
    """The trust root in a TrustedRoot or ClientTrustConfig JSON file, or in a directory that `mlseal init` wrote.

    Of the services that it names, those are taken that are valid by `clock`.

    Raises `Unreadable` or `MalformedEvidence`; reading a root is not pinning it.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "trust_config.json"
    try:
        with file.open("rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(
            f"cannot read trust root {file}", got=error.strerror, remedy="pass --trust FILE or run 'mlseal trust add'"
        ) from error
    return parse(data, source=str(file), clock=clock)


def parse(data: bytes, *, source: str, clock: Clock = utcnow) -> Trust:
    """The trust root in `data`, checked for shape with sigstore's own parser later, at first use."""
    document = canonical.parse(data, what=f"trust root {source}", limit=_MAX_BYTES)
    kind = document.get("mediaType") if isinstance(document, dict) else None
    if kind == _CLIENT_CONFIG:
        root = document.get("trustedRoot")
        try:
            endpoints, missing = _endpoints(document.get("signingConfig"), clock())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedEvidence(f"the signing configuration in {source} is malformed", got=str(error)) from error
    elif isinstance(kind, str) and kind.startswith(_ROOT_PREFIX):
        root, endpoints, missing = document, None, ()
    else:
        raise MalformedEvidence(f"{source} is not a trust root", got=kind, expected="TrustedRoot or ClientTrustConfig")
    if not isinstance(root, dict) or not all(root.get(k) for k in ("tlogs", "certificateAuthorities", "ctlogs")):
        raise MalformedEvidence(f"{source} names no log, CA or CT log", expected="a complete TrustedRoot")
    trust = Trust(root, fingerprint(root), endpoints, source, missing)
    if not trust.logs:
        raise MalformedEvidence(
            f"{source} has no Ed25519 log", remedy="use a root whose log is Rekor v2 with an Ed25519 key"
        )
    return trust


def fingerprint(root: dict[str, Any]) -> str:
    """``sha256:`` and the hex digest of the root's RFC 8785 bytes."""
    return "sha256:" + hashlib.sha256(canonical.dumps(root)).hexdigest()


def resolve(explicit: str | os.PathLike[str] | None = None) -> Trust:
    """The trust root in force; never one from the current directory unless it was named or pinned.

    A fingerprint is accepted in place of a path and names a pinned root. Raises `NotInitialised` if there is none.
    """
    choice = os.fspath(explicit) if explicit else os.environ.get("MLSEAL_TRUST")
    if choice:
        return load(_pinned_file(choice)) if _FINGERPRINT.fullmatch(choice) else load(choice)
    for candidate in (_default_file(), paths.machine_config_dir() / "trust.json"):
        if candidate is not None and candidate.is_file():
            return load(candidate)
    raise NotInitialised(
        "no trust root is configured",
        expected="--trust, MLSEAL_TRUST, a pinned root or /etc/mlseal/trust.json",
        remedy="run 'mlseal init', or 'mlseal trust add FILE --fingerprint sha256:…' with the operator's root",
    )


def pin(path: str | os.PathLike[str], expected: str, *, default: bool = True) -> Trust:
    """Pin the root in `path` for this user, after comparing it with the fingerprint got over another way.

    Raises `DigestMismatch` when they differ; then nothing is written.
    """
    trust = load(path)
    if trust.fingerprint != expected:
        raise DigestMismatch(
            "the trust root is not the one announced",
            got=trust.fingerprint,
            expected=expected,
            remedy="ask its operator for the fingerprint again, over a way an attacker does not control",
        )
    directory = paths.private(paths.config_dir() / "trust")
    write_atomic(directory / _file_name(trust.fingerprint), Path(trust.source).read_bytes())
    if default or _default_file() is None:
        write_atomic(directory / "default", trust.fingerprint.encode())
    return trust


def pins() -> list[Trust]:
    """Every root pinned by this user."""
    directory = paths.config_dir() / "trust"
    return [load(file) for file in sorted(directory.glob("sha256-*.json"))] if directory.is_dir() else []


def default_fingerprint() -> str | None:
    """Fingerprint of the root that `resolve` takes when nothing is named."""
    try:
        text = (paths.config_dir() / "trust" / "default").read_text().strip()
    except OSError:
        return None
    return text if _FINGERPRINT.fullmatch(text) else None


def is_pinned(expected: str) -> bool:
    """Whether this user pinned the root with this fingerprint."""
    return bool(_FINGERPRINT.fullmatch(expected)) and _pinned_file(expected).is_file()


def use(expected: str) -> Trust:
    """Make the pinned root the default whose fingerprint begins with `expected` (``sha256:`` may be left out).

    Raises `Misuse` for fewer than 8 digits or a beginning of several, `NoEvidence` if none was pinned.
    """
    pinned = (file.stem.removeprefix("sha256-") for file in (paths.config_dir() / "trust").glob("sha256-*.json"))
    digits = full(
        expected.removeprefix("sha256:"),
        lambda _: pinned,
        what="trust root",
        where="that this user pinned",
        remedy="'mlseal trust list' lists them",
    )
    trust = load(_pinned_file(f"sha256:{digits}"))
    write_atomic(paths.config_dir() / "trust" / "default", trust.fingerprint.encode())
    return trust


def _default_file() -> Path | None:
    name = default_fingerprint()
    return _pinned_file(name) if name else None


def _pinned_file(name: str) -> Path:
    return paths.config_dir() / "trust" / _file_name(name)


def _file_name(name: str) -> str:
    return name.replace(":", "-") + ".json"


def _end(entry: dict[str, Any]) -> datetime | None:
    valid = entry.get("validFor") or (entry.get("publicKey") or {}).get("validFor") or {}
    return parse_rfc3339(valid["end"]) if valid.get("end") else None


def _log_key(entry: dict[str, Any]) -> LogKey | None:
    key = entry.get("publicKey", {})
    if key.get("keyDetails") != "PKIX_ED25519":
        return None
    spki = unbase64(key.get("rawBytes"), "log key")
    if not spki.startswith(_ED25519_SPKI) or len(spki) != len(_ED25519_SPKI) + 32:
        raise MalformedEvidence("log key is not a raw Ed25519 SubjectPublicKeyInfo")
    base_url = str(entry.get("baseUrl", "")).rstrip("/")
    origin = re.sub(r"^https?://", "", base_url).split("/")[0].split(":")[0]
    valid = key.get("validFor") or {}
    try:
        start, end = parse_rfc3339(valid["start"]), _end(entry)
    except (KeyError, ValueError) as error:
        raise MalformedEvidence("log key has no validity") from error
    log_id = unbase64((entry.get("logId") or {}).get("keyId"), "log id")
    return LogKey(origin, log_id, spki[len(_ED25519_SPKI) :], start, end, base_url)


def _endpoints(config: Any, now: datetime) -> tuple[Endpoints | None, tuple[str, ...]]:
    """The services that sign now, and the names of those that `config` does not have."""
    if not isinstance(config, dict):
        return None, ("signing configuration",)
    ca, log = _service(config, "caUrls", 1, now), _service(config, "rekorTlogUrls", 2, now)
    tsa = _service(config, "tsaUrls", 1, now)
    named = {"certificate authority (Fulcio v1)": ca, "Rekor v2 log": log, "time-stamping authority": tsa}
    if ca is None or log is None or tsa is None:
        return None, tuple(name for name, url in named.items() if url is None)
    return Endpoints(ca, log, tsa, _service(config, "oidcUrls", 1, now)), ()


def _service(config: dict[str, Any], member: str, version: int, now: datetime) -> str | None:
    """URL of the service that began last among those valid now; one within the skew of clocks if no other is."""
    found = []
    for entry in config.get(member) or []:
        if entry.get("majorApiVersion") == version:
            valid = entry.get("validFor") or {}
            start, end = (parse_rfc3339(valid[name]) if valid.get(name) else None for name in ("start", "end"))
            found.append((start or _EVER, end or _NEVER, str(entry["url"]).rstrip("/")))
    for slack in (timedelta(0), SKEW):
        valid_now = [one for one in found if one[0] - slack <= now < one[1] + slack]
        if valid_now:
            return max(valid_now, key=lambda one: one[0])[2]
    return None
