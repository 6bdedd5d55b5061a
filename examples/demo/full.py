"""What ``--full`` adds to the main job: the model trained with privacy, attacks on it, and notes that hold names.

Nothing is scripted here either: the private model passes the gate of ``policies/private.yaml`` or is refused by it, and
the job goes on in both cases, for both are answers. What must happen is that notes with names in them are refused.
"""

from __future__ import annotations

import csv
import random
import time
from pathlib import Path
from typing import Any

from workbench import Row, Unexpected, Workbench, in_words, reason

EPSILON, UNIT, ROWS = "3", "household", 12
NOTES = 240
_BOOKED = ("mdvis", "notmdvis", "mentvis", "outpdol", "drugdol", "suppdol", "inpdol", "totadm")
"""What a practice books; the data hold it as shares and logarithms between 0 and about 1.5."""
_FIRST = ("Priya", "Walter", "Ines", "Tomás", "Grace", "Dmitri", "Amara", "Helen", "Yusuf", "Clara", "Mateo", "Ruth")
_LAST = ("Raghunathan", "Kowalski", "Okafor", "Lindqvist", "Moreau", "Castellano", "Brandt", "Osei", "Novak", "Tanaka")
_TOLD = (
    "Called back, {name} asked whether the visit is covered; reach at {phone}.",
    "Patient: {name}, seen in {month} for a cough. Write to {mail}.",
    "Dr. {last} agrees; {name} wants a morning appointment.",
    "No answer, tried twice.",
    "Afebrile and in good spirits, wants no further calls.",
)


def run(bench: Workbench, row: Row, stage: str, role: str, **arguments: object) -> dict[str, Any]:
    """One stage as the reader would type it; its predicate. Its seconds go into the closing table."""
    flags: list[str] = []
    for name, value in arguments.items():
        texts = [f"{key}={part}" for key, part in value.items()] if isinstance(value, dict) else [str(value)]
        flags += [word for text in texts for word in (f"--{name.replace('_', '-')}", text)]
    out = bench.root / "full" / f"{stage}-{len(row.stages)}-{len(bench.rows)}.sigstore.json"
    out.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    bench.run("mlseal", "run", stage, *flags, "--role", role, "-o", out)
    row.stages.append((stage, time.monotonic() - started))
    from mlseal.evidence.bundle import Bundle

    return dict(Bundle.read(out).statement.predicate)


def judged(bench: Workbench, path: Path, action: str, expect: tuple[int, ...] = (0, 10, 11)) -> str:
    """Ask the gate about `path`; what it misses, or "" if it allowed."""
    done = bench.run("mlseal", "gate", path, "--action", f"mlseal/{action}", expect=expect)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stdout.splitlines()]
    told = [line[1:].strip() for line in lines if line[:1] in {"✗", "?"}]
    return "; ".join(told) or reason(done.stdout + done.stderr)


def private_retrain(bench: Workbench, row: Row, about: dict[str, Any]) -> Path:
    """Model B's columns and label once more, so that no household can be told from the model; does the gate take it?"""
    out, data = bench.root / "full" / "private", bench.project / "data"
    said = run(
        bench,
        row,
        "training.dp",
        "producer",
        dataset=data,
        table="train.parquet",
        out=out,
        outcome=about["targets"]["need"],
        features=",".join(about["features"]["admin+income"]),
        unit_column=about["cluster"],
        unit=UNIT,
        rows_per_unit=ROWS,
        epsilon=EPSILON,
        epochs=20,
    )
    fair = run(
        bench,
        row,
        "governance.fairness",
        "evaluator",
        model=out,
        dataset=data,
        table="test.parquet",
        outcome=about["targets"]["need"],
        attribute=about["attribute"],
        cluster=about["cluster"],
        select="top:0.25",
    )
    row.refused = judged(bench, out, "private-release")
    row.proved = (
        f"epsilon {said['epsilon']} at delta {said['delta']} for each of {said['units']} households, recomputed by who"
        f" reads it; {in_words(fair)}; {'refused' if row.refused else 'let pass'} by the bounds of model B's gate"
    )
    return out


