"""A scan in shards finds, to the byte, what it finds at once; and nothing planted is lost between the parts."""

import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlseal.errors import DigestMismatch, Error, Misuse, NoEvidence, RuleBroken, Unreadable
from mlseal.evidence import statement
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import measure
from mlseal.evidence.naming import Naming
from mlseal.evidence.predicates import partial_result
from mlseal.evidence.predicates.base import Harness
from mlseal.stages import runner
from mlseal.stages.context import Context
from mlseal.stages.manner import Manner
from mlseal.stages.shard import MOST, Found, Shard
from mlseal.stages.testing.code_scan import code_scan
from mlseal.stages.testing.model_file import model_file
from tests.unit.stages.test_code_scan import KEY, SHELL, TOKEN

PLANTED = b'cos\nsystem\n(S"echo planted"\ntR.'
GOOD = pickle.dumps({"weights": [0.5, 1.5]})
HARNESS = Harness(name="testing.x", version="1", provider="mlseal", config_digest="0" * 64)
CODE = {
    "clean": b"def add(a, b):\n    return a + b\n",
    "shell": SHELL.encode(),
    "twice": b"import pickle, os\nos.system(input()); os.system(pickle.loads(input()))\n",
    "broken": b"def (:\n",
    "empty": b"",
    "key": f'aws = "{KEY}"\n'.encode(),
    "token": f'token = "{TOKEN}"\naws = "{KEY}"\n'.encode(),
    "binary": b"\x00\xff\x80" + KEY.encode(),
    "script": b"#!/usr/bin/env python\nexec(input())\n",
}
CODE_NAMES = (
    "a.py",
    "__init__.py",
    "pkg/__init__.py",
    "pkg/b.py",
    "notes.txt",
    "n.ipynb",
    "b ü%.py",
    ".hidden/c.py",
    "run",
)
MODEL = {
    "good": GOOD,
    "planted": PLANTED,
    "torch": b"ctorch\nload\n(S'x'\ntR.",
    "cut": GOOD[:-1],
    "empty": b"",
    "text": b"some words\n",
    "tensors": (2).to_bytes(8, "little") + b"{}      ",
    "numpy": pickle.dumps(float),
}
MODEL_NAMES = ("model.pkl", "data/a.pkl", "data/b ü%.pkl", "weights.safetensors", "readme.md", "z.bin", "MLmodel")
DESCRIBED = {
    "sklearn": b"flavors: {sklearn: {pickled_model: model.pkl}}\n",
    "own code": b"flavors: {sklearn: {code: src}, pytorch: {model_data: ../x}, keras: {}}\n",
    "torch": b"flavors: {pytorch: {model_data: data}}\n",
}


def lent(folder, name, tree, *, salt=None, shard=None, parts=None):
    folder.mkdir()
    return Context(
        run_id="run",
        clock=utcnow,
        started_on="2026-11-28T00:00:00Z",
        measured={name: measure(tree)},
        workspace=folder,
        harness_base=HARNESS,
        log=lambda _: None,
        archive=lambda: None,
        naming=Naming(salt),
        shard=shard,
        parts=parts,
    )


def in_both_ways(stage, name, tree, count, root, salt):
    """The finding of one run and of `count` shards put together, each with the bytes of its report."""
    at_once, merged = root / "at-once.sarif", root / "merged.sarif"
    context = lent(root / "work", name, tree, salt=salt)
    whole = stage(tree, at_once, context=context)
    parts = []
    for index in range(1, count + 1):
        shard, report = Shard(index, count), root / f"{index}.sarif"
        found = stage(tree, report, context=lent(root / f"work-{index}", name, tree, salt=salt, shard=shard))
        parts.append(Found(shard, json.loads(json.dumps(dict(found.fields))), {"report": report}))
    context = lent(root / "work-0", name, tree, salt=salt, parts=tuple(parts))
    together = stage(tree, merged, context=context)
    return (whole, at_once.read_bytes()), (together, merged.read_bytes())


def written(files, root):
    tree = root / "tree"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    return tree


def trees(names, contents):
    return st.dictionaries(st.sampled_from(names), st.sampled_from(contents), min_size=1, max_size=6)


COUNTS = st.sampled_from([1, 2, 3, 7])
SALTS = st.sampled_from([None, b"s" * 32])


def require_equal(stage, name, files, count, salt):
    if not any(files.values()):
        return
    with tempfile.TemporaryDirectory(prefix="mls-") as folder:
        root = Path(folder)
        whole, merged = in_both_ways(stage, name, written(files, root), count, root, salt)
        assert merged == whole


