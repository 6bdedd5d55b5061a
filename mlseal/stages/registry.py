"""Which stages there are: ours by name, strangers' only if somebody listed their distribution.

Built-ins are strings, loaded when asked for. A third party offers stages under the entry-point group ``mlseal.stages``;
loading an entry point runs its code, so nothing foreign is imported unless its distribution stands in the allow-list
(`allowed_providers`), a name that is taken is refused, and the provider goes into the evidence.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from mlseal import __version__
from mlseal.errors import DuplicateName, Misuse, UnknownName, Unreadable
from mlseal.evidence import paths
from mlseal.stages.base import Stage

BUILTIN: dict[str, str] = {
    "governance.fairness": "mlseal.stages.governance.fairness:fairness",
    "governance.model_card": "mlseal.stages.governance.model_card:model_card",
    "inference.guard": "mlseal.stages.inference.guard:guard",
    "ingestion.pii": "mlseal.stages.ingestion.pii:pii",
    "ingestion.poisoning": "mlseal.stages.ingestion.poisoning:poisoning",
    "ingestion.redact": "mlseal.stages.ingestion.redact:redact",
    "ingestion.source": "mlseal.stages.ingestion.source:source",
    "ingestion.validation": "mlseal_gx.validation:validation",
    "monitoring.drift": "mlseal.stages.monitoring.drift:drift",
    "testing.code": "mlseal.stages.testing.code_scan:code_scan",
    "testing.dependencies": "mlseal.stages.testing.dependencies:dependencies",
    "testing.evasion": "mlseal.stages.testing.evasion:evasion",
    "testing.hardening": "mlseal.stages.testing.hardening:hardening",
    "testing.membership": "mlseal.stages.testing.membership:membership",
    "testing.model_file": "mlseal.stages.testing.model_file:model_file",
    "testing.report": "mlseal.stages.testing.report:report",
    "training.dp": "mlseal.stages.training.dp:private",
    "training.encrypted_scoring": "mlseal.stages.training.encrypted_scoring:encrypted_scoring",
    "training.federated": "mlseal.stages.training.federated:federated",
    "training.run": "mlseal.stages.training.run:train",
}
"""Name → ``module:object``. A new stage is one file and one line here."""

GROUP = "mlseal.stages"
ALLOW_FILE = "stage-providers"


@dataclass(frozen=True)
class Registered:
    """A loaded stage and who provides it: distribution and version."""

    stage: Stage
    provider: str
    version: str

    @property
    def foreign(self) -> bool:
        """Whether somebody else wrote it; its findings are then ``declared``, whatever they say."""
        return self.provider != "mlseal"


def names() -> list[str]:
    """Names of all stages that may be loaded, sorted. Raises `DuplicateName` if two claim one name."""
    return sorted({*BUILTIN, *_foreign()})


def load(name: str) -> Registered:
    """The stage `name`.

    Raises `UnknownName`; `DuplicateName` if a foreign stage takes a name that exists; `Misuse` if the object is not a
    stage of that name.
    """
    if name in BUILTIN:
        return Registered(_load(name, BUILTIN[name]), "mlseal", __version__)
    foreign = _foreign()
    if name in foreign:
        entry, provider, version = foreign[name]
        return Registered(_load(name, entry), provider, version)
    known = sorted({*BUILTIN, *foreign})
    near = difflib.get_close_matches(name, known, n=3) or [one for one in known if name and one.endswith(f".{name}")]
    raise UnknownName(
        f"there is no stage {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        expected="one of " + ", ".join(known),
        remedy=f"check the name, or list the distribution that provides it in {_allow_files()[0]}",
    )


def allowed_providers() -> frozenset[str]:
    """Distributions whose stages may be loaded, normalised (PEP 503).

    From ``$MLSEAL_STAGE_PROVIDERS`` (commas), else ``stage-providers`` in this user's configuration directory, else in
    the machine's: one name a line, ``#`` for comments. Never from the working tree.
    """
    value = os.environ.get("MLSEAL_STAGE_PROVIDERS")
    if value is not None:
        return frozenset(_normal(part) for part in value.split(",") if part.strip())
    for file in _allow_files():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"cannot read {file}", got=str(error), remedy="mend or remove it") from error
        stripped = (line.split("#", 1)[0].strip() for line in lines)
        return frozenset(_normal(line) for line in stripped if line)
    return frozenset()


def _allow_files() -> list[Path]:
    return [paths.config_dir() / ALLOW_FILE, paths.machine_config_dir() / ALLOW_FILE]


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _foreign() -> dict[str, tuple[str, str, str]]:
    """Stage name → (``module:object``, distribution, version) of the allowed distributions; nothing is imported."""
    allowed = allowed_providers()
    found: dict[str, tuple[str, str, str]] = {}
    if not allowed:
        return found
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is None or _normal(entry.dist.name) not in allowed:
            continue
        if entry.name in BUILTIN or entry.name in found:
            taken_by = "mlseal" if entry.name in BUILTIN else found[entry.name][1]
            raise DuplicateName(
                f"two providers offer stage {entry.name!r}",
                got=f"{entry.dist.name} and {taken_by}",
                remedy="take one of them off the allow-list",
            )
        found[entry.name] = (entry.value, entry.dist.name, entry.dist.version)
    return found


def _load(name: str, where: str) -> Stage:
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName(f"stage {name!r} cannot be loaded from {where}", got=str(error)) from error
    if not isinstance(found, Stage) or found.name != name:
        got = found.name if isinstance(found, Stage) else type(found).__name__
        raise Misuse(f"{where} is not the stage {name!r}", got=got)
    return found
