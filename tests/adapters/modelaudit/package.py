"""ModelAudit, beside what is installed: ``python -m tests.adapters.modelaudit.package`` fetches it once.

Its own code and what that imports for a file on this disk. Its metadata ask for clients of Google Cloud, S3 and Hugging
Face besides, from which it would load models; those are imported when it does.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

VERSION = "0.2.54"
PACKAGES = (f"modelaudit=={VERSION}", "modelaudit-picklescan==0.1.12", "yaspin==3.5.1", "termcolor==3.3.0")


def package() -> Path:
    """The directory to put on ``sys.path``; filled from the package index on first use."""
    place = Path(sys.prefix) / f".modelaudit-{VERSION}"
    place.mkdir(exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / ".ready").exists():
            install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
            subprocess.run([*install, "--no-compile", "--target", str(place), *PACKAGES], check=True)
            (place / ".ready").touch()
    return place


if __name__ == "__main__":
    package()
