"""Take each check of the verifier out once: some attack of the table must then be accepted."""

from datetime import timedelta

from mlseal.evidence import checkpoints, strict, verifying
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import utcnow
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocation, Revocations
from mlseal.evidence.tiles import service_tiles
from mlseal.tlog import checkpoint
from tests.attacks.mutants import installed, mutants
from tests.attacks.mutated import ROWS, mutate, raw_mutations
from tests.attacks.test_mutations import SUBJECT, forge, signed  # noqa: F401

# Checks that another check stands behind, on purpose: taking one of the two out opens nothing. Each says which. By
# function and message, so that a new check in the same function is not excused with the old one.
DOUBLED = {
    "strict": {
        "require_log_entry: wrong kind of log entry": "stock verification knows only this kind",
        "require_log_entry: the log is not one of the trust root": "stock verification knows only these logs",
        "require_log_entry: the inclusion proof disagrees with its signed checkpoint": "stock verification compares both",
        "require_body: the log body is not a hashedrekord of a certificate": "stock verification parses the body",
        "require_body: the log holds another statement, signature or certificate": "stock verification compares them",
        "certificate_identity: the certificate must name exactly one identity": "our CA issues no other certificate",
        "certificate_identity: the certificate names no issuer": "our CA issues no other certificate",
        "certificate_identity: the certificate names two issuers": "our CA issues no other certificate",
        "certificate_identity: the certificate names the issuer that stands for bare keys": "our CA issues none",
        "verified_time: log … was not valid at the time of signing": "the generation's CA and TSA end with its log",
        "_single: a bundle holds exactly one …": "stock verification refuses several as well",
        "_number: not a number": "stock parsing refuses numbers that are none",
    },
    "verifying": {
        "__init_subclass__: a VerifiedStatement has no subclass: one could leave its seal out": "tested directly",
        "__post_init__: a VerifiedStatement comes from Verifier.verify only": "tested directly",
        "__reduce__: a VerifiedStatement is not carried between processes: verify the bundle there": "tested directly",
        "_refusing: the bundle cannot be verified": "turns foreign exceptions into ours; they end the verification too",
        "_stock_verifier: trust root … cannot be used": "a root that cannot be parsed verifies nothing",
    },
}
MUST_OPEN = {
    "strict": {"_exact", "require_log_entry", "require_body", "verified_time"},
    "verifying": {"_require_subjects", "_require_predicate", "_require_identity", "_stock_verify"},
}


def attacks(authority, forge):  # noqa: F811
    """name → (bundle, verifier options); every one must be refused."""
    revoked = Revocations({forge.good.evidence_id: Revocation(forge.good.evidence_id, "withdrawn", "x")})
    rows = {row: (mutate(forge, row), {}) for row in ROWS}
    rows |= {name: (Bundle(raw), {}) for name, raw in raw_mutations(forge.good).items()}
    rows |= {
        "A1-other-subject": (forge.good, {"subjects": ["cd" * 32]}),
        "A2-no-subject": (forge.good, {"subjects": []}),
        "A3-other-type": (forge.good, {"predicate_type": "fairness"}),
        "A4-other-identity": (forge.other, {}),
        "A5-revoked": (forge.good, {"revocations": revoked}),
        "A6-future": (forge.good, {"clock": lambda: utcnow() - timedelta(hours=1)}),
        "A7-expired-root": (forge.good, {"clock": lambda: utcnow() + timedelta(days=4000)}),
        "A8-no-tiles": (forge.good, {"tiles": {}}),
    }
    return rows


NEEDS_A_PIN = {"M19-split-view", "A8-no-tiles"}  # at first contact nobody can tell these from the truth


