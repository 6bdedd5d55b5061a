"""Every registered stage keeps rows and names to itself, repeats itself, and stops cleanly on what it cannot use.

What each is tried with stands in `tests/stages_cases`.
"""

import base64
import importlib.metadata
import json
import secrets
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlseal.errors import MissingExtra
from mlseal.evidence.archive import Archive
from mlseal.stages import base, registry, runner
from mlseal.stages import workspace as workspaces
from mlseal.stages.manner import Manner
from mlseal.stages.shard import Shard
from tests.stages_cases import Bad, World, case_of

CANARY = f"canary{secrets.token_hex(4)}"
TIMES = ("startedOn", "finishedOn", "runDetails.metadata")


def stages(*, bad=False):
    """A parameter for each stage, or for each of its bad inputs; slow where its case says so."""
    for name in sorted(registry.BUILTIN):
        case = case_of(name)
        marks = [pytest.mark.slow] if case.slow else []
        if not bad:
            yield pytest.param(name, id=name, marks=marks)
            continue
        for kind, spoilt in case.bad.items():
            if isinstance(spoilt, Bad):
                yield pytest.param(name, kind, id=f"{name}-{kind}", marks=marks)
            else:
                assert len(spoilt.split()) > 3, f"{name} says why it has no {kind} input"


