"""The live parts of an authority: one set per generation, exchanged when the state on disk says so."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from mlseal.evidence.clock import Clock, parse_rfc3339, utcnow
from mlseal.services import certificates, entries, trust_root
from mlseal.services import state as states
from mlseal.services.allowed import AllowedKeys
from mlseal.services.certificates import CertificateAuthority
from mlseal.services.entries import StatementLog
from mlseal.services.issuer import Grants, LocalIssuer
from mlseal.services.people import People
from mlseal.services.state import State
from mlseal.services.timestamping import TimestampAuthority
from mlseal.services.tokens import Provider, TokenVerifier
from mlseal.tlog.tiles import DirectoryTiles
from mlseal.tlog.writer import LogWriter


@dataclass(frozen=True)
class Generation:
    """What signs now. Built by `Authority`; the writers are shared with nobody."""

    state: State
    fingerprint: str
    issuer: LocalIssuer
    tokens: TokenVerifier
    certificates: CertificateAuthority
    time: TimestampAuthority
    log: StatementLog
    writers: dict[str, LogWriter]
    tiles: dict[str, DirectoryTiles]

    def close(self) -> None:
        """Release the logs; what was acknowledged is on disk already."""
        for writer in self.writers.values():
            writer.close()


class Authority:
    """An authority as it runs.

    Args:
        directory: STATE.
        providers: identity providers besides the local issuer.
        clock: the time.

    `current` looks whether ``authority.json`` was replaced, so that a rotation takes effect with the next request.
    Thread-safe. Only one process may hold an authority (the logs' locks refuse a second).
    """

    def __init__(self, directory: Path, *, providers: Sequence[Provider] = (), clock: Clock = utcnow) -> None:
        self._directory, self._providers, self._clock = directory, tuple(providers), clock
        self._lock = threading.Lock()
        self._retired: list[Generation] = []
        self._mark = self._record_mark()
        self._generation = self._build(states.load(directory))

    def current(self) -> Generation:
        """The generation that signs."""
        if self._record_mark() != self._mark:
            with self._lock:
                mark = self._record_mark()
                if mark != self._mark:
                    self._exchange(states.load(self._directory))
                    self._mark = mark
        return self._generation

    def close(self) -> None:
        """Release every log."""
        with self._lock:
            for generation in (*self._retired, self._generation):
                generation.close()

    def _exchange(self, state: State) -> None:
        if state.number == self._generation.state.number:
            return
        # Requests in flight may still append to the old log; it is closed with the process, and no route leads to it.
        self._retired.append(self._generation)
        self._generation = self._build(state)

    def _record_mark(self) -> tuple[int, int]:
        facts = os.stat(self._directory / "authority.json")  # noqa: PTH116 - on the path of every request
        return facts.st_ino, facts.st_mtime_ns

    def _build(self, state: State) -> Generation:
        keys, clock = state.keys(), self._clock
        origin, issuance_origin = state.statement_origin(), state.issuance_origin()
        issuance = LogWriter(
            state.log_directory(issuance_origin), issuance_origin, keys.issuance, identity_of=certificates.identity_of
        )
        log = LogWriter(state.log_directory(origin), origin, keys.log, identity_of=entries.identity_of)
        grants = Grants(state.directory / "grants.json")
        people = People(state.directory, clock=clock)
        issuer = LocalIssuer(state.name, keys.issuer, grants, os.geteuid(), people, clock=clock)
        return Generation(
            state=state,
            fingerprint=state.fingerprint,
            issuer=issuer,
            tokens=TokenVerifier([issuer, *self._providers], clock=clock),
            certificates=CertificateAuthority(keys.ca, keys.ca_chain, keys.ct, issuance, clock=clock),
            time=TimestampAuthority(keys.tsa, keys.tsa_chain[0], clock=clock),
            log=StatementLog(
                log,
                trust_root.log_id(origin, keys),
                self._believed(state),
                AllowedKeys(state.directory / "keys.json"),
                clock=clock,
            ),
            writers={origin: log, issuance_origin: issuance},
            tiles={name: DirectoryTiles(state.log_directory(name)) for name in state.origins()},
        )

    def _believed(self, state: State) -> list[x509.Certificate]:
        """Intermediates of every generation that has not ended: a rotation does not cut off work in flight."""
        now = self._clock()
        return [_intermediate(g["ca"]) for g in state.generations if parse_rfc3339(g["ca"]["validFor"]["end"]) > now]


def _intermediate(entry: dict[str, Any]) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(entry["certChain"]["certificates"][0]["rawBytes"]))
