"""The demo's measuring again, nothing changed: evidence that exists is verified and taken, not made twice.

Bar (DESIGN, section 11): the second run costs at most 5 % of the first. Printed twice: for the stage itself, in one
process, and for the commands, where starting an interpreter is the floor that no reuse can go under. A verdict is never
reused, and training makes new bytes, so neither is in this figure.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.service import authority

HERE = Path(__file__).resolve().parent.parent


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    from mlseal.evidence.signing import signer_for
    from mlseal.evidence.store import Store
    from mlseal.stages import runner

    with authority() as trust, tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        store = Store(base / "evidence")
        subprocess.run(
            [sys.executable, HERE / "examples/demo/data.py", "--out", base / "data"], check=True, capture_output=True
        )
        producer = signer_for("producer", trust=trust, store=store)
        training = {
            "script": str(HERE / "examples/demo/train_model.py"),
            "data": str(base / "data"),
            "out": str(base / "model"),
            "parameters": '{"target": "need", "features": "admin+income"}',
        }
        runner.run("training.run", training, signer=producer, store=store, quiet=True)
        asked = {
            "model": str(base / "model"),
            "dataset": str(base / "data"),
            "outcome": "need",
            "attribute": "black",
            "cluster": "household",
            "table": "test.parquet",
            "select": "top:0.25",
        }
        evaluator = signer_for("evaluator", trust=trust, store=store)

        def stage(reuse):
            runner.run("governance.fairness", asked, signer=evaluator, store=store, quiet=True, reuse=reuse)

        first, again = seconds(lambda: stage(False)), min(seconds(lambda: stage(True)) for _ in range(3))
        print(f"stages, one process: first {first:.2f} s, again {again:.3f} s = {again / first:.1%} (bar 5 %)")

        command = [sys.executable, "-m", "mlseal", "run", "governance.fairness", "--store", str(base / "evidence")]
        command += [part for name, value in asked.items() for part in (f"--{name}", value)]
        env = dict(os.environ, MLSEAL_TRUST=str(Path(os.environ["HOME"]) / "project" / "trust_config.json"))

        def call(*more):
            subprocess.run([*command, *more], check=True, capture_output=True, env=env)

        first, again = seconds(call), min(seconds(lambda: call("--reuse")) for _ in range(3))
        bare = seconds(
            lambda: subprocess.run(
                [sys.executable, "-c", "import mlseal.evidence.verifying, sigstore.verify"], check=True
            )
        )
        print(
            f"commands: first {first:.2f} s, again {again:.2f} s = {again / first:.1%};"
            f" floor: interpreter and sigstore {bare:.2f} s"
        )


if __name__ == "__main__":
    main()
