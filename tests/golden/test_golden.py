"""Evidence of every past version still verifies, byte for byte as it was written; these files are never changed.

``v0.1`` is the history that the main job left, with its log, when the format was new; ``v0.1-keys`` the first that keys
signed. A new version adds a directory.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlseal.evidence import trust
from mlseal.evidence.audit import audit, directory_tiles
from mlseal.evidence.store import Store

HERE = Path(__file__).parent
THEN = {"v0.1": (datetime(2026, 11, 24, tzinfo=UTC), 18), "v0.1-keys": (datetime(2026, 11, 29, tzinfo=UTC), 3)}


@pytest.mark.parametrize("version", sorted(p.name for p in HERE.iterdir() if p.is_dir() and p.name.startswith("v")))
def test_old_history_passes_the_audit(version, home):
    when, entries = THEN[version]
    root = trust.load(HERE / version / "trusted_root.json")
    store = Store(HERE / version / "evidence")
    report = audit(root, store, directory_tiles(root, HERE / version / "log"), clock=lambda: when)
    assert report.passed, [str(f.error) for f in report.findings]
    assert len(report.verified) == report.tree_size == entries


def test_every_kind_of_evidence_that_the_job_makes_is_among_them():
    store = Store(HERE / "v0.1" / "evidence")
    kinds = {store.get(i).statement.predicate_type.split("/")[-2] for i in store.ids()}
    assert kinds >= {
        "data-provenance",
        "source-verification",
        "provenance",
        "fairness",
        "verification_summary",
        "human-approval",
        "revocation",
        "revocation-snapshot",
    }


def test_keys_signed_two_of_three_in_the_second_history(home):
    when, _ = THEN["v0.1-keys"]
    root = trust.load(HERE / "v0.1-keys" / "trusted_root.json")
    store = Store(HERE / "v0.1-keys" / "evidence")
    report = audit(root, store, directory_tiles(root, HERE / "v0.1-keys" / "log"), clock=lambda: when)
    assert sorted(verified.assurance.identity for verified in report.verified) == ["key", "key", "local"]