@settings(max_examples=15, deadline=None)
@given(trees(CODE_NAMES, list(CODE.values())), COUNTS, SALTS)
@example(
    {"a.py": CODE["twice"], "pkg/b.py": CODE["broken"], "notes.txt": CODE["token"], "x.txt": CODE["token"]}, 3, None
)
@example({"notes.txt": b"no Python", "more.txt": b"none here"}, 7, None)
def test_code_in_any_number_of_shards_is_the_same_code(files, count, salt):
    require_equal(code_scan, "code", files, count, salt)


@settings(max_examples=15, deadline=None)
@given(trees(MODEL_NAMES, [*MODEL.values(), *DESCRIBED.values()]), COUNTS, SALTS)
@example({"MLmodel": DESCRIBED["own code"], "a.pkl": MODEL["planted"], "b.pkl": MODEL["planted"]}, 2, b"s" * 32)
@example(
    {"MLmodel": DESCRIBED["torch"], "a.pkl": MODEL["torch"], "b.pkl": MODEL["good"], "c.pkl": MODEL["cut"]}, 3, None
)
def test_a_model_in_any_number_of_shards_is_the_same_model(files, count, salt):
    require_equal(model_file, "model", files, count, salt)


# --- signed, verified and merged --------------------------------------------------------------------------------------


class Shards:
    """Runs `testing.model_file` in parts and merges them, as the command line does."""

    def __init__(self, authority, root):
        self.authority, self.root, self.number = authority, root, 0
        self.model = root / "model"
        for index in range(4):
            (self.model / f"weights-{index}.pkl").parent.mkdir(exist_ok=True)
            (self.model / f"weights-{index}.pkl").write_bytes(GOOD)
        (self.model / "planted.pkl").write_bytes(PLANTED)

    def run(self, manner, model=None, role="evaluator", **values):
        self.number += 1
        report = self.root / f"{self.number}.sarif"
        given = {"model": str(model or self.model), "report": str(report), "second_opinions": "", **values}
        signer = self.authority.signer(role)
        return runner.run(
            "testing.model_file", given, signer=signer, store=self.authority.store, quiet=True, manner=manner
        ), report

    def part(self, index, count, **more):
        return self.run(Manner(shard=Shard(index, count)), **more)

    def merge(self, *parts, made=None, **more):
        reports = tuple(report for _, report in parts) if made is None else tuple(made)
        return self.run(Manner(partials=tuple(bundle for bundle, _ in parts), made=reports), **more)

    def forged(self, part, report=None, **fields):
        """A part as its own signer could lie, beside the report that it then has."""
        bundle, old = part
        said = bundle.statement.predicate
        lie = {**said, "runId": "lie", "fields": {**said["fields"], **fields}}
        if report is not None:
            lie["outputs"] = {"report": measure(report).sha256}
        lie.update({key: fields[key] for key in ("harness", "outputs") if key in fields})
        made = statement.make(measure(self.model).subjects, partial_result.URI, lie)
        return self.authority.signer("evaluator").sign(made), report or old


@pytest.fixture
def shards(authority, tmp_path):
    return Shards(authority, tmp_path)


def entry(bundle, name):
    return next(one for one in bundle.statement.predicate["configuration"] if one["name"] == name)


def test_one_planted_pickle_in_one_part_fails_the_whole(shards):
    parts = [shards.part(index, 3) for index in (1, 2, 3)]
    clean = [part for part in parts if "first" not in part[0].statement.predicate["fields"]]
    assert len(clean) == 2, "the others found nothing"
    whole, report = shards.merge(*reversed(parts))
    assert whole.statement.predicate["result"] == "FAILED"
    assert whole.statement.predicate["failedTests"] == ["allow-list"]
    assert entry(whole, "allow-list")["annotations"]["files"] == 5
    assert entry(whole, "partials")["annotations"] == {
        f"{index}/3": bundle.evidence_id for index, (bundle, _) in enumerate(parts, 1)
    }
    assert b"planted.pkl" in report.read_bytes()


def test_the_part_with_the_planted_pickle_cannot_be_left_out(shards):
    parts = [shards.part(index, 3) for index in (1, 2, 3)]
    before = set(shards.authority.store.ids())
    (guilty,) = [part for part in parts if "first" in part[0].statement.predicate["fields"]]
    clean = [part for part in parts if part is not guilty]
    with pytest.raises(NoEvidence, match="parts are missing"):
        shards.merge(*clean)
    with pytest.raises(RuleBroken, match="twice"):
        shards.merge(*clean, clean[0])
    innocent = shards.root / "innocent" / "model"
    innocent.mkdir(parents=True)
    for file in shards.model.iterdir():
        (innocent / file.name).write_bytes(GOOD)
    index = guilty[0].statement.predicate["shard"]["index"]
    for other in (
        shards.part(index, 3, model=innocent),
        shards.part(index, 3, flavour="torch"),
        shards.part(index, 3, role="producer"),
    ):
        with pytest.raises(Error):
            shards.merge(*clean, other)
    harness = {**guilty[0].statement.predicate["harness"], "version": "0.0.1"}
    with pytest.raises(RuleBroken, match="another version"):
        shards.merge(*clean, shards.forged(guilty, harness=harness))
    made = set(shards.authority.store.ids()) - before
    kinds = {shards.authority.store.get(one).statement.predicate_type for one in made}
    assert kinds == {partial_result.URI}, "nothing about the whole was signed"
    assert not shards.root.joinpath(f"{shards.number}.sarif").exists()


