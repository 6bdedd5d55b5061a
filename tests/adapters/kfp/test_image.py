"""Only a digest of something that was pushed may be deployed."""

from __future__ import annotations

import hashlib

import pytest
from mlseal_kfp import image

from mlseal.errors import DigestMismatch, Misuse

REAL = "ghcr.io/example/mlseal@sha256:" + hashlib.sha256(b"an image").hexdigest()


@pytest.mark.parametrize("reference", [REAL, REAL.replace("ghcr.io", "localhost:5000")])
def test_digest_passes(reference: str) -> None:
    """Repository and digest."""
    assert image.require_deployable(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        "ghcr.io/example/mlseal",
        "ghcr.io/example/mlseal:1.0",
        "ghcr.io/example/mlseal:latest@sha256:" + REAL[-64:],
        "ghcr.io/example/mlseal@sha256:" + "0" * 64,
        "ghcr.io/example/mlseal@sha256:" + "01" * 32,
        "ghcr.io/example/mlseal@sha256:abc",
        "mlseal@sha256:" + REAL[-64:],
        REAL + " ",
        "",
        "$(IMAGE)",
        REAL.upper(),
        image.PLACEHOLDER,
        image.PLACEHOLDER + "@sha256:" + REAL[-64:],
    ],
)
def test_everything_else_is_refused(reference: str) -> None:
    """Tags, tags with digests, made-up and short digests, no repository, the placeholder."""
    with pytest.raises(Misuse):
        image.require(reference)


def test_host_reference_names_the_installed_code() -> None:
    """Accepted on this host, nowhere deployable, and refused once the code differs."""
    here = image.host_reference()
    assert image.require_here(here) == here
    with pytest.raises(Misuse, match="development host"):
        image.require_deployable(here)
    other = f"{image.HOST_REPOSITORY}@sha256:{hashlib.sha256(b'other code').hexdigest()}"
    with pytest.raises(DigestMismatch, match="other code"):
        image.require_here(other)
