"""A stopped run goes on from its own checkpoint, and from nothing else."""

# ruff: noqa: F811 - fixtures of another module are arguments here

import os
import sys
import types

import pytest

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence import paths
from mlseal.stages import registry, runner
from mlseal.stages.base import Context, DatasetPath, Finding, stage
from mlseal.stages.manner import Manner
from tests.unit.stages.test_runner import data, finding  # noqa: F401 - a fixture

RESUME = Manner(resume=True)
seen: list[int] = []


def counting(data: DatasetPath, until: int = 3, stop_at: int = 99, seed: int = 0, *, context: Context) -> Finding:
    """Count, one checkpoint a step; `seen` is what was computed anew."""
    done = 0
    kept = context.checkpoints
    if kept is not None and (newest := kept.load()):
        done = int((newest / "done").read_text())
    while done < until:
        if done == stop_at:
            raise Unchecked("the machine went away")
        done += 1
        seen.append(done)
        if kept is not None:
            kept.save(lambda folder: (folder / "done").write_text(str(done)))
    return finding()


@pytest.fixture(autouse=True)
def count(monkeypatch, data):
    """Registers the stage; returns a way to run it that says what was computed and what the harness says."""
    module = types.ModuleType("probe_stage")
    module.probe = stage("testing.probe", predicate="source-verification", resumable=True)(counting)
    monkeypatch.setitem(sys.modules, "probe_stage", module)
    monkeypatch.setitem(registry.BUILTIN, "testing.probe", "probe_stage:probe")

    def go(manner=RESUME, **arguments):
        seen.clear()
        given = {"data": str(data), **{key: str(value) for key, value in arguments.items()}}
        # `stop_at` is a setting, so a stopped and an unstopped run differ in it unless it is in neither's key
        with runner.performed("testing.probe", given, archive=lambda: None, manner=manner) as done:
            return list(seen), done.statement.predicate["harness"].get("resumed")

    return go


@pytest.fixture
def stopped(count, monkeypatch):
    """Leaves a checkpoint after step 2 of the run with the default settings."""

    def go(**arguments):
        def stops(*args, **kwargs):
            return counting(*args, **{**kwargs, "stop_at": 2})

        whole = registry.load("testing.probe").stage
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["probe_stage"], "probe", whole.__class__(**{**vars(whole), "function": stops}))
            with pytest.raises(Unchecked, match="went away"):
                count(**arguments)

    return go


def folders():
    root = paths.state_dir() / "checkpoints"
    return [path for path in root.iterdir() if any(entry.name != "lock" for entry in path.iterdir())]


def test_it_goes_on_and_says_so_and_forgets_when_done(count, stopped):
    stopped()
    (folder,) = folders()
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert count() == ([3], True)
    assert folders() == []
    assert count() == ([1, 2, 3], None), "a finished run leaves nothing to go on from"


def test_without_the_flag_nothing_is_kept_or_used(count, stopped):
    stopped()
    assert count(Manner()) == ([1, 2, 3], None)
    assert len(folders()) == 1


def test_other_inputs_settings_and_seeds_begin_anew(count, stopped, data):
    stopped()
    assert count(until=4) == ([1, 2, 3, 4], None)
    assert count(seed=1) == ([1, 2, 3], None)
    (data / "rows").write_text("other\n")
    assert count() == ([1, 2, 3], None)


def test_another_version_begins_anew(count, stopped, monkeypatch):
    stopped()
    monkeypatch.setattr(registry, "__version__", "99.0")
    assert count() == ([1, 2, 3], None)


def spoil(folder):
    (folder / "newest" / "done").write_text("7")


def add(folder):
    (folder / "newest" / "more").write_text("x")


def link(folder):
    elsewhere = folder.parent.parent / "elsewhere"
    (folder / "newest").rename(elsewhere)
    (folder / "newest").symlink_to(elsewhere)


def other_key(folder):
    record = folder / "record"
    record.write_text(record.read_text().replace(folder.name, "0" * 64))


def no_json(folder):
    (folder / "record").write_text("{")


def half(folder):
    (folder / "record").unlink()


@pytest.mark.parametrize("attack", [spoil, add, link, other_key, no_json, half])
def test_what_was_not_saved_is_not_loaded(count, stopped, attack):
    stopped()
    attack(folders()[0])
    assert count() == ([1, 2, 3], None)


def test_a_checkpoint_moved_to_another_question_is_not_loaded(count, stopped):
    stopped()
    stopped(seed=1)
    one, two = folders()
    for name in ("record", "newest"):
        (one / name).rename(one / f"old-{name}")
        (two / name).rename(one / name)
    assert sorted((count()[0], count(seed=1)[0])) == [[1, 2, 3], [1, 2, 3]]


def test_a_directory_that_others_can_use_is_refused(count, stopped):
    stopped()
    folders()[0].chmod(0o755)
    with pytest.raises(Misuse, match="others can use the checkpoints"):
        count()


def test_two_at_once_do_not_share_it(count, data):
    with runner.performed("testing.probe", {"data": str(data)}, archive=lambda: None, manner=RESUME):
        with pytest.raises(Unchecked, match="another run of the same"):
            count()


def test_a_save_that_fails_keeps_the_one_before(count, stopped):
    stopped()

    def fails(data: DatasetPath, *, context: Context) -> Finding:
        """Fail while saving."""

        def fill(folder):
            (folder / "half").write_text("x")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            context.checkpoints.save(fill)
        assert context.checkpoints.load() is not None
        raise Unchecked("as it was")

    whole = registry.load("testing.probe").stage
    sys.modules["probe_stage"].probe = whole.__class__(
        **{**vars(whole), "function": lambda **k: fails(k["data"], context=k["context"])}
    )
    with pytest.raises(Unchecked, match="as it was"):
        count()
    sys.modules["probe_stage"].probe = whole
    assert count() == ([3], True)


def test_a_stage_that_keeps_none_says_so(authority, data):
    with pytest.raises(Misuse, match="keeps no checkpoints"):
        with runner.performed("ingestion.source", {"dataset": str(data)}, archive=lambda: None, manner=RESUME):
            pass
    done = authority.call("run", "ingestion.source", "--resume", "--dataset", str(data))
    assert done.returncode == 2 and "No such option" in done.stderr
