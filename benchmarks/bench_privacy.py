"""Private training and encrypted scoring: what the evidence adds, beside the wrapped library alone in the same run.

Bars (DESIGN, section 11): evidence adds at most 5 % or 50 ms, whichever is more; an encrypted 30-feature score takes at
most 10 ms amortised, beside TenSEAL one row at a time; batch and single latency are printed. Rounds are interleaved.

What runs alone is Opacus as its tutorial has it on people whose rows are put beside each other, its own search for the
noise included; the two processes of encrypted scoring without a stage around them; our rounds in one process. A stage
is measured up to its statement; the signature stands in `bench_statement.py`.

    python -m benchmarks.bench_privacy [ROUNDS]
"""

import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import beside
from mlseal.evidence import planning
from mlseal.stages import dense, runner
from mlseal.stages.training import encrypted_client, rounds, units

PEOPLE = 1000
EPOCHS = 5
FEATURES = [f"x{i}" for i in range(30)]
SCORED = 4096


def people(folder: Path) -> Path:
    """A thousand people with two rows of thirty features."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(2 * PEOPLE, 30)), columns=FEATURES)
    frame.insert(0, "need", (frame.x0 + frame.x1 > 0).astype(int))
    frame.insert(0, "person", np.arange(2 * PEOPLE) // 2)
    frame.to_parquet(folder / "people.parquet", index=False)
    return folder / "people.parquet"


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def both(work) -> tuple[float, float]:
    """Wall and processor seconds; on a busy machine only the second says what the work costs."""
    before = time.process_time()
    wall = seconds(work)
    return wall, time.process_time() - before


def row(
    name: str, library: list[tuple[float, float]], whole: list[tuple[float, float]], base: str, besides: str
) -> None:
    """Medians, and what the stage adds to the library within one round."""
    wall, cpu = (statistics.median(w[k] - one[k] for w, one in zip(whole, library, strict=True)) for k in (0, 1))
    median = statistics.median(one[0] for one in library)
    verdict = beside.verdict(wall, cpu, max(0.05 * median, 0.05), besides)
    print(
        f"  {name:18} alone {median * 1e3:6.0f} ms, the stage adds {wall * 1e3:6.0f} ms ({cpu * 1e3:.0f} of processor)"
        f"   bar 5 % or 50 ms   {verdict}\n    alone: {base}; besides evidence the stage adds {besides}"
    )


def stage(name: str, arguments: dict[str, str]) -> tuple[float, float]:
    def work() -> None:
        with runner.performed(name, arguments, archive=lambda: None):
            pass

    return both(work)


def bare(data: Path) -> None:
    """What a program without evidence does with Opacus: read, pad, have the noise found, train, ask for epsilon."""
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    frame = pd.read_parquet(data)
    features = frame[FEATURES].to_numpy(np.float32).reshape(PEOPLE, 2, 30)  # the rows of a person follow each other
    labels = frame["need"].to_numpy(np.float32).reshape(PEOPLE, 2)
    tensors = [torch.from_numpy(part) for part in (features, labels, np.ones_like(labels))]
    model = torch.nn.Linear(30, 1)
    engine = PrivacyEngine(accountant="prv")
    private, optimizer, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=DataLoader(TensorDataset(*tensors), batch_size=100, shuffle=True),
        target_epsilon=3.0,
        target_delta=1e-5,
        epochs=EPOCHS,
        max_grad_norm=1.0,
    )
    for _ in range(EPOCHS):
        for features, labels, present in loader:
            optimizer.zero_grad()
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                private(features).squeeze(-1), labels, reduction="none"
            )
            ((each * present).sum(1) / present.sum(1).clamp(min=1)).mean().backward()
            optimizer.step()
    engine.get_epsilon(1e-5)


def private(place: Path, repeats: int) -> None:
    data = people(place)
    loaded = pd.read_parquet(data)
    padding = seconds(lambda: units.examples(loaded, FEATURES, {}, "need", "person", 2, truncate=False))
    print(f"{PEOPLE} people, two rows each, 30 features, {repeats} rounds; floor: padding them {padding * 1e3:.0f} ms")
    asked = {"outcome": "need", "features": ",".join(FEATURES), "unit_column": "person", "epsilon": "3"}
    asked |= {"rows_per_unit": "2", "epochs": str(EPOCHS), "batch": "100", "dataset": str(data)}
    asked["out"] = str(place / "model")
    stage("training.dp", asked)  # imports and caches
    library, whole = [], []
    for _ in range(repeats):
        library.append(both(lambda: bare(data)))
        whole.append(stage("training.dp", asked))
    base = "Opacus with its own search for the noise and the PRV accountant, on people padded by a reshape"
    row(
        "training.dp",
        library,
        whole,
        base,
        "the padding of any table, the premises checked, epsilon by two more accountants",
    )


def one_at_a_time(model: dense.Dense, rows: np.ndarray) -> float:
    """TenSEAL as its tutorial scores: a vector for each row, a dot product with rotations. Milliseconds a row."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 40, 60])
    context.global_scale = 2**40
    context.generate_galois_keys()
    weights = model.layers[0].weight[0].tolist()
    spent = [seconds(lambda r=r: tenseal.ckks_vector(context, r.tolist()).dot(weights).decrypt()) for r in rows[:10]]
    return statistics.median(spent) * 1e3


