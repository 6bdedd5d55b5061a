"""``mlflow.models.evaluate(…, evaluators=["mlseal"])``: a stage measures, and what it found is signed evidence.

MLflow hands an evaluator a model that is loaded already and rows that lie in memory: nothing that a digest could be
taken of. So the objects are not used. For one evaluation:

1. the logged model is fetched into a private directory, and what no digest counts is taken out;
2. the file that the caller names is compared with the rows that MLflow was given: it records those beside the figures;
3. the stage runs on both, as ``mlseal run`` does: it reads copies that it hashed itself, and data policies are asked;
4. its statement is signed and kept in the store;
5. the bundle is put beside the model, where gate and loader find it, also after a copy of the version;
6. the figures go back to MLflow, which logs them to run and model.

An evaluation that cannot be signed is an error and no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from mlseal.errors import DigestMismatch, Misuse

if TYPE_CHECKING:
    from mlseal.evidence.bundle import Bundle
    from mlseal.stages.base import Stage

_KEYS = frozenset({"stage", "arguments", "rows", "role", "purpose"})


@dataclass(frozen=True)
class Settings:
    """``evaluator_config`` of one evaluation.

    Attributes:
        stage: what measures, such as ``governance.fairness``; it must take a model and a data set.
        arguments: of the stage, without ``model``; values as ``mlseal run`` takes them.
        rows: which argument is the file that holds the rows given to MLflow.
        role: the role to sign as.
        purpose: why this runs, where data policies ask.
    """

    stage: str
    arguments: Mapping[str, str]
    rows: str = "dataset"
    role: str = "evaluator"
    purpose: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Raises `Misuse` for what is not as described above."""
        arguments = config.get("arguments")
        if set(config) - _KEYS or not isinstance(config.get("stage"), str) or not isinstance(arguments, Mapping):
            raise Misuse(
                "the evaluator's configuration is not understood",
                got=", ".join(sorted(map(str, config)))[:200],
                expected='{"stage": "governance.fairness", "arguments": {…}}, and perhaps rows, role, purpose',
            )
        texts = {str(name): str(value) for name, value in arguments.items()}
        if "model" in texts:
            raise Misuse("the model is the one that is evaluated", remedy="leave 'model' out of the arguments")
        return cls(config["stage"], texts, **{key: config[key] for key in ("rows", "role", "purpose") if key in config})


class StageEvaluator(ModelEvaluator):
    """A stage of mlseal as MLflow evaluator."""

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Mapping[str, Any], **_: Any) -> bool:  # noqa: ARG003
        """True whenever it was asked for: passing over an evaluation in silence would look like one that passed."""
        return True

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: Mapping[str, Any],
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Perform the steps of the module. Raises an `MlflowException` (403, 400) with reason and remedy."""
        from mlseal_mlflow import private
        from mlseal_mlflow.refusals import refusing

        with refusing("evaluation"), private.passing() as directory:
            settings = Settings.of(evaluator_config)
            stage = _stage(settings)
            if model_id is None:
                raise Misuse(
                    "only a logged model can be evaluated: its bytes are what evidence is about",
                    expected="mlflow.models.evaluate('models:/m-…' or a version of it, …)",
                )
            model = _fetched(model_id, directory)  # (1)
            _require_same_rows(Path(settings.arguments[settings.rows]), dataset)  # (2)
            bundle = _measured(stage, settings, model, run_id)  # (3) (4)
            _put_beside(model_id, bundle, directory)  # (5)
            return EvaluationResult(_figures(stage.name, bundle), artifacts={}, run_id=run_id)  # (6)


def _stage(settings: Settings) -> Stage:
    from mlseal.stages import registry

    stage = registry.load(settings.stage).stage
    names = {parameter.name for parameter in stage.parameters}
    if not {"model", settings.rows} <= names or settings.rows not in settings.arguments:
        raise Misuse(
            f"{stage.name} cannot be asked about a model and these rows",
            got=f"parameters {', '.join(sorted(names))}",
            expected=f"model and {settings.rows}, the latter among the arguments",
            remedy="name another stage, or say with 'rows' which argument is the file of the rows",
        )
    return stage


def _fetched(model_id: str, directory: Path) -> Path:
    import mlflow

    from mlseal_mlflow import loading

    model = loading.fetch(f"models:/{model_id}", directory, mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    loading.set_aside(model, directory)
    return model


def _require_same_rows(file: Path, dataset: Any) -> None:
    """Raise `DigestMismatch` unless `file` holds the features and labels that MLflow was given, row by row."""
    import numpy as np
    import pandas as pd

    from mlseal.stages import tables

    frame = tables.read(file)
    given = dataset.features_data
    named = isinstance(given, pd.DataFrame)
    pairs = [(str(name), given[name]) for name in given.columns] if named else []
    if dataset.has_targets and dataset.targets_name:
        pairs.append((dataset.targets_name, dataset.labels_data))
    wrong = [
        name
        for name, values in pairs
        if name not in frame.columns or not pd.Series(np.asarray(values)).equals(pd.Series(frame[name].to_numpy()))
    ]
    if not pairs or wrong or len(given) != len(frame):
        raise DigestMismatch(
            f"{file.name} does not hold the rows that MLflow was given",
            got=f"other values in {wrong[0]}" if wrong else f"{len(frame)} rows beside {len(given)}, named: {named}",
            expected="a data frame read from that file, whole and in its order",
        )


def _measured(stage: Stage, settings: Settings, model: Path, run_id: str) -> Bundle:
    from mlseal.evidence import store, trust
    from mlseal.evidence.signing import signer_for
    from mlseal.policy import load
    from mlseal.policy.preflight import Preflight
    from mlseal.stages import runner

    kept = store.resolve()
    return runner.run(
        stage.name,
        {**settings.arguments, "model": str(model)},
        signer=signer_for(settings.role, trust=trust.resolve(), store=kept),
        store=kept,
        run_id=run_id,
        purpose=settings.purpose,
        preflight=Preflight(load.in_force()),
    )


def _put_beside(model_id: str, bundle: Bundle, directory: Path) -> None:
    """The bundle as a file of its own, and ``claims.jsonl`` of all that lie there now."""
    from mlflow import MlflowClient

    from mlseal_mlflow import beside

    client = MlflowClient()
    own = directory / f"{bundle.evidence_id}.sigstore.json"
    bundle.write(own)
    client.log_model_artifact(model_id, str(own), beside.FOLDER)
    aside = directory / "evidence" / beside.FOLDER
    lines = directory / beside.CLAIMS
    lines.write_bytes(beside.claims([*beside.bundles(aside, without="verdict-"), bundle]))
    client.log_model_artifact(model_id, str(lines), beside.FOLDER)


def _figures(name: str, bundle: Bundle) -> dict[str, float]:
    """``STAGE/METRIC`` → value, and its interval where there is one."""
    found: dict[str, float] = {}
    for metric in bundle.statement.predicate.get("metrics", ()):
        for key, ending in (("value", ""), ("ciLow", "/ciLow"), ("ciHigh", "/ciHigh")):
            if isinstance(metric.get(key), int | float):
                found[f"{name}/{metric['name']}{ending}"] = float(metric[key])
    return found
