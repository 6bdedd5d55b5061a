"""A policy on the ingestion stages: its controls stop what must be stopped, and notice when a condition is taken out."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from mlseal.policy import controls
from mlseal.policy.load import load

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
FILE = Path(__file__).with_name("intake.yaml")
CONDITIONS = [
    (r, c) for r, wanted in enumerate(yaml.safe_load(FILE.read_text())["require"]) for c in range(len(wanted["when"]))
]


def outcomes(file):
    policy = load(file)
    return list(controls.run(policy, controls.tests_of(policy, file), now=NOW))


def test_every_control_is_stopped_and_the_good_table_passes():
    assert [(one.name, one.problem) for one in outcomes(FILE) if not one.passed] == []


@pytest.mark.parametrize(("requirement", "condition"), CONDITIONS)
def test_a_condition_that_is_gone_is_noticed(tmp_path, requirement, condition):
    document = yaml.safe_load(FILE.read_text())
    del document["require"][requirement]["when"][condition]
    weak = tmp_path / "weak.yaml"
    weak.write_text(yaml.safe_dump(document))
    assert [one.name for one in outcomes(weak) if not one.passed] != []
