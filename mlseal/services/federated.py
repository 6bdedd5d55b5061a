"""The Flower apps of federated training: a client that asks its owner's data policy before it trains, and a server.

    client, server = apps()

Flower's own processes load them (`flwr-clientapp`, `flwr-serverapp`); `mlseal.stages.training.federation` starts those
and says by environment and node configuration where each one's settings lie.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error
from mlseal.evidence.identity import Identity
from mlseal.evidence.planning import Asking

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive

_POLL = 0.1
_FACTOR = 2.0
_GRACE = 3.0


def apps() -> tuple[Any, Any]:
    """A fresh ClientApp and ServerApp."""
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    client, server = ClientApp(), ServerApp()
    client.train()(_train)
    server.main()(_serve)
    return client, server


def _train(message: Any, context: Any) -> Any:
    from flwr.app import Message

    from mlseal.stages.training import rounds

    file = Path(str(context.node_config["settings"]))
    document = json.loads(file.read_text(encoding="utf-8"))
    site = rounds.read_site(document["site"])
    content = rounds.answer(message.content, site, _asking(document), lambda: _archive(document))
    return Message(content=content, reply_to=message)


def _asking(document: dict[str, Any]) -> Asking:
    """The client's own judge, with the policies in force where the client runs."""
    from mlseal.policy import load
    from mlseal.policy.preflight import Preflight

    who = Identity(document["issuer"], document["san"])
    return Asking(Preflight(load.in_force()), lambda: who, document["purpose"])


def _archive(document: dict[str, Any]) -> Archive:
    from mlseal.evidence import trust
    from mlseal.evidence.archive import Archive

    return Archive.open(trust.load(Path(document["trust"])), document["store"])


def _serve(grid: Any, context: Any) -> None:
    """Run the rounds; the outcome is written whole at the end, receipts as they come."""
    from mlseal.stages.training import rounds

    place = Path(str(context.run_config["place"]))
    course = rounds.Course(**json.loads((place / "course.json").read_text(encoding="utf-8")))
    receipts: list[dict[str, Any]] = []

    def tell(receipt: dict[str, Any]) -> None:
        receipts.append(receipt)
        _write(place / f"round-{receipt['number']}.json", receipt)

    done: dict[str, Any] = {"process": os.getpid()}
    try:
        model = rounds.run(_Nodes(grid, _nodes(grid, course)), course, tell)
        done |= {"receipts": receipts, "model": [array.tolist() for array in model]}
    except Error as error:
        done |= {"error": error.to_dict()}
    _write(place / "outcome.json", done)


class _Nodes:
    """The SuperNodes, as rounds ask them: over Flower's grid."""

    def __init__(self, grid: Any, nodes: list[int]) -> None:
        self._grid, self._nodes = grid, nodes
        self._took: float | None = None

    def ask(self, content: Any, patience: float) -> list[Any]:
        """What came in time and is no error: a client that fails has dropped out.

        Once somebody has answered, the others have `_FACTOR` times as long as that took and `_GRACE` seconds, and never
        longer than `patience`: a node that is gone keeps nobody waiting for a whole time-out in every round.
        """
        from flwr.app import Message

        messages = [Message(content=content, message_type="train", dst_node_id=node) for node in self._nodes]
        started = time.monotonic()
        waiting, found, end = set(self._grid.push_messages(messages)), [], started + patience
        while waiting and time.monotonic() < end:
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                if not reply.has_error():
                    found.append(reply.content)
            if found:
                end = min(end, started + _FACTOR * (self._first(started)) + _GRACE)
            time.sleep(_POLL)
        self._took = None
        return found

    def _first(self, started: float) -> float:
        """Seconds after which the first answer came."""
        if self._took is None:
            self._took = time.monotonic() - started
        return self._took


def _nodes(grid: Any, course: Any) -> list[int]:
    """The nodes that are there once as many as there are clients came, or when patience ends."""
    end = time.monotonic() + course.patience
    while len(list(grid.get_node_ids())) < len(course.clients) and time.monotonic() < end:
        time.sleep(_POLL)
    return list(grid.get_node_ids())


def _write(path: Path, document: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document), encoding="utf-8")
    fresh.replace(path)
