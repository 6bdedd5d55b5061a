"""`mlseal init` and `mlseal trust rotate`: what they leave with the service, with the project and with the user.

    STATE                         keys and logs; see `mlseal.services.state`
    DIR/trusted_root.json         for stock verifiers
    DIR/trust_config.json         for those who sign, too
    DIR/policy.yaml               a strict policy to start from; never touched again
    DIR/policy.tests/             its negative controls, for `mlseal policy test`
    DIR/evidence/                 an empty store
    config/trust/                 the root, pinned for this user
    config/services.json          which STATE serves which root, so that clients can start it

Order of `initialise`: STATE, DIR, config, and last the mark ``STATE/published``. Killed in between, the next call with
the same arguments goes on with the STATE that it finds; refused for any other reason, it takes back what it made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mlseal.errors import DuplicateName, Error, Misuse
from mlseal.evidence import canonical, paths
from mlseal.evidence import trust as pinned
from mlseal.evidence.clock import Clock, utcnow
from mlseal.services import files, starter_policy
from mlseal.services import state as states
from mlseal.services.state import State

_MARK = "published"


@dataclass(frozen=True)
class Installed:
    """What `initialise`, `export` or `rotate` left: the authority, and the directory with the files for clients.

    ``replaced`` is the fingerprint of the root that this user trusted until `initialise`, where that was another.
    """

    state: State
    directory: Path
    replaced: str | None = None


def initialise(
    directory: Path,
    *,
    name: str,
    state: Path | None = None,
    url: str | None = None,
    lifetime: timedelta = states.LIFETIME,
    clock: Clock = utcnow,
) -> Installed:
    """A new authority, its files for clients in `directory`, pinned for this user.

    Raises `DuplicateName` when an authority or files are there already: nothing is changed then. Any failure after
    that takes back everything that was made.
    """
    before = pinned.default_fingerprint()
    directory, home = directory.absolute(), (state or paths.data_dir() / name).absolute()
    _require_apart(directory, home)
    with _locked("init.lock"):
        resumed = _unfinished(home, name)
        if not (resumed and _written(directory, resumed)):
            files.require_absent(directory)
        authority = resumed or states.create(home, name, url=url, lifetime=lifetime, clock=clock)
        try:
            _install(authority, directory)
        except BaseException:
            if not resumed:
                shutil.rmtree(home, ignore_errors=True)
            raise
    return Installed(authority, directory, before if before != authority.fingerprint else None)


def _install(authority: State, directory: Path) -> None:
    before = pinned.default_fingerprint()
    if not _written(directory, authority):
        with files.new_directory(directory, mode=0o755) as work:
            _write_client_files(work, authority)
            (work / "evidence").mkdir()
            _write_policy(work, authority.name)
    try:
        _register(authority, default=True)
        _mark(authority, directory)
    except BaseException:
        _unregister(authority, before)
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _written(directory: Path, authority: State) -> bool:
    """Whether `directory` holds the client files of `authority`: they are written together or not at all."""
    try:
        return pinned.load(directory).fingerprint == authority.fingerprint
    except (Error, OSError):
        return False


def export(state: State, directory: Path) -> Installed:
    """Write the files for clients of an existing authority into `directory`; policy and evidence are left alone."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    _write_client_files(directory, state)
    return Installed(state, directory)


def rotate(
    state: State, *, overlap: timedelta = states.OVERLAP, lifetime: timedelta = states.LIFETIME, clock: Clock = utcnow
) -> Installed:
    """New keys for the authority; its files for clients and this user's pin follow.

    The root of before stays pinned, and so does what this user's verifier knows of its log. Other users pin the new
    root themselves, by its fingerprint.
    """
    rotated = states.rotate(state, overlap=overlap, lifetime=lifetime, clock=clock)
    directories = [directory for line in _read_mark(state) if (directory := Path(line)).is_dir()]
    for directory in directories:
        _write_client_files(directory, rotated)
    _register(rotated, default=pinned.default_fingerprint() in {None, state.fingerprint})
    return Installed(rotated, directories[0] if directories else state.directory)


