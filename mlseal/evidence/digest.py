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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from mlseal.errors import Misuse, Refusal, Unreadable

EXCLUDED_AT_ROOT = frozenset({"registered_model_meta", "attestations"})
MAX_FILES = 5_000_000
_PARALLEL_FROM = 1 << 20  # below 1 MiB the interpreter lock costs more than a second core brings
_ESCAPED = bytes(range(32)) + b'"\\'  # all that RFC 8785 writes otherwise than it is
_OWN = 11  # of these, the quotes and the newline that a manifest line has itself
_ROW = re.compile(r'\{"path":"([^"\\\x00-\x1f]*)","sha256":"([0-9a-f]{64})","size":([0-9]{1,16})\}\n').findall
_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime (in nanoseconds) of a file: one of them changes when the file does."""


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
        lines = [f'{{"path":"{path}","sha256":"{sha256}","size":{size}}}\n' for path, size, sha256 in self.files]
        data = "".join(lines).encode("utf-8")
        if lines and len(data) - len(data.translate(None, _ESCAPED)) == _OWN * len(lines):
            return data  # no name needs an escape, so the lines are what an encoder would have written
        lines = [_LINE({"path": path, "sha256": sha256, "size": size}) for path, size, sha256 in self.files]
        return ("\n".join(lines) + "\n").encode("utf-8")

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of `to_bytes`: binds paths, sizes and contents."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def in_oms_order(self) -> list[FileEntry]:
        """The files as ``model_signing`` sorts them: by path component, so ``a/x`` comes before ``a-b/x``."""
        if "\0" in "".join([path for path, _, _ in self.files]):  # no file system has it, a manifest from elsewhere may
            return sorted(self.files, key=lambda f: f.path.split("/"))
        return sorted(self.files, key=lambda f: f.path.replace("/", "\0"))

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
            text = data.decode("utf-8")
            manifest = cls(tuple([FileEntry(path, int(size), sha256) for path, sha256, size in _ROW(text)]))
            if (same := manifest.to_bytes() == data) is False:  # names with escapes, or no manifest
                rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
                manifest = cls(tuple(FileEntry(str(r["path"]), int(r["size"]), str(r["sha256"])) for r in rows))
                same = manifest.to_bytes() == data
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal("manifest cannot be read", got=str(error)[:120]) from error
        if not same or not all(one.path < two.path for one, two in pairwise(manifest.files)):
            raise Refusal("manifest is not canonical", expected="sorted, unique RFC 8785 lines")
        manifest.__dict__["sha256"] = hashlib.sha256(data).hexdigest()  # `data` is what the property would write again
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
    """Remembers digests of unchanged files for *signing*; verification must not be given one.

    `known` is asked before a file is opened, and `remember` told after; an implementation may rely on this order.
    """

    def known(self, stamps: Sequence[Stamp]) -> list[str | None]:
        """For each stamp the digest of the file that has exactly it, where that is known for certain."""

    def remember(self, stamp: Stamp, sha256: str) -> None:
        """Keep the digest of the file that had this stamp before and after it was read."""


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
        (sha256,) = _digests([os.fspath(root)], [stamp_of(status)], cache)
        return Measured(root, (Subject(label, sha256),), None)
    if not stat.S_ISDIR(status.st_mode):
        raise Misuse(f"{root} is neither a file nor a directory")
    manifest = _manifest(root, cache, allow_links_to)
    subjects = (Subject(label, manifest.oms_root), Subject(f"{label}#manifest", manifest.sha256))
    return Measured(root, subjects, manifest)


def _manifest(root: Path, cache: DigestCache | None, allow_links_to: Sequence[Path]) -> Manifest:
    allowed = [os.path.realpath(root), *(os.path.realpath(p) for p in allow_links_to)]
    found: list[tuple[str, str, Stamp]] = []
    _walk(os.fspath(root), "", allowed, frozenset(), found)
    found.sort(key=itemgetter(0))  # code points sort as their UTF-8 bytes do
    if not any(stamp[2] for _, _, stamp in found):
        raise Unreadable(f"{root} holds no content", got=f"{len(found)} empty files", expected="at least one byte")
    digests = _digests([full for _, full, _ in found], [stamp for _, _, stamp in found], cache)
    rows = [(path, stamp[2], sha256) for (path, _, stamp), sha256 in zip(found, digests, strict=True)]
    return Manifest(tuple(map(FileEntry._make, rows)))


def _walk(
    directory: str,
    prefix: str,
    allowed: Sequence[str],
    ancestors: frozenset[tuple[int, int]],
    found: list[tuple[str, str, Stamp]],
) -> None:
    """Append (relative POSIX path, path to open, stamp) of every file; follow links only inside `allowed`."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"cannot read {directory}", got=error.strerror) from error
    try:  # beneath a descriptor, the kernel looks one name up per file and not the whole path
        here = os.fstat(descriptor)
        if (here.st_dev, here.st_ino) in ancestors:
            raise Refusal(f"{directory} links back to a directory above it")
        ancestors |= {(here.st_dev, here.st_ino)}
        for entry in _entries(descriptor, directory):
            name = entry.name
            if not prefix and name in EXCLUDED_AT_ROOT:
                continue
            full = f"{directory}/{name}"
            if not name.isascii():
                _require_utf8(name, directory)
            if entry.is_symlink():
                _require_inside(full, allowed)
            try:
                status = entry.stat()
            except OSError as error:
                raise Unreadable(f"cannot read {full}", got=error.strerror) from error
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                found.append((prefix + name, full, stamp_of(status)))
            elif kind == stat.S_IFDIR:
                _walk(full, f"{prefix}{name}/", allowed, ancestors, found)
            else:
                raise Unreadable(f"{full} is neither a file nor a directory", remedy="remove the special file")
    finally:
        os.close(descriptor)


