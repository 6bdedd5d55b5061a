"""The identity map is a cache of the log: losing it, or finding another log's in its place, changes no answer."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from mlseal.errors import MalformedEvidence, Unchecked
from mlseal.tlog.log import TileLog


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"not a database, whatever its name says" * 200),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)),
    ],
)
def test_a_lost_or_damaged_map_is_built_again(open_log, add, audit, directory, damage):
    log = open_log()
    results = add(log, 500, each=100)
    log.settle()
    open_log.close()
    damage(directory / "identities.sqlite")
    log = open_log()
    again = []
    for _ in range(2):  # damage may only be noticed when it is met; then one append fails and the next finds a new map
        try:
            again = add(log, 500, each=100)
        except Unchecked:
            continue
        break
    assert [result.index for result in again] == list(range(500))
    assert audit(results + again) == 500


def test_a_map_of_another_log_is_not_used(open_log, add, audit, directory, tmp_path, key, identity):
    other = TileLog(tmp_path / "other", "other.example", key, identity)
    add(other, 300, 1000)
    other.settle()
    other.close()
    results = add(open_log(), 400)
    open_log.close()
    shutil.copy(tmp_path / "other/identities.sqlite", directory / "identities.sqlite")
    log = open_log()
    assert not add(log, 1, 1000)[0].duplicate
    assert all(result.duplicate for result in add(log, 400))
    assert audit(results) == 401


def test_a_map_that_lies_about_an_index_is_built_again(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 50)
    log.settle()
    open_log.close()
    database = sqlite3.connect(directory / "identities.sqlite")
    database.execute("UPDATE seen SET position = (position + 1) % 60")
    database.commit()
    database.close()
    again = add(open_log(), 50)
    assert [result.index for result in again] == list(range(50))
    assert audit(results + again) == 50


def test_a_map_that_covers_part_of_the_log_is_caught_up_from_there(
    open_log, add, tmp_path, directory, origin, key, identity
):
    log = open_log()
    add(log, 300)
    log.settle()
    add(log, 300, 300)
    open_log.close()
    asked = []

    def counting(body):
        asked.append(body)
        return identity(body)

    log = TileLog(directory, origin, key, counting)
    assert len(asked) == 300
    assert all(result.duplicate for result in add(log, 600))
    log.close()


def test_entries_without_identity_are_refused_when_the_map_is_built(open_log, add, directory, origin, key):
    add(open_log(), 3)
    open_log.close()

    def none(body):
        raise ValueError("no identity here")

    with pytest.raises(MalformedEvidence, match="carries no identity"):
        TileLog(directory, origin, key, none)