def authority_of(explicit: Path | None) -> State:
    """The authority in `explicit`, or the one that serves this user's default trust root. Raises `NotInitialised`."""
    if explicit is not None:
        return states.load(explicit)
    fingerprint = pinned.resolve().fingerprint
    known = _services().get(fingerprint)
    if known is None:
        raise Misuse(
            "this user runs no trust service for the trust root in force",
            got=fingerprint,
            remedy="name it with --state, or choose another root with 'mlseal trust use'",
        )
    return states.load(Path(known["state"]))


def default_name(directory: Path) -> str:
    """A name made of the folder that `directory` lies in: ``/home/ana/heart/.mlseal`` gives ``heart.mlseal.local``."""
    folder = directory.absolute().parent.name.lower()
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder).strip("-")
    return f"{label[:60].rstrip('-') or 'project'}.mlseal.local"


def _write_client_files(directory: Path, state: State) -> None:
    for name, document in (("trusted_root", state.trusted_root()), ("trust_config", state.client_config())):
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        files.write(directory / f"{name}.json", text.encode(), mode=files.PUBLIC)


def _write_policy(directory: Path, name: str) -> None:
    beside = directory / "policy.tests"
    beside.mkdir(mode=0o755)
    for path, text in (
        (directory / "policy.yaml", starter_policy.text(name)),
        (beside / "controls.yaml", starter_policy.controls(name)),
    ):
        files.write(path, text.encode(), mode=files.PUBLIC)


def _register(state: State, *, default: bool) -> None:
    """Pin the root for this user and note which STATE serves it. The root comes from STATE, never from a project."""
    config = paths.private(paths.config_dir())
    with _locked("services.lock"):
        services = {**_services(), state.fingerprint: {"state": str(state.directory)}}
        files.write(config / "services.json", canonical.dumps(services), mode=files.PRIVATE)
        source = config / "services.root.json"
        files.write(source, canonical.dumps(state.client_config()), mode=files.PRIVATE)
        try:
            pinned.pin(source, state.fingerprint, default=default)
        finally:
            source.unlink()


def _unregister(state: State, default: str | None) -> None:
    """Undo `_register`, as far as it came."""
    config = paths.config_dir()
    with suppress(OSError, Error), _locked("services.lock"):
        services = _services()
        if services.pop(state.fingerprint, None) is not None:
            files.write(config / "services.json", canonical.dumps(services), mode=files.PRIVATE)
    with suppress(OSError, Error):
        (config / "trust" / f"{state.fingerprint.replace(':', '-')}.json").unlink(missing_ok=True)
        if pinned.default_fingerprint() == state.fingerprint:
            (config / "trust" / "default").unlink()
            if default is not None:
                pinned.use(default)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with files.private_lock(paths.private(paths.config_dir()) / name) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _services() -> dict[str, dict[str, str]]:
    try:
        value = json.loads((paths.config_dir() / "services.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _unfinished(home: Path, name: str) -> State | None:
    """The authority `name` in `home` if its initialisation was cut short and it signed nothing yet."""
    if not (home / "authority.json").is_file():
        return None
    state = states.load(home)
    used = (home / _MARK).exists() or any(any(state.log_directory(origin).glob("*")) for origin in state.origins())
    if used or state.name != name or home.stat().st_uid != os.geteuid():
        raise DuplicateName(
            f"an authority is in {home} already",
            got=state.name,
            expected="a state directory that is free",
            remedy="'mlseal trust export DIR' writes its files again; for another authority pass --name or --state",
        )
    return state


def _mark(state: State, directory: Path) -> None:
    files.write(state.directory / _MARK, f"{directory}\n".encode(), mode=files.PRIVATE)


def _read_mark(state: State) -> list[str]:
    try:
        return (state.directory / _MARK).read_text().splitlines()
    except FileNotFoundError:
        return []


def _require_apart(directory: Path, home: Path) -> None:
    """Keys in the working tree would be committed, copied and mounted with it."""
    project = next((folder for folder in directory.resolve().parents if (folder / ".git").exists()), None)
    if project is not None and home.resolve().is_relative_to(project):
        raise Misuse(
            "the service's keys would lie inside the project",
            got=home,
            expected="a directory outside it",
            remedy="pass --state outside the working tree",
        )
