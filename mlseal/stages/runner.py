"""Run a stage and turn its finding into signed evidence. The same for every stage, every tool.

Steps, performed under these numbers:

1. the stage and its arguments: unknown, missing or ill-typed ones are the caller's mistake;
2. inputs are hashed from their bytes, without any cache, and the planned run is judged (`preflight`): what an owner's
   data policy does not allow stops here, before any work; what it draws on a privacy budget is reserved; and the
   verdict that lets it go on is signed;
3. the stage runs, outputs going to a hidden place beside their final one (or the evidence of its parts is merged,
   `mlseal.stages.merging`);
4. inputs are hashed again: a change in between refuses;
5. outputs are hashed;
6. finding + harness + times → predicate, checked against its own schema → statement;
7. signed (which verifies the signature again) and stored;
8. outputs are published under their final name, then the bundle is written to ``out``.

Whatever goes wrong, outputs are removed and nothing is published: an output without evidence never appears. So it is
with a run that is stopped (`mlseal.stages.cancellation`) or killed: what it left the next run removes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlseal.errors import Error, Misuse
from mlseal.evidence import keyholder, naming, planning
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock, rfc3339, utcnow
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.predicates.base import Preflight
from mlseal.evidence.statement import Statement
from mlseal.evidence.store import BundleStore
from mlseal.stages import checkpoints, registry
from mlseal.stages.arguments import Arguments, parse
from mlseal.stages.base import Context, require_unchanged
from mlseal.stages.calling import call, output
from mlseal.stages.cancellation import Cancellation
from mlseal.stages.harness import harness_of, kept_by, plan_of
from mlseal.stages.kept import Kept
from mlseal.stages.manner import PLAIN, Manner
from mlseal.stages.merging import merged, part
from mlseal.stages.progress import Progress
from mlseal.stages.registry import Registered
from mlseal.stages.staged import publish, staged
from mlseal.stages.stating import settle, state
from mlseal.stages.workspace import sweep, workspace

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.signing import Signer


@dataclass(frozen=True)
class Performed:
    """A stage that ran: its statement, not yet signed, and its outputs, which `publish` puts in their final places."""

    statement: Statement
    publish: Callable[[], None]
    outputs: Mapping[str, Path]


Clear = Callable[[Registered, Arguments, Mapping[str, Measured]], Preflight | None]
"""Step 2's question: raises to stop the run; what the statement says of the verdict otherwise, None for nothing."""


def run(
    name: str,
    arguments: Mapping[str, str],
    *,
    signer: Signer,
    store: BundleStore,
    out: Path | None = None,
    run_id: str | None = None,
    clock: Clock = utcnow,
    quiet: bool = False,
    reuse: bool = False,
    purpose: str | None = None,
    preflight: planning.Judge = planning.unjudged,
    cancellation: Cancellation | None = None,
    manner: Manner = PLAIN,
) -> Bundle:
    """Run stage `name`, sign what it found, keep the bundle in `store` and write it to `out`.

    Args:
        name: ``moment.stage``.
        arguments: parameter name → text, as a command line or pipeline has it.
        signer: whose evidence this becomes.
        store: where the bundle rests.
        out: a file for the bundle, written whole at the very end.
        run_id: of the pipeline run; a random one if absent.
        clock: the injected clock.
        quiet: show nothing.
        reuse: give back evidence of the same signer for the same stage, configuration and bytes, if there is any that
            verifies (`mlseal.stages.reuse`), with the output put back from a copy of the digest that it states; the
            inputs are read in full either way. What is made anew is kept a second time, below `store`, for then. Where
            a data policy governs an input nothing serves again: what it allows is asked of each run.
        purpose: why this runs, as a data policy writes it; None if nothing was stated.
        preflight: judges the plan; the default stops whatever has a data policy.
        cancellation: by which the caller may stop the run; SIGINT and SIGTERM stop it in any case.
        manner: whether it goes on from a checkpoint, looks at one shard, or merges the evidence of all.

    Raises whatever the stage raises, `DigestMismatch` when an input changed, `ServiceUnavailable` when nothing could
    sign, `Cancelled` when it was stopped; outputs do not exist then.
    """

    def archive() -> Archive:
        from mlseal.evidence.archive import Archive

        return Archive.open(signer.trust, store, clock=clock)

    if out is not None and out.is_dir():
        raise Misuse(f"{out} is a directory", expected="a file name for the bundle")
    asking = _Asking(preflight, archive, signer, store, planning.purpose(purpose), run_id or secrets.token_hex(8))
    # What there is about the whole is no part of it.
    if (
        reuse
        and manner.shard is None
        and (known := _again(name, arguments, signer, archive(), Kept(store), asking)) is not None
    ):
        Progress(name, quiet=quiet).log(f"{name}: nothing changed, evidence {known.evidence_id[:16]}… serves again")
        if out is not None:
            known.write(out)
        return known
    stop = cancellation or Cancellation()
    with Progress(name, quiet=quiet) as progress, stop.listening():
        ran = performed(
            name,
            arguments,
            run_id=asking.run_id,
            clock=clock,
            archive=archive,
            log=progress.log,
            show=progress.step,
            clear=asking.clear,
            cancellation=stop,
            asking=planning.Asking(preflight, signer.identity, asking.purpose),
            manner=manner,
        )
        with ran as done, stop.shielded():
            bundle = signer.sign(done.statement)  # 7
            store.put(bundle)
            done.publish()  # 8
            if out is not None:
                bundle.write(out)
            if reuse:
                _keep(done.outputs, Kept(store), progress.log)
            return bundle


