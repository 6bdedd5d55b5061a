"""`testing.membership`: a linear model of plain numbers and two small tables that also name people."""

import json
import random

from mlseal.errors import Misuse, Unchecked, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """The model takes two of the three columns that it could be given."""
    rng = random.Random(3)
    model = world.path("model")
    model.mkdir()
    layer = {"weight": [[0.05, -0.25]], "bias": [0.1]}
    described = {"format": "mlseal-dense/1", "features": ["age", "visits"], "ranges": {}, "layers": [layer]}
    (model / "weights.json").write_text(json.dumps(described))
    columns = json.dumps([{"name": "age"}, {"name": "visits"}])
    (model / "MLmodel").write_text(json.dumps({"flavors": {"mlseal_dense": {}}, "signature": {"inputs": columns}}))
    arguments = {"model": model, "outcome": "need", "minimum_rows": 100, "seed": 7}
    for name in ("members", "holdout"):
        arguments[name] = world.path(f"{name}.csv")
        rows = [f"{world.canary}-{i},{rng.gauss(50, 9)},{rng.random()},{i % 2}\n" for i in range(300)]
        arguments[name].write_text("name,age,visits,need\n" + "".join(rows))
    return arguments


def written(text, *, more=False):
    """The holdout, or its end, as `text`."""

    def spoil(_, arguments):
        with arguments["holdout"].open("a" if more else "w") as file:
            file.write(text)

    return spoil


def a_picture(_, arguments):
    """Bytes that are no text."""
    arguments["holdout"].write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")


def crooked(_, arguments):
    """Weights for three features beside two names."""
    file = arguments["model"] / "weights.json"
    file.write_text(file.read_text().replace("[[0.05, ", "[[0.05, 1.0, "))


def twice(_, arguments):
    """Members who are said not to be."""
    return arguments | {"holdout": arguments["members"]}


CASE = Case(
    make=make,
    bad={
        "empty": Bad(written("name,age,visits,need\n"), Unreadable, "no rows"),
        "nan": Bad(written("last,,2,1\n", more=True), Misuse, "missing values"),
        "infinite": Bad(written("last,inf,2,1\n", more=True), Misuse, "not finite"),
        "another outcome": Bad(written("last,1,2,3\n", more=True), Misuse, "must hold 0 and 1"),
        "wrong shape": Bad(crooked, Unchecked, "scoring.py failed"),
        "missing column": Bad(written("name,age,need\nx,3,1\n"), Misuse, "no visits"),
        "wrong type": Bad(a_picture, Unreadable, "cannot be read"),
        "the same table": Bad(twice, Unchecked, "share rows"),
    },
)
