"""Evidence about an output, verified; and its bytes, compared with it.

Steps of `Checker.attested`, performed under these numbers; any exception refuses:

1. Who may have signed this output: from the caller's policy or command line. Nobody named: stop.
2. Candidates by computed name. None: `NoEvidence`.
3. Shape: a file has one subject; a directory has two, OMS root and ``#manifest``, both recomputed here from the
   manifest's bytes.
4. `mlseal.evidence.verifying.Verifier`, all its steps.
5. The statement names this path, this object id and this hash: another output's evidence, or another version's, is not
   about this one. A committed path is compared by committing this one (`names`); without the salt nothing passes.
6. Every matching policy accepts signer, age and assurance.

`compare` then holds the bytes against it: the directory object lists exactly the manifest's paths, and every file has
the manifest's SHA-256 and size. MD5 decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mlseal.errors import DigestMismatch, Error, ForgedEvidence, MalformedEvidence, NoEvidence, Refusal
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Manifest, Subject
from mlseal.evidence.predicates import data_provenance
from mlseal.evidence.revocation import Revocations
from mlseal.evidence.statement import Statement
from mlseal.evidence.store import BundleStore
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import VerifiedStatement, Verifier
from mlseal_dvc import layout, logcopy, objects
from mlseal_dvc.governing import Rule
from mlseal_dvc.places import Place
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.shelf import Shelf

ReadObject = Callable[[str], "objects.Hashed | bytes | None"]


@dataclass(frozen=True)
class Attested:
    """Verified evidence about one output version.

    Attributes:
        verified: the statement.
        manifest: of a directory, from bytes that hash to a subject; None for a file.
        bundle: the bytes that were verified.
        place: where they were found.
    """

    verified: VerifiedStatement
    manifest: Manifest | None
    bundle: Bundle
    place: Place

    @property
    def sha256(self) -> str:
        """The binding digest: what `measure` gives for the pulled output."""
        return self.verified.subjects[-1].sha256

    @property
    def salt_id(self) -> str | None:
        """Of its committed names; None for plain ones."""
        predicate = self.verified.predicate
        assert isinstance(predicate, data_provenance.Predicate)
        return predicate.names_salt


@dataclass
class Comparison:
    """What comparing bytes with evidence found: object id, cache path and reason of each that differs."""

    present: int = 0
    absent: int = 0
    bad: list[tuple[str, str, str]] = field(default_factory=list)


class Checker:
    """Verifies evidence about outputs under one trust root.

    Args:
        rules_of: who may have signed an output, from policy or command line.
        revocations: what is known to be revoked.
        more: further places with copies of the log, opened when the shelf's own lack a tile.
    """

    def __init__(
        self,
        trust: Trust,
        shelf: Shelf,
        rules_of: Callable[[Pointer], Sequence[Rule]],
        *,
        revocations: Revocations,
        clock: Clock = utcnow,
        more: logcopy.MorePlaces = tuple,
    ) -> None:
        self.shelf = shelf
        self._rules_of, self._revocations = rules_of, revocations
        tiles = logcopy.tiles_for(trust, shelf.places, more)
        self._verifier = Verifier(trust, tiles=tiles, clock=clock)
        logcopy.pin_newest(trust, tiles, self._verifier.checkpoints)

    def attested(self, pointer: Pointer, accept: Callable[[Attested], bool] = lambda _: True) -> Attested:
        """Valid evidence about `pointer`; see the module for the steps. What `accept` rejects is passed over.

        Raises:
            NoEvidence: nobody signed this version under this path.
            Refusal, Unchecked: evidence exists and none of it holds; the gravest reason is raised.
        """
        rules = self._rules_of(pointer)  # (1)
        signers = [identity for rule in rules for identity in rule.identities]
        failures: list[Error] = []
        for bundle, place in self.shelf.bundles(pointer, signers):  # (2)
            try:
                attested = self._verified(bundle, place, pointer, rules)
            except Error as error:
                failures.append(error)
            else:
                if accept(attested):
                    return attested
        if failures:
            raise next((e for e in failures if isinstance(e, Refusal)), failures[0])
        if (hidden := self.shelf.names.hidden(pointer)) is not None:
            raise hidden
        raise NoEvidence(
            f"no provenance of {pointer.path} at {_short(pointer.oid)}",
            expected=f"a bundle by {' or '.join(map(str, signers))} beside the data",
            remedy="the owner of the data runs 'dvc push' with mlseal, or 'mlseal dvc push'",
        )

    def verify_bundle(self, bundle: Bundle, place: Place, pointer: Pointer) -> Attested:
        """`attested` for one given bundle: what a signer asks of its own work before publishing it."""
        return self._verified(bundle, place, pointer, self._rules_of(pointer))

    def require_not_taken_back(self, pointer: Pointer, subjects: Sequence[Subject], more: Iterable[Bundle]) -> None:
        """Raise `EvidenceRevoked` if evidence of the very bytes in `subjects` was taken back and its names forgotten.

        Nobody can tell that it is not the evidence about `pointer`. A revocation names evidence by the digest of
        what was signed: whatever is found by that name, on the shelf or among `more`, says what the signer said.
        """
        digests = {subject.sha256 for subject in subjects}
        if not self._revocations.revoked:
            return  # nothing is listed at the remote then
        for bundle in (*more, *self.shelf.about_object(pointer)):
            try:
                said, taken_back = bundle.statement, self._revocations.of(bundle.evidence_id)
            except Error:
                continue
            same = digests & {subject.sha256 for subject in said.subjects}
            if taken_back is None or taken_back.reason == "superseded" or not same:
                continue
            if said.predicate_type == data_provenance.URI and self.shelf.names.unreadable(_salt_of(said)):
                self._revocations.require_not_revoked(bundle.evidence_id)

    def taken_back(self, store: BundleStore) -> Iterator[Bundle]:
        """The bundles in `store` that were taken back. Raises as its `get`, save for what nobody keeps there."""
        for evidence_id in self._revocations.revoked:
            with suppress(NoEvidence):
                yield store.get(evidence_id)

    def _verified(self, bundle: Bundle, place: Place, pointer: Pointer, rules: Sequence[Rule]) -> Attested:
        manifest, digests = self._subjects(bundle, place, pointer)  # (3)
        verified = self._verifier.verify(  # (4)
            bundle,
            predicate_type=data_provenance.SHORT,
            identities=[identity for rule in rules for identity in rule.identities],
            subjects=digests,
            revocations=self._revocations,
        )
        self._require_about(verified, pointer, manifest)  # (5)
        for rule in rules:  # (6)
            rule.require(verified)
        if str(place) != str(self.shelf.places[0]):
            self.shelf.remember(bundle, filed(verified), (manifest.sha256, manifest.to_bytes()) if manifest else None)
        return Attested(verified, manifest, bundle, place)

    def _subjects(self, bundle: Bundle, place: Place, pointer: Pointer) -> tuple[Manifest | None, list[str]]:
        said = bundle.statement.subjects
        if not pointer.isdir:
            if len(said) != 1:
                raise MalformedEvidence(f"provenance of the file {pointer.path} needs one subject", got=len(said))
            return None, [said[0].sha256]
        if len(said) != 2 or not said[1].name.endswith("#manifest"):
            raise MalformedEvidence(
                f"provenance of the directory {pointer.path} needs root and manifest", got=len(said)
            )
        raw = self.shelf.manifest(said[1].sha256, place)
        found = hashlib.sha256(raw).hexdigest()
        if found != said[1].sha256:
            raise DigestMismatch(
                f"the manifest of {pointer.path} is not the signed one",
                got=found[:16],
                expected=said[1].sha256[:16],
                remedy="restore the remote's attestations/, or have the owner push again",
            )
        manifest = Manifest.from_bytes(raw)
        return manifest, [manifest.oms_root, manifest.sha256]

    def _require_about(self, verified: VerifiedStatement, pointer: Pointer, manifest: Manifest | None) -> None:
        """Step 5."""
        predicate = verified.predicate
        assert isinstance(predicate, data_provenance.Predicate)  # the verifier was asked for this type
        said = (predicate.dvc.hash, predicate.dvc.oid)
        if not self.shelf.names.name(predicate, pointer) or said != (pointer.hash_name, pointer.oid):
            raise ForgedEvidence(
                f"the evidence filed for {pointer.path} is about something else",
                got=f"{predicate.path} {said[0]}:{_short(said[1])}",
                expected=f"{pointer.path} {pointer.hash_name}:{_short(pointer.oid)}",
                remedy="restore the remote's attestations/",
            )
        if manifest is not None and (predicate.files, predicate.size) != (len(manifest.files), manifest.total_size):
            raise ForgedEvidence(
                f"the evidence about {pointer.path} contradicts its manifest", got=f"{predicate.files} files"
            )


def filed(verified: VerifiedStatement) -> str:
    """Where to file verified evidence, from what it says about itself."""
    predicate = verified.predicate
    assert isinstance(predicate, data_provenance.Predicate)
    return layout.bundle(layout.slot(predicate.dvc.hash, predicate.dvc.oid, predicate.path), verified.identity)


def compare(attested: Attested, pointer: Pointer, read: ReadObject | None = None) -> Comparison:
    """Compare the objects of `pointer` in the local cache with the evidence; absent ones are counted.

    Args:
        read: gives an absent object's hash (for the directory object: its bytes) from elsewhere; None if it cannot.

    Every present byte is read. Raises nothing for differing bytes: the caller decides about quarantine.
    """
    result = Comparison()
    if attested.manifest is None:
        _compare_file(result, pointer, pointer.path, pointer.oid, attested.sha256, None, read)
        return result
    raw = pointer.directory_object()
    if raw is None and read is not None:
        given = read(pointer.oid)
        raw = given if isinstance(given, bytes) else None
    if raw is None:
        result.absent += 1
        return result
    result.present += 1
    try:
        tree = objects.read_tree(raw, pointer.path)
    except Refusal as error:
        result.bad.append((pointer.oid, pointer.cache_path(pointer.oid), str(error)))
        return result
    signed = {entry.path: entry for entry in attested.manifest.files}
    if tree.keys() != signed.keys():
        differing = sorted(tree.keys() ^ signed.keys())
        reason = f"{pointer.path}: the set of files differs from the signed manifest at {differing[0]!r}"
        result.bad.append((pointer.oid, pointer.cache_path(pointer.oid), reason))
    for path, oid in tree.items():
        entry = signed.get(path)
        name = f"{pointer.path}/{path}"
        if entry is not None:
            _compare_file(result, pointer, name, oid, entry.sha256, entry.size, read)
        else:
            _compare_file(result, pointer, name, oid, "", None, None)  # unsigned: whatever it holds is wrong
    return result


def _compare_file(
    result: Comparison, pointer: Pointer, name: str, oid: str, sha256: str, size: int | None, read: ReadObject | None
) -> None:
    path = pointer.cache_path(oid)
    try:
        found: objects.Hashed | bytes | None = objects.hash_file(path)
    except FileNotFoundError:
        found = read(oid) if read else None
    if not isinstance(found, objects.Hashed):
        result.absent += 1
        return
    result.present += 1
    if found.sha256 != sha256 or (size is not None and found.size != size):
        reason = (
            f"{name}: these bytes are not the signed ones (sha256 {found.sha256[:16]}…, not {sha256[:16] or 'any'}…)"
        )
        result.bad.append((oid, path, reason))


def _salt_of(said: Statement) -> str | None:
    salt = said.predicate.get("namesSalt")
    return salt if isinstance(salt, str) else None


def _short(oid: str) -> str:
    return oid[:12] + ("….dir" if oid.endswith(".dir") else "…")
