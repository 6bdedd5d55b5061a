"""`training.federated` for the tests that every stage passes: the simulation; processes have a test of their own."""

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """Two clients whose tables also name people."""
    folder = world.path("sites")
    folder.mkdir()
    for client in ("east", "west"):
        rows = [f"{world.canary}-{client}-{i},{i % 2},{i % 2 * 3 + i % 3}\n" for i in range(60)]
        (folder / f"{world.mark}{client}.csv").write_text("name,need,visits\n" + "".join(rows))
    return {
        "dataset": folder,
        "outcome": "need",
        "features": "visits",
        "ranges": '{"visits": "0:6"}',
        "topology": "simulation",
        "rounds_wanted": 2,
    }


def _table(arguments: dict[str, object]):
    return sorted(arguments["dataset"].iterdir())[0]


def emptied(_: World, arguments: dict[str, object]) -> None:
    """One client has a header and no row."""
    _table(arguments).write_text("name,need,visits\n")


def gaps(_: World, arguments: dict[str, object]) -> None:
    """A row without its feature."""
    with _table(arguments).open("a") as file:
        file.write("last,1,\n")


def alone(_: World, arguments: dict[str, object]) -> None:
    """A federation of one."""
    _table(arguments).unlink()


def unnamed(_: World, arguments: dict[str, object]) -> None:
    """One client lacks the feature."""
    _table(arguments).write_text("name,need\nsomebody,1\n")


def a_picture(_: World, arguments: dict[str, object]) -> None:
    """Bytes that are no text."""
    _table(arguments).write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "no rows"),
        "nan": Bad(gaps, Misuse, "missing values"),
        "wrong shape": Bad(alone, Misuse, "a table for each client"),
        "missing column": Bad(unnamed, Misuse, "no visits"),
        "wrong type": Bad(a_picture, Unreadable, "cannot be read"),
    },
    varies=("serverProcess", "rounds"),
)
