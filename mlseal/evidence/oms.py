"""OpenSSF Model Signing 1.0: the statement that stock ``model_signing verify`` reads.

Its predicate lists every file with its digest; its single subject is the root digest. It is signed like any other
statement. The format has no room for own fields (its schema says ``additionalProperties: false``), so nothing is added.
File names stand in it as they are, whatever ``MLSEAL_NAMES`` says: a stock verifier compares them.
"""

from __future__ import annotations

from mlseal.errors import DigestMismatch, MalformedEvidence, Misuse
from mlseal.evidence import statement
from mlseal.evidence.digest import Manifest, Measured, Subject
from mlseal.evidence.naming import PLAIN
from mlseal.evidence.statement import Statement

URI = "https://model_signing/signature/v1.0"


def make(measured: Measured) -> Statement:
    """The OMS statement of a measured directory. Raises `Misuse` for a single file."""
    if measured.manifest is None:
        raise Misuse("an OMS signature covers a directory", got=str(measured.path), remedy="sign its directory")
    resources = [{"name": f.path, "digest": f.sha256, "algorithm": "sha256"} for f in measured.manifest.in_oms_order]
    predicate = {
        "resources": resources,
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
    }
    return statement.make([Subject(measured.name, measured.manifest.oms_root)], URI, predicate, names=PLAIN)


def named_digest(predicate_type: str, sha256: str, manifest: Manifest | None) -> str:
    """The digest by which evidence of a type (a URI) names what has the binding digest `sha256`.

    That one; but an OMS signature of a directory names its root alone, which binds no file names: compare those by
    `require_names` when it has verified.
    """
    return manifest.oms_root if predicate_type == URI and manifest is not None else sha256


def require_names(oms: Statement, manifest: Manifest | None) -> None:
    """Check that a *verified* OMS statement lists exactly the files of `manifest`, names included.

    Raises `DigestMismatch` when a file was added, removed, renamed or changed, or when the signature ignores paths:
    what is ignored was chosen by the signer and is not covered. So it does for a single file (None), whose digest can
    be the root of a signed directory: a root is the digest of digests, which somebody may write into a file.
    """
    if manifest is None:
        raise DigestMismatch("an OMS signature covers a directory", got="one file", remedy="sign its directory")
    try:
        resources = oms.predicate["resources"]
        listed = {(r["name"], r["digest"]) for r in resources if r["algorithm"] == "sha256"}
        ignored = oms.predicate["serialization"].get("ignore_paths") or []
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedEvidence("OMS predicate lacks resources or serialization") from error
    present = {(f.path, f.sha256) for f in manifest.files}
    if ignored:
        raise DigestMismatch("the OMS signature leaves paths out", got=", ".join(map(str, ignored))[:120])
    if listed != present or len(resources) != len(present):
        odd = sorted(str(name) for name, _ in listed ^ present)[:3]
        raise DigestMismatch(
            "files differ from the OMS signature",
            got=", ".join(odd) or f"{len(resources)} resources",
            expected="the signed set of files, each once, by SHA-256",
        )
