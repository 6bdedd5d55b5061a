"""A gate that lets nothing through without evidence. Offline, a few seconds; no torch, no account, no other tool.

    python examples/01_refused_without_evidence.py

1. An authority is made for this run only, as `mlseal init` does; a monitor states that nothing was taken back.
2. The gate judges a model about which nobody said anything: undecided, and it says which command makes the evidence.
3. Somebody signs that the test of ``model.bin`` passed: allowed.
4. One byte of the model changes. The evidence is about other bytes now: undecided again.
5. Somebody signs that the test of this version failed: refused.

It ends in that refusal, with exit code 10 as `mlseal gate` would; any other code means that the example is broken.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlseal.policy.verdict import Verdict

POLICY = """
policy: example/1
applies: [{tool: mlseal, action: gate}]
assurance: {identity: local, log: unwitnessed, time: local}
revokers: [{issuer: "https://example.mlseal.local/issuer", san: "https://example.mlseal.local/roles/monitor"}]
require:
  - predicate: test-result
    by: [{issuer: "https://example.mlseal.local/issuer", san: "https://example.mlseal.local/roles/evaluator"}]
    when:
      - {id: passed, message: "the test of these bytes passed", check: 'p.result == "PASSED"'}
"""


def main() -> int:
    """Run the example in a directory of its own; the exit code of the last verdict."""
    with tempfile.TemporaryDirectory(prefix="mlseal-example-") as directory:
        work = Path(directory)
        os.environ |= {f"MLSEAL_{kind}_DIR": str(work / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")}
        model, policy = work / "model.bin", work / "policy.yaml"
        model.write_bytes(b"weights, version 1")
        policy.write_text(POLICY)
        return tell_the_story(work, model, policy)


def tell_the_story(work: Path, model: Path, policy: Path) -> int:
    """Steps 1 to 5."""
    from mlseal import Archive, judge, measure
    from mlseal.evidence import revoking, statement
    from mlseal.evidence.predicates import test_result
    from mlseal.evidence.signing import signer_for
    from mlseal.evidence.store import Store
    from mlseal.evidence.trust import resolve
    from mlseal.policy.load import load_all
    from mlseal.services import process, setup

    made = setup.initialise(work / ".mlseal", name="example.mlseal.local")  # (1)
    service = process.start(made.state.directory)
    try:
        trust, store = resolve(), Store(made.directory / "evidence")
        archive, policies = Archive.open(trust, store), load_all([policy])
        revoking.snapshot(archive, signer_for("monitor", trust=trust, store=store), valid_for=timedelta(hours=1))

        def say(result: str) -> None:
            claim = {"result": result, "configuration": []}
            signer_for("evaluator", trust=trust, store=store).sign(
                statement.make(measure(model).subjects, test_result.URI, claim)
            )

        def gate() -> Verdict:
            verdict = judge(measure(model), None, policies, archive)
            print(f"{model.name}: {verdict.kind}")
            for reason in verdict.reasons:
                print(f"  {reason.message}; got: {reason.got or 'nothing'}\n  do: {reason.remedy}")
            return verdict

        verdicts = [gate()]  # (2)
        say("PASSED")
        verdicts.append(gate())  # (3)
        model.write_bytes(b"weights, version 2")
        verdicts.append(gate())  # (4)
        say("FAILED")
        verdicts.append(gate())  # (5)
        as_told = [verdict.kind for verdict in verdicts] == ["undecided", "allowed", "undecided", "refused"]
        return verdicts[-1].exit_code if as_told else 1
    finally:
        if service is not None:
            os.kill(service, signal.SIGTERM)
            os.waitpid(service, 0)


if __name__ == "__main__":
    sys.exit(main())
