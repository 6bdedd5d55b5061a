"""Which policies a gate judges by: the administrator's always, the pipeline's besides, never instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mlseal.errors import NotInitialised, PolicyInvalid
from mlseal.policy import load
from mlseal.policy.layers import governing, with_layers
from mlseal.policy.model import Policy
from mlseal.policy.names import Action, canonical_facts
from mlseal_kfp.executor_input import Task


def policies_of(task: Task, action: Action, now: datetime) -> tuple[Policy, ...]:
    """The policies in force (`mlseal.policy.load.in_force`) and the file at input ``policy``, for `action` at `now`.

    All that match an action must allow it, so what a pipeline brings can only be stricter. So that it is not the one
    that opens an action, by governing or exempting what nobody else speaks of, it counts only where those in force
    judge or exempt the action by themselves; else they are alone, and refuse. It may be a layer of the
    administrator's, which is found by its digest. Equal files count once.

    Raises `NotInitialised` when there is none, `PolicyInvalid` for one that cannot be loaded, or that asks an OPA
    server for a decision that no policy in force asks for: the gate would carry its evidence and its token there.
    """
    found = load.in_force()
    given = task.artifact("policy")
    if given is not None:
        brought = with_layers([load.load(given.require(), beside=load.places())])
        _require_known_servers(brought, found)
        found += brought if not found or _speak_of(found, canonical_facts(action), now) else ()
    if not found:
        raise NotInitialised(
            "the gate has no policy",
            expected="MLSEAL_POLICY, /etc/mlseal/policy.yaml or input 'policy'",
            remedy="mount the policy into the pod, or pass it as artifact",
        )
    return tuple({policy.sha256: policy for policy in found}.values())


def _speak_of(policies: Sequence[Policy], facts: Mapping[str, str], now: datetime) -> bool:
    """Whether one of `policies` is in force for an action, or exempts it."""
    governs = any(policy.binding(now) for policy in governing(policies, facts))
    return governs or any(policy.exempts(facts, now) for policy in policies)


def _require_known_servers(brought: Sequence[Policy], known: Sequence[Policy]) -> None:
    asked = {(engine.server, engine.decision) for policy in with_layers(known) for engine in policy.engines}
    for policy in brought:
        for engine in policy.engines:
            if (engine.server, engine.decision) not in asked:
                raise PolicyInvalid(
                    f"policy {policy.name} of the pipeline asks an OPA server on its own account",
                    got=f"{engine.server} for {engine.decision}",
                    expected="servers and decisions that a policy in force names",
                    remedy="have the administrator's policy ask it",
                )
