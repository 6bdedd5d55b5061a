"""What ``mlseal dvc verify`` and ``evidence`` do, without the terminal around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlseal.errors import NoEvidence, Unchecked, UnknownName
from mlseal.evidence.clock import rfc3339
from mlseal_dvc import objects, pointers, sources, verifying, versioned
from mlseal_dvc.checking import ReadObject
from mlseal_dvc.desk import Desk
from mlseal_dvc.places import Place
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.verifying import Outcome


def open_repo(directory: Path) -> Any:
    """The DVC repository that `directory` lies in. Raises `UnknownName` outside of one."""
    from dvc.repo import Repo

    return Repo(root_of(directory))


def root_of(directory: Path) -> str:
    """The root of the DVC repository that `directory` lies in. Raises `UnknownName` outside of one."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return str(Repo.find_root(str(directory)))
    except NotDvcRepoError as error:
        raise UnknownName(
            f"{directory} is not inside a DVC repository",
            remedy="run it there; for data that are in no DVC: git init && dvc init, then dvc add DATA",
        ) from error


def place(repo: Any, remote: str | None) -> Place:
    """Where the evidence on `remote`, or the default one, lies. Raises `UnknownName` without a remote."""
    found = Desk(repo, remote).place_named(remote)
    if found is None:
        raise UnknownName("this repository has no DVC remote", remedy="dvc remote add -d NAME URL")
    return found


def verify(repo: Any, call: dict[str, Any], *, with_bytes: bool) -> list[Outcome]:
    """Verify evidence of every selected output, and its bytes from cache or remote. Nothing is written to the cache.

    Raises `NoEvidence` when nothing is selected: a check of nothing is not a pass.
    """
    desk = Desk(repo, call.get("remote"), of_others=True)
    work = pointers.selected(repo, call, strict=True)
    if not work:
        raise NoEvidence(
            "no tracked outputs are selected, so nothing was verified", remedy="check targets and revision"
        )
    outcomes = verifying.examine(desk, work, read=lambda p: remote_reader(desk, p) if with_bytes else None)
    if with_bytes:
        require_present(outcomes)
    return outcomes


def require_present(outcomes: Sequence[Outcome]) -> None:
    """Make an error of every verified output of which objects could not be read."""
    for outcome in outcomes:
        if outcome.error is None and outcome.comparison.absent:
            outcome.error = Unchecked(
                f"{outcome.comparison.absent} objects of {outcome.pointer.path} are neither here nor on the remote",
                remedy="have their owner push them, or verify with --evidence-only",
            )


def remote_reader(desk: Desk, pointer: Pointer) -> ReadObject:
    """Reads objects of `pointer` straight from its remote, keeping none of them; of an import, from the source's."""
    opened: list[tuple[Any, Pointer]] = []

    def read(oid: str) -> objects.Hashed | bytes | None:
        if not opened:
            source = sources.of(desk, pointer) if pointer.repo_import else None
            opened.append((source.remote, source.pointer) if source else (desk.remote_of(pointer), pointer))
        remote, there = opened[0]
        if remote is None:
            return None
        if versioned.is_versioned(remote):
            return there.listed if oid == there.oid and there.isdir else versioned.read(remote, there, oid)
        odb = remote.legacy_odb if pointer.hash_name == "md5-dos2unix" else remote.odb
        try:
            with odb.fs.open(odb.oid_to_path(oid), "rb") as file:
                return file.read() if oid.endswith(".dir") else objects.hash_stream(file)
        except FileNotFoundError:
            return None

    return read


def evidence(repo: Any, target: str, remote: str | None) -> Outcome:
    """The verified evidence of the one output that `target` names in the workspace."""
    work = pointers.selected(repo, {"targets": [target]}, strict=True)
    if len(work) != 1:
        raise UnknownName(f"{target} names {len(work)} outputs", expected="exactly one")
    outcome = verifying.examine(Desk(repo, remote, of_others=True), work, read=lambda _: None)[0]
    if outcome.error is not None:
        raise outcome.error
    return outcome


def row(outcome: Outcome) -> dict[str, object]:
    """One outcome for ``--json`` and tables."""
    attested = outcome.attested
    made: dict[str, object] = {
        "path": outcome.pointer.path,
        "oid": outcome.pointer.oid,
        "rev": outcome.pointer.rev,
        "ok": outcome.error is None,
        "objectsCompared": outcome.comparison.present,
        "objectsAbsent": outcome.comparison.absent,
    }
    if attested is not None:
        verified = attested.verified
        made |= {
            "sha256": attested.sha256,
            "evidenceId": verified.evidence_id,
            "signer": verified.identity.san,
            "issuer": verified.identity.issuer,
            "signedOn": rfc3339(verified.time),
            "origin": verified.statement.predicate["origin"],
        }
    if outcome.error is not None:
        made["error"] = outcome.error.to_dict()
    return made


def report(outcomes: Sequence[Outcome], say: Callable[[str], None]) -> None:
    """One line for each outcome."""
    for outcome in outcomes:
        path = printable(outcome.pointer.path)
        if outcome.error is not None or outcome.attested is None:
            say(f"REFUSED  {path}: {outcome.error}")
            continue
        verified, comparison = outcome.attested.verified, outcome.comparison
        seen = f"{comparison.present} objects compared" + (
            f", {comparison.absent} not looked at" if comparison.absent else ""
        )
        say(f"ok       {path}: signed by {verified.identity.san} on {rfc3339(verified.time)}, {seen}")


def printable(text: str) -> str:
    """`text` on one line: a name with a newline must not begin a line that a terminal or a CI runner obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
