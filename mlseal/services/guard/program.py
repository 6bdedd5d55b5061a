"""The guard as a program: measure, judge, copy, start, serve; in this order, so that nothing serves unjudged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlseal.errors import Misuse
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.policy.gate import Action
from mlseal.policy.model import Policy
from mlseal.policy.verdict import Verdict
from mlseal.services.guard import outliers, signature, upstream
from mlseal.services.guard.app import Guard, make
from mlseal.services.guard.callers import Callers
from mlseal.services.guard.output import Output
from mlseal.services.guard.rates import Rates
from mlseal.services.guard.settings import Settings
from mlseal.services.guard.standing import Standing
from mlseal.services.guard.upstream import Upstream

if TYPE_CHECKING:
    from starlette.applications import Starlette

TOOL, ACTION = "guard", "serve"
_MAX_HEADERS = 32 * 1024
"""Bytes of the lines before a body."""


@dataclass(frozen=True)
class Address:
    """Where to listen, and the certificate for TLS."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, text: str, certificate: Path | None = None, key: Path | None = None) -> Address:
        """``HOST:PORT``. Raises `Misuse`; beyond loopback there must be TLS, for tokens travel here."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
            raise Misuse("not an address", got=text[:80], expected="HOST:PORT")
        if (certificate is None) != (key is None):
            raise Misuse("a certificate needs its key, and a key its certificate")
        if certificate is None and host not in {"127.0.0.1", "localhost", "[::1]", "::1"}:
            raise Misuse("tokens would travel in the clear", got=text, remedy="pass --tls-cert and --tls-key")
        return cls(host.strip("[]"), int(port), certificate, key)


@contextmanager
def guarded(
    model: Path,
    name: str,
    settings: Settings,
    policies: Callable[[], Sequence[Policy]],
    archive: Callable[[], Archive],
    *,
    command: Sequence[str] = upstream.COMMAND,
    url: str | None = None,
    heard: Callable[[Verdict], None] = lambda _: None,
) -> Iterator[Starlette]:
    """The application in front of `model`, whose server runs for the length of the ``with``.

    Args:
        model: an MLflow model directory with a column signature.
        name: what policies know the model as.
        settings: of the guard.
        policies: reads those in force, for each judgement.
        archive: opens the evidence.
        command: starts the model's server; unused with `url`.
        url: an upstream that runs already; nothing ties it to the verified bytes.
        heard: told of each verdict that differs from the one before.

    Raises what the settings, the model or the policy are refused for; nothing was started then.
    """
    measured = measure(model)
    declared = signature.of_model(model, measured)
    callers, rates, output = (
        Callers(settings.identity, settings.directory),
        Rates(settings.limits),
        Output(settings.output.pii),
    )
    part = settings.outliers
    reference = outliers.fit(part, settings.path(part.reference), declared) if part else None
    if unknown := set(settings.injection.columns) - set(declared.texts):
        raise Misuse("injection.columns names what is no text column of the model", got=min(unknown))
    standing = Standing(measured, Action(TOOL, ACTION, {"model": name}), policies, archive, settings.recheck, heard)
    standing.judge()
    standing.require()
    place = nullcontext(Upstream(url)) if url else upstream.serving(measured, command)
    with place as behind:
        guard = Guard(settings, (name, measured.sha256), standing, callers, rates, declared, reference, output, behind)
        standing.start(behind.require)
        try:
            yield make(guard)
        finally:
            standing.stop()


def serve(app: Starlette, address: Address) -> None:
    """Listen until told to end (SIGINT, SIGTERM). No access log: what callers send is theirs."""
    import uvicorn

    from mlseal.services.guard.heads import Heads

    uvicorn.run(
        app,
        host=address.host,
        port=address.port,
        ssl_certfile=str(address.certificate) if address.certificate else None,
        ssl_keyfile=str(address.key) if address.key else None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=256,
        timeout_keep_alive=30,
        http=Heads,  # and not httptools, which uvicorn would prefer: it takes headers without end from whoever connects
        h11_max_incomplete_event_size=_MAX_HEADERS,
        ws="none",
    )
