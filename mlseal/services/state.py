"""What an authority keeps on disk, and how it changes.

    STATE/            0711   others may pass through to the socket and the logs, not look around
      authority.json  0644   name, where to reach it, the public part of every generation; replacing it commits a change
      grants.json     0600   which other users may ask for which identity
      people.db       0600   who is behind which pseudonym; made when the first person is added, forgets on demand
      keys/N/         0700   private keys of generation N, files 0600
      logs/ORIGIN/    0755   tiles and checkpoints: logN.NAME for statements, ctN.NAME for issued certificates
      sock            0666   the kernel says who calls; the service decides

A generation that `authority.json` does not mention does not exist: rotation writes keys first and that file last, so a
crash at any moment leaves the old authority whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mlseal.errors import MalformedEvidence, Misuse, NotInitialised, Refusal, Unreadable
from mlseal.evidence import canonical
from mlseal.evidence.clock import SKEW, Clock, parse_rfc3339, rfc3339, utcnow
from mlseal.evidence.trust import fingerprint
from mlseal.services import files, keys, trust_root

FORMAT = "mlseal-authority/1"
LIFETIME = timedelta(days=730)
OVERLAP = timedelta(days=30)
_NAME = re.compile(r"(?=.{4,200}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
_SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes on Linux; a temporary suffix must fit too


@dataclass(frozen=True)
class State:
    """An authority on disk as `load` found it: public facts only, keys are read by `keys`.

    Attributes:
        directory: STATE.
        name: the authority's DNS-like name; origins and identities are made of it.
        base: URL that clients use.
        socket: where the service listens for local users.
        generations: public entries, oldest first; the last one signs.
    """

    directory: Path
    name: str
    base: str
    socket: Path
    generations: tuple[dict[str, Any], ...]

    @property
    def number(self) -> int:
        """The generation that signs."""
        return len(self.generations)

    @property
    def end(self) -> datetime:
        """When the generation that signs ends."""
        return parse_rfc3339(self.generations[-1]["ca"]["validFor"]["end"])

    @property
    def issuer(self) -> str:
        """The ``iss`` of the authority's own tokens."""
        return f"https://{self.name}/issuer"

    def statement_origin(self, number: int | None = None) -> str:
        """Origin of the statement log of a generation, by default of the one that signs."""
        return f"log{number or self.number}.{self.name}"

    def issuance_origin(self, number: int | None = None) -> str:
        """Origin of the issuance log of a generation."""
        return f"ct{number or self.number}.{self.name}"

    def origins(self) -> tuple[str, ...]:
        """Every log, retired ones too."""
        numbers = range(1, self.number + 1)
        return tuple(self.statement_origin(n) for n in numbers) + tuple(self.issuance_origin(n) for n in numbers)

    def log_directory(self, origin: str) -> Path:
        """Where the tiles of `origin` lie."""
        return self.directory / "logs" / origin

    def trusted_root(self) -> dict[str, Any]:
        """Sigstore TrustedRoot of all generations."""
        return trust_root.trusted_root(self.generations)

    def client_config(self) -> dict[str, Any]:
        """Sigstore ClientTrustConfig that signs with the newest generation."""
        start = self.generations[-1]["ca"]["validFor"]["start"]
        return trust_root.client_config(
            self.trusted_root(), name=self.name, base=self.base, origin=self.statement_origin(), start=start
        )

    @property
    def fingerprint(self) -> str:
        """What users compare before they pin the root."""
        return fingerprint(self.trusted_root())

    def keys(self) -> keys.Keys:
        """The private keys of the generation that signs; raises as `mlseal.services.keys.load`."""
        return keys.load(self.directory / "keys" / str(self.number))


def create(
    directory: Path, name: str, *, url: str | None = None, lifetime: timedelta = LIFETIME, clock: Clock = utcnow
) -> State:
    """A new authority `name` in `directory`, whole or not at all.

    Args:
        directory: must be absent or empty.
        name: two or more DNS labels, lower case.
        url: ``https://host:port`` when clients reach it over the network; else they use the unix socket.
        lifetime: how long the trust root is valid without rotation.
        clock: the time.

    Raises `Misuse` for a bad name, URL or lifetime, `DuplicateName` if something is there, `Unreadable` if the disk
    refuses; then nothing is left behind.
    """
    _check(name, url, lifetime)
    directory = directory.absolute()
    with files.new_directory(directory, mode=0o711) as work:
        for folder, mode in (("keys", 0o700), ("keys/1", 0o700), ("logs", 0o755)):
            (work / folder).mkdir(mode=mode)
            (work / folder).chmod(mode)
        generation = _generation(name, 1, work / "keys" / "1", lifetime, clock())
        socket = _socket(directory)
        base = url or f"http+unix://{quote(str(socket), safe='')}"
        _write_record(work, State(directory, name, base, socket, (generation,)))
        files.write(work / "grants.json", canonical.dumps({}), mode=files.PRIVATE)
    return load(directory)


