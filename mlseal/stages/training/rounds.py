"""Rounds of federated averaging: what a client does with a message, and what the server makes of the answers.

Both run as Flower apps (`mlseal.services.federated`) or, in a simulation, in one process with a grid that calls the
client. The messages and the averaging are Flower's; the model is a logistic regression, so that a step is a few lines.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlseal.errors import Error, Unchecked
from mlseal.evidence.digest import measure
from mlseal.evidence.planning import Asking
from mlseal.evidence.predicates.federated_training import START, receipt_of
from mlseal.stages import dense, tables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlseal.evidence.archive import Archive

    Arrays = list[NDArray[np.float64]]
STAGE = "training.federated"
_SMALL_CELL = 10


@dataclass(frozen=True)
class Learning:
    """What is learned and how: the same for every client."""

    outcome: str
    features: list[str]
    ranges: dict[str, tuple[float, float]]
    local_epochs: int
    rate: float


@dataclass(frozen=True)
class Site:
    """One client's own settings. Its table never leaves it.

    Attributes:
        client: its name in receipts.
        table: its rows, with the suffix of a table.
        run_id: of the run.
    """

    client: str
    table: str
    run_id: str
    learning: Learning


@dataclass(frozen=True)
class Course:
    """What the server knows: names of clients, rounds, how long to wait, width of the model."""

    clients: list[str]
    rounds: int
    minimum: int
    patience: float
    width: int


class Grid(Protocol):
    """Whatever reaches the clients."""

    def ask(self, content: Any, patience: float) -> Iterable[Any]:
        """The answers (Flower's RecordDict) that came within `patience` seconds; who failed does not answer."""


def digest_of(arrays: Sequence[NDArray[np.float64]]) -> str:
    """SHA-256 of the numbers, little-endian doubles in order."""
    import numpy as np

    return hashlib.sha256(b"".join(np.ascontiguousarray(a, dtype="<f8").tobytes() for a in arrays)).hexdigest()


def load(site: Site) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled features and labels of a client. Raises `Misuse` or `Unreadable` for a table that cannot be used."""
    import numpy as np

    from mlseal.errors import Misuse

    frame = tables.read(Path(site.table))
    labels = tables.column(frame, site.learning.outcome, "outcome")
    if not set(np.unique(labels).tolist()) <= {0, 1}:
        raise Misuse(f"column {site.learning.outcome!r} must be 0 and 1")
    return dense.scaled(frame, site.learning.features, site.learning.ranges), labels.astype(np.float64)


def step(arrays: Arrays, features: NDArray[np.float64], labels: NDArray[np.float64], learning: Learning) -> Arrays:
    """Weights and bias after the local epochs: gradient descent on the mean logistic loss."""
    import numpy as np

    weight, bias = arrays[0].astype(np.float64).copy(), arrays[1].astype(np.float64).copy()
    for _ in range(learning.local_epochs):
        slope = 1 / (1 + np.exp(-np.clip(features @ weight + bias, -500, 500))) - labels
        weight -= learning.rate * (features.T @ slope) / len(labels)
        bias -= learning.rate * slope.mean()
    return [weight, bias]


# --- a client --------------------------------------------------------------------------------------------------------


def answer(content: Any, site: Site, asking: Asking, archive: Callable[[], Archive]) -> Any:
    """The client's answer to a round, both Flower's RecordDict: its update, or that it refuses and by which rule.

    The owner's data policy is asked about before a row is read.
    """
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    measured = measure(Path(site.table))
    said: dict[str, Any] = {"client": site.client, "data": measured.sha256, "process": os.getpid(), "reason": ""}
    try:
        cleared = asking.clear(STAGE, {"data": measured}, {"out": "model"}, archive(), site.run_id)
    except Error as error:
        return RecordDict({"said": ConfigRecord({**said, "reason": _reason(error)})})
    features, labels = load(site)
    given = content.array_records["model"].to_numpy_ndarrays()
    return RecordDict(
        {
            "model": ArrayRecord(step(given, features, labels, site.learning)),
            "weight": MetricRecord({"rows": len(labels)}),
            "said": ConfigRecord({**said, "policies": list(cleared.data_policies)}),
        }
    )


def _reason(error: Error) -> str:
    """The rule that stopped, as verdicts name it, or the kind of error; never words about the data."""
    rules = [word.strip("✗ :;,.") for word in str(error).split() if word.startswith("data-policy:")]
    return ", ".join(dict.fromkeys(rules)) or type(error).__name__


# --- the server ------------------------------------------------------------------------------------------------------


def start(course: Course) -> Arrays:
    """The model before the first round: zeros."""
    import numpy as np

    return [np.zeros(course.width), np.zeros(1)]


def run(grid: Grid, course: Course, tell: Callable[[dict[str, Any]], None]) -> Arrays:
    """All rounds; each receipt goes to `tell`. Raises `Unchecked` when too few clients take part in a round."""
    model, previous = start(course), START
    for number in range(1, course.rounds + 1):
        before = digest_of(model)
        taken, refused = _ask(grid, course, number, model)
        named = {*(t["said"]["client"] for t in taken), *(r["client"] for r in refused)}
        if len(taken) < course.minimum:
            reasons = "; ".join(f"{r['client']} refused ({r['reason']})" for r in refused)
            raise Unchecked(
                f"too few clients took part in round {number}",
                got=f"{len(taken)} of {len(course.clients)}{'; ' + reasons if reasons else ''}",
                expected=f"at least {course.minimum}",
                remedy="bring more clients, ask the owners, or lower --minimum-clients",
            )
        model = _mean(taken)
        receipt: dict[str, Any] = {
            "number": number,
            "previous": previous,
            "modelBefore": before,
            "modelAfter": digest_of(model),
            "participants": sorted((_participant(t) for t in taken), key=lambda p: str(p["client"])),
            "refused": sorted(refused, key=lambda r: r["client"]),
            "dropped": [name for name in course.clients if name not in named],
        }
        previous = receipt["receipt"] = receipt_of(receipt)
        tell(receipt)
    return model


def _ask(grid: Grid, course: Course, number: int, model: Arrays) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """What those who took part sent, and who refused why."""
    from flwr.app import ArrayRecord, ConfigRecord, RecordDict

    content = RecordDict({"model": ArrayRecord(model), "round": ConfigRecord({"number": number})})
    taken: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for reply in grid.ask(content, course.patience):
        said = dict(reply.config_records["said"])
        if said["reason"]:
            refused.append({"client": said["client"], "dataSha256": said["data"], "reason": said["reason"]})
        else:
            taken.append({"said": said, "content": reply})
    named = [t["said"]["client"] for t in taken] + [r["client"] for r in refused]
    if len(set(named)) != len(named) or set(named) - set(course.clients):
        raise Unchecked("clients answered under names that are not theirs", got=", ".join(sorted(named))[:200])
    return taken, refused


def _mean(taken: list[dict[str, Any]]) -> Arrays:
    """Flower's mean, weighted by rows, over what two or more clients (or one) sent; order of names, so it repeats."""
    import numpy as np
    from flwr.app import RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    ordered = sorted(taken, key=lambda t: str(t["said"]["client"]))
    records = [RecordDict({k: t["content"][k] for k in ("model", "weight")}) for t in ordered]
    found = [np.asarray(a, np.float64) for a in aggregate_arrayrecords(records, "rows").to_numpy_ndarrays()]
    if not all(np.isfinite(a).all() for a in found):
        raise Unchecked("the clients' updates are not finite", remedy="lower --learning-rate or give --ranges")
    return found


def _participant(taken: dict[str, Any]) -> dict[str, object]:
    said, content = taken["said"], taken["content"]
    rows = int(content.metric_records["weight"]["rows"])
    return {
        "client": said["client"],
        "dataSha256": said["data"],
        "update": digest_of(content.array_records["model"].to_numpy_ndarrays()),
        **({"rows": rows} if rows >= _SMALL_CELL else {}),
        "process": said["process"],
        "dataPolicies": list(said.get("policies", [])),
    }


# --- settings on their way to another process ------------------------------------------------------------------------


def write(settings: Site | Course, path: Path) -> None:
    """Settings as JSON, readable by this user only."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(settings)), encoding="utf-8")


def read_site(document: dict[str, Any]) -> Site:
    """The site in a parsed JSON document."""
    learning = document["learning"]
    ranges = {name: (low, high) for name, (low, high) in learning["ranges"].items()}
    return Site(document["client"], document["table"], document["run_id"], Learning(**{**learning, "ranges": ranges}))


class OneProcess:
    """Plays every client here, one after the other: a simulation."""

    def __init__(self, clients: Sequence[Callable[[Any], Any]]) -> None:
        self._clients = clients

    def ask(self, content: Any, patience: float) -> Iterable[Any]:
        """Every client's answer; `patience` means nothing here."""
        del patience
        return [client(content) for client in self._clients]
