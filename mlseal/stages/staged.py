"""Outputs on their way: made at a hidden place beside their final one, and put there when their evidence exists."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlseal.errors import Unreadable
from mlseal.stages.workspace import remove


@contextlib.contextmanager
def staged(outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Hidden paths on the same file system as the final ones; what was not published is removed."""
    staging: dict[str, Path] = {}
    try:
        for key, path in outputs.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Unreadable(f"cannot write {path}", got=error.strerror, remedy="check the path") from error
            staging[key] = path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}"
        yield staging
    finally:
        for path in staging.values():
            remove(path)


def publish(staging: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Give outputs their final names. Raises `Unreadable` when one was taken meanwhile; nothing is replaced."""
    for key, path in staging.items():
        final = outputs[key]
        try:
            if path.is_dir():
                path.rename(final)  # refuses a directory that is not empty
            else:
                # Unlike rename, an exclusive create cannot replace a file that appeared meanwhile.
                final.touch(exist_ok=False)
                path.replace(final)
        except OSError as error:
            raise Unreadable(
                f"cannot publish {final}", got=error.strerror, remedy="free the name and run the stage again"
            ) from error
