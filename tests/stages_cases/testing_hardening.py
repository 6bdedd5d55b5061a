"""`testing.hardening`: the model and the table of `testing.evasion`, and another to learn from."""

from mlseal.errors import Misuse, Unchecked
from tests.stages_cases import Bad, Case, World
from tests.stages_cases.testing_evasion import bad, model_of, table


def make(world: World) -> dict[str, object]:
    """Two epochs over forty people."""
    return {
        "model": model_of(world),
        "training": table(world, "train.csv", 3, 40),
        "holdout": table(world, "test.csv", 4),
        "outcome": "need",
        "rows": 15,
        "queries": 40,
        "minimum_rows": 10,
        "epochs": 2,
        "seed": 7,
    }


def the_same(_, arguments):
    """Rows that were learnt from."""
    return arguments | {"holdout": arguments["training"]}


def unknown(_, arguments):
    """A method that does not exist."""
    return arguments | {"method": "prayer"}


CASE = Case(
    make=make,
    bad=bad("holdout")
    | {
        "the same table": Bad(the_same, Unchecked, "share rows"),
        "an unknown method": Bad(unknown, Misuse, "method is unknown"),
    },
)
