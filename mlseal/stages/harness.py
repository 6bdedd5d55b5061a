"""Who measures with which configuration on which inputs: what a measurement records, and the key of evidence reuse."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mlseal.evidence import canonical
from mlseal.evidence.digest import Measured
from mlseal.evidence.predicates.base import Harness
from mlseal.stages.arguments import Arguments
from mlseal.stages.registry import Registered


def harness_of(registered: Registered, parsed: Arguments, measured: Mapping[str, Measured]) -> Harness:
    """Who measures with which configuration on which inputs: with the signer, the key of evidence reuse."""
    inputs = {name: one.sha256 for name, one in measured.items()}
    read = canonical.dumps({"inputs": inputs, "seed": str(parsed.values.get("seed", ""))})
    return Harness(
        name=registered.stage.name,
        version=registered.version,
        provider=registered.provider,
        config_digest=hashlib.sha256(parsed.configuration).hexdigest(),
        inputs_digest=hashlib.sha256(read).hexdigest(),
    )
