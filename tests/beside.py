"""Packages that tests need beside what is installed, each in a directory of the environment, fetched once."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def filled(name: str, fill: Callable[[Path], object]) -> Path:
    """The directory ``.NAME`` of the environment, which `fill` fills on first use, however many ask at once."""
    place = Path(sys.prefix) / f".{name}"
    place.mkdir(exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / ".ready").exists():
            fill(place)
            (place / ".ready").touch()
    return place


def packages(name: str, wanted: Sequence[str]) -> Path:
    """`filled` with exactly the packages `wanted` from the package index, as wheels, and nothing that they ask for."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    return filled(
        name,
        lambda place: subprocess.run([*pip, "--no-compile", "--target", str(place), *wanted], check=True),
    )
