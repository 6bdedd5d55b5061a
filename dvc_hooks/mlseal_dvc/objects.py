"""DVC's local cache: the bytes that a push uploads and that a checkout hands out.

Objects are named by MD5, which proves nothing. They are hashed with SHA-256 here, from the cache and never from the
workspace: a modified workspace file is not what ``dvc push`` uploads. Where the workspace holds links to the cache
(``cache.type``), an edit there changes the object under its old name. So what is signed must also have the MD5 that it
is named by: a statement that says otherwise would be false, and nobody's mistake should be signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import DigestMismatch, Refusal, Unreadable
from mlseal.evidence import canonical, paths
from mlseal.evidence.digest import (
    EXCLUDED_AT_ROOT,
    DigestCache,
    FileEntry,
    Manifest,
    Stamp,
    Subject,
    sha256_of,
    stamp_of,
)
from mlseal_dvc import progress

_MD5 = re.compile(r"[0-9a-f]{32}")
_MAX_TREE = 1 << 30
_LARGE = 1 << 24


@dataclass(frozen=True)
class Hashed:
    """SHA-256, size and identity of a cache file at the time it was read."""

    sha256: str
    size: int
    stamp: Stamp


@dataclass(frozen=True)
class Content:
    """What one output version consists of, hashed.

    Attributes:
        subjects: as `mlseal.evidence.digest.measure` names them, so that the pulled file or directory has the same.
        manifest: of a directory; None for a file.
        objects: every object id of the output with its expected SHA-256, the directory object included.
    """

    subjects: tuple[Subject, ...]
    manifest: Manifest | None
    objects: dict[str, str]
    size: int

    @property
    def files(self) -> int:
        """Number of files."""
        return len(self.manifest.files) if self.manifest else 1


def stamp(path: str) -> Stamp:
    """What changes when a file changes. Raises `OSError`."""
    return stamp_of(os.stat(path))


def hash_file(path: str, named: str | None = None) -> Hashed:
    """Hash one file, every byte.

    Raises `FileNotFoundError` if it is absent, `Unreadable` if it cannot be read or changes meanwhile, and
    `DigestMismatch` if its MD5 is not `named`, where that is given.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = stamp_of(os.fstat(descriptor))
            digest, name = (
                _both(descriptor, before[2], path) if named is not None else (sha256_of(descriptor, before[2]), "")
            )
            after = stamp_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="check its permissions") from error
    if before != after:
        raise Unreadable(f"{path} changed while it was read", remedy="stop what writes to the cache, then run again")
    if named is not None:
        require_named(name, named, path)
    progress.advance(after[2])
    return Hashed(digest, after[2], after)


