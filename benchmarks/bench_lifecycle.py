"""The stages of governance, monitoring, intake and training that no other bench has, each beside what it wraps, alone.

Bar and way of measuring: `benchmarks.beside`. Each row says what ran alone.

    python -m benchmarks.bench_lifecycle [ROUNDS]
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.beside import compare, stage
from benchmarks.service import authority
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure

NAME = "https://bench.mlseal.local"
PROVENANCE = {
    "path": "data",
    "dvc": {"oid": "0" * 32, "hash": "md5", "version": "3"},
    "git": {"dirty": False},
    "origin": "added",
    "files": 1,
    "size": 4,
    "lineage": [],
    "notProven": ["truth"],
}
SCRIPT = """
import argparse, pathlib
import numpy as np, pandas as pd
from sklearn.linear_model import LogisticRegression
given = argparse.ArgumentParser(); given.add_argument("--data"); given.add_argument("--out")
options = given.parse_args(); out = pathlib.Path(options.out); out.mkdir()
frame = pd.read_csv(options.data)
fitted = LogisticRegression().fit(frame.drop(columns="need"), frame["need"])
np.save(out / "weights.npy", fitted.coef_)
"""


@dataclass
class Bench:
    """Where it happens, how often, and the evidence that is known."""

    place: Path
    rounds: int
    archive: Archive

    def stage(self, name: str, /, **arguments: object) -> Callable[[], object]:
        """A run of the stage that may look evidence up, in an archive that has verified nothing before."""
        return stage(name, lambda: Archive.open(self.archive.trust, self.archive.store), **arguments)

    def compare(
        self,
        name: str,
        alone: Callable[[], object],
        whole: Callable[[], object],
        inputs: Sequence[Path],
        base: str,
        besides: str = "",
        unsigned: Callable[[], object] | None = None,
    ) -> None:
        """The row of the stage."""
        compare(name, alone, whole, self.rounds, inputs, base=base, besides=besides, unsigned=unsigned)

    def sign(self, path: Path, kind: str, said: dict, role: str) -> None:
        """Evidence about `path` that stages look up."""
        predicate = self.place / "said.json"
        predicate.write_text(json.dumps(said))
        words = ["sign", path, "--type", kind, "--predicate", predicate, "--role", role]
        words += ["--store", self.archive.store.root, "--trust", self.archive.trust.source]
        subprocess.run([sys.executable, "-m", "mlseal", *map(str, words)], check=True, capture_output=True)


def fairness(bench: Bench) -> None:
    from fairlearn import metrics

    rng, table, model = np.random.default_rng(0), bench.place / "people.csv", bench.place / "weights"
    n = 20_000
    group, need = rng.integers(0, 3, n), (rng.random(n) < 0.3).astype(int)
    chosen = (rng.random(n) < 0.2 + 0.1 * need).astype(int)
    pd.DataFrame({"need": need, "group": group, "chosen": chosen}).to_csv(table, index=False)
    model.write_bytes(b"weights")

    def alone() -> None:
        frame = pd.read_csv(table)
        rows = {"y_true": frame["need"], "y_pred": frame["chosen"], "sensitive_features": frame["group"]}
        metrics.equalized_odds_difference(**rows)
        metrics.demographic_parity_difference(**rows)
        metrics.demographic_parity_ratio(**rows)
        metrics.true_positive_rate_difference(**rows)
        metrics.false_positive_rate_difference(**rows)

    given = {"model": model, "dataset": table, "outcome": "need", "attribute": "group", "select": "column:chosen"}
    whole = bench.stage("governance.fairness", **given)
    base, besides = "Fairlearn's five figures, no intervals", "the intervals, from 2,000 replicates of our own"
    bench.compare("governance.fairness", alone, whole, (model, table), base, besides)


def model_card(bench: Bench) -> None:
    from mlseal.stages.governance import card_page, mlbom, records

    model = bench.place / "card-model"
    model.write_bytes(b"weights of a card")
    said = {"result": "PASSED", "configuration": [], "passedTests": ["tried"]}
    bench.sign(model, "https://in-toto.io/attestation/test-result/v0.1", said, "evaluator")
    signers = {f"{NAME}/roles/evaluator": f"{NAME}/issuer"}
    measured = measure(model)
    known = records.gather(bench.archive, measured.sha256, signers)
    numbers = iter(range(1000))

    def alone() -> None:
        mlbom.bom_of(measured, "risk", known, {})
        card_page.page_of(measured, "risk", known, {})

    def whole() -> None:
        out = bench.place / f"card-{next(numbers)}"
        bench.stage("governance.model_card", model=model, out=out, name="risk", signers=json.dumps(signers))()

    base = "our page and bill from records that are known: Jinja, Matplotlib and cyclonedx-python-lib rendering"
    bench.compare(
        "governance.model_card", alone, whole, (model,), base, "the evidence of which they are made: verified"
    )


def drift(bench: Bench) -> None:
    from river.drift import ADWIN

    rng, model = np.random.default_rng(0), bench.place / "watched"
    model.write_bytes(b"weights that are watched")
    tables = {name: bench.place / f"{name}.csv" for name in ("reference", "stream")}
    for file in tables.values():
        pd.DataFrame(rng.normal(size=(1000, 2)), columns=["age", "visits"]).to_csv(file, index=False)

    def alone() -> None:
        for column in pd.read_csv(tables["stream"]).to_numpy().T:
            detector = ADWIN(delta=0.002)
            for value in column.tolist():
                detector.update(value)

    given = {"model": model, "columns": "age,visits", "trials": 20, **tables}
    whole = bench.stage("monitoring.drift", **given)
    base = "river's ADWIN over the two columns of the stream, once"
    besides = "its false alarms and its power, from 20 drawn streams without and 20 with a change, 40 times as much"
    bench.compare("monitoring.drift", alone, whole, (model, *tables.values()), base, besides)


def source(bench: Bench) -> None:
    from sigstore.models import Bundle
    from sigstore.verify import policy

    data = bench.place / "signed.csv"
    data.write_bytes(np.random.default_rng(0).bytes(32 << 20))
    bench.sign(data, "https://mlseal.dev/data-provenance/v0.1", PROVENANCE, "producer")
    bench.archive.refresh()
    (bundle,) = bench.archive.candidates([measure(data).sha256], ["data-provenance"])
    stock = bench.archive.verifier._stock
    signer = policy.Identity(identity=f"{NAME}/roles/producer", issuer=f"{NAME}/issuer")

    def alone() -> None:
        measure(data)
        stock.verify_dsse(Bundle.from_json(bundle.raw), signer)

    given = {"dataset": data, "issuer": f"{NAME}/issuer", "san": f"{NAME}/roles/producer"}
    base, besides = (
        "the data hashed once, and sigstore's own verify_dsse",
        "what a stock verifier misses; log and revocation",
    )
    bench.compare("ingestion.source", alone, bench.stage("ingestion.source", **given), (data,), base, besides)


def redact(bench: Bench) -> None:
    from presidio_anonymizer import AnonymizerEngine
    from presidio_anonymizer.entities import RecognizerResult

    from benchmarks.bench_ingestion import presidio
    from mlseal.stages.ingestion.personal import recall, sample, scanner

    labelled = sample.make(100, 11)
    table, numbers = bench.place / "notes.csv", iter(range(1000))
    pd.DataFrame({"text": [one.text for one in labelled]}).to_csv(table, index=False)

    analyzer, anonymizer = presidio(), AnonymizerEngine()

    def alone() -> None:
        texts = list(pd.read_csv(table)["text"])
        for text, spans in zip(texts, analyzer(texts), strict=True):
            found = [RecognizerResult(span.kind, span.start, span.end, 1.0) for span in spans]
            anonymizer.anonymize(text, found)

    def whole() -> None:
        out = bench.place / f"redacted-{next(numbers)}"
        bench.stage("ingestion.redact", dataset=table, redacted=out, documents=100)()

    def unsigned() -> None:
        texts = list(pd.read_csv(table)["text"])
        for _ in range(2):  # what was found is replaced, and what is left is looked at again
            scanner.scan(texts)
        recall.measure(100, 0.95, 0)

    base = "Presidio's BatchAnalyzerEngine, tuned, and its AnonymizerEngine over the texts, model loaded"
    besides = "a scan of what is left and the recall on 100 made-up texts, and saves by a scanner of its own"
    bench.compare("ingestion.redact", alone, whole, (table,), base, besides, unsigned)


def report(bench: Bench) -> None:
    file, code = bench.place / "report.sarif", bench.place / "service.py"
    code.write_text("def add(a, b):\n    return a + b\n")
    found = [{"ruleId": f"B{n % 50}", "level": "warning", "message": {"text": "found"}} for n in range(5000)]
    run = {"tool": {"driver": {"name": "bandit", "version": "1.9"}}, "results": found}
    file.write_text(json.dumps({"version": "2.1.0", "runs": [run]}))

    def alone() -> None:
        document = json.loads(file.read_bytes())
        {one["level"] for run in document["runs"] for one in run["results"]}

    given = {"report": file, "about": code, "format": "sarif"}
    base, besides = "json, and the levels of the findings", "strict parsing: no key twice, no number out of range"
    bench.compare("testing.report", alone, bench.stage("testing.report", **given), (file, code), base, besides)


def training(bench: Bench) -> None:
    data, script, numbers = bench.place / "train.csv", bench.place / "train.py", iter(range(1000))
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(5000, 20)), columns=[f"x{n}" for n in range(20)])
    frame.assign(need=(frame.x0 > 0).astype(int)).to_csv(data, index=False)
    script.write_text(SCRIPT)

    def alone() -> None:
        out = bench.place / f"alone-{next(numbers)}"
        subprocess.run([sys.executable, script, "--data", data, "--out", out], check=True)

    def whole() -> None:
        out = bench.place / f"trained-{next(numbers)}"
        bench.stage("training.run", script=script, data=data, out=out)()

    bench.compare("training.run", alone, whole, (script, data), "the training program, in a process of its own")


ROWS = {
    "governance.fairness": fairness,
    "governance.model_card": model_card,
    "ingestion.redact": redact,
    "ingestion.source": source,
    "monitoring.drift": drift,
    "testing.report": report,
    "training.run": training,
}


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as directory, authority() as trust:
        archive = Archive.open(trust, Path(directory) / "evidence")
        for row in ROWS.values():
            row(Bench(Path(directory), rounds, archive))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
