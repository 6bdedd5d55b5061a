"""Pipelines for these tests: the shapes that users write, and the ones in which somebody cheats."""

from kfp import dsl
from mlseal_kfp import component, gate
from mlseal_kfp.compiled import EXECUTOR_INPUT, RUN_ID
from mlseal_kfp.image import PLACEHOLDER


def _foreign(what: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=PLACEHOLDER, command=["python", "-m", "example_deploy"], args=[what, EXECUTOR_INPUT])


@dsl.container_component
def deploy(model: dsl.Input[dsl.Artifact], passed_sha256: str, marker: str):  # noqa: ANN201
    """Stands for whatever comes after the gate."""
    return _foreign("deploy")


@dsl.container_component
def rewrite(target: dsl.Input[dsl.Artifact]):  # noqa: ANN201
    """A step of the same run that changes a byte of another's output: one account, one bucket."""
    return _foreign("rewrite")


@dsl.container_component
def echo(text: str, said: dsl.OutputPath(str)):  # noqa: ANN201
    """Hands a text on."""
    return _foreign("echo")


@dsl.container_component
def hang(text: str):  # noqa: ANN201
    """Never ends, and leaves a process that left its session and its parent."""
    return _foreign("hang")


@dsl.container_component
def silent(model: dsl.Output[dsl.Model]):  # noqa: ANN201
    """Ends well without writing what it declared."""
    return _foreign("silent")


def _train(data: str, script: str, parameters: dict):  # noqa: ANN202
    imported = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    program = dsl.importer(artifact_uri=script, artifact_class=dsl.Artifact, reimport=True)
    return component("training.run")(
        script=program.output, data=imported.output, parameters=parameters, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    )


def _gate_and_deploy(trained, marker: str, *, after) -> None:  # noqa: ANN001
    told = {
        "model": trained.outputs["out"],
        "model_sha256": trained.outputs["out_sha256"],
        "model_name": "risk-a",
        "run_id": RUN_ID,
    }
    verdict = (
        component("decide")(
            **told, evidence_1=trained.outputs["evidence"], evidence_1_sha256=trained.outputs["evidence_sha256"]
        )
        .set_caching_options(False)
        .after(after)
    )
    passed = component("enforce")(
        **told, verdict=verdict.outputs["verdict"], verdict_sha256=verdict.outputs["verdict_sha256"]
    ).set_caching_options(False)
    deploy(model=trained.outputs["out"], passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="gated")
def gated(data: str, script: str, marker: str, name: str = "risk-a", parameters: dict = {}) -> str:  # noqa: B006
    """Train, judge, enforce, deploy."""
    trained = _train(data, script, parameters)
    passed = gate(
        model=trained.outputs["out"], model_sha256=trained.outputs["out_sha256"], model_name=name, evidence=[trained]
    )
    deploy(model=trained.outputs["out"], passed_sha256=passed.outputs["passed_sha256"], marker=marker)
    return passed.outputs["passed_sha256"]


@dsl.pipeline(name="looped")
def looped(model: str, data: str, policy: str):  # noqa: ANN201
    """Several measurements in a loop, collected."""
    imported = dsl.importer(artifact_uri=model, artifact_class=dsl.Model, reimport=True)
    table = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    rules = dsl.importer(artifact_uri=policy, artifact_class=dsl.Artifact, reimport=True)
    with dsl.ParallelFor(["black", "female"]) as attribute:
        fair = component("governance.fairness")(
            model=imported.output, dataset=table.output, outcome="need", attribute=attribute, select="column:chosen"
        )
    told = {"model": imported.output, "model_name": "risk-a", "run_id": RUN_ID, "policy": rules.output}
    verdict = component("decide")(
        **told,
        collected=dsl.Collected(fair.outputs["evidence"]),
        collected_sha256=dsl.Collected(fair.outputs["evidence_sha256"]),
    ).set_caching_options(False)
    component("enforce")(
        **told, verdict=verdict.outputs["verdict"], verdict_sha256=verdict.outputs["verdict_sha256"]
    ).set_caching_options(False)


@dsl.pipeline(name="intake")
def intake(data: str, suite: str, label: str):  # noqa: ANN201
    """What happens to a table before anything learns from it: validated, scanned, redacted, tried for poison."""
    table = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    expected = dsl.importer(artifact_uri=suite, artifact_class=dsl.Artifact, reimport=True)
    component("ingestion.validation")(dataset=table.output, suite=expected.output, run_id=RUN_ID)
    component("ingestion.pii")(dataset=table.output, documents=50, run_id=RUN_ID)
    safe = component("ingestion.redact")(dataset=table.output, documents=50, run_id=RUN_ID)
    component("ingestion.poisoning")(
        dataset=safe.outputs["redacted"],
        dataset_sha256=safe.outputs["redacted_sha256"],
        table="table.csv",
        label=label,
        attacks="label-flip",
        repetitions=2,
        run_id=RUN_ID,
    )


