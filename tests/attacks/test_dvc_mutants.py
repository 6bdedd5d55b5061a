"""Take each check of what a DVC reader believes out once: a scene of this file must then come out otherwise.

`checking` (is this evidence about this output, are these the bytes) and `revoked` (what was taken back) are judged in
this process, over evidence that a real authority signed and a real log holds; nothing but the remote is a directory. A
mutant is a line of source changed so that a check is gone. The same attacks with DVC itself: tests/adapters/dvc.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlseal_dvc import checking, layout, objects, revoked
from mlseal_dvc.governing import Rule
from mlseal_dvc.places import DirectoryPlace
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.shelf import Shelf
from mlseal_dvc.statement import make

from mlseal.errors import Error, RuleBroken
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive, revocation_subject
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import FileEntry
from mlseal.evidence.identity import Identity
from mlseal.evidence.naming import Naming
from mlseal.evidence.predicates import revocation
from mlseal.evidence.revocation import Revocation, Revocations
from mlseal.evidence.revoking import revoke, snapshot
from mlseal.evidence.store import Store
from mlseal.policy.load import parse

HOUR = timedelta(hours=1)


def changed(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of `module` in which `old` reads `new`; the original stays in force for everybody else."""
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"the table must follow the source: {old!r} stands there {source.count(old)} times"
    spec = importlib.util.spec_from_loader(module.__name__, loader=None, origin=module.__file__)
    made = importlib.util.module_from_spec(spec)
    exec(compile(source.replace(old, new), module.__file__, "exec"), made.__dict__)
    return made


def outcome(work: Callable[[], object]) -> str:
    """What `work` returns, or the first words of its refusal."""
    try:
        return str(work())
    except Error as error:
        return f"{type(error).__name__}: {error.message}"
    except Exception as error:  # noqa: BLE001 - a mutant may fail in ways that the original cannot
        return f"broke: {type(error).__name__}"


# --- evidence about outputs -------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """A producer with a cache and a remote, and what a reader knows."""

    authority: Any
    base: Path

    @property
    def remote(self) -> DirectoryPlace:
        return DirectoryPlace(self.base / "remote")

    def pointer(self, path: str, oid: str, hash_name: str = "md5") -> Pointer:
        return Pointer(
            path=path,
            names=(path,),
            hash_name=hash_name,
            oid=oid,
            cache_path=lambda name: str(self.base / "cache" / name),
            remote_name=None,
            rev=None,
            stage=f"{path}.dvc",
            command=None,
            imported=False,
            repo_import=False,
            dependencies=(),
            unchanged=lambda: True,
        )

    def keep(self, data: bytes, end: str = "") -> str:
        """`data` in the cache; its object id."""
        oid = hashlib.md5(data).hexdigest() + end
        (self.base / "cache").mkdir(exist_ok=True)
        (self.base / "cache" / oid).write_bytes(data)
        return oid

    def directory(self, path: str, files: dict[str, bytes]) -> tuple[Pointer, objects.Content]:
        rows = [{"md5": self.keep(data), "relpath": name} for name, data in files.items()]
        raw = json.dumps(rows).encode()
        oid = self.keep(raw, ".dir")
        found = {name: FileEntry(name, len(data), objects.sha256(data)) for name, data in files.items()}
        return self.pointer(path, oid), objects.content_of_directory(path, oid, raw, lambda name, _: found[name])

    def file(self, path: str, data: bytes) -> tuple[Pointer, objects.Content]:
        oid = self.keep(data)
        return self.pointer(path, oid), objects.content_of_file(path, objects.hash_file(self.base / "cache" / oid), oid)

    def says(
        self, pointer: Pointer, content: objects.Content, role: str = "producer", naming: Any = None, **more: Any
    ) -> Any:
        """The signed statement; `more` replaces ``subjects`` or fields of the predicate after it was made."""
        told = {"git": ("a" * 40, False, None), "remote": "x", "origin": "added", "known": {}, "dvc_version": "3.67.1"}
        told |= {"naming": naming} if naming else {}
        made = make(pointer, content, nonce=secrets.token_hex(16), **told)
        subjects = more.pop("subjects", made.subjects)
        said = statement.make(
            subjects, made.predicate_type, dict(made.predicate) | more, **({"names": naming} if naming else {})
        )
        return self.authority.signer(role).sign(said)

    def put(self, bundle: Any, at: Pointer, role: str = "producer") -> None:
        """Where a reader of `at` looks for evidence by `role`."""
        slot = layout.slot(at.hash_name, at.oid, at.path)
        self.remote.write(layout.bundle(slot, Identity(self.authority.issuer, self.authority.san(role))), bundle.raw)

    def put_manifest(self, content: objects.Content, data: bytes | None = None) -> None:
        self.remote.write(layout.manifest(content.manifest.sha256), data or content.manifest.to_bytes())


