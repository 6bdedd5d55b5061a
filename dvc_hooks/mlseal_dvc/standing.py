"""How each tracked output stands: signed by whom and when, unsigned, changed, foreign, revoked, not on the remote.

Only looks: nothing is fetched, moved to quarantine or kept. The states, the first that fits:

=================  ===================================================================================  =========
state              meaning                                                                              exit code
=================  ===================================================================================  =========
``foreign``        evidence exists and is by nobody whom the policy lists                               10
``revoked``        its signer, or a listed revoker, took it back                                        10
``altered``        bytes in the cache are not the signed ones                                           10
``refused``        evidence exists and is wrong in another way                                          10
``unsigned``       nobody signed this version                                                           11
``unchecked``      could not be told                                                                    11
``changed``        the workspace holds other bytes than the recorded version, which is signed           11
``not on remote``  signed, but evidence or data are not there for others                                11
``signed``         none of these                                                                        0
=================  ===================================================================================  =========
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlseal.errors import DigestMismatch, Error, NoEvidence, Refusal, Revoked, RuleBroken, Unchecked, UntrustedSigner
from mlseal.evidence.clock import rfc3339
from mlseal_dvc import checking, commands, gitstate, places, pointers, sources, verifying, versioned
from mlseal_dvc.checking import Attested
from mlseal_dvc.desk import Desk
from mlseal_dvc.pointers import Pointer

SIGNED, CHANGED, NOT_ON_REMOTE = "signed", "changed", "not on remote"


@dataclass(frozen=True)
class Standing:
    """One output. ``error`` says why, unless it is signed; ``attested`` is its evidence as far as it verified."""

    pointer: Pointer
    state: str
    attested: Attested | None
    error: Error | None

    @property
    def exit_code(self) -> int:
        """What this output alone would end the command with."""
        if self.state == SIGNED:
            return 0
        return Refusal.exit_code if isinstance(self.error, Refusal) else Unchecked.exit_code

    def row(self) -> dict[str, object]:
        """It for ``--json``."""
        made: dict[str, object] = {"path": self.pointer.path, "oid": self.pointer.oid, "state": self.state}
        if self.attested is not None:
            verified = self.attested.verified
            made |= {
                "signer": verified.identity.san,
                "issuer": verified.identity.issuer,
                "signedOn": rfc3339(verified.time),
                "origin": verified.statement.predicate["origin"],
                "names": "committed" if self.attested.salt_id else "plain",
                "evidenceId": verified.evidence_id,
            }
        if self.error is not None:
            made["error"] = self.error.to_dict()
        return made

    def line(self) -> str:
        """It for people."""
        text = f"{self.state:<14} {commands.printable(self.pointer.path)}"
        if self.attested is not None:
            row = self.row()
            text += f": by {row['signer']} on {row['signedOn']}, origin {row['origin']}, {row['names']} names"
        return text if self.error is None else f"{text}: {self.error}"


def examine(repo: Any, call: dict[str, Any], *, quick: bool = False) -> list[Standing]:
    """How every selected output of the workspace stands.

    Args:
        quick: do not read the bytes in the cache, and ask the remote for one object of each output only.
    """
    desk = Desk(repo, call.get("remote"), of_others=True)
    return [_stand(desk, pointer, quick) for pointer in pointers.selected(repo, call, strict=True)]


def exit_code(standings: Sequence[Standing]) -> int:
    """The gravest: 10, then 11, then 0."""
    return min((standing.exit_code for standing in standings if standing.exit_code), default=0)


def _stand(desk: Desk, pointer: Pointer, quick: bool) -> Standing:
    attested = None
    try:
        attested = verifying.attested(desk, pointer)
        if not quick:
            _require_bytes(attested, pointer)
        _require_workspace(desk, pointer)
        _require_on_remote(desk, pointer, attested, quick)
    except _Stands as stands:
        return Standing(pointer, stands.state, attested, stands.error)
    except Error as error:
        return Standing(pointer, _state_of(error), attested, error)
    return Standing(pointer, SIGNED, attested, None)


class _Stands(Exception):
    def __init__(self, state: str, error: Error) -> None:
        self.state, self.error = state, error
        super().__init__(state)


def _state_of(error: Error) -> str:
    named: tuple[tuple[type[Error], str], ...] = (
        (UntrustedSigner, "foreign"),
        (Revoked, "revoked"),
        (NoEvidence, "unsigned"),
        (Refusal, "refused"),
    )
    if isinstance(error, RuleBroken) and "does not list this signer" in error.message:
        return "foreign"
    return next((state for kind, state in named if isinstance(error, kind)), "unchecked")


def _require_bytes(attested: Attested, pointer: Pointer) -> None:
    bad = checking.compare(attested, pointer).bad
    if bad:
        raise _Stands(
            "altered", DigestMismatch(bad[0][2], remedy="dvc pull moves it to quarantine and brings the signed bytes")
        )


def _require_workspace(desk: Desk, pointer: Pointer) -> None:
    here = os.path.lexists(os.path.join(gitstate.top(desk.repo), pointer.path))
    if here and not pointer.unchanged():
        raise _Stands(
            CHANGED,
            Unchecked(
                f"{pointer.path} is not the version that is recorded and signed",
                remedy=f"record it with dvc add or dvc repro, then push; or dvc checkout {pointer.path}",
            ),
        )


def _require_on_remote(desk: Desk, pointer: Pointer, attested: Attested, quick: bool) -> None:
    """It is there for others; of an import, at its source."""
    source = sources.of(desk, pointer) if pointer.repo_import else None
    remote, there = (source.remote, source.pointer) if source is not None else (desk.remote_of(pointer), pointer)
    if remote is None:
        raise _Stands(
            NOT_ON_REMOTE, Unchecked("this repository has no DVC remote", remedy="dvc remote add -d NAME URL")
        )
    place = places.of_remote(remote)
    if str(attested.place) != str(place) and place.read(checking.filed(attested.verified)) is None:
        raise _absent(pointer, "its evidence is not")
    try:
        missing, asked = _missing(remote, there, quick)
    except Exception as error:  # each remote has its own errors
        raise Unchecked("the remote cannot be asked", got=f"{type(error).__name__}: {error}"[:160]) from error
    if missing:
        raise _absent(pointer, f"{missing} of its {asked} objects are not")


def _missing(remote: Any, pointer: Pointer, quick: bool) -> tuple[int, int]:
    """How many objects are not on the remote, of how many that were asked for."""
    if versioned.is_versioned(remote):
        return versioned.absent(remote, pointer, quick=quick)
    odb = remote.legacy_odb if pointer.hash_name == "md5-dos2unix" else remote.odb
    wanted = [pointer.oid] if quick else _objects(pointer)
    there = set(odb.oids_exist(wanted)) if len(wanted) > 1 else {oid for oid in wanted if odb.exists(oid)}
    return len(set(wanted) - there), len(wanted)


def _absent(pointer: Pointer, what: str) -> _Stands:
    return _Stands(NOT_ON_REMOTE, Unchecked(f"{pointer.path}: {what} on the remote", remedy="dvc push"))


def _objects(pointer: Pointer) -> list[str]:
    """The object ids of an output, as far as its directory object is here and readable."""
    from mlseal_dvc import objects

    raw = pointer.directory_object() if pointer.isdir else None
    return [pointer.oid, *(dict.fromkeys(objects.read_tree(raw, pointer.path).values()) if raw is not None else ())]