def load(directory: Path) -> State:
    """The authority in `directory`.

    Raises `NotInitialised` if there is none, `MalformedEvidence` if its record is damaged.
    """
    path = directory / "authority.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotInitialised(f"{directory} holds no trust service", remedy="run 'mlseal init'") from None
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="run as the owner of the service") from error
    record = canonical.parse(data, what=str(path))
    try:
        if record["format"] != FORMAT:
            raise MalformedEvidence(f"{path} was written by another version", got=record["format"], expected=FORMAT)
        return State(
            directory.absolute(), record["name"], record["base"], Path(record["socket"]), tuple(record["generations"])
        )
    except (KeyError, TypeError) as error:
        raise MalformedEvidence(f"{path} is damaged", got=str(error), remedy="restore it from a backup") from error


def rotate(
    state: State, *, overlap: timedelta = OVERLAP, lifetime: timedelta = LIFETIME, clock: Clock = utcnow
) -> State:
    """Give the authority new keys and a new log; what signed so far is believed until `overlap` from now.

    A running service notices and signs with the new generation; the old logs stay readable. Rotations exclude each
    other; a crash leaves the authority as it was.
    """
    _check(state.name, None, lifetime)
    require_own(state.directory)
    if overlap < timedelta():
        raise Misuse("the overlap is negative", got=overlap, expected="zero or more")
    with _exclusive(state.directory):
        state = load(state.directory)
        number, now = state.number + 1, clock()
        home = state.directory / "keys" / str(number)
        shutil.rmtree(home, ignore_errors=True)  # left by a crash: no record mentions it
        with files.new_directory(home, mode=0o700) as work:
            fresh = _generation(state.name, number, work, lifetime, now)
        retired = (trust_root.cut(generation, now + overlap) for generation in state.generations)
        rotated = State(state.directory, state.name, state.base, state.socket, (*retired, fresh))
        _write_record(state.directory, rotated)
        return rotated


def require_own(directory: Path) -> None:
    """Raise `Refusal` unless STATE belongs to this user and nobody else may write to it."""
    facts = directory.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != os.geteuid() or mode & 0o022:
        raise Refusal(
            f"{directory} is not this user's alone",
            got=f"owner {facts.st_uid}, mode {mode:04o}",
            expected=f"owner {os.geteuid()}, mode 0711",
            remedy=f"run as its owner, or 'chmod 0711 {directory}'",
        )


def _generation(name: str, number: int, directory: Path, lifetime: timedelta, now: datetime) -> dict[str, Any]:
    """Make and store keys; what is public about them. They begin `SKEW` ago, for verifiers whose clock is behind."""
    start, end = (now - SKEW).replace(microsecond=0), (now + lifetime).replace(microsecond=0)
    fresh = keys.generate(name, number, start, end)
    keys.store(fresh, directory)
    return {
        **trust_root.entries(name, number, fresh, start, end),
        "issuanceKey": fresh.issuance.public_key().public_bytes_raw().hex(),
        "created": rfc3339(now),
    }


def _write_record(where: Path, state: State) -> None:
    record = {
        "format": FORMAT,
        "name": state.name,
        "base": state.base,
        "socket": str(state.socket),
        "generations": list(state.generations),
    }
    files.write(where / "authority.json", canonical.dumps(record), mode=files.PUBLIC)


def _check(name: str, url: str | None, lifetime: timedelta) -> None:
    if not _NAME.fullmatch(name):
        raise Misuse("not a name for an authority", got=name[:80], expected="DNS labels like 'team.mlseal.local'")
    if lifetime <= timedelta(minutes=1):
        raise Misuse("the lifetime is too short", got=lifetime, expected="more than a minute")
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise Misuse("not a service URL", got=url[:120], expected="https://host[:port]")


def _socket(directory: Path) -> Path:
    """Where to listen: in STATE, or below a runtime directory if the path would not fit into a socket address."""
    if len(os.fsencode(directory / "sock")) <= _SOCKET_PATH_LIMIT:
        return directory / "sock"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - the name below cannot be guessed
    if len(os.fsencode(runtime)) > _SOCKET_PATH_LIMIT - 50:
        runtime = Path("/tmp")  # noqa: S108
    tag = hashlib.sha256(os.fsencode(directory) + secrets.token_bytes(16)).hexdigest()[:16]
    return runtime / f"mlseal-{os.geteuid()}-{tag}" / "sock"


def socket_directory(state: State) -> Path:
    """The directory of the socket, made if need be. Raises `Refusal` if it belongs to somebody else."""
    directory = state.socket.parent
    if directory != state.directory:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        facts = directory.lstat()
        if directory.is_symlink() or facts.st_uid != os.geteuid():
            raise Refusal(f"{directory} belongs to somebody else", got=f"uid {facts.st_uid}", remedy="remove it")
        directory.chmod(0o711)
    return directory


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    with files.private_lock(directory / "rotate.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
