"""`training.dp` for the tests that every stage passes."""

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """A hundred and twenty marked people with two rows each."""
    table = world.path("people.csv")
    rows = [f"{world.canary}-{i // 2},{i // 2 % 2},{i % 7}\n" for i in range(240)]
    table.write_text("person,need,visits\n" + "".join(rows))
    return {
        "dataset": table,
        "outcome": "need",
        "features": "visits",
        "ranges": '{"visits": "0:7"}',
        "unit_column": "person",
        "rows_per_unit": 2,
        "epsilon": "5",
        "delta": "0.001",
        "epochs": 1,
        "batch": 60,
    }


def emptied(_: World, arguments: dict[str, object]) -> None:
    """A header and no row."""
    arguments["dataset"].write_text("person,need,visits\n")


def gaps(_: World, arguments: dict[str, object]) -> None:
    """A row without its feature."""
    with arguments["dataset"].open("a") as file:
        file.write("last,1,\n")


def crooked(_: World, arguments: dict[str, object]) -> None:
    """A row with too many cells."""
    with arguments["dataset"].open("a") as file:
        file.write("last,1,2,3,4\n")


def unnamed(_: World, arguments: dict[str, object]) -> None:
    """A feature that the table does not have."""
    arguments["features"] = "visits,height"


def a_picture(_: World, arguments: dict[str, object]) -> None:
    """Bytes that are no text."""
    arguments["dataset"].write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "no rows"),
        "nan": Bad(gaps, Misuse, "missing values"),
        "wrong shape": Bad(crooked, Unreadable, "cannot be read"),
        "missing column": Bad(unnamed, Misuse, "no height"),
        "wrong type": Bad(a_picture, Unreadable, "cannot be read"),
    },
    repeats="noise and batches are seeded by the operating system: a seed that anybody kept would undo the privacy",
)
