"""Train one model of the demo and save it as MLflow does.

    python train_model.py --data data/randhie --out model --param target=need --param features=admin+income

``target`` and ``features`` name entries of the data set's ``dataset.json``. The model is a logistic regression; what
makes the two models of the demo different is not the method but which label they learn.

The model carries its card: ``MODEL_CARD.md`` holds what it is for, from which columns it was made and how those were
chosen, its figures on the held-out half, and what remains wrong with it. All figures are computed here; the card is
hashed and signed with the model, so it cannot be exchanged. The gate does not read it: it asks for a measurement that
another account makes.

The directory is written by ``mlflow.sklearn.save_model``. Two fields of ``MLmodel`` would differ between equal runs,
the time and a random id; the first is fixed (the signed provenance holds the real time), the second is derived from
the model, so that the same data, code and settings give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import uuid
import warnings
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01 00:00:00.000000"
INVITED = 0.25
FEWEST = 10
"""Where a cell holds fewer people than this, no rate is told from which it could be worked out."""
BINS = 20
CARD = """\
---
{front}---

# A model of who is offered care, learned from {target}

## Intended use

Ranks people; the programme invites the {invited} with the highest scores. Made for the demo of mlseal and for nothing
else: no care may be given or refused by it.

It learned *{target}* ({label}). The programme is for *need*: {need}.

## Data and features

{title}. Licence: {licence}. Trained on {train} people; looked at on the {people} others.

Feature set `{features}`: {columns}. `{attribute}` is not among them.

How it was chosen: {chosen}.

## Figures on the held-out half

AUC {auc_label:.3f} for the label that it learned, {auc_need:.3f} for need. The quarter that it invites reaches
{reached} of the people in need.

| {attribute} | in need | reached, of those in need | invited, of the others |
|---|---|---|---|
{rows}

## What remains wrong

* At equal need, people should be reached alike: see the third column. These are shares without an interval; the signed
  fairness evidence has the intervals.
* At equal score the share in need is {gap:.1f} points {side} where `{attribute}` is {last} than among the others: the
  same score does not mean the same need.
{limits}
"""


def described(data: Path, target: str, features: str) -> tuple[dict[str, Any], str, list[str]]:
    """What ``dataset.json`` says, and the columns that both names stand for."""
    about = json.loads((data / "dataset.json").read_text())
    try:
        return about, about["targets"][target], about["features"][features]
    except KeyError as error:
        known = f"targets {sorted(about['targets'])}, features {sorted(about['features'])}"
        raise SystemExit(f"unknown name {error}; this data set has {known}") from error


def fit(data: Path, label: str, columns: list[str]) -> tuple[Any, Any]:
    """The fitted model and the frame of its features."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    table = pd.read_parquet(data / "train.parquet")
    return LogisticRegression(max_iter=2000).fit(table[columns], table[label]), table[columns]


def save(model: Any, frame: Any, out: Path) -> None:
    """Write the MLflow directory with equal bytes for equal models."""
    warnings.filterwarnings("ignore")
    import mlflow.sklearn
    import sklearn
    import yaml
    from mlflow.models import infer_signature

    # MLflow warns that a pickle runs code when it is loaded. So it does; that is what the verifying loader is for.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    scores = model.predict_proba(frame)
    mlflow.sklearn.save_model(
        model,
        str(out),
        signature=infer_signature(frame, scores),
        serialization_format="cloudpickle",
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        pyfunc_predict_fn="predict_proba",
    )
    written = yaml.safe_load((out / "MLmodel").read_text())
    digest = hashlib.sha256((out / written["flavors"]["sklearn"]["pickled_model"]).read_bytes()).digest()
    written |= {"utc_time_created": EPOCH, "model_uuid": uuid.UUID(bytes=digest[:16], version=4).hex}
    (out / "MLmodel").write_text(yaml.safe_dump(written))


# --- the card --------------------------------------------------------------------------------------------------------


