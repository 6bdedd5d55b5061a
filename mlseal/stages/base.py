"""What a stage is: a function from files to a finding, told apart from all else by its signature.

    @stage("governance.fairness", predicate="fairness", extra="fairness")
    def fairness(model: ModelPath, dataset: DatasetPath, outcome: str, seed: int = 0, *, context: Context) -> Finding:
        '''One sentence, then Args, Guarantees and Edge cases.'''

The signature is the single source: the command line, the Kubeflow component, the documentation and the parametrised
tests are read from it (`Stage.parameters`). A parameter is an *input* (a path that the runner hashes before and after),
an *output* (a new path that the runner hashes, and publishes only when its evidence exists) or a *value*.

A stage does not sign, does not judge and does not learn any policy.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mlseal.errors import DigestMismatch, MissingExtra, Misuse, Unreadable
from mlseal.evidence import predicates
from mlseal.evidence.clock import Clock, rfc3339
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.predicates.base import Harness, Strength

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive

Role = Literal["input", "output", "value"]
Kind = Literal["dataset", "model", "file", "code", "text", "integer", "number", "boolean", "settings"]

# --- the types of a signature -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """Marks a path that exists before the stage runs; the runner hashes it."""

    kind: Kind


@dataclass(frozen=True)
class Output:
    """Marks a path that must not exist before the stage runs; the runner hashes and publishes it."""

    kind: Kind


@dataclass(frozen=True)
class FileName:
    """Marks a text that names a file: evidence holds it as `Context.naming` writes it."""


DatasetPath = Annotated[Path, Input("dataset")]
"""A data set: a file, or a directory taken as a whole."""
ModelPath = Annotated[Path, Input("model")]
"""A model: a file, or a directory such as MLflow writes."""
FilePath = Annotated[Path, Input("file")]
"""A single file."""
CodePath = Annotated[Path, Input("code")]
"""A Python program: one file, or a directory with ``__main__.py``."""
OutputModel = Annotated[Path, Output("model")]
"""Where the stage puts the model that it makes."""
OutputDataset = Annotated[Path, Output("dataset")]
"""Where the stage puts the data set that it makes."""
EntryPath = Annotated[str, FileName()]
"""Path of a file inside an input."""
Settings = Mapping[str, str]
"""Names and values that pass through the stage: a JSON object, or repeated ``NAME=VALUE`` on the command line."""

_VALUES: dict[object, Kind] = {str: "text", int: "integer", float: "number", bool: "boolean", Settings: "settings"}
RESERVED = frozenset({"json", "output", "purpose", "reuse", "role", "run_id", "store", "token_file", "trust"})
"""Names that the command line uses itself; no parameter may be called so."""
JUDGEMENTS = frozenset({"human-approval", "ownership", "revocation", "revocation-snapshot", "slsa-vsa", "waiver"})
"""Evidence of people and gates. A stage measures; it can neither approve nor judge nor take back."""
_NAME = re.compile(r"[a-z]+(\.[a-z][a-z0-9_]*)+")
Reusable = Callable[[Mapping[str, Any]], bool]
"""Whether evidence with this predicate, made of the same inputs and settings, would be made alike here and now."""


DIGESTS: Literal["digests"] = "digests"
"""For `Stage.releases`: the evidence says no more of the data than digests, counts of files and sizes."""


@dataclass(frozen=True)
class Bounds:
    """For `Stage.releases`: names of the parameters that bound what a differentially private stage gives away."""

    epsilon: str
    delta: str
    unit: str


def always(_: Mapping[str, Any]) -> bool:
    """The answer depends on inputs and settings alone."""
    return True


@dataclass(frozen=True)
class Parameter:
    """One parameter of a stage, as every generator needs it.

    Attributes:
        name: as in the signature; the command line writes ``--name`` with hyphens.
        role: input, output or value.
        kind: what the path holds, or the type of the value.
        required: whether there is no default.
        default: the default, or None. An optional input has the default None.
        help: its line in the docstring's ``Args`` section.
        names_file: whether the text names a file.
    """

    name: str
    role: Role
    kind: Kind
    required: bool
    default: Any
    help: str
    names_file: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Finding:
    """What a stage found, before it becomes a statement.

    Attributes:
        subjects: names of the inputs or outputs that the claim is about.
        fields: predicate fields as signed (camelCase); for a measurement without what the runner adds (harness,
            strength, run id, times, seed, notProven).
        not_proven: what a reader must not conclude.
        libraries: libraries that did the measuring, with versions.
        seed: of every random choice.
        strength: ``declared`` when the stage took somebody's word for what it did not see.
    """

    subjects: tuple[str, ...]
    fields: Mapping[str, Any]
    not_proven: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    strength: Strength = "measured"


@dataclass(frozen=True)
class Context:
    """What the runner lends to a stage while it runs.

    Attributes:
        run_id: of the pipeline run or invocation.
        clock: the injected clock.
        started_on: when the runner began, RFC 3339.
        measured: input name → what the runner hashed.
        workspace: a directory of mode 0700, removed afterwards.
        harness_base: name, version, provider and configuration digest of this stage.
        log: shows a line to the person who waits.
        archive: opens the verified evidence at hand; raises when no trust is configured.
        naming: how names of files are written in evidence; subjects are written so without a stage's doing.
    """

    run_id: str
    clock: Clock
    started_on: str
    measured: Mapping[str, Measured]
    workspace: Path
    harness_base: Harness
    log: Callable[[str], None]
    archive: Callable[[], Archive]
    naming: Naming = PLAIN

    def harness(self, libraries: Mapping[str, str]) -> Harness:
        """The harness of this run, with the libraries that measured."""
        return self.harness_base.model_copy(update={"libraries": dict(libraries)})

    def now(self) -> str:
        """The time, RFC 3339."""
        return rfc3339(self.clock())

    def private_copy(self, name: str) -> Path:
        """A copy of input `name` in the workspace, proven equal to what the runner measured.

        What is loaded or executed is the copy, so that nobody can swap the original between hashing and use.
        Raises `DigestMismatch` when the original changed in between.
        """
        original = self.measured[name]
        target = self.workspace / name / original.name
        if not target.exists():
            target.parent.mkdir(mode=0o700)
            copy(original, target)
            require_unchanged(name, original, measure(target, name=original.name))
        return target

    def private_file(self, name: str, entry: str) -> Path:
        """A proven copy of one file of directory `name`; `entry` is its path in the manifest, "" for a file input."""
        original = self.measured[name]
        if original.manifest is None or not entry:
            return self.private_copy(name)
        expected = next(file.sha256 for file in original.manifest.files if file.path == entry)
        target = self.workspace / f"{name}-file" / Path(entry).name
        _copy(original.path / entry, target)
        require_same(f"{name}/{entry}", expected, measure(target).sha256)
        return target


def copy(measured: Measured, target: Path) -> None:
    """Copy exactly the files that were measured; the caller measures the copy. Raises `Unreadable`."""
    for entry in measured.manifest.files if measured.manifest else [None]:
        _copy(measured.path / entry.path if entry else measured.path, target / entry.path if entry else target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise Unreadable(f"cannot copy {source}", got=error.strerror, remedy="check space and permissions") from error


def require_unchanged(name: str, before: Measured, after: Measured) -> None:
    """Raise `DigestMismatch` unless both measurements bind the same bytes under the same names."""
    require_same(name, before.sha256, after.sha256)


def require_same(name: str, before: str, after: str) -> None:
    """Raise `DigestMismatch` unless both digests are equal."""
    if before != after:
        raise DigestMismatch(
            f"input {name} changed while the stage ran",
            got=after,
            expected=before,
            remedy="stop what writes to it, then run the stage again",
        )


# --- the decorator ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stage with everything that its signature says. Made by `stage`.

    Attributes:
        name: ``moment.stage``.
        predicate_type: URI of the evidence it makes.
        extra: the optional dependency that it needs, or None.
        function: the measuring function.
        parameters: in signature order, without the context.
        summary: first line of the docstring.
        reusable: what evidence must fulfil besides the key of reuse to serve again; None if it never does.
        releases: what it gives away of its inputs: `DIGESTS`, `Bounds`, or None when nothing bounds it. A data policy
            that demands privacy refuses the last.
    """

    name: str
    predicate_type: str
    extra: str | None
    function: Callable[..., Finding]
    parameters: tuple[Parameter, ...]
    summary: str
    reusable: Reusable | None = always
    releases: Literal["digests"] | Bounds | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Finding:
        """Run the measuring function as it is, without runner."""
        return self.function(*args, **kwargs)

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises `Misuse` listing those that exist."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = ", ".join(p.flag for p in self.parameters)
        raise Misuse(f"stage {self.name} has no parameter {name!r}", expected=f"one of {known}")


