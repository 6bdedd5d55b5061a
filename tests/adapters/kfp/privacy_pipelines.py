"""The privacy stages as a pipeline author connects them."""

from kfp import dsl
from mlseal_kfp import component


@dsl.pipeline(name="privacy")
def privacy(data: str, sites: str, columns: str, run_id: str = ""):  # noqa: ANN201
    """Train privately, score under encryption what was trained, and train across two clients."""
    table = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
    clients = dsl.importer(artifact_uri=sites, artifact_class=dsl.Dataset, reimport=True)
    learned = {"outcome": "need", "features": columns, "ranges": {"age": "0:90"}}
    private = component("training.dp")(
        dataset=table.output,
        unit_column="person",
        epsilon="8",
        delta="0.001",
        rows_per_unit=2,
        epochs=2,
        batch=60,
        run_id=run_id,
        **learned,
    )
    component("training.encrypted_scoring")(
        model=private.outputs["out"], model_sha256=private.outputs["out_sha256"], dataset=table.output
    )
    component("training.federated")(dataset=clients.output, topology="simulation", rounds_wanted=2, **learned)
