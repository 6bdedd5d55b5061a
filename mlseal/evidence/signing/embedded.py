"""Start the embedded trust service when nobody listens on its socket.

Only a service whose state directory belongs to this user is started, by running ``mlseal serve`` as a process of its
own: the keys are in that process, never in the one that trains, gates or reviews.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from mlseal.errors import ServiceUnavailable
from mlseal.evidence import paths
from mlseal.evidence.signing.transport import socket_path
from mlseal.evidence.trust import Trust

IDLE_SECONDS = 600
_START_SECONDS = 20.0


def ensure_running(trust: Trust) -> None:
    """Return when the service of `trust` accepts connections; start it if it is ours and does not run.

    Does nothing for services reached over TCP. Raises `ServiceUnavailable` if it is not ours or does not come up.
    """
    path = socket_path(trust.endpoints.ca) if trust.endpoints else None
    if path is None or _accepts(path):
        return
    state = _state(trust.fingerprint)
    if state is None or not state.is_dir() or state.stat().st_uid != os.getuid():
        raise ServiceUnavailable(
            "the trust service does not run",
            got=f"nobody listens on {path}",
            remedy="ask the user who owns it to run 'mlseal serve'",
        )
    # -P keeps the current directory off the module path: a hostile clone may hold a package named mlseal.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlseal", "serve", "--state", str(state), "--idle", str(IDLE_SECONDS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=environment(),
    )
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if _accepts(path):
            return
        # A second starter ends at once because the first holds the lock; keep waiting for that one's socket.
        if process.poll() not in (None, 0) and not _accepts(path) and time.monotonic() > end - _START_SECONDS / 2:
            break
        time.sleep(0.02)
    raise ServiceUnavailable(
        "the trust service did not start",
        got=f"exit status {process.poll()}",
        remedy=f"run 'mlseal serve --state {state}' to see why",
    )


def environment() -> dict[str, str]:
    """This process's environment for a child that signs with nobody's key: without ``MLSEAL_KEY`` and its passphrase.

    A service outlives whoever started it, and another program's children may write their environment anywhere.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("MLSEAL_KEY")}


def _state(fingerprint: str) -> Path | None:
    try:
        services = json.loads((paths.config_dir() / "services.json").read_text())
        return Path(services[fingerprint]["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
