"""Source verification: before this data set was used, what its publisher signed was compared with these bytes.

``method`` says what was verified and decides which one of three fields is there: ``source`` (evidence in our own log),
``publisher`` (a signature made elsewhere) or ``unsigned`` (nothing was signed; only a policy that lists the source
accepts that). The identities of a publisher hold under the trust root that stands beside them, and under no other.

Example::

    {"method": "evidence", "source": {"evidenceId": "…", "predicateType": "https://mlseal.dev/data-provenance/v0.1",
       "issuer": "https://demo.mlseal.local/issuer", "san": "https://demo.mlseal.local/roles/producer",
       "signedOn": "2026-11-23T04:00:00Z"}, "assurance": {"identity": "local", "log": "pinned", "time": "local"},
     "files": 2, "size": 48213, "harness": {…}, "strength": "measured", "runId": "r1", "notProven": ["…"]}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from mlseal.evidence.predicates.base import NAMESPACE, Measurement, Model, Sha256, Timestamp

URI = NAMESPACE + "source-verification/v0.1"
SHORT = "source-verification"

Method = Literal["evidence", "oms-signature", "sigstore-bundle", "sha256sums-bundle", "sha256sums-key", "none"]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
SourceName = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=200)]
"""Printable ASCII without outer spaces: a look-alike letter makes no second name."""


class Source(Model):
    """The evidence that was verified, and who had signed it when (verified time)."""

    evidence_id: Sha256
    predicate_type: str
    issuer: str
    san: str
    signed_on: Timestamp


class Publisher(Model):
    """A signature made elsewhere, by whom and under which root, and what it was compared with.

    Attributes:
        issuer: of the signer's token, under ``trustRoot``; absent for a key.
        san: the signer's certificate name; absent for a key.
        trust_root: fingerprint of the trust root file; absent for a key.
        key: fingerprint of the public key (SHA-256 of its DER); absent for a certificate.
        signature: SHA-256 of the file that holds the signature.
        sums: SHA-256 of the signed list of digests.
        predicate_type: of the signed statement; absent where bytes were signed.
        signed_on: verified time; a bare key proves none.
        compared: what the signature covers: the one file, every file of the manifest, or the list of digests.
    """

    issuer: str | None = None
    san: str | None = None
    trust_root: Fingerprint | None = None
    key: Fingerprint | None = None
    signature: Sha256
    sums: Sha256 | None = None
    predicate_type: str | None = None
    signed_on: Timestamp | None = None
    compared: Literal["file", "manifest", "sums"]


class Unsigned(Model):
    """What nobody signed: the name that policies list it by, and the digest of these bytes."""

    name: SourceName
    sha256: Sha256


class Predicate(Measurement):
    """Source verification v0.1. ``assurance`` holds the levels that the verifier computed."""

    # The default is that of evidence older than the field; JSON Schema says which of the three must be there.
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("source", "publisher", "unsigned")]}
    )

    method: Method = "evidence"
    source: Source | None = None
    publisher: Publisher | None = None
    unsigned: Unsigned | None = None
    assurance: dict[str, str]
    files: int = Field(ge=1)
    size: int = Field(ge=1)

    @model_validator(mode="after")
    def _what_the_method_says(self) -> Predicate:
        wanted = {"evidence": "source", "none": "unsigned"}.get(self.method, "publisher")
        found = [name for name in ("source", "publisher", "unsigned") if getattr(self, name) is not None]
        if found != [wanted]:
            raise ValueError(
                f"method {self.method} needs {wanted} and nothing else, not {' and '.join(found) or 'none'}"
            )
        return self
