"""OpenSSF Model Signing 1.0: the files of a model or data set, by name and digest (ossf/model-signing-spec).

Made by `mlseal.evidence.oms`; the predicate is exactly that of the specification.

Example::

    {"resources": [{"name": "model.pkl", "digest": "…", "algorithm": "sha256"}],
     "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false}}
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from mlseal.evidence.predicates.base import Model

URI = "https://model_signing/signature/v1.0"
SHORT = "oms-signature"


class Resource(Model):
    """One file (or shard)."""

    name: str
    digest: str
    algorithm: str


class Serialization(Model):
    """How the files were read. Snake case, as the specification has it."""

    model_config = ConfigDict(alias_generator=None)

    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: list[str] = Field(default_factory=list)


class Predicate(Model):
    """OMS signature v1.0."""

    resources: list[Resource] = Field(min_length=1)
    serialization: Serialization
