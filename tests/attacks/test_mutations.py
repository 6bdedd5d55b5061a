"""Every row of the mutation table is refused, the unchanged bundle is accepted, and the claims about stock are true."""

import json
import time
from datetime import timedelta

import pytest

from mlseal.errors import Error, ForgedEvidence, SplitView, Unchecked
from mlseal.evidence import statement
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.tiles import service_tiles
from mlseal.evidence.verifying import Verifier
from mlseal.services import state
from mlseal.tlog import checkpoint
from tests.attacks.mutated import ROWS, Forge, mutate, raw_mutations
from tests.stock import Rejected, sigstore_js_many, sigstore_python

SUBJECT = Subject("model", "ab" * 32)


def signed(authority, role="producer", **claim):
    made = statement.make(
        [SUBJECT],
        "test-result" and "https://in-toto.io/attestation/test-result/v0.1",
        {
            "result": "PASSED",
            "configuration": [],
            "url": f"urn:{time.time_ns()}",
            **claim,
        },
    )
    return authority.signer(role).sign(made)


@pytest.fixture
def forge(authority):
    filler, good, other = (signed(authority, role) for role in ("monitor", "producer", "evaluator"))
    del filler  # so that no attacked entry is leaf 0, where a private tree would look like the log's beginning
    loaded = state.load(authority.state)
    keys = loaded.keys()
    return Forge(good, other, keys.log, loaded.statement_origin(), (keys.tsa, keys.tsa_chain[0]))


@pytest.fixture
def verifier(authority, tmp_path):
    return Verifier(
        authority.trust, tiles=dict(service_tiles(authority.trust)), checkpoints=PinnedCheckpoints(tmp_path / "pins")
    )


def verify(authority, verifier, bundle, **changes):
    return verifier.verify(
        bundle,
        **{
            "predicate_type": "test-result",
            "identities": [Identity(authority.issuer, authority.san("producer"))],
            "subjects": [SUBJECT.sha256],
            "revocations": NOTHING_REVOCABLE,
            **changes,
        },
    )


def test_unchanged_bundle_is_accepted(authority, verifier, forge):
    verify(authority, verifier, forge.good)
    again = verify(authority, verifier, forge.good)
    assert again.identity.san == authority.san("producer")
    assert (again.assurance.identity, again.assurance.log, again.assurance.time) == ("local", "pinned", "local")


def test_first_contact_is_not_called_pinned(authority, verifier, forge):
    assert verify(authority, verifier, forge.good).assurance.log == "unwitnessed"
    assert verify(authority, verifier, forge.good).assurance.log == "pinned"


@pytest.mark.parametrize("row", sorted(ROWS))
def test_mutation_is_refused(authority, verifier, forge, row):
    verify(authority, verifier, signed(authority))  # the pin: this verifier has seen the log before
    with pytest.raises(Error) as caught:
        verify(authority, verifier, mutate(forge, row))
    assert caught.value.exit_code in (10, 11)


@pytest.mark.parametrize("row", sorted(row for row, (_, python, _) in ROWS.items() if python is not None))
def test_what_the_table_says_of_the_stock_verifier(authority, forge, row):
    attempt = lambda: sigstore_python(
        mutate(forge, row).raw, authority.trusted_root, authority.san("producer"), authority.issuer
    )
    if ROWS[row][1]:
        attempt()
    else:
        with pytest.raises(Rejected):
            attempt()


def test_what_the_table_says_of_the_stock_verifier_for_node(authority, forge):
    rows = sorted(ROWS)
    asked = [(mutate(forge, row).raw, authority.san("producer"), authority.issuer) for row in rows]
    outcomes = sigstore_js_many(asked, authority.trusted_root)
    accepted = {row: not isinstance(outcome, Rejected) for row, outcome in zip(rows, outcomes, strict=True)}
    assert accepted == {row: ROWS[row][2] for row in rows}


