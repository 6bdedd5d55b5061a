"""A card says what verified evidence says, strikes out what was taken back, and is silent about nothing."""

from __future__ import annotations

import base64
import json
import re
import secrets

import pytest

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, NoEvidence, Unchecked, Withheld
from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import dp_training, guard_evaluation, slsa_provenance, test_result
from mlseal.evidence.revoking import revoke
from mlseal.stages import runner
from mlseal.stages.manner import Manner
from mlseal.stages.shard import Shard
from tests.stages_cases import World, governance_fairness
from tests.unit.evidence.test_accounting import claim


@pytest.fixture
def model(authority, tmp_path):
    """A model with a real fairness finding and a test result, and the bundles."""
    world = World(tmp_path / "world", "Zed", authority)
    world.root.mkdir()
    arguments = governance_fairness.make(world)
    path = arguments["model"]
    (path / "weights").write_text(secrets.token_hex(8))
    texts = {name: str(value) for name, value in arguments.items()}
    fair = runner.run(
        "governance.fairness", texts, signer=authority.signer("evaluator"), store=authority.store, quiet=True
    )
    passed = {"result": "PASSED", "configuration": [], "passedTests": ["<script>alert(1)</script>"]}
    tried = authority.signer("evaluator").sign(
        statement.make(measure(path).subjects, test_result.URI, passed, names=_plain())
    )
    return path, fair, tried


def _plain():
    from mlseal.evidence.naming import PLAIN

    return PLAIN


def card(authority, model, out, *, role="evaluator", **more):
    signers = json.dumps({authority.san(role): authority.issuer, authority.san("monitor"): authority.issuer})
    arguments = {"model": str(model), "out": str(out), "signers": signers, "name": "risk <b>"} | more
    made = runner.run(
        "governance.model_card", arguments, signer=authority.signer("evaluator"), store=authority.store, quiet=True
    )
    return made.statement, (out / "model_card.html").read_text(), json.loads((out / "mlbom.cdx.json").read_text())


def test_figures_come_from_the_evidence(authority, model, tmp_path):
    path, fair, _ = model
    said, page, bill = card(authority, path, tmp_path / "card")
    metrics = fair.statement.predicate["metrics"]
    figures = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [(f["type"], f["value"]) for f in figures] == [(m["name"], str(m["value"])) for m in metrics]
    assert all(str(m["ciHigh"]) in page and m["name"] in page for m in metrics)
    assert "<svg" in page and "PASSED" in page
    assert all(text in page for text in fair.statement.predicate["notProven"])
    assert said.predicate == bill
    assert measure(tmp_path / "card").sha256 in {subject.sha256 for subject in said.subjects}
    assert measure(path).sha256 in {subject.sha256 for subject in said.subjects}


MARKUP = r"$\frac{$ --><script>alert(1)</script>"
GUARDED = {
    **{key: claim()[key] for key in ("harness", "strength", "runId", "startedOn", "finishedOn", "notProven")},
    "requests": {"name": "requests.jsonl", "digest": {"sha256": "0" * 64}},
    "guard": {"name": "desk/1", "settings": {"sha256": "0" * 64}, "bound": True},
    "kinds": [
        {"name": kind, "n": 20, "answeredOff": 20, "answeredOn": on, "flagged": 0, "masked": 0}
        | {"shareOn": on / 20, "low": low, "high": high}
        for kind, on, low, high in (
            *(("ordinary", 20, 0.8316, 1.0), ("injection", 3, 0.0321, 0.3789)),
            (MARKUP, 20, 0.8316, 1.0),
            *((f"other-{number}", 20, 0.8316, 1.0) for number in range(50)),
        )
    ],
    "level": 0.95,
    "latency": {"medianOffMs": 3.1, "medianOnMs": 4.0, "p99OffMs": 9.0, "p99OnMs": 11.2},
}


