"""What a model's files would make their reader do, looked at before they are read: a list for each flavour.

A verdict says that a named gate let these bytes through. It does not say that loading them is harmless: the gate asks
what its policy asks. Where ``MLSEAL_MLFLOW_PICKLES=listed``, a loader looks for itself, after the verdict, with the
list of `testing.model_file`: every name in every pickle, what ``MLmodel`` has imported, and the version of the library
that the model's own ``requirements.txt`` pins, which must be one that the list was reviewed for and the one installed
here.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlseal.errors import Misuse, Refusal

if TYPE_CHECKING:
    from mlseal.evidence.digest import Measured

SETTING = "MLSEAL_MLFLOW_PICKLES"
_LISTED = "listed"


def asked() -> bool:
    """Whether this process loads listed models only. Raises `Misuse` for a setting that is not known."""
    value = os.environ.get(SETTING, "")
    if value not in {"", _LISTED}:
        raise Misuse(f"{SETTING} has a value that is not known", got=value[:40], expected=f"{_LISTED!r}, or unset")
    return bool(value)


def require_listed(model: Path, measured: Measured, expanded: Path) -> None:
    """Raise `Refusal` unless the model in `model` does no more than its flavour needs, in this environment.

    Args:
        model: a private copy, nothing of which was read yet.
        measured: of that copy.
        expanded: an empty place for what is compressed.

    Nothing is imported, unpickled or run.
    """
    from mlseal.stages.testing import formats, mlmodel
    from mlseal.stages.testing.opcodes import Unsafe

    described = mlmodel.described(measured, model, "")
    flaws = [*described.flaws, *_elsewhere(described.flavour, model)]
    for part in described.parts if not flaws else ():
        try:
            formats.check(part.path, part.name, part.flavour, expanded)
        except Unsafe as error:
            flaws.append(f"{part.name}: {error}")
    if flaws:
        raise Refusal(
            "loading this model could do more than models of its flavour do",
            got=flaws[0][:300],
            expected=f"what the list of flavour {described.flavour} holds",
            remedy="have 'mlseal run testing.model_file' name every place; a model that must bring code of its own "
            f"loads where {SETTING} is unset",
        )


def _elsewhere(flavour: str, model: Path) -> list[str]:
    """Whether the library installed here is the one that the model was made with."""
    from mlseal.stages.testing import mlmodel, requirements

    if flavour not in mlmodel.REVIEWED or not (model / "requirements.txt").is_file():
        return []  # what is not pinned is a flaw of the description already
    package, _ = mlmodel.REVIEWED[flavour]
    pinned = {one.version for one in requirements.from_file(model / "requirements.txt") if one.name == package}
    try:
        here = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return [f"{package} is not installed here"]
    return [] if {str(one) for one in pinned} == {here} else [f"the model was made with another {package} than {here}"]
