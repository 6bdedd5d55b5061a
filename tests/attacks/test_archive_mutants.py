"""Take each refusal out of the archive, of revoking and of the rules for snapshots once: a test of theirs must notice."""

from __future__ import annotations

from typing import Any

import pytest

from mlseal.evidence import archive, revoking, snapshots
from tests.attacks.mutants import mutant, names
from tests.unit.evidence import test_archive, test_snapshots

Row = tuple[Any, dict[str, Any]]


def _sizes(number: int) -> Row:
    rows = next(m for m in test_snapshots.test_sizes_that_cannot_be_true_do_not_count_as_fresh.pytestmark).args
    return test_snapshots.test_sizes_that_cannot_be_true_do_not_count_as_fresh, dict(
        zip(rows[0], rows[1][number], strict=True)
    )


# Refusal by function and message: the test that notices, and what it is given beside an authority of its own.
NOTICED: dict[Any, dict[str, Row]] = {
    archive: {
        "refresh: log … cannot be read": (test_archive.test_missing_log_is_unchecked, {}),
        "elsewhere: the store … does not exist": (
            test_archive.test_another_store_than_the_logs_is_known_by_what_it_shows,
            {},
        ),
        "elsewhere: the store … holds none of the … entries of the log": (
            test_archive.test_another_store_than_the_logs_is_known_by_what_it_shows,
            {},
        ),
        "require_shown: nobody shows entry … of …, by somebody who may revoke": (
            test_archive.test_what_a_revoker_signed_must_be_shown,
            {},
        ),
        "_had: ": (test_archive.test_bundle_replaced_after_it_was_indexed_stops, {}),
        "_had: the log holds evidence …… that the store no longer shows": (
            test_archive.test_bundle_deleted_after_it_was_indexed_is_withheld,
            {},
        ),
    },
    revoking: {
        "revoke: the log holds no evidence ……": (test_archive.test_revoking_unknown_evidence_is_refused, {}),
    },
    snapshots: {
        "flaw_of: it names the log …, which is not one of the trust root": _sizes(0),
        "flaw_of: it names a log twice": _sizes(5),
        "flaw_of: it claims … entries of …, of which it can have seen …": _sizes(2),
        "_missed: it leaves out entry … of …, signed on …": (
            test_snapshots.test_snapshot_of_an_old_view_does_not_count_once_what_it_left_out_is_older,
            {"form": "logs"},
        ),
    },
}
ROWS = [(module, where) for module, rows in NOTICED.items() for where in rows]


@pytest.mark.parametrize("module", NOTICED, ids=lambda module: module.__name__)
def test_every_refusal_is_in_the_table(module: Any) -> None:
    assert sorted(names(module, told=True)) == sorted(NOTICED[module])


@pytest.mark.parametrize(("module", "where"), ROWS, ids=[where for _, where in ROWS])
def test_taking_a_refusal_out_is_noticed(
    module: Any, where: str, new_authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, given = NOTICED[module][where]
    without = mutant(module, where, told=True)
    for name, value in vars(without).items():  # the tests took what they need by name
        for tests in (test_archive, test_snapshots):
            if getattr(tests, name, None) is getattr(module, name) and not name.startswith("__"):
                monkeypatch.setattr(tests, name, value)
    if module is snapshots:
        monkeypatch.setattr(archive, "snapshots", without)
        monkeypatch.setattr(test_snapshots, "snapshots", without)
    offered = {"alone": new_authority(), "monkeypatch": monkeypatch, **given}
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    with pytest.raises(BaseException):  # noqa: B017, PT011 - an assertion of the test, or what the mutant stumbles over
        test(**{name: offered[name] for name in wanted})


@pytest.mark.parametrize(("test", "given"), [row for rows in NOTICED.values() for row in rows.values()])
def test_without_a_change_nothing_is_noticed(
    test: Any, given: dict[str, Any], new_authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same way, from here."""
    offered = {"alone": new_authority(), "monkeypatch": monkeypatch, **given}
    test(**{name: offered[name] for name in test.__code__.co_varnames[: test.__code__.co_argcount]})