def _entries(descriptor: int, directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(descriptor) as entries:
            return list(entries)
    except OSError as error:
        raise Unreadable(f"cannot read {directory}", got=error.strerror) from error


def _require_utf8(name: str, directory: str) -> None:
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


def _digests(files: Sequence[str], stamps: Sequence[Stamp], cache: DigestCache | None) -> list[str]:
    """Hex SHA-256 of each file, from the cache where its stamp is known, in parallel where that pays."""
    known = cache.known(stamps) if cache is not None else [None] * len(files)
    unread = [i for i, sha256 in enumerate(known) if sha256 is None]
    large = [i for i in unread if stamps[i][2] >= _PARALLEL_FROM]
    large.sort(key=lambda i: -stamps[i][2])  # two cores cannot share a file: the largest, begun last, would end alone
    read: dict[int, str] = {}
    if len(large) > 1:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            read = dict(zip(large, pool.map(lambda i: _digest(files[i], stamps[i]), large), strict=True))
    for i in unread:
        if i not in read:
            read[i] = _digest(files[i], stamps[i])
        if cache is not None:
            cache.remember(stamps[i], read[i])
    return [sha256 or read[i] for i, sha256 in enumerate(known)]


def _digest(path: str, stamp: Stamp) -> str:
    """Hex SHA-256 of a file that still has `stamp` after it was read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sha256 = sha256_of(descriptor, stamp[2])
            after = stamp_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="check its permissions") from error
    if stamp != after:
        raise Unreadable(f"{path} changed while it was read", remedy="stop what writes to it, then run again")
    return sha256


def sha256_of(descriptor: int, size: int) -> str:
    """Hex SHA-256 of an open file that is expected to hold `size` bytes; the caller looks whether it changed.

    Reads and does not map: a mapped file that somebody truncates kills the process, and mapping was not faster.
    """
    if size < _PARALLEL_FROM:
        # One read costs a fifth of a buffered file object, and a twentieth of `file_digest` with its 256 KiB buffer.
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return hashlib.sha256(data).hexdigest()
        os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of the file with this status."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
