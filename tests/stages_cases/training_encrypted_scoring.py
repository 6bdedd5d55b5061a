"""`training.encrypted_scoring` for the tests that every stage passes."""

import json

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """A linear model of two features, and a table that also names people."""
    table, model = world.path("people.csv"), world.path("model")
    table.write_text("name,age,visits\n" + "".join(f"{world.canary}-{i},{i},{i % 7}\n" for i in range(50)))
    model.mkdir()
    layer = {"weight": [[0.5, -0.25]], "bias": [1.0]}
    described = {"format": "mlseal-dense/1", "features": ["age", "visits"], "ranges": {}, "layers": [layer]}
    (model / "weights.json").write_text(json.dumps(described))
    return {"model": model, "dataset": table}


def emptied(_: World, arguments: dict[str, object]) -> None:
    """A header and no row."""
    arguments["dataset"].write_text("name,age,visits\n")


def gaps(_: World, arguments: dict[str, object]) -> None:
    """A row without its feature."""
    with arguments["dataset"].open("a") as file:
        file.write("last,1,\n")


def crooked(_: World, arguments: dict[str, object]) -> None:
    """Weights for three features beside two names."""
    file = arguments["model"] / "weights.json"
    file.write_text(file.read_text().replace("[[0.5, ", "[[0.5, 1.0, "))


def unnamed(_: World, arguments: dict[str, object]) -> None:
    """A table without a feature of the model."""
    arguments["dataset"].write_text("name,age\nsomebody,3\n")


def a_picture(_: World, arguments: dict[str, object]) -> None:
    """Bytes that are no text."""
    arguments["dataset"].write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "no rows"),
        "nan": Bad(gaps, Misuse, "missing values"),
        "wrong shape": Bad(crooked, Unreadable, "no model of plain numbers"),
        "missing column": Bad(unnamed, Misuse, "no visits"),
        "wrong type": Bad(a_picture, Unreadable, "cannot be read"),
    },
    repeats="the key and the noise of encryption are fresh: the errors, the times and the bytes differ",
)
