"""The program in every component: ``python -m mlseal_kfp.step STAGE --image REF --executor-input JSON``.

It translates and does nothing else: no measuring, no judging, no keys. Steps, performed under these numbers:

1. The image is set, and if it stands for a host, for this one.
2. The ExecutorInput is parsed strictly.
3. Inside Kubernetes the trust root is not an embedded one.
4. Every connected input exists and has the digest that was announced for it.
5. The stage runs, or the gate judges.
6. All outputs appear, or none (`mlseal_kfp.publishing`).

Exit status: 0, or the error's (10 refused, 11 unchecked, 2 caller wrong). Stage names are ``decide``, ``enforce`` and
those of the registry. kfp is not imported: an image needs mlseal alone.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence

from mlseal.errors import Error, Misuse, Unchecked
from mlseal_kfp import executor_input, image
from mlseal_kfp.ports import GATES
from mlseal_kfp.publishing import Outputs

ERROR_MARK = "mlseal-error: "
"""Starts the line on which a step reports its error as JSON, for the host runner and for log readers."""
_USAGE = "python -m mlseal_kfp.step STAGE --image REFERENCE --executor-input JSON"
_ARGUMENTS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        perform(arguments)
    except Error as error:
        _report(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever happened, it is a stop with one sentence
        unexpected = Unchecked(
            f"the step stopped on an unexpected {type(error).__name__}",
            got=str(error)[:300] or None,
            remedy="run again with MLSEAL_DEBUG=1 to see where, and report it",
        )
        _report(unexpected)
        if os.environ.get("MLSEAL_DEBUG"):
            traceback.print_exc()
        return unexpected.exit_code
    return 0


def perform(arguments: Sequence[str]) -> None:
    """Steps 1 to 6 for one argv. Raises `mlseal.errors.Error`; then no output exists."""
    stage, reference, document = _arguments(arguments)
    image.require_here(reference)  # 1
    task = executor_input.parse(document)  # 2
    _load_sigstore()
    with Outputs(task) as outputs:
        if stage in GATES:
            from mlseal_kfp import gating

            (gating.decide if stage == "decide" else gating.enforce)(task, outputs, reference)  # 3 to 5
        else:
            from mlseal_kfp import staging

            staging.run(stage, task, outputs, reference)  # 3 to 5
        outputs.publish()  # 6


def _load_sigstore() -> None:
    """Import sigstore-python without boto3, which it imports where it is installed, for keys that it never uses here.

    A third of the import. What a stage itself imports afterwards finds boto3 again.
    """
    if "boto3" in sys.modules:
        return
    sys.modules["boto3"] = None  # type: ignore[assignment]  # an import of it fails as if it were absent
    try:
        import sigstore.verify  # noqa: F401
    finally:
        del sys.modules["boto3"]


def _arguments(arguments: Sequence[str]) -> tuple[str, str, str]:
    """(stage, image, ExecutorInput) of the fixed argv; any other shape is refused, so that nothing slips in."""
    if len(arguments) != _ARGUMENTS or arguments[1] != "--image" or arguments[3] != "--executor-input":
        raise Misuse(
            "not the arguments of a component",
            got=" ".join(arguments)[:120],
            expected=_USAGE,
            remedy="run the compiled component, or 'mlseal run STAGE' outside of pipelines",
        )
    return arguments[0], arguments[2], arguments[4]


def _report(error: Error) -> None:
    print(f"mlseal: {error}", file=sys.stderr)
    print(ERROR_MARK + json.dumps(error.to_dict(), sort_keys=True), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