@dsl.pipeline(name="model-rewritten-before")
def model_rewritten_before(data: str, script: str, marker: str):  # noqa: ANN201
    """Between training and decide."""
    trained = _train(data, script, {})
    changed = rewrite(target=trained.outputs["out"])
    _gate_and_deploy(trained, marker, after=changed)


@dsl.pipeline(name="evidence-rewritten")
def evidence_rewritten(data: str, script: str, marker: str):  # noqa: ANN201
    """The evidence file changes on its way."""
    trained = _train(data, script, {})
    changed = rewrite(target=trained.outputs["evidence"])
    _gate_and_deploy(trained, marker, after=changed)


@dsl.pipeline(name="model-rewritten-after")
def model_rewritten_after(data: str, script: str, marker: str):  # noqa: ANN201
    """Between decide and enforce: the verdict is good, the model is another."""
    trained = _train(data, script, {})
    told = {"model": trained.outputs["out"], "model_name": "risk-a", "run_id": RUN_ID}
    verdict = component("decide")(
        **told, evidence_1=trained.outputs["evidence"], evidence_1_sha256=trained.outputs["evidence_sha256"]
    ).set_caching_options(False)
    changed = rewrite(target=trained.outputs["out"]).after(verdict)
    passed = (
        component("enforce")(
            **told, verdict=verdict.outputs["verdict"], verdict_sha256=verdict.outputs["verdict_sha256"]
        )
        .set_caching_options(False)
        .after(changed)
    )
    deploy(model=trained.outputs["out"], passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="evidence-dropped")
def evidence_dropped(data: str, script: str, marker: str):  # noqa: ANN201
    """The digest arrives, the file does not."""
    trained = _train(data, script, {})
    told = {"model": trained.outputs["out"], "model_name": "risk-a", "run_id": RUN_ID}
    verdict = component("decide")(**told, evidence_1_sha256=trained.outputs["evidence_sha256"]).set_caching_options(
        False
    )
    passed = component("enforce")(
        **told, verdict=verdict.outputs["verdict"], verdict_sha256=verdict.outputs["verdict_sha256"]
    ).set_caching_options(False)
    deploy(model=trained.outputs["out"], passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="verdict-of-another-run")
def verdict_of_another_run(model: str, verdict: str, verdict_sha256: str, marker: str):  # noqa: ANN201
    """What a cache or a person brings from an earlier run."""
    imported = dsl.importer(artifact_uri=model, artifact_class=dsl.Model, reimport=True)
    old = dsl.importer(artifact_uri=verdict, artifact_class=dsl.Artifact, reimport=True)
    passed = component("enforce")(
        model=imported.output, model_name="risk-a", run_id=RUN_ID, verdict=old.output, verdict_sha256=verdict_sha256
    ).set_caching_options(False)
    deploy(model=imported.output, passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="unevidenced")
def unevidenced(model: str, marker: str):  # noqa: ANN201
    """A model from nowhere."""
    imported = dsl.importer(artifact_uri=model, artifact_class=dsl.Model, reimport=True)
    passed = gate(model=imported.output, model_name="risk-a")
    deploy(model=imported.output, passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="undeclared")
def undeclared(marker: str):  # noqa: ANN201
    """The model that a step declared was never written."""
    made = silent()
    passed = gate(model=made.outputs["model"], model_name="risk-a")
    deploy(model=made.outputs["model"], passed_sha256=passed.outputs["passed_sha256"], marker=marker)


@dsl.pipeline(name="echoed")
def echoed(text: str) -> str:
    """A text through two steps."""
    return echo(text=echo(text=text).outputs["said"]).outputs["said"]


@dsl.pipeline(name="hung")
def hung(text: str):  # noqa: ANN201
    """Waits for ever."""
    hang(text=text)


@dsl.pipeline(name="branching")
def branching(text: str):  # noqa: ANN201
    """Decides by a text, which kfp.local would evaluate."""
    said = echo(text=text)
    with dsl.If(said.output == "allow"):
        echo(text="deployed")


@dsl.pipeline(name="scanned")
def scanned(code: str, requirements: str, advisories: str, model: str):  # noqa: ANN201
    """The scans of code, dependencies and model file, one after the other."""
    program = dsl.importer(artifact_uri=code, artifact_class=dsl.Artifact, reimport=True)
    listed = dsl.importer(artifact_uri=requirements, artifact_class=dsl.Artifact, reimport=True)
    entries = dsl.importer(artifact_uri=advisories, artifact_class=dsl.Dataset, reimport=True)
    weights = dsl.importer(artifact_uri=model, artifact_class=dsl.Model, reimport=True)
    component("testing.code")(
        code=program.output,
        parts="code,secrets,dependencies",
        requirements=listed.output,
        advisories=entries.output,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    component("testing.dependencies")(requirements=listed.output, advisories=entries.output)
    component("testing.model_file")(model=weights.output, second_opinions="picklescan")