CHECKING: list[tuple[str, str]] = [
    ("(*more, *self.shelf.about_object(pointer))", "more"),
    ("(*more, *self.shelf.about_object(pointer))", "self.shelf.about_object(pointer)"),
    ('taken_back is None or taken_back.reason == "superseded" or not same', "taken_back is None or not same"),
    ('taken_back.reason == "superseded" or not same', 'taken_back.reason == "superseded"'),
    ("and self.shelf.names.unreadable(_salt_of(said)):", "and True:"),
    (
        "                self._revocations.require_not_revoked(bundle.evidence_id)\n\n    def taken",
        "                pass\n\n    def taken",
    ),
    ("with suppress(NoEvidence):", "with suppress(Error):"),
    ("with suppress(NoEvidence):", "if True:"),
    ("        if failures:\n", "        if False:\n"),
    ("if isinstance(e, Refusal)), failures[0])", "if not isinstance(e, Refusal)), failures[0])"),
    ("if accept(attested):", "if True:"),
    ("if (hidden := self.shelf.names.hidden(pointer)) is not None:", "if False:"),
    (
        "identities=[identity for rule in rules for identity in rule.identities],",
        "identities=[type('Anybody', (), {'matches': lambda *_: True})()],",
    ),
    ("predicate_type=data_provenance.SHORT,", "predicate_type=bundle.statement.predicate_type,"),
    ("subjects=digests,", "subjects=[s.sha256 for s in bundle.statement.subjects],"),
    ("revocations=self._revocations,\n        )", "revocations=Revocations(),\n        )"),
    ("        self._require_about(verified, pointer, manifest)  # (5)", "        pass"),
    ("            rule.require(verified)", "            pass"),
    ("if str(place) != str(self.shelf.places[0]):", "if False:"),
    ("            if len(said) != 1:", "            if False:"),
    ("if len(said) != 2 or not said", "if not said"),
    ('len(said) != 2 or not said[1].name.endswith("#manifest")', "len(said) != 2"),
    ("        if found != said[1].sha256:", "        if False:"),
    ("[manifest.oms_root, manifest.sha256]", "[said[0].sha256, manifest.sha256]"),
    ("if not self.shelf.names.name(predicate, pointer) or said", "if said"),
    ("or said != (pointer.hash_name, pointer.oid):", "or said[0] != pointer.hash_name:"),
    ("or said != (pointer.hash_name, pointer.oid):", "or said[1] != pointer.oid:"),
    (
        "(predicate.files, predicate.size) != (len(manifest.files), manifest.total_size)",
        "predicate.size != manifest.total_size",
    ),
    (
        "(predicate.files, predicate.size) != (len(manifest.files), manifest.total_size)",
        "predicate.files != len(manifest.files)",
    ),
    ("    if tree.keys() != signed.keys():", "    if False:"),
    ("        result.bad.append((pointer.oid, pointer.cache_path(pointer.oid), str(error)))", "        pass"),
    ("            _compare_file(result, pointer, name, oid, entry.sha256, entry.size, read)", "            pass"),
    ('            _compare_file(result, pointer, name, oid, "", None, None)', "            pass"),
    ("_compare_file(result, pointer, pointer.path, pointer.oid, attested.sha256, None, read)", "pass"),
    ("        found = read(oid) if read else None", "        found = None"),
    ("        raw = given if isinstance(given, bytes) else None", "        raw = None"),
    ("found.sha256 != sha256 or", "False or"),
]
DOUBLED = {"or (size is not None and found.size != size)": "bytes of another size have another SHA-256"}


