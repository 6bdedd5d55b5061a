"""Two contents with one MD5, seen before DVC puts one in place of the other.

DVC names objects by MD5. Whoever adds a file whose MD5 an object in the cache has gets that object's bytes into the
workspace, without a word, and their own are gone; a push would then sign what was never meant. So what is about to be
added is compared by SHA-256 with what the cache holds under its name, and files of one directory that share a name with
each other. What is not in the cache yet costs one look for its file, and a file that the cache shares (a link) nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from mlseal.errors import DigestMismatch
from mlseal.evidence.hashcache import HashCache
from mlseal_dvc import halt, objects, watching


def install() -> None:
    """Wrap DVC's class. The caller has checked that it is as expected (`contract`)."""
    from dvc.output import Output

    watching.replace(Output, "_build", _building)


def _building(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def build(self: Any, odb: Any, path: str, fs: Any, *args: Any, **kwargs: Any) -> Any:
        built = original(self, odb, path, fs, *args, **kwargs)
        kept = self.use_cache and not kwargs.get("dry_run") and getattr(fs, "protocol", None) == "local"
        if kept and self.repo is not None and watching.protected(self.repo):
            with halt.told_to_dvc():
                require_apart(path, built[2], odb.oid_to_path)
        return built

    return build


def require_apart(path: str, obj: Any, cache_path: Callable[[str], str]) -> None:
    """Raise `DigestMismatch` if a file at `path` (file or directory) has the MD5 of other bytes, here or in the cache.

    Args:
        obj: what DVC built of it: a `HashFile`, or a `Tree` of a directory.
    """
    others: dict[str, str] = {}
    pairs: list[tuple[str, str, str]] = []
    for file, oid in _files(path, obj):
        pairs += [(file, other, oid) for other in (cache_path(oid), others.get(oid)) if other and _another(file, other)]
        others.setdefault(oid, file)
    if not pairs:
        return
    with HashCache() as cache:
        names: dict[str, str | None] = {name: None for file, other, _ in pairs for name in (file, other)}
        found = objects.hash_for_signing(names, cache)
    for file, other, oid in pairs:
        if file in found and other in found and found[file].sha256 != found[other].sha256:
            raise DigestMismatch(
                f"{file} has the MD5 of other content, and DVC would put that in its place",
                got=f"md5 {oid}, sha256 {found[file].sha256[:16]}…",
                expected=f"sha256 {found[other].sha256[:16]}…, as in {other}",
                remedy="keep one of the two apart from DVC, and ask where it comes from: nobody meets this by chance",
            )


def _files(path: str, obj: Any) -> Iterator[tuple[str, str]]:
    """Each file below `path` with its object id."""
    if getattr(obj, "hash_info", None) is None:
        return
    if not obj.hash_info.isdir:
        yield path, str(obj.hash_info.value)
        return
    for key, _, hash_info in obj:
        yield os.path.join(path, *key), str(hash_info.value)


def _another(file: str, other: str) -> bool:
    """Whether both exist and are not one file."""
    try:
        return not os.path.samefile(file, other)
    except OSError:
        return False
