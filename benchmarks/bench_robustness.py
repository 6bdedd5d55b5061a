"""The robustness stages beside the libraries that they wrap, alone, on the same rows in one run.

Bar: what makes it evidence (private copies, hashing before and after, projecting, counting, intervals, statement) costs
≤ 5 % of the library alone or ≤ 50 ms. Signing is in ``bench_statement``. Alone means: ART's attacks and trainers
called as its manual does, with as many steps and answers of the model; for membership the forests, ART's attack and the
scorer, which loads the model in a child process on either side. Floor: reading every input once.

    python -m benchmarks.bench_robustness [ROUNDS]
"""

import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.beside import compare, stage
from mlseal.stages import dense, scored
from mlseal.stages.testing import attacked, guessing, perturbing, space

MOST, QUERIES, BUDGET, EPOCHS, WIDTH = 150, 150, 0.1, 5, 8
NAMES = tuple(f"c{number}" for number in range(WIDTH))
RANGES = dict.fromkeys(NAMES, (-4.0, 4.0))


class Spent(Exception):
    """As many answers as the stage asks for."""


def attacks_alone(model: dense.Dense, rows: attacked.Rows, *, restarts: int) -> None:
    """ART's projected gradient descent and HopSkipJump; both need rows as shares of a range, nothing more."""
    import numpy as np
    from art.attacks.evasion import HopSkipJump, ProjectedGradientDescent
    from art.estimators.classification import BlackBoxClassifier

    low, high = np.array([RANGES[name] for name in NAMES]).T
    allowed = space.of(NAMES, rows.numbers, [], RANGES)
    starts = ((rows.numbers - low) / (high - low)).astype(np.float32)
    target = perturbing.target_of(perturbing.twin(model, allowed), WIDTH)
    with perturbing.seeded(1):
        for restart in range(restarts):
            attack = ProjectedGradientDescent(
                target,
                norm=np.inf,
                eps=BUDGET,
                eps_step=BUDGET / 8,
                max_iter=perturbing.STEPS,
                num_random_init=int(restart > 0),
                batch_size=len(starts),
                verbose=False,
            )
            model.decided(low + attack.generate(starts, y=rows.truth) * (high - low))
        other = {kind: starts[rows.truth != kind][:1].copy() for kind in (0, 1)}
        for number in range(len(starts)):
            left = [QUERIES]

            def answers(asked, left=left):
                if len(asked) > left[0]:
                    raise Spent
                left[0] -= len(asked)
                return np.eye(2, dtype=np.float32)[model.decided(low + asked.astype(float) * (high - low))]

            walk = HopSkipJump(
                BlackBoxClassifier(answers, (WIDTH,), 2, clip_values=(0.0, 1.0)),
                norm=np.inf,
                max_iter=200,
                max_eval=QUERIES,
                init_eval=QUERIES // 12,
                init_size=1,
                verbose=False,
            )
            with contextlib.suppress(Spent):
                walk.generate(starts[number : number + 1], x_adv_init=other[int(rows.truth[number])])


def hardening_alone(model: dense.Dense, training: attacked.Rows, rows: attacked.Rows) -> None:
    import numpy as np
    from art.defences.trainer import AdversarialTrainerMadryPGD

    allowed = space.of(NAMES, training.numbers, [], RANGES)
    target = perturbing.target_of(perturbing.twin(model, allowed), WIDTH, rate=0.01)
    trainer = AdversarialTrainerMadryPGD(
        target, nb_epochs=EPOCHS, batch_size=64, eps=BUDGET, eps_step=2.5 * BUDGET / 7, max_iter=7
    )
    with perturbing.seeded(1), contextlib.redirect_stderr(io.StringIO()):
        trainer.fit(allowed.shares(training.numbers).astype(np.float32), training.truth)
    for _ in ("before", "after"):
        attacks_alone(model, rows, restarts=1 + perturbing.RESTARTS)


