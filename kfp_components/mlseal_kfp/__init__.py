"""mlseal on Kubeflow Pipelines: components generated from stages, a gate of two tasks, and checks of compiled files.

    pipeline.py ── component(…), gate(…) ──▶ YAML with a placeholder ── mlseal kfp compile --image …@sha256:… ──▶ YAML
                                                                                                               │ lint
    cluster: python -m mlseal_kfp.step STAGE …   ◀──────────────────────────────────────────────────────────────┤
    host (development, not enforced): mlseal kfp run   ◀─────────────────────────────────────────────────────────┘

A component translates; it measures nothing, judges nothing and holds no key. Names below load when they are used.
"""

from __future__ import annotations

from typing import Any

_HOME = {
    "component": "mlseal_kfp.components",
    "gate": "mlseal_kfp.components",
    "run": "mlseal_kfp.host",
    "Host": "mlseal_kfp.host",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - one table of names


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'mlseal_kfp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
