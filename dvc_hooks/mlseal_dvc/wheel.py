"""Build the autoload wheel: a deterministic zip, written without any build tool.

Three files and the metadata of PEP 427. Equal sources give equal bytes (fixed times, modes and order), so that its
digest can be compared on two machines. It is built where it is installed, from files that lie in the installed mlseal
package; nothing is downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

NAME = "mlseal-dvc-autoload"
VERSION = "1.0"
_FILES = ("mlseal_dvc_autoload.py", "mlseal-dvc-autoload.pth", "mlseal-dvc-autoload.start")
_STEM = f"{NAME.replace('-', '_')}-{VERSION}"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can hold


def build(directory: Path) -> Path:
    """Write the wheel into `directory` and return its path."""
    source = Path(__file__).parent / "autoload"
    members = {name: (source / name).read_bytes() for name in _FILES}
    members[f"{_STEM}.dist-info/METADATA"] = _metadata()
    members[f"{_STEM}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: mlseal\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{_STEM}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in members.items()]
    members[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    path = directory / f"{_STEM}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return path


def _metadata() -> bytes:
    return (
        f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
        "Summary: Loads mlseal when DVC is imported; installed by 'mlseal dvc install'\n"
        "License: Apache-2.0\nRequires-Python: >=3.11\n"
    ).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
