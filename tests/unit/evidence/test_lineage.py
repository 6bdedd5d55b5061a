"""Lineage from real signed evidence: what is in it, whose word it is, and what happens when something is missing."""

import hashlib
import inspect
import json
import secrets
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

from mlseal.errors import Misuse, NoEvidence, Unchecked
from mlseal.evidence import lineage_links, lineage_walk, predicates, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import Subject, measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.lineage import artifact_id, evidence_node
from mlseal.evidence.oms import make as oms
from mlseal.evidence.revoking import revoke, snapshot
from mlseal.policy import samples
from mlseal.policy.facts import inputs_of


class Story:
    """Signs statements about things of this story alone: the log is shared by the tests of the module."""

    def __init__(self, authority):
        self.authority, self.salt = authority, secrets.token_hex(8)

    def digest(self, name):
        return hashlib.sha256(f"{self.salt}{name}".encode()).hexdigest()

    def given(self, name, called=None, **more):
        return {"name": called or name, "digest": {"sha256": self.digest(name)}, **more}

    def directory(self, name):
        return [Subject(name, self.digest(f"root of {name}")), Subject(f"{name}#manifest", self.digest(name))]

    def sign(self, kind, subjects, body, role="producer"):
        claim = predicate(kind, body)
        if isinstance(subjects, str):
            subjects = self.directory(subjects)
        return self.sign_as(role, statement.make(subjects, predicates.uri_of(kind), claim))

    def sign_as(self, role, made):
        return self.authority.signer(role).sign(made).evidence_id

    def data(self, name, *inputs, origin="ran", **kwargs):
        said = {"path": name, "origin": origin, "files": 1, "size": 1, "notProven": ["x"], "lineage": list(inputs)}
        return self.sign("data-provenance", name, said, **kwargs)

    def model(self, name, *inputs, strength="measured", **kwargs):
        definition = {
            "buildType": "https://mlseal.dev/build/training.run/v0.1",
            "externalParameters": {"of": name},
            "internalParameters": {"strength": strength},
            "resolvedDependencies": list(inputs),
        }
        details = {"builder": {"id": "https://mlseal.dev/builder/container/v0.1"}, "metadata": {"invocationId": "r1"}}
        return self.sign("slsa-provenance", name, {"buildDefinition": definition, "runDetails": details}, **kwargs)

    def fair(self, name, data, **said):
        body = {"dataset": self.given(data), "strength": "measured", "notProven": ["x"]}
        return self.sign("fairness", name, body | {"harness": {"name": "governance.fairness"}} | said)

    def verdict(self, name, *read):
        inputs = [{"digest": {"sha256": "0" * 64}, "annotations": {"evidenceId": one}} for one in read]
        body = {"verificationResult": "PASSED", "inputAttestations": inputs, "verifiedLevels": []}
        return self.sign("slsa-vsa", name, body | {"mlseal": {"verdict": "allowed", "treeSize": 1}}, role="gate")

    def archive(self):
        archive = Archive.open(self.authority.trust, self.authority.store)
        archive.refresh()
        return archive

    def read(self, name, direction="up"):
        return lineage_walk.read(self.archive(), self.digest(name), direction)

    def whole(self):
        """Data, cleaned; two models, the second made from the first; everything that is said of the first."""
        s = SimpleNamespace()
        s.raw = self.data("raw", origin="imported")
        s.clean = self.data("clean", self.given("raw"), {"name": "params.yaml", "annotations": {"claimed": True}})
        s.source = self.sign(
            "source-verification",
            "clean",
            {"source": {"evidenceId": s.clean}, "strength": "measured", "files": 1, "size": 1, "notProven": ["x"]},
        )
        image = self.given("image", annotations={"strength": "declared"})
        s.model = self.model("model", self.given("clean", "data"), self.given("train.py", "code"), image)
        s.fair = self.fair("model", "test", modelProvenance=s.model)
        s.verdict = self.verdict("model", s.model, s.fair, s.clean)
        said = {"decision": "approve", "reviewed": [s.verdict], "notProven": ["x"]}
        s.approval = self.sign("human-approval", "model", said, role="reviewer/alice")
        s.small = self.model("small", self.given("model", "teacher"))
        return s


def predicate(kind, body):
    claim = samples.make(kind, body, Identity("issuer", "san"), utcnow()).predicate.to_json()
    return claim | ({"nonce": secrets.token_hex(16)} if "nonce" in claim else {})


@pytest.fixture
def story(authority):
    return Story(authority)


@pytest.fixture
def alone(new_authority):
    """A story in a log of its own, so that bundles may be withheld."""
    return Story(new_authority())


def edges(graph, kind):
    return {(edge.source, edge.target, edge.claimed) for edge in graph.edges if edge.kind == kind}


