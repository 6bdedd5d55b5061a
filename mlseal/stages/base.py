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
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlseal.errors import MissingExtra, Misuse
from mlseal.evidence import predicates
from mlseal.evidence.planning import Privacy
from mlseal.evidence.predicates.base import Strength
from mlseal.stages.context import Context, copy, require_same, require_unchanged
from mlseal.stages.signature import (
    RESERVED,
    CodePath,
    DatasetPath,
    EntryPath,
    FileName,
    FilePath,
    Input,
    Kind,
    ModelPath,
    Output,
    OutputDataset,
    OutputFile,
    OutputModel,
    Parameter,
    Role,
    Settings,
    parameters_of,
)

__all__ = [
    "DIGESTS",
    "JUDGEMENTS",
    "RESERVED",
    "Bounds",
    "CodePath",
    "Context",
    "DatasetPath",
    "EntryPath",
    "FileName",
    "FilePath",
    "Finding",
    "Input",
    "Kind",
    "Merge",
    "ModelPath",
    "Output",
    "OutputDataset",
    "OutputFile",
    "OutputModel",
    "Parameter",
    "Reusable",
    "Role",
    "Settings",
    "Stage",
    "always",
    "copy",
    "require",
    "require_same",
    "require_unchanged",
    "stage",
]

JUDGEMENTS = frozenset(
    {"budget-reservation", "human-approval", "ownership", "revocation", "revocation-snapshot", "slsa-vsa", "waiver"}
)
"""Evidence of people and gates. A stage measures; it can neither approve nor judge nor take back."""
COSTS = ("seconds", "minutes", "hours")
"""The first word of `Stage.cost`: what a run takes on a small table or model with two cores."""
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


@dataclass(frozen=True)
class Merge:
    """For `Stage.merge`: how a stage runs in shards (`Context.shard`).

    Attributes:
        divides: the input whose items are divided; every shard gets all of it, and looks at what `Shard.owns`.
        function: the fields that each shard found, in order of the shards → the fields of the whole. What it needs
            must stand in them: counts, not rates. None where the stage merges by itself: it is called again, with
            `Context.parts`. A stage with outputs does, since what it makes of the parts' outputs is its own.
    """

    divides: str
    function: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None = None


def always(_: Mapping[str, Any]) -> bool:
    """The answer depends on inputs and settings alone."""
    return True


@dataclass(frozen=True)
class Finding:
    """What a stage found, before it becomes a statement.

    Attributes:
        subjects: names of the inputs or outputs that the claim is about.
        fields: predicate fields as signed (camelCase); for a measurement without what the runner adds (harness,
            strength, run id, times, seed, notProven).
        not_proven: what a reader must not conclude, besides what the stage always says (`Stage.not_proven`).
        libraries: libraries that did the measuring, with versions.
        seed: of every random choice.
        strength: ``declared`` when the stage took somebody's word for what it did not see.
        spent: the privacy that it really gave away, where it declares `Bounds`; None for all that it reserved. At most
            that, or the run is refused.
    """

    subjects: tuple[str, ...]
    fields: Mapping[str, Any]
    not_proven: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    strength: Strength = "measured"
    spent: Privacy | None = None


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
        cost: one of `COSTS`, and why, such as ``seconds: one pass over the rows``; empty if nobody said.
        not_proven: what no finding of it proves; the runner puts it into every measurement.
        resumable: whether it keeps checkpoints when asked to (`Context.checkpoints`).
        merge: how it runs in shards; None if it does not.
    """

    name: str
    predicate_type: str
    extra: str | None
    function: Callable[..., Finding]
    parameters: tuple[Parameter, ...]
    summary: str
    reusable: Reusable | None = always
    releases: Literal["digests"] | Bounds | None = None
    cost: str = ""
    not_proven: tuple[str, ...] = ()
    resumable: bool = False
    merge: Merge | None = None

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
    cost: str = "",
    not_proven: tuple[str, ...] = (),
    resumable: bool = False,
    merge: Merge | None = None,
) -> Callable[[Callable[..., Finding]], Stage]:
    """Declare the function below as the stage `name` that makes evidence of type `predicate` (short name or URI).

    A stage whose answer depends on more than inputs and settings says so by `reusable`: None if it depends on what the
    log holds now, as verifying does; a function of the predicate if it depends on what is installed, as training does.
    What it gives away of its inputs it says by `releases`, what it takes by `cost`, what it never proves by
    `not_proven`, that it can go on after a stop by `resumable`, and how it runs in shards by `merge`.

    Raises `Misuse` at import when the name is not ``moment.stage``, a parameter has a type that no generator knows,
    `releases` or `merge` names a parameter that there is not, `cost` does not begin with one of `COSTS`, or a stage
    with a bound of privacy, or with outputs that nobody merges, would run in shards.
    """
    if not _NAME.fullmatch(name):
        raise Misuse("a stage is named moment.stage in lower case", got=name)
    uri = predicates.uri_of(predicate)
    if uri in {predicates.SHORT[short] for short in JUDGEMENTS}:
        raise Misuse(f"stage {name} would make evidence that people and gates make", got=predicate)
    if cost and cost.partition(":")[0] not in COSTS:
        raise Misuse(f"the cost of stage {name} begins with a class of time", got=cost[:80], expected=", ".join(COSTS))

    def declare(function: Callable[..., Finding]) -> Stage:
        doc = inspect.getdoc(function) or ""
        if not doc:
            raise Misuse(f"stage {name} has no docstring")
        parameters = parameters_of(name, function, lent=Context)
        summary = doc.splitlines()[0]
        made = Stage(
            name,
            uri,
            extra,
            function,
            parameters,
            summary,
            reusable,
            releases,
            cost=cost,
            not_proven=not_proven,
            resumable=resumable,
            merge=merge,
        )
        if merge is not None:
            made.parameter(merge.divides)
            lost = merge.function is not None and any(p.role == "output" for p in parameters)
            if isinstance(releases, Bounds) or lost:
                got = "a bound of privacy" if not lost else "an output, and a merging of fields alone"
                raise Misuse(f"stage {name} cannot run in shards", got=got)
        if isinstance(releases, Bounds):
            for bound in (releases.epsilon, releases.delta, releases.unit):
                made.parameter(bound)
        return made

    return declare


def require(module: str, extra: str) -> Any:
    """Import an optional library at the moment of use. Raises `MissingExtra` naming the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is needed and not installed", got=str(error), remedy=f"pip install 'mlseal[{extra}]'"
        ) from error
