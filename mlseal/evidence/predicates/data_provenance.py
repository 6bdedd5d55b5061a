"""Data provenance: this identity pushed these bytes under this path, with this *recorded* lineage.

The subject is the data (a file's digest, or OMS root and manifest of a directory). DVC's own MD5 is an identifier and
stands here, never in a digest set: two in-toto digest sets match when any member matches.

What DVC records in ``dvc.lock`` proves nothing about an execution (``dvc commit -f`` writes it for hand-edited
outputs), so lineage is claimed, and ``origin`` says how the output came to be as far as is known.

Example::

    {"path": "data/cohort.parquet", "dvc": {"oid": "79054025…", "hash": "md5", "version": "3.67.1"},
     "git": {"commit": "9f2c…", "dirty": false}, "origin": "added", "files": 1, "size": 48213,
     "lineage": [], "notProven": ["that the data are true, lawful or complete"]}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, ResourceDescriptor, Text

URI = NAMESPACE + "data-provenance/v0.1"
SHORT = "data-provenance"


SaltId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class DvcObject(Model):
    """DVC's name for the content: an identifier for look-up, not a security digest."""

    oid: str
    hash: str
    version: str
    stage: str | None = None
    command: str | None = None


class GitState(Model):
    """The commit that pointed at the data, and whether the tree had other changes."""

    commit: str | None = None
    dirty: bool
    remote: str | None = None


class Predicate(Model):
    """Data provenance v0.1.

    Names (``path``, ``dvc.stage``, ``dvc.command``, names in ``lineage``, the subjects') stand as they are, or all of
    them as commitments (`mlseal.evidence.naming`); then ``namesSalt`` tells with which salt.

    Attributes:
        path: of the output, relative to the git root, POSIX.
        names_salt: id of the salt of committed names; absent where names stand as they are.
        origin: ``ran`` under mlseal, restored from the ``run-cache``, ``committed`` by hand, ``added``, ``imported``,
            or ``unknown``.
        lineage: recorded dependencies; claimed, not proven.
    """

    path: str
    dvc: DvcObject
    git: GitState
    origin: Literal["ran", "run-cache", "committed", "added", "imported", "unknown"]
    files: int = Field(ge=1)
    size: int = Field(ge=1)
    remote: str | None = None
    names_salt: SaltId | None = None
    lineage: list[ResourceDescriptor] = Field(default_factory=list)
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce | None = None