def stage(
    name: str,
    *,
    predicate: str,
    extra: str | None = None,
    reusable: Reusable | None = always,
    releases: Literal["digests"] | Bounds | None = None,
) -> Callable[[Callable[..., Finding]], Stage]:
    """Declare the function below as the stage `name` that makes evidence of type `predicate` (short name or URI).

    A stage whose answer depends on more than inputs and settings says so by `reusable`: None if it depends on what the
    log holds now, as verifying does; a function of the predicate if it depends on what is installed, as training does.
    What it gives away of its inputs it says by `releases`.

    Raises `Misuse` at import when the name is not ``moment.stage``, a parameter has a type that no generator knows, or
    `releases` names a parameter that there is not.
    """
    if not _NAME.fullmatch(name):
        raise Misuse("a stage is named moment.stage in lower case", got=name)
    uri = predicates.uri_of(predicate)
    if uri in {predicates.SHORT[short] for short in JUDGEMENTS}:
        raise Misuse(f"stage {name} would make evidence that people and gates make", got=predicate)

    def declare(function: Callable[..., Finding]) -> Stage:
        doc = inspect.getdoc(function) or ""
        if not doc:
            raise Misuse(f"stage {name} has no docstring")
        parameters = tuple(_parameters(name, function, _arguments_section(doc)))
        made = Stage(name, uri, extra, function, parameters, doc.splitlines()[0], reusable, releases)
        if isinstance(releases, Bounds):
            for bound in (releases.epsilon, releases.delta, releases.unit):
                made.parameter(bound)
        return made

    return declare


