"""Evidence serves again only for the same question about the same bytes by the same identity, unrevoked."""

from pathlib import Path

import pytest

from mlseal.errors import Withheld
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.evidence.revoking import revoke
from mlseal.stages import runner
from mlseal.stages.kept import Kept
from tests.unit.stages.test_source import data as signed_data  # noqa: F401 - a fixture
from tests.unit.stages.test_source import sign

PROGRAM = """
import argparse, pathlib, secrets
parser = argparse.ArgumentParser()
for flag in ("--data", "--out", "--param"):
    parser.add_argument(flag)
options = parser.parse_args()
out = pathlib.Path(options.out)
(out / "deep").mkdir(parents=True)
(out / "deep" / "weights").write_text(secrets.token_hex(8))  # never the same twice: training again would be seen
"""


@pytest.fixture
def data(tmp_path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "a").write_text("1")
    return directory


@pytest.fixture
def train(authority, data, program, tmp_path):
    script = program(PROGRAM)
    runs = iter(range(99))

    def go(role="producer", *, reuse=True, epochs="3", out=None):
        model = tmp_path / f"model-{next(runs)}"
        arguments = {
            "script": str(script),
            "data": str(data),
            "out": str(model),
            "parameters": f'{{"epochs": "{epochs}"}}',
        }
        bundle = runner.run(
            "training.run",
            arguments,
            signer=authority.signer(role),
            store=authority.store,
            quiet=True,
            reuse=reuse,
            out=out,
        )
        assert measure(model).sha256 == bundle.statement.subjects[-1].sha256, "the evidence is about these bytes"
        return bundle

    return go


def opened(authority) -> Archive:
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    return archive


def test_nothing_changed_gives_the_same_evidence_and_model_and_no_new_leaf(authority, train):
    first = train()
    size = opened(authority).tree_size
    assert train() == first
    assert opened(authority).tree_size == size


def test_without_the_flag_it_runs_again(train):
    assert len({train(reuse=reuse).evidence_id for reuse in (True, False, False)}) == 3


def test_another_signer_does_not_take_it(train):
    assert train("producer").evidence_id != train("evaluator").evidence_id


def test_changed_bytes_and_other_settings_are_not_served(train, data):
    first = train()
    assert train(epochs="4").evidence_id != first.evidence_id
    (data / "a").write_text("2")
    assert train().evidence_id != first.evidence_id


def test_another_environment_is_not_served(train, monkeypatch):
    from mlseal.stages.training import run

    first = train()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_packages", lambda: {"scikit-learn": "0.1"})
        assert train().evidence_id != first.evidence_id
    assert train() == first


@pytest.mark.parametrize("reason", ["withdrawn", "superseded"])
def test_revoked_evidence_is_not_served(authority, train, reason):
    older = train()
    newest = train(reuse=False)  # it ran without the flag, so its model was not kept
    revoke(opened(authority), authority.signer("producer"), newest.evidence_id, reason=reason)
    again = train()
    # A superseded result gives way to another one; behind a withdrawn one nothing steps in.
    assert (again == older) == (reason == "superseded")
    assert again.evidence_id != newest.evidence_id


def test_what_a_monitor_took_back_is_not_served(authority, train):
    first = train()
    revoke(opened(authority), authority.signer("evaluator"), first.evidence_id, reason="withdrawn")
    assert train() == first, "anyone can sign a revocation"
    revoke(opened(authority), authority.signer("monitor"), first.evidence_id, reason="withdrawn")
    assert train() != first


@pytest.mark.parametrize("role", ["producer", "monitor"])
def test_nothing_serves_while_a_revocation_may_be_withheld(authority, train, role):
    first = train()
    taken = revoke(opened(authority), authority.signer(role), first.evidence_id, reason="superseded")
    path = authority.store.path(taken.evidence_id)
    hidden = path.rename(path.with_suffix(".hidden"))
    for file in authority.trust.state_directory().glob("index-*"):
        file.unlink()  # or the index would say that it was shown once
    assert train() != first
    hidden.rename(path)


def test_what_was_made_is_made_anew_when_its_evidence_vanished(authority, train):
    first = train()
    assert train() == first  # now the index knows it
    path = authority.store.path(first.evidence_id)
    hidden = path.rename(path.with_suffix(".hidden"))
    second = train()
    assert second != first
    assert train() == second
    hidden.rename(path)  # the log is the module's: what vanished may be a withdrawal to whoever indexes it anew


def test_bundle_is_written_where_asked(train, tmp_path):
    first = train()
    again = train(out=tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == again.raw == first.raw


# --- the kept copy is worth its bytes ---------------------------------------------------------------------------------


def kept_of(authority, bundle) -> Path:
    return Kept(authority.store).path(bundle.statement.subjects[-1].sha256)


def spoil(kept: Path) -> None:
    (kept / "deep" / "weights").write_text("hostile")


def rename(kept: Path) -> None:
    (kept / "deep" / "weights").rename(kept / "deep" / "other")


def link(kept: Path) -> None:
    target = kept.parent / "elsewhere"
    (kept / "deep" / "weights").rename(target)
    (kept / "deep" / "weights").symlink_to(target)


def lose(kept: Path) -> None:
    kept.rename(kept.with_name("gone"))


@pytest.mark.parametrize("attack", [spoil, rename, link, lose])
def test_a_copy_that_lost_its_digest_is_made_anew(authority, train, attack):
    first = train()
    attack(kept_of(authority, first))
    second = train()
    assert second.evidence_id != first.evidence_id
    assert train() == second, "and the new one serves"


def test_what_the_digest_does_not_cover_is_not_handed_on(authority, train, tmp_path):
    first = train()
    smuggled = kept_of(authority, first) / "attestations"
    smuggled.mkdir()
    (smuggled / "payload").write_text("not part of the digest")
    assert train() == first
    assert not list(tmp_path.glob("model-*/attestations"))


def test_an_output_that_cannot_be_kept_is_still_published(authority, train, tmp_path):
    folder = authority.store.root / "outputs"
    if folder.exists():
        folder.rename(tmp_path / "outputs")
    folder.write_text("in the way")
    try:
        assert train().evidence_id != train().evidence_id
    finally:
        folder.unlink()


# --- stages that make nothing -----------------------------------------------------------------------------------------


def test_a_measurement_serves_again_until_its_evidence_vanishes(authority, people, model):
    arguments = {
        "model": str(model(["signal"])),
        "dataset": str(people()),
        "table": "test.parquet",
        "outcome": "need",
        "attribute": "group",
        "select": "column:fair",
    }

    def go(**changes: str):
        signer = authority.signer("evaluator")
        given = arguments | changes
        return runner.run("governance.fairness", given, signer=signer, store=authority.store, quiet=True, reuse=True)

    first = go()
    assert go() == first
    assert go(seed="1") != first
    path = authority.store.path(first.evidence_id)
    hidden = path.rename(path.with_suffix(".hidden"))
    with pytest.raises(Withheld):
        go()
    hidden.rename(path)


# --- what never serves ------------------------------------------------------------------------------------------------


def test_verifying_a_source_is_done_every_time(authority, signed_data):  # noqa: F811
    sign(authority, signed_data)

    def verify():
        arguments = {"dataset": str(signed_data), "issuer": authority.issuer, "san": authority.san("producer")}
        signer = authority.signer("evaluator")
        return runner.run("ingestion.source", arguments, signer=signer, store=authority.store, quiet=True, reuse=True)

    assert verify().evidence_id != verify().evidence_id