def test_a_file_that_became_another_since_is_found(shards):
    parts = [shards.part(index, 2) for index in (1, 2)]
    (shards.model / "weights-0.pkl").write_bytes(PLANTED)
    with pytest.raises(DigestMismatch):
        shards.merge(*parts)


def test_what_a_part_made_is_known_by_its_digest(shards):
    one, two = (shards.part(index, 2) for index in (1, 2))
    reports = [one[1], two[1]]
    changed = shards.root / "changed.sarif"
    changed.write_bytes(one[1].read_bytes().replace(b"planted.pkl", b"harmless.md"))
    assert changed.read_bytes() != one[1].read_bytes()
    with pytest.raises(RuleBroken, match="output report of part 1/2 is not among what is given"):
        shards.merge(one, two, made=[changed, two[1]])
    with pytest.raises(NoEvidence, match="output report of part 2/2 is not at hand"):
        shards.merge(one, two, made=reports[:1])
    with pytest.raises(RuleBroken, match="no part made this"):
        shards.merge(one, two, made=[*reports, changed])
    with pytest.raises(Misuse, match="give --merge"):
        shards.run(Manner(made=tuple(reports)))
    whole, _ = shards.merge(one, two, made=reports[::-1])
    assert whole.statement.predicate["result"] == "FAILED", "their order says nothing"


def test_a_part_that_contradicts_itself_is_refused(shards):
    one, two = (shards.part(index, 2) for index in (1, 2))
    assert "first" in one[0].statement.predicate["fields"]
    with pytest.raises(RuleBroken, match=r"part 2/2 did not look at all of its files; got 1; expected 2"):
        shards.merge(one, shards.forged(two, files=1))
    with pytest.raises(RuleBroken, match="does not fit its evidence"):
        shards.merge(shards.forged(one, report=two[1]), two)
    with pytest.raises(RuleBroken, match="made other outputs"):
        shards.merge(one, shards.forged(two, outputs={}))
    other = shards.root / "other.sarif"
    other.write_text("{}")
    with pytest.raises(Unreadable, match="none of a part"):
        shards.merge(shards.forged(one, report=other), two)


def test_what_is_not_divided_says_so(shards, tmp_path):
    with pytest.raises(Misuse, match="modelaudit judges files together"):
        shards.part(1, 2, second_opinions="modelaudit")
    with pytest.raises(Misuse, match="is one file"):
        shards.part(1, 2, model=shards.model / "weights-0.pkl")
    code, report = tmp_path / "code", tmp_path / "foreign.sarif"
    code.mkdir()
    (code / "requirements.txt").write_text("requests==2.0.0\n")
    report.write_text("{}")
    for more, match in (
        ({"foreign": str(report)}, "imported as a whole"),
        ({"parts": "dependencies", "requirements": str(code / "requirements.txt")}, "nothing that was asked"),
        ({"code": str(code / "requirements.txt")}, "is one file"),
    ):
        given = {"code": str(code), "report": str(tmp_path / "r.sarif"), **more}
        with (
            pytest.raises(Misuse, match=match),
            runner.performed("testing.code", given, archive=lambda: None, manner=Manner(shard=Shard(1, 2))),
        ):
            pass


def test_an_empty_part_is_a_part_and_an_empty_whole_is_none(shards):
    parts = [shards.part(index, 7) for index in range(1, 8)]
    assert [part[0].statement.predicate["fields"]["files"] for part in parts] == [1, 1, 1, 1, 1, 0, 0]
    whole, _ = shards.merge(*parts)
    assert entry(whole, "allow-list")["annotations"] == {
        **entry(whole, "allow-list")["annotations"], "files": 5, "flawed": 1
    }  # fmt: skip
    for file in shards.model.iterdir():
        file.write_bytes(b"")
    with pytest.raises(Unreadable, match="holds no content"):
        shards.part(1, 2)


def test_evidence_that_names_as_many_parts_as_there_can_be_fits():
    named = {f"{index}/{MOST}": "f" * 64 for index in range(1, MOST + 1)}
    assert len(json.dumps(named)) < statement.MAX_PREDICATE_BYTES * 3 / 4
