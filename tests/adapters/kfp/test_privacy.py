"""Private training, encrypted scoring and federated training from compiled YAML, each with its evidence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiling, host, image

from mlseal.errors import Misuse
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from tests.adapters.kfp.conftest import CANARY, require_no_row_printed

PIPELINES = Path(__file__).with_name("privacy_pipelines.py")
STAGES = {"training.dp", "training.encrypted_scoring", "training.federated"}


@pytest.fixture
def files(bench: Any) -> dict[str, str]:
    """One table of 150 people with two rows each, and the same people at two clients."""
    draw = random.Random(3)
    rows = [
        f"{i // 2},{need},{need * 2 + draw.random()},{draw.randint(0, 90)},{CANARY}\n"
        for i in range(300)
        for need in (i % 2,)
    ]
    head = "person,need,signal,age,name\n"
    data, sites = bench.base / "people.csv", bench.base / "sites"
    data.write_text(head + "".join(rows))
    sites.mkdir()
    for name, part in (("a.csv", rows[:120]), ("b.csv", rows[120:])):
        (sites / name).write_text(head + "".join(part))
    return {"data": str(data), "sites": str(sites)}


@pytest.mark.slow
def test_the_three_privacy_stages_run_from_yaml(bench: Any, files: dict[str, str]) -> None:
    """Evidence of each names what went in and what came out; a wrong column stops the pipeline, with one sentence."""
    (made,) = compiling.compile_pipelines(PIPELINES, image.host_reference()).values()
    file = compiling.write(made, bench.base / "compiled")
    result = host.run(file, {**files, "columns": "signal,age"}, bench.base / "runs", bench.host()).require()
    assert {t.stage for t in result.tasks} == STAGES
    require_no_row_printed(result, Path(files["data"]))
    require_no_row_printed(result, Path(files["sites"]))
    said = {
        task: Bundle.read(result.output(task, "evidence")).statement
        for task in ("training-dp", "training-encrypted-scoring", "training-federated")
    }
    model = measure(result.output("training-dp", "out"))
    assert {s.sha256 for s in model.subjects} <= {s.sha256 for s in said["training-dp"].subjects}
    assert said["training-dp"].predicate["dataset"]["digest"]["sha256"] == measure(Path(files["data"])).sha256
    assert {s.sha256 for s in model.subjects} <= {s.sha256 for s in said["training-encrypted-scoring"].subjects}
    assert said["training-encrypted-scoring"].predicate["rows"] == 300
    assert [r["number"] for r in said["training-federated"].predicate["rounds"]] == [1, 2]
    stopped = host.run(file, {**files, "columns": "signal,height,age"}, bench.base / "runs", bench.host())
    with pytest.raises(Misuse, match="no height"):
        stopped.require()
