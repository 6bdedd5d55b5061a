"""The robustness stages beside the libraries that they wrap, alone, on the same rows in one run.

Bar: what makes it evidence (private copies, hashing before and after, projecting, counting, intervals, statement) costs
≤ 5 % of the library alone or ≤ 50 ms. Signing is in ``bench_statement``. Alone means: ART's attacks and trainers
called as its manual does, with as many steps and answers of the model; for membership the forests, ART's attack and the
scorer, which loads the model in a child process on either side. Floor: one attack of the white-box kind.

    python benchmarks/bench_robustness.py [ROUNDS]
"""

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlseal.stages import dense, runner, scored
from mlseal.stages.testing import attacked, guessing, perturbing, space

ROWS, QUERIES, BUDGET, EPOCHS, WIDTH = 150, 150, 0.1, 5, 8
NAMES = tuple(f"c{number}" for number in range(WIDTH))
RANGES = dict.fromkeys(NAMES, (-4.0, 4.0))


def seconds(work) -> tuple[float, float]:
    """Wall and processor seconds; on a busy machine only the second says what the work costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def stage(name: str, scratch: Path, **arguments) -> None:
    texts = {key: str(value) for key, value in arguments.items()} | {"outcome": "need"}
    if name == "testing.hardening":
        texts["hardened"] = str(scratch / "hardened")
    with runner.performed(name, texts, archive=lambda: None):
        pass


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


def compare(name: str, alone, whole, rounds: int) -> None:
    alone(), whole()  # imports and caches are not what is measured
    pairs = [(seconds(alone), seconds(whole)) for _ in range(rounds)]
    bare, made = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    wall, cpu = (statistics.median(two[clock] - one[clock] for one, two in pairs) for clock in (0, 1))
    bar = max(0.05 * bare, 0.050)
    verdict = "met" if wall <= bar else "met in processor time, machine busy" if cpu <= bar else "MISSED"
    more = f"{wall * 1e3:+7.1f} ms ({cpu * 1e3:+.1f} of processor)"
    print(f"  {name:22} alone {bare * 1e3:8.1f} ms, as evidence {made * 1e3:8.1f} ms, {more}   {verdict}")


def people(rows: int, seed: int):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    need = rng.integers(0, 2, rows)
    return pd.DataFrame(rng.normal(size=(rows, WIDTH)) + 0.9 * (2 * need[:, None] - 1), columns=NAMES).assign(need=need)


def main(rounds: int = 5) -> None:
    import numpy as np

    print("bar: ≤ 5 % or ≤ 50 ms over the library alone, medians of interleaved pairs")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        model = dense.Dense(NAMES, RANGES, (dense.Layer(np.full((1, WIDTH), 7.0), np.zeros(1)),))
        model.write(scratch / "model")
        frames = {name: people(600, seed) for name, seed in (("train", 1), ("test", 2))}
        for name, frame in frames.items():
            frame.to_parquet(scratch / f"{name}.parquet")
        files = {name: scratch / f"{name}.parquet" for name in frames}
        training, test = (attacked.rows(frame, NAMES, "need") for frame in frames.values())
        right = test.first(ROWS).chosen(model.predict(test.first(ROWS).frame) == test.first(ROWS).truth)
        same = {"model": scratch / "model", "rows": ROWS, "queries": QUERIES}
        compare(
            "testing.evasion",
            lambda: attacks_alone(model, right, restarts=perturbing.RESTARTS),
            lambda: stage("testing.evasion", scratch, dataset=files["test"], budgets=BUDGET, **same),
            rounds,
        )
        given = {"training": files["train"], "holdout": files["test"], "budget": BUDGET, "epochs": EPOCHS}
        compare(
            "testing.hardening",
            lambda: hardening_alone(model, training, test.chosen(model.predict(test.frame) == test.truth).first(ROWS)),
            lambda: stage("testing.hardening", scratch, **given, **same),
            rounds,
        )
        compare(
            "testing.membership",
            lambda: membership_alone(scratch / "model", list(frames.values()), scratch),
            lambda: stage(
                "testing.membership",
                scratch,
                model=scratch / "model",
                members=files["train"],
                holdout=files["test"],
                minimum_rows=100,
            ),
            rounds,
        )
        print(f"  floor: {floor(model, right) * 1e3:.1f} ms for one gradient attack")


def floor(model: dense.Dense, rows: attacked.Rows) -> float:
    allowed = space.of(NAMES, rows.numbers, [], RANGES)
    target = perturbing.target_of(perturbing.twin(model, allowed), WIDTH)
    starts = allowed.shares(rows.numbers)
    return min(
        seconds(lambda: list(perturbing.by_gradient(target, allowed, starts, rows.truth, BUDGET, 1, 1)))[0]
        for _ in range(3)
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
