"""The mutation table for bundles that a key signed; and each check that stands against it, taken out once."""

import json
import time
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import Error, ForgedEvidence, MalformedEvidence, SplitView, UntrustedSigner, Withheld
from mlseal.evidence import keyholder, keysigned, publickey, statement, verifying
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import Subject
from mlseal.evidence.keyholder import KeyHolder, KeyOutOfTerm
from mlseal.evidence.predicates import human_approval
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.signing import Signer, keyuri
from mlseal.evidence.tiles import service_tiles
from mlseal.services import state
from tests.attacks.keyed import ROWS, SHARED, KeyForge, mutate
from tests.attacks.mutants import installed, mutants
from tests.attacks.mutated import raw_mutations
from tests.attacks.test_mutations import signed as certified
from tests.stock import Rejected, sigstore_js_keys

SUBJECT = Subject("model", "ab" * 32)
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
ALL = sorted({*ROWS, *SHARED})


class Anyone:
    """An identity matcher that is no help to the verifier: what is refused under it is refused by steps 0 to 3."""

    def matches(self, other):
        return True


def written(private, path, password=None):
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    path.chmod(0o600)
    return f"file2:{path}"


@pytest.fixture
def key(tmp_path):
    """A private key of the test, and the URI that opens it."""
    private = ec.generate_private_key(ec.SECP256R1())
    return private, written(private, tmp_path / "signer.pem")


def claim(**more):
    return statement.make(
        [SUBJECT], TEST_RESULT, {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}", **more}
    )


def signer_of(authority, uri, **more):
    return Signer(authority.trust, key=keyuri.open_key(uri), **({"store": authority.store} | more))


@pytest.fixture
def forge(authority, key):
    filler = certified(authority, "monitor")
    good, other = (signer_of(authority, key[1]).sign(claim()) for _ in range(2))
    loaded = state.load(authority.state)
    keys = loaded.keys()
    tsa = (keys.tsa, keys.tsa_chain[0])
    own = ec.generate_private_key(ec.SECP256R1())
    origin = loaded.statement_origin()
    return KeyForge(good, other, keys.log, origin, tsa, key[0].public_key(), own, filler)


@pytest.fixture
def verifier(authority, tmp_path):
    pins = PinnedCheckpoints(tmp_path / "pins")
    return Verifier(authority, pins)


def Verifier(authority, pins, **more):
    tiles = dict(service_tiles(authority.trust))
    return verifying.Verifier(authority.trust, **({"tiles": tiles, "checkpoints": pins} | more))


def verify(verifier, bundle, *identities, **changes):
    given = {"predicate_type": "test-result", "subjects": [SUBJECT.sha256], "revocations": NOTHING_REVOCABLE}
    return verifier.verify(bundle, identities=list(identities) or [Anyone()], **(given | changes))


def test_a_key_bundle_is_accepted_for_what_it_is(verifier, forge):
    verify(verifier, forge.good)
    again = verify(verifier, forge.good, KeyHolder(publickey.fingerprint(forge.public)))
    assert (again.identity.issuer, again.identity.san) == ("urn:mlseal:key", publickey.fingerprint(forge.public))
    assert (again.assurance.identity, again.assurance.log, again.assurance.time) == ("key", "pinned", "local")
    document = json.loads(forge.good.raw)
    document["verificationMaterial"]["publicKey"]["hint"] = publickey.hints(forge.public)[1]
    verify(verifier, Bundle(json.dumps(document).encode()))  # the hint as sigstore-go writes it


@pytest.mark.parametrize("row", ALL)
def test_mutation_is_refused(authority, verifier, forge, row):
    verify(verifier, forge.other)  # the pin: this verifier has seen the log before
    later = Verifier(authority, verifier.checkpoints, clock=an_hour_on)
    with pytest.raises(Error) as caught:
        verify(later, mutate(forge, row))
    assert caught.value.exit_code in (10, 11)


def test_what_the_table_says_of_the_stock_verifier_for_node(authority, forge):
    pem = publickey.pem(forge.public)
    asked = [row for row, (_, accepted) in sorted(ROWS.items()) if accepted is not None]
    outcomes = sigstore_js_keys(
        [(forge.good.raw, pem), (forge.other.raw, pem), *((mutate(forge, row).raw, pem) for row in asked)],
        authority.trusted_root,
    )
    assert outcomes[:2] == [None, None], "the stock verifier must accept what a key signed"
    found = {row: not isinstance(outcome, Rejected) for row, outcome in zip(asked, outcomes[2:], strict=True)}
    assert found == {row: ROWS[row][1] for row in asked}, outcomes
    stranger = publickey.pem(forge.own.public_key())
    assert isinstance(sigstore_js_keys([(forge.good.raw, stranger)], authority.trusted_root)[0], Rejected)


@pytest.mark.parametrize("name", ["R1-duplicate-key", "R2-cut-short", "R5-trailing-garbage", "R6-nan"])
def test_bytes_that_are_not_strictly_a_bundle_are_refused(verifier, forge, name):
    with pytest.raises(Error):
        verify(verifier, Bundle(raw_mutations(forge.good)[name]))


