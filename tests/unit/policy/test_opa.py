"""Decisions of OPA besides the rules: they make a policy stricter and nothing else, whatever they say."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlseal.errors import Error, PolicyInvalid, ServiceUnavailable
from mlseal.evidence import canonical
from mlseal.evidence.predicates import SHORT
from mlseal.policy import controls, lint, opa_answer, telling
from mlseal.policy.compare import differences
from mlseal.policy.document import Document
from mlseal.policy.gate import Action
from mlseal.policy.load import load, parse
from mlseal.policy.schema import Opa
from mlseal.policy.verdict import raise_for, to_statement

ONE = "opa: [{server: http://127.0.0.1:8181, decision: mlseal/gate/allow, revision: r1, control: [ISO:1]}]\n"
TWO = """opa:
  - {id: ethics, server: https://opa.example, decision: ethics/allow}
  - {id: security, server: https://opa.example, decision: security/allow}
"""
ALLOW = Action("t", "a", {"model": "Risk-A"})


class Servers:
    """Answers by decision; keeps what it was asked about."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers, self.shown = answers, list[Document]()

    def ask(self, engine: Opa, document: Document) -> opa_answer.Said:
        self.shown.append(document)
        found = self.answers[engine.decision]
        if isinstance(found, Error):
            raise found
        said = opa_answer.of_result(found)
        return opa_answer.Said(said.allow, said.reasons, engine.revision, "4ca636c1")


def servers(result: Any, decision: str = "mlseal/gate/allow") -> Servers:
    return Servers({decision: result})


def stopping(verdict: Any) -> list[tuple[str, str]]:
    return [(reason.rule, reason.outcome) for reason in verdict.reasons if reason.outcome != "note"]


DOWN = ServiceUnavailable(
    "the OPA server did not answer", got="deadline passed", expected="an answer", remedy="start it"
)
ANSWERS = {
    "true": (True, "allowed", []),
    "true in an object": ({"allow": True, "reasons": []}, "allowed", []),
    "false": (False, "refused", [("opa", "refused")]),
    "reasons": ({"allow": False, "reasons": ["a", "b"]}, "refused", [("opa", "refused"), ("opa", "refused")]),
    "undefined": (None, "undecided", [("opa", "undecided")]),
    "a text": ("true", "undecided", [("opa", "undecided")]),
    "down": (DOWN, "undecided", [("opa", "undecided")]),
}


@pytest.mark.parametrize(("answer", "kind", "reasons"), ANSWERS.values(), ids=ANSWERS.keys())
def test_only_true_lets_pass(world, rules, answer, kind, reasons) -> None:
    world.fairness(0.1)
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(answer))
    assert (verdict.kind, stopping(verdict)) == (kind, reasons)
    (asked,) = verdict.asked
    wanted = {"allowed": "allowed", "refused": "refused"}.get(kind, "none")
    assert (asked.policy, asked.id, asked.decision, asked.answer) == ("test/1", "opa", "mlseal/gate/allow", wanted)
    told = ("r1", "4ca636c1") if wanted != "none" else (None, None)
    assert (asked.revision, asked.decision_id) == told
    assert all(reason.control == ("ISO:1",) for reason in verdict.reasons)


def test_its_reasons_are_reasons_of_the_verdict(world, rules) -> None:
    world.fairness(0.1)
    answer = {"allow": False, "reasons": ["gap rises", "no card"]}
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(answer))
    assert [r.message for r in verdict.reasons] == ["OPA refuses: gap rises", "OPA refuses: no card"]
    assert "mlseal policy input" in str(verdict.reasons[0].remedy)
    assert "4ca636c1" in str(verdict.reasons[0].got)
    with pytest.raises(Error, match="gap rises"):
        raise_for(verdict)


def test_it_cannot_allow_what_a_rule_stops_and_is_not_asked_then(world, rules) -> None:
    world.fairness(0.3)
    engines = servers(True)
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines)
    assert (verdict.kind, stopping(verdict)) == ("refused", [("gap", "refused")])
    assert (engines.shown, verdict.asked) == ([], ())
    (note,) = [reason for reason in verdict.reasons if reason.outcome == "note"]
    assert (note.rule, "not asked" in note.message) == ("opa", True)
    observed = world.judge(rules["fairness"], ONE, WATCH, action=ALLOW, engines=engines)
    assert (observed.mode, stopping(observed), engines.shown) == ("observe", [("gap", "refused")], [])