def _both(descriptor: int, size: int, path: str) -> tuple[str, str]:
    """SHA-256 and MD5: of one read for a small file, else in two threads from the same cached pages."""
    if size < _LARGE:
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return sha256(data), md5(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    with ThreadPoolExecutor(1) as pool:
        name = pool.submit(_md5_of_file, path)
        return sha256_of(descriptor, size), name.result()


def _md5_of_file(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def hash_stream(file: Any) -> Hashed:
    """Hash what an open binary file of a remote gives, to its end. Raises what reading raises."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return Hashed(digest.hexdigest(), size, (0, 0, size, 0, 0))


def hash_for_signing(files: Mapping[str, str | None], cache: DigestCache) -> dict[str, Hashed]:
    """Hash the files that exist, each once; unchanged ones are answered by `cache`, which serves signing only.

    `files` gives the MD5 that each must have; None leaves it open (older DVC named text files by another one). `cache`
    must be one that nothing else fills: a row in it says that the MD5 was right.

    Raises `DigestMismatch` for a file that has another MD5.
    """
    stamps: dict[str, Stamp] = {}
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            stamps[path] = stamp(path)
    found: dict[str, Hashed] = {}
    for (path, seen), known in zip(stamps.items(), cache.known(list(stamps.values())), strict=True):
        if known is not None:
            found[path] = Hashed(known, seen[2], seen)
            continue
        with contextlib.suppress(FileNotFoundError):
            found[path] = hash_file(path, files[path])
            cache.remember(found[path].stamp, found[path].sha256)
    return found


def require_named(found: str, oid: str, where: str) -> None:
    """Raise `DigestMismatch` unless an object has the MD5 that it is named by."""
    if found != oid.removesuffix(".dir"):
        raise DigestMismatch(
            "an object in the cache is not what its name says, so it is not signed",
            got=f"md5 {found} in {where}",
            expected=f"md5 {oid}",
            remedy="if a file was edited through its link to the cache: add it again, after 'dvc unprotect' of it; "
            "else restore the object",
        )


def read_tree(data: bytes, what: str) -> dict[str, str]:
    """Path → MD5 of the files in a directory object. Raises `Refusal` for anything DVC would not have written."""
    rows = canonical.parse(data, what=f"directory object of {what}", limit=_MAX_TREE)
    if not isinstance(rows, list):
        raise Refusal(f"the directory object of {what} is not a list")
    tree: dict[str, str] = {}
    for row in rows:
        path, oid = (row.get("relpath"), row.get("md5")) if isinstance(row, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(oid, str) or not _MD5.fullmatch(oid):
            raise Refusal(f"the directory object of {what} has an unusable row", got=str(row)[:80])
        if path in tree or not _plain(path):
            raise Refusal(f"the directory object of {what} has an impossible path", got=repr(path)[:80])
        tree[path] = oid
    return tree


def _plain(path: str) -> bool:
    between = f"/{path}/"
    return not ("\0" in path or "//" in between or "/./" in between or "/../" in between)


def content_of_file(name: str, hashed: Hashed, oid: str) -> Content:
    """The content of a single file. Raises `Unreadable` for an empty one, about which nothing can be said."""
    if hashed.size == 0:
        raise Unreadable(
            f"{name} is empty", got="0 bytes", expected="a file with content", remedy="leave it out of DVC"
        )
    return Content((Subject(name, hashed.sha256),), None, {oid: hashed.sha256}, hashed.size)


def content_of_directory(name: str, oid: str, raw: bytes, digest: Callable[[str, str], Hashed | FileEntry]) -> Content:
    """The content of a directory from its directory object `raw`; `digest` gives SHA-256 and size for (path, MD5).

    Raises `Refusal` for names that a manifest leaves out (they would travel unsigned), `Unreadable` for nothing at all.
    """
    tree = read_tree(raw, name)
    for path in tree:
        if path.split("/")[0] in EXCLUDED_AT_ROOT:
            raise Refusal(
                f"{name} holds {path!r}, which mlseal leaves out of manifests",
                expected="no 'attestations' or 'registered_model_meta' at the root of a signed directory",
                remedy="move it elsewhere and add the directory again",
            )
    entries, objects = [], {oid: sha256(raw)}
    for path in sorted(tree, key=lambda p: p.encode("utf-8", "surrogatepass")):
        found = digest(path, tree[path])
        entries.append(FileEntry(path, found.size, found.sha256))
        if objects.setdefault(tree[path], found.sha256) != found.sha256:
            raise Refusal(
                f"two files of {name} share an MD5 and differ", got=tree[path], remedy="keep them apart from DVC"
            )
    manifest = Manifest(tuple(entries))
    if manifest.total_size == 0:
        raise Unreadable(f"{name} holds no content", got=f"{len(entries)} empty files", expected="at least one byte")
    _require_text(name, manifest)
    subjects = (Subject(name, manifest.oms_root), Subject(f"{name}#manifest", manifest.sha256))
    return Content(subjects, manifest, objects, manifest.total_size)


def _require_text(name: str, manifest: Manifest) -> None:
    try:
        manifest.to_bytes()
    except UnicodeEncodeError as error:
        raise Unreadable(f"a file name in {name} is not UTF-8", remedy="rename the file") from error


def quarantine(path: str, directory: Path, oid: str) -> Path | None:
    """Move a refused object out of reach of every DVC, with or without mlseal; None when it is gone already.

    The name ends in a random part, so nothing that was kept before is overwritten.
    """
    target = paths.private(directory) / f"{oid}-{secrets.token_hex(4)}"
    try:
        os.replace(path, target)
    except FileNotFoundError:
        return None
    except OSError:
        try:  # another file system
            shutil.copyfile(path, target)
            os.unlink(path)
        except OSError as error:
            raise Unreadable(
                f"cannot move {path} to quarantine", got=error.strerror, remedy="remove it by hand"
            ) from error
    target.chmod(0o400)
    return target


def sha256(data: bytes) -> str:
    """Hex SHA-256 of bytes at hand."""
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    """Hex MD5 of bytes at hand: DVC's name for them, and no more than a name."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