@pytest.fixture(scope="module")
def desk(_module_authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(_module_authority, tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def cases(desk: Desk) -> dict[str, Callable[[ModuleType, Path], str]]:
    """Name → what a reader gets, with the module that it checks with and a place for its own copies."""
    authority, found = desk.authority, {}
    producer = Identity(authority.issuer, authority.san("producer"))

    def reader(module: ModuleType, own: Path, **given: Any) -> Any:
        told = {"rules": (Rule("test", (producer,)),), "revocations": Revocations()} | given
        shelf = Shelf([DirectoryPlace(own), desk.remote])
        return module.Checker(authority.trust, shelf, lambda _: told["rules"], revocations=told["revocations"])

    def attested(pointer: Pointer, accept: Any = lambda _: True, **given: Any) -> Callable[[ModuleType, Path], str]:
        def work(module: ModuleType, own: Path) -> str:
            got = outcome(lambda: reader(module, own, **given).attested(pointer, accept).sha256)
            return f"{got}; kept {len([p for p in own.rglob('*') if p.is_file()])}"

        return work

    def put(
        name: str, made: tuple[Pointer, objects.Content], at: Pointer | None = None, role: str = "producer", **more: Any
    ) -> Any:
        pointer, content = made
        bundle = desk.says(pointer, content, role, **more)
        if content.manifest is not None:
            desk.put_manifest(content)
        desk.put(bundle, at or pointer, "producer")
        found[name] = attested(at or pointer)
        return bundle

    def text() -> bytes:
        return secrets.token_bytes(16)

    def files() -> dict[str, bytes]:
        return {"a": text(), "b": text()}

    good = desk.file("good.csv", text())
    bundle = put("a file", good)
    tree = desk.directory("imgs", files())
    put("a directory", tree)
    found["withdrawn"] = attested(
        good[0], revocations=Revocations({bundle.evidence_id: Revocation(bundle.evidence_id, "withdrawn", "x")})
    )

    def too_old(_: Any) -> None:
        raise RuleBroken("too old")

    found["against a rule"] = attested(good[0], rules=(Rule("test", (producer,), too_old),))
    found["not acceptable"] = attested(good[0], accept=lambda _: False)
    found["nobody signed it"] = attested(desk.pointer("none.csv", "0" * 32))
    put("another path", desk.file("other.csv", text()), at=desk.pointer("path.csv", hashlib.md5(b"").hexdigest()))
    same = desk.file("first.csv", text())
    put("the same bytes under another path", same, at=replace(same[0], path="second.csv", names=("second.csv",)))
    older = desk.file("version.csv", text())
    put("an older version", older, at=desk.pointer("version.csv", hashlib.md5(text()).hexdigest()))
    dos = desk.file("dos.csv", text())
    put("another hash", dos, at=replace(dos[0], hash_name="md5-dos2unix"))
    put("another signer", desk.file("foreign.csv", text()), role="evaluator")
    pair = desk.file("pair.csv", text())
    put("a file of two subjects", pair, subjects=[*pair[1].subjects, *good[1].subjects])
    for name, pick in {
        "one": lambda s: s[:1],
        "two of the same kind": lambda s: [s[0], replace(s[1], name="more")],
    }.items():
        half = desk.directory(f"half {name}", files())
        put(f"a directory of {name}", half, subjects=pick(list(half[1].subjects)))
    three = desk.directory("three", files())
    put("a directory of three subjects", three, subjects=[*three[1].subjects, *good[1].subjects])
    rooted = desk.directory("rooted", files())
    put("another root", rooted, subjects=[tree[1].subjects[0], rooted[1].subjects[1]])
    swapped = desk.directory("swapped", files())
    put("a swapped manifest", swapped)
    desk.put_manifest(swapped[1], tree[1].manifest.to_bytes())
    for field, wrong in (("files", 7), ("size", 7)):
        put(f"wrong {field}", desk.directory(f"wrong {field}", files()), **{field: wrong})
    result = desk.file("result.csv", text())
    claim = {"result": "PASSED", "configuration": [], "url": f"urn:{secrets.token_hex(8)}"}
    test = statement.make(result[1].subjects, "https://in-toto.io/attestation/test-result/v0.1", claim)
    desk.put(authority.signer().sign(test), result[0])
    found["evidence of another kind"] = attested(result[0])
    hidden = desk.file("hidden.csv", text())
    naming = Naming(secrets.token_bytes(32))
    committed = desk.says(*hidden, naming=naming)
    slot = layout.slot("md5", hidden[0].oid, naming.of("path", "hidden.csv"))
    desk.remote.write(layout.bundle(slot, producer), committed.raw)
    found["a name under an unknown salt"] = attested(hidden[0])
    # Two that fail, the less grave one first where it is looked for: the gravest is what is said.
    both = desk.file("both.csv", text())
    desk.put(desk.says(*both, naming=naming), both[0])
    desk.put(desk.says(*good), both[0], "evaluator")
    found["something else in its place"] = attested(both[0])

    def forgotten(
        reason: str, *more: Any, of: Any = committed, about: Any = hidden
    ) -> Callable[[ModuleType, Path], str]:
        def work(module: ModuleType, own: Path) -> str:
            listed = Revocations({of.evidence_id: Revocation(of.evidence_id, reason, "x")})
            checker = reader(module, own, revocations=listed)
            return outcome(lambda: checker.require_not_taken_back(about[0], about[1].subjects, more))

        return work

    kept = desk.file("kept.csv", text())
    elsewhere = desk.says(*kept, naming=naming)  # on nobody's shelf
    found["forgotten: withdrawn"] = forgotten("withdrawn")
    found["forgotten: superseded"] = forgotten("superseded")
    found["forgotten: withdrawn, in a store"] = forgotten("withdrawn", elsewhere, of=elsewhere, about=kept)
    found["forgotten: of other bytes"] = forgotten("withdrawn", committed, about=kept)

    def from_a_store(raw: bytes | None) -> Callable[[ModuleType, Path], str]:
        """Whether it was taken back, asked of a store where `raw` lies under the id of the evidence that was."""

        def work(module: ModuleType, own: Path) -> str:
            shown = Store(own / "shown")
            if raw is not None:
                shown.path(elsewhere.evidence_id).parent.mkdir(parents=True)
                shown.path(elsewhere.evidence_id).write_bytes(raw)
            listed = Revocations({elsewhere.evidence_id: Revocation(elsewhere.evidence_id, "withdrawn", "x")})
            checker, about = reader(module, own, revocations=listed), (kept[0], kept[1].subjects)
            return outcome(lambda: checker.require_not_taken_back(*about, checker.taken_back(shown)))

        return work

    found["forgotten: withdrawn, shown by a store"] = from_a_store(elsewhere.raw)
    found["forgotten: withdrawn, spoilt in a store"] = from_a_store(b"{}")
    found["forgotten: withdrawn, nowhere"] = from_a_store(None)
    found["forgotten: nothing, its name can be read"] = forgotten("withdrawn", of=bundle, about=good)

    def compared(
        pointer: Pointer, signed: Pointer, change: Callable[[], None], read: Any = None
    ) -> Callable[[ModuleType, Path], str]:
        def work(module: ModuleType, own: Path) -> str:
            evidence = reader(checking, own).attested(signed)
            kept = {p: p.read_bytes() for p in (desk.base / "cache").iterdir()}
            try:
                change()
                got = module.compare(evidence, pointer, read)
                return f"{got.present} {got.absent} {sorted((oid, why.split('(')[0]) for oid, _, why in got.bad)}"
            except Exception as error:  # noqa: BLE001 - as in `outcome`
                return f"broke: {type(error).__name__}"
            finally:
                for path, data in kept.items():
                    path.write_bytes(data)

        return work

    def cached(oid: str) -> Path:
        return desk.base / "cache" / oid

    rows = json.loads(cached(tree[0].oid).read_bytes())

    def as_tree(*wanted: Any) -> Callable[[], None]:
        return lambda: cached(tree[0].oid).write_bytes(json.dumps(wanted).encode()) and None

    extra = {"md5": good[0].oid, "relpath": "c"}
    found["bytes: the signed ones"] = compared(tree[0], tree[0], lambda: None)
    found["bytes: a file swapped"] = compared(good[0], good[0], lambda: cached(good[0].oid).write_bytes(b"x") and None)
    found["bytes: a member swapped"] = compared(
        tree[0], tree[0], lambda: cached(rows[0]["md5"]).write_bytes(b"x") and None
    )
    found["bytes: a member less"] = compared(tree[0], tree[0], as_tree(rows[0]))
    found["bytes: a member more"] = compared(tree[0], tree[0], as_tree(*rows, extra))
    found["bytes: no list"] = compared(tree[0], tree[0], lambda: cached(tree[0].oid).write_bytes(b"{}") and None)
    found["bytes: elsewhere, swapped"] = compared(
        good[0], good[0], cached(good[0].oid).unlink, lambda _: objects.Hashed("0" * 64, 1, None)
    )
    found["bytes: directory elsewhere, a member less"] = compared(
        tree[0], tree[0], cached(tree[0].oid).unlink, lambda _: json.dumps(rows[:1]).encode()
    )
    return found


def results(
    cases: dict[str, Callable[[ModuleType, Path], str]], module: ModuleType, base: Path
) -> Iterator[tuple[str, str]]:
    for number, (name, work) in enumerate(cases.items()):
        own = base / str(number)
        own.mkdir(parents=True)
        yield name, work(module, own)


@pytest.fixture(scope="module")
def usual(cases: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(results(cases, checking, tmp_path_factory.mktemp("usual")))


def test_only_the_right_evidence_about_the_right_bytes_passes(usual: dict[str, str], desk: Desk) -> None:
    passing = {
        name
        for name, said in usual.items()
        if re.match("[0-9a-f]{64};", said) or said.endswith(" []") or said == "None"
    }
    words = {
        "withdrawn": "was withdrawn",
        "against a rule": "too old",
        "not acceptable": "no provenance",
        "nobody signed it": "no provenance",
        "another path": "about something else",
        "the same bytes under another path": "about something else",
        "an older version": "about something else",
        "another hash": "about something else",
        "something else in its place": "about something else",
        "a file of two subjects": "needs one subject",
        "a directory of one": "needs root and manifest",
        "a directory of two of the same kind": "needs root and manifest",
        "a directory of three subjects": "needs root and manifest",
        "a swapped manifest": "is not the signed one",
        "wrong files": "contradicts its manifest",
        "wrong size": "contradicts its manifest",
        "a name under an unknown salt": "a salt that is not here",
        "forgotten: withdrawn": "was withdrawn",
        "forgotten: withdrawn, in a store": "was withdrawn",
        "forgotten: withdrawn, shown by a store": "was withdrawn",
        "forgotten: withdrawn, spoilt in a store": "not a Sigstore bundle",
        "bytes: a file swapped": "not the signed ones",
        "bytes: a member swapped": "not the signed ones",
        "bytes: a member less": "set of files differs",
        "bytes: a member more": "set of files differs",
        "bytes: no list": "is not a list",
        "bytes: elsewhere, swapped": "not the signed ones",
        "bytes: directory elsewhere, a member less": "set of files differs",
    }
    assert {name: word for name, word in words.items() if word not in usual[name]} == {}
    refused = {"another signer", "another root", "evidence of another kind"}
    spared = {
        f"forgotten: {name}"
        for name in ("superseded", "of other bytes", "withdrawn, nowhere", "nothing, its name can be read")
    }
    assert passing == {"a file", "a directory", "bytes: the signed ones"} | spared, usual
    assert set(usual) == passing | set(words) | refused
    assert not any("broke" in said for said in usual.values())


@pytest.mark.parametrize(
    ("old", "new"), CHECKING, ids=[f"{n}-{old.strip()[:40]}" for n, (old, _) in enumerate(CHECKING)]
)
def test_taking_a_check_of_evidence_out_is_noticed(
    old: str, new: str, cases: Any, usual: dict[str, str], tmp_path: Path
) -> None:
    found = results(cases, changed(checking, old, new), tmp_path)
    assert any(usual[name] != said for name, said in found), f"nothing notices {new!r} in place of {old!r}"


@pytest.mark.parametrize("old", DOUBLED)
def test_what_stands_twice_is_said_to(old: str, cases: Any, usual: dict[str, str], tmp_path: Path) -> None:
    assert dict(results(cases, changed(checking, old, ""), tmp_path)) == usual, (
        "no longer doubled: put it into the table"
    )


# --- what was taken back ----------------------------------------------------------------------------------------------


class Ordered:
    """A remote's revocations, in this order."""

    def __init__(self, *bundles: Any, more: dict[str, bytes] | None = None) -> None:
        self.files = {f"revocations/{b.evidence_id}{layout.SUFFIX}": b.raw for b in bundles} | (more or {})

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def names(self, directory: str) -> list[str] | None:
        return [name for name in self.files if name.startswith(f"{directory}/")]


REVOKED: list[tuple[str, str]] = [
    ("        _revocations(items, latest).require_fresh(policy.revocation_max_age, clock())", "        pass"),
    ("        merged += items", "        merged = items"),
    ("        merged += items", "        pass"),
    ("    for policy in with_revokers:", "    for policy in with_revokers[:1]:"),
    ("    yield from _in_store()\n", ""),
    ("    for place in places:\n", "    for place in places[1:]:\n"),
    ("if name.endswith(layout.SUFFIX) else None", "if True else None"),
    ("        if bundle.statement.predicate_type in _TYPES:", "        if True:"),
    ("    except Refusal:\n        return None", "    except ZeroDivisionError:\n        return None"),
    ("said.predicate_type not in _TYPES or not", "not"),
    ("or not any(matcher.matches(signer) for matcher in policy.revokers)", ""),
    ("            items.append(Revocation(predicate.evidence_id, predicate.reason, by))", "            pass"),
    (
        "            items += [Revocation(entry.evidence_id, entry.reason, by) for entry in predicate.revoked]",
        "            pass",
    ),
    (
        "            newest = verified if newest is None or verified.time > newest.time else newest",
        "            newest = verified",
    ),
    (
        "            newest = verified if newest is None or verified.time > newest.time else newest",
        "            newest = newest or verified",
    ),
    ("    logcopy.bring_up_to_date(trust, place, sizes)", "    pass"),
    ("    present = set(place.names(DIRECTORY) or ())", "    return"),
]
REVOKED_DOUBLED = {"        identities=policy.revokers,": "who signed was compared just before"}


@pytest.fixture(scope="module")
def taken(_module_authority: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[ModuleType], str]]:
    """Name → what `revoked` knows, with the module that it is asked of."""
    authority, now = _module_authority, utcnow()
    trust, store = authority.trust, tmp_path_factory.mktemp("store")
    archive = Archive.open(trust, authority.store)

    def about(role: str = "producer") -> str:
        said = {"result": "PASSED", "configuration": [], "url": f"urn:{secrets.token_hex(8)}"}
        return (
            authority.signer(role)
            .sign(
                statement.make([revocation_subject("ab" * 32)], "https://in-toto.io/attestation/test-result/v0.1", said)
            )
            .evidence_id
        )

    def taking(role: str, evidence_id: str) -> Any:
        claim = {"evidenceId": evidence_id, "reason": "withdrawn", "nonce": secrets.token_hex(16)}
        return authority.signer(role).sign(statement.make([revocation_subject(evidence_id)], revocation.URI, claim))

    names = {about(): letter for letter in "abc"}
    first, second, third = names
    archive.refresh()
    listed = revoke(archive, authority.signer("monitor"), first, reason="withdrawn")
    old = snapshot(archive, authority.signer("monitor"), valid_for=10 * HOUR)
    time.sleep(1.1)  # time stamps count seconds
    new = snapshot(archive, authority.signer("monitor"), valid_for=HOUR)
    direct, strange = taking("monitor", second), taking("producer", third)
    other, other_snapshot = taking("evaluator", third), snapshot(archive, authority.signer("evaluator"), valid_for=HOUR)
    noise = authority.store.get(about("monitor"))

    def policy(*roles: str) -> Any:
        rows = "".join(f'  - {{issuer: "{authority.issuer}", san: "{authority.san(role)}"}}\n' for role in roles)
        return parse(
            (
                'policy: p/1\napplies: [{tool: dvc, action: "*"}]\nrevocationMaxAge: 5h\n'
                + (f"revokers:\n{rows}" if rows else "")
                + f'require: [{{predicate: data-provenance, by: [{{issuer: "{authority.issuer}", san: "x"}}]}}]\n'
            ).encode()
        )

    monitor, evaluator = policy("monitor"), policy("evaluator")

    def known(
        *places: Any, by: tuple[Any, ...] = (monitor,), later: timedelta = timedelta(), kept: str = ""
    ) -> Callable[[ModuleType], str]:
        def work(module: ModuleType) -> str:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLSEAL_STORE", kept) if kept else patch.delenv("MLSEAL_STORE", raising=False)
                return outcome(lambda: told(module.known(trust, by, places, lambda: utcnow() + later)))

        return work

    def told(found: Revocations) -> str:
        hours = round((found.snapshot_end - now) / HOUR) if found.snapshot_end else None
        return f"{sorted(names[name] for name in found.revoked)} until {hours}"

    def copied(module: ModuleType) -> str:
        place = Ordered()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLSEAL_STORE", str(store))
            got = outcome(lambda: module.copy_from_store(trust, place))
        kinds = sorted({name.split("/")[0] for name in place.files})
        return f"{got} {kinds} {len(place.names('revocations'))}"

    for bundle in (listed, new, noise):
        Store(store).put(bundle)
    rest = Ordered()
    return {
        "nobody may revoke": known(Ordered(direct), by=(policy(),)),
        "one taken back": known(Ordered(direct, new)),
        "in a second place": known(rest, Ordered(direct, new)),
        "in the store": known(rest, kept=str(store)),
        "listed in the snapshot": known(Ordered(new)),
        "no snapshot": known(Ordered(direct)),
        "an old snapshot": known(Ordered(old), later=6 * HOUR),
        "an ended snapshot": known(Ordered(new), later=2 * HOUR),
        "the newest counts, last": known(Ordered(old, new)),
        "the newest counts, first": known(Ordered(new, old)),
        "a stranger's word": known(Ordered(strange, new)),
        "a stranger's snapshot": known(Ordered(other_snapshot)),
        "no bundle": known(Ordered(new, more={f"revocations/{'0' * 64}{layout.SUFFIX}": b"{}"})),
        "another kind": known(Ordered(new, noise)),
        "another name": known(Ordered(new, more={"revocations/x.json": direct.raw})),
        "two policies": known(Ordered(direct, new, other, other_snapshot), by=(monitor, evaluator)),
        "two policies, one without": known(Ordered(direct, new, other), by=(monitor, evaluator)),
        "copied": copied,
    }


def test_what_counts_as_taken_back(taken: dict[str, Callable[[ModuleType], str]]) -> None:
    found = {name: work(revoked) for name, work in taken.items()}
    stale, none = "StaleEvidence: the revocation snapshot is stale", "StaleEvidence: no revocation snapshot"
    assert found == {
        "nobody may revoke": "[] until None",
        "one taken back": "['a', 'b'] until 1",
        "in a second place": "['a', 'b'] until 1",
        "in the store": "['a'] until 1",
        "listed in the snapshot": "['a'] until 1",
        "no snapshot": none,
        "an old snapshot": stale,
        "an ended snapshot": stale,
        "the newest counts, last": "['a'] until 1",
        "the newest counts, first": "['a'] until 1",
        "a stranger's word": "['a'] until 1",
        "a stranger's snapshot": none,
        "no bundle": "['a'] until 1",
        "another kind": "['a'] until 1",
        "another name": "['a'] until 1",
        "two policies": "['a', 'b', 'c'] until 1",
        "two policies, one without": none,
        "copied": "None ['log', 'revocations'] 2",
    }


@pytest.mark.parametrize(("old", "new"), REVOKED, ids=[f"{n}-{old.strip()[:40]}" for n, (old, _) in enumerate(REVOKED)])
def test_taking_a_check_of_revocations_out_is_noticed(old: str, new: str, taken: Any) -> None:
    mutant = changed(revoked, old, new)
    assert any(work(mutant) != work(revoked) for work in taken.values()), f"nothing notices {new!r} in place of {old!r}"


@pytest.mark.parametrize("old", REVOKED_DOUBLED)
def test_what_stands_twice_about_revocations_is_said_to(old: str, taken: Any) -> None:
    mutant = changed(revoked, old, "        identities=[type('Anybody', (), {'matches': lambda *_: True})()],")
    assert all(work(mutant) == work(revoked) for work in taken.values()), "no longer doubled: put it into the table"