SHUT = "freeze: [{tool: t, action: a, from: 2026-11-01T00:00:00Z, until: 2026-12-01T00:00:00Z, owner: o, reason: r}]\n"
WATCH = "observe: {until: 2026-12-01T00:00:00Z, owner: lead}\n"
ELSEWHERE = {  # another policy, whether the one with the decision is frozen itself, and whether OPA is asked
    "nothing": ("", "", True),
    "a window of its own": ("", SHUT, False),
    "a window of another": (SHUT, "", False),
    "a window that is only observed": (SHUT + WATCH, "", True),
    "a rule of another": ("provenance", "", False),
    "a rule that only observes": (WATCH + "provenance", "", True),
    "a rule that holds": ("fairness", "", True),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("other", "own", "asks"), ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_nothing_that_is_refused_anyway_leaves_the_gate(world, header, rules, other, own, asks, turned) -> None:
    from mlseal.policy.gate import decide

    world.fairness(0.1)
    policies = [parse((header + rules["fairness"] + ONE + own).encode())]
    rule = other.rpartition("\n")[2]
    top = header.replace("test/1", "other/1").replace("require:\n", other.removesuffix(rule) + "require:\n")
    policies += [parse((top + rules[rule] if rule else "policy: other/1\n" + other).encode())] if other else []
    target, engines = controls.Target("target", controls.samples.digest("target")), servers(False)
    asked = policies[::-1] if turned else policies
    found = decide(world.source, target, ALLOW, asked, now=world.now, engines=engines)
    assert (found.kind == "allowed", found.mode) == (False, "enforce")  # what only observes excuses nobody else
    assert (len(engines.shown), len(found.asked), ("opa", "refused") in stopping(found)) == (
        (1, 1, True) if asks else (0, 0, False)
    )
    notes = [reason.message for reason in found.reasons if (reason.rule, reason.outcome) == ("opa", "note")]
    assert [("another policy or a closed window" in note) for note in notes] == ([] if asks else [True])


def test_what_holds_by_waiver_only_is_asked_about_and_shown_as_it_is(world, rules) -> None:
    world.fairness(0.1, who="stranger")
    world.fairness(0.1, age=timedelta(days=3))
    excused = {"policy": "test/1", "reason": "trial", "expires": "2026-12-01T00:00:00Z"}
    world.add("waiver", "officer", {"rule": "fairness", **excused})
    engines = servers(True)
    verdict = world.judge(rules["fairness"] + "    maxAge: 2d\n", ONE, action=ALLOW, engines=engines)
    assert verdict.kind == "allowed"
    assert [fact["satisfies"] for fact in engines.shown[0].value["requirements"]["fairness"]["facts"]] == [False]
    world.facts = []
    world.fairness(0.3)
    world.add("waiver", "officer", {"rule": "gap", **excused})
    assert world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines).kind == "allowed"
    assert [fact["satisfies"] for fact in engines.shown[1].value["requirements"]["fairness"]["facts"]] == [True]


@pytest.mark.parametrize("spoilt", ["withheld", "stale", "nothing"])
def test_it_is_not_asked_while_anything_is_unknown(world, rules, spoilt) -> None:
    if spoilt != "nothing":
        world.fairness(0.1)
    if spoilt == "withheld":
        world.withheld = (controls.Leaf("log", 1, "0" * 64, controls._STRANGER),)
    if spoilt == "stale":
        world.snapshot_age = timedelta(days=2)
    engines = servers(True)
    assert world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines).kind == "undecided"
    assert engines.shown == []


def test_a_waiver_excuses_no_answer(world, rules) -> None:
    world.fairness(0.1)
    world.add("waiver", "officer", {"rule": "opa", "policy": "test/1", "reason": "trial"})
    assert world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(False)).kind == "refused"
    assert world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(DOWN)).kind == "undecided"


def test_each_decision_is_asked_and_the_worst_counts(world, rules) -> None:
    world.fairness(0.1)
    for ethics, security, kind in ((True, True, "allowed"), (True, False, "refused"), (None, False, "refused"), (None, True, "undecided")):  # fmt: skip
        engines = Servers({"ethics/allow": ethics, "security/allow": security})
        verdict = world.judge(rules["fairness"], TWO, action=ALLOW, engines=engines)
        assert (verdict.kind, len(engines.shown)) == (kind, 2)
        assert [asked.id for asked in verdict.asked] == ["ethics", "security"]