def membership(bench: Workbench, row: Row, about: dict[str, Any], models: dict[str, Path]) -> None:
    """Whose rows did each model learn from? The same attacks on both, figures side by side."""
    data, told = bench.project / "data", []
    for name, model in models.items():
        said = run(
            bench,
            row,
            "testing.membership",
            "evaluator",
            model=model,
            members=data,
            members_table="train.parquet",
            holdout=data,
            holdout_table="test.parquet",
            outcome=about["targets"]["need"],
            cluster=about["cluster"],
        )
        rates = {one["name"]: one for one in said["metrics"]}
        found, auc = rates["truePositiveRateAt1PercentFalsePositives"], rates["auc"]
        told.append(
            f"{name}: {found['value']:.2%} [{found['ciLow']:.2%}, {found['ciHigh']:.2%}] of its people named at 1 %"
            f" false alarms, AUC {auc['value']:.3f} [{auc['ciLow']:.3f}, {auc['ciHigh']:.3f}]"
        )
    row.proved = "; ".join(told)


def evasion(bench: Workbench, row: Row, about: dict[str, Any], model: Path) -> None:
    """Somebody who can book visits and spending, and nothing else, tries to move people over the line."""
    others = [name for name in about["features"]["admin+income"] if name not in _BOOKED]
    said = run(
        bench,
        row,
        "testing.evasion",
        "evaluator",
        model=model,
        dataset=bench.project / "data",
        table="test.parquet",
        outcome=about["targets"]["need"],
        cluster=about["cluster"],
        fixed=",".join(others),
        ranges=dict.fromkeys(_BOOKED, "0:1.5"),
        budgets="0.05,0.1",
        rows=150,
        queries=100,
    )
    rates = {one["name"]: one for one in said["metrics"]}
    told = [
        f"{rate['value']:.0%} [{rate['ciLow']:.0%}, {rate['ciHigh']:.0%}] within {percent} % of a column's range"
        for percent in (5, 10)
        if (rate := rates.get(f"evasionRateAt{percent}Percent"))
    ]
    masking = "gradients look masked, so this says little" if said.get("maskingSuspected") else "no sign of masking"
    row.proved = (
        f"of {said['n']} people whom the private model decides rightly, booking other visits and spending moves"
        f" {' and '.join(told)}; with the parameters and without them; {masking}"
    )


def write_notes(file: Path, seed: int = 7) -> None:
    """Made-up notes of a telephone desk; no person of the data is in them."""
    draw = random.Random(seed)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["visit", "note"])
        for number in range(NOTES):
            first, last = draw.choice(_FIRST), draw.choice(_LAST)
            month = draw.choice(("March", "June", "October"))
            phone = f"({draw.randint(201, 989)}) 555-{draw.randint(100, 199):04d}"
            mail = f"{first}.{last}@example.org".lower()
            text = draw.choice(_TOLD).format(name=f"{first} {last}", last=last, month=month, phone=phone, mail=mail)
            writer.writerow([number, text])


def notes(bench: Workbench, row: Row) -> None:
    """Notes with names are scanned and refused; redacted and scanned again, they are let pass."""
    folder = bench.root / "full"
    folder.mkdir(exist_ok=True)
    raw, safe = folder / "notes.csv", folder / "notes-redacted"
    write_notes(raw)
    said = run(bench, row, "ingestion.pii", "evaluator", dataset=raw)
    row.refused = judged(bench, raw, "intake", (10,))
    if not said["found"]:
        raise Unexpected("nothing was found in notes that hold names")
    made = run(bench, row, "ingestion.redact", "evaluator", dataset=raw, redacted=safe)
    left = judged(bench, safe, "intake")
    counted = ", ".join(
        f"{one['kind']} {one.get('count', 'under 10')}" for one in said["kinds"] if one["kind"] in said["found"]
    )
    recall = said["recall"]
    row.proved = (
        f"found in {NOTES} made-up notes: {counted}; the scanner sees at least {recall['ciLow']:.1%} of what is planted"
        f" in a labelled sample; redacted, {'nothing' if not made['found'] else ', '.join(made['found'])} is found and"
        f" the gate {'refuses still: ' + left if left else 'lets them pass'}"
    )
    if left:
        raise Unexpected(f"redacted notes were refused: {left}")


def steps(bench: Workbench, about: dict[str, Any], model: Path | None) -> None:
    """All of it, in order; `model` is the one that was promoted, if one was."""
    bench.run("mlseal", "revoke", "--snapshot", "--role", "monitor")
    with bench.step("Full: trained again, with differential privacy") as row:
        private = private_retrain(bench, row, about)
    with bench.step("Full: whose rows did the models learn from?") as row:
        models = {"private": private} | ({} if model is None else {"without privacy": model})
        membership(bench, row, about, models)
    with bench.step("Full: can bookings move people over the line?") as row:
        evasion(bench, row, about, private)
    with bench.step("Full: notes with names in them") as row:
        notes(bench, row)
