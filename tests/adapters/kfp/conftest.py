"""A bench on which compiled pipelines run: a real trust service, a policy, data, a training program, and the host runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiling, image
from mlseal_kfp.compiled import Compiled
from mlseal_kfp.host import Host, HostResult, run

HERE = Path(__file__).parent
POLICY = """\
policy: tests/1
applies:
  - {{tool: kfp, action: gate, model: "risk-*", workspace: "*"}}
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
gate: [{{issuer: "{issuer}", san: "{gate}"}}]
require:
  - predicate: slsa-provenance
    by: [{{issuer: "{issuer}", san: "{producer}"}}]
    maxAge: 1d
    when:
      - id: builder
        message: "the model was not trained by a host process of this bench"
        check: 'p.runDetails.builder.id == "https://mlseal.dev/builder/host-process/v0.1"'
"""
SCRIPT = """\
import argparse, json, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--data"); parser.add_argument("--out"); parser.add_argument("--param", action="append", default=[])
given = parser.parse_args()
settings = dict(pair.split("=", 1) for pair in given.param)
if settings.get("fail"): raise SystemExit("no convergence")
time.sleep(float(settings.get("sleep", 0)))
out = pathlib.Path(given.out); out.mkdir()
rows = pathlib.Path(given.data).read_text().splitlines()
(out / "weights.json").write_text(json.dumps({"rows": len(rows), "settings": settings, "mark": rows[-1]}))
(out / "MLmodel").write_text("flavors: {}\\n")
"""

CANARY = "canary-of-the-pipelines"


def require_no_row_printed(result: HostResult, given: Path) -> None:
    """What the tasks printed holds nothing of the marked rows in `given`, a file or a folder."""
    files = [given] if given.is_file() else [file for file in given.rglob("*") if file.is_file()]
    assert any(CANARY.encode() in file.read_bytes() for file in files), "nothing is marked, so nothing could be seen"
    printed = result.log.read_text()
    assert all(task.name in printed for task in result.tasks), "this is where the tasks print"
    assert CANARY not in printed


@pytest.fixture(scope="session")
def compiled_pipelines() -> Mapping[str, Compiled]:
    """The pipelines of this folder, with the placeholder."""
    return compiling.compile_pipelines(HERE / "pipelines.py")


@dataclass
class Bench:
    """One person's machine: files in a directory, an authority, a policy."""

    authority: Any
    base: Path
    pipelines: Mapping[str, Compiled]
    policy: Path

    @property
    def data(self) -> Path:
        """The training data."""
        return self.base / "train.csv"

    @property
    def script(self) -> Path:
        """The training program."""
        return self.base / "train.py"

    @property
    def marker(self) -> Path:
        """Exists once the protected step has run."""
        return self.base / "deployed"

    @property
    def environment(self) -> dict[str, str]:
        """What every step is told."""
        return {
            "MLSEAL_TRUST": str(self.authority.trust_config),
            "MLSEAL_STORE": str(self.authority.store.root),
            "MLSEAL_POLICY": str(self.policy),
            "PYTHONPATH": str(HERE),
        }

    def host(self, **changes: Any) -> Host:
        """This machine, standing in for what was compiled with ``--host``."""
        environment = self.environment | changes.pop("environment", {})
        return Host(modules=frozenset({"mlseal_kfp.step", "example_deploy"}), environment=environment, **changes)

    def file(self, name: str, reference: str | None = None) -> Path:
        """Pipeline `name` compiled for this host (or with another image)."""
        return compiling.write(
            compiling.fill(self.pipelines[name], reference or image.host_reference()), self.base / "compiled"
        )

    def run(self, name: str, host: Host | None = None, /, **parameters: Any) -> HostResult:
        """Run pipeline `name`; parameters that it has and that are not given are filled from the bench."""
        wanted = self.pipelines[name].pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        own = {"data": str(self.data), "script": str(self.script), "marker": str(self.marker)}
        given = {k: v for k, v in own.items() if k in wanted} | parameters
        return run(self.file(name), given, self.base / "root", host or self.host())

    def verdict(self, result: HostResult, task: str = "decide") -> dict[str, Any]:
        """The predicate of the verdict that `task` wrote."""
        from mlseal.evidence.bundle import Bundle

        return dict(Bundle.read(result.output(task, "verdict")).statement.predicate)


@pytest.fixture
def bench(
    authority: Any, tmp_path: Path, compiled_pipelines: Mapping[str, Compiled], snapshot: Callable[[], None]
) -> Bench:
    """A bench with fresh data, so that tests of one module do not share a model."""
    base = tmp_path / "bench"
    base.mkdir()
    policy = base / "policy.yaml"
    policy.write_text(
        POLICY.format(issuer=authority.issuer, **{r: authority.san(r) for r in ("monitor", "gate", "producer")})
    )
    (base / "train.csv").write_text(f"x,y\n1,0\n2,1\n{tmp_path.name},1\n")
    (base / "train.py").write_text(SCRIPT)
    snapshot()
    return Bench(authority, base, compiled_pipelines, policy)


@pytest.fixture
def snapshot(authority: Any) -> Callable[[], None]:
    """Signs an empty revocation snapshot as the monitor: without one nothing is allowed."""
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.revoking import snapshot

    return lambda: snapshot(
        Archive.open(authority.trust, authority.store), authority.signer("monitor"), valid_for=timedelta(hours=24)
    )
