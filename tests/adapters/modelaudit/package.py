"""ModelAudit, beside what is installed: ``python -m tests.adapters.modelaudit.package`` fetches it once.

Its own code and what that imports for a file on this disk. Its metadata ask for clients of Google Cloud, S3 and Hugging
Face besides, from which it would load models; those are imported when it does.
"""

from __future__ import annotations

from pathlib import Path

from tests.beside import packages

VERSION = "0.2.54"
PACKAGES = (f"modelaudit=={VERSION}", "modelaudit-picklescan==0.1.12", "yaspin==3.5.1", "termcolor==3.3.0")


def package() -> Path:
    """The directory to put on ``sys.path``; filled from the package index on first use."""
    return packages(f"modelaudit-{VERSION}", PACKAGES)


if __name__ == "__main__":
    package()
