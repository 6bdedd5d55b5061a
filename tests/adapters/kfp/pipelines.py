"""Pipelines for these tests: the shapes that users write, and the ones that must be refused."""

from kfp import dsl

from mlseal_kfp import component, gate
from mlseal_kfp.compiled import RUN_ID
from mlseal_kfp.image import PLACEHOLDER


@dsl.container_component
def deploy(model: dsl.Input[dsl.Artifact], passed_sha256: str):  # noqa: ANN201
    """Stands for whatever comes after the gate."""
    return dsl.ContainerSpec(image=PLACEHOLDER, command=["python", "-m", "example_deploy"], args=["{{$}}"])


@dsl.pipeline(name="gated")
def gated(data: str, script: str, policy: str, name: str = "risk-a", parameters: dict = {}) -> str:  # noqa: B006
    """Train, judge, enforce, deploy."""
    imported = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    program = dsl.importer(artifact_uri=script, artifact_class=dsl.Artifact, reimport=True)
    rules = dsl.importer(artifact_uri=policy, artifact_class=dsl.Artifact, reimport=True)
    trained = component("training.run")(
        script=program.output, data=imported.output, parameters=parameters, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    )
    passed = gate(
        model=trained.outputs["out"], model_sha256=trained.outputs["out_sha256"], model_name=name, policy=rules.output,
        evidence=[trained],
    )
    deploy(model=trained.outputs["out"], passed_sha256=passed.outputs["passed_sha256"])
    return passed.outputs["passed_sha256"]


@dsl.pipeline(name="looped")
def looped(model: str, data: str, policy: str):  # noqa: ANN201
    """Several measurements in a loop, collected."""
    imported = dsl.importer(artifact_uri=model, artifact_class=dsl.Model, reimport=True)
    table = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    rules = dsl.importer(artifact_uri=policy, artifact_class=dsl.Artifact, reimport=True)
    with dsl.ParallelFor(["black", "female"]) as attribute:
        fair = component("governance.fairness")(model=imported.output, dataset=table.output, outcome="need", attribute=attribute)
    told = {"model": imported.output, "model_name": "risk-a", "run_id": RUN_ID, "policy": rules.output}
    verdict = component("decide")(
        **told, collected=dsl.Collected(fair.outputs["evidence"]), collected_sha256=dsl.Collected(fair.outputs["evidence_sha256"])
    ).set_caching_options(False)
    component("enforce")(
        **told, verdict=verdict.outputs["verdict"], verdict_sha256=verdict.outputs["verdict_sha256"]
    ).set_caching_options(False)