def test_a_share_has_its_interval_and_a_bound_is_called_one(authority, tmp_path):
    """What a guard let through, and an epsilon, which has no interval."""
    path = tmp_path / "model"
    path.write_text(secrets.token_hex(8))
    for uri, said in ((guard_evaluation.URI, GUARDED), (dp_training.URI, claim())):
        authority.signer("evaluator").sign(statement.make(measure(path).subjects, uri, said, names=_plain()))
    _, page, bill = card(authority, path, tmp_path / "card")
    made = bill["metadata"]["component"]["modelCard"]
    figures = made["quantitativeAnalysis"]["performanceMetrics"]
    share = {"type": "shareAnswered", "value": "0.15", "slice": "injection through the guard, 20 requests"}
    assert share | {"confidenceInterval": {"lowerBound": "0.0321", "upperBound": "0.3789"}} in figures
    assert {"type": "epsilon", "value": "3.2823", "slice": "delta 0.00001"} in figures
    assert "0.0321 to 0.3789" in page and "3.2823" in page and page.count("upper bound") == 1
    assert (len(figures), page.count("through the guard")) == (40, 2 * 53), "row and label"
    assert "14 figures that are on the page and not in this bill" in made["considerations"]["technicalLimitations"]
    assert "<script" not in page, "a label in the plot is text, and no formula either"