def membership_alone(model: Path, frames, scratch: Path) -> None:
    import numpy as np
    import pandas as pd

    joined = pd.concat(frames, ignore_index=True)
    data, out = scratch / "features.parquet", scratch / "scores"
    joined[list(NAMES)].to_parquet(data, index=False)
    options = ["--model", str(model), "--data", str(data), "--kind", "probability", "--out", str(out)]
    subprocess.run([sys.executable, "-I", "-B", str(scored.BUILTIN_SCORER), *options], check=True)
    probability = np.array(out.read_text().split(), dtype=float)
    member = np.repeat([1, 0], [len(frame) for frame in frames])
    part = guessing.parts(member, np.random.default_rng(1))
    rows = guessing.Rows(joined[list(NAMES)].to_numpy(), joined["need"].to_numpy(), probability, member, part)
    for guess in (guessing.by_loss, guessing.by_difficulty, guessing.by_classifier, guessing.without_model):
        guess(rows, 1)


def people(rows: int, seed: int):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    need = rng.integers(0, 2, rows)
    return pd.DataFrame(rng.normal(size=(rows, WIDTH)) + 0.9 * (2 * need[:, None] - 1), columns=NAMES).assign(need=need)


class Given:
    """A model that leans on all columns, and two tables; as objects and as files."""

    def __init__(self, scratch: Path) -> None:
        import numpy as np

        self.model = dense.Dense(NAMES, RANGES, (dense.Layer(np.full((1, WIDTH), 7.0), np.zeros(1)),))
        self.frames = {name: people(600, seed) for name, seed in (("train", 1), ("test", 2))}
        self.training, self.test = (attacked.rows(frame, NAMES, "need") for frame in self.frames.values())
        folder = scratch / "robustness"
        self.path = folder / "model"
        self.files = {name: folder / f"{name}.parquet" for name in self.frames}
        if not folder.exists():
            folder.mkdir()
            self.model.write(self.path)
            for name, frame in self.frames.items():
                frame.to_parquet(self.files[name])

    def right(self, rows: attacked.Rows) -> attacked.Rows:
        """Rows that the model decides rightly."""
        return rows.chosen(self.model.predict(rows.frame) == rows.truth)


def evasion(scratch: Path, rounds: int) -> None:
    given = Given(scratch)
    rows = given.right(given.test.first(MOST))
    arguments = {"model": given.path, "dataset": given.files["test"], "outcome": "need", "budgets": BUDGET}
    whole = stage("testing.evasion", rows=MOST, queries=QUERIES, **arguments)
    inputs = (given.path, given.files["test"])
    compare(
        "testing.evasion",
        lambda: attacks_alone(given.model, rows, restarts=perturbing.RESTARTS),
        whole,
        rounds,
        inputs,
        base="ART's PGD, on our copy of the model in torch, and HopSkipJump, with as many steps and answers",
        besides="the table's constraints: each step projected to what the columns allow",
    )


def hardening(scratch: Path, rounds: int) -> None:
    given = Given(scratch)
    rows = given.right(given.test).first(MOST)
    arguments = {"training": given.files["train"], "holdout": given.files["test"], "outcome": "need", "epochs": EPOCHS}
    arguments |= {"model": given.path, "hardened": scratch / "hardened", "budget": BUDGET}
    whole = stage("testing.hardening", rows=MOST, queries=QUERIES, **arguments)
    alone = lambda: hardening_alone(given.model, given.training, rows)  # noqa: E731
    inputs = (given.path, *given.files.values())
    base = "ART's adversarial trainer, and the attacks of testing.evasion before and after"
    besides = "the table's constraints in training and attacks"
    compare("testing.hardening", alone, whole, rounds, inputs, base=base, besides=besides)


def membership(scratch: Path, rounds: int) -> None:
    given = Given(scratch)
    members, holdout = given.files.values()
    whole = stage("testing.membership", model=given.path, members=members, holdout=holdout, outcome="need")
    alone = lambda: membership_alone(given.path, list(given.frames.values()), scratch)  # noqa: E731
    base = "scikit-learn's forests and ART's attack as our code calls them, the scorer in a child process"
    compare("testing.membership", alone, whole, rounds, (given.path, members, holdout), base=base)


ROWS = {"testing.evasion": evasion, "testing.hardening": hardening, "testing.membership": membership}


def main(rounds: int = 5) -> None:
    print("bar: ≤ 5 % or ≤ 50 ms over the library alone, medians of interleaved pairs")
    with tempfile.TemporaryDirectory() as directory:
        for row in ROWS.values():
            row(Path(directory), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
