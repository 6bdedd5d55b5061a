"""Who listens on a port of this machine: it was free once, and another program may have it now."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def by_session(session: int, port: int) -> bool:
    """Whether a process of the session that began with process `session` listens on TCP `port`.

    True as well where that cannot be told: without ``/proc``, or for processes of another user.
    """
    places = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for place in places if place.is_file() for line in place.read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    if not listening:
        return not rows
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, ProcessLookupError, FileNotFoundError):
            if os.getsid(int(entry.name)) != session:
                continue
            try:
                if any(str(file.readlink()) in listening for file in (entry / "fd").iterdir()):
                    return True
            except PermissionError:
                return True
    return False
