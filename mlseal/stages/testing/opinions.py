"""What other scanners of model files say, beside our own answer: declared second opinions, never the decision.

Each reads by its own rules (a deny-list, a decompiler), so each is wrong in its own way: picklescan passes what it has
no rule against, fickling calls nearly every model of scikit-learn unsafe, ModelAudit warns of each that names a class.
What they say is recorded with their version; where one flags what our list allows, the evidence says so and a policy
decides.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import MissingExtra, Misuse
from mlseal.stages import process
from mlseal.stages.base import require

EXTRA = "scan"
_TIMEOUT = 300
"""Seconds a file, for a scanner that runs as a process."""


@dataclass(frozen=True)
class Opinion:
    """One scanner's verdict on some files: how many it read, how many it flags, how many it could not read.

    `worst` is its worst word, behind a digit for the order of such words.
    """

    tool: str
    version: str
    files: int
    flagged: int
    unread: int
    worst: str = ""

    @property
    def verdict(self) -> str:
        """Its worst word; empty if it read nothing."""
        return self.worst.partition(" ")[2]

    @property
    def clean(self) -> bool:
        """Whether it read everything and flags nothing."""
        return not self.flagged and not self.unread


def asked(names: str) -> list[str]:
    """The scanners named in `names`, separated by commas. Raises `Misuse` for one that is not known."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if set(wanted) - set(_SCANNERS) or len(set(wanted)) != len(wanted):
        raise Misuse("there is no such second opinion", got=names, expected="some of " + ", ".join(_SCANNERS))
    return wanted


def ask(tool: str, files: Sequence[Path]) -> Opinion:
    """What scanner `tool` says of `files`. Raises `MissingExtra` if it is not installed.

    A scanner that fails on a file has not read it; whatever it raises is its own.
    """
    scan = _SCANNERS[tool](files)
    flagged, unread, worst = 0, 0, ""
    for file in files:
        try:
            verdict, safe = scan(file)
        except Exception:  # noqa: BLE001 - hostile files crash scanners in every way
            unread += 1
            continue
        flagged += not safe
        worst = max(worst, verdict)
    return Opinion(tool, importlib.metadata.version(tool), len(files), flagged, unread, worst)


def together(said: Sequence[Opinion]) -> Opinion:
    """What one scanner says of parts, as what it says of all of them. At least one, all of one version."""
    files, flagged, unread = (
        sum(column) for column in zip(*((o.files, o.flagged, o.unread) for o in said), strict=True)
    )
    return Opinion(said[0].tool, said[0].version, files, flagged, unread, max(one.worst for one in said))


_Scan = Callable[[Path], tuple[str, bool]]
"""File → (a digit for the order, a blank and the verdict in the scanner's words; whether that is clean)."""


def _picklescan(_: Sequence[Path]) -> _Scan:
    require("picklescan", EXTRA)
    from picklescan.scanner import scan_file_path

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)

    def scan(file: Path) -> tuple[str, bool]:
        found = scan_file_path(str(file))
        if found.scan_err:
            raise ValueError("not scanned")
        return ("2 dangerous", False) if found.issues_count else ("1 no issue", True)

    return scan


def _fickling(_: Sequence[Path]) -> _Scan:
    require("fickling", EXTRA)
    from fickling.analysis import Severity, check_safety
    from fickling.fickle import Pickled

    def scan(file: Path) -> tuple[str, bool]:
        severity = max(
            (check_safety(Pickled.load(data)).severity for data in _pickles(file)),
            key=lambda one: one.value[0],
            default=Severity.LIKELY_SAFE,
        )
        return f"{severity.value[0]} {severity.name}", severity == Severity.LIKELY_SAFE

    return scan


def _pickles(file: Path) -> list[bytes]:
    """The pickles of a file as fickling reads them: the file, or those in a zip."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    raw = file.read_bytes()
    return [] if raw.startswith(b"\x93NUMPY") else [raw]


def _modelaudit(files: Sequence[Path]) -> _Scan:
    """One process for all: it takes seconds to start. It names files by their real paths."""
    if importlib.util.find_spec("modelaudit") is None:
        raise MissingExtra("modelaudit is asked for and not installed", remedy="pip install modelaudit")
    names = {os.path.realpath(file) for file in files}
    said = _report_of_modelaudit(sorted(names))

    def scan(file: Path) -> tuple[str, bool]:
        name = os.path.realpath(file)
        # What is said of no file that was given may be about any of them.
        own = [
            one["severity"]
            for one in said["issues"]
            if name in str(one["location"]) or not any(other in str(one["location"]) for other in names)
        ]
        if "critical" in own:
            return "3 critical", False
        if "warning" in own:
            return "2 warning", False
        if said["success"] is not True or name not in said["file_metadata"]:
            raise ValueError("not scanned to the end")
        return "1 no issue", True

    return scan


def _report_of_modelaudit(names: Sequence[str]) -> dict[str, Any]:
    """What it says of files, as its JSON; empty if it came to no end, or there are none.

    It gets a home of its own: there it keeps an id of its user, and results that it would not measure again. It finds
    the modules that this process would find, and nothing of the directory where the caller stands.
    """
    if not names:
        return {}
    with tempfile.TemporaryDirectory(prefix="mlseal-modelaudit-") as home:
        modules = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        silent = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "NO_ANALYTICS": "1"}  # it reports to its maker unless told not to
        command = [
            sys.executable,
            "-P",
            "-m",
            "modelaudit",
            "scan",
            *names,
            "--no-cache",
            "--quiet",
            "--format",
            "json",
        ]
        try:
            done = subprocess.run(
                command,
                env=process.environment(Path(home)) | modules | silent,
                cwd=home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT * len(names),
                check=False,
            )
            return dict(json.loads(done.stdout[done.stdout.index(b"{") :])) if done.returncode in {0, 1} else {}
        except (subprocess.TimeoutExpired, ValueError, TypeError):
            return {}


_SCANNERS: Mapping[str, Callable[[Sequence[Path]], Any]] = {
    "picklescan": _picklescan,
    "fickling": _fickling,
    "modelaudit": _modelaudit,
}
