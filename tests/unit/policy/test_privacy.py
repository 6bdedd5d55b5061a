"""A policy on the privacy stages: its controls stop what must be stopped, and notice when it is weakened."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlseal.errors import PolicyInvalid
from mlseal.evidence.predicates.federated_training import START, receipt_of
from mlseal.policy import controls
from mlseal.policy.load import load

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
POLICY = yaml.safe_load(Path(__file__).with_name("privacy.yaml").read_text())
ONE, TWO = "1" * 64, "2" * 64


def federated(topology: str = "processes", *, refusing: bool = False) -> dict[str, Any]:
    """A statement whose chain holds: two clients, one round."""
    server = 100
    numbers = (101, 102) if topology == "processes" else (server, server)
    people = [
        {"client": name, "dataSha256": ONE, "update": TWO, "rows": 50, "process": number, "dataPolicies": []}
        for name, number in zip(("a", "b"), numbers, strict=True)
    ]
    left = [{"client": "b", "dataSha256": ONE, "reason": "data-policy:purpose"}] if refusing else []
    one: dict[str, Any] = {
        "number": 1,
        "previous": START,
        "modelBefore": START,
        "modelAfter": TWO,
        "participants": people[:1] if refusing else people,
        "refused": left,
        "dropped": [],
    }
    return {
        "topology": topology,
        "transport": "tls-loopback" if topology == "processes" else "none",
        "minimumClients": 1,
        "clients": [{"client": name, "dataSha256": ONE} for name in ("a", "b")],
        "serverProcess": server,
        "initialModel": START,
        "finalModel": TWO,
        "rounds": [{**one, "receipt": receipt_of(one)}],
    }


def policy(tmp_path: Path, change: tuple[str, str] | None = None) -> list[controls.Outcome]:
    """The outcomes of the policy's tests, with the statements whose chains are worked out here."""
    document = copy.deepcopy(POLICY)
    good = document["tests"][0]
    good["evidence"][2]["body"] = federated()
    for name, rule, body in (
        ("a simulation", "apart", federated("simulation")),
        ("a client refused", "nobody-refused", federated(refusing=True)),
    ):
        made = copy.deepcopy(good) | {"name": name, "expect": "refused", "rule": rule}
        made["evidence"][2]["body"] = body
        document["tests"].append(made)
    text = json.dumps(document)
    if change is not None:
        assert change[0] in text
        text = text.replace(*change)
    file = tmp_path / "privacy.yaml"
    file.write_text(text)
    loaded = load(file)
    return list(controls.run(loaded, controls.tests_of(loaded, file), now=NOW))


def test_every_control_stops_what_it_must(tmp_path: Path) -> None:
    found = policy(tmp_path)
    assert [o.name for o in found if not o.passed] == []
    assert {"too much epsilon", "for each row", "far from plain", "a simulation", "a client refused"} <= {
        o.name for o in found
    }


@pytest.mark.parametrize(
    ("old", "new", "test"),
    [
        ('decLE(p.epsilon, \\"3\\") && ', "", "too much epsilon"),
        ('p.unit == \\"household\\"', 'p.unit != \\"\\"', "for each row"),
        ("size(p.nonPrivateReleases) <= 3", "size(p.nonPrivateReleases) <= 30", "figures released too"),
        ("p.maximumError <= 0.001", "p.maximumError <= 0.1", "far from plain"),
        ('p.topology == \\"processes\\"', 'p.topology in [\\"processes\\", \\"simulation\\"]', "a simulation"),
        (" && p.rounds.all(r, size(r.refused) == 0)", "", "a client refused"),
    ],
)
def test_a_weakened_policy_fails_its_tests(tmp_path: Path, old: str, new: str, test: str) -> None:
    assert test in {o.name for o in policy(tmp_path, (old, new)) if not o.passed}


def test_a_control_cannot_imagine_evidence_that_no_reader_would_take(tmp_path: Path) -> None:
    """An epsilon below what the figures give is refused before any policy sees it, in a sample as in a bundle."""
    with pytest.raises(PolicyInvalid, match="is lower than the"):
        policy(tmp_path, ('"unit": "household"', '"unit": "household", "sampleRate": "1", "expectedBatch": "1"'))
