"""``add --to-remote``, ``import-url --to-remote``, ``update --to-remote``: signed before the first byte is uploaded.

DVC streams these straight to the remote, under a temporary name, and knows only afterwards what they were. Here:

1. The bytes go into a private staging directory, ``.dvc/tmp/mlseal/staging/<random>``, MD5 computed on the way. It
   needs as much room as the data have; where the size is known beforehand and the disk is too small, nothing is begun.
2. The staged bytes are hashed and signed as a push does it (`sealing`), and the evidence is uploaded.
3. The staged objects are uploaded, through the same guard as every upload (`guards`).
4. The staging directory is removed, whatever happened. Nothing comes into the cache, as with DVC. What a killed process
   left there is removed by the next one; DVC's lock on the repository keeps two from being at it at once.

Interrupted before step 3: nothing of the data is on the remote. During it: as a push that was interrupted.
"""

from __future__ import annotations

import errno
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlseal.errors import Unreadable
from mlseal.evidence import paths
from mlseal_dvc import gitstate, guards, halt, pointers, sealing, watching

_DIRECTORY = ("mlseal", "staging")


def install() -> None:
    """Wrap DVC's class. The caller has checked that it is as expected (`contract`)."""
    from dvc.output import Output

    watching.replace(Output, "transfer", _transferring)


def _transferring(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def transfer(
        self: Any, source: Any, odb: Any = None, jobs: Any = None, update: bool = False, no_progress_bar: bool = False
    ) -> Any:
        remote = guards.remote_of(odb)
        if remote is None or not watching.protected(self.repo):
            return original(self, source, odb, jobs, update, no_progress_bar)
        with halt.told_to_dvc(), _staging_directory(self.repo) as directory, _room_told(directory):
            _require_room(self.repo, source, directory)
            staged = _database(directory)
            made = original(self, source, staged, jobs, False, no_progress_bar)
            _sign_and_upload(self, staged, odb, remote, made.hash_info, jobs)
            return made

    return transfer


def _sign_and_upload(out: Any, staged: Any, odb: Any, remote: str, hash_info: Any, jobs: Any) -> None:
    from dvc.exceptions import UploadError
    from dvc.fs.callbacks import TqdmCallback
    from dvc_data.hashfile.transfer import transfer

    from mlseal_dvc.desk import Desk

    if out.stage.is_import:
        out.stage.save_deps()  # what the statement says of the source; DVC records it only after the upload
    pointer = replace(
        pointers.pointer_of(out, None, gitstate.prefix(out.repo)), cache_path=staged.oid_to_path, remote_name=remote
    )
    sealed = sealing.seal_these(Desk(out.repo, remote), [pointer])
    halt.say(f"signed {len(sealed.signed)} outputs, {len(sealed.kept)} already signed")
    guards.allow(out.repo, sealed)
    try:
        with TqdmCallback(desc=f"Transferring to {odb.fs.unstrip_protocol(odb.path)}", unit="file") as bar:
            result = transfer(staged, odb, {hash_info}, jobs=jobs, hardlink=False, shallow=False, callback=bar)
    finally:
        guards.allow(out.repo, None)
    if result.failed:
        raise UploadError(len(result.failed))


def _database(directory: Path) -> Any:
    """A database of objects in `directory` that keeps a file once, however DVC hands it over."""
    from dvc.fs import localfs
    from dvc_data.hashfile.db.local import LocalHashFileDB

    class Staged(LocalHashFileDB):  # type: ignore[misc,unused-ignore]
        """A temporary file that was streamed here becomes the object by a link, without a second copy."""

        def add(self, path: Any, fs: Any, oid: Any, *_: Any, **kwargs: Any) -> Any:
            return super().add(path, fs, oid, **(kwargs | {"hardlink": True}))

    root = directory / "files" / "md5"
    root.mkdir(parents=True)
    return Staged(localfs, str(root), hash_name="md5")


@contextmanager
def _staging_directory(repo: Any) -> Iterator[Path]:
    base = Path(repo.tmp_dir).joinpath(*_DIRECTORY)
    shutil.rmtree(base, ignore_errors=True)
    directory = paths.private(paths.private(base) / secrets.token_hex(8))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _require_room(repo: Any, source: Any, directory: Path) -> None:
    """Raise `Unreadable` when the source says that it is larger than what is free."""
    size, free = _size_of(repo, source), shutil.disk_usage(directory).free
    if size is not None and size > free:
        raise Unreadable(
            f"{source} is too large to be staged for signing",
            got=f"{free} bytes free in {directory.parent}",
            expected=f"at least {size}",
            remedy="make room there, or add it on a machine that has it: dvc add, then dvc push",
        )


def _size_of(repo: Any, source: Any) -> int | None:
    """Bytes of a file or directory as its file system tells them; None if it does not."""
    from dvc.fs import get_cloud_fs

    cls, config, path = get_cloud_fs(repo.config, url=source)
    fs = cls(**config)
    try:
        if not fs.isdir(path):
            size = fs.info(path).get("size")
            return None if size is None else int(size)
        if fs.protocol == "local":
            return sum(os.path.getsize(file) for file in fs.find(path))
        listed = fs.walk(path, detail=True)  # one request for many files
        return sum(int(info.get("size") or 0) for _, _, files in listed for info in files.values())
    except NotImplementedError:
        return None


@contextmanager
def _room_told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise Unreadable(
            "the disk is full, so nothing was signed or uploaded",
            got=f"no space left in {directory.parent}",
            remedy="make room there, then run the command again",
        ) from error
