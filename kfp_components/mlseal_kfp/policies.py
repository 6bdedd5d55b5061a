"""Which policies a gate judges by: the administrator's always, the pipeline's besides, never instead."""

from __future__ import annotations

import os
from pathlib import Path

from mlseal.errors import NotInitialised
from mlseal.evidence import paths
from mlseal.policy import load
from mlseal.policy.model import Policy
from mlseal_kfp.executor_input import Task


def policies_of(task: Task) -> tuple[Policy, ...]:
    """Every policy that this gate knows.

    ``$MLSEAL_POLICY`` (files or directories, separated by ``:``) or else this user's ``policy.yaml``; the machine's;
    and the file at input ``policy``. All that match an action must allow it, so what a pipeline brings can only be
    stricter. Equal files count once.

    Raises `NotInitialised` when there is none, `PolicyInvalid` for one that cannot be loaded.
    """
    found = [*_administrators(), *_machines()]
    given = task.artifact("policy")
    if given is not None:
        found.append(given.require())
    if not found:
        raise NotInitialised(
            "the gate has no policy",
            expected="MLSEAL_POLICY, /etc/mlseal/policy.yaml or input 'policy'",
            remedy="mount the policy into the pod, or pass it as artifact",
        )
    loaded = [policy for path in found for policy in load.load_all([path])]
    return tuple({policy.sha256: policy for policy in loaded}.values())


def _administrators() -> list[Path]:
    named = [Path(part) for part in os.environ.get("MLSEAL_POLICY", "").split(os.pathsep) if part]
    own = paths.config_dir() / "policy.yaml"
    return named or ([own] if own.is_file() else [])


def _machines() -> list[Path]:
    file = paths.machine_config_dir() / "policy.yaml"
    return [file] if file.is_file() else []
