"""Federated training: each client trains on its own rows; Flower moves updates, and every round leaves a receipt."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlseal import errors
from mlseal.errors import Misuse, Unchecked
from mlseal.stages import dense
from mlseal.stages.base import Context, DatasetPath, Finding, OutputModel, Settings, require, stage
from mlseal.stages.training import rounds, units
from mlseal.stages.training.federation import Federation
from mlseal.stages.training.rounds import Course, Learning, Site

_MOST = 64
"""Participations, rounds times clients, that a statement has room for."""
_POLL = 0.2
_NOT_PROVEN = (
    "privacy: every update is visible to the server, and an update of few rows can give them away",
    "that a client trained on the data whose digest it states, or trained at all",
    "that clients are different organisations: here all ran under one account of one machine",
    "that the update of no client was made to do harm",
    "that the model is good, fair or safe",
)
_SIMULATED = "that this works between processes: one process played server and clients"


@stage(
    "training.federated",
    predicate="federated-training",
    extra="privacy",
    cost="minutes: Flower starts processes for server and clients, and one for each client in each round",
    not_proven=_NOT_PROVEN,
)
def federated(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    out: OutputModel,
    outcome: str,
    features: str,
    ranges: Settings | None = None,
    topology: str = "processes",
    rounds_wanted: int = 3,
    minimum_clients: int = 2,
    local_epochs: int = 20,
    learning_rate: float = 0.5,
    round_timeout: int = 120,
    timeout: int = 1800,
    *,
    context: Context,
) -> Finding:
    """Train a logistic regression by federated averaging; each round leaves a receipt, chained to the one before.

    Flower's SuperLink and one SuperNode for each client run as processes and speak TLS over loopback.

    Args:
        dataset: a directory with one table for each client, CSV or parquet.
        out: where the model goes, a directory that MLflow and governance.fairness load without unpickling.
        outcome: column of 0 and 1 to learn.
        features: columns to learn from, separated by commas.
        ranges: FEATURE=LOW:HIGH, agreed beforehand; values are cut to it and mapped to -1 … 1.
        topology: processes, or simulation for one process that plays all of them; the evidence says which.
        rounds_wanted: how many rounds.
        minimum_clients: fewer participants in a round end the run.
        local_epochs: gradient steps of a client in a round.
        learning_rate: of those steps.
        round_timeout: seconds after which a client that has not answered has dropped out of the round; sooner where
          others answered in much less.
        timeout: seconds for everything.

    Guarantees:
        Before a client trains, in every round, it asks for the data policy of its own table's owner, by digest, and
        refuses if that does not allow this purpose, this identity, a model, or training without differential privacy;
        the receipt says so. Receipts name every client once: took part, refused or dropped. No row leaves a client's
        process. Nothing but loopback is spoken to; all processes are ended on every way out.

    Edge cases:
        A client that ends or answers late has dropped out of that round and is asked again in the next; fewer than the
        minimum stop the run, and there is no model then. Tables that cannot be used stop it before anything starts.
    """
    require("flwr", "privacy")
    if topology not in {"processes", "simulation"}:
        raise Misuse("the topology is unknown", got=topology[:40], expected="processes or simulation")
    names = units.names_of(features)
    learning = Learning(outcome, names, units.ranges_of(ranges or {}, names), local_epochs, learning_rate)
    sites = _sites(context, learning)
    course = Course([s.client for s in sites], rounds_wanted, minimum_clients, float(round_timeout), len(names))
    _require_sane(course, learning, timeout)
    clients = [{"client": s.client, "dataSha256": _measured(s)} for s in sites]
    perform = _simulated if topology == "simulation" else partial(_apart, timeout=timeout)
    done = perform(context, sites, course)
    found = _model(done, learning, out)
    fields = {
        "dataset": context.resource("dataset"),
        "outcome": outcome,
        "topology": topology,
        **done["transport"],
        "aggregation": "mean weighted by rows",
        "secureAggregation": False,
        "minimumClients": minimum_clients,
        "clients": clients,
        "serverProcess": done["process"],
        "initialModel": rounds.digest_of(rounds.start(course)),
        "finalModel": found,
        "rounds": done["receipts"],
    }
    libraries = {name: importlib.metadata.version(name) for name in ("flwr", "numpy", "pandas")}
    more = (_SIMULATED,) if topology == "simulation" else ()
    return Finding(("out",), fields, not_proven=more, libraries=libraries)


# --- before ----------------------------------------------------------------------------------------------------------


def _sites(context: Context, learning: Learning) -> list[Site]:
    """A site for each table of the data set; every table is read once, so that a bad one stops here."""
    manifest = context.measured["dataset"].manifest
    tables = [file.path for file in manifest.files if file.path.endswith((".csv", ".parquet"))] if manifest else []
    if len(tables) < 2:
        raise Misuse(
            "federated training needs a table for each client",
            got=f"{len(tables)} tables",
            expected="a directory with at least two",
        )
    copy = context.private_copy("dataset")
    sites = [Site(context.naming.of("path", name), str(copy / name), context.run_id, learning) for name in tables]
    for site in sites:
        rounds.load(site)
    return sites


def _require_sane(course: Course, learning: Learning, timeout: int) -> None:
    enough = 1 <= course.minimum <= len(course.clients) and course.rounds >= 1 and course.patience > 0 and timeout > 0
    if not (enough and learning.local_epochs >= 1 and learning.rate > 0):
        raise Misuse(
            "federated parameters are out of range",
            got=f"{course.rounds} rounds, {course.minimum} of {len(course.clients)}, {learning.local_epochs} epochs",
            expected="at least one round and epoch, a rate above 0, a minimum of 1 to all clients",
        )
    if course.rounds * len(course.clients) > _MOST:
        raise Misuse(
            "so many receipts do not fit a statement",
            got=f"{course.rounds} rounds of {len(course.clients)} clients",
            expected=f"at most {_MOST} in all",
        )


def _measured(site: Site) -> str:
    from mlseal.evidence.digest import measure

    return measure(Path(site.table)).sha256


# --- the two topologies ----------------------------------------------------------------------------------------------


def _simulated(context: Context, sites: list[Site], course: Course) -> dict[str, Any]:
    """One process plays all, and its number stands in every receipt."""
    receipts: list[dict[str, Any]] = []

    def tell(receipt: dict[str, Any]) -> None:
        receipts.append(receipt)
        context.progress(receipt["number"], course.rounds, "rounds")

    def client(site: Site, content: Any) -> Any:
        return rounds.answer(content, site, context.asking, context.archive)

    grid = rounds.OneProcess([partial(client, site) for site in sites])
    model = rounds.run(grid, course, tell)
    arrays = [array.tolist() for array in model]
    return {"process": os.getpid(), "receipts": receipts, "model": arrays, "transport": {"transport": "none"}}


def _apart(context: Context, sites: list[Site], course: Course, timeout: int) -> dict[str, Any]:
    """Server and clients as processes; what they need is handed to each in a file of its own."""
    home = context.workspace / "fed"
    place = context.workspace / "place"
    place.mkdir(mode=0o700)
    rounds.write(course, place / "course.json")
    settings = {site.client: _settings(context, site, place / f"site-{n}.json") for n, site in enumerate(sites)}
    with Federation(home) as session:
        context.on_cancel(session.stop)
        end = time.monotonic() + timeout
        session.start(settings, context.check)
        session.submit(place)
        for client, node in session.nodes.items():
            context.log(f"client {client}: SuperNode is process {node.pid}")
        done = _followed(context, session, course, place, end)
        return {**done, "transport": {"transport": "tls-loopback", "authority": session.authority}}


def _settings(context: Context, site: Site, path: Path) -> Path:
    """The client's own settings: its table, and where to ask the owner's policy as whom."""
    archive = context.archive()
    if context.asking.by is None:
        raise Unchecked("nobody says who runs this, so clients cannot ask their owners", expected="a signer")
    who = context.asking.by()
    rounds.write(site, path)
    document = {
        "site": json.loads(path.read_text(encoding="utf-8")),
        "issuer": who.issuer,
        "san": who.san,
        "purpose": context.asking.purpose,
        "trust": str(Path(archive.trust.source).absolute()),
        "store": archive.store.absolute(),
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _followed(context: Context, session: Federation, course: Course, place: Path, end: float) -> dict[str, Any]:
    """Wait for the outcome, telling each round. Raises what the server says, or `Unchecked` after the time is up."""
    told = 0
    while not (place / "outcome.json").exists():
        context.check()
        session.require_link()
        if (place / f"round-{told + 1}.json").exists():
            told += 1
            context.progress(told, course.rounds, "rounds")
        if time.monotonic() > end:
            raise Unchecked(
                "federated training was stopped",
                got=f"{told} of {course.rounds} rounds in the time given",
                remedy="raise --timeout or lower --round-timeout",
            )
        time.sleep(_POLL)
    done: dict[str, Any] = json.loads((place / "outcome.json").read_text(encoding="utf-8"))
    if "error" in done:
        said = done["error"]
        kind: Callable[..., errors.Error] = getattr(errors, said["error"], Unchecked)
        raise kind(said["message"], got=said["got"], expected=said["expected"], remedy=said["remedy"])
    return done


# --- after -----------------------------------------------------------------------------------------------------------


def _model(done: dict[str, Any], learning: Learning, out: Path) -> str:
    """Write the model that the last round made; its digest."""
    import numpy as np

    weight, bias = (np.array(array, dtype=np.float64) for array in done["model"])
    layer = dense.Layer(weight.reshape(1, -1), bias.reshape(1))
    dense.Dense(tuple(learning.features), learning.ranges, (layer,)).write(out)
    kept = dense.read(out).layers[0]
    return rounds.digest_of([kept.weight[0], kept.bias])