def test_without_anybody_to_ask_the_named_server_is_asked(world, rules) -> None:
    world.fairness(0.1)
    nowhere = ONE.replace("127.0.0.1:8181", "127.0.0.1:1")  # tcpmux: nothing listens there
    verdict = world.judge(rules["fairness"], nowhere, action=ALLOW)
    assert verdict.kind == "undecided"
    assert "http://127.0.0.1:1 did not answer" in verdict.summary()


def test_an_action_that_no_policy_governs_asks_nobody(world, rules) -> None:
    world.fairness(0.1)
    engines = servers(True)
    verdict = world.judge(rules["fairness"], ONE, action=Action("t", "other", {}), engines=engines)
    assert (verdict.kind, engines.shown) == ("refused", [])


def test_a_policy_that_is_not_in_force_yet_asks_nobody(world, rules) -> None:
    world.fairness(0.1)
    coming = rules["fairness"] + "    effectiveOn: 2027-01-01T00:00:00Z\n"
    engines = servers(True)
    assert world.judge(coming, ONE, action=ALLOW, engines=engines).kind == "refused"
    assert engines.shown == []


def test_a_policy_that_comes_later_asks_nobody_while_another_is_in_force(world, header, rules) -> None:
    from mlseal.policy.gate import decide

    world.fairness(0.1)
    now = parse((header + rules["fairness"]).encode())
    text = header.replace("test/1", "later/1") + rules["fairness"] + "    effectiveOn: 2027-01-01T00:00:00Z\n" + ONE
    target, engines = controls.Target("target", controls.samples.digest("target")), servers(False)
    found = decide(world.source, target, ALLOW, (now, parse(text.encode())), now=world.now, engines=engines)
    assert (found.kind, found.asked, engines.shown) == ("allowed", (), [])


def test_the_document_holds_verified_facts_and_names_as_they_are_compared(world, rules) -> None:
    good = world.fairness(0.1)
    worse = world.fairness(0.14, who="second")
    stranger = world.fairness(0.0, who="stranger")
    old = world.fairness(0.12, age=timedelta(hours=3))
    world.revoke(old, "superseded")
    newer = world.fairness(0.11)
    engines = servers(True)
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines)
    assert verdict.kind == "allowed"
    (shown,) = engines.shown
    document = shown.value
    assert document["document"] == "https://mlseal.dev/opa-input/v0.1"
    assert document["action"] == {"tool": "t", "action": "a", "model": "risk-a"}
    assert document["now"] == "2026-11-23T12:00:00Z"
    assert document["policy"] == {"name": "test/1", "sha256": verdict.policies[0][1]}
    assert document["subject"]["name"] == "target"
    assert document["treeSize"] == 17
    assert list(document["requirements"]) == ["fairness"]
    assert document["requirements"]["fairness"]["predicateType"] == SHORT["fairness"]
    facts = document["requirements"]["fairness"]["facts"]
    assert [fact["evidenceId"] for fact in facts] == [f.evidence_id for f in (good, worse, newer)]
    assert stranger.evidence_id not in shown.raw.decode()
    assert facts[1]["signer"] == {"issuer": "https://oidc.example", "san": "second"}
    assert facts[1]["signedOn"] == "2026-11-23T11:00:00Z"
    assert facts[1]["predicate"]["metrics"][0]["ciHigh"] == 0.14
    assert facts[1]["subjects"] == [{"name": "target", "sha256": document["subject"]["sha256"]}]
    assert facts[1]["assurance"] == {"identity": "local", "log": "unwitnessed", "time": "local"}
    assert set(facts[1]) == set(FACT)
    assert set(document) == set(TOP)
    assert shown.raw == canonical.dumps(document)
    assert verdict.asked[0].input_sha256 == hashlib.sha256(shown.raw).hexdigest()


TOP = ["document", "policy", "now", "action", "subject", "requirements", "treeSize"]
FACT = [
    "evidenceId",
    "bundleSha256",
    "signer",
    "signedOn",
    "assurance",
    "subjects",
    "predicate",
    "revoked",
    "satisfies",
]


