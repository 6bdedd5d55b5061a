"""The table of ways past the MLflow gate is whole, and each that a registry store cannot close is named to readers."""

from __future__ import annotations

from pathlib import Path

from tests.adapters.mlflow import ways

ROOT = Path(__file__).parents[2]


def test_the_table_has_every_row_once():
    assert [way.row for way in ways.WAYS] == list(range(1, 18))


def test_what_the_store_cannot_close_is_named_in_the_threat_model():
    text = " ".join((ROOT / "docs" / "threat-model.md").read_text().split())
    for way in ways.WAYS:
        assert (way.ends == ways.CLOSED) == (way.named == ""), way.name
        assert way.named in text, f"row {way.row} is not closed, and the threat model does not say: {way.named}"
