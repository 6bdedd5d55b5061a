"""Every registered stage has a row among the benches: what its evidence adds to the library alone."""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks.__main__ import ALL
from mlseal.stages import registry

BENCHES = {file.stem.removeprefix("bench_") for file in Path("benchmarks").glob("bench_*.py")}


def test_make_bench_runs_every_bench() -> None:
    """`python -m benchmarks` knows each file."""
    assert BENCHES == set(ALL)


def test_every_stage_has_exactly_one_row() -> None:
    """The tables that the benches run through name each registered stage once, and no other."""
    rows = [
        stage
        for name in sorted(BENCHES)
        for stage in getattr(importlib.import_module(f"benchmarks.bench_{name}"), "ROWS", {})
    ]
    assert sorted(rows) == sorted(registry.BUILTIN)
