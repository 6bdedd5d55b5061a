"""`testing.model_file` for the tests that every stage passes."""

import pickle

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World) -> dict[str, object]:
    """A directory with a pickle that holds the canary, and one that cannot be parsed."""
    model = world.path("model")
    model.mkdir()
    (model / "model.pkl").write_bytes(pickle.dumps({"labels": [world.canary], "weights": [0.5, 1.5]}))
    (model / "broken.pkl").write_bytes(pickle.dumps([world.canary])[:-1])
    (model / "notes.txt").write_text(f"{world.canary}\n")
    return {"model": model}


def emptied(_: World, arguments: dict[str, object]) -> None:
    for file in arguments["model"].iterdir():  # type: ignore[attr-defined]
        file.write_bytes(b"")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "holds no content"),
        "nan": "the numbers of a model are not looked at",
        "wrong shape": Bad(lambda _, given: {**given, "flavour": "keras"}, Misuse, "no such flavour"),
        "missing column": "a model file has no columns",
        "wrong type": "a file of an unknown format is a finding that stays on record: the test allow-list fails",
    },
)
