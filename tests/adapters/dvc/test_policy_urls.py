"""Policies from URLs of fsspec, which comes with DVC: what cannot be had in time, or is not signed, stops."""

from __future__ import annotations

import subprocess
import sys
import threading

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from mlseal_dvc.governing import load_policies
from mlseal_dvc.session import Session

from mlseal.errors import Error, MalformedEvidence, NoEvidence, PolicyInvalid, ServiceUnavailable
from mlseal.policy.fetching import SUFFIX, fetch

released = threading.Event()


class Hanging(MemoryFileSystem):
    """A bucket that does not answer until the test is over."""

    protocol = "hanging"

    def _open(self, *_: object, **__: object) -> object:
        released.wait(60)
        raise OSError("too late")


@pytest.fixture(autouse=True)
def _hanging():
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    released.clear()
    yield
    released.set()


def test_a_policy_and_its_release_come_by_url() -> None:
    with fsspec.open("memory://org/policy.yaml", "wb") as file:
        file.write(b"policy: a/1\n")
    with pytest.raises(NoEvidence, match="is not signed"):
        fetch("memory://org/policy.yaml")
    with fsspec.open(f"memory://org/policy.yaml{SUFFIX}", "wb") as file:
        file.write(b"{}")
    found = fetch("memory://org/policy.yaml")
    assert (found.policy, found.release, found.folder) == (b"policy: a/1\n", b"{}", None)
    with fsspec.open("memory://org/policy.yaml", "wb") as file:
        file.write(b"# " + b"x" * 1_000_000)
    with pytest.raises(PolicyInvalid, match="is too large"):
        fetch("memory://org/policy.yaml")


@pytest.mark.parametrize("url", ["memory://org/none.yaml", "nothing://org/policy.yaml", "file:///no/where/policy.yaml"])
def test_what_cannot_be_fetched_is_one_sentence(url: str) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        fetch(url)
    assert "cannot fetch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dvc_asks_what_is_pinned(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLSEAL_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("MLSEAL_POLICY", raising=False)
    assert load_policies(Session()) == ()
    (tmp_path / "policy.pins.json").write_text("{}")
    with pytest.raises(MalformedEvidence, match="not a file of pins"):
        load_policies(Session())


def test_a_bucket_that_hangs_stops_in_time() -> None:
    with pytest.raises(Error, match="did not answer"):
        fetch("hanging://org/policy.yaml", seconds=0.2)


STUCK = """
import time
from mlseal.errors import ServiceUnavailable
from mlseal.policy import fetching
try:
    fetching.within(0.1, lambda: time.sleep(600) or b"", "the bucket")
except ServiceUnavailable as error:
    print(error)
"""


def test_a_command_ends_although_the_bucket_still_hangs() -> None:
    """A thread of a pool is waited for when the interpreter ends: the sentence came, and the command stayed."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120, check=True)
    assert "the bucket did not answer" in done.stdout
