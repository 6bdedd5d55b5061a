"""Put the autoload wheel into this interpreter's environment and take it out again: offline, by path, on request."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mlseal.errors import Unchecked
from mlseal_dvc import wheel


def installed() -> str | None:
    """Version of the autoload wheel in this environment; None if it is not there."""
    try:
        return importlib.metadata.version(wheel.NAME)
    except importlib.metadata.PackageNotFoundError:
        return None


def loaded(python: str = sys.executable) -> bool:
    """Whether a fresh interpreter would wrap DVC: asked of one, since files alone prove nothing."""
    probe = "import sys; sys.exit(0 if 'mlseal_dvc_autoload' in sys.modules else 3)"
    try:
        return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install() -> None:
    """Build the wheel and install it. Raises `Unchecked` when it does not take effect afterwards."""
    with tempfile.TemporaryDirectory(prefix="mlseal-") as directory:
        built = wheel.build(Path(directory))
        _run([*_installer("install"), "--no-index", "--no-deps", "--force-reinstall", str(built)])
    if not loaded():
        raise Unchecked(
            "the autoload was installed but does not load",
            got=f"{sys.executable} starts without it",
            expected="an interpreter that reads .pth or .start files of its site-packages",
            remedy="use 'mlseal dvc push' and 'mlseal dvc pull', which need no autoload",
        )


def uninstall() -> bool:
    """Remove the wheel; False if it was not installed."""
    if installed() is None:
        return False
    _run([*_installer("uninstall"), wheel.NAME])
    return True


def _installer(action: str) -> list[str]:
    """pip of this interpreter, or uv aimed at it."""
    quiet = ["--disable-pip-version-check", "--no-input", "-q"]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", action, *quiet, *(["-y"] if action == "uninstall" else [])]
    if uv := shutil.which("uv"):
        return [uv, "pip", action, "-q", "--python", sys.executable]
    raise Unchecked(
        "nothing here can install a wheel",
        expected="pip in this environment, or uv on the path",
        remedy=f"{sys.executable} -m ensurepip",
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unchecked(f"'{' '.join(command[:4])} …' failed", got=(lines[-1] if lines else "no message")[:200])
