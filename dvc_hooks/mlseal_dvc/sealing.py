"""Sign outputs before DVC uploads them.

The steps of `seal`, performed under these numbers:

1. Select the outputs that this push is about, as DVC does.
2. Valid evidence exists, and writes names as this remote's evidence shall (`names`): nothing is hashed or signed again;
   it is copied to the remote if it is not there.
3. Otherwise hash the cache objects. What is not in the cache is carried over from earlier *verified* evidence of the
   same output (same path inside it, same MD5), or stops the push.
4. Ask the owners of what is uploaded, and of what it was made from (`owners`).
5. Sign, after finishing what a crash cut off; the owners' verdicts first. The finished bundle must satisfy the same
   rules as everyone else's, or nothing is uploaded.
6. Upload in this order: manifests, log tiles, bundles. The data come after, by DVC: data are never on the remote
   without their evidence. An interrupted push leaves evidence without data, which the next one completes.
7. Hand DVC's upload the objects it may send, each with its SHA-256.

An output of which nothing is in the cache has nothing to upload and is passed over: a clone without data must be able
to push code.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlseal.errors import (
    DigestMismatch,
    Error,
    Misuse,
    NoEvidence,
    Revoked,
    ServiceUnavailable,
    SplitView,
    StaleEvidence,
    Unchecked,
    Withheld,
)
from mlseal.evidence import paths, signing
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import FileEntry, Subject
from mlseal.evidence.hashcache import HashCache
from mlseal.evidence.identity import Identity
from mlseal.evidence.naming import Naming
from mlseal.evidence.statement import Statement
from mlseal.evidence.store import BundleStore, Store, resolve
from mlseal_dvc import (
    gitstate,
    halt,
    layout,
    logcopy,
    names,
    objects,
    origin,
    owners,
    pointers,
    progress,
    revoked,
    signedas,
    statement,
    upstream,
)
from mlseal_dvc.checking import Attested, Checker, filed
from mlseal_dvc.desk import Desk
from mlseal_dvc.governing import Rule
from mlseal_dvc.objects import Content, Hashed
from mlseal_dvc.places import Place
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.shelf import own_copies


@dataclass
class Sealed:
    """What may be uploaded, and what was done for it.

    Attributes:
        objects: object id → expected SHA-256.
        seen: cache path → what it hashed to, so that unchanged files are not read twice in one push.
    """

    objects: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Hashed] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def seal(desk: Desk, call: dict[str, Any], *, upload: bool = True, again: bool = False) -> Sealed:
    """See the module. `upload` off signs into this user's own copies only; `again` signs although evidence exists."""
    work = pointers.selected(desk.repo, call, push=True)  # (1)
    return _Sealer(desk, upload=upload, again=again).run(work)


def seal_these(desk: Desk, work: Sequence[Pointer]) -> Sealed:
    """Steps 2 to 7 for outputs that the caller selected, wherever their `cache_path` leads."""
    return _Sealer(desk, upload=True, again=False).run(work)


