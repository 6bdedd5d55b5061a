"""The admission gateway: what may be stored in a DVC remote is decided in front of it, whoever the client is.

Order of a push: manifest, log tiles and checkpoint, bundle, then the data. A manifest waits in the gateway until a
verified bundle names it; a bundle is stored when it is verified against the gateway's trust root and rules; an object
when a verified statement lists its bytes (`gateway_admission`). Nothing that is stored is ever replaced by other bytes,
but for the log's checkpoint, which only grows, and for bundles where renewal is allowed.

Everything needed after a restart is in the store. The state directory holds a ledger that may be lost, bodies on their
way in, and the quarantine.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from mlseal.errors import Error, Misuse, NoEvidence, Refusal, StaleEvidence
from mlseal.evidence import salts
from mlseal.evidence.bundle import MAX_BYTES as MAX_BUNDLE
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Manifest
from mlseal_dvc.gateway_admission import Admission
from mlseal_dvc.gateway_ledger import Ledger
from mlseal_dvc.gateway_log import LogKeeper
from mlseal_dvc.gateway_parts import Parts
from mlseal_dvc.gateway_paths import Target
from mlseal_dvc.gateway_paths import target as as_target
from mlseal_dvc.gateway_spool import Limits, Received, Spool
from mlseal_dvc.gateway_upstream import Source, Upstream, UpstreamFailed, read_small

_logger = logging.getLogger("mlseal.gateway")
_SMALL = {"checkpoint": 64 << 10, "tile": 8 << 10, "salt": 128, "bundle": MAX_BUNDLE, "revocation": MAX_BUNDLE}
_STRIPES = 256


@dataclass(frozen=True)
class Answer:
    """Status and one sentence."""

    status: int
    message: str


@dataclass(frozen=True)
class Found:
    """A file to hand out."""

    file: Source
    size: int


class Differs(Exception):
    """Other bytes are stored under the name."""


class Gateway:
    """Everything but the wire.

    Args:
        renew: a newer bundle of the same signer may replace an older one.
        verify_reads: objects are handed out only while a verified statement lists their bytes.
    """

    def __init__(
        self,
        upstream: Upstream,
        admission: Admission,
        ledger: Ledger,
        spool: Spool,
        *,
        renew: bool = False,
        verify_reads: bool = False,
    ) -> None:
        self._upstream, self._admission, self._ledger, self._spool = upstream, admission, ledger, spool
        self._renew, self._verify_reads = renew, verify_reads
        self._log = LogKeeper(admission, upstream, spool)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._store_one = {
            "object": self._object,
            "manifest": self._manifest,
            "bundle": self._bundle,
            "revocation": self._revocation,
            "salt": self._salt,
            "tile": self._log.tile,
            "checkpoint": self._log.checkpoint,
        }

    @property
    def limits(self) -> Limits:
        """What is accepted."""
        return self._spool.limits

    def limit(self, target: Target) -> int:
        """Largest body for this kind of file."""
        small = self.limits.waiting if target.kind == "manifest" else self.limits.body
        return min(_SMALL.get(target.kind, small), self.limits.body)

    def store(self, target: Target, chunks: Iterable[bytes], peer: str) -> Answer:
        """Take a body in and store it if it may be. Never raises one of our own errors for what a client sent.

        Raises: what `chunks` raises, `TooLarge`, `Full`.
        """
        with self._spool.receive(chunks, self.limit(target)) as received:
            try:
                with self._one_at_a_time(target.name):
                    fresh = self._store_one[target.kind](target, received)
            except Differs:
                answer = Answer(409, f"{target.name} is stored with other bytes, and stays")
            except Error as error:
                answer = Answer(status_of(error), str(error))
            else:
                return Answer(201, "stored") if fresh else Answer(200, "was here")
            if answer.status < 500:
                self._spool.refuse(received, f"/{target.name}", peer, answer.message)
            _logger.warning("refused %s of %s: %s", target.name, peer, answer.message)
            return answer

    @contextmanager
    def read(self, target: Target) -> Iterator[Found | None]:
        """The stored file, None if there is none. Raises `Error`."""
        with ExitStack() as stack:
            if target.kind == "object" and self._verify_reads:
                yield self._checked(target, stack)
                return
            size = self._upstream.size(target.name)
            file = None if size is None else stack.enter_context(self._upstream.open(target.name))
            if file is not None and target.kind == "bundle":
                self._note(target)
            yield None if file is None or size is None else Found(file, size)

    def size(self, target: Target) -> int | None:
        """Bytes of the stored file. Raises `UpstreamFailed`."""
        return self._upstream.size(target.name)

    def files(self, directory: str) -> list[tuple[str, int]]:
        """Names and sizes of what is stored below `directory`, of the kinds that `gateway_paths` knows.

        Raises `UpstreamFailed`, also where the store cannot be listed.
        """
        found = self._upstream.files(directory)
        if found is None:
            raise UpstreamFailed("this store cannot be listed", got=str(self._upstream))
        return [(name, size) for name, size in found if as_target(f"/{name}") is not None]

    def parts(self) -> Parts:
        """A new place for objects that come in parts; one for each server."""
        return Parts(self._spool.root, self._spool)

    def _note(self, target: Target) -> None:
        """Whoever pushes reads the bundle first, so a lost ledger fills again. What does not hold is not noted."""
        try:
            raw = read_small(self._upstream, target.name, MAX_BUNDLE)
            if raw:
                self._admission.seen(target.name, raw)
        except UpstreamFailed:
            raise
        except Error as error:
            _logger.info("%s in the store does not hold: %s", target.name, error)

    def _checked(self, target: Target, stack: ExitStack) -> Found | None:
        file = stack.enter_context(self._upstream.open(target.name))
        if file is None:
            return None
        chunks = iter(lambda: file.read(1 << 20), b"")
        received = stack.enter_context(self._spool.receive(chunks, self.limits.body))
        self._require_object(target.key, received)
        return Found(stack.enter_context(received.file.open("rb")), received.size)

    def _require_object(self, oid: str, received: Received) -> None:
        if received.md5 != oid[:32]:
            raise Refusal("the content does not have the MD5 in its name", got=received.md5, expected=oid[:32])
        self._admission.object_allowed(oid, received.sha256, received.read)

    def _object(self, target: Target, received: Received) -> bool:
        self._require_object(target.key, received)
        fresh = self._put(target, received)
        self._ledger.store(target.key, received.sha256)
        return fresh

    def _manifest(self, target: Target, received: Received) -> bool:
        if received.sha256 != target.key:
            raise Refusal("a manifest is named by its SHA-256", got=received.sha256, expected=target.key)
        if self._same_there(target.name, received):
            return False
        Manifest.from_bytes(received.read())
        self._spool.wait(received, target.name)
        return True

    def _bundle(self, target: Target, received: Received) -> bool:
        bundle = Bundle(received.read())
        try:
            same = self._same_there(target.name, received)
        except Differs:
            if not self._renew:
                raise
            same, renewed = False, True
        else:
            renewed = False
        judged = self._admission.judge(target.name, bundle, self._sent_manifest)
        if renewed:
            self._admission.require_newer(target.name, judged)
        if judged.manifest is not None:
            self._store_waiting(judged.manifest.sha256)
        if not same and not self._upstream.put(target.name, received.file, replace=renewed):
            self._same_there(target.name, received)
        self._admission.admit(target.name, bundle, judged)
        return not same

    def _sent_manifest(self, sha256: str) -> bytes | None:
        waiting = self._spool.waiting(_manifest_name(sha256))
        return waiting.read_bytes() if waiting is not None else self._admission.stored_manifest(sha256)

    def _store_waiting(self, sha256: str) -> None:
        name = _manifest_name(sha256)
        waiting = self._spool.waiting(name)
        if waiting is not None:
            self._upstream.put(name, waiting)
            self._spool.done(name)

    def _revocation(self, target: Target, received: Received) -> bool:
        self._admission.require_revocation(target.key, Bundle(received.read()))
        return self._put(target, received)

    def _salt(self, target: Target, received: Received) -> bool:
        try:
            salts.decode(received.read(), target.name)
        except Error as error:
            raise Refusal(
                "a salt can be made at this gateway, not forgotten or exchanged",
                got=error.got,
                expected="64 hex digits and a newline",
                remedy="whoever owns the store erases it there",
            ) from error
        return self._put(target, received)

    def _put(self, target: Target, received: Received) -> bool:
        """Store what is not there; False if the same bytes are. Raises `Differs`, `UpstreamFailed`."""
        if self._same_there(target.name, received):
            return False
        if self._upstream.put(target.name, received.file):
            return True
        self._same_there(target.name, received)  # another gateway was faster
        return False

    def _same_there(self, name: str, received: Received) -> bool:
        """Whether exactly these bytes are stored; False if nothing is. Raises `Differs`."""
        size = self._upstream.size(name)
        if size is None:
            return False
        if size != received.size or _sha256(self._upstream, name) != received.sha256:
            raise Differs
        return True

    def _one_at_a_time(self, name: str) -> AbstractContextManager[object]:
        """Two clients that send one name take turns."""
        return self._locks[int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % _STRIPES]


def status_of(error: Error) -> int:
    """HTTP status: 403 for what is refused, 502 for a store that fails, 503 for what cannot be checked now."""
    if isinstance(error, UpstreamFailed):
        return int(HTTPStatus.BAD_GATEWAY)
    if isinstance(error, Refusal | NoEvidence | StaleEvidence | Misuse):
        return int(HTTPStatus.FORBIDDEN)
    return int(HTTPStatus.SERVICE_UNAVAILABLE)


def _manifest_name(sha256: str) -> str:
    return f"attestations/v1/manifests/{sha256[:2]}/{sha256[2:]}.jsonl"


def _sha256(upstream: Upstream, name: str) -> str:
    digest = hashlib.sha256()
    with upstream.open(name) as file:
        try:
            while file is not None and (chunk := file.read(1 << 20)):
                digest.update(chunk)
        except Error:
            raise
        except Exception as error:
            raise UpstreamFailed(f"{name} cannot be read from the store", got=str(error)[:120]) from error
    return digest.hexdigest()


def open_gateway(
    upstream: Upstream, admission: Admission, ledger: Ledger, state: Path, limits: Limits, **options: bool
) -> Gateway:
    """A gateway with its spool in `state`."""
    return Gateway(upstream, admission, ledger, Spool(state, limits), **options)