@dataclass(frozen=True)
class _Asking:
    """Step 2's question, with what it takes to ask it and to sign the answer."""

    judge: planning.Judge
    archive: Callable[[], Archive]
    signer: Signer
    store: BundleStore
    purpose: str | None
    run_id: str

    def clear(self, registered: Registered, parsed: Arguments, measured: Mapping[str, Measured]) -> Preflight | None:
        """The signed verdict that lets the run go on; None where there is nothing to judge."""
        cleared = self._ask(registered, parsed, measured)
        if cleared.verdict is None:
            return None
        # The verdict decides, and a key may not; asked before a budget is reserved for nothing.
        keyholder.require_work(self.signer.identity(), cleared.verdict.predicate_type)
        reserved = None
        if cleared.reservation is not None:
            reserved = self._sign(cleared.reservation)
            cleared.confirm(reserved)
        return Preflight(
            verdict=self._sign(cleared.verdict),
            purpose=self.purpose,
            data_policies=list(cleared.data_policies),
            reservation=reserved,
        )

    def _sign(self, what: Statement) -> str:
        """Sign and keep `what`; its evidence id."""
        bundle = self.signer.sign(what)
        self.store.put(bundle)
        return bundle.evidence_id

    def ungoverned(self, registered: Registered, parsed: Arguments, measured: Mapping[str, Measured]) -> bool:
        """Whether no data policy governs an input, so that evidence may serve again."""
        return not self._ask(registered, parsed, measured).data_policies

    def _ask(self, registered: Registered, parsed: Arguments, measured: Mapping[str, Measured]) -> planning.Cleared:
        if not measured:
            return planning.Cleared()
        by = self.signer.identity()
        plan = plan_of(registered.stage, parsed, measured, by=by, purpose=self.purpose, run_id=self.run_id)
        return self.judge(plan, self.archive())


def _again(
    name: str,
    arguments: Mapping[str, str],
    signer: Signer,
    archive: Archive,
    kept: Kept,
    asking: _Asking,
) -> Bundle | None:
    """Evidence that serves again, its output (if the stage makes one) back in its place; None if the stage must run."""
    from mlseal.stages.reuse import find

    outputs = parse(registry.load(name).stage, arguments, naming.in_force()).outputs
    with staged(outputs) as staging:

        def restore(sha256: str) -> bool:
            return all(kept.take(sha256, path) for path in staging.values())

        found = find(name, arguments, signer, archive, restore, asking.ungoverned)
        if found is not None:
            publish(staging, outputs)
        return found


def _keep(outputs: Mapping[str, Path], kept: Kept, log: Callable[[str], None]) -> None:
    """Copies for the next time. The run is done and its evidence published, so a full disk is only told."""
    for key, path in outputs.items():
        try:
            kept.put(measure(path))
        except (Error, OSError) as error:
            log(f"output {key} is not kept for another time: {error}")


@contextlib.contextmanager
def performed(
    name: str,
    arguments: Mapping[str, str],
    *,
    archive: Callable[[], Archive],
    run_id: str | None = None,
    clock: Clock = utcnow,
    log: Callable[[str], None] = lambda _: None,
    show: Callable[[int, int | None, str], None] = lambda *_: None,
    clear: Clear = lambda *_: None,
    cancellation: Cancellation | None = None,
    asking: planning.Asking | None = None,
    manner: Manner = PLAIN,
) -> Iterator[Performed]:
    """Steps 1 to 6. Outputs that were not published by the end of the block are removed.

    `clear` judges the plan; `run` always gives one, and what is not signed needs none.
    """
    registered = registry.load(name)  # 1
    stage = registered.stage
    manner.require_fits(stage)
    names = naming.in_force()
    parsed = parse(stage, arguments, names)
    started = rfc3339(clock())
    before = {key: measure(path) for key, path in parsed.inputs.items()}  # 2
    cleared = clear(registered, parsed, before)
    stop = cancellation or Cancellation()
    sweep()
    with contextlib.ExitStack() as held:
        staging = held.enter_context(staged(parsed.outputs))
        work = held.enter_context(workspace(list(staging.values())))
        held.enter_context(stop.releasing())
        harness = harness_of(registered, parsed, before)
        context = Context(
            run_id=run_id or secrets.token_hex(8),
            clock=clock,
            started_on=started,
            measured=before,
            workspace=work,
            harness_base=harness,
            log=log,
            archive=archive,
            naming=names,
            show=show,
            cancellation=stop,
            asking=asking or planning.Asking(),
            checkpoints=held.enter_context(checkpoints.opened(harness, work, log)) if manner.resume else None,
            shard=manner.shard,
        )
        calling = partial(call, stage, {**parsed.inputs, **staging, **parsed.values})
        if manner.partials:
            finding, context = merged(registered, manner.partials, manner.made, context, calling)
        else:
            finding = calling(context)  # 3
        for key, path in parsed.inputs.items():  # 4
            require_unchanged(key, before[key], measure(path))
        after = {key: output(stage, key, path, parsed.outputs[key].name) for key, path in staging.items()}  # 5
        settled = settle(cleared, finding, kept_by(stage, parsed))
        if manner.shard is not None:
            made = part(registered, finding, after, context, settled, manner.shard)
        else:
            made = state(registered, finding, {**before, **after}, context, settled)  # 6
        yield Performed(made, lambda: publish(staging, parsed.outputs), parsed.outputs)