class _Sealer:
    def __init__(self, desk: Desk, *, upload: bool, again: bool) -> None:
        self._desk, self._upload, self._again = desk, upload, again
        self._own = own_copies()
        self._sealed = Sealed()
        self._known: dict[tuple[str, str], str] = {}
        self._made: list[tuple[Pointer, Attested]] = []
        self._store = _store(desk)
        self._namings: dict[str | None, Naming] = {}
        self._imports: dict[tuple[str, str], upstream.Imported] = {}
        self._subjects: dict[tuple[object, ...], tuple[Subject, ...]] = {}

    def run(self, work: Sequence[Pointer]) -> Sealed:
        if self._upload:
            self._publish_revocations(work)
        unsigned: list[tuple[Pointer, Content]] = []
        with progress.shown("Hashing to sign"), HashCache(paths.state_dir() / "dvc" / "hashes") as cache:
            for pointer in work:
                existing = None if self._again else self._existing(pointer)  # (2)
                if existing is not None:
                    self._keep(pointer, existing)
                    continue
                content = self._content(pointer, cache)  # (3)
                if content is None:
                    self._sealed.passed_over.append(pointer.path)
                else:
                    if not self._again:
                        checker = self._checker(pointer)
                        checker.require_not_taken_back(pointer, content.subjects, checker.taken_back(self._store))
                    self._sealed.objects.update(content.objects)
                    self._know(pointer, content.subjects)
                    unsigned.append((pointer, content))
            verdicts = self._ask_owners(work, cache) if self._upload else []  # (4)
        if any(pointer.dependencies for pointer, _ in unsigned):
            self._imports = upstream.imports(self._desk)
        self._sign(unsigned, verdicts)  # (5)
        if self._upload:
            self._publish()  # (6)
        return self._sealed  # (7)

    def _ask_owners(self, work: Sequence[Pointer], cache: HashCache) -> list[Statement]:
        def subjects(pointer: Pointer) -> tuple[Subject, ...] | None:
            if pointer.key in self._subjects:
                return self._subjects[pointer.key]
            return owners.subjects_of(self._desk, pointer, self._checker, lambda p: self._content(p, cache))

        def signer() -> Identity:  # made only when it is asked
            return self._signer.identity()

        return owners.Owners(self._desk, self._store, subjects, signer).ask(work)

    def _publish_revocations(self, work: Sequence[Pointer]) -> None:
        """First of all, so that they reach others even if withdrawn data stop this push."""
        if any(policy.revokers for policy in self._desk.governance.applicable("push")):
            places = {str(place): place for pointer in work if (place := self._desk.place_of(pointer))}
            for place in places.values():
                revoked.copy_from_store(self._desk.trust, place)

    def _existing(self, pointer: Pointer) -> Attested | None:
        """Valid evidence; None when there is none or it is too old. Invalid evidence is replaced by our own.

        Withdrawn evidence stops the push: signing the same data again would undo the withdrawal. Where the names in it
        were forgotten, `Checker.require_not_taken_back` stops it, by the bytes.
        """
        try:
            return self._checker(pointer).attested(pointer, accept=lambda known: self._named_right(pointer, known))
        except (NoEvidence, StaleEvidence):
            return None
        except (Revoked, SplitView, Misuse, ServiceUnavailable):
            raise
        except Error as error:
            halt.say(f"evidence of {pointer.path} found on the remote does not hold and is made anew ({error})")
            return None

    def _naming(self, pointer: Pointer) -> Naming:
        """How the statement about `pointer` writes names; asked once for each remote."""
        name = self._desk.remote or pointer.remote_name
        if name not in self._namings:
            self._namings[name] = names.wished(self._desk, pointer)
        return self._namings[name]

    def _named_right(self, pointer: Pointer, known: Attested) -> bool:
        """Whether evidence that exists may be pushed.

        Plain names give away what committed ones hide; a salt that the remote does not have is of use to nobody there.
        """
        wanted, place = self._naming(pointer), self._desk.place_of(pointer)
        if known.salt_id is None or wanted.committed or place is None:
            return known.salt_id == wanted.salt_id
        return known.salt_id == names.on(place).salt_id

    def _checker(self, pointer: Pointer) -> Checker:
        """Whoever a policy names for pushes; without any, the identity this user last signed as."""
        if self._desk.governance.signers_known("push"):
            return self._desk.checker(pointer, "push")
        return self._desk.checker(
            pointer, "push", lambda _: (Rule("this user", tuple(signedas.known(self._desk.trust))),)
        )

    def _keep(self, pointer: Pointer, attested: Attested) -> None:
        self._sealed.kept.append(pointer.path)
        self._know(pointer, attested.verified.subjects)
        self._made.append((pointer, attested))
        if attested.manifest is None:
            self._sealed.objects[pointer.oid] = attested.sha256
            return
        raw = pointer.directory_object()
        if raw is None:
            return  # no directory object here, so DVC has none of its files to send for it
        signed = {entry.path: entry for entry in attested.manifest.files}
        tree = objects.read_tree(raw, pointer.path)
        if tree.keys() != signed.keys():
            raise DigestMismatch(
                f"the directory object of {pointer.path} in the cache is not the signed one",
                remedy="remove it from the cache, fetch it again, then push",
            )
        self._sealed.objects[pointer.oid] = objects.sha256(raw)
        self._sealed.objects.update({oid: signed[path].sha256 for path, oid in tree.items()})

    def _know(self, pointer: Pointer, subjects: tuple[Subject, ...]) -> None:
        self._known[pointer.path, pointer.oid] = subjects[-1].sha256
        self._subjects[pointer.key] = subjects

    def _content(self, pointer: Pointer, cache: HashCache) -> Content | None:
        """The hashed content; None if nothing of it is in the cache."""

        def read(oids: Iterable[str]) -> dict[str, Hashed]:
            paths_of = {pointer.cache_path(oid): oid for oid in oids}
            named = {path: oid if pointer.hash_name == "md5" else None for path, oid in paths_of.items()}
            fresh = objects.hash_for_signing(
                {path: md5 for path, md5 in named.items() if path not in self._sealed.seen}, cache
            )
            self._sealed.seen.update(fresh)
            return {oid: self._sealed.seen[path] for path, oid in paths_of.items() if path in self._sealed.seen}

        if not pointer.isdir:
            found = read([pointer.oid])
            return objects.content_of_file(pointer.path, found[pointer.oid], pointer.oid) if found else None
        raw = pointer.directory_object()
        if raw is None:
            return None
        if pointer.hash_name == "md5" and pointer.listed is None:
            objects.require_named(objects.md5(raw), pointer.oid, f"the directory object of {pointer.path}")
        tree = objects.read_tree(raw, pointer.path)
        here = read(tree.values())
        if tree and not here:
            return None
        missing = [(path, oid) for path, oid in tree.items() if oid not in here]
        earlier = self._earlier(pointer) if missing else {}
        lost = [path for path, oid in missing if (path, oid) not in earlier]
        if lost:
            raise Unchecked(
                f"{pointer.path} is only partly in the cache, so its provenance cannot be signed",
                got=f"{lost[0]!r} is missing and no verified evidence tells its digest",
                remedy=f"dvc fetch {pointer.path}, then push again",
            )
        return objects.content_of_directory(
            pointer.path, pointer.oid, raw, lambda path, oid: here.get(oid) or earlier[path, oid]
        )

    def _earlier(self, pointer: Pointer) -> dict[tuple[str, str], FileEntry]:
        """(path, MD5) → digest, from verified evidence about other versions of this directory in this clone's git."""
        found: dict[tuple[str, str], FileEntry] = {}
        for version in _other_versions(self._desk.repo, pointer):
            raw = version.directory_object()
            try:
                attested = self._checker(version).attested(version)
                tree = objects.read_tree(raw, version.path) if raw is not None else {}
            except Error:
                continue
            signed = {e.path: e for e in attested.manifest.files} if attested.manifest else {}
            if tree.keys() == signed.keys():
                found.update({(path, oid): signed[path] for path, oid in tree.items()})
        return found

    @cached_property
    def _signer(self) -> signing.Signer:
        said = self._desk.session
        return signing.signer_for(
            said.role, trust=self._desk.trust, store=self._store, token_file=said.token_file, clock=said.clock
        )

    def _sign(self, unsigned: Sequence[tuple[Pointer, Content]], verdicts: Sequence[Statement]) -> None:
        if not unsigned:
            return
        desk, signer = self._desk, self._signer
        with contextlib.suppress(Error):  # another tool's unfinished entry is not ours to stop at
            signer.recover()
        for verdict in verdicts:
            self._store.put(signer.sign(verdict))
        for pointer, content in unsigned:
            if content.manifest is not None:
                self._own.write(layout.manifest(content.manifest.sha256), content.manifest.to_bytes())
            bundle = self._signed(signer, pointer, content)
            signedas.remember(desk.trust, bundle)
            attested = self._checker(pointer).verify_bundle(bundle, self._own, pointer)
            self._own.write(filed(attested.verified), bundle.raw)
            self._made.append((pointer, attested))
            self._sealed.signed.append(pointer.path)

    def _signed(self, signer: signing.Signer, pointer: Pointer, content: Content) -> Bundle:
        """The bundle. The log keeps one entry per statement: where somebody else said these words, say them anew."""
        try:
            return signer.sign(self._statement(pointer, content))
        except Withheld:
            return signer.sign(self._statement(pointer, content, nonce=secrets.token_hex(16)))

    def _statement(self, pointer: Pointer, content: Content, *, nonce: str | None = None) -> Statement:
        from dvc import __version__ as dvc_version

        desk = self._desk
        return statement.make(
            pointer,
            content,
            git=desk.git_state(pointer),
            remote=gitstate.without_credentials(_url(desk.remote_of(pointer))),
            origin=origin.of(pointer, origin.notes_of(desk.repo)),
            known=self._known,
            imports=self._imports,
            dvc_version=dvc_version,
            naming=self._naming(pointer),
            nonce=nonce or (secrets.token_hex(16) if self._again else None),
        )

    def _publish(self) -> None:
        by_place: dict[str, tuple[Place, list[tuple[Pointer, Attested]]]] = {}
        for pointer, attested in self._made:
            place = self._desk.place_of(pointer)
            if place is not None:
                by_place.setdefault(str(place), (place, []))[1].append((pointer, attested))
        for place, items in by_place.values():
            names.require_still(place, [a.salt_id for _, a in items])
            missing = [a for _, a in items if place.read(filed(a.verified)) != a.bundle.raw]
            for attested in missing:
                if attested.manifest is not None:
                    name = layout.manifest(attested.manifest.sha256)
                    if place.read(name) != (data := attested.manifest.to_bytes()):
                        place.write(name, data)
            logcopy.bring_up_to_date(self._desk.trust, place, _sizes(a for _, a in items))
            for attested in missing:
                place.write(filed(attested.verified), attested.bundle.raw)


