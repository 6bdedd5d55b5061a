"""Where bundles rest, by evidence id: a directory, or a bucket (`mlseal.evidence.bucket`). Its contents are untrusted.

Whoever can write the store can delete a bundle or put another there. Neither helps: what is read is verified, and
a deleted bundle leaves its log entry behind, which the index reports as unresolved.
"""

from __future__ import annotations

import abc
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePath

from mlseal.errors import Error, MalformedEvidence, NoEvidence, Unreadable
from mlseal.evidence import bucket_url, project
from mlseal.evidence.bundle import Bundle

SUFFIX = ".sigstore.json"
_HEX = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]
"""Told ``done, total`` while something long goes on."""


def quiet(_done: int, _total: int) -> None:
    """Tells nobody."""


class BundleStore(abc.ABC):
    """Bundles under ``bundles/ab/cdef….sigstore.json``; any number of writers. ``str()`` of it says where, for people.

    Attributes:
        name: 16 hex digits for files of ours about this store, such as its index.
        outputs: where copies of outputs may be kept for another time (`mlseal.stages.kept`).
    """

    name: str
    outputs: Path

    @abc.abstractmethod
    def __str__(self) -> str: ...

    def absolute(self) -> str:
        """What `resolve` makes this store of, in whatever directory."""
        return str(self)

    def where(self, evidence_id: str) -> str:
        """Where the bundle of `evidence_id` rests, whether or not it exists; for people."""
        return f"{self}/{relative(evidence_id)}"

    @abc.abstractmethod
    def has(self, evidence_id: str) -> bool:
        """Whether something rests there. Raises `ServiceUnavailable` if that cannot be told."""

    @abc.abstractmethod
    def get(self, evidence_id: str) -> Bundle:
        """The bundle of `evidence_id`, its id recomputed from the bytes.

        Raises `NoEvidence` if absent, `MalformedEvidence` if it is another, `Unreadable` if there is no bundle in it,
        `ServiceUnavailable` if the store gives no answer.
        """

    @abc.abstractmethod
    def put(self, bundle: Bundle) -> None:
        """Keep `bundle`; the first encoding of a piece of evidence stays. Whole or not at all."""

    @abc.abstractmethod
    def ids(self, prefix: str = "") -> Iterator[str]:
        """Evidence ids, sorted, of all files that carry one in their name and begin with `prefix`; contents unread."""

    def fetch(self, ids: Collection[str], progress: Progress = quiet) -> Iterator[tuple[str, Bundle | Error]]:
        """Each id with its bundle, or why it is not to be had here, as `get` raises it; in whatever order.

        A store that gives no answer raises, once: that says nothing about any of them.
        """
        for done, evidence_id in enumerate(ids, 1):
            try:
                found: Bundle | Error = self.get(evidence_id)
            except Error as error:
                found = error
            yield evidence_id, found
            progress(done, len(ids))

    def afresh(self) -> BundleStore:
        """The same store, every read of which asks it anew: for audits, and for whoever puts back what it lost."""
        return self

    def doubted(self, evidence_id: str) -> None:  # noqa: B027 - a directory remembers nothing
        """This bundle did not verify: what is remembered of it is dropped, so that a mended one is seen."""

    def require_answering(self) -> None:  # noqa: B027 - a directory is there or is made
        """Raise `ServiceUnavailable` when it is known already that nothing can be put: asked before a log is."""

    @abc.abstractmethod
    def require_usable(self, *, writing: bool) -> None:
        """Raise `Unreadable` or `ServiceUnavailable` when the store cannot be read, or not be written if asked."""