def accepted(authority, forge, tmp_path, module=verifying):  # noqa: F811
    """Names of the attacks that come through a verifier that knew the log, or (``@fresh``) one that did not."""
    through = set()
    trust = authority.trust
    tiles = dict(service_tiles(trust))
    later = checkpoint_of(signed(authority))
    for name, (bundle, options) in attacks(authority, forge).items():
        for fresh in (False, True) if name not in NEEDS_A_PIN else (False,):
            pins = checkpoints.PinnedCheckpoints(tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
            if not fresh:
                pins.require_consistent(trust.logs[0], later, tiles[forge.origin])
            verifier = module.Verifier(
                trust, tiles=options.get("tiles", tiles), clock=options.get("clock", utcnow), checkpoints=pins
            )
            given = {key: value for key, value in options.items() if key not in ("tiles", "clock")}
            try:
                verifier.verify(
                    bundle,
                    **{
                        "predicate_type": "test-result",
                        "identities": [Identity(authority.issuer, authority.san("producer"))],
                        "subjects": [SUBJECT.sha256],
                        "revocations": NOTHING_REVOCABLE,
                        **given,
                    },
                )
            except Exception:  # a mutant may fail in ways the original cannot; it refused all the same
                continue
            through.add(f"{name}@fresh" if fresh else name)
    return through


def checkpoint_of(bundle):
    return bundle.document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"]


def test_nothing_comes_through_unmutated(authority, forge, tmp_path):  # noqa: F811
    assert accepted(authority, forge, tmp_path) == set()


def survivors(authority, forge, tmp_path, module, run):  # noqa: F811
    opened, survived = {}, []
    for where, mutant in mutants(module):
        through = run(mutant)
        if through:
            opened.setdefault(where.split(":")[0], set()).update(through)
        else:
            survived.append(where)
    return opened, survived


def test_each_strict_check_holds_something_back(authority, forge, tmp_path):  # noqa: F811
    def run(mutant):
        with installed(verifying, "strict", mutant):
            return accepted(authority, forge, tmp_path)

    opened, survived = survivors(authority, forge, tmp_path, strict, run)
    assert sorted(survived) == sorted(DOUBLED["strict"])
    assert MUST_OPEN["strict"] <= set(opened), opened


def test_each_step_of_verifying_holds_something_back(authority, forge, tmp_path):  # noqa: F811
    opened, survived = survivors(
        authority, forge, tmp_path, verifying, lambda mutant: accepted(authority, forge, tmp_path, mutant)
    )
    assert sorted(survived) == sorted(DOUBLED["verifying"])
    assert MUST_OPEN["verifying"] <= set(opened), opened


def test_the_check_for_two_trees_of_one_size_holds_something_back(authority, forge, tmp_path):  # noqa: F811
    log, note = authority.trust.logs[0], checkpoint_of(signed(authority))
    size = int(note.split("\n")[1])
    fork = checkpoint.sign(forge.log_key, checkpoint.Checkpoint(log.origin, size, b"\7" * 32))
    opened = []
    for where, mutant in mutants(checkpoints, {"require_consistent"}):
        pins = mutant.PinnedCheckpoints(tmp_path / str(len(opened)))
        pins.require_consistent(log, note, None)
        assert pins.require_consistent(log, fork, None)
        opened.append(where)
    assert len(opened) == 1


def test_steps_one_four_and_five_hold_something_back(authority, forge, tmp_path, monkeypatch):  # noqa: F811
    from mlseal.evidence.trust import Trust

    for target, name, expected in (
        (Trust, "require_current", "A7-expired-root"),
        (checkpoints.PinnedCheckpoints, "require_consistent", "M19-split-view"),
        (Revocations, "require_not_revoked", "A5-revoked"),
    ):
        with monkeypatch.context() as patch:
            if target is checkpoints.PinnedCheckpoints:
                patch.setattr(verifying.Verifier, "_verify", _without_pin)
            else:
                patch.setattr(target, name, lambda *a, **k: None)
            assert expected in accepted(authority, forge, tmp_path), name


def _without_pin(self, bundle, predicate_type, identities, subjects, revocations):
    facts = verifying._crypto(bundle, self.trust, self._stock, self._clock())
    revocations.require_not_revoked(facts.statement.evidence_id)
    verifying._require_subjects(facts.statement, subjects)
    verifying._require_predicate(facts.statement, predicate_type)
    verifying._require_identity(facts, facts.statement.predicate_type, identities)
