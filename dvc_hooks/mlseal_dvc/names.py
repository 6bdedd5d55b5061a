"""How evidence about a remote's data writes names: as they are, or committed with the salt that lies beside the data.

``attestations/v1/names.salt`` holds 64 hex digits, or the word ``forgotten``. Whoever may read the data may read their
names; a bundle alone, which travels to logs, registries and auditors, tells none. Readers and writers keep the salt
among this user's own, so that a checkout needs no network and a deleted salt comes back with the next push.

Nothing here is trusted. A salt that somebody exchanged fits no commitment: nobody can find one under which a signed
commitment is that of another path. So a wrong salt makes evidence uncheckable and can make it nothing else.

Committed is the stricter word, and whoever says it wins: the command line, ``$MLSEAL_NAMES``, this clone's git
configuration, ``.dvc/mlseal.json``, or the remote, by having a salt. Only ``--names plain`` on the command line of one
push undoes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlseal.errors import Error, ServiceUnavailable, Unchecked
from mlseal.evidence import naming, salts
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.salts import Salts
from mlseal_dvc import layout
from mlseal_dvc.places import Place

if TYPE_CHECKING:
    from mlseal.evidence.predicates.data_provenance import Predicate
    from mlseal_dvc.desk import Desk
    from mlseal_dvc.pointers import Pointer

_FORGOTTEN = b"forgotten\n"
_LOOKED_AT = 64
_REMEDY = "restore names.salt beside the data, or have the owner sign again: mlseal dvc push"


def on(place: Place) -> Naming:
    """What the remote says: committed with its salt, or `PLAIN` if it has none or it was forgotten.

    Raises `Unchecked` for a file that is no salt, and where the remote cannot be reached.
    """
    data = place.read(layout.SALT)
    return PLAIN if data in (None, _FORGOTTEN) else Naming(salts.decode(data or b"", f"{place}/{layout.SALT}"))


def established(place: Place) -> Naming:
    """`on`, with a salt made if there is none. Of several that are made at once the one on the remote counts."""
    found = on(place)
    if not found.committed:
        own = _kept_for(place)
        if place.read(layout.SALT) is None:
            place.create(layout.SALT, salts.encode(own.create()))
        else:  # forgotten: what was kept before must not come back
            own.forget()
            place.write(layout.SALT, salts.encode(own.create()))
        found = on(place)
    keep(place, found)
    return found


def require_still(place: Place, salt_ids: Sequence[str | None]) -> None:
    """Raise `Unchecked` unless the remote still has the salt of every committed name that is about to go there."""
    if any(salt_ids) and set(salt_ids) - {None, on(place).salt_id}:
        raise Unchecked(
            f"the salt of names at {place} changed while this push ran",
            expected="one salt from beginning to end",
            remedy="push again; what was signed is signed anew under the present salt",
        )


def keep(place: Place, used: Naming) -> None:
    """Keep the salt of a remote among this user's own."""
    if used.salt is not None:
        _kept_for(place).keep(used.salt)


def forget(place: Place) -> int:
    """Erase the salt on the remote and here; how many were erased here. Copies that others keep are out of reach."""
    place.write(layout.SALT, _FORGOTTEN)
    return _kept_for(place).forget()


class Known:
    """The salts under which evidence may be looked for.

    Args:
        places: this user's own copies first, then remotes; a remote is asked when its turn comes, and once.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = tuple(places)
        self._asked: dict[str, Naming] = {}

    def at(self, place: Place) -> list[Naming]:
        """Salts that evidence in `place` may be committed with: any of this user's own; of a remote, its own."""
        if place is self._places[0]:
            return [Naming(salt) for salt in salts.every()]
        kept = [Naming(salt) for salt in _kept_for(place).kept()]
        return list(dict.fromkeys([named for named in (self._asked_of(place), *kept) if named.committed]))

    def name(self, predicate: Predicate, pointer: Pointer) -> bool:
        """Whether the statement is about the path of `pointer`, compared as the statement writes it.

        Raises `Unchecked` when the statement's salt is not here: then nobody can tell what it is about.
        """
        if predicate.names_salt is None:
            return predicate.path in pointer.names
        for place in self._places:
            for named in self.at(place):
                if named.salt_id == predicate.names_salt:
                    self._keep(named)
                    return predicate.path in {named.of("path", name) for name in pointer.names}
        raise _saltless(pointer, predicate.names_salt)

    def hidden(self, pointer: Pointer) -> Unchecked | None:
        """Why nothing was found although there may be something: evidence about this object under an unknown salt."""
        directory = layout.versions(pointer.hash_name, pointer.oid, pointer.path)
        known = {named.salt_id for place in self._places for named in self.at(place)}
        for place in self._places:
            listed = place.names(directory)
            if listed is None and place.read(layout.SALT) == _FORGOTTEN:
                return _saltless(pointer, "forgotten")
            for name in (listed or [])[:_LOOKED_AT]:
                said = _salt_said(place.read(name))
                if said is not None and said not in known:
                    return _saltless(pointer, said)
        return None

    def unreadable(self, salt_id: str | None) -> bool:
        """Whether nobody here can tell any more which names were committed with this salt. False for plain names."""
        known = {named.salt_id for place in self._places for named in self.at(place)}
        return salt_id is not None and salt_id not in known

    def _asked_of(self, place: Place) -> Naming:
        if str(place) not in self._asked:
            try:
                self._asked[str(place)] = on(place)
            except ServiceUnavailable:
                raise
            except Unchecked:  # no salt at all: evidence that needs it says so
                self._asked[str(place)] = PLAIN
        return self._asked[str(place)]

    def _keep(self, used: Naming) -> None:
        """Where evidence verifies under a remote's salt, keep that salt beside the copies of the evidence."""
        for place in self._places[1:]:
            if self._asked.get(str(place)) == used:
                keep(place, used)


def wished(desk: Desk, pointer: Pointer) -> Naming:
    """How evidence about `pointer` is to be written by this user; see the module for who decides.

    Raises `Unchecked` where the remote cannot tell, `Misuse` for a word that is neither plain nor committed.
    """
    place, asked = desk.place_of(pointer), "committed" in (naming.wished(), desk.governance.names, desk.session.names)
    if desk.session.names == "plain":
        return PLAIN
    if place is None:
        return Naming(Salts(f"dvc repository {desk.repo.root_dir}").create()) if asked else PLAIN
    return established(place) if asked or on(place).committed else PLAIN


def _kept_for(place: Place) -> Salts:
    return Salts(f"dvc remote {place}")


def _salt_said(raw: bytes | None) -> str | None:
    try:
        said = Bundle(raw or b"").statement.predicate.get("namesSalt")
    except Error:
        return None
    return said if isinstance(said, str) else None


def _saltless(pointer: Pointer, salt_id: str) -> Unchecked:
    return Unchecked(
        f"the names in the evidence for {pointer.path} are committed with a salt that is not here",
        got=f"salt {salt_id}",
        expected="the salt that the signer used",
        remedy=_REMEDY,
    )
