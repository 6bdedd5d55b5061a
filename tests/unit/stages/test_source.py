"""Source verification against a real trust service: only the named identity's living evidence counts."""

import secrets

import pytest

from mlseal.errors import DigestMismatch, Misuse, NoEvidence, Refusal, Revoked, Unchecked, UntrustedSigner, Withheld
from mlseal.evidence import oms, statement
from mlseal.evidence.archive import Archive, revocation_subject
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance, revocation
from mlseal.stages import runner

CLAIM = {
    "path": "data",
    "dvc": {"oid": "0" * 32, "hash": "md5", "version": "3"},
    "git": {"dirty": False},
    "origin": "added",
    "files": 2,
    "size": 4,
    "lineage": [],
    "notProven": ["truth"],
}


@pytest.fixture
def data(tmp_path):
    """A data set that no other test has: the log of a module is shared."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "a").write_text(str(tmp_path))
    (directory / "b").write_text("22")
    return directory


@pytest.fixture
def verify(authority, perform):
    def go(data, role="producer", **arguments):
        return perform(
            "ingestion.source",
            archive=lambda: Archive.open(authority.trust, authority.store),
            dataset=data,
            issuer=authority.issuer,
            san=authority.san(role),
            **arguments,
        )

    return go


def sign(authority, subject, role="producer", claim=None, uri=data_provenance.URI):
    subjects = subject if isinstance(subject, list) else measure(subject).subjects
    # Equal statements are one piece of evidence with one log entry, whoever signs second; so each signer's differs.
    own = {**(claim or CLAIM), **({"remote": role} if uri == data_provenance.URI else {})}
    return authority.signer(role).sign(statement.make(subjects, uri, own))


def revoke(authority, bundle, reason="withdrawn", role="producer"):
    claim = {"evidenceId": bundle.evidence_id, "reason": reason, "nonce": secrets.token_hex(16)}
    return sign(authority, [revocation_subject(bundle.evidence_id)], role, claim, revocation.URI)


def test_verified_provenance_is_named_with_its_signer(authority, verify, data):
    bundle = sign(authority, data)
    made = verify(data)
    said = made.predicate
    assert made.subjects == measure(data).subjects
    assert said["source"]["evidenceId"] == bundle.evidence_id
    assert (said["source"]["issuer"], said["source"]["san"]) == (authority.issuer, authority.san("producer"))
    assert said["assurance"]["identity"] == "local" and said["assurance"]["log"] in {"unwitnessed", "pinned"}
    assert (said["files"], said["size"]) == (2, sum(f.stat().st_size for f in data.iterdir()))
    assert str(data).encode() not in made.payload


def test_no_evidence_says_how_to_make_it(verify, data):
    with pytest.raises(NoEvidence, match="mlseal dvc push"):
        verify(data)


def test_an_oms_signature_counts_file_by_file(authority, verify, data):
    signed = authority.signer("producer").sign(oms.make(measure(data)))
    assert verify(data, predicate="oms-signature").predicate["source"]["evidenceId"] == signed.evidence_id
    (data / "b").rename(data / "c")  # the root that was signed binds no names
    with pytest.raises(DigestMismatch, match="files differ from the OMS signature"):
        verify(data, predicate="oms-signature")


def test_a_file_of_digests_is_not_the_directory_that_was_signed(authority, verify, data, tmp_path):
    """The root of a directory is the SHA-256 of its digests, so a file that holds them has the same one."""
    measured = measure(data)
    authority.signer("producer").sign(oms.make(measured))
    forged = tmp_path / "forged.bin"
    forged.write_bytes(b"".join(bytes.fromhex(entry.sha256) for entry in measured.manifest.in_oms_order))
    assert measure(forged).sha256 == measured.manifest.oms_root
    with pytest.raises(DigestMismatch, match="covers a directory"):
        verify(forged, predicate="oms-signature")


def test_no_oms_signature_says_how_to_make_it(verify, data):
    with pytest.raises(NoEvidence, match="mlseal sign PATH --type oms-signature"):
        verify(data, predicate="oms-signature")


def test_another_byte_is_another_data_set(authority, verify, data):
    sign(authority, data)
    (data / "b").write_text("23")
    with pytest.raises(NoEvidence):
        verify(data)


def test_a_renamed_file_is_another_data_set(authority, verify, data):
    sign(authority, data)
    (data / "b").rename(data / "c")
    with pytest.raises(NoEvidence):
        verify(data)


def test_evidence_of_others_does_not_count(authority, verify, data):
    sign(authority, data, "evaluator")
    with pytest.raises(UntrustedSigner, match="none that counts"):
        verify(data)
    sign(authority, data)
    assert verify(data).predicate["source"]["san"] == authority.san("producer")


def test_withdrawn_evidence_refuses_though_an_older_one_exists(authority, verify, data):
    sign(authority, data)
    newer = sign(authority, data, claim={**CLAIM, "origin": "imported"})
    assert verify(data).predicate["source"]["evidenceId"] == newer.evidence_id
    revoke(authority, newer, role="gate")
    assert verify(data).predicate["source"]["evidenceId"] == newer.evidence_id, "anyone can sign a revocation"
    revoke(authority, newer)
    with pytest.raises(Revoked, match="withdrawn"):
        verify(data)


def test_listed_revokers_count_and_superseded_evidence_is_passed_over(authority, verify, data):
    older = sign(authority, data)
    newer = sign(authority, data, claim={**CLAIM, "origin": "imported"})
    revoke(authority, newer, "superseded", "gate")
    revokers = f'{{"{authority.san("gate")}": "{authority.issuer}"}}'
    assert verify(data, revokers=revokers).predicate["source"]["evidenceId"] == older.evidence_id
    revoke(authority, older, "superseded", "gate")
    with pytest.raises(UntrustedSigner, match="not superseded"):
        verify(data, revokers=revokers)


def test_an_identity_must_be_named(verify, data, perform):
    for given in ({"issuer": "", "san": "x"}, {"issuer": "x", "san": ""}):
        with pytest.raises(Misuse, match="not named"):
            perform("ingestion.source", dataset=data, **given)
    with pytest.raises(Misuse, match="not named"):
        perform("ingestion.source", dataset=data, issuer="x")
    with pytest.raises(Misuse, match="unknown predicate type"):
        verify(data, predicate="nonsense")


@pytest.mark.parametrize("what", ["newer evidence", "revocation"])
@pytest.mark.parametrize("seen", [True, False])
def test_what_is_withheld_stops_instead_of_letting_an_older_one_pass(authority, verify, data, what, seen):
    older = sign(authority, data)
    newer = (
        sign(authority, data, claim={**CLAIM, "origin": "imported"})
        if what == "newer evidence"
        else revoke(authority, older)
    )
    if seen and what == "newer evidence":
        assert verify(data)
    path = authority.store.path(newer.evidence_id)
    original = path.read_bytes()
    try:
        path.unlink()
        with pytest.raises(Withheld):
            verify(data)
        path.write_bytes(original[: len(original) // 2])
        with pytest.raises((Refusal, Unchecked)):
            verify(data)
    finally:
        path.write_bytes(original)


def test_what_a_revoker_said_is_not_accounted_for_by_whom_it_concerns(authority, verify, data):
    bundle = sign(authority, data)
    hidden = revoke(authority, bundle, role="monitor")
    revoke(authority, hidden)
    path = authority.store.path(hidden.evidence_id)
    original = path.read_bytes()
    revokers = f'{{"{authority.san("monitor")}": "{authority.issuer}"}}'
    path.unlink()
    try:
        with pytest.raises(Withheld, match="nobody shows"):
            verify(data, revokers=revokers)
    finally:
        path.write_bytes(original)
    with pytest.raises(Revoked):
        verify(data, revokers=revokers)


def test_fairness_loads_a_model_only_with_its_producers_provenance(authority, people, model, program, tmp_path):
    built = tmp_path / "trained"
    source = model(["signal"], "prepared")
    script = program(f"import shutil, sys; shutil.copytree({str(source)!r}, sys.argv[4])")
    told = {
        "dataset": str(people()),
        "table": "test.parquet",
        "outcome": "need",
        "attribute": "group",
        "select": "top:0.4",
        "producer_issuer": authority.issuer,
        "producer_san": authority.san("producer"),
    }

    def measured(path):
        return runner.run(
            "governance.fairness",
            {"model": str(path), **told},
            signer=authority.signer("evaluator"),
            store=authority.store,
            quiet=True,
        )

    with pytest.raises(NoEvidence, match="training.run"):
        measured(source)
    trained = runner.run(
        "training.run",
        {"script": str(script), "data": told["dataset"], "out": str(built)},
        signer=authority.signer("producer"),
        store=authority.store,
        quiet=True,
    )
    said = measured(built).statement.predicate
    assert said["modelProvenance"] == trained.evidence_id
    assert not any("provenance was verified" in text for text in said["notProven"])