def steps(graph):
    return {step.evidence_id for step in graph.steps.values()}


def test_up_is_what_it_was_made_from_and_what_is_said_of_it(story):
    s = story.whole()
    graph = story.read("model")
    assert graph.complete and graph.start == (artifact_id(story.digest("model")),)
    assert steps(graph) == {s.raw, s.clean, s.source, s.model, s.fair, s.verdict, s.approval}
    named = {a.sha256: a for a in graph.artifacts.values()}
    wanted = {story.digest(name) for name in ("model", "clean", "raw", "train.py", "image", "test")}
    assert {sha256 for sha256 in named if sha256} == wanted
    assert (named[story.digest("clean")].names, named[story.digest("clean")].called) == (["clean"], ["data"])
    assert named[None].called == ["params.yaml"]
    assert (evidence_node(s.verdict), evidence_node(s.approval), False) in edges(graph, "read")
    assert (evidence_node(s.clean), evidence_node(s.source), False) in edges(graph, "read")
    assert edges(graph, "produced") == {(evidence_node(s.model), artifact_id(story.digest("model")), False)}


def test_down_is_what_was_made_of_it_and_stops_at_what_was_only_looked_at(story):
    s = story.whole()
    graph = story.read("raw", "down")
    assert steps(graph) == {s.clean, s.source, s.model, s.fair, s.verdict, s.approval, s.small}
    assert graph.artifacts[artifact_id(story.digest("small"))].followed
    beside = {a.called[0] for a in graph.artifacts.values() if not a.followed and a.sha256}
    assert beside == {"code", "image", "test"}
    tested = story.read("test", "down")
    assert story.fair and steps(tested) == {s.fair, s.verdict, s.approval}
    assert not tested.artifacts[artifact_id(story.digest("model"))].followed, "the model was not made of test data"


def test_claimed_lineage_is_never_build_provenance(story):
    s = story.whole()
    graph = story.read("model")
    claim, build = graph.steps[evidence_node(s.clean)], graph.steps[evidence_node(s.model)]
    assert (claim.claimed, claim.origin, claim.strength, claim.builder) == (True, "ran", "claimed", None)
    assert (build.claimed, build.strength, build.run_id) == (False, "measured", "r1")
    assert all(claimed for _, _, claimed in edges(graph, "recorded"))
    clean, model = evidence_node(s.clean), evidence_node(s.model)
    used = {(source, target): claimed for source, target, claimed in edges(graph, "used")}
    assert used[artifact_id(story.digest("raw")), clean] is True
    assert used[artifact_id(story.digest("clean")), model] is False
    assert used[artifact_id(story.digest("image")), model] is True, "an image that the pipeline declares is a claim"


def test_a_declared_build_is_a_claim_too(story):
    made = story.model("model", story.given("data"), strength="declared")
    graph = story.read("model")
    assert graph.steps[evidence_node(made)].claimed
    assert [edge.claimed for edge in graph.edges] == [True, True]


@pytest.mark.parametrize(
    ("role", "counts"), [("producer", True), ("monitor", True), ("gate", False)], ids=["signer", "monitor", "stranger"]
)
def test_a_revoked_step_is_marked_with_whose_word_it_is(story, role, counts):
    made = story.model("model", story.given("data"))
    revoke(story.archive(), story.authority.signer(role), made, reason="withdrawn")
    graph = story.read("model")
    step = graph.steps[evidence_node(made)]
    (taken,) = step.taken_back
    assert (taken.by.san, taken.reason, taken.counts) == (story.authority.san(role), "withdrawn", counts)
    assert step.revoked is counts
    assert [target for _, target, _ in edges(graph, "revokes")] == [step.id]
    assert graph.complete


def test_a_snapshot_alone_marks_and_beside_its_revocation_says_nothing_new(alone):
    made = alone.model("model", alone.given("data"))
    revoke(alone.archive(), alone.authority.signer("monitor"), made, reason="expired")
    snapshot(alone.archive(), alone.authority.signer("monitor"), valid_for=timedelta(hours=1))
    step = alone.read("model").steps[evidence_node(made)]
    assert [taken.reason for taken in step.taken_back] == ["expired"]


def test_nothing_is_marked_that_nobody_took_back(story):
    made = story.model("model", story.given("data"))
    graph = story.read("model")
    assert not graph.steps[evidence_node(made)].taken_back and not edges(graph, "revokes")


def test_a_withheld_statement_makes_every_lineage_incomplete(alone):
    made = alone.model("model", alone.given("data"))
    hidden = alone.model("other", alone.given("data"))
    alone.authority.store.path(hidden).unlink()
    graph = alone.read("model")
    assert not graph.complete and steps(graph) == {made}
    (gap,) = graph.gaps.values()
    assert (gap.evidence_id, gap.reason, gap.accounted) == (hidden, "withheld", False)
    assert gap.id not in graph.placed(), "nobody can say what it is about"


