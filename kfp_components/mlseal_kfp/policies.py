"""Which policies a gate judges by: the administrator's always, the pipeline's besides, never instead."""

from __future__ import annotations

from mlseal.errors import NotInitialised
from mlseal.policy import load
from mlseal.policy.layers import with_layers
from mlseal.policy.model import Policy
from mlseal_kfp.executor_input import Task


def policies_of(task: Task) -> tuple[Policy, ...]:
    """The policies in force (`mlseal.policy.load.in_force`) and the file at input ``policy``.

    All that match an action must allow it, so what a pipeline brings can only be stricter. Equal files count once. It
    may be a layer of the administrator's, which is found by its digest.

    Raises `NotInitialised` when there is none, `PolicyInvalid` for one that cannot be loaded.
    """
    found = load.in_force()
    given = task.artifact("policy")
    if given is not None:
        found += with_layers([load.load(given.require(), beside=load.places())])
    if not found:
        raise NotInitialised(
            "the gate has no policy",
            expected="MLSEAL_POLICY, /etc/mlseal/policy.yaml or input 'policy'",
            remedy="mount the policy into the pod, or pass it as artifact",
        )
    return tuple({policy.sha256: policy for policy in found}.values())