def test_certificate_that_had_expired_at_the_timestamp_is_refused_once_that_time_has_come(authority, tmp_path, forge):
    """Not because the time lies in the future, as in the table: because the certificate had ended by then."""
    later = forge.certificate().not_valid_after_utc + timedelta(minutes=2)
    verifier = Verifier(
        authority.trust,
        tiles=dict(service_tiles(authority.trust)),
        checkpoints=PinnedCheckpoints(tmp_path / "later"),
        clock=lambda: later,
    )
    verify(authority, verifier, forge.good)
    with pytest.raises(ForgedEvidence, match="stock verification refused"):
        verify(authority, verifier, mutate(forge, "M35-certificate-expired-at-timestamp"))
    inside = forge.certificate().not_valid_after_utc - timedelta(minutes=1)
    stamped = forge.stamped(json.loads(forge.good.raw), inside)
    assert verify(authority, verifier, Bundle(json.dumps(stamped).encode())).time == inside


def test_stock_verifiers_accept_the_unchanged_bundle_and_notice_an_edit(authority, forge):
    good = (forge.good.raw, authority.san("producer"), authority.issuer)
    edited = (mutate(forge, "M01-payload-edited").raw, authority.san("producer"), authority.issuer)
    accepted, refused = sigstore_js_many([good, edited], authority.trusted_root)
    assert accepted.san == authority.san("producer")
    assert isinstance(refused, Rejected)
    assert sigstore_python(*good[:1], authority.trusted_root, *good[1:]).payload == forge.good.statement.payload


@pytest.mark.parametrize(
    "name",
    [
        "R1-duplicate-key",
        "R2-cut-short",
        "R3-empty",
        "R4-not-utf8",
        "R5-trailing-garbage",
        "R6-nan",
        "R7-list",
        "R8-deep",
    ],
)
def test_bytes_that_are_not_strictly_a_bundle_are_refused(authority, verifier, forge, name):
    raw = raw_mutations(forge.good)[name]
    assert raw != forge.good.raw
    with pytest.raises(Error):
        verify(authority, verifier, Bundle(raw))


def test_re_encoding_keeps_the_evidence_and_changes_only_the_file(authority, verifier, forge):
    again = Bundle(json.dumps(forge.good.document, indent=2).encode())
    assert again.evidence_id == forge.good.evidence_id
    assert again.sha256 != forge.good.sha256
    verify(authority, verifier, again)


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": ["cd" * 32]},
        {"subjects": []},
        {"subjects": [SUBJECT.sha256, "cd" * 32]},
        {"predicate_type": "fairness"},
        {"predicate_type": []},
        {"identities": []},
        {"identities": [Identity("https://demo.mlseal.local/issuer", "https://demo.mlseal.local/roles/evaluator")]},
        {"identities": [Identity("https://evil.example/issuer", "https://demo.mlseal.local/roles/producer")]},
        {"identities": [Identity("https://demo.mlseal.local/issuer", "https://demo.mlseal.local/roles/produce")]},
        {"identities": [Identity("https://demo.mlseal.local/issuer", ".*")]},
    ],
)
def test_right_signature_about_the_wrong_thing_is_refused(authority, verifier, forge, changes):
    with pytest.raises(Error):
        verify(authority, verifier, forge.good, **changes)


def test_predicate_must_obey_its_schema(authority, verifier):
    made = statement.make([SUBJECT], "https://mlseal.dev/revocation/v0.1", {"evidenceId": "00", "reason": "withdrawn"})
    with pytest.raises(Error, match="schema"):
        authority.signer("producer").sign(made)


def test_cosignature_lines_do_not_disturb(authority, verifier, forge):
    document = json.loads(forge.good.raw)
    proof = document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["checkpoint"]["envelope"] += "\u2014 witness.example " + "AAAAAAAA" + "A" * 88 + "\n"
    verify(authority, verifier, Bundle(json.dumps(document).encode()))


def test_split_view_is_named_and_nothing_is_forgotten(authority, verifier, forge):
    verify(authority, verifier, signed(authority))
    log = authority.trust.logs[0]
    before = verifier.checkpoints.pinned(log)
    with pytest.raises(SplitView):
        verify(authority, verifier, mutate(forge, "M19-split-view"))
    assert verifier.checkpoints.pinned(log) == before


