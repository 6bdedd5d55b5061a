"""Can somebody who asks a model tell whose row it learnt from? Attacks, at one false alarm in a hundred."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import scored, tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, FilePath, Finding, ModelPath, require, stage
from mlseal.stages.testing import guessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LIBRARIES = ("adversarial-robustness-toolbox", "numpy", "pandas", "scikit-learn")
_SHARED = 0.05
"""More of the non-members than that among the members, and nobody can say who is who."""
_ATTACKS: dict[str, guessing.Guess] = {
    "loss-threshold": guessing.by_loss,
    "loss-against-reference": guessing.by_difficulty,
    "art-black-box": guessing.by_classifier,
}
_NOT_PROVEN = (
    "a bound on what any attack can do: stronger ones, such as many shadow models or planted rows, may get further",
    "that no single person stands out: rates are averages over rows",
    "how sure the rates are when rows are one person's or one household's: bounds take rows as independent",
    "what an attacker who sees parameters or gradients could tell",
)
_UNVERIFIED = "that the model's provenance was verified before its code ran here"


@stage(
    "testing.membership",
    predicate="security-evaluation",
    extra="robustness",
    cost="seconds: one scoring of both tables, then three attacks and a control on them",
    not_proven=_NOT_PROVEN,
)
def membership(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    members: DatasetPath,  # noqa: ARG001 - same
    holdout: DatasetPath,  # noqa: ARG001 - same
    outcome: str,
    members_table: EntryPath = "",
    holdout_table: EntryPath = "",
    cluster: str = "",
    scorer: FilePath | None = None,
    producer_issuer: str = "",
    producer_san: str = "",
    minimum_rows: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    timeout: int = 600,
    *,
    context: Context,
) -> Finding:
    """Measure how well attacks that only ask a model tell the rows it learnt from, at 1 % false positives.

    Args:
        model: the model; a private copy is measured, and that copy is loaded.
        members: the table that the model was trained on, or a directory that holds it.
        holdout: a table of the same kind that it was not trained on, or a directory that holds it.
        outcome: column of 0 and 1 that the model predicts.
        members_table: the table inside the members' directory, CSV or parquet.
        holdout_table: the table inside the holdout's directory.
        cluster: column naming rows that depend on each other, such as person or household; they stay together.
        scorer: a program that gives probabilities, in place of the built-in one for MLflow directories.
        producer_issuer: OIDC issuer of the identity that must have signed the model's provenance before it is loaded.
        producer_san: subject alternative name of that identity; without both, the finding says it was not verified.
        minimum_rows: rows that each table must have to count as sufficient.
        level: coverage of the intervals of the strongest attack, whichever it is.
        seed: of every random choice; not part of the configuration digest.
        timeout: seconds for scoring.

    Guarantees:
        Only rates leave this stage, of rows to which no attack was fitted. The scorer sees the features that the model
        declares, or all columns but outcome and cluster. There is no verdict.

    Edge cases:
        Fewer rows than asked for, or tables that can be told apart without the model, give `sufficient: false`. Tables
        that share more than 5 % of the holdout's rows raise `Unchecked`. Missing values raise `Misuse`. Loading a model
        runs its code in a child process with this account's rights.
    """
    require("art", "robustness")
    import numpy as np

    _require_sane(minimum_rows, level)
    verified = scored.producer(context, producer_issuer, producer_san)
    copy = scored.loadable(context, scorer)
    entries = [_entry(context, "members", members_table), _entry(context, "holdout", holdout_table)]
    frames = [tables.read(context.private_file(*one)) for one in zip(("members", "holdout"), entries, strict=True)]
    features, numbers, truth, shared = _prepared(frames, outcome, _features(copy, frames[0], {outcome, cluster}))
    member = np.repeat([1, 0], [len(frame) for frame in frames])
    program = context.private_copy("scorer") if scorer is not None else None
    probability = scored.score(context, copy, features, program, "probability", timeout)
    rng = np.random.default_rng(seed)
    rows = guessing.Rows(numbers, truth, probability, member, guessing.parts(member, rng, _clusters(frames, cluster)))
    attacks, control = _tried(context, rows, level, seed, rng)
    confounded = any(one["name"] == "auc" and one["ciLow"] > 0.5 for one in control["metrics"])
    fields = {
        "kind": "membership-inference",
        "dataset": context.resource("members"),
        **({"table": context.naming.of("path", entries[0])} if entries[0] else {}),
        "reference": context.resource("holdout"),
        **({"referenceTable": context.naming.of("path", entries[1])} if entries[1] else {}),
        "outcome": outcome,
        **({"cluster": cluster} if cluster else {}),
        "n": len(frames[0]),
        "referenceN": len(frames[1]),
        **({"scorer": context.resource("scorer")} if scorer is not None else {}),
        **({"modelProvenance": verified} if verified else {}),
        "attacks": attacks,
        "controls": [control],
        "metrics": _strongest(attacks, level),
        "sharedRows": round(shared, 4),
        "minimumRows": minimum_rows,
        "sufficient": min(map(len, frames)) >= minimum_rows and not confounded,
    }
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    more = () if verified else (_UNVERIFIED,)
    return Finding(subjects=("model",), fields=fields, seed=seed, libraries=libraries, not_proven=more)


def _require_sane(minimum_rows: int, level: float) -> None:
    if minimum_rows < 1 or not 0.5 <= level < 1:
        raise Misuse(
            "membership parameters are out of range",
            got=f"minimum {minimum_rows}, level {level}",
            expected="minimum ≥ 1, 0.5 ≤ level < 1",
        )


def _entry(context: Context, name: str, inside: str) -> str:
    return tables.entry(context.measured[name], inside)


def _prepared(
    frames: Sequence[Any], outcome: str, names: list[str]
) -> tuple[Any, NDArray[np.float64], NDArray[np.int64], float]:
    """The features as the model takes them and as numbers, the outcome, and the share of the holdout among members."""
    import numpy as np
    import pandas as pd

    for frame in frames:
        for name in (*tables.require_columns(frame, names).columns, outcome):
            tables.column(frame, name, "attack")
    joined = pd.concat([frame[[*names, outcome]] for frame in frames], ignore_index=True)
    truth = _binary(joined[outcome].to_numpy(), outcome)
    numbers = np.column_stack([_numbers(joined[name]) for name in names]) if names else np.empty((0, 0))
    if not np.isfinite(numbers).all():
        raise Misuse("the features are not finite", remedy="decide about them in the data, where it is signed")
    size = len(frames[0])
    whole = [row.tobytes() for row in np.column_stack([numbers, truth])]
    inside = set(whole[:size])
    shared = sum(row in inside for row in whole[size:]) / len(frames[1])
    if shared > _SHARED:
        raise Unchecked(
            "the tables share rows, so that nobody can say who is a member",
            got=f"{shared:.0%} of the holdout stands among the members",
            expected=f"at most {_SHARED:.0%}",
            remedy="give a holdout that the model did not learn from",
        )
    return joined[names], numbers, truth, shared


def _features(model: Path, frame: Any, others: set[str]) -> list[str]:
    return scored.features_of(model) or [name for name in frame.columns if name not in others]


def _clusters(frames: Sequence[Any], cluster: str) -> NDArray[np.int64] | None:
    """A number for each row, equal for rows of one cluster."""
    import numpy as np
    import pandas as pd

    if not cluster:
        return None
    values = [pd.Series(tables.column(frame, cluster, "cluster")) for frame in frames]
    return np.asarray(pd.factorize(pd.concat(values))[0], dtype=np.int64)


def _binary(values: NDArray[Any], outcome: str) -> NDArray[np.int64]:
    import numpy as np

    found = np.unique(values).tolist()
    if found != [0, 1]:
        raise Misuse(f"column {outcome!r} must hold 0 and 1, both", got=f"{len(found)} different values")
    return values.astype(np.int64)


def _numbers(column: Any) -> NDArray[np.float64]:
    """A column of numbers as it is, any other as the places of its values in the order of their coming."""
    import numpy as np
    import pandas as pd

    return np.asarray(column if pd.api.types.is_numeric_dtype(column) else pd.factorize(column)[0], dtype=np.float64)


def _tried(
    context: Context, rows: guessing.Rows, level: float, seed: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each attack, with bounds that hold for all of them together, and the control."""
    each = 1 - (1 - level) / len(_ATTACKS)
    found = []
    for number, (name, guess) in enumerate(_ATTACKS.items()):
        context.progress(number, len(_ATTACKS) + 1, "attacks")
        metrics = guessing.measured(rows, guess(rows, seed), each, rng)
        found.append({"name": name, "threatModel": "black-box-scores", "metrics": metrics})
    context.progress(len(_ATTACKS), len(_ATTACKS) + 1, "attacks")
    alone = guessing.measured(rows, guessing.without_model(rows, seed), level, rng)
    return found, {"name": "tables-alone", "threatModel": "no-model", "metrics": alone}


def _strongest(attacks: list[dict[str, Any]], level: float) -> list[dict[str, Any]]:
    """Of each figure the largest, and the largest of its bounds: they cover the strongest attack, whichever it is."""
    names = {
        "truePositiveRate": "truePositiveRateAt1PercentFalsePositives",
        "falsePositiveRate": "falsePositiveRate",
        "auc": "auc",
        "advantage": "advantage",
    }
    found = []
    for place, name in enumerate(names.values()):
        ones = [attack["metrics"][place] for attack in attacks]
        most = {key: max(one[key] for one in ones) for key in ("value", "ciLow", "ciHigh")}
        found.append({"name": name, **most, "level": level, "n": ones[0]["n"]})
    return found
