"""What a publisher signed elsewhere, compared with the data at hand: the methods of `ingestion.source` but the first.

Nothing here judges whether that publisher suffices: who signed, under which root or key, goes into the finding, and a
policy decides. A source without any signature is stated as such, by name and digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlseal.errors import Misuse
from mlseal.evidence import detached, published, sums
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import Identity
from mlseal.evidence.published import Published
from mlseal.evidence.trust import Trust
from mlseal.stages.base import Context

_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[!-~]([ -~]*[!-~])?")
_MAX_NAME = 200
BY_CERTIFICATE = {"identity": "publisher", "log": "included", "time": "timestamped"}
"""Levels of a publisher's bundle: a Sigstore vouches for signer and time; nobody here pins its log."""
BY_KEY = {"identity": "pinned-key", "log": "none", "time": "none"}
NOTHING = {"identity": "none", "log": "none", "time": "none"}


@dataclass(frozen=True)
class Stated:
    """What the caller stated about the publisher; empty texts and None for what was not stated."""

    issuer: str
    san: str
    predicate: str | None
    signature: Path | None
    sums: Path | None
    trust_root: Path | None
    trust_root_fingerprint: str
    public_key: Path | None
    public_key_fingerprint: str
    name: str


def verify(method: str, stated: Stated, context: Context) -> dict[str, object]:
    """The fields that `method` adds to the finding. Raises `Misuse` for an unknown method or what it lacks.

    Raises `Refusal` and `Unchecked` as the verifying module does.
    """
    chosen = _METHODS.get(method)
    if chosen is None:
        raise Misuse("unknown method", got=method, expected="one of evidence, " + ", ".join(sorted(_METHODS)))
    return {"method": method, **chosen(stated, context)}


def _oms(stated: Stated, context: Context) -> dict[str, object]:
    data = context.measured["dataset"]
    if data.manifest is None:
        raise Misuse("a model signature covers a directory", got=data.name, expected="a directory, or another method")
    trust, raw = _trust(stated, context), _bytes("signature", context)
    found = published.verify(raw, trust, _identity(stated), data.sha256, manifest=data.manifest, clock=context.clock)
    return _by_certificate(found, trust, raw, "manifest")


def _bundle(stated: Stated, context: Context) -> dict[str, object]:
    data = context.measured["dataset"]
    if data.manifest is not None:
        raise Misuse(
            "a Sigstore bundle is about one file, and this is a directory",
            got=data.name,
            expected="a file, or method sha256sums-bundle or oms-signature",
        )
    trust, raw = _trust(stated, context), _bytes("signature", context)
    found = published.verify(
        raw, trust, _identity(stated), data.sha256, predicate_type=stated.predicate, clock=context.clock
    )
    return _by_certificate(found, trust, raw, "file")


def _sums_by_bundle(stated: Stated, context: Context) -> dict[str, object]:
    trust, raw, listed = _trust(stated, context), _bytes("signature", context), _bytes("sums", context)
    digest = hashlib.sha256(listed).hexdigest()
    found = published.verify(
        raw, trust, _identity(stated), digest, predicate_type=stated.predicate, clock=context.clock
    )
    sums.require_equal(sums.parse(listed), context.measured["dataset"])
    return _by_certificate(found, trust, raw, "sums", digest)


def _sums_by_key(stated: Stated, context: Context) -> dict[str, object]:
    fingerprint = _fingerprint("public-key-fingerprint", stated.public_key_fingerprint)
    key, signature, listed = (_bytes(name, context) for name in ("public_key", "signature", "sums"))
    detached.verify(listed, signature, key, fingerprint)
    sums.require_equal(sums.parse(listed), context.measured["dataset"])
    publisher = {
        "key": fingerprint,
        "signature": hashlib.sha256(signature).hexdigest(),
        "sums": hashlib.sha256(listed).hexdigest(),
        "compared": "sums",
    }
    return {"publisher": publisher, "assurance": BY_KEY}


def _none(stated: Stated, context: Context) -> dict[str, object]:
    if not _NAME.fullmatch(stated.name) or len(stated.name) > _MAX_NAME:
        raise Misuse(
            "a source that nobody signed needs the name that a policy may list it by",
            got=ascii(stated.name)[:120],
            expected="--source-name, printable ASCII without outer spaces",
        )
    return {"unsigned": {"name": stated.name, "sha256": context.measured["dataset"].sha256}, "assurance": NOTHING}


_METHODS: Mapping[str, Callable[[Stated, Context], dict[str, object]]] = {
    "oms-signature": _oms,
    "sigstore-bundle": _bundle,
    "sha256sums-bundle": _sums_by_bundle,
    "sha256sums-key": _sums_by_key,
    "none": _none,
}


def _by_certificate(
    found: Published, trust: Trust, raw: bytes, compared: str, sums_digest: str | None = None
) -> dict[str, object]:
    publisher = {
        "issuer": found.identity.issuer,
        "san": found.identity.san,
        "trustRoot": trust.fingerprint,
        "signature": hashlib.sha256(raw).hexdigest(),
        "sums": sums_digest,
        "predicateType": found.predicate_type,
        "signedOn": rfc3339(found.signed_on),
        "compared": compared,
    }
    return {
        "publisher": {name: value for name, value in publisher.items() if value is not None},
        "assurance": BY_CERTIFICATE,
    }


def _identity(stated: Stated) -> Identity:
    for flag, value in (("--issuer", stated.issuer), ("--san", stated.san)):
        if not value:
            raise Misuse(f"stage ingestion.source needs {flag}", expected="the identity that must have signed")
    return Identity(stated.issuer, stated.san)


def _trust(stated: Stated, context: Context) -> Trust:
    """The root that was stated with its fingerprint; without one, the root in force."""
    if stated.trust_root is None:
        if stated.trust_root_fingerprint:
            raise Misuse("a fingerprint without its trust root", expected="--trust-root FILE")
        return context.archive().trust
    expected = _fingerprint("trust-root-fingerprint", stated.trust_root_fingerprint)
    return published.root_of(_bytes("trust_root", context), expected)


def _fingerprint(flag: str, text: str) -> str:
    if not _FINGERPRINT.fullmatch(text):
        raise Misuse(
            f"stage ingestion.source needs --{flag}",
            got=text[:80] or None,
            expected="sha256: and 64 hex digits, got from the publisher over another way",
        )
    return text


def _bytes(name: str, context: Context) -> bytes:
    """The bytes of input `name`: of a private copy that was proven equal to what the runner measured."""
    if name not in context.measured:
        raise Misuse(f"stage ingestion.source needs --{name.replace('_', '-')}", expected="a file")
    return context.private_copy(name).read_bytes()