class Store(BundleStore):
    """A directory: bundles under ``ROOT/bundles/ab/cdef….sigstore.json``."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.name = hashlib.sha256(os.fsencode(os.path.realpath(self.root))).hexdigest()[:16]
        self.outputs = self.root / "outputs"

    def __str__(self) -> str:
        return str(self.root)

    def absolute(self) -> str:
        """The directory's absolute path."""
        return str(self.root.absolute())

    def path(self, evidence_id: str) -> Path:
        """Where the bundle of `evidence_id` rests, whether or not it exists."""
        return self.root / relative(evidence_id)

    def has(self, evidence_id: str) -> bool:
        """Whether a file rests there."""
        return self.path(evidence_id).is_file()

    def put(self, bundle: Bundle) -> None:
        """Keep `bundle`; the first encoding of a piece of evidence stays. Whole or not at all."""
        path = self.path(bundle.evidence_id)
        if not path.exists():
            self._make_like_root(path.parent)
            bundle.write(path)

    def _make_like_root(self, folder: Path) -> None:
        """Make `folder` with the permissions of the store's root: a store opened to a group stays open to it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            mode = self.root.stat().st_mode & 0o1777
            for part in (folder.parent, folder):
                if not part.exists():
                    part.mkdir(exist_ok=True)
                    part.chmod(mode)
        except OSError as error:
            raise Unreadable(
                f"cannot write to the store {self.root}", got=error.strerror, remedy="check space and permissions"
            ) from error

    def get(self, evidence_id: str) -> Bundle:
        """The bundle of `evidence_id`. Raises `NoEvidence` if absent, `MalformedEvidence` if it is another."""
        path = self.path(evidence_id)
        if not path.is_file():
            raise NoEvidence(
                f"the store {self.root} has no evidence {evidence_id[:16]}…", remedy="copy its bundle there"
            )
        return require_same(Bundle.read(path), evidence_id, str(path))

    def ids(self, prefix: str = "") -> Iterator[str]:
        """Evidence ids of all files that carry one in their name; contents unread."""
        for file in sorted(self.root.glob(f"bundles/{prefix[:2] if len(prefix) > 1 else '??'}/*{SUFFIX}")):
            name = file.parent.name + file.name.removesuffix(SUFFIX)
            if _HEX.fullmatch(name) and name.startswith(prefix):
                yield name

    def require_usable(self, *, writing: bool) -> None:
        """Raise `Unreadable` when the directory is not there, or cannot be written if asked."""
        if not self.root.is_dir():
            raise Unreadable("the evidence store is gone", got=self.root, expected="an existing directory")
        if writing and not os.access(self.root, os.W_OK):
            raise Unreadable("the evidence store cannot be written", got=self.root)


def relative(evidence_id: str) -> str:
    """Where a bundle rests below its store. Raises `MalformedEvidence` for anything but 64 hex digits."""
    if not _HEX.fullmatch(evidence_id):
        raise MalformedEvidence("not an evidence id", got=evidence_id[:80], expected="64 hex digits")
    return f"bundles/{evidence_id[:2]}/{evidence_id[2:]}{SUFFIX}"


def named(path: str) -> str | None:
    """The evidence id in the last parts of `path`; None where `path` is no place of a bundle."""
    folder, _, file = path.rpartition("/")
    evidence_id = folder[-2:] + file.removesuffix(SUFFIX)
    place = _HEX.fullmatch(evidence_id) and path.endswith(relative(evidence_id))
    return evidence_id if place else None


def require_same(bundle: Bundle, evidence_id: str, where: str) -> Bundle:
    """`bundle` if it is this evidence, by its bytes. Raises `MalformedEvidence` otherwise."""
    if bundle.evidence_id != evidence_id:
        raise MalformedEvidence(f"{where} holds other evidence", got=bundle.evidence_id, expected=evidence_id)
    return bundle


def resolve(explicit: str | os.PathLike[str] | None = None) -> BundleStore:
    """The store in force: `explicit`, ``$MLSEAL_STORE``, else ``evidence`` in the project's ``.mlseal`` (`project`).

    A URL such as ``s3://bucket/prefix`` names a bucket, ``file:///path`` and anything else a directory. Raises `Misuse`
    for a URL that may hold a secret or leads out of itself.
    """
    place = explicit or os.environ.get("MLSEAL_STORE") or project.home() / "evidence"
    if isinstance(place, str) and bucket_url.is_url(place):
        url = bucket_url.parse(place)
        if url.scheme not in bucket_url.LOCAL:
            from mlseal.evidence.bucket import BucketStore

            return BucketStore(url)
        return Store(bucket_url.local_path(url))
    if not isinstance(place, PurePath):
        bucket_url.require_no_lost_slash(os.fspath(place))
    return Store(place)
