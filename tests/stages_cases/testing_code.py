"""`testing.code` for the tests that every stage passes."""

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """A program whose texts, names and one secret hold the canary."""
    code = world.path("program")
    code.mkdir()
    (code / "main.py").write_text(f'import subprocess\n\nNOTE = "{world.canary}"\npassword = "{world.canary}-7Q9x"\n')
    (code / "broken.py").write_text(f"def {world.canary.replace('-', '_')}(:\n")
    return {"code": code}


def emptied(_: World, arguments: dict[str, object]) -> None:
    for file in arguments["code"].iterdir():  # type: ignore[attr-defined]
        file.write_text("")


def no_sarif(world: World, arguments: dict[str, object]) -> dict[str, object]:
    report = world.path("other.sarif")
    report.write_bytes(b"\x89PNG\r\n\x1a\n" + world.canary.encode())
    return {**arguments, "foreign": report}


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "holds no content"),
        "nan": "code holds no numbers",
        "wrong shape": Bad(lambda _, given: {**given, "parts": "code,magic"}, Misuse, "no such part"),
        "missing column": "code has no columns",
        "wrong type": Bad(no_sarif, Unreadable, "no SARIF log"),
    },
)
