"""mlseal: nothing passes that cannot show signed evidence.

    dataset · model · decision
         │ digest                                  mlseal.evidence.digest
      Subject ── run ──▶ Finding                   mlseal.stages
                            │ state                mlseal.evidence.statement
                        Statement ── sign ──▶ Bundle          mlseal.evidence.signing · mlseal.tlog
    ──────────── trust boundary: below distrusts above ────────────
                        Bundle ── verify ──▶ VerifiedStatement         mlseal.evidence.verifying
                                                   │ judge    mlseal.policy
                                                Verdict       Allowed · Refused · Undecided

The names below are loaded when they are first used, so that ``import mlseal`` costs nothing.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Error": "mlseal.errors",
    "measure": "mlseal.evidence.digest",
    "Statement": "mlseal.evidence.statement",
    "Bundle": "mlseal.evidence.bundle",
    "Signer": "mlseal.evidence.signing",
    "VerifiedStatement": "mlseal.evidence.verifying",
    "Verifier": "mlseal.evidence.verifying",
    "Archive": "mlseal.evidence.archive",
    "judge": "mlseal.policy.gate",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - names are strings, computed from one table


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'mlseal' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
