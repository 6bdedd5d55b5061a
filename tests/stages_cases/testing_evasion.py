"""`testing.evasion`: a linear model of plain numbers and a small table that also names people."""

import json
import random

from mlseal.errors import Misuse, Unchecked, Unreadable
from tests.stages_cases import Bad, Case, World

HEAD = "name,age,visits,need\n"


def model_of(world: World):
    """Plain numbers: need where age and visits together are large."""
    model = world.path("model")
    model.mkdir()
    layers = [{"weight": [[1.0, 0.8]], "bias": [0.1]}]
    ranges = {"age": [0, 90], "visits": [0, 1]}
    described = {"format": "mlseal-dense/1", "features": ["age", "visits"], "ranges": ranges, "layers": layers}
    (model / "weights.json").write_text(json.dumps(described))
    columns = json.dumps([{"name": "age"}, {"name": "visits"}])
    (model / "MLmodel").write_text(json.dumps({"flavors": {"mlseal_dense": {}}, "signature": {"inputs": columns}}))
    return model


def table(world: World, name: str, seed: int, rows: int = 60):
    """Marked people, of whom the model decides almost all rightly."""
    rng = random.Random(seed)
    people = [(rng.randint(0, 90), rng.random()) for _ in range(rows)]
    lines = [
        f"{world.canary}-{number},{age},{visits},{int(age / 45 - 1 + 0.8 * (2 * visits - 1) + 0.1 > 0)}\n"
        for number, (age, visits) in enumerate(people)
    ]
    file = world.path(name)
    file.write_text(HEAD + "".join(lines))
    return file


def make(world: World) -> dict[str, object]:
    """A model, a table, one budget."""
    return {
        "model": model_of(world),
        "dataset": table(world, "test.csv", 3),
        "outcome": "need",
        "budgets": "0.1",
        "rows": 20,
        "queries": 60,
        "minimum_rows": 10,
        "seed": 7,
    }


def written(name, text, *, more=False):
    """Input `name`, or its end, as `text`."""

    def spoil(_, arguments):
        with arguments[name].open("a" if more else "w") as file:
            file.write(text)

    return spoil


def a_picture(name):
    """Bytes that are no text."""

    def spoil(_, arguments):
        arguments[name].write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")

    return spoil


def crooked(_, arguments):
    """Weights for three features beside two names."""
    file = arguments["model"] / "weights.json"
    file.write_text(file.read_text().replace("[[1.0, ", "[[1.0, 2.0, "))


def always_wrong(_, arguments):
    """Each person of the other class."""
    lines = arguments["dataset"].read_text().splitlines()[1:]
    turned = [f"{line[:-1]}{1 - int(line[-1])}\n" for line in lines]
    arguments["dataset"].write_text(HEAD + "".join(turned))


def without_range(_, arguments):
    """A model that states no range for one column."""
    file = arguments["model"] / "weights.json"
    file.write_text(file.read_text().replace('"age": [0, 90], ', ""))


def bad(name):
    """What both robustness stages refuse in the table `name`."""
    return {
        "empty": Bad(written(name, HEAD), Unreadable, "no rows"),
        "nan": Bad(written(name, "last,,0.5,1\n", more=True), Misuse, "missing values"),
        "infinite": Bad(written(name, "last,inf,0.5,1\n", more=True), Misuse, "not finite"),
        "texts": Bad(written(name, "last,old,0.5,1\n", more=True), Misuse, "does not hold numbers"),
        "another outcome": Bad(written(name, "last,1,0.5,3\n", more=True), Misuse, "must hold 0 and 1"),
        "wrong shape": Bad(crooked, Unreadable, "no model of plain numbers"),
        "missing column": Bad(written(name, "name,age,need\nx,3,1\n"), Misuse, "no visits"),
        "wrong type": Bad(a_picture(name), Unreadable, "cannot be read"),
        "no range": Bad(without_range, Misuse, "has no range"),
    }


CASE = Case(
    make=make,
    bad=bad("dataset") | {"a model that is always wrong": Bad(always_wrong, Unchecked, "decides no row rightly")},
)
