"""Federated training: which clients took part in which round, and what each round made of the model.

The subject is the model. Every round has a receipt: who took part with which data (by digest), who refused, who dropped
out, the model before and after. Receipts are chained by digest, and whoever reads this predicate works the chain out
again. ``topology`` says whether clients and server were processes of their own or one process that played all of them,
and the process numbers in the receipts must agree with it.

Example::

    {"dataset": {"name": "hospitals#manifest", "digest": {"sha256": "…"}}, "outcome": "need",
     "topology": "processes", "transport": "tls-loopback", "authority": "…",
     "aggregation": "mean weighted by rows", "secureAggregation": false, "minimumClients": 2,
     "clients": [{"client": "north.csv", "dataSha256": "…"}, …], "serverProcess": 4711,
     "initialModel": "…", "finalModel": "…",
     "rounds": [{"number": 1, "previous": "000…", "modelBefore": "…", "modelAfter": "…",
                 "participants": [{"client": "north.csv", "dataSha256": "…", "update": "…", "rows": 812,
                                   "process": 4720, "dataPolicies": ["…"]}, …],
                 "refused": [{"client": "south.csv", "dataSha256": "…", "reason": "data-policy:purpose"}],
                 "dropped": ["west.csv"], "receipt": "…"}, …], …}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mlseal.evidence import canonical
from mlseal.evidence.predicates.base import NAMESPACE, Measurement, Model, ResourceDescriptor, Sha256, Text

URI = NAMESPACE + "federated-training/v0.1"
SHORT = "federated-training"
START = "0" * 64
"""What the first receipt names as the one before it."""


def receipt_of(fields: Mapping[str, Any]) -> str:
    """SHA-256 of the RFC 8785 bytes of a round's fields, ``receipt`` itself left out."""
    said = {name: value for name, value in fields.items() if name != "receipt"}
    return hashlib.sha256(canonical.dumps(said)).hexdigest()


class Client(Model):
    """A client that was asked, and the digest of its data."""

    client: Text
    data_sha256: Sha256


class Participant(Client):
    """A client whose update went into the model.

    Attributes:
        update: SHA-256 of the weights that it sent.
        rows: its weight in the mean; absent when under 10.
        process: number of the process that trained.
        data_policies: evidence ids of the owner's data policies that it found and obeyed.
    """

    update: Sha256
    rows: int | None = None
    process: int
    data_policies: list[Sha256]


class Refused(Client):
    """A client that did not train, and the rule or kind of error that kept it from it."""

    reason: Text


class Round(Model):
    """One round's receipt."""

    number: int = Field(ge=1)
    previous: Sha256
    model_before: Sha256
    model_after: Sha256
    participants: list[Participant]
    refused: list[Refused]
    dropped: list[Text]
    receipt: Sha256


class Predicate(Measurement):
    """Federated training v0.1.

    Attributes:
        authority: SHA-256 of the certificate of the CA that was made for this session; absent in a simulation.
        secure_aggregation: whether the server saw sums only; it saw every update.
        minimum_clients: fewer participants end the run.
        server_process: number of the process that aggregated.
    """

    dataset: ResourceDescriptor
    outcome: str
    topology: Literal["simulation", "processes"]
    transport: Literal["none", "tls-loopback"]
    authority: Sha256 | None = None
    aggregation: Literal["mean weighted by rows"]
    secure_aggregation: Literal[False]
    minimum_clients: int = Field(ge=1)
    clients: list[Client]
    server_process: int
    initial_model: Sha256
    final_model: Sha256
    rounds: list[Round]

    @model_validator(mode="after")
    def _the_chain_holds(self) -> Predicate:
        previous, model = START, self.initial_model
        for number, one in enumerate(self.rounds, 1):
            if one.number != number or one.previous != previous or one.model_before != model:
                raise ValueError(f"round {number} does not follow the one before it")
            if one.receipt != receipt_of(one.to_json()):
                raise ValueError(f"the receipt of round {number} is not that of its fields")
            self._require_everybody(one)
            self._require_topology(one)
            previous, model = one.receipt, one.model_after
        if model != self.final_model:
            raise ValueError("the model is not the one that the last round made")
        return self

    def _require_everybody(self, one: Round) -> None:
        named = [c.client for c in (*one.participants, *one.refused)] + list(one.dropped)
        if sorted(named) != sorted(c.client for c in self.clients) or len(set(named)) != len(named):
            raise ValueError(f"round {one.number} does not name every client once")
        digests = {c.client: c.data_sha256 for c in self.clients}
        if any(c.data_sha256 != digests[c.client] for c in (*one.participants, *one.refused)):
            raise ValueError(f"a client of round {one.number} used other data than stated")
        if len(one.participants) < self.minimum_clients:
            raise ValueError(f"round {one.number} had fewer clients than the minimum")

    def _require_topology(self, one: Round) -> None:
        numbers = [p.process for p in one.participants]
        apart = len({*numbers, self.server_process}) == len(numbers) + 1
        together = set(numbers) == {self.server_process}
        if (self.topology, self.transport) not in {("processes", "tls-loopback"), ("simulation", "none")}:
            raise ValueError(f"a topology of {self.topology} has no transport {self.transport}")
        if not (apart if self.topology == "processes" else together):
            raise ValueError(f"the processes of round {one.number} are not those of a topology of {self.topology}")
