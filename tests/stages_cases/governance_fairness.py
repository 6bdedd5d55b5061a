"""`governance.fairness`: decisions in a column, so that no model need be fitted."""

import pandas as pd

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    n = 400
    table = world.path("people.csv")
    pd.DataFrame(
        {
            "name": [f"{world.canary}-person-{i}" for i in range(n)],
            "need": [i % 2 for i in range(n)],
            "group": [i // 200 for i in range(n)],
            "chosen": [(i // 2) % 2 for i in range(n)],
            "house": [f"{world.canary}-house-{i // 2}" for i in range(n)],
        }
    ).to_csv(table, index=False)
    model = world.path("model")
    model.mkdir()
    (model / "weights").write_text(world.canary)
    return {
        "model": model,
        "dataset": table,
        "outcome": "need",
        "attribute": "group",
        "cluster": "house",
        "select": "column:chosen",
        "minimum_positives": 50,
        "replicates": 100,
        "seed": 7,
    }


def altered(change):
    def spoil(world, arguments):
        frame = pd.read_csv(arguments["dataset"])
        change(frame).to_csv(arguments["dataset"], index=False)

    return spoil


def written(data):
    def spoil(world, arguments):
        arguments["dataset"].write_bytes(data + world.canary.encode())

    return spoil


CASE = Case(
    make=make,
    bad={
        "empty": Bad(altered(lambda frame: frame.iloc[:0]), Unreadable, "no rows"),
        "nan": Bad(altered(lambda frame: frame.assign(need=float("nan"))), Misuse, "need"),
        "a name in the outcome": Bad(altered(lambda frame: frame.assign(need=frame["name"])), Misuse, "need"),
        "wrong shape": Bad(altered(lambda frame: frame.assign(group=1)), Misuse, "group"),
        "missing column": Bad(altered(lambda frame: frame.drop(columns="need")), Misuse, "need"),
        "wrong type": Bad(written(b"\x89PNG\r\n\x1a\n\xff\xfe"), Unreadable, "cannot be read"),
    },
)
