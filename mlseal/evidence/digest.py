"""From bytes to subjects: the only place where a digest is computed.

A file is one subject, the SHA-256 of its bytes. A directory is two: the OpenSSF Model Signing root digest, so that
stock ``model_signing`` agrees with us, and ``NAME#manifest``, the digest of a canonical list of path, size and SHA-256
of every file. The second exists because the first does not change when a file is renamed (OMS 1.0 hashes the digests
in name order, not the names).

Left out of a directory are exactly ``registered_model_meta`` and ``attestations/`` at its root: MLflow writes the one
when a model is downloaded, mlseal the other. Nothing else is ignored, not ``.git`` and not hidden files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from mlseal.errors import Misuse, Refusal, Unreadable

EXCLUDED_AT_ROOT = frozenset({"registered_model_meta", "attestations"})
MAX_FILES = 5_000_000
_PARALLEL_FROM = 1 << 20  # below 1 MiB the interpreter lock costs more than a second core brings
_PLAIN = re.compile(r"[A-Za-z0-9 ._/+=@#-]*").fullmatch  # needs no escape, so a line can be written directly
_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, order=True)
class Subject:
    """A name for people and a SHA-256 (64 lower-case hex digits) for machines; only the digest decides."""

    name: str
    sha256: str


class FileEntry(NamedTuple):
    """One file of a manifest: POSIX path relative to the root, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Every file of a directory, sorted by the UTF-8 bytes of its path."""

    files: tuple[FileEntry, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON lines: ``{"path","sha256","size"}`` per file, each line RFC 8785, newline at the end.

        ``json`` with sorted keys, no spaces and no ASCII escapes writes strings and integers exactly as RFC 8785
        does, ten times faster; paths hold no lone surrogate (`measure` refuses those).
        """
        lines = [
            f'{{"path":"{path}","sha256":"{sha256}","size":{size}}}'
            if _PLAIN(path) and _PLAIN(sha256)
            else _LINE({"path": path, "sha256": sha256, "size": size})
            for path, size, sha256 in self.files
        ]
        return ("\n".join(lines) + "\n").encode("utf-8")

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of `to_bytes`: binds paths, sizes and contents."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def in_oms_order(self) -> list[FileEntry]:
        """The files as ``model_signing`` sorts them: by path component, so ``a/x`` comes before ``a-b/x``."""
        return sorted(self.files, key=lambda f: f.path.split("/"))

    @cached_property
    def oms_root(self) -> str:
        """Hex root digest of OpenSSF Model Signing 1.0 (files method, SHA-256): SHA-256 over the files' raw digests."""
        return hashlib.sha256(b"".join(bytes.fromhex(f.sha256) for f in self.in_oms_order)).hexdigest()

    @property
    def total_size(self) -> int:
        """Bytes of all files together."""
        return sum(f.size for f in self.files)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest in `data`; raises `Refusal` unless `data` is exactly what `to_bytes` would write."""
        try:
            rows = [json.loads(line) for line in data.decode("utf-8").removesuffix("\n").split("\n")]
            manifest = cls(tuple(FileEntry(str(r["path"]), int(r["size"]), str(r["sha256"])) for r in rows))
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal("manifest cannot be read", got=str(error)[:120]) from error
        paths = [f.path.encode() for f in manifest.files]
        if manifest.to_bytes() != data or paths != sorted(set(paths)):
            raise Refusal("manifest is not canonical", expected="sorted, unique RFC 8785 lines")
        return manifest


@dataclass(frozen=True)
class Measured:
    """What `measure` read: made by hashing bytes, never from a claim."""

    path: Path
    subjects: tuple[Subject, ...]
    manifest: Manifest | None

    @property
    def sha256(self) -> str:
        """The digest that binds everything: of the bytes for a file, of the manifest for a directory."""
        return self.subjects[-1].sha256

    @property
    def name(self) -> str:
        """The name of the first subject."""
        return self.subjects[0].name


class DigestCache(Protocol):
    """Remembers digests of unchanged files for *signing*; verification must not be given one."""

    def known(self, statuses: Sequence[os.stat_result]) -> list[str | None]:
        """For each status the digest of the file that has exactly it, where that is known for certain."""

    def remember(self, status: os.stat_result, sha256: str) -> None:
        """Keep the digest of the file that had this status before and after it was read."""


def measure(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    cache: DigestCache | None = None,
    allow_links_to: Sequence[Path] = (),
) -> Measured:
    """Hash a file or directory.

    Args:
        path: what to hash; a link given here is followed.
        name: subject name; the last path component if absent.
        cache: for signing only. Verification reads every byte, of the copy that is then used.
        allow_links_to: directories outside `path` to which links inside it may point (DVC's cache).

    Raises:
        Unreadable: missing, unreadable, special or changing files; an empty file or a directory without content;
            a file name that is not UTF-8.
        Refusal: a link that leaves the root.
    """
    root = Path(path)
    label = name if name is not None else (root.name or root.resolve().name)
    try:
        status = root.stat()
    except OSError as error:
        raise Unreadable(
            f"cannot read {root}", got=error.strerror, remedy="check the path and its permissions"
        ) from error
    if stat.S_ISREG(status.st_mode):
        if status.st_size == 0:
            raise Unreadable(f"{root} is empty", got="0 bytes", expected="a file with content")
        (sha256,) = _digests([(os.fspath(root), status)], cache)
        return Measured(root, (Subject(label, sha256),), None)
    if not stat.S_ISDIR(status.st_mode):
        raise Misuse(f"{root} is neither a file nor a directory")
    manifest = _manifest(root, cache, allow_links_to)
    subjects = (Subject(label, manifest.oms_root), Subject(f"{label}#manifest", manifest.sha256))
    return Measured(root, subjects, manifest)


def _manifest(root: Path, cache: DigestCache | None, allow_links_to: Sequence[Path]) -> Manifest:
    allowed = [os.path.realpath(root), *(os.path.realpath(p) for p in allow_links_to)]
    found = sorted(_walk(os.fspath(root), "", allowed, frozenset()), key=lambda item: item[0].encode())
    if not any(status.st_size for _, _, status in found):
        raise Unreadable(f"{root} holds no content", got=f"{len(found)} empty files", expected="at least one byte")
    digests = _digests([(full, status) for _, full, status in found], cache)
    return Manifest(
        tuple(FileEntry(path, status.st_size, sha256) for (path, _, status), sha256 in zip(found, digests, strict=True))
    )


def _walk(
    directory: str, prefix: str, allowed: Sequence[str], ancestors: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (relative POSIX path, path to open, status) of every file; follow links only inside `allowed`."""
    try:
        here = os.stat(directory)  # noqa: PTH116 -- a Path per directory costs more than the call
        entries = list(os.scandir(directory))
    except OSError as error:
        raise Unreadable(f"cannot read {directory}", got=error.strerror) from error
    if (here.st_dev, here.st_ino) in ancestors:
        raise Refusal(f"{directory} links back to a directory above it")
    ancestors |= {(here.st_dev, here.st_ino)}
    for entry in entries:
        if not prefix and entry.name in EXCLUDED_AT_ROOT:
            continue
        _require_utf8(entry.name, directory)
        if entry.is_symlink():
            _require_inside(entry.path, allowed)
        relative = f"{prefix}{entry.name}"
        try:
            status = entry.stat()
        except OSError as error:
            raise Unreadable(f"cannot read {entry.path}", got=error.strerror) from error
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(entry.path, f"{relative}/", allowed, ancestors)
        elif stat.S_ISREG(status.st_mode):
            yield relative, entry.path, status
        else:
            raise Unreadable(f"{entry.path} is neither a file nor a directory", remedy="remove the special file")


def _require_utf8(name: str, directory: str) -> None:
    if name.isascii():
        return
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unreadable(
            f"a file name in {directory} is not UTF-8", got=repr(os.fsencode(name))[:80], remedy="rename the file"
        ) from error


def _require_inside(link: str, allowed: Sequence[str]) -> None:
    target = os.path.realpath(link)
    if not any(target == base or target.startswith(base + os.sep) for base in allowed):
        raise Refusal(
            f"link {link} leaves the directory",
            got=target,
            expected=f"a target inside {allowed[0]}",
            remedy="copy the file in, or sign the directory that holds it",
        )


def _digests(files: Sequence[tuple[str, os.stat_result]], cache: DigestCache | None) -> list[str]:
    """Hex SHA-256 of each file, from the cache where its status is known, in parallel where that pays."""
    known = cache.known([status for _, status in files]) if cache is not None else [None] * len(files)
    unread = [i for i, sha256 in enumerate(known) if sha256 is None]
    large = [i for i in unread if files[i][1].st_size >= _PARALLEL_FROM]
    read: dict[int, str] = {}
    if len(large) > 1:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            read = dict(zip(large, pool.map(lambda i: _digest(*files[i]), large), strict=True))
    for i in unread:
        if i not in read:
            read[i] = _digest(*files[i])
        if cache is not None:
            cache.remember(files[i][1], read[i])
    return [sha256 or read[i] for i, sha256 in enumerate(known)]


def _digest(path: str, status: os.stat_result) -> str:
    """Hex SHA-256 of a file that still has `status` after it was read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if status.st_size < _PARALLEL_FROM:
                # One read suffices and costs a fifth of a buffered file object; one byte more would show growth.
                sha256 = hashlib.sha256(os.read(descriptor, status.st_size + 1)).hexdigest()
            else:
                with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="check its permissions") from error
    if _version(status) != _version(after):
        raise Unreadable(f"{path} changed while it was read", remedy="stop what writes to it, then run again")
    return sha256


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