def test_the_bill_passes_the_standards_own_validator_and_one_that_does_not_stops(authority, model, tmp_path):
    """The invalid one is what evidence of a listed identity would make of it: data whose digest is none."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    path = model[0]
    card(authority, path, tmp_path / "card")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = (tmp_path / "card/mlbom.cdx.json").read_text()
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace("SHA-256", "SHA-7")) is not None, "it can say no"
    data = [{"name": "train.csv", "digest": {"sha256": "none"}}]
    definition = {"buildType": "https://example.org", "externalParameters": {}, "resolvedDependencies": data}
    said = {"buildDefinition": definition, "runDetails": {"builder": {"id": "https://example.org/builder"}}}
    made = statement.make(measure(path).subjects, slsa_provenance.URI, said, names=_plain())
    authority.signer("evaluator").sign(made)
    before = set(authority.store.ids())
    with pytest.raises(MalformedEvidence, match=r"breaks CycloneDX 1\.6"):
        card(authority, path, tmp_path / "next")
    assert set(authority.store.ids()) == before and not (tmp_path / "next").exists()


def _with(bundle, change):
    document = json.loads(bundle.raw)
    envelope = document["dsseEnvelope"]
    change(envelope)
    return json.dumps(document).encode()


def _other_signature(envelope):
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[-1] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()


def _other_words(envelope):
    payload = base64.b64decode(envelope["payload"])
    assert b"PASSED" in payload
    envelope["payload"] = base64.b64encode(payload.replace(b"PASSED", b"FAILED")).decode()


@pytest.mark.parametrize(
    ("spoil", "unseen", "seen"),
    [
        (lambda b: _with(b, _other_signature), ForgedEvidence, ForgedEvidence),
        (lambda b: _with(b, _other_words), Withheld, MalformedEvidence),
        (lambda b: b.raw[:-200], Withheld, MalformedEvidence),
    ],
    ids=["signature", "words", "cut off"],
)
def test_evidence_that_does_not_verify_stops_the_card(authority, model, tmp_path, spoil, unseen, seen):
    """Whether the judge had read it before it was spoilt or not; once it is mended, the card is made."""
    path, _, tried = model
    file = authority.store.path(tried.evidence_id)
    for number, error in enumerate((unseen, seen)):
        before = set(authority.store.ids())
        file.write_bytes(spoil(tried))
        try:
            with pytest.raises(error):
                card(authority, path, tmp_path / f"spoilt-{number}")
        finally:
            file.write_bytes(tried.raw)
        assert set(authority.store.ids()) == before and not (tmp_path / f"spoilt-{number}").exists()
        _, page, _ = card(authority, path, tmp_path / f"mended-{number}")
        assert tried.evidence_id[:16] in page


def test_the_page_runs_nothing_and_loads_nothing(authority, model, tmp_path):
    _, page, _ = card(authority, model[0], tmp_path / "card")
    assert "<script" not in page and "<b>" not in page and "default-src 'none'" in page
    outside = set(re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page))
    assert outside == set()


def test_what_is_missing_is_said(authority, model, tmp_path):
    _, page, _ = card(authority, model[0], tmp_path / "card")
    assert "No evidence was found of:" in page
    assert "who approved it" in page and "how it treats groups" not in page


def test_what_was_taken_back_is_struck_and_its_figures_are_gone(authority, model, tmp_path):
    from mlseal.evidence.archive import Archive

    path, fair, _ = model
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    revoke(archive, authority.signer("monitor"), fair.evidence_id, reason="withdrawn")
    _, page, bill = card(authority, path, tmp_path / "card")
    assert '<span class="gone">fairness</span> withdrawn' in page and "<svg" not in page
    assert bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == []
    assert fair.evidence_id not in json.dumps(bill)


def test_the_word_of_others_is_counted_and_not_repeated(authority, model, tmp_path):
    path, _, _ = model
    loud = {"result": "PASSED", "configuration": [], "passedTests": ["trust me"]}
    authority.signer("producer").sign(statement.make(measure(path).subjects, test_result.URI, loud, names=_plain()))
    _, page, _ = card(authority, path, tmp_path / "card")
    assert "roles/producer" not in page and "1 pieces of evidence by identities that were not listed" in page


def test_parts_are_told_by_what_they_became(authority, model, tmp_path):
    """Evidence of another type cannot be made to vanish by calling it a part."""
    path, fair, tried = model

    def scan(number, **manner):
        given = {"model": str(path), "report": str(tmp_path / f"{number}.sarif"), "second_opinions": ""}
        signer = authority.signer("evaluator")
        return runner.run(
            "testing.model_file", given, signer=signer, store=authority.store, quiet=True, manner=Manner(**manner)
        )

    parts = [scan(index, shard=Shard(index, 2)) for index in (1, 2)]
    _, page, _ = card(authority, path, tmp_path / "before")
    assert all(part.evidence_id[:12] in page for part in parts), "nobody merged them yet"
    whole = scan(3, partials=tuple(parts), made=(tmp_path / "1.sarif", tmp_path / "2.sarif"))
    named = {"name": "partials", "annotations": {"1/2": fair.evidence_id, "2/2": tried.evidence_id}}
    lie = {"result": "PASSED", "configuration": [named]}
    authority.signer("evaluator").sign(statement.make(measure(path).subjects, test_result.URI, lie, names=_plain()))
    _, page, _ = card(authority, path, tmp_path / "after")
    assert not any(part.evidence_id[:12] in page for part in parts)
    assert all(one.evidence_id[:12] in page for one in (whole, fair, tried))


def test_what_people_state_is_marked_as_stated(authority, model, tmp_path):
    stated = tmp_path / "stated.json"
    stated.write_text(json.dumps({"uses": ["outreach, with a nurse"], "limitations": ["adults only"]}))
    _, page, bill = card(authority, model[0], tmp_path / "card", stated=str(stated))
    assert "Stated by its makers" in page and "outreach, with a nurse" in page
    assert bill["metadata"]["component"]["modelCard"]["considerations"]["useCases"] == ["outreach, with a nurse"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"uses": "x"}', '{"accuracy": ["99 %"]}', '{"uses": [1]}', '{"uses": [], "uses": []}']
)
def test_what_cannot_be_stated_is_refused(authority, model, tmp_path, text):
    stated = tmp_path / "stated.json"
    stated.write_text(text)
    with pytest.raises((Misuse, Unchecked)):
        card(authority, model[0], tmp_path / "card", stated=str(stated))
    assert not (tmp_path / "card").exists()


def test_without_evidence_there_is_no_card(authority, tmp_path):
    (tmp_path / "model").write_text(secrets.token_hex(8))
    with pytest.raises(NoEvidence, match="no listed identity"):
        card(authority, tmp_path / "model", tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_evidence_that_nobody_shows_stops_the_card(authority, model, tmp_path):
    path, fair, _ = model
    file = authority.store.path(fair.evidence_id)
    raw = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(Withheld):
            card(authority, path, tmp_path / "card")
    finally:
        file.write_bytes(raw)


def test_the_same_evidence_gives_the_same_card(authority, model, tmp_path):
    first, second = (card(authority, model[0], tmp_path / name / "card")[1:] for name in ("a", "b"))
    # The first card is evidence about the model, too, so the second lists it: everything else is equal.
    assert first[0].split("<h2>Evidence")[0] == second[0].split("<h2>Evidence")[0]
