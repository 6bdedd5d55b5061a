"""Evidence serves again only for the same question about the same bytes by the same identity, unrevoked."""

import pytest

from mlseal.evidence.archive import Archive
from mlseal.evidence.revoking import revoke
from mlseal.stages import runner
from tests.unit.stages.test_source import data, sign  # noqa: F401


@pytest.fixture
def run(authority, data):  # noqa: F811
    sign(authority, data)

    def go(role="evaluator", *, reuse=True, san=None):
        arguments = {"dataset": str(data), "issuer": authority.issuer, "san": san or authority.san("producer")}
        return runner.run(
            "ingestion.source", arguments, signer=authority.signer(role), store=authority.store, quiet=True, reuse=reuse
        )

    return go


def test_unchanged_input_gives_the_same_evidence_and_no_new_leaf(authority, run):
    first = run()
    size = Archive.open(authority.trust, authority.store).refresh()
    assert run() == first
    assert Archive.open(authority.trust, authority.store).refresh() == size


def test_without_the_flag_it_runs_again(run):
    assert run(reuse=False).evidence_id != run(reuse=False).evidence_id


def test_another_signer_does_not_take_it(run):
    assert run("producer").evidence_id != run("evaluator").evidence_id


def test_changed_bytes_are_not_served(authority, run, data):  # noqa: F811
    first = run()
    (data / "b").write_text("33")
    sign(authority, data)
    assert run().evidence_id != first.evidence_id


def test_revoked_evidence_is_not_served(authority, run):
    first = run()
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    revoke(archive, authority.signer("evaluator"), first.evidence_id, reason="withdrawn")
    assert run().evidence_id != first.evidence_id


def test_evidence_whose_bundle_vanished_stops(authority, run):
    from mlseal.errors import Withheld

    first = run()
    assert run() == first  # now the index knows it
    authority.store.path(first.evidence_id).unlink()
    with pytest.raises(Withheld):
        run()


def test_bundle_is_written_where_asked(authority, run, data, tmp_path):  # noqa: F811
    first = run()
    arguments = {"dataset": str(data), "issuer": authority.issuer, "san": authority.san("producer")}
    again = runner.run(
        "ingestion.source",
        arguments,
        signer=authority.signer("evaluator"),
        store=authority.store,
        quiet=True,
        reuse=True,
        out=tmp_path / "b.json",
    )
    assert (tmp_path / "b.json").read_bytes() == again.raw == first.raw
