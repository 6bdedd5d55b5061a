"""What other scanners of model files say, beside our own answer: declared second opinions, never the decision.

Each reads by its own rules (a deny-list, a decompiler), so each is wrong in its own way: picklescan passes what it has
no rule against, fickling calls nearly every model of scikit-learn unsafe. What they say is recorded with their version;
where one flags what our list allows, the evidence says so and a policy decides.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import MissingExtra, Misuse
from mlseal.stages.base import require

EXTRA = "scan"
_TIMEOUT = 300


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
    """One process for all: it takes seconds to start."""
    if importlib.util.find_spec("modelaudit") is None:
        raise MissingExtra("modelaudit is asked for and not installed", remedy="pip install modelaudit")
    private = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "NO_ANALYTICS": "1"}  # it reports to its maker unless told not to
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLSEAL_")} | private
    command = [sys.executable, "-m", "modelaudit", "scan", *map(str, files), "--format", "json", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT, check=False)
    try:
        issues = json.loads(done.stdout[done.stdout.index(b"{") :])["issues"] if done.returncode in {0, 1} else None
    except (ValueError, KeyError, TypeError):
        issues = None

    def scan(file: Path) -> tuple[str, bool]:
        if issues is None:
            raise ValueError("inconclusive")
        own = [one for one in issues if str(file) in str(one.get("location", file))]
        bad = [one for one in own if one.get("severity") in {"warning", "critical"}]
        return ("2 issues", False) if bad else ("1 no issue", True)

    return scan


_SCANNERS: Mapping[str, Callable[[Sequence[Path]], Any]] = {
    "picklescan": _picklescan,
    "fickling": _fickling,
    "modelaudit": _modelaudit,
}
