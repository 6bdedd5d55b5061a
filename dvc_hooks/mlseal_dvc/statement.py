"""The provenance statement of one output: what is known, and nothing that is only recorded passed off as known."""

from __future__ import annotations

from collections.abc import Mapping

from mlseal.evidence import statement as statements
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.predicates import data_provenance
from mlseal.evidence.predicates.base import ResourceDescriptor
from mlseal.evidence.statement import Statement
from mlseal_dvc import gitstate
from mlseal_dvc.objects import Content
from mlseal_dvc.origin import Origin
from mlseal_dvc.pointers import Dependency, Pointer
from mlseal_dvc.upstream import Imported

MAX_LINEAGE = 100
NOT_PROVEN = (
    "that the data are true, lawful, complete or representative",
    "that the recorded command, run on the recorded dependencies, made these bytes (dvc.lock is a claim)",
    "that the remote still holds these bytes: whoever pulls compares them",
)


def make(
    pointer: Pointer,
    content: Content,
    *,
    git: tuple[str | None, bool, str | None],
    remote: str,
    origin: Origin,
    known: Mapping[tuple[str, str], str],
    imports: Mapping[tuple[str, str], Imported] | None = None,
    dvc_version: str,
    naming: Naming = PLAIN,
    nonce: str | None = None,
) -> Statement:
    """The statement about `content` at `pointer`.

    Args:
        git: commit, dirty and URL of ``origin``.
        remote: URL of the DVC remote, without credentials.
        known: SHA-256 of other outputs by (path, object id), from evidence verified or signed in this run; the only
            way a dependency gets a digest. An MD5 stays an annotation: it must never stand in a digest set.
        imports: the same for imported data, with the source's evidence, which the lineage then names.
        naming: how every name in it is written.
        nonce: makes a statement of its own where somebody else said the same words before.
    """
    commit, dirty, url = git
    predicate = data_provenance.Predicate(
        path=naming.of("path", pointer.path),
        names_salt=naming.salt_id,
        dvc=data_provenance.DvcObject(
            oid=pointer.oid,
            hash=pointer.hash_name,
            version=dvc_version,
            stage=naming.of("stage", pointer.stage),
            command=naming.of("command", pointer.command) if pointer.command is not None else None,
        ),
        git=data_provenance.GitState(commit=commit, dirty=dirty, remote=url),
        origin=origin,
        files=content.files,
        size=content.size,
        remote=remote,
        lineage=[_describe(dep, known, imports or {}, naming) for dep in pointer.dependencies[:MAX_LINEAGE]],
        not_proven=[*NOT_PROVEN, *_cut(pointer)],
        **({"nonce": nonce} if nonce else {}),
    )
    return statements.make(content.subjects, data_provenance.URI, predicate.to_json(), names=naming)


def _cut(pointer: Pointer) -> list[str]:
    left = len(pointer.dependencies) - MAX_LINEAGE
    return [f"anything about {left} further dependencies, left out here"] if left > 0 else []


def _describe(
    dep: Dependency,
    known: Mapping[tuple[str, str], str],
    imports: Mapping[tuple[str, str], Imported],
    naming: Naming,
) -> ResourceDescriptor:
    digest = known.get((dep.path, dep.oid)) if dep.oid else None
    imported = imports.get((dep.path, dep.oid)) if dep.oid else None
    notes: dict[str, str | int | float | bool] = {"claimed": True}
    if dep.oid and dep.hash_name:
        notes["dvcHash"] = f"{dep.hash_name}:{dep.oid}"
    if imported is not None:
        digest = imported.sha256
        notes["evidence"] = f"sha256:{imported.evidence}"
    if dep.rev:
        notes["gitCommit"] = dep.rev
    return ResourceDescriptor(
        name=naming.of("path", dep.path),
        uri=gitstate.without_credentials(dep.repo_url) if dep.repo_url else None,
        digest={"sha256": digest} if digest else None,
        annotations=notes,
    )
