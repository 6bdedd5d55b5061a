"""A lineage in words: what each node is called, in lines that no name can break.

Names come from whoever signed. They are shown with every character that is not plainly visible written as an escape,
so that none can move a cursor, turn text around, or pass for the end of a line.
"""

from __future__ import annotations

from typing import Any, Literal

from mlseal.evidence.clock import rfc3339
from mlseal.evidence.lineage import Artifact, Gap, Graph, Step

Style = Literal["artifact", "build", "claim", "measured", "judged", "revoked", "revocation", "gap"]
SCHEMA = "https://mlseal.dev/lineage/v0.1"
DISCLAIMER = "Lineage shows what was signed, by whom; it judges nothing. Whether it suffices is for 'mlseal gate'."
_NAME = 60
_COMMITMENT = "name:hmac-sha256:"
_JUDGED = {"slsa-vsa", "human-approval", "waiver", "ownership"}
_REVOCATIONS = {"revocation", "revocation-snapshot"}


def visible(text: str, limit: int | None = None) -> str:
    """`text` on one line, with what is not printable written as an escape, cut to `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def title(graph: Graph, node: str) -> str:
    """What a node is called, in one line without its details."""
    if node in graph.artifacts:
        return _artifact(graph.artifacts[node])
    if node in graph.steps:
        return visible(graph.steps[node].job, _NAME)
    return {
        "withheld": "withheld statement",
        "unverifiable": "statement that does not verify",
        "unknown": "statement not in this log",
    }[graph.gaps[node].reason]


def lines(graph: Graph, node: str) -> list[str]:
    """What there is to know of a node, shortest first: claim, signer, time, and what was taken back."""
    if node in graph.artifacts:
        return _of_artifact(graph.artifacts[node])
    return _of_step(graph.steps[node]) if node in graph.steps else _of_gap(graph.gaps[node])


def style(graph: Graph, node: str) -> Style:
    """How a node is drawn."""
    if node in graph.artifacts:
        return "artifact"
    step = graph.steps.get(node)
    if step is None:
        return "gap"
    if step.revoked:
        return "revoked"
    if step.kind in _REVOCATIONS:
        return "revocation"
    if step.kind == "data-provenance" or step.claimed:
        return "claim"
    if step.kind == "slsa-provenance":
        return "build"
    return "judged" if step.kind in _JUDGED else "measured"


def short(digest: str) -> str:
    """A digest as people read it."""
    return digest[:16] + "…"


def document(graph: Graph) -> dict[str, Any]:
    """The lineage as JSON; a released `schema` never changes what its members mean, it may get further ones."""
    return {
        "schema": SCHEMA,
        "digest": graph.asked,
        "direction": graph.direction,
        "complete": graph.complete,
        "treeSize": graph.tree_size,
        "start": list(graph.start),
        "artifacts": [_artifact_json(one) for one in graph.artifacts.values()],
        "steps": [step_document(one) for one in graph.steps.values()],
        "gaps": [_gap_json(one) for one in graph.gaps.values()],
        "edges": [
            {
                "from": e.source,
                "to": e.target,
                "kind": e.kind,
                "claimed": e.claimed,
                **({"name": e.name} if e.name else {}),
            }
            for e in graph.edges
        ],
    }


def signer_name(step: Step) -> str:
    """The signer without what every URI begins with."""
    return visible(step.signer.san.removeprefix("https://"))


def _artifact(artifact: Artifact) -> str:
    names = artifact.names or artifact.called
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (" · ".join(map(_name, names[:3])) or "unnamed") + more


def _name(name: str) -> str:
    shown = visible(name)
    if shown.startswith(_COMMITMENT):
        shown = "committed name " + shown.removeprefix(_COMMITMENT)[:8] + "…"
    return shown if len(shown) <= _NAME else shown[: _NAME - 1] + "…"


def _of_artifact(artifact: Artifact) -> list[str]:
    if artifact.sha256 is None:
        return ["no SHA-256, so it cannot be followed"]
    called = [name for name in artifact.called if artifact.names and name not in artifact.names]
    return [f"sha256 {short(artifact.sha256)}", *([f"used as {', '.join(map(_name, called))}"] if called else [])]


def _of_step(step: Step) -> list[str]:
    said = [step.kind] if step.kind != step.job else []
    if step.origin:
        said.append(f"claimed lineage, origin: {step.origin}")
    elif step.strength:
        said.append(step.strength)
    if step.outcome:
        said.append(visible(step.outcome, _NAME))
    result = [", ".join(said)] if said else []
    result += [f"by {signer_name(step)}", rfc3339(step.time)]
    if step.builder:
        result.append(f"builder {visible(step.builder.removeprefix('https://'))}")
    for one in step.taken_back:
        result.append(f"{visible(one.reason)} by {visible(one.by.san.removeprefix('https://'))}")
        result += [] if one.counts else ["that is a third party: does not count"]
    return result


def _of_gap(gap: Gap) -> list[str]:
    result = [f"evidence {short(gap.evidence_id)}"]
    if gap.signer is not None:
        result.append(f"by {visible(gap.signer.san.removeprefix('https://'))}")
    if gap.log_origin is not None:
        result.append(f"entry {gap.log_index} of {visible(gap.log_origin)}")
    result.append(visible(gap.message))
    return result + (["taken back by its signer or the monitor: not missed"] if gap.accounted else [])


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "sha256": artifact.sha256,
        "names": artifact.names,
        "calledAs": artifact.called,
        "omsRoots": artifact.roots,
        "followed": artifact.followed,
    }


def step_document(step: Step) -> dict[str, Any]:
    """One step as JSON."""
    return {
        "id": step.id,
        "evidenceId": step.evidence_id,
        "predicateType": step.predicate_type,
        "kind": step.kind,
        "job": step.job,
        "signer": {"issuer": step.signer.issuer, "san": step.signer.san},
        "time": rfc3339(step.time),
        "log": {"origin": step.log_origin, "index": step.log_index},
        "bundleSha256": step.bundle_sha256,
        "assurance": vars(step.assurance),
        "strength": step.strength,
        "claimed": step.claimed,
        "origin": step.origin,
        "outcome": step.outcome,
        "builder": step.builder,
        "runId": step.run_id,
        "revoked": step.revoked,
        "takenBack": [
            {
                "evidenceId": one.evidence_id,
                "reason": one.reason,
                "counts": one.counts,
                "by": {"issuer": one.by.issuer, "san": one.by.san},
            }
            for one in step.taken_back
        ],
    }


def _gap_json(gap: Gap) -> dict[str, Any]:
    signer = gap.signer
    return {
        "id": gap.id,
        "evidenceId": gap.evidence_id,
        "reason": gap.reason,
        "message": gap.message,
        "signer": {"issuer": signer.issuer, "san": signer.san} if signer else None,
        "log": {"origin": gap.log_origin, "index": gap.log_index} if gap.log_origin is not None else None,
        "accounted": gap.accounted,
    }