def test_every_member_of_the_document_is_in_the_page() -> None:
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    for name in (*TOP, *FACT, "predicateType", "facts"):
        assert f"`{name}`" in text, name
    for name in Opa.model_fields:
        assert f"`{name}`" in text, name


def test_a_document_that_is_too_large_leaves_it_undecided(world, rules) -> None:
    from mlseal.policy import document

    world.fairness(0.1)
    engines, kept = servers(True), document.LARGEST
    document.LARGEST = 1000
    try:
        verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines)
    finally:
        document.LARGEST = kept
    assert (verdict.kind, stopping(verdict), engines.shown) == ("undecided", [("opa", "undecided")], [])
    assert "too large" in verdict.summary()


def test_where_names_are_committed_the_subject_is_too(world, rules, tmp_path) -> None:
    world.fairness(0.1)
    engines = servers(True)
    os.environ["MLSEAL_NAMES"] = "committed"
    try:
        with contextlib.chdir(tmp_path):
            world.judge(rules["fairness"], ONE, action=ALLOW, engines=engines)
    finally:
        del os.environ["MLSEAL_NAMES"]
    assert engines.shown[0].value["subject"]["name"].startswith("name:hmac-sha256:")


def test_a_result_that_counts_but_does_not_satisfy_says_so(world, rules) -> None:
    fresh = rules["fairness"] + "    maxAge: 2d\n"
    world.fairness(0.1, age=timedelta(days=3))
    world.revoke(world.fairness(0.1, who="second"), "withdrawn")
    world.fairness(0.1)
    engines = servers(True)
    assert world.judge(fresh, ONE, action=ALLOW, engines=engines).kind == "allowed"
    facts = engines.shown[0].value["requirements"]["fairness"]["facts"]
    assert [(fact["satisfies"], fact["revoked"]) for fact in facts] == [
        (False, None),
        (False, "withdrawn"),
        (True, None),
    ]


def test_what_is_not_in_force_is_not_shown(world, rules) -> None:
    world.fairness(0.1)
    world.add("slsa-provenance", "producer")
    engines = servers(True)
    coming = rules["provenance"] + "    effectiveOn: 2027-01-01T00:00:00Z\n"
    assert world.judge(rules["fairness"], coming, ONE, action=ALLOW, engines=engines).kind == "allowed"
    assert list(engines.shown[0].value["requirements"]) == ["fairness"]


def test_approvals_are_shown_and_no_action_is_null(world, rules) -> None:
    world.add("human-approval", "alice", {"decision": "approve", "reviewed": []})
    engines = servers(True)
    assert world.judge(rules["approval"], ONE, engines=engines).kind == "allowed"
    document = engines.shown[0].value
    assert document["action"] is None
    assert document["requirements"]["human-approval"]["facts"][0]["signer"]["san"] == "alice"


def test_the_signed_verdict_says_who_was_asked_and_keeps_their_words_out_of_the_log(world, rules) -> None:
    world.fairness(0.1)
    answer = {"allow": False, "reasons": ["patient 0231 is in it"]}
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(answer))
    target = controls.Target("target", controls.samples.digest("target"))
    from mlseal.evidence.digest import Subject

    signed = json.loads(to_statement(verdict, [Subject(target.name, target.sha256)]).payload)["predicate"]
    assert signed["verificationResult"] == "FAILED"
    assert signed["mlseal"]["opa"] == [
        {
            "policy": "test/1",
            "id": "opa",
            "server": "http://127.0.0.1:8181",
            "decision": "mlseal/gate/allow",
            "inputSha256": verdict.asked[0].input_sha256,
            "answer": "refused",
            "revision": "r1",
            "decisionId": "4ca636c1",
        }
    ]
    assert "0231" not in json.dumps(signed)
    assert "0231" in json.dumps(verdict.to_dict())
    assert verdict.to_dict()["opa"] == signed["mlseal"]["opa"]