def encrypted(place: Path, repeats: int) -> None:
    rng = np.random.default_rng(1)
    layer = dense.Layer(rng.normal(size=(1, 30)), np.zeros(1))
    model = dense.Dense(tuple(FEATURES), {}, (layer,))
    model.write(place / "linear")
    frame = pd.DataFrame(rng.normal(size=(SCORED, 30)), columns=FEATURES)
    frame.to_parquet(place / "rows.parquet", index=False)
    asked = {"model": str(place / "linear"), "dataset": str(place / "rows.parquet"), "out": str(place / "scores")}
    parameters = encrypted_client.Parameters(8192, (60, 40, 60), 40)

    def alone(number: int) -> None:
        """The two processes without a stage around them: a session, one row, the batch."""
        home = place / f"session-{number}"
        home.mkdir()
        rows = model.scaled(pd.read_parquet(place / "rows.parquet"))
        with encrypted_client.session(parameters, place / "linear", home, 600, lambda _: None) as client:
            client.score(rows[:1])
            client.all(rows, lambda _: None)

    library, whole, each, single = [], [], [], []
    for number in range(repeats):
        library.append(both(lambda number=number: alone(number)))

        def measured() -> None:
            with runner.performed("training.encrypted_scoring", asked, archive=lambda: None) as done:
                each.append(done.statement.predicate["amortizedMilliseconds"])
                single.append(done.statement.predicate["singleMilliseconds"])

        whole.append(both(measured))
    base = (
        f"our two processes around TenSEAL, one row and {SCORED} in slots; bare TenSEAL, a row at a time, stands below"
    )
    row("encrypted_scoring", library, whole, base, "the scores without encryption, which show the error")
    peer, amortised = one_at_a_time(model, model.scaled(frame)), statistics.median(each)
    print(
        f"  encrypted score    {amortised:.2f} ms amortised over {SCORED} rows, {statistics.median(single):.0f} ms for "
        f"one row; TenSEAL one at a time {peer:.0f} ms   bar 10 ms   {'met' if amortised <= 10 else 'MISSED'}"
    )


def federated(place: Path, repeats: int) -> None:
    """Training in one process, where evidence cannot hide behind the start of seven."""
    sites = place / "sites"
    sites.mkdir()
    for number, name in enumerate("abc"):
        rng = np.random.default_rng(number)
        frame = pd.DataFrame(rng.normal(size=(500, 30)), columns=FEATURES)
        frame.assign(need=(frame.x0 > 0).astype(int)).to_csv(sites / f"{name}.csv", index=False)
    learning = rounds.Learning("need", FEATURES, {}, 20, 0.5)
    places = [rounds.Site(f"{n}.csv", str(sites / f"{n}.csv"), "r", learning) for n in "abc"]
    course = rounds.Course([s.client for s in places], 5, 1, 60.0, 30)
    allow = planning.Asking(lambda *_: planning.Cleared(), lambda: None)

    def client(site: rounds.Site):
        return lambda content: rounds.answer(content, site, allow, lambda: None)

    told: list[dict] = []

    def alone() -> None:
        rounds.run(rounds.OneProcess([client(site) for site in places]), course, told.append)

    numbers = iter(range(1000))

    def whole() -> None:
        asked = {"dataset": sites, "outcome": "need", "features": ",".join(FEATURES), "topology": "simulation"}
        asked |= {"rounds_wanted": 5, "local_epochs": 20, "minimum_clients": 1, "out": place / f"fl-{next(numbers)}"}
        texts = {key: str(value) for key, value in asked.items()}
        with runner.performed("training.federated", texts, archive=lambda: None, asking=allow):
            pass

    base = "our own rounds over three sites in one process, no library: Flower carries them between processes only"
    beside.compare("training.federated", alone, whole, repeats, (sites,), base=base)
    receipts = [seconds(lambda: [rounds.receipt_of(one) for one in told[:5]]) for _ in range(repeats)]
    print(f"    a receipt is {statistics.median(receipts) / 5 * 1e3:.2f} ms and {len(json.dumps(told[:5])) // 5} bytes")


ROWS = {"training.dp": private, "training.encrypted_scoring": encrypted, "training.federated": federated}


def main(repeats: int = 3) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for one in ROWS.values():
            one(Path(folder), repeats)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