def test_a_statement_withheld_after_it_was_indexed_is_placed(alone):
    made = alone.model("model", alone.given("data"))
    alone.read("model")
    alone.authority.store.path(made).unlink()
    graph = alone.read("model")
    assert not graph.complete and edges(graph, "about") == {
        (evidence_node(made), artifact_id(alone.digest("model")), True)
    }


def test_withheld_evidence_that_a_verdict_rests_on_is_placed_there(alone):
    test = alone.sign("test-result", "elsewhere", {"result": "PASSED"})
    verdict = alone.verdict("model", test)
    alone.authority.store.path(test).unlink()
    graph = alone.read("model")
    assert graph.gaps[evidence_node(test)].reason == "withheld"
    assert edges(graph, "read") == {(evidence_node(test), evidence_node(verdict), False)}


def test_withheld_evidence_that_its_signer_took_back_is_accounted_for(alone):
    alone.model("model", alone.given("data"))
    gone = alone.model("other", alone.given("data"))
    alone.authority.store.path(gone).unlink()
    revoke(alone.archive(), alone.authority.signer("producer"), gone, reason="withdrawn")
    graph = alone.read("model")
    assert graph.complete and graph.gaps[evidence_node(gone)].accounted


def test_a_strangers_revocation_accounts_for_nothing(alone):
    alone.model("model", alone.given("data"))
    gone = alone.model("other", alone.given("data"))
    alone.authority.store.path(gone).unlink()
    revoke(alone.archive(), alone.authority.signer("gate"), gone, reason="withdrawn")
    assert not alone.read("model").complete


def test_evidence_that_no_log_holds_is_a_gap_where_somebody_rests_on_it(story):
    story.verdict("model", "ab" * 32)
    graph = story.read("model")
    assert not graph.complete and graph.gaps[evidence_node("ab" * 32)].reason == "unknown"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_statement_that_does_not_verify_is_a_gap_and_its_inputs_are_not_believed(alone, direction):
    made = alone.model("model", alone.given("data"))
    spoil(alone.authority.store.path(made))
    name = "model" if direction == "up" else "data"
    graph = alone.read(name, direction)
    assert not graph.complete and not graph.steps
    assert graph.gaps[evidence_node(made)].reason == "unverifiable"
    assert set(graph.artifacts) == {artifact_id(alone.digest(name))}
    assert [edge.claimed for edge in graph.edges] == [True]


def test_a_type_that_nobody_here_knows_is_a_gap(alone):
    body = {"_type": statement.STATEMENT_TYPE, "predicateType": "https://other.example/v1", "predicate": {"a": 1}}
    subject = [{"name": "model", "digest": {"sha256": alone.digest("model")}}]
    strange = alone.sign_as("producer", statement.parse(json.dumps(body | {"subject": subject}).encode()))
    graph = alone.read("model")
    assert not graph.complete and "unknown predicate type" in graph.gaps[evidence_node(strange)].message


def test_a_start_is_a_digest_a_prefix_an_evidence_id_or_a_path(story, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text(story.salt)
    measured = measure(tmp_path / "model")
    claim = predicate("test-result", {"result": "PASSED", "configuration": []})
    made = story.sign_as("producer", statement.make(measured.subjects, predicates.uri_of("test-result"), claim))
    signed = story.sign_as("producer", oms(measured))  # about the OMS root alone
    root, manifest = (subject.sha256 for subject in measured.subjects)
    asked = [manifest, manifest.upper(), f"sha256:{manifest}", manifest[:12], root, root[:12], str(tmp_path / "model")]
    for start in asked:
        graph = lineage_walk.read(story.archive(), start, "up")
        assert graph.start == (artifact_id(manifest),), start
        assert steps(graph) == {made, signed}, start
    assert graph.artifacts[artifact_id(manifest)].roots == [root]
    graph = lineage_walk.read(story.archive(), made, "up")
    assert graph.start == (evidence_node(made),) and steps(graph) == {made}


def test_a_prefix_must_be_long_enough_and_unique(story, monkeypatch):
    made = story.model("model", story.given("data"))
    for short in ("abcdef1", "not a digest", ""):
        with pytest.raises((Misuse, NoEvidence)):
            lineage_walk.read(story.archive(), short or "x" * 300, "up")
    with pytest.raises(NoEvidence, match="no statement names a digest that begins"):
        lineage_walk.read(story.archive(), "00000000000", "up")
    walk = lineage_walk._Walk(story.archive(), "up", lambda _done, _total: None)
    monkeypatch.setattr(walk._shelf, "digests", lambda: iter(["aaaaaaaa" + "0" * 56, "aaaaaaaa" + "1" * 56, made]))
    with pytest.raises(Misuse, match="2 digests begin with aaaaaaaa"):
        walk._completed("aaaaaaaa")
    assert walk._completed(made[:10]) == made


def test_a_file_that_is_called_like_a_digest_must_be_named_as_a_path(story, tmp_path, monkeypatch):
    (tmp_path / "abcdef012345").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misuse, match="a digest and a path"):
        lineage_walk.read(story.archive(), "abcdef012345", "up")
    with pytest.raises(NoEvidence):
        lineage_walk.read(story.archive(), "./abcdef012345", "up")


