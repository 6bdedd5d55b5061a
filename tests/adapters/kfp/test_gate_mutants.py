"""Take each refusal of the two gate tasks out once: what it refuses must then come through, or be told otherwise."""

from __future__ import annotations

import sys
from typing import Any

import mlseal_kfp
import pytest
from mlseal_kfp import gating

from tests.adapters.kfp import test_gate as gate
from tests.adapters.kfp.test_gate import allowed, case  # noqa: F401 - fixtures
from tests.attacks.mutants import mutants, names

pytestmark = pytest.mark.slow

# Refusal by function and message: the test that notices, and what it is given.
NOTICED: dict[str, tuple[Any, dict[str, Any]]] = {}


def _told(change: dict[str, str], error: type[Any], words: str) -> tuple[Any, dict[str, Any]]:
    return gate.test_enforce_compares_what_it_is_told, {"change": change, "error": error, "words": words}


def _read(number: int) -> tuple[Any, dict[str, Any]]:
    rows = next(m for m in gate.test_enforce_reads_the_whole_verdict.pytestmark if m.name == "parametrize").args[1]
    return gate.test_enforce_reads_the_whole_verdict, dict(zip(("change", "error", "words"), rows[number], strict=True))


NOTICED = {
    "_nonce: the gate does not know its run": _told({"run_id": ""}, gate.Misuse, "does not know its run"),
    "_action: a name that no policy can be matched with": (
        gate.test_decide_without_a_verdict,
        {"change": {"model_name": "risk-\u0430"}, "code": gate.Misuse, "words": "no policy can be matched with"},
    ),
    "_model: the gate was given no model": (gate.test_enforce_without_verdict_or_model, {}),
    "_bundle: input … is not connected": (gate.test_enforce_without_verdict_or_model, {}),
    "_announced: … comes without its digest": _told({"verdict_sha256": ""}, gate.Misuse, "comes without its digest"),
    "_announced: the file at … is not the one that its task made": _told(
        {"verdict_sha256": "ab" * 32}, gate.Refusal, "not the one that its task made"
    ),
    "_take_evidence: … was dropped: its digest arrived, the file did not": (gate.test_dropped_evidence_is_named, {}),
    "_evidence: collected_sha256 is no list of digests": (
        gate.test_decide_without_a_verdict,
        {"change": {"collected_sha256": "x"}, "code": gate.Misuse, "words": "no list of digests"},
    ),
    "_applying: no policy governs this action, so it is refused": _told(
        {"model_name": "free"}, gate.Refusal, "no policy governs"
    ),
    "_applying: policy … names no gate, so no verdict can be believed": (gate.test_policy_without_gate_is_refused, {}),
    "_require_no_hidden_withdrawal: somebody who may revoke signed something after the verdict, and nobody shows it": (
        gate.test_withdrawal_that_nobody_shows_stops,
        {},
    ),
    "_details: the verdict is not one of ours: it has no mlseal details": _read(0),
    "_details: the verdict contradicts itself": _read(1),
    "_require_this_run: the verdict was made for another run": _read(4),
    "_require_this_run: the verdict is about another action": _read(7),
    "_require_these_policies: the verdict was made by other policies than apply here": _read(5),
    "_require_passing: … by …: …": _read(3),
}


def test_every_refusal_of_the_gate_is_in_the_table() -> None:
    assert sorted(NOTICED) == sorted(names(gating))


@pytest.mark.parametrize("where", NOTICED)
def test_taking_a_refusal_out_is_noticed(where: str, request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = next(made for name, made in mutants(gating) if name == where)
    test, given = NOTICED[where]
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    given |= {name: request.getfixturevalue(name) for name in wanted if name in {"case", "allowed"}}
    monkeypatch.setitem(sys.modules, gating.__name__, mutant)
    monkeypatch.setattr(mlseal_kfp, "gating", mutant)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - an assertion of the test, or what the mutant stumbles over
        test(**given)