def _store(desk: Desk) -> BundleStore:
    """Where finished bundles are kept for audits: ``$MLSEAL_STORE``, the repository's own store, else this user's."""
    if named := os.environ.get("MLSEAL_STORE"):
        return resolve(named)
    local = Path(gitstate.top(desk.repo)) / ".mlseal" / "evidence"
    return Store(local if local.is_dir() else paths.state_dir() / "dvc" / "evidence")


def _other_versions(repo: Any, pointer: Pointer) -> Iterable[Pointer]:
    """The same output in the 50 latest commits that touched its DVC files."""
    if not gitstate.has_git(repo):
        return []
    listed = gitstate.run(
        repo.scm.root_dir,
        "log",
        "-50",
        "--format=%H",
        "--",
        ":(top,glob)**/*.dvc",
        ":(top,glob)**/dvc.lock",
        check=False,
    )
    revs = (listed or "").split()
    if not revs:
        return []
    found = pointers.selected(repo, {"revs": revs, "workspace": False})
    return [p for p in found if p.path == pointer.path and p.oid != pointer.oid and p.isdir]


def _sizes(items: Iterable[Attested]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for attested in items:
        log = attested.verified.log
        sizes[log.origin] = max(sizes.get(log.origin, 0), log.tree_size)
    return sizes


def _url(remote: Any) -> str:
    return str(remote.fs.unstrip_protocol(remote.path)) if remote is not None else "none"
