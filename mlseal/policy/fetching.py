"""Policies from elsewhere: a file, a git repository at a revision, a URL of fsspec. Nothing that arrives is believed.

``policy.yaml`` · ``git+https://host/repo.git@REVISION#path/policy.yaml`` · ``s3://bucket/policy.yaml``. Beside the file
lies its release, ``policy.yaml.sigstore.json``. What is fetched is then compared with a digest and a signature; so the
place, the transport and whoever keeps it need no trust, and can only withhold.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlseal.errors import MissingExtra, Misuse, NoEvidence, ServiceUnavailable, Unreadable
from mlseal.evidence import bundle
from mlseal.evidence.deadlines import within
from mlseal.evidence.signing.embedded import environment as inherited
from mlseal.policy.plainyaml import MAX_BYTES, require_size

SUFFIX = ".sigstore.json"
SECONDS = 60.0
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,200}")
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.+", re.DOTALL)


@dataclass(frozen=True)
class Fetched:
    """A policy and its release as they came, and the directory beside which layers may lie, if it is a local one."""

    source: str
    policy: bytes
    release: bytes
    folder: Path | None = None


def fetch(source: str, *, seconds: float = SECONDS) -> Fetched:
    """What lies at `source`.

    Raises `Misuse` for a source of no known form, `ServiceUnavailable` or `Unreadable` where nothing can be had in
    time, `NoEvidence` where the policy is there and no release beside it, `PolicyInvalid` for one that is too large.
    """
    if source.startswith("git+"):
        return _from_git(source, seconds)
    if _URL.fullmatch(source):
        return Fetched(source, *_pair(source, lambda url, most: within(seconds, lambda: _remote(url, most), url)))
    return Fetched(source, *_pair(source, lambda path, most: _local(Path(path), most)), Path(source).resolve().parent)


def _pair(source: str, read: Callable[[str, int], bytes]) -> tuple[bytes, bytes]:
    policy = read(source, MAX_BYTES)
    require_size(len(policy), source)
    try:
        return policy, read(source + SUFFIX, bundle.MAX_BYTES)
    except (Unreadable, ServiceUnavailable) as error:
        raise NoEvidence(
            f"the policy {source} is not signed: no release lies beside it",
            got=error.message,
            expected=source + SUFFIX,
            remedy="mlseal policy release FILE, as its owner",
        ) from error


def _local(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="check the path") from error


def _remote(url: str, most: int) -> bytes:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra(
            "policies from URLs need the extra 'remote'",
            got=str(error),
            remedy="pip install 'mlseal[remote]' and fsspec's part for the scheme, such as s3fs",
        ) from error
    try:
        with fsspec.open(url, "rb") as file:
            return bytes(file.read(most + 1))
    except Exception as error:
        raise ServiceUnavailable(
            f"cannot fetch {url}", got=f"{type(error).__name__}: {error}"[:200], remedy="check the URL and the access"
        ) from error


def _from_git(source: str, seconds: float) -> Fetched:
    where, _, name = source.removeprefix("git+").partition("#")
    url, _, revision = where.rpartition("@")
    path = PurePosixPath(name)
    wrong = not name or path.is_absolute() or ".." in path.parts or ":" in name or not url or url.startswith("-")
    if wrong or not _REVISION.fullmatch(revision):
        raise Misuse("not a policy in git", got=source, expected="git+URL@REVISION#path/policy.yaml")
    with tempfile.TemporaryDirectory(prefix="mlseal-git-") as folder:

        def git(*arguments: str) -> bytes:
            return _git(folder, arguments, source, seconds)

        def blob(name: str, most: int) -> bytes:
            size = int(git("cat-file", "-s", f"FETCH_HEAD:{name}"))
            if size > most:
                raise Unreadable(f"{name} in {source} is too large", got=f"{size} bytes", expected=f"at most {most}")
            return git("cat-file", "blob", f"FETCH_HEAD:{name}")

        git("init", "--quiet", "--bare", ".")
        git("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, revision)
        return Fetched(source, *_pair(str(path), blob))


def _git(folder: str, arguments: tuple[str, ...], source: str, seconds: float) -> bytes:
    environment: dict[str, Any] = {
        **{key: value for key, value in inherited().items() if not key.startswith("GIT_") or key.startswith("GIT_SSH")},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # never ext::, which is a command
    }
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the git of whoever runs this
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingExtra("policies from git need git", remedy="install git") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(f"{source} did not answer", expected=f"within {seconds:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ServiceUnavailable(
            f"cannot fetch {source}",
            got=(said or ["no word from git"])[-1][:200],
            remedy="check URL, revision and path",
        )
    return done.stdout
