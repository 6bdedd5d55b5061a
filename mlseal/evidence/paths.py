"""Where configuration and state of this user lie. Never inside the tree that is being verified."""

from __future__ import annotations

import os
from pathlib import Path


def config_dir() -> Path:
    """Pinned trust roots and the policy of this user: ``$MLSEAL_CONFIG_DIR`` or XDG."""
    return _directory("MLSEAL_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def state_dir() -> Path:
    """Pinned checkpoints, indexes, hash caches: ``$MLSEAL_STATE_DIR`` or XDG."""
    return _directory("MLSEAL_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def data_dir() -> Path:
    """Service state (keys, logs) of an embedded authority: ``$MLSEAL_DATA_DIR`` or XDG."""
    return _directory("MLSEAL_DATA_DIR", "XDG_DATA_HOME", ".local/share")


def cache_dir() -> Path:
    """What can be fetched again: ``$MLSEAL_CACHE_DIR`` or XDG. May be deleted at any time."""
    return _directory("MLSEAL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def machine_config_dir() -> Path:
    """Trust and policy that an administrator set for every user of this machine."""
    return Path("/etc/mlseal")


def private(directory: Path) -> Path:
    """`directory`, made if need be, readable by this user only (0700)."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.stat().st_uid == os.getuid():
        directory.chmod(0o700)
    return directory


def _directory(own: str, xdg: str, fallback: str) -> Path:
    if value := os.environ.get(own):
        return Path(value)
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "mlseal"