def _parameters(stage_name: str, function: Callable[..., Finding], helps: Mapping[str, str]) -> list[Parameter]:
    # `get_type_hints` evaluates the strings that `from __future__ import annotations` leaves.
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        if hint is Context:
            continue
        if name in RESERVED:
            raise Misuse(f"parameter {name!r} of stage {stage_name} has a name that the command line uses itself")
        role, kind = _classify(stage_name, name, hint)
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        names_file = any(isinstance(mark, FileName) for mark in getattr(hint, "__metadata__", ()))
        found.append(Parameter(name, role, kind, required, default, helps.get(name, ""), names_file))
    return found


def _classify(stage_name: str, name: str, hint: Any) -> tuple[Role, Kind]:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Input):
            return "input", mark.kind
        if isinstance(mark, Output):
            return "output", mark.kind
        if isinstance(mark, FileName):
            return "value", "text"
    kind = _VALUES.get(hint)
    if kind is None:
        raise Misuse(f"parameter {name} of stage {stage_name} has no known type", got=str(hint))
    return "value", kind


def _arguments_section(doc: str) -> dict[str, str]:
    """Name → text of a Google-style ``Args`` section; continuation lines are joined."""
    found: dict[str, str] = {}
    current, inside = "", False
    for line in doc.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z ]+:", line):
            inside = line == "Args:"
        elif inside and (match := re.fullmatch(r" {4}(\w+): (.*)", line)):
            current = match[1]
            found[current] = match[2]
        elif inside and current and line.startswith(" " * 6):
            found[current] += " " + line.strip()
    return found


def require(module: str, extra: str) -> Any:
    """Import an optional library at the moment of use. Raises `MissingExtra` naming the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is needed and not installed", got=str(error), remedy=f"pip install 'mlseal[{extra}]'"
        ) from error
