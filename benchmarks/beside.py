"""A stage beside the library that it wraps, alone, on the same bytes in one run.

Bar (DESIGN, section 11): what makes it evidence (a private copy, hashing before and after, preconditions, statement)
adds at most 5 % of the library alone or 50 ms, whichever is more. Pairs are interleaved and their differences taken
within a pair, since other work on the machine comes and goes. Processor time stands beside wall time: on a busy machine
only that says what the work costs. A stage is measured up to its statement; signing has a bench of its own. The floor
is what a proof about bytes cannot do without: every input read and hashed once.

Each row says what ran alone, and what the stage does besides that is neither the library's nor evidence, such as the
recall of a scan: such work counts against the bar all the same, and where the bar is missed the row says that it is in.
"""

import hashlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from mlseal.stages import runner

Work = Callable[[], object]


def both(work: Work) -> tuple[float, float]:
    """Wall and processor seconds of this process and the children that it waited for."""
    wall, cpu = time.perf_counter(), processor()
    work()
    return time.perf_counter() - wall, processor() - cpu


def processor() -> float:
    """Processor seconds of this process and the children that it waited for, up to now."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def stage(name: str, archive: Callable[[], object] = lambda: None, /, **arguments: object) -> Work:
    """A run of stage `name` up to its statement."""
    texts = {key: str(value) for key, value in arguments.items()}

    def work() -> None:
        with runner.performed(name, texts, archive=archive):
            pass

    return work


def compare(
    name: str,
    alone: Work,
    whole: Work,
    rounds: int,
    inputs: Sequence[Path] = (),
    *,
    base: str,
    besides: str = "",
    unsigned: Work | None = None,
) -> None:
    """Print the row of stage `name`: `alone` beside `whole`, after one unmeasured run of each.

    Args:
        name: of the stage.
        alone: what the stage is held against.
        whole: a run of the stage.
        rounds: pairs that are measured.
        inputs: files of the floor.
        base: what `alone` is, in words.
        besides: what `whole` does that is in neither `alone` nor evidence, in words; empty if there is nothing.
        unsigned: all that the stage does, without what makes it evidence, where that is more than `alone`; the share of
            evidence is held against the bar then, on a line of its own.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of children
    works = [alone, whole] if unsigned is None else [alone, whole, unsigned]
    with threadpool_limits(1):  # threads that wait for each other on a busy machine measure the machine
        for work in works:
            work()  # imports and caches are not what is measured
        seen = [[both(work) for work in works] for _ in range(rounds)]
    floor = both(lambda: [hashlib.sha256(file.read_bytes()) for path in inputs for file in files(path)])[0]
    print(
        f"  {name:26} alone {_added(seen, 0)}; floor {floor * 1e3:.1f})   {_held(seen, 0, besides)}\n"
        f"    alone: {base}" + (f"; besides evidence the stage adds {besides}" if besides else ""),
        flush=True,
    )
    if unsigned is not None:
        print(f"    evidence: all that it does, unsigned, {_added(seen, 2)})   {_held(seen, 2, '')}", flush=True)


def _differences(seen: Sequence[Sequence[tuple[float, float]]], base: int) -> tuple[float, float]:
    """Medians of what the stage took more than `base`, of the wall and of the processor, in seconds."""
    wall, cpu = (statistics.median(one[1][clock] - one[base][clock] for one in seen) for clock in (0, 1))
    return wall, cpu


def _added(seen: Sequence[Sequence[tuple[float, float]]], base: int) -> str:
    wall, cpu = _differences(seen, base)
    median = statistics.median(one[base][0] for one in seen)
    return f"{median * 1e3:7.1f} ms, the stage adds {wall * 1e3:+7.1f} ms ({cpu * 1e3:+.1f} of processor"


def _held(seen: Sequence[Sequence[tuple[float, float]]], base: int, besides: str) -> str:
    bar = max(0.05 * statistics.median(one[base][0] for one in seen), 0.050)
    return f"bar {bar * 1e3:.0f} ms   {verdict(*_differences(seen, base), bar, besides)}"


def verdict(wall: float, cpu: float, bar: float, besides: str) -> str:
    """Whether the bar is met, in words."""
    if wall <= bar:
        return "met"
    if cpu <= bar:
        return "met in processor time, machine busy"
    return "MISSED, not by evidence alone: see below" if besides else "MISSED"


def files(path: Path) -> list[Path]:
    """The file, or those of the directory."""
    return [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
