"""in-toto test-result v0.1: passed, warned or failed, with the tests by name.

The standard type for a check that has its own verdict (in-toto/attestation, spec/predicates/test-result.md).

Example::

    {"result": "PASSED", "configuration": [{"digest": {"sha256": "…"}}], "passedTests": ["schema"], "failedTests": []}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import Model, ResourceDescriptor, Strength

URI = "https://in-toto.io/attestation/test-result/v0.1"
SHORT = "test-result"


class Predicate(Model):
    """in-toto test-result v0.1."""

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: list[ResourceDescriptor]
    url: str | None = None
    passed_tests: list[str] = Field(default_factory=list)
    warned_tests: list[str] = Field(default_factory=list)
    failed_tests: list[str] = Field(default_factory=list)

    @property
    def strength(self) -> Strength:
        """What the configurations say under ``annotations.strength``, the weakest if several; declared if none does.

        The type is not ours and has no such field; the runner writes it there.
        """
        said = {(one.annotations or {}).get("strength") for one in self.configuration} - {None}
        if said == {"measured"}:
            return "measured"
        return "inferred" if "inferred" in said else "declared"