def test_a_digest_that_nobody_names_has_no_lineage(story):
    story.model("model", story.given("data"))
    for direction in ("up", "down"):
        with pytest.raises(NoEvidence, match="no statement that can be read"):
            lineage_walk.read(story.archive(), "cd" * 32, direction)
    with pytest.raises(NoEvidence):
        story.read("data")  # used, and nobody says where it comes from
    assert steps(story.read("data", "down"))


def test_a_stranger_who_pairs_a_root_with_other_names_takes_nothing_away(story):
    """Whoever signs the victim's OMS root beside a manifest of their own is shown, and the victim's evidence stays."""
    made = story.model("victim", story.given("data"))
    root = story.digest("root of victim")
    signed = story.sign("oms-signature", [Subject("victim", root)], {"resources": [{}], "serialization": {}})
    evil = story.sign(
        "test-result",
        [Subject("victim", root), Subject("victim#manifest", story.digest("evil"))],
        {"result": "PASSED", "configuration": []},
        role="gate",
    )
    graph = story.read("victim")
    assert steps(graph) == {made, signed}
    both = lineage_walk.read(story.archive(), root, "up")
    assert set(both.start) == {artifact_id(story.digest("victim")), artifact_id(story.digest("evil"))}
    assert steps(both) == {made, signed, evil}


def test_a_cycle_of_statements_ends(story):
    one = story.model("one", story.given("two"))
    two = story.model("two", story.given("one"))
    for direction in ("up", "down"):
        assert steps(story.read("one", direction)) == {one, two}


@pytest.mark.slow
def test_a_long_chain_needs_no_stack(story, monkeypatch):
    """Fewer frames are allowed than the chain has links, so one call for each would not fit."""
    for number in range(300):
        story.data(f"{number + 1}", story.given(f"{number}"))
    archive = story.archive()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 250)
    try:
        graphs = [lineage_walk.read(archive, story.digest(end), way) for end, way in (("300", "up"), ("0", "down"))]
    finally:
        sys.setrecursionlimit(limit)
    assert [len(graph.steps) for graph in graphs] == [300, 300]


def test_a_log_that_cannot_be_read_is_unchecked(story):
    archive = Archive.open(story.authority.trust, story.authority.store, tiles={})
    with pytest.raises(Unchecked, match="cannot be read"):
        lineage_walk.read(archive, "ab" * 32, "up")


@pytest.mark.parametrize("kind", ["slsa-provenance", "fairness"])
def test_inputs_are_those_that_a_policy_follows(story, kind):
    given = [story.given("plain"), story.given("root", "data"), story.given("whole", "data#manifest")]
    body = {"buildDefinition": {"resolvedDependencies": given}} if kind == "slsa-provenance" else {"dataset": given[0]}
    fact = samples.make(kind, body, Identity("issuer", "san"), utcnow())
    followed = {(target.name, target.sha256) for target in inputs_of([fact])}
    links = lineage_links.links_of(fact.predicate_type, fact.predicate, fact.subjects)
    assert {(thing.name, thing.sha256) for thing in links.used} == followed


@pytest.mark.parametrize("module", predicates.MODULES, ids=lambda module: module.SHORT)
def test_every_predicate_type_has_links(module):
    least = {"roles": {"owner": [{"issuer": "i", "san": "s"}]}} if module.SHORT == "ownership" else {}
    fact = samples.make(module.SHORT, least, Identity("issuer", "san"), utcnow())
    links = lineage_links.links_of(fact.predicate_type, fact.predicate, fact.subjects)
    assert links.job and links.things and lineage_links.kind_of(module.URI) == module.SHORT


def spoil(path):
    """Another signature over the same bytes: the evidence id stays, the bundle no longer verifies."""
    document = json.loads(path.read_text())
    signature = document["dsseEnvelope"]["signatures"][0]
    signature["sig"] = "A" * 12 + signature["sig"][12:]
    path.write_text(json.dumps(document))
