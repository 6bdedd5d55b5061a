"""Where the signer's identity token comes from. The token is shown to the CA, which alone decides what it is worth.

Sources, first that applies: an explicit file, ``$MLSEAL_TOKEN_FILE``, the embedded issuer on the unix socket (which
asks the kernel who is calling), a Kubernetes projected token (at `PROJECTED`, or where ``$MLSEAL_PROJECTED_TOKEN``
says), a CI provider's ambient credential.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from mlseal.errors import NotInitialised, ServiceUnavailable, Unreadable, UntrustedSigner
from mlseal.evidence.signing import embedded
from mlseal.evidence.signing.transport import Connection, socket_path
from mlseal.evidence.trust import Trust

TokenSource = Callable[[], str]
"""Gives a fresh JWT each time it is called; a file is read again, so that a rotated token is picked up."""

PROJECTED = Path("/var/run/sigstore/cosign/oidc-token")
"""Where cosign's convention mounts a Kubernetes projected token with audience ``sigstore``."""


def source_for(
    role: str, trust: Trust, *, token_file: str | os.PathLike[str] | None = None, deadline: float = 10.0
) -> TokenSource:
    """The token source for `role` (``producer``, ``gate``, ``reviewer/alice``) under `trust`.

    Raises `NotInitialised` when there is none; a role is only a request, the issuer grants or refuses it.
    """
    if named := token_file or os.environ.get("MLSEAL_TOKEN_FILE"):
        return lambda: from_file(named)
    if trust.endpoints and trust.endpoints.issuer and socket_path(trust.endpoints.issuer):
        issuer = trust.endpoints.issuer
        return lambda: from_embedded(trust, issuer, role, deadline)
    projected = Path(os.environ.get("MLSEAL_PROJECTED_TOKEN") or PROJECTED)
    if projected.exists():
        return lambda: from_file(projected)
    return lambda: ambient(deadline)


def from_file(path: str | os.PathLike[str]) -> str:
    """The token in a file. Raises `Unreadable`."""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot read the identity token {path}", got=str(error)[:120]) from error
    if token.count(".") != 2:
        raise Unreadable(f"{path} holds no JWT", remedy="write the token of your identity provider to that file")
    return token


def from_embedded(trust: Trust, issuer: str, role: str, deadline: float) -> str:
    """A token of the embedded issuer. Raises `UntrustedSigner` when this uid has no grant for `role`."""
    embedded.ensure_running(trust)
    subject = role if role.startswith("roles/") else f"roles/{role}"
    answer = Connection(issuer, deadline).request(
        "POST", "/token", json.dumps({"subject": subject}).encode(), {"Content-Type": "application/json"}
    )
    document = json_or_empty(answer.body)
    if answer.status == 403:
        raise UntrustedSigner(
            f"this user may not act as {subject}",
            got=f"uid {os.getuid()}: {document.get('message', 'refused')}",
            remedy=f"the owner of the service runs 'mlseal trust grant --uid {os.getuid()} {subject}'",
        )
    if answer.status not in (200, 201) or not isinstance(document.get("token"), str):
        raise ServiceUnavailable(
            "the issuer gave no token", got=f"status {answer.status} {document.get('message', '')}"
        )
    return str(document["token"])


def ambient(deadline: float) -> str:
    """The credential that the CI system offers (GitHub, GitLab, GCP, Buildkite, CircleCI), within `deadline` seconds.

    The library that asks waits up to two minutes for a provider that hangs, so it is asked in a thread that is left
    behind at the deadline.
    """
    answers: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_detected()), name="ambient credential", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline)
    except queue.Empty:
        raise ServiceUnavailable(
            "the CI system gave no identity token",
            got="no answer",
            expected=f"an answer within {deadline:g} s",
            remedy="run the job again, or pass --token-file",
        ) from None
    if isinstance(answer, Exception):
        raise UntrustedSigner("the ambient credential is unusable", got=str(answer)[:200]) from answer
    if answer is None:
        raise NotInitialised(
            "no identity token found",
            expected="--token-file, MLSEAL_TOKEN_FILE, a projected or ambient token",
            remedy="name a token file, or run 'mlseal init' for an embedded authority",
        )
    return answer


def _detected() -> str | Exception | None:
    from sigstore.oidc import detect_credential

    try:
        return detect_credential()
    except Exception as error:  # noqa: BLE001  raised by the thread that waits
        return error


def json_or_empty(body: bytes) -> dict[str, object]:
    """A service's JSON answer, or {} when it is something else."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
