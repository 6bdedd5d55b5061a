"""Evidence of outputs, from this user's own copies first and then from the remote. All of it untrusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlseal.errors import MalformedEvidence
from mlseal.evidence import paths
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.identity import Identity, IdentityMatcher
from mlseal.evidence.naming import PLAIN, Naming
from mlseal_dvc import layout
from mlseal_dvc.names import Known
from mlseal_dvc.places import DirectoryPlace, Place
from mlseal_dvc.pointers import Pointer


def own_copies() -> DirectoryPlace:
    """This user's copies, shared by all clones; so that a checkout needs no network."""
    return DirectoryPlace(paths.state_dir() / "dvc" / "attestations" / "v1")


class Shelf:
    """Where the evidence of one output is looked for, in order.

    Args:
        places: this user's own copies first, always.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        self.names = Known(self.places)

    def bundles(self, pointer: Pointer, signers: Sequence[IdentityMatcher]) -> Iterator[tuple[Bundle, Place]]:
        """Candidate bundles and where they were found, each evidence once; unreadable files are passed over.

        Names are computed for each exact identity of `signers`; where a place can be listed, others are found too
        (a policy may accept a whole e-mail domain). Committed names come before plain ones: a project that changed over
        keeps its older evidence.
        """
        seen: set[bytes] = set()
        for place in self.places:
            for name in _names(place, pointer, signers, self.names.at(place)):
                raw = place.read(name)
                if raw and raw not in seen:
                    seen.add(raw)
                    yield Bundle(raw), place

    def about_object(self, pointer: Pointer) -> Iterator[Bundle]:
        """Every bundle filed for this object under any path, in places that can be listed; unreadable ones left out."""
        directory = layout.versions(pointer.hash_name, pointer.oid, pointer.path)
        for place in self.places:
            for name in place.names(directory) or ():
                raw = place.read(name) if name.endswith(layout.SUFFIX) else None
                if raw:
                    yield Bundle(raw)

    def remember(self, bundle: Bundle, name: str, manifest: tuple[str, bytes] | None) -> None:
        """Keep verified evidence among this user's own copies, for checkouts without network and for imports."""
        own = self.places[0]
        if manifest is not None and own.read(layout.manifest(manifest[0])) != manifest[1]:
            own.write(layout.manifest(manifest[0]), manifest[1])
        own.write(name, bundle.raw)

    def manifest(self, sha256: str, first: Place) -> bytes:
        """The manifest with this digest, from `first` or elsewhere. Raises `MalformedEvidence` when nobody has it."""
        for place in (first, *self.places):
            data = place.read(layout.manifest(sha256))
            if data is not None:
                return data
        raise MalformedEvidence(
            f"manifest {sha256[:16]}… is missing beside its bundle",
            remedy="push again from a clone that has the data, or restore the remote's attestations/",
        )


def _names(place: Place, pointer: Pointer, signers: Sequence[IdentityMatcher], namings: Sequence[Naming]) -> list[str]:
    names: list[str] = []
    for path in [named.of("path", path) for named in (*namings, PLAIN) for path in pointer.names]:
        slot = layout.slot(pointer.hash_name, pointer.oid, path)
        names += [layout.bundle(slot, signer) for signer in signers if isinstance(signer, Identity)]
        names += place.names(slot) or []
    return [name for name in dict.fromkeys(names) if name.endswith(layout.SUFFIX)]
