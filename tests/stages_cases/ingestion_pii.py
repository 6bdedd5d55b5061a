"""`ingestion.pii`: notes full of a marked name, in a column without a telling header."""

import pandas as pd

from mlseal.errors import Misuse, Unchecked, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    table = world.path("notes.csv")
    note = f"Patient: Priya {world.canary}, MRN 00123456, seen for a cough."
    pd.DataFrame({"note": [f"{note} Visit {i}." for i in range(30)], "dose": [0.5] * 30}).to_csv(table, index=False)
    return {"dataset": table, "documents": 50, "seed": 3}


def emptied(world, arguments):
    arguments["dataset"].write_text("note,dose\n")


def nothing(world, arguments):
    arguments["dataset"].write_text("note,dose\n,0.5\n")


def long(world, arguments):
    arguments["dataset"].write_text(f"note\n{world.canary}{'x' * 100_001}\n")


def elsewhere(world, arguments):
    return {**arguments, "table": "other.csv"}


def picture(world, arguments):
    arguments["dataset"].write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" + world.canary.encode())


BAD = {
    "empty": Bad(emptied, Unreadable, "no rows"),
    "nan": Bad(nothing, Unreadable, "nothing that can be looked at"),
    "wrong shape": Bad(long, Unchecked, "too long"),
    "missing column": "every column is looked at; none is named",
    "no such table": Bad(elsewhere, Misuse, "--table"),
    "wrong type": Bad(picture, Unreadable, "cannot be read"),
}
CASE = Case(make=make, bad=BAD, slow=True)
