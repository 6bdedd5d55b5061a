"""Where a step runs, and what follows from that: trust, store, role, the digests of its inputs."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlseal.errors import DigestMismatch, Error, Misuse, Refusal
from mlseal.evidence import store as stores
from mlseal.evidence import trust as trusts
from mlseal.evidence.clock import Clock
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.signing.transport import socket_path
from mlseal.evidence.store import BundleStore, Store
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import self_verify
from mlseal.stages.training.run import BUILDER_VARIABLE
from mlseal_kfp.executor_input import Artifact, Task

HOST_PROCESS = "MLSEAL_KFP_HOST"
"""Set by the host runner: the step is a process of a developer's machine, whatever image the file names."""
ROLE = "MLSEAL_ROLE"
"""Role that stages sign as under an embedded authority; elsewhere the token alone says who signs."""
GATE_ROLE = "MLSEAL_GATE_ROLE"
REUSE = "MLSEAL_REUSE"
"""``1`` lets every stage of this environment take evidence that exists; otherwise the component's ``reuse`` does."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def role() -> str:
    """The role that a stage signs as: ``$MLSEAL_ROLE`` or ``producer``."""
    return os.environ.get(ROLE) or "producer"


def gate_role() -> str:
    """The role that decide signs as: ``$MLSEAL_GATE_ROLE`` or ``gate``."""
    return os.environ.get(GATE_ROLE) or "gate"


def reuse(task: Task) -> bool:
    """Whether evidence that exists and verifies may serve: the component's ``reuse``, or ``$MLSEAL_REUSE``.

    Raises `Misuse` for anything but true or false.
    """
    value = task.parameters.get("reuse", False)
    if not isinstance(value, bool):
        raise Misuse("parameter 'reuse' has the wrong type", got=repr(value)[:80], expected="true or false")
    return value or os.environ.get(REUSE) == "1"


def builder() -> str:
    """``container`` inside a released image, else ``host-process``; stated by the image itself, so a declaration."""
    inside = os.environ.get(BUILDER_VARIABLE) == "container" and os.environ.get(HOST_PROCESS) != "1"
    return "container" if inside else "host-process"


def trust() -> Trust:
    """The trust root in force, refused if it is an embedded one inside Kubernetes.

    An embedded authority knows its users by the uid of a process on one machine. In a cluster every pod may run as any
    uid, so its identities would mean nothing (`Refusal`).
    """
    chosen = trusts.resolve()
    urls = [u for u in (vars(chosen.endpoints).values() if chosen.endpoints else ()) if u]
    if os.environ.get("KUBERNETES_SERVICE_HOST") and any(socket_path(url) for url in urls):
        raise Refusal(
            "an embedded authority is no authority inside Kubernetes",
            got=f"{chosen.source}, on a unix socket",
            expected="a trust root with https endpoints",
            remedy="run 'mlseal serve' for the team and mount its trust_config.json (docs/kfp.md)",
        )
    return chosen


@contextmanager
def store(task: Task, trust: Trust, clock: Clock) -> Iterator[BundleStore]:
    """The store in force, with everything that ``known_evidence`` brings.

    Without ``$MLSEAL_STORE`` and without a store in the working directory it is a temporary one: a pod has no memory.
    """
    chosen = stores.resolve()
    if os.environ.get("MLSEAL_STORE") or not isinstance(chosen, Store) or chosen.root.is_dir():
        _bring(task, chosen, trust, clock)
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="mlseal-store-") as directory:
        temporary = Store(directory)
        _bring(task, temporary, trust, clock)
        yield temporary


def _bring(task: Task, target: BundleStore, trust: Trust, clock: Clock) -> None:
    """Copy what verifies of ``known_evidence``: a store keeps the first encoding, so a spoilt one must not be first."""
    known = task.artifact("known_evidence")
    if known is None:
        return
    source = Store(known.require())
    if not (source.root / "bundles").is_dir():
        raise Misuse(
            "known_evidence is no store",
            got=str(known.path),
            expected="a directory with bundles/ab/cdef….sigstore.json",
        )
    shown = target.afresh()  # a pod's cache says nothing about what other pods will find
    for evidence_id in source.ids():
        if shown.has(evidence_id):
            continue
        with suppress(Error):  # what does not verify stays outside; if it matters the log knows that it is missing
            bundle = source.get(evidence_id)
            self_verify(bundle, trust, clock=clock)
            target.put(bundle)


def announced(task: Task, port: str) -> str:
    """The digest that ``PORT_sha256`` announces; empty if it announces none. Raises `Misuse` for anything else."""
    text = task.text(f"{port}_sha256").strip()
    if text and not _DIGEST.fullmatch(text):
        raise Misuse(f"{port}_sha256 is no SHA-256", got=text[:80], expected="64 lower-case hex digits")
    return text


def measured(task: Task, artifact: Artifact) -> Measured:
    """The bytes of an input, which must have the announced digest. Raises `Unreadable` or `DigestMismatch`."""
    found = measure(artifact.require())
    expected = announced(task, artifact.port)
    if expected and found.sha256 != expected:
        raise DigestMismatch(
            f"input {artifact.port!r} is not what an earlier task made",
            got=found.sha256,
            expected=expected,
            remedy="find the task that wrote in between, or run the pipeline again",
        )
    return found