def figures(model: Any, data: Path, about: dict[str, Any], label: str, columns: list[str]) -> dict[str, Any]:
    """What the model does on the held-out half, for the quarter with the highest scores; shares, and no person."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    held = pd.read_parquet(data / "test.parquet")
    scores, need = model.decision_function(held[columns]), held[about["targets"]["need"]].to_numpy()
    invited = np.zeros(len(held), dtype=bool)
    invited[np.argsort(-scores, kind="stable")[: round(INVITED * len(held))]] = True
    group = held[about["attribute"]].to_numpy()
    sick, well = need == 1, need == 0
    names = sorted(np.unique(group).tolist())
    sides = [side & (group == name) for name in names for side in (sick, well)]
    told = not any(0 < part.sum() < FEWEST for side in sides for part in (side & invited, side & ~invited))
    return {
        "people": len(held),
        "auc_label": _rounded(roc_auc_score(held[label], scores)),
        "auc_need": _rounded(roc_auc_score(need, scores)),
        "need_reached": _share(invited, sick, told),
        "by_group": {
            str(name): {
                "need": _share(need, group == name, told or (sick & (group == name)).sum() >= FEWEST),
                "reached_of_those_in_need": _share(invited, sick & (group == name), told),
                "invited_of_the_others": _share(invited, well & (group == name), told),
            }
            for name in names
        },
        "need_at_equal_score": _rounded(at_equal_score(scores, need, group == group.max())),
    }


def at_equal_score(scores: Any, need: Any, last: Any) -> float:
    """How much more often the last group is in need than the others at equal score: bins of equal size, weighted."""
    import numpy as np

    bins = np.argsort(np.argsort(scores, kind="stable"), kind="stable") * BINS // len(scores)
    people = np.array([np.bincount(bins[side], minlength=BINS) for side in (~last, last)])
    needy = np.array([np.bincount(bins[side], need[side], minlength=BINS) for side in (~last, last)])
    both = people.min(axis=0) > 0
    gap = needy[1, both] / people[1, both] - needy[0, both] / people[0, both]
    return float(np.average(gap, weights=people[1, both]))


def _rounded(value: Any) -> float:
    return round(float(value), 3)


def _share(of: Any, among: Any, told: bool) -> float | None:
    return _rounded(of[among].mean()) if told else None


def card(about: dict[str, Any], target: str, features: str, found: dict[str, Any]) -> str:
    """The card as Markdown with its figures in front as YAML, as model hubs have it."""
    import yaml

    gap = found["need_at_equal_score"]
    return CARD.format(
        front=yaml.safe_dump(
            {"data": about["name"], "label": target, "features": features, "figures": found}, sort_keys=False
        ),
        target=target,
        features=features,
        invited=f"{INVITED:.0%}",
        label=about[target],
        columns=", ".join(about["features"][features]),
        train=about["rows"]["train"],
        reached=_told(found["need_reached"]),
        rows="\n".join(f"| {name} | {' | '.join(map(_told, g.values()))} |" for name, g in found["by_group"].items()),
        gap=abs(gap) * 100,
        side="higher" if gap >= 0 else "lower",
        last=list(found["by_group"])[-1],
        limits="\n".join(f"* {limit}" for limit in about["limits"]),
        **{name: about[name] for name in ("need", "title", "licence", "chosen", "attribute")},
        **{name: found[name] for name in ("people", "auc_label", "auc_need")},
    )


def _told(share: float | None) -> str:
    return "too few to say" if share is None else f"{share:.1%}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train one model of the demo.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.param)
    if unknown := given.keys() - {"target", "features"}:
        raise SystemExit(f"unknown parameters {sorted(unknown)}; expected target and features")
    target, features = given.get("target", "need"), given.get("features", "admin")
    about, label, columns = described(options.data, target, features)
    model, frame = fit(options.data, label, columns)
    save(model, frame, options.out)
    found = figures(model, options.data, about, label, columns)
    (options.out / "MODEL_CARD.md").write_text(card(about, target, features, found))
    print(f"learned {target} from {frame.shape[1]} features of {frame.shape[0]} people")


if __name__ == "__main__":
    main()