def test_two_trees_of_one_size(authority, verifier, forge):
    log = authority.trust.logs[0]
    verify(authority, verifier, signed(authority))
    known = verifier.checkpoints.pinned(log)
    fork = checkpoint.sign(forge.log_key, checkpoint.Checkpoint(log.origin, known.size, b"\7" * 32))
    with pytest.raises(SplitView, match="two trees"):
        verifier.checkpoints.require_consistent(log, fork, service_tiles(authority.trust)[log.origin])


def test_consistency_without_tiles_is_unchecked_not_allowed(authority, tmp_path, forge):
    blind = Verifier(authority.trust, tiles={}, checkpoints=PinnedCheckpoints(tmp_path / "blind"))
    verify(authority, blind, forge.good)
    with pytest.raises(Unchecked, match="tiles"):
        verify(authority, blind, signed(authority))


def test_lying_tiles_do_not_help_a_split_view(authority, tmp_path, forge):
    class Liar:
        def read(self, path):
            return b"\7" * 32 * 256 if "tile/" in path else b""

    fooled = Verifier(authority.trust, tiles={forge.origin: Liar()}, checkpoints=PinnedCheckpoints(tmp_path / "fooled"))
    verify(authority, fooled, forge.good)
    with pytest.raises(Error):
        verify(authority, fooled, signed(authority))


def test_evidence_from_the_future_is_refused(authority, tmp_path, forge):
    from mlseal.evidence.clock import utcnow

    early = Verifier(
        authority.trust,
        tiles=dict(service_tiles(authority.trust)),
        checkpoints=PinnedCheckpoints(tmp_path / "early"),
        clock=lambda: utcnow() - timedelta(hours=1),
    )
    with pytest.raises(Error, match="future"):
        verify(authority, early, forge.good)


def test_expired_trust_root_verifies_nothing(authority, tmp_path, forge):
    from mlseal.errors import StaleEvidence
    from mlseal.evidence.clock import utcnow

    late = Verifier(
        authority.trust,
        tiles=dict(service_tiles(authority.trust)),
        checkpoints=PinnedCheckpoints(tmp_path / "late"),
        clock=lambda: utcnow() + timedelta(days=4000),
    )
    with pytest.raises(StaleEvidence, match="expired"):
        verify(authority, late, forge.good)


def test_what_is_remembered_of_a_bundle_does_not_outlive_revocation_root_or_question(authority, tmp_path, forge):
    from mlseal.evidence.clock import utcnow
    from mlseal.evidence.revocation import Revocation, Revocations

    now = [utcnow()]
    verifier = Verifier(
        authority.trust,
        tiles=dict(service_tiles(authority.trust)),
        checkpoints=PinnedCheckpoints(tmp_path / "memo"),
        clock=lambda: now[0],
    )
    verify(authority, verifier, forge.good)
    revoked = Revocations({forge.good.evidence_id: Revocation(forge.good.evidence_id, "withdrawn", "x")})
    for changes in (
        {"revocations": revoked},
        {"subjects": ["cd" * 32]},
        {"identities": []},
        {"predicate_type": "fairness"},
    ):
        with pytest.raises(Error):
            verify(authority, verifier, forge.good, **changes)
    now[0] += timedelta(days=4000)
    with pytest.raises(Error, match="expired"):
        verify(authority, verifier, forge.good)


def test_verified_statement_comes_from_the_verifier_only(authority, verifier, forge):
    import copy
    import dataclasses
    import pickle

    from mlseal.evidence.verifying import VerifiedStatement

    verified = verify(authority, verifier, forge.good)
    with pytest.raises(TypeError):
        VerifiedStatement(**{f.name: getattr(verified, f.name) for f in dataclasses.fields(verified)}, seal=None)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(verified, time=None)
    with pytest.raises(TypeError):
        pickle.dumps(verified)
    with pytest.raises(TypeError):
        copy.deepcopy(verified)
    with pytest.raises(TypeError, match="no subclass"):

        class Unsealed(VerifiedStatement):
            def __post_init__(self, seal):
                """Would let anybody in."""