@pytest.fixture(autouse=True)
def temporary(monkeypatch):
    """A folder for workspaces that is this test's own, so that what stays behind is seen; short, for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="mls-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def world(tmp_path, authority):
    root = tmp_path / f"world-{secrets.token_hex(3)}"
    root.mkdir()
    return World(root, CANARY, authority)


def complete(name, world, arguments, run="out"):
    """`arguments` as texts, with a new path for each output."""
    folder = world.root.parent / f"{world.root.name}-{run}"
    folder.mkdir()
    outputs = {
        p.name: folder / f"{world.mark}{p.name}" for p in registry.load(name).stage.parameters if p.role == "output"
    }
    return {key: str(value) for key, value in {**arguments, **outputs}.items()}, folder


def command_of(authority, name, world, arguments):
    """The words after ``mlseal`` that run the stage, and the folder of its outputs."""
    texts, folder = complete(name, world, arguments)
    flags = {p.name: p.flag for p in registry.load(name).stage.parameters}
    words = [word for key, value in texts.items() for word in (flags[key], value)]
    return ["run", name, *words, "--role", "evaluator", "--store", str(authority.store.root)], folder


def everything(bundle) -> bytes:
    """All bytes that travel or stay: the file, the payload, the certificate and the log entry, decoded."""
    material = bundle.document["verificationMaterial"]
    entry = base64.b64decode(material["tlogEntries"][0]["canonicalizedBody"])
    certificate = base64.b64decode(material["certificate"]["rawBytes"])
    return b"".join((bundle.raw, bundle.statement.payload, certificate, entry))


def without(predicate, fields):
    """A copy of `predicate` without the dotted `fields`."""
    made = dict(predicate)
    for field in fields:
        head, _, rest = field.partition(".")
        if rest and isinstance(made.get(head), dict):
            made[head] = without(made[head], [rest])
        elif not rest:
            made.pop(head, None)
    return made


@pytest.mark.parametrize("name", list(stages()))
def test_rows_stay_inside_and_the_same_seed_finds_the_same(authority, world, capfd, name):
    case, stage = case_of(name), registry.load(name).stage
    good = case.make(world)
    known = set(authority.store.ids())
    arguments, _ = complete(name, world, good)
    capfd.readouterr()
    made = runner.run(name, arguments, signer=authority.signer("evaluator"), store=authority.store, run_id="run")
    shown = "".join(capfd.readouterr())
    for bundle in (made, *(authority.store.get(one) for one in authority.store.ids() if one not in known)):
        assert CANARY.encode() not in everything(bundle)
    assert case.shows or CANARY not in shown
    held = [file for file in authority.state.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    assert not held, "log, certificate authority and journal never see a row"
    said = made.statement.predicate
    if "notProven" in said:
        assert set(stage.not_proven) <= set(said["notProven"])
    again, _ = complete(name, world, good, "again")
    archive = Archive.open(authority.trust, authority.store)
    with runner.performed(name, again, archive=lambda: archive, run_id="run") as done:
        second = done.statement.predicate
    varying = (*TIMES, *case.varies)
    if case.repeats is True:
        assert without(second, varying) == without(said, varying)
    else:
        assert len(str(case.repeats).split()) > 3, "a sentence says why it does not repeat itself"


@pytest.mark.parametrize("name", [n for n in sorted(registry.BUILTIN) if registry.load(n).stage.merge])
def test_in_shards_a_stage_finds_what_it_finds_at_once(authority, world, name):
    """In more of them than the case has files, so that some are empty."""
    good, signer = case_of(name).make(world), authority.signer("evaluator")

    def run(which, **manner):
        texts, folder = complete(name, world, good, which)
        made = runner.run(
            name, texts, signer=signer, store=authority.store, run_id="run", quiet=True, manner=Manner(**manner)
        )
        assert CANARY.encode() not in everything(made)
        return made, sorted(folder.iterdir())

    parts = [run(f"part-{index}", shard=Shard(index, 5)) for index in range(1, 6)]
    outputs = [path for _, made in parts for path in made]
    merged, made = run("merged", partials=tuple(bundle for bundle, _ in parts), made=tuple(outputs))
    whole, at_once = run("at-once")
    said, wanted = merged.statement.predicate, without(whole.statement.predicate, TIMES)
    configuration = [one for one in said.get("configuration", ()) if one["name"] != "partials"]
    assert without({**said, **({"configuration": configuration} if configuration else {})}, TIMES) == wanted
    assert str(said).count(parts[4][0].evidence_id) == 1, "it names its parts"
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in at_once]


@pytest.mark.parametrize("name", list(stages()))
def test_names_of_files_stay_inside_where_they_are_committed(authority, world, monkeypatch, name):
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    marked = World(world.root, CANARY, authority, mark="smith-")
    arguments, _ = complete(name, marked, case_of(name).make(marked))
    archive = Archive.open(authority.trust, authority.store)
    with runner.performed(name, arguments, archive=lambda: archive) as done:
        assert b"smith-" not in done.statement.payload
    monkeypatch.setenv("MLSEAL_NAMES", "plain")
    with runner.performed(name, arguments, archive=lambda: archive) as done:
        assert b"smith-" in done.statement.payload, "the mark was there to be seen"


@pytest.mark.parametrize(("name", "kind"), list(stages(bad=True)))
def test_a_bad_input_is_one_sentence_and_no_evidence(authority, world, temporary, name, kind):
    case = case_of(name)
    bad = case.bad[kind]
    good = case.make(world)
    arguments, folder = complete(name, world, bad.spoil(world, good) or good)
    before = set(authority.store.ids())
    with pytest.raises(bad.error, match=bad.match) as caught:
        runner.run(name, arguments, signer=authority.signer("evaluator"), store=authority.store, quiet=True)
    sentence = str(caught.value)
    assert "unexpected" not in sentence, "a bad input is foreseen"
    if not case.shows:
        assert CANARY not in sentence, "sentences end in the logs of clusters"
    assert set(authority.store.ids()) == before
    assert not list(folder.iterdir()) and not list(temporary.glob("mlseal-*"))


KILLED = """
import os, signal
from mlseal.stages import runner
runner.state = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from mlseal.cli import main
main(prog_name="mlseal")
"""


@pytest.mark.parametrize("name", list(stages()))
def test_a_killed_run_publishes_nothing_and_the_next_one_cleans_up(authority, world, temporary, name):
    """Killed when everything is measured and made, and nothing is signed: the last moment at which it is half done."""
    command, folder = command_of(authority, name, world, case_of(name).make(world))
    before = set(authority.store.ids())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *command],
        env={**authority.env, "TMPDIR": str(temporary)},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert set(authority.store.ids()) == before
    assert not [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert list(temporary.glob("mlseal-stage-*")), "it was killed in the middle"
    assert workspaces.sweep() == 1, "as the next run does when it starts"
    assert not list(temporary.glob("mlseal-stage-*")) and not list(folder.iterdir())


@cache
def modules_of(extra: str) -> frozenset[str]:
    """Import names of what `extra` brings and mlseal itself does not need."""
    wanted = [Requirement(line) for line in importlib.metadata.requires("mlseal") or ()]
    bare = {r.name for r in wanted if r.marker is None}
    brought = {r.name for r in wanted if r.marker is not None and r.marker.evaluate({"extra": extra})} - bare
    normal = {name.lower().replace("_", "-") for name in brought}
    offers = importlib.metadata.packages_distributions()
    return frozenset(m for m, dists in offers.items() if normal & {d.lower().replace("_", "-") for d in dists})


WITHOUT = """
import sys
sys.modules |= dict.fromkeys(sys.argv.pop(1).split(","))
from mlseal.cli import main
main(prog_name="mlseal")
"""


@pytest.mark.parametrize("name", [n for n in sorted(registry.BUILTIN) if registry.load(n).stage.extra])
def test_without_its_libraries_a_stage_names_the_extra(authority, world, name):
    """In a process of its own: what is imported while a library is hidden would do without it ever after."""
    case, stage = case_of(name), registry.load(name).stage
    hidden = modules_of(stage.extra)
    assert hidden, f"extra {stage.extra} brings nothing"
    command, folder = command_of(authority, name, world, (case.extra_case or case.make)(world))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(sorted(hidden)), *command, "--json"],
        env=authority.env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == MissingExtra.exit_code, done.stderr
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["error"] == "MissingExtra" and f"mlseal[{stage.extra}]" in said["remedy"]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", sorted(registry.BUILTIN))
def test_every_stage_says_what_it_costs_and_what_it_does_not_prove(name):
    stage = registry.load(name).stage
    assert stage.cost.partition(":")[0] in base.COSTS and len(stage.cost.split()) > 3
    assert stage.not_proven
