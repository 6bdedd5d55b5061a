"""The two pipelines of the main job.

    mlseal kfp compile examples/demo/pipeline.py --image REPOSITORY@sha256:…      for a cluster
    mlseal kfp compile examples/demo/pipeline.py --host                          for this machine, development

``build`` runs in the team's name: it verifies where the data come from and trains. ``release`` runs in the name of
governance: it verifies the data for itself, measures the finished model again, judges, and stops or lets pass.
A run has one account; what the training account says about fairness would be its own word about its own work.
"""

from kfp import dsl
from mlseal_kfp import component, gate


@dsl.pipeline(name="build", description="Verify the data's provenance, then train.")
def build(
    data_uri: str,
    script_uri: str,
    provenance_issuer: str,
    provenance_san: str,
    training: dict = {},  # noqa: B006 - KFP reads the default, nothing shares it
) -> str:
    """Verified data in, a model and the evidence of its training out.

    Args:
        data_uri: directory with the data set, as DVC checked it out.
        script_uri: the training program.
        provenance_issuer: who must have vouched for the signer of the data.
        provenance_san: the signer of the data.
        training: settings of the training program.
    """
    data = dsl.importer(artifact_uri=data_uri, artifact_class=dsl.Dataset, reimport=True).set_display_name("data")
    script = dsl.importer(artifact_uri=script_uri, artifact_class=dsl.Artifact, reimport=True).set_display_name(
        "script"
    )
    source = component("ingestion.source")(
        dataset=data.output, issuer=provenance_issuer, san=provenance_san, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    )
    trained = component("training.run")(
        script=script.output, data=data.output, parameters=training, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    ).after(source)
    return trained.outputs["out_sha256"]


@dsl.pipeline(name="release", description="Measure fairness against need, judge, enforce.")
def release(
    model_uri: str,
    data_uri: str,
    model_name: str,
    model_sha256: str,
    outcome: str,
    attribute: str,
    cluster: str = "",
    table: str = "test.parquet",
    select: str = "top:0.25",
    producer_issuer: str = "",
    producer_san: str = "",
    provenance_issuer: str = "",
    provenance_san: str = "",
) -> str:
    """A model in; the digest of what passed out, or a stop that says why.

    Args:
        model_uri: the model that ``build`` made.
        data_uri: directory with the data set.
        model_name: name that policies know the model by.
        model_sha256: digest that ``build`` reported.
        outcome: column of the measured need.
        attribute: column whose groups are compared.
        cluster: column of rows that belong together; empty for none.
        table: the table inside the directory.
        select: who is chosen by the model's score.
        producer_issuer: who must have vouched for the account that trained.
        producer_san: the account that trained; its provenance is verified before the model's code runs.
        provenance_issuer: who must have vouched for the signer of the data.
        provenance_san: the signer of the data; the table that is measured on is theirs, or nothing is measured.
    """
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=True).set_display_name("model")
    data = dsl.importer(artifact_uri=data_uri, artifact_class=dsl.Dataset, reimport=True).set_display_name("data")
    source = component("ingestion.source")(
        dataset=data.output, issuer=provenance_issuer, san=provenance_san, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
    )
    fair = component("governance.fairness")(
        model=model.output,
        model_sha256=model_sha256,
        dataset=data.output,
        outcome=outcome,
        attribute=attribute,
        cluster=cluster,
        table=table,
        select=select,
        producer_issuer=producer_issuer,
        producer_san=producer_san,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    ).after(source)
    passed = gate(model=model.output, model_sha256=model_sha256, model_name=model_name, evidence=[source, fair])
    return passed.outputs["passed_sha256"]