NO_ANSWERS = {
    "a reason against what it allows": {"allow": True, "reasons": ["patient Meier, born 1970"]},
    "a reason that is no text": {"allow": False, "reasons": [["patient Meier, born 1970"]]},
    "a member": {"patient Meier, born 1970": 1},
    "a member for the terminal": {"\x1b[2J patient Meier, born 1970": 1},
    "a member that no log can hold": {"patient Meier, born 1970 \ud800": 1},
    "a server's error": ServiceUnavailable("no answer", got="HTTP/1.1 Meier", expected="one", remedy="start it"),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_does_not_count_is_told_and_not_signed(world, rules, answer) -> None:
    from mlseal.evidence.digest import Subject

    world.fairness(0.1)
    verdict = world.judge(rules["fairness"], ONE, action=ALLOW, engines=servers(answer))
    signed = json.loads(to_statement(verdict, [Subject("target", "0" * 64)]).payload)["predicate"]["mlseal"]
    (reason,) = signed["reasons"]
    assert (signed["verdict"], reason["message"]) == ("undecided", verdict.reasons[0].message)
    assert "Meier" not in json.dumps(signed)
    assert "Meier" in verdict.summary()
    assert verdict.summary().isprintable()


def test_a_verdict_without_opa_is_as_it_was(world, rules) -> None:
    world.fairness(0.1)
    verdict = world.judge(rules["fairness"], action=ALLOW)
    assert "opa" not in verdict.to_dict()
    from mlseal.evidence.digest import Subject

    signed = json.loads(to_statement(verdict, [Subject("target", "0" * 64)]).payload)["predicate"]
    assert "opa" not in signed["mlseal"]


WRONG = {
    "plain http to elsewhere": ("http://127.0.0.1:8181", "http://opa.example:8181", "server"),
    "a name that begins like this machine": ("http://127.0.0.1:8181", "http://127.0.0.1.example", "server"),
    "another scheme": ("http://127.0.0.1:8181", "ftp://opa.example", "server"),
    "a password in the URL": ("http://127.0.0.1:8181", "https://me:secret@opa.example", "server"),
    "a query": ("http://127.0.0.1:8181", "'https://opa.example/?x=1'", "server"),
    "a way up": ("mlseal/gate/allow", "mlseal/../allow", "decision"),
    "a query in the path": ("mlseal/gate/allow", "'mlseal/gate?explain=full'", "decision"),
    "an absolute path": ("mlseal/gate/allow", "/v1/data/mlseal/gate", "decision"),
    "minutes": ("revision: r1", "timeout: 1m", "timeout"),
    "too long": ("revision: r1", "timeout: 31s", "timeout"),
    "no time": ("revision: r1", "timeout: 0s", "timeout"),
    "another machine": ("http://127.0.0.1:8181", "http://opa:8181", "server"),
    "a port beyond all": ("127.0.0.1:8181", "127.0.0.1:65536", "range"),
    "port nought": ("127.0.0.1:8181", "127.0.0.1:0", "nobody can listen"),
    "no address": ("http://127.0.0.1:8181", "'https://[1:2:3]'", "IP"),
    "a socket of this machine": ("http://127.0.0.1:8181", "http+unix://%2Frun%2Fdocker.sock", "server"),
    "a path": ("http://127.0.0.1:8181", "https://opa.example/behind", "server"),
    "a way up in the URL": ("http://127.0.0.1:8181", "https://opa.example/..", "server"),
    "a slash at the end": ("http://127.0.0.1:8181", "https://opa.example/", "server"),
    "a fragment": ("http://127.0.0.1:8181", "'https://opa.example#x'", "server"),
    "an empty query": ("http://127.0.0.1:8181", "'https://opa.example?'", "server"),
    "a user before another machine": ("http://127.0.0.1:8181", "http://127.0.0.1@opa.example", "server"),
    "a backslash": ("http://127.0.0.1:8181", "'http://127.0.0.1\\opa.example'", "server"),
    "a letter beyond ASCII": ("http://127.0.0.1:8181", "https://öpa.example", "server"),
    "digits beyond ASCII": ("http://127.0.0.1:8181", "'https://opa.example:８１'", "server"),
    "an escaped letter": ("http://127.0.0.1:8181", "https://opa%2Eexample", "server"),
    "a line break": ("http://127.0.0.1:8181", '"https://opa.example\\n"', "server"),
    "a blank": ("http://127.0.0.1:8181", "'https://opa.example '", "server"),
    "this machine in other words": ("http://127.0.0.1:8181", "http://127.1:8181", "server"),
    "this machine by IPv4 in IPv6": ("http://127.0.0.1:8181", "'http://[::ffff:127.0.0.1]'", "server"),
    "a scope in the address": ("http://127.0.0.1:8181", "'https://[fe80::1%25lo]'", "server"),
    "a port without number": ("http://127.0.0.1:8181", "'http://127.0.0.1:'", "server"),
    "no host": ("http://127.0.0.1:8181", "'https://'", "server"),
    "a bundle alone": ("revision: r1", "bundle: gate", "bundle"),
    "a token": ("revision: r1", "token: secret", "token"),
    "a taken id": ("revision: r1", "id: gap", "gap"),
    "a reserved id": ("revision: r1", "id: log", "log"),
}


@pytest.mark.parametrize(("old", "new", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_asked_is_refused_with_its_line(header, rules, old, new, said) -> None:
    assert old in ONE
    with pytest.raises(PolicyInvalid, match="line ") as caught:
        parse((header + rules["fairness"] + ONE.replace(old, new)).encode())
    assert said in str(caught.value)


def test_the_same_id_twice_and_rego_alone_are_refused(header, rules) -> None:
    twice = TWO.replace("security, server", "ethics, server")
    with pytest.raises(PolicyInvalid, match="taken"):
        parse((header + rules["fairness"] + twice).encode())
    window = (
        "freeze: [{tool: t, action: a, from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, owner: o, reason: r}]\n"
    )
    with pytest.raises(PolicyInvalid, match="which evidence by whom"):
        parse(("policy: a/1\n" + window + ONE).encode())


CHANGED = {
    "nothing": (ONE, []),
    "none": ("", [("opa.opa", "looser")]),
    "one more": (ONE + TWO.removeprefix("opa:\n").replace("ethics, s", "x, s").splitlines()[0] + "\n", None),
    "another server": (ONE.replace("8181", "8182"), [("opa.opa.server", "changed")]),
    "another rule": (ONE.replace("gate/allow", "gate/lax"), [("opa.opa.decision", "changed")]),
    "another revision": (ONE.replace("r1", "r2"), [("opa.opa.revision", "changed")]),
    "any revision": (ONE.replace("revision: r1, ", ""), [("opa.opa.revision", "looser")]),
    "another bundle": (ONE.replace("revision: r1", "revision: r1, bundle: b"), [("opa.opa.bundle", "changed")]),
    "another name": (ONE.replace("{server", "{id: rego, server"), [("opa.opa", "looser"), ("opa.rego", "stricter")]),
    "more patience": (ONE.replace("revision: r1", "revision: r1, timeout: 9s"), [("opa.opa.timeout", "noted")]),
}


@pytest.mark.parametrize(("text", "wanted"), CHANGED.values(), ids=CHANGED.keys())
def test_each_change_has_its_direction(header, rules, text, wanted) -> None:
    if wanted is None:
        text = ONE.replace("]\n", "]").rstrip("]") + ", {id: x, server: https://o.example, decision: a}]\n"
        wanted = [("opa.x", "stricter")]
    old, new = (parse((header + rules["fairness"] + engines).encode()) for engines in (ONE, text))
    assert [(d.place, d.relation) for d in differences(old, new)] == wanted


def test_naming_a_revision_is_stricter(header, rules) -> None:
    old, new = (
        parse((header + rules["fairness"] + text).encode()) for text in (ONE.replace("revision: r1, ", ""), ONE)
    )
    assert [(d.place, d.relation) for d in differences(old, new)] == [("opa.opa.revision", "stricter")]


def layer(header: str, body: str, beneath: str) -> Any:
    raw = (header + beneath).encode()
    digest = hashlib.sha256(raw).hexdigest()
    return parse(f"policy: layer/1\nextends: {{policy: test/1, sha256: {digest}}}\n{body}".encode(), find=lambda _: raw)


LOOSER = {
    "another server": ONE.replace("8181", "8182"),
    "another rule": ONE.replace("gate/allow", "gate/lax"),
    "another revision": ONE.replace("r1", "r2"),
    "any revision": ONE.replace("revision: r1, ", ""),
}


@pytest.mark.parametrize("body", LOOSER.values(), ids=LOOSER.keys())
def test_a_layer_changes_no_decision_beneath(header, rules, body) -> None:
    lines = TWO + "  - " + body.removeprefix("opa: [").rstrip("]\n") + "\n"
    with pytest.raises(PolicyInvalid, match=r"line 6: opa\.opa"):
        layer(header, lines, rules["fairness"] + ONE)


def test_a_layer_takes_over_adds_and_drops_none(header, rules) -> None:
    beneath = rules["fairness"] + ONE
    for body, ids in (("", ["opa"]), ("opa:\n", ["opa"]), (ONE, ["opa"]), (TWO, ["opa", "ethics", "security"])):
        assert [engine.id for engine in layer(header, body, beneath).engines] == ids
    assert [e.id for e in layer(header, TWO, rules["fairness"]).engines] == ["ethics", "security"]
    taken = "require: [{id: opa, predicate: fairness, by: [{issuer: i, san: x}]}]\n"
    with pytest.raises(PolicyInvalid, match="taken"):
        layer(header, taken, beneath)


def test_each_layer_asks_about_itself(world, header, rules) -> None:
    from mlseal.policy.gate import decide

    world.fairness(0.1)
    policy = layer(header, TWO, rules["fairness"] + ONE)
    target = controls.Target("target", controls.samples.digest("target"))
    answers = {"mlseal/gate/allow": True, "ethics/allow": True, "security/allow": True}
    engines = Servers(answers)
    verdict = decide(world.source, target, ALLOW, (policy,), now=world.now, engines=engines)
    assert verdict.kind == "allowed"
    asked = [(one.policy, one.id) for one in verdict.asked]
    assert asked == [("layer/1", "opa"), ("layer/1", "ethics"), ("layer/1", "security"), ("test/1", "opa")]
    assert [document.value["policy"]["name"] for document in engines.shown] == ["layer/1"] * 3 + ["test/1"]
    for decision in answers:
        engines = Servers({**answers, decision: False})
        assert decide(world.source, target, ALLOW, (policy,), now=world.now, engines=engines).kind == "refused"


def test_lint_and_explain_say_what_an_answer_is_worth(header, rules) -> None:
    pinned, free = (
        parse((header + rules["fairness"] + text).encode()) for text in (ONE, ONE.replace("revision: r1, ", ""))
    )
    assert [r for r in lint.remarks(pinned) if "opa" in r] == []
    assert [r for r in lint.remarks(free) if r.startswith("opa: opa without revision")]
    (told,) = telling.tell(free)["opa"]
    assert any("own word" in text for text in told["notProven"])
    assert any("without revision" in text for text in told["notProven"])
    assert "from revision r1" in telling.tell(pinned)["opa"][0]["asks"]


TESTS = """tests:
  - name: good
    expect: allowed
    evidence: [{predicate: fairness, by: {issuer: https://oidc.example, san: evaluator}, body: {metrics: [{name: equalizedOddsDifference, ciHigh: 0.1}]}}]
    opa: {opa: true}
  - {name: same, like: good, expect: allowed}
  - {name: no, like: good, expect: refused, rule: opa, opa: {opa: {allow: false, reasons: [because]}}}
  - {name: odd, like: good, expect: undecided, rule: opa, opa: {opa: 1}}
"""


def outcomes(tmp_path: Path, text: str, **more: Any) -> dict[str, bool]:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    policy = load(file)
    from datetime import UTC, datetime

    now = datetime(2026, 11, 23, tzinfo=UTC)
    return {o.name: o.passed for o in controls.run(policy, controls.tests_of(policy, file), now=now, **more)}


def test_controls_say_what_opa_answers_and_are_varied(tmp_path, header, rules) -> None:
    found = outcomes(tmp_path, header + rules["fairness"] + ONE + TESTS)
    assert all(found.values())
    assert {"good, opa is false", "good, opa gives no answer", "good, without fairness"} <= set(found)


def test_controls_that_do_not_say_it_are_not_allowed(tmp_path, header, rules) -> None:
    found = outcomes(tmp_path, header + rules["fairness"] + ONE + TESTS.replace("    opa: {opa: true}\n", ""))
    assert found["good"] is False


def test_controls_notice_a_decision_that_was_dropped(tmp_path, header, rules) -> None:
    found = outcomes(tmp_path, header + rules["fairness"] + TESTS)
    assert {name for name, passed in found.items() if not passed} == {"no", "odd"}


def test_controls_ask_who_is_given_instead(tmp_path, header, rules) -> None:
    text = header + rules["fairness"] + ONE + TESTS
    found = outcomes(tmp_path, text, engines=servers(True))
    assert (found["good"], found["no"], found["good, opa is false"]) == (True, False, True)
    assert outcomes(tmp_path, text, engines=servers(False))["good"] is False