def test_an_attackers_own_key_is_another_identity(authority, verifier, forge, tmp_path):
    """All is well with its bundle but who signed: the same claim, in order, by a key that nobody listed."""
    theirs = signer_of(authority, written(forge.own, tmp_path / "theirs.pem")).sign(claim())
    assert verify(verifier, theirs).identity.san == publickey.fingerprint(forge.own.public_key())
    with pytest.raises(UntrustedSigner, match="may not make"):
        verify(verifier, theirs, KeyHolder(publickey.fingerprint(forge.public)))


def test_saying_the_words_first_does_not_block_the_owner(authority, verifier, forge, key, tmp_path):
    """The log takes one entry for each statement. The time in it makes the owner's another than the copy's."""
    made = claim()
    first = signer_of(authority, written(forge.own, tmp_path / "theirs.pem")).sign(made)
    second = signer_of(authority, key[1]).sign(made)
    assert first.evidence_id != second.evidence_id
    assert verify(verifier, second).identity.san == publickey.fingerprint(forge.public)


def test_the_very_bytes_said_first_are_withheld_from_nobody_in_silence(authority, forge, key, tmp_path):
    """Who copies the signed bytes, time and all, before they are logged: the owner gets an error, never that bundle."""
    made, moment = claim(), utcnow()
    signer_of(authority, written(forge.own, tmp_path / "theirs.pem"), clock=lambda: moment).sign(made)
    with pytest.raises(Withheld, match="holds this very statement"):
        signer_of(authority, key[1], clock=lambda: moment).sign(made)


def test_old_evidence_cannot_be_made_to_look_fresh(authority, forge, tmp_path):
    """Anybody may have an old signature stamped; under a certificate that is refused, and so it is here."""
    later = utcnow() + timedelta(days=40)
    clocked = Verifier(authority, PinnedCheckpoints(tmp_path / "later"), clock=lambda: later)
    verify(clocked, forge.good)
    stamped = forge.stamped(json.loads(forge.good.raw), later - timedelta(days=1))
    with pytest.raises(ForgedEvidence, match="stamped at another time"):
        verify(clocked, Bundle(json.dumps(stamped).encode()))


def test_a_key_bundle_of_another_program_does_not_say_when_it_was_signed(authority, verifier, forge, monkeypatch):
    from mlseal.evidence.signing.credentials import Kept

    monkeypatch.setattr(Kept, "prepare", lambda self, said: said)
    private = ec.generate_private_key(ec.SECP256R1())
    made = Signer(authority.trust, key=keyuri._File(private), verify=False).sign(claim())
    with pytest.raises(ForgedEvidence, match="does not say when"):
        verify(verifier, made)


def two_minutes_old(forge):
    """The good bundle, made two minutes before its stamp."""
    stamped = forge.stamped(json.loads(forge.good.raw), forge.signed_at() + timedelta(minutes=2))
    return Bundle(json.dumps(stamped).encode())


def test_the_time_of_a_key_is_judged_by_what_it_states_and_by_the_stamp(verifier, forge):
    mine, bundle = publickey.fingerprint(forge.public), two_minutes_old(forge)
    moment, made = verify(verifier, bundle).time, forge.signed_at()
    second = timedelta(seconds=1)
    assert moment - made > 100 * second
    for term in ((None, None), (made, None), (None, moment + second), (made, moment + second)):
        assert verify(verifier, bundle, KeyHolder(mine, *term))
    for term in ((moment + second, None), (None, made), (None, made - second), (made + second, moment)):
        with pytest.raises(KeyOutOfTerm, match="does not count for the time"):
            verify(verifier, bundle, KeyHolder(mine, *term))
    assert verify(verifier, bundle, KeyHolder(mine, None, moment), KeyHolder(mine, moment, None))


def test_stamping_over_the_end_of_a_key_makes_no_stranger(verifier, forge):
    """Signed a moment before ``until``, stamped anew after it by anybody: it stops, or a failed result would be gone."""
    mine, bundle = publickey.fingerprint(forge.public), two_minutes_old(forge)
    moment, made = verify(verifier, bundle).time, forge.signed_at()
    for term in ((None, moment), (made + timedelta(seconds=1), None)):
        with pytest.raises(keyholder.KeyTimesDisagree, match="both"):
            verify(verifier, bundle, KeyHolder(mine, *term))


def test_what_a_thief_gets_wrong_on_purpose_is_a_strangers_all_the_same(authority, verifier, forge, key, monkeypatch):
    """After the end of its term a key can stop nobody: neither by another type, nor by what obeys no schema."""
    ended = KeyHolder(publickey.fingerprint(forge.public), None, forge.signed_at() - timedelta(seconds=1))
    with pytest.raises(KeyOutOfTerm):
        verify(verifier, forge.good, ended, predicate_type="fairness", subjects=["cd" * 32])
    monkeypatch.setattr("mlseal.evidence.predicates.check_own", lambda *_: None)
    monkeypatch.setattr("mlseal.evidence.predicates.check", lambda *_: None)
    nonsense = signer_of(authority, key[1]).sign(statement.make([SUBJECT], TEST_RESULT, {"nonsense": 1}))
    monkeypatch.undo()
    with pytest.raises(MalformedEvidence):
        verify(verifier, nonsense, KeyHolder(ended.fingerprint))
    with pytest.raises(KeyOutOfTerm):
        verify(verifier, nonsense, ended)


