"""`monitoring.drift`: a reference and a stream of marked rows, few and short draws."""

import random

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    rng = random.Random(5)
    model = world.path("model.bin")
    model.write_bytes(b"weights " + world.canary.encode())
    arguments = {"model": model, "columns": "age", "trials": 20, "shift": 2.0, "minimum_power": 0.5}
    for name in ("reference", "stream"):
        arguments[name] = world.path(f"{name}.csv")
        rows = [f"{world.canary}-{i},{rng.gauss(50, 9):.3f}\n" for i in range(400)]
        arguments[name].write_text("name,age\n" + "".join(rows))
    return arguments | {"seed": 7}


def spoilt(text):
    """The stream with `text` in place of its tenth row."""

    def spoil(_, arguments):
        lines = arguments["stream"].read_text().splitlines()
        arguments["stream"].write_text("\n".join([*lines[:9], text, *lines[10:]]) + "\n")

    return spoil


def emptied(_, arguments):
    arguments["stream"].write_text("name,age\n")


def unnamed(_, arguments):
    return arguments | {"columns": "age,height"}


def a_picture(_, arguments):
    arguments["stream"].write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "no rows"),
        "nan": Bad(spoilt("x,"), Misuse, "missing values"),
        "infinite": Bad(spoilt("x,inf"), Misuse, "not finite"),
        "text": Bad(spoilt("x,old"), Misuse, "no numbers"),
        "wrong shape": Bad(spoilt("x,1,2,3,4"), Unreadable, "cannot be read"),
        "missing column": Bad(unnamed, Misuse, "no column 'height'"),
        "wrong type": Bad(a_picture, Unreadable, "cannot be read"),
    },
)
