"""Records → CycloneDX 1.6 ML-BOM, checked against the schema of the standard before anybody signs it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mlseal.errors import MalformedEvidence
from mlseal.evidence import canonical
from mlseal.evidence.digest import Measured
from mlseal.stages.base import require
from mlseal.stages.governance import figures
from mlseal.stages.governance.figures import Figure
from mlseal.stages.governance.records import Record, Records

_MOST = 40  # entries of a list, so that the statement stays below 64 kB
_NAMESPACE = uuid.UUID(
    "6d7c2f0e-8f4c-5a55-9b1e-2d6f3f8b7a10"
)  # random, fixed: equal contents have equal serial numbers


def bom_of(model: Measured, name: str, records: Records, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The bill of `model`, called `name`: its data by digest, its evidence by id, its card.

    `stated` is what people wrote (intended use, users, limitations). Raises `MalformedEvidence` if the result breaks
    the schema of CycloneDX 1.6.
    """
    component = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "hashes": [_hash(model.sha256)],
        "modelCard": _card(records, stated),
        "externalReferences": [_reference(record) for record in records.model if record.taken_back is None][-_MOST:],
    }
    made = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component},
        "components": [_data(resource) for resource in records.inputs[:_MOST]],
    }
    serial = uuid.uuid5(_NAMESPACE, canonical.dumps(made).decode())
    made = {"serialNumber": f"urn:uuid:{serial}", **made}
    _require_valid(made)
    return made


def _card(records: Records, stated: Mapping[str, Any]) -> dict[str, Any]:
    datasets = [{"ref": _ref(resource)} for resource in records.inputs[:_MOST]]
    measured = figures.of_records(records)
    left = len(measured) - _MOST
    cut = [f"{left} figures that are on the page and not in this bill"] if left > 0 else []
    limits = list(dict.fromkeys([*cut, *stated.get("limitations", []), *not_proven(records)]))
    considerations = {
        "users": list(stated.get("users", [])),
        "useCases": list(stated.get("uses", [])),
        "technicalLimitations": limits[:_MOST],
    }
    return {
        "modelParameters": {"datasets": datasets},
        "quantitativeAnalysis": {"performanceMetrics": metrics(measured[:_MOST])},
        "considerations": {name: value for name, value in considerations.items() if value},
    }


def metrics(found: Sequence[Figure]) -> list[dict[str, Any]]:
    """The figures as CycloneDX holds them: all values are text, and what is a bound has no interval."""
    return [
        {
            "type": figure.name,
            "value": figure.value,
            "slice": figure.of,
            **(
                {}
                if figure.ends is None
                else {"confidenceInterval": {"lowerBound": str(figure.ends[0]), "upperBound": str(figure.ends[1])}}
            ),
        }
        for figure in found
    ]


def not_proven(records: Records) -> list[str]:
    """What no record proves, each sentence once: first what decides nothing, then in the order of those that stand."""
    standing = [record for record in records.model if record.taken_back is None]
    weak = [
        f"anything by the figures of {record.kind} ({record.about_what}): by its own account it had not enough to go by"
        for record in standing
        if figures.undecided(record)
    ]
    return list(dict.fromkeys([*weak, *(text for record in standing for text in record.not_proven)]))


def _data(resource: Mapping[str, Any]) -> dict[str, Any]:
    digest = str(resource["digest"]["sha256"])
    return {
        "type": "data",
        "bom-ref": _ref(resource),
        "name": str(resource.get("name") or digest[:16]),
        "hashes": [_hash(digest)],
    }


def _ref(resource: Mapping[str, Any]) -> str:
    return f"sha256:{resource['digest']['sha256']}"


def _reference(record: Record) -> dict[str, Any]:
    return {
        "type": "attestation",
        "url": f"urn:sha256:{record.evidence_id}",
        "comment": f"{record.kind} by {record.signer} on {record.time}",
        "hashes": [_hash(record.evidence_id)],
    }


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _require_valid(bom: Mapping[str, Any]) -> None:
    require("cyclonedx", "card")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))
    if wrong is not None:
        raise MalformedEvidence("the bill of materials breaks CycloneDX 1.6", got=str(wrong)[:300])
