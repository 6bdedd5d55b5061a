"""An evidence store behind a URL of fsspec, such as ``s3://bucket/prefix``. Needs the extra `remote`, at use.

The layout is that of a directory, so a copy of one is the other. Nothing about the bucket is believed: each bundle's id
is recomputed from the bytes that came, and the verifier and the log are asked as for a directory. An answer that tells
nothing (no bucket, no right, no network, too slow) is `ServiceUnavailable`, never "no evidence".

*Writing* asks for a first write (S3's ``If-None-Match: *``, where fsspec and the service know it), else looks before it
writes: a second writer of the same evidence then overwrites like with like. What was put is read back.

*Reading* goes by id; nothing lists the bucket to answer about one. What came once is kept in this user's cache, whose
entries are hashed again at each use, and dropped when they do not verify (`doubted`).

Credentials are those of the environment and of the cloud's own configuration; no URL carries any (`bucket_url`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from mlseal.errors import Error, MalformedEvidence, Misuse, NoEvidence, Unreadable
from mlseal.evidence import bucket_faults as faults
from mlseal.evidence import paths
from mlseal.evidence.bucket_url import BucketURL
from mlseal.evidence.bundle import MAX_BYTES, Bundle
from mlseal.evidence.deadlines import Limits, each, within
from mlseal.evidence.store import BundleStore, Progress, Store, named, quiet, relative, require_same

R = TypeVar("R")
_ANSWERED_SECONDS = 30.0
"""For how long an answer of the store stands for the next."""
_PROBE = "0" * 64
_WRITABLE = "mlseal-can-write-here"
_MARK = b"mlseal doctor --write\n"
_PER_TOTAL = 6


class BucketStore(BundleStore):
    """Bundles under ``URL/bundles/ab/cdef….sigstore.json``; any number of writers.

    Args:
        url: where; parsed, so free of secrets.
        cached: whether what came is kept in this user's cache, and taken from there.
        limits: how long to wait, and how many calls at once; by default ``$MLSEAL_STORE_SECONDS`` for one call.

    Thread-safe, and usable after a fork: the connection belongs to one process.
    """

    def __init__(self, url: BucketURL, *, cached: bool = True, limits: Limits | None = None) -> None:
        self.url, self.name, self._limits = url, url.name, limits or _limits()
        own = paths.cache_dir() / f"evidence-{self.name}"
        self.outputs = own / "outputs"
        self._cache = Store(own) if cached else None
        self._answered = 0.0
        self._pid, self._opening = os.getpid(), threading.Lock()
        self._opened: tuple[Any, str] | None = None

    def __str__(self) -> str:
        return str(self.url)

    def has(self, evidence_id: str) -> bool:
        """Whether an object rests there, or did when this user's cache last took it."""
        relative(evidence_id)
        if self._cache is not None and self._cache.has(evidence_id):
            return True
        found = self._call(f"evidence {evidence_id[:16]}…", lambda fs, root: _exists(fs, _at(root, evidence_id)))
        return bool(found)

    def get(self, evidence_id: str) -> Bundle:
        """The bundle of `evidence_id`, from the cache if that holds it. Raises as `BundleStore.get`."""
        relative(evidence_id)
        if (known := self._remembered(evidence_id)) is not None:
            return known
        return self._call(f"evidence {evidence_id[:16]}…", lambda fs, root: self._read(fs, root, evidence_id))

    def fetch(self, ids: Collection[str], progress: Progress = quiet) -> Iterator[tuple[str, Bundle | Error]]:
        """Each id with its bundle or why not; several at once. Raises as soon as one call says nothing."""
        asked = list(dict.fromkeys(ids))
        missing = []
        for evidence_id in asked:
            if (known := self._remembered(evidence_id)) is not None:
                yield evidence_id, known
            else:
                missing.append(evidence_id)
        done = len(asked) - len(missing)
        with contextlib.closing(each(self._now, missing, self._limits, f"the store {self}")) as answers:
            for evidence_id, found in answers:
                yield evidence_id, found if isinstance(found, Bundle) else self._about_one(found, evidence_id)
                progress(done := done + 1, len(asked))

    def put(self, bundle: Bundle) -> None:
        """Keep `bundle`; the first encoding stays. What is there afterwards was read back and is this evidence.

        An object under its name that is other evidence, or none, is overwritten: it helps nobody. Raises
        `ServiceUnavailable` if the store does not take it, `MalformedEvidence` if it shows something else afterwards.
        """
        evidence_id = bundle.evidence_id  # refuses what is too large
        what = f"evidence {evidence_id[:16]}…"
        self._call(what, lambda fs, root: _create(fs, _at(root, evidence_id), bundle.raw))
        try:
            self._call(what, lambda fs, root: self._read(fs, root, evidence_id))
        except (NoEvidence, MalformedEvidence, Unreadable):
            self._call(what, lambda fs, root: fs.pipe_file(_at(root, evidence_id), bundle.raw))
            self._call(what, lambda fs, root: self._read(fs, root, evidence_id))

    def ids(self, prefix: str = "") -> Iterator[str]:
        """Evidence ids that the bucket lists; with two digits or more of `prefix` one folder of it is listed."""
        part = f"bundles/{prefix[:2]}" if len(prefix) > 1 else "bundles"
        seconds = self._limits.total
        listed = self._call("the list of bundles", lambda fs, root: _listed(fs, f"{root}/{part}"), seconds)
        yield from sorted({i for path in listed if (i := named(path)) is not None and i.startswith(prefix)})

    def afresh(self) -> BucketStore:
        """The same bucket by the same connection, without the cache."""
        asked = BucketStore(self.url, cached=False, limits=self._limits)
        asked._pid, asked._opened = self._pid, self._opened
        return asked

    def doubted(self, evidence_id: str) -> None:
        """Drop the cached copy: the store may hold a good one by now."""
        if self._cache is not None:
            with contextlib.suppress(OSError):
                self._cache.path(evidence_id).unlink(missing_ok=True)

    def require_answering(self) -> None:
        """Raise `ServiceUnavailable` unless the store answers now, or did a moment ago."""
        if time.monotonic() - self._answered > _ANSWERED_SECONDS or not self._answered:
            self._call("an answer", lambda fs, root: _exists(fs, _at(root, _PROBE)))

    def require_usable(self, *, writing: bool) -> None:
        """Raise unless the store answers; with `writing`, unless it takes an object, which stays and is always one."""
        self._call("an answer", lambda fs, root: _exists(fs, _at(root, _PROBE)))
        if writing:
            self._call("a test object", lambda fs, root: _create(fs, f"{root}/{_WRITABLE}", _MARK, over=True))

    def _about_one(self, error: Exception, evidence_id: str) -> Error:
        """`error` as ours if it says something about this bundle; raised if it is about the store."""
        said = faults.told(error, str(self), f"evidence {evidence_id[:16]}…")
        if not isinstance(said, (NoEvidence, MalformedEvidence, Unreadable)):
            raise said from error
        return said

    def _now(self, evidence_id: str) -> Bundle:
        return self._read(*self._place(), evidence_id)

    def _read(self, fs: Any, root: str, evidence_id: str) -> Bundle:
        """The bundle as the bucket has it now; what is too large is not asked for to its end."""
        raw = _beginning(fs, _at(root, evidence_id), self._limits.total)
        self._answered = time.monotonic()
        if not raw or len(raw) > MAX_BYTES:
            raise Unreadable(
                f"{self.where(evidence_id)} is {'empty' if not raw else 'too large'}", expected="a Sigstore bundle v0.3"
            )
        bundle = require_same(Bundle(raw), evidence_id, self.where(evidence_id))
        if self._cache is not None:
            with contextlib.suppress(Error, OSError):  # a full disk or a home that is none: then without
                paths.private(self._cache.root)
                bundle.write(self._cache.path(evidence_id))
        return bundle

    def _remembered(self, evidence_id: str) -> Bundle | None:
        """The cached bundle, hashed again; None where it is not there or is not this evidence."""
        if self._cache is None:
            return None
        with contextlib.suppress(Error, OSError):
            return self._cache.get(evidence_id)
        return None

    def _call(self, what: str, work: Callable[[Any, str], R], seconds: float | None = None) -> R:
        """What `work` makes of the file system and the store's root in it, in time. Raises ours only."""
        try:
            done = within(seconds or self._limits.call, lambda: work(*self._place()), f"the store {self}")
        except Error:
            raise
        except Exception as error:
            raise faults.told(error, str(self), what) from error
        self._answered = time.monotonic()
        return done

    def _place(self) -> tuple[Any, str]:
        if self._pid != os.getpid():  # a child has neither the threads of the connection nor whoever held the lock
            self._pid, self._opening, self._opened = os.getpid(), threading.Lock(), None
        with self._opening:
            if self._opened is None:
                self._opened = _open(self.url)
            return self._opened