@pytest.mark.parametrize("uri", sorted(keyholder.DECISIONS))
def test_a_key_decides_nothing(authority, key, uri):
    with pytest.raises(UntrustedSigner, match="decides nothing"):
        keyholder.require_work(publickey.identity(key[0].public_key()), uri)


def test_a_decision_that_a_key_signed_all_the_same_is_refused(authority, verifier, key, monkeypatch):
    approval = {
        "decision": "approve",
        "reviewed": ["ab" * 32],
        "notProven": ["x"],
        "expires": "2036-01-01T00:00:00Z",
        "nonce": "0" * 32,
    }
    made = statement.make([SUBJECT], human_approval.URI, human_approval.Predicate.model_validate(approval).to_json())
    with pytest.raises(UntrustedSigner, match="decides nothing"):
        signer_of(authority, key[1]).sign(made)
    monkeypatch.setattr(keyholder, "require_work", lambda *_: None)
    bundle = signer_of(authority, key[1]).sign(made)
    monkeypatch.undo()
    mine = KeyHolder(publickey.fingerprint(key[0].public_key()))
    with pytest.raises(UntrustedSigner, match="decides nothing"):
        verify(verifier, bundle, mine, predicate_type="human-approval")


def test_split_view_is_named(verifier, forge):
    verify(verifier, forge.other)
    with pytest.raises(SplitView):
        verify(verifier, mutate(forge, "M19-split-view"))


# Checks that another check stands behind, on purpose: taking one of the two out opens nothing. Each says which.
DOUBLED = {
    "stock_verify: stock verification refused the bundle": "turns foreign exceptions into ours; they end it too",
    "require_own_time: the statement does not say when the key signed it, so its timestamp may be of any later day": "no time cannot be compared",
    "logged_key: the log body is not a hashedrekord of a key": "a log body without a key is not that of one",
    "from_der: this is no public key": "what is no key has no encoding to compare",
    "from_pem: this is no public key in PEM": "no part of verifying; tested where keys are opened",
    "_require_verifies: the signature is not in its canonical encoding": "OpenSSL reads strict DER only, too",
}


def an_hour_on():
    """So that a time that is wrong is not refused for lying in the future."""
    return utcnow() + timedelta(hours=1)


def through(authority, forge, tmp_path, rows=ALL):
    """The rows that come through verifiers that see the log for the first time; a split view needs one that does not."""
    came = set()
    for row in set(rows) - {"M19-split-view"}:
        pins = PinnedCheckpoints(tmp_path / f"{row}-{len(list(tmp_path.iterdir()))}")
        try:
            verify(Verifier(authority, pins, clock=an_hour_on), mutate(forge, row))
        except Exception:  # a mutant may fail in ways the original cannot; it refused all the same
            continue
        came.add(row)
    return came


@pytest.mark.slow
def test_each_check_of_a_key_holds_something_back(authority, forge, tmp_path):
    assert through(authority, forge, tmp_path) == set()
    opened, survived = {}, []
    for holder, attribute, module, rows in (
        (verifying, "keysigned", keysigned, ALL),
        (keysigned, "publickey", publickey, ROWS),
    ):
        for where, mutant in mutants(module):
            with installed(holder, attribute, mutant):
                came = through(authority, forge, tmp_path, rows)
            if came:
                opened[where] = came
            else:
                survived.append(where)
    assert sorted(survived) == sorted(DOUBLED), opened


def test_each_check_of_a_key_holder_holds_something_back(forge):
    mine, moment = publickey.identity(forge.public), utcnow()
    ended, before = [KeyHolder(mine.san, None, moment)], moment - timedelta(seconds=1)
    attacks = {
        "require_work": lambda module: module.require_work(mine, human_approval.URI),
        "require_term": lambda module: module.require_term(ended, mine, moment, moment),
        "require_term: the key does not count for both": lambda module: module.require_term(
            ended, mine, before, moment
        ),
    }
    noticed = 0
    for where, mutant in mutants(keyholder, {"require_work", "require_term"}):
        attack = next(attacks[name] for name in sorted(attacks, reverse=True) if where.startswith(name))
        with pytest.raises(UntrustedSigner) as caught:
            attack(keyholder)
        try:
            attack(mutant)
        except UntrustedSigner as error:  # one time of two: the other error would make it a stranger's
            assert type(error).__name__ == "KeyOutOfTerm" != type(caught.value).__name__
        noticed += 1
    assert noticed == 3
    assert not keyholder.listed(ended, mine, moment)
    assert not keyholder.listed(ended, mine, before, moment)
    assert not keyholder.listed(ended, mine), "no time is no time that is covered"
    assert keyholder.listed(ended, mine, before)
    assert keyholder.listed([*ended, mine], mine, moment)
