"""A lineage as OpenLineage events: one RunEvent for each statement, made with openlineage-python's own classes.

An artifact is the dataset named by its SHA-256 in the namespace ``sha256``: names are what signers call it, and two
things of one name must not become one. A step is a run, whose id is the UUIDv5 of its evidence id. What a statement is
*about* is an input: it was looked at and not changed.

OpenLineage has no word for a claim. A job whose lineage is only claimed is therefore called ``claimed/…``, and says so
in its facets: a consumer that draws every edge alike still shows that name. Nothing is sent anywhere.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from mlseal import __version__
from mlseal.cli.lineage_words import step_document, visible
from mlseal.errors import MissingExtra
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.lineage import Artifact, Edge, EdgeKind, Graph, Step

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Job, Run, RunEvent

PRODUCER = f"https://mlseal.dev/lineage/{__version__}"
SCHEMA = "https://mlseal.dev/openlineage/v0.1"
"""Of our facets; their fields are those of ``--format json``."""
DATASETS = "sha256"
UNDIGESTED = "mlseal-undigested"
RUNS = uuid.uuid5(uuid.NAMESPACE_URL, "https://mlseal.dev/lineage/run")
_INPUT: dict[EdgeKind, bool] = {"used": True, "about": True, "produced": False, "recorded": False}
_JOB_TYPE = {
    "slsa-provenance": "BUILD",
    "data-provenance": "CLAIM",
    "slsa-vsa": "VERDICT",
    "human-approval": "APPROVAL",
    "revocation": "REVOCATION",
    "revocation-snapshot": "REVOCATION",
}


def write(graph: Graph) -> str:
    """One event a line, in the order of the log. Raises `MissingExtra` where openlineage-python is not installed."""
    events = made(graph)
    from openlineage.client.serde import Serde

    return "".join(f"{Serde.to_json(event)}\n" for event in events)


def made(graph: Graph) -> list[RunEvent]:
    """The events as objects of openlineage-python; each was checked by its own validators."""
    try:
        from openlineage.client import event_v2
    except ImportError as error:
        raise MissingExtra(
            "openlineage-python is needed and not installed", got=str(error), remedy="pip install 'mlseal[lineage]'"
        ) from error
    datasets, rests_on = _Datasets(graph), defaultdict(list)
    for edge in graph.edges:
        if edge.kind == "read":
            rests_on[edge.target].append(edge.source.removeprefix("evidence:"))
    return [
        event_v2.RunEvent(
            eventType=event_v2.RunState.COMPLETE,
            eventTime=rfc3339(step.time),
            producer=PRODUCER,
            run=_run(step, {"restsOn": rests_on[step.id], "lineageComplete": graph.complete}),
            job=_job(step),
            inputs=list(datasets.of(step, inputs=True)),
            outputs=list(datasets.of(step, inputs=False)),
        )
        for step in graph.steps.values()
    ]


def run_id(evidence_id: str) -> str:
    """The run that a piece of evidence is; the same everywhere."""
    return str(uuid.uuid5(RUNS, evidence_id))


class _Datasets:
    """The datasets of each step, artifacts with their facets."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._edges: dict[str, list[Edge]] = {node: [] for node in graph.steps}
        for edge in graph.edges:
            if edge.kind in _INPUT:
                step, _ = (edge.target, edge.source) if edge.kind == "used" else (edge.source, edge.target)
                if step in self._edges:
                    self._edges[step].append(edge)

    def of(self, step: Step, *, inputs: bool) -> Iterator[Any]:
        """Inputs or outputs, each artifact once; how it is linked stands in the facet ``mlseal_link``."""
        from openlineage.client import event_v2

        links: dict[str, list[Edge]] = {}
        for edge in self._edges[step.id]:
            if _INPUT[edge.kind] is inputs:
                links.setdefault(edge.source if edge.kind == "used" else edge.target, []).append(edge)
        for node, edges in links.items():
            artifact = self._graph.artifacts[node]
            where: dict[str, Any] = {
                "namespace": DATASETS if artifact.sha256 else UNDIGESTED,
                "name": artifact.sha256 or visible(artifact.id),
                "facets": _dataset_facets(artifact),
            }
            said = {
                "kinds": sorted({edge.kind for edge in edges}),
                "claimed": all(edge.claimed for edge in edges),
                "calledAs": sorted({edge.name for edge in edges if edge.name}),
            }
            if inputs:
                link = _facet("InputDatasetFacet", "LinkInputDatasetFacet", said)
                yield event_v2.InputDataset(**where, inputFacets={"mlseal_link": link})
            else:
                link = _facet("OutputDatasetFacet", "LinkOutputDatasetFacet", said)
                yield event_v2.OutputDataset(**where, outputFacets={"mlseal_link": link})


def _dataset_facets(artifact: Artifact) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, documentation_dataset

    names = artifact.names or artifact.called
    said = {"sha256": artifact.sha256, "names": names, "omsRoots": artifact.roots}
    facets: dict[str, Any] = {"mlseal_digest": _facet("DatasetFacet", "DigestDatasetFacet", said)}
    if artifact.sha256:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=f"sha256:{artifact.sha256}", producer=PRODUCER
        )
    if names:
        facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(
            description="called " + ", ".join(map(visible, names)), producer=PRODUCER
        )
    return facets


def _run(step: Step, more: dict[str, Any]) -> Run:
    from openlineage.client import event_v2

    said = {**step_document(step), **more}
    return event_v2.Run(
        runId=run_id(step.evidence_id), facets={"mlseal_evidence": _facet("RunFacet", "EvidenceRunFacet", said)}
    )


def _job(step: Step) -> Job:
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import documentation_job, job_type_job, ownership_job

    claimed = step.claimed or step.kind == "data-provenance"
    words = "lineage as its signer claims it" if claimed else f"{step.kind} statement"
    return event_v2.Job(
        namespace=f"mlseal://{step.log_origin}",
        name=("claimed/" if claimed else "") + visible(step.job),
        facets={
            "documentation": documentation_job.DocumentationJobFacet(
                description=f"{words}, signed; what stands behind it is in mlseal_evidence", producer=PRODUCER
            ),
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="BATCH",
                integration="MLSEAL",
                jobType="CLAIM" if claimed else _JOB_TYPE.get(step.kind, "STATEMENT"),
                producer=PRODUCER,
            ),
            "ownership": ownership_job.OwnershipJobFacet(
                owners=[ownership_job.Owner(name=step.signer.san, type="SIGNER")], producer=PRODUCER
            ),
        },
    )


def _facet(base: str, name: str, said: dict[str, Any]) -> Any:
    """A facet of ours with these members, as a class of the library's, with producer and schema as it asks."""
    return _facet_class(base, name, tuple(said))(**said, producer=PRODUCER)


@cache  # making a class takes a millisecond, and each step has several facets
def _facet_class(base: str, name: str, members: tuple[str, ...]) -> Callable[..., Any]:
    import attr
    from openlineage.client.generated import base as library

    own = type(name, (getattr(library, base),), {"_get_schema": staticmethod(lambda: f"{SCHEMA}#/$defs/{name}")})
    return attr.make_class(name, list(members), bases=(own,))
