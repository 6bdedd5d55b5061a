"""`ingestion.poisoning`: two classes that a line parts, labels and a text full of marks."""

import numpy as np
import pandas as pd

from mlseal.errors import Misuse, Unchecked, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    rng = np.random.default_rng(0)
    table, n = world.path("people.csv"), 240
    sick = rng.integers(0, 2, n)
    frame = {
        "name": [f"{world.canary}-{i}" for i in range(n)],
        "ward": [f"{world.canary}-{i % 3}" for i in range(n)],
        "marker": sick * 3 + rng.normal(size=n),
        "sick": [f"{world.canary}-{value}" for value in sick],
    }
    pd.DataFrame(frame).to_csv(table, index=False)
    return {"dataset": table, "label": "sick", "repetitions": 2, "seed": 7}


def altered(change):
    def spoil(world, arguments):
        frame = pd.read_csv(arguments["dataset"])
        change(frame).to_csv(arguments["dataset"], index=False)

    return spoil


def picture(world, arguments):
    arguments["dataset"].write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" + world.canary.encode())


CASE = Case(
    make=make,
    bad={
        "empty": Bad(altered(lambda frame: frame.iloc[:0]), Unreadable, "no rows"),
        "nan": Bad(altered(lambda frame: frame.assign(marker=[None, *frame["marker"][1:]])), Misuse, "missing values"),
        "infinite": Bad(altered(lambda frame: frame.assign(marker=float("inf"))), Misuse, "not finite"),
        "wrong shape": Bad(altered(lambda frame: frame[["name", "sick"]]), Misuse, "no feature"),
        "one class": Bad(altered(lambda frame: frame.assign(sick=1)), Misuse, "no classes"),
        "few rows": Bad(altered(lambda frame: frame.iloc[:60]), Unchecked, "too small"),
        "missing column": Bad(altered(lambda frame: frame.drop(columns="sick")), Misuse, "sick"),
        "wrong type": Bad(picture, Unreadable, "cannot be read"),
    },
)
