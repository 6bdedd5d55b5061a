"""``mlseal doctor``: what is installed, trusted and reachable, and what mends it. Reads only, unless asked to write."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mlseal import __version__
from mlseal.errors import Error, Unchecked

if TYPE_CHECKING:
    from mlseal.evidence.store import BundleStore
    from mlseal.policy.pins import Pin, Pins

State = Literal["ok", "absent", "note", "fault"]
_FEW = 6
_FOLDER = 16
_MARK: dict[State, str] = {"ok": "ok    ", "absent": "absent", "note": "note  ", "fault": "FAULT "}
# Import names that belong to nobody but us. A neighbour that installs one of them replaces code of a gate.
_OUR_PACKAGES = ("mlseal", "mlseal_kfp", "mlseal_mlflow", "mlseal_dvc", "mlseal_gx")


@dataclass(frozen=True)
class Check:
    """One line of the report: a fault needs mending, an absence and a note are only said."""

    name: str
    state: State
    found: str
    remedy: str | None = None


@click.command()
@click.option("--trust", "trust_path", help="Trust root to look at; the one in force otherwise.")
@click.option("--store", "store_path", metavar="DIR|URL", help="Evidence store to ask; a bucket only if named.")
@click.option("--write", is_flag=True, help="Try whether the store can be written; a bucket keeps one small object.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(trust_path: str | None, store_path: str | None, write: bool, as_json: bool) -> None:
    """Say what is installed, trusted and reachable, and what to mend.

    Without --store nothing is asked over a network. Pinned policies are compared with what is known of the log.

    Exit 0 when nothing is at fault (an extra that is not installed is not a fault), 11 otherwise.
    """
    report = [check for part in _parts(trust_path, store_path, write) for check in part()]
    faults = [check for check in report if check.state == "fault"]
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in report], "faults": len(faults)}))
    else:
        for check in report:
            click.echo(f"{_MARK[check.state]}  {check.name:<23} {check.found}")
            if check.remedy and check.state != "ok":
                click.echo(f"{'':<32}{check.remedy}")
    if faults:
        raise Unchecked(
            f"{len(faults)} of {len(report)} checks found a fault",
            got=", ".join(check.name for check in faults),
            remedy=faults[0].remedy,
        )


def _parts(trust_path: str | None, store_path: str | None, write: bool) -> list[Callable[[], Iterator[Check]]]:
    def store() -> Iterator[Check]:
        yield _store(store_path, write=write)

    def pinned() -> Iterator[Check]:
        yield from _pins(trust_path, store_path)

    return [_python, _distribution, _extras, _directories, lambda: _trust(trust_path), store, pinned]


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check("python", "ok" if fits else "fault", version, None if fits else "use Python 3.11, 3.12 or 3.13")
    yield Check(
        "platform",
        "ok" if sys.platform == "linux" else "fault",
        sys.platform,
        "the trust service needs Linux; verifying works elsewhere",
    )


def _distribution() -> Iterator[Check]:
    """Our import names come from our distribution alone."""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    yield Check("mlseal", "ok", __version__)
    for package in _OUR_PACKAGES:
        strangers = sorted({name for name in owners.get(package, []) if name.lower() != "mlseal"})
        if strangers:
            yield Check(
                f"package {package}",
                "fault",
                f"also installed by {', '.join(strangers)}",
                f"pip uninstall {' '.join(strangers)} && pip install --force-reinstall mlseal",
            )


def _extras() -> Iterator[Check]:
    """Each extra of the distribution: complete within its bounds, incomplete, or not installed."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        names = metadata("mlseal").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        yield Check("distribution", "fault", "mlseal is imported but not installed", "pip install mlseal")
        return
    for extra in ("", *names):
        present, missing, outside = _requirements(extra)
        name = f"extra [{extra}]" if extra else "core libraries"
        found = ", ".join(present) if len(present) < _FEW else f"{len(present)} libraries within their bounds"
        if missing or outside:
            found = "; ".join([*outside, *([f"not installed: {', '.join(missing)}"] if missing else [])])
        remedy = f"pip install 'mlseal[{extra}]'" if extra else "pip install --force-reinstall mlseal"
        state: State = "fault" if outside or (missing and not extra) else "absent" if missing else "ok"
        yield Check(name, state, found, None if state == "ok" else remedy)