def _open(url: BucketURL) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the store's root in it."""
    import fsspec
    from fsspec.core import url_to_fs

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if url.scheme == "s3":  # botocore waits a minute, five times; ours are the deadlines
        asked = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 1}, **asked}
    try:
        fs, root = url_to_fs(str(url), **options)
    except ValueError as error:
        raise Misuse(
            "no file system for this store", got=f"{url.scheme}://", expected="a scheme that fsspec knows, such as s3"
        ) from error
    if hasattr(fs, "retries"):
        fs.retries = 2
    return fs, str(root).rstrip("/")


def _at(root: str, evidence_id: str) -> str:
    return f"{root}/{relative(evidence_id)}"


def _exists(fs: Any, path: str) -> bool:
    """Whether `path` is an object. Not ``fs.exists``, which takes every failure for a no."""
    try:
        found = fs.info(path)
    except FileNotFoundError as error:
        if faults.code_of(error) == "NoSuchBucket":
            raise
        return False
    return bool(found.get("type") != "directory")


def _beginning(fs: Any, path: str, seconds: float) -> bytes:
    """One byte more than a bundle may have, of what lies at `path`; a web server has `seconds` for it.

    Web servers may ignore ranges and send without end, so theirs is read as it comes. Other services are believed to
    keep to the range.
    """
    if "http" not in fs.protocol:
        return bytes(fs.cat_file(path, start=0, end=MAX_BYTES + 1))
    import aiohttp

    found = bytearray()
    limit = aiohttp.ClientTimeout(total=seconds)  # ends the call, too, that nobody waits for any more
    with fs.open(path, "rb", block_size=0, size=1, timeout=limit) as stream:  # a size: it is not asked for before
        while len(found) <= MAX_BYTES and (part := stream.read(MAX_BYTES + 1 - len(found))):
            found += part
    return bytes(found)


def _create(fs: Any, path: str, data: bytes, *, over: bool = False) -> None:
    """Write `data` to `path` unless something is there; with `over` even then, where no first write is known."""
    try:
        fs.pipe_file(path, data, mode="create")
    except Exception as error:
        if faults.exists(error):
            return
        if not faults.no_conditions(error):
            raise
        if over or not _exists(fs, path):
            fs.pipe_file(path, data)


def _listed(fs: Any, path: str) -> list[str]:
    try:
        return [str(found) for found in fs.find(path)]
    except FileNotFoundError as error:
        if faults.code_of(error) == "NoSuchBucket":
            raise
        return []


def _limits() -> Limits:
    """``$MLSEAL_STORE_SECONDS`` for one call (default 20, at most 3600), six times that for all of one question."""
    text = os.environ.get("MLSEAL_STORE_SECONDS", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 3600:
        raise Misuse("MLSEAL_STORE_SECONDS cannot be read", got=text[:40], expected="whole seconds from 1 to 3600")
    return Limits(call=float(text), total=float(text) * _PER_TOTAL)
