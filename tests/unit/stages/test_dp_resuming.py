"""A private training that was stopped goes on with fresh noise, and pays for every epoch that began."""

import shutil

import numpy as np
import pytest

from mlseal.errors import Unchecked
from mlseal.evidence import paths
from mlseal.stages import dense, runner
from mlseal.stages.manner import Manner
from mlseal.stages.training import dpsgd
from tests.unit.stages.test_dp import ASKED, one_thread, table  # noqa: F401 - a fixture

RESUME = Manner(resume=True)


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps that Opacus takes and notes the seed of every generator; `steps.stop` ends the run before one."""
    from opacus.optimizers import DPOptimizer

    class Steps:
        taken, stop = 0, None
        seeds: list[int] = []  # noqa: RUF012 - made anew for each test

    plain, generator = DPOptimizer.step, dpsgd._generator

    def step(self, *arguments):
        if Steps.taken == Steps.stop:
            raise Unchecked("the machine went away")
        Steps.taken += 1
        return plain(self, *arguments)

    def seeded():
        made = generator()
        Steps.seeds.append(made.initial_seed())
        return made

    monkeypatch.setattr(DPOptimizer, "step", step)
    monkeypatch.setattr(dpsgd, "_generator", seeded)
    return Steps


@pytest.fixture
def train(tmp_path):
    """Train with ``--resume``; the statement and the model."""
    data = tmp_path / "people.csv"
    table().to_csv(data, index=False)

    def go(**changes):
        out = tmp_path / f"model-{len(list(tmp_path.glob('model-*')))}"
        asked = {"dataset": str(data), "out": str(out), **ASKED, **changes}
        with runner.performed("training.dp", asked, archive=lambda: None, manner=RESUME) as done:
            done.publish()
            said = done.statement.predicate
        return said, np.concatenate([layer.weight.ravel() for layer in dense.read(out).layers])

    return go


def stopped(train, steps, at):
    steps.stop = at
    with pytest.raises(Unchecked, match="went away"):
        train()
    steps.stop = None


def kept():
    (root,) = (paths.state_dir() / "checkpoints").iterdir()
    return root


def test_an_epoch_that_began_is_spent_and_epsilon_is_that_of_a_run_without_a_stop(train, steps):
    whole, _ = train()
    taken, steps.taken = steps.taken, 0
    stopped(train, steps, at=6)  # in the second of three epochs of four steps
    said, _ = train()
    assert taken == whole["steps"] == 12
    assert steps.taken == 6 + 4, "the second epoch is lost and not made good"
    for figure in ("epsilon", "delta", "steps", "noiseMultiplier", "sampleRate", "estimates"):
        assert said[figure] == whole[figure]
    assert said["harness"]["resumed"] is True
    assert any("2 of 3 epochs" in text for text in said["notProven"])
    assert not any("epochs" in text for text in whole["notProven"])
    assert [entry.name for entry in kept().iterdir()] == ["lock"]


def test_stopping_again_and_again_buys_no_further_noise(train, steps):
    for at in (2, 4, 6):  # in each of three epochs
        stopped(train, steps, at)
    said, weights = train()
    assert steps.taken == 6
    assert said["steps"] == 12
    assert any("0 of 3 epochs" in text for text in said["notProven"])
    assert not weights.any(), "nothing that was learnt survived: these are the first weights, which are zero"


def test_an_older_checkpoint_put_back_does_not_repeat_the_noise(train, steps, tmp_path):
    """Two models from the same weights with the same noise would differ by gradients alone."""
    stopped(train, steps, at=6)
    shutil.copytree(kept(), tmp_path / "older")
    _, one = train()
    for entry in ("newest", "record"):
        source = tmp_path / "older" / entry
        (shutil.copytree if source.is_dir() else shutil.copy)(source, kept() / entry)
    _, other = train()
    assert not np.array_equal(one, other)
    assert len(set(steps.seeds)) == len(steps.seeds) == 6, "batches and noise, each run anew"
    held = b"".join(file.read_bytes() for file in (tmp_path / "older").rglob("*") if file.is_file())
    assert not any(str(seed).encode() in held for seed in steps.seeds)


def test_a_stop_after_the_last_step_trains_no_more(train, steps, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dpsgd, "_estimates", lambda *_: (_ for _ in ()).throw(Unchecked("the machine went away")))
        stopped(train, steps, at=None)
    said, _ = train()
    assert steps.taken == said["steps"] == 12
    assert not any("epochs" in text for text in said["notProven"])