def _requirements(extra: str) -> tuple[list[str], list[str], list[str]]:
    """What of `extra` is installed within its bounds, what is missing, and what is outside them."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    present: list[str] = []
    missing: list[str] = []
    outside: list[str] = []
    for wanted in map(Requirement, requires("mlseal") or []):
        always = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": extra})
        if not applies or always == bool(extra) or wanted.name == "mlseal":
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            missing.append(wanted.name)
            continue
        fits = wanted.specifier.contains(found, prereleases=True)
        (present if fits else outside).append(
            f"{wanted.name} {found}" if fits else f"{wanted.name} {found}, expected {wanted.specifier}"
        )
    return present, missing, outside


def _directories() -> Iterator[Check]:
    """What decides whom we believe must be writable by this user alone."""
    from mlseal.evidence import paths

    for name, directory in (("configuration", paths.config_dir()), ("state", paths.state_dir())):
        yield _directory(name, directory)


def _directory(name: str, directory: Path) -> Check:
    try:
        status = directory.stat()
    except FileNotFoundError:
        return Check(f"{name} directory", "absent", f"{directory} does not exist yet")
    except OSError as error:
        return Check(f"{name} directory", "fault", f"{directory}: {error.strerror}", f"make {directory} readable")
    if status.st_uid not in (os.getuid(), 0):
        return Check(
            f"{name} directory", "fault", f"{directory} belongs to uid {status.st_uid}", "use a home of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Check(f"{name} directory", "fault", f"others can write {directory}", f"chmod go-w {directory}")
    return Check(f"{name} directory", "ok", str(directory))


def _trust(trust_path: str | None) -> Iterator[Check]:
    """The trust root in force, its end, and whether its services listen."""
    from mlseal.errors import NotInitialised
    from mlseal.evidence import project
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.clock import utcnow

    try:
        chosen = trust_roots.resolve(trust_path)
    except NotInitialised as error:
        yield Check("trust root", "absent", error.message, error.remedy)
        return
    except Error as error:
        yield Check("trust root", "fault", str(error), error.remedy)
        return
    yield Check("trust root", "ok", f"{chosen.fingerprint} from {chosen.source}")
    if (other := project.other_root(chosen)) is not None:  # a hint: the tree has no say in what is believed
        found = f"{project.home()} was made with {other}, which is not the root in force"
        yield Check("trust of the project", "note", found, project.switch(other))
    left = None if chosen.expires is None else chosen.expires - utcnow()
    if left is None:
        yield Check("trust end", "fault", "the root names no end", "ask its operator for a root whose keys end")
    elif left.days < 0:
        yield Check("trust end", "fault", f"ended on {chosen.expires:%Y-%m-%d}", "pin the operator's rotated root")
    else:
        yield Check("trust end", "ok", f"{chosen.expires:%Y-%m-%d}, in {left.days} days")
    if chosen.endpoints is None:
        yield Check("trust service", "absent", "this root verifies and cannot sign", "mlseal trust use FINGERPRINT")
    else:
        yield _service(chosen.endpoints.ca)


def _service(url: str) -> Check:
    from mlseal.evidence.signing.transport import socket_path

    path = socket_path(url)
    if path is None:
        return Check("trust service", "ok", f"{url} (not asked: doctor makes no network call)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except OSError as error:
            return Check(
                "trust service",
                "absent",
                f"nobody listens on {path} ({error.strerror})",
                "it starts when its owner signs something, or by 'mlseal serve'",
            )
    return Check("trust service", "ok", f"listens on {path}")


def _store(named: str | None, *, write: bool) -> Check:
    """The evidence store: whether it answers, holds how many, and takes more."""
    from mlseal.evidence import store as stores

    try:
        kept = stores.resolve(named)
        if named is None and not isinstance(kept, stores.Store):
            return Check("evidence store", "ok", f"{kept} (not asked: pass --store)")
        if named is None and not kept.outputs.parent.is_dir():
            return Check("evidence store", "absent", f"{kept} does not exist yet")
        kept.require_usable(writing=write)
        return Check("evidence store", "ok", f"{kept}, {_count(kept)}" + (", can be written" if write else ""))
    except Error as error:
        return Check("evidence store", "fault", str(error), error.remedy or "check the path, or --store DIR|URL")


def _count(kept: BundleStore) -> str:
    """How many bundles; of many an estimate from one of the 256 folders, which their digests fill evenly."""
    some = sum(1 for _ in kept.ids("00"))
    return f"about {some * 256} bundles" if some >= _FOLDER else f"{sum(1 for _ in kept.ids())} bundles"


def _pins(trust_path: str | None, store_path: str | None) -> Iterator[Check]:
    """Each pinned policy: unchanged, not taken back, and the newest release that is known."""
    from mlseal.evidence import paths
    from mlseal.policy import pins

    try:
        kept = [pins.read(), pins.read(paths.machine_config_dir())]
    except Error as error:
        yield Check("policy pins", "fault", str(error), error.remedy)
        return
    if not any(one.by_name for one in kept):
        yield Check("policy pins", "absent", "none: policies are named by --policy or MLSEAL_POLICY")
    for one in kept:
        for pin in one.by_name.values():
            try:
                yield _pin(one, pin, trust_path, store_path)
            except Error as error:
                yield Check(f"policy {pin.policy}", "fault", str(error), error.remedy)


def _pin(kept: Pins, pin: Pin, trust_path: str | None, store_path: str | None) -> Check:
    from mlseal.evidence import store as stores
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.archive import Archive
    from mlseal.policy import pinning, pins

    pins.Pins(kept.folder, {pin.policy: pin}).policies()  # raises for a file that is not the pinned one any more
    found, name = f"number {pin.serial} (sha256 {pin.sha256[:16]}…)", f"policy {pin.policy}"
    trust, store = trust_roots.resolve(trust_path), stores.resolve(store_path)
    if store_path is None and not isinstance(store, stores.Store):
        return Check(name, "absent", f"{found}; whether it is the newest is not known", "pass --store")
    asked = store_path is not None or (
        trust.endpoints is not None and _service(trust.endpoints.ca).found.startswith("listens")
    )
    archive = Archive.open(trust, store)
    try:
        if asked:
            archive.refresh()
        newest = pinning.newer(archive, kept, pin)
    finally:
        archive.close()
    if newest is not None:
        return Check(name, "fault", f"{found}, but {newest} came since", f"mlseal policy pin {pin.source}")
    known = "on the log" if asked else "known here (the log was not asked: pass --store)"
    return Check(name, "ok", f"{found}, the newest {known}")
