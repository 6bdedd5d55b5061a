"""Names of evidence on a remote, all computed and none listed, since HTTP remotes cannot be listed.

::

    <remote>/attestations/v1/
      bundles/<hash>/<oid>/<path>/<signer>.sigstore.json   provenance of one output version by one signer
      manifests/<ab>/<cdef…>.jsonl                         canonical manifest of a directory, by its SHA-256
      log/<origin>/checkpoint, tile/…                      copy of the transparency log's hash tiles
      names.salt                                           where names are committed: their salt (`names`)

``<path>`` and ``<signer>`` are digests: of the output's path relative to the git root as the statement writes it (so of
its commitment where names are committed), and of issuer and SAN. So two signers never overwrite each other, and names
with newlines, NFC or NFD are no problem to any remote. The tree lies outside of what ``dvc gc -c`` looks at (``files/``
and two-letter directories), on a cloud-versioned remote below ``.dvc/`` (`versioned`). Everything in it is untrusted.
"""

from __future__ import annotations

import hashlib
import re

from mlseal.errors import Refusal
from mlseal.evidence.identity import Identity

ROOT = ("attestations", "v1")
SUFFIX = ".sigstore.json"
SALT = "names.salt"
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_HASHES = ("md5", "md5-dos2unix")


def slot(hash_name: str, oid: str, path: str) -> str:
    """Directory of the bundles about one version of one output; `path` as the statement writes it.

    Raises `Refusal` for ids that are none.
    """
    return f"{versions(hash_name, oid, path)}/{_short(path)}"


def versions(hash_name: str, oid: str, path: str) -> str:
    """Directory of everything filed about one object, under any path. Raises as `slot`."""
    if hash_name not in _HASHES or not _OID.fullmatch(oid):
        raise Refusal(f"{path!r} has no object id of DVC", got=f"{hash_name}:{oid}"[:80], expected="32 hex digits")
    return f"bundles/{hash_name}/{oid}"


def bundle(slot_name: str, signer: Identity) -> str:
    """Name of the bundle by `signer` in a slot."""
    return f"{slot_name}/{_short(signer.issuer + chr(10) + signer.san)}{SUFFIX}"


def manifest(sha256: str) -> str:
    """Name of the manifest with this digest."""
    return f"manifests/{sha256[:2]}/{sha256[2:]}.jsonl"


def log(origin: str, path: str) -> str:
    """Name of a file of the log's copy. Raises `Refusal` for an origin that could leave the tree."""
    if not _ORIGIN.fullmatch(origin) or ".." in origin:
        raise Refusal("not a log origin", got=origin[:80], expected="a host name")
    return f"log/{origin}/{path}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
