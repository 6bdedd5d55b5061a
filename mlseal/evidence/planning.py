"""A run before it starts: what the runner means to do, and what whoever judges it answers.

Runner and policy do not know each other; they meet here, as they meet in evidence. The runner hashes the inputs, fills
in a `Plan` and asks; the judge raises to stop it, or answers with a verdict that the runner signs before the work.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence.digest import Measured
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import data_policy
from mlseal.evidence.statement import Statement

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive

_WORD = re.compile(r"\b[A-Z]+\b")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")


@dataclass(frozen=True)
class Privacy:
    """The differential privacy that a run will keep: epsilon and delta as decimal texts, and for which unit."""

    epsilon: str
    delta: str
    unit: str

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            if not _DECIMAL.fullmatch(getattr(self, name)):
                raise Misuse(f"{name} is no decimal number", got=getattr(self, name)[:80], expected="such as 0.00001")


@dataclass(frozen=True)
class Plan:
    """What is about to run.

    Attributes:
        stage: ``moment.stage``.
        purpose: why, as the caller stated; None if nothing was stated.
        by: the identity that signs the evidence.
        inputs: name → what was hashed, just now.
        outputs: name → kind (``model``, ``dataset``).
        releases: ``digests`` when the evidence says no more of the data than digests and sizes, the privacy that the
            stage keeps, or None when nothing bounds what it gives away.
        run_id: of the pipeline run or invocation.
        predicate_type: of the evidence that the run will make.
        how: the command that would state a purpose, for messages.
    """

    stage: str
    purpose: str | None
    by: Identity
    inputs: Mapping[str, Measured]
    outputs: Mapping[str, str]
    releases: Literal["digests"] | Privacy | None
    run_id: str
    predicate_type: str = ""
    how: str = "mlseal run STAGE --purpose PURPOSE"

    def stating(self, purposes: Sequence[str]) -> str:
        """The command that states a purpose: of this stage, with the purpose that is allowed if there is only one."""
        known = {"STAGE": self.stage, **({"PURPOSE": shlex.quote(purposes[0])} if len(purposes) == 1 else {})}
        return _WORD.sub(lambda found: known.get(found[0], found[0]), self.how)  # MLSEAL_PURPOSE is another word


@dataclass(frozen=True)
class Cleared:
    """The answer that lets a plan go on.

    Attributes:
        verdict: to be signed by whoever runs; None where there was nothing to judge.
        data_policies: evidence ids of the owners' policies that were obeyed.
        reservation: of the owners' privacy budgets, to be signed before the verdict; None where nothing is drawn.
        confirm: asked with the evidence id of the signed reservation; raises if another run was faster.
    """

    verdict: Statement | None = None
    data_policies: tuple[str, ...] = ()
    reservation: Statement | None = None
    confirm: Callable[[str], None] = lambda _: None


Judge = Callable[["Plan", "Archive"], Cleared]
"""Raises `Refusal` or `Unchecked` to stop the run; nothing has been computed then."""


def purpose(text: str | None) -> str | None:
    """A purpose as data policies write it: one of their words or an id with a slash, letter case aside.

    None for None and the empty text. Raises `Misuse` for anything else.
    """
    if not text:
        return None
    form = text.lower()
    if not text.isascii() or not data_policy.is_purpose(form):
        raise Misuse(
            "this is no purpose",
            got=ascii(text)[:120],
            expected=f"one of {', '.join(data_policy.WORDS)}, or an id of the data's owner with a slash",
            remedy="pass --purpose as the data policy writes it",
        )
    return form


def unjudged(plan: Plan, archive: Archive) -> Cleared:
    """The judge where nobody gave one: it knows no policy, so data that have one do not run."""
    archive.refresh()
    digests = [subject.sha256 for measured in plan.inputs.values() for subject in measured.subjects]
    if digests and archive.candidates(digests, [data_policy.URI]):
        raise Unchecked(
            "an input has a data policy and nobody judges whether this run may use it",
            got=f"stage {plan.stage}",
            expected="a judge of the plan",
            remedy="run it with 'mlseal run', or give the runner mlseal.policy.preflight.judge",
        )
    return Cleared()


@dataclass(frozen=True)
class Asking:
    """What it takes to ask the owners of data whether they may be used; the runner lends it to a stage.

    A stage whose clients hold data of several owners has each client ask about its own.

    Attributes:
        judge: as the runner has it; the default stops whatever has a data policy.
        by: gives the identity that runs; None where there is no signer, and then nothing that has a policy is cleared.
        purpose: why this runs, as stated.
    """

    judge: Judge = unjudged
    by: Callable[[], Identity] | None = None
    purpose: str | None = None

    def clear(
        self, stage: str, inputs: Mapping[str, Measured], outputs: Mapping[str, str], archive: Archive, run_id: str
    ) -> Cleared:
        """The answer about these inputs, as if nothing bounded what the stage gives away. Raises to stop."""
        judge, who = (unjudged, Identity("", "")) if self.by is None else (self.judge, self.by())
        return judge(Plan(stage, self.purpose, who, inputs, outputs, None, run_id), archive)
