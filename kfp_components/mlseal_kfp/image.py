"""Which image a step runs in: a registry digest, this host, or nothing yet.

Three kinds of reference exist and only the first may be deployed:

* ``REPOSITORY@sha256:<64 hex>``: what a cluster runs. Tags move, so they are refused; a digest made of a few repeated
  digits is somebody's stand-in, so it is refused too.
* `HOST_REPOSITORY` ``@sha256:…``: this process on this machine, named by the digest of the installed code. The domain
  ends in ``.invalid`` (RFC 2606), so no cluster can pull it, and a host with other code refuses it.
* `PLACEHOLDER`: what the checked-in YAML carries until ``mlseal kfp compile`` fills it. Every step refuses it.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mlseal.errors import DigestMismatch, Misuse

PLACEHOLDER = "placeholder.mlseal.invalid/set-by/mlseal-kfp-compile"
"""The marked gap. It has no digest, so that no tool takes it for a real reference."""
HOST_REPOSITORY = "host.mlseal.invalid/process"
"""Stands for "a process of this machine": nothing is pulled and nothing is isolated."""

_REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9]+(?:[._-][a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@sha256:(?P<digest>[0-9a-f]+))?"
)
_REMEDY = "pass --image REPOSITORY@sha256:DIGEST as the registry printed it at push"
_FEWEST_DIGITS = 8  # a real SHA-256 with fewer distinct hex digits does not occur
_PACKAGES = ("mlseal", "mlseal_kfp")


def require(reference: str) -> str:
    """`reference` if it names an image by digest, or this host by its code; `Misuse` otherwise.

    Whether a host reference fits *this* host is asked by `require_here`.
    """
    if reference == PLACEHOLDER:
        raise Misuse(
            "the image is not set",
            got=PLACEHOLDER,
            expected="an image by digest",
            remedy="run 'mlseal kfp compile FILE --image REPOSITORY@sha256:DIGEST', or --host for development here",
        )
    match = _REFERENCE.fullmatch(reference)
    if match is None or "placeholder.mlseal.invalid" in reference:
        raise Misuse("not an image reference", got=reference[:120], expected="REPOSITORY@sha256:DIGEST", remedy=_REMEDY)
    if match["tag"] is not None or match["digest"] is None:
        raise Misuse(
            "an image must be named by digest alone, since a tag can be moved",
            got=reference[:120],
            expected="REPOSITORY@sha256:DIGEST",
            remedy=_REMEDY,
        )
    if len(match["digest"]) != 64 or len(set(match["digest"])) < _FEWEST_DIGITS:
        raise Misuse(
            "the image digest is no SHA-256 of anything",
            got=f"sha256:{match['digest'][:70]}",
            expected="64 hex digits of a pushed image",
            remedy=_REMEDY,
        )
    return reference


def require_deployable(reference: str) -> str:
    """`require`, and the reference is not a host's: what a cluster may run."""
    require(reference)
    if is_host(reference):
        raise Misuse(
            "the pipeline was compiled for one development host",
            got=reference,
            expected="an image in a registry",
            remedy=_REMEDY,
        )
    return reference


def require_here(reference: str) -> str:
    """`require`; a host reference must name the code that is running now.

    Raises `DigestMismatch` when the installed code is not the code that the pipeline was compiled for.
    """
    require(reference)
    if is_host(reference) and reference != host_reference():
        raise DigestMismatch(
            "this host runs other code than the pipeline was compiled for",
            got=host_reference(),
            expected=reference,
            remedy="compile the pipeline again: 'mlseal kfp compile --host FILE'",
        )
    return reference


def is_host(reference: str) -> bool:
    """Whether `reference` stands for a host process."""
    return reference.startswith(HOST_REPOSITORY + "@")


@cache
def host_reference() -> str:
    """The reference that stands for a process of this machine with the code installed here."""
    return f"{HOST_REPOSITORY}@sha256:{_code_digest()}"


def _code_digest() -> str:
    """Hex SHA-256 over path and digest of each Python file of our packages, sorted by path."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        for directory in spec.submodule_search_locations or ():
            root = Path(directory)
            for file in sorted(root.rglob("*.py")):
                name = f"{package}/{file.relative_to(root).as_posix()}"
                digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
