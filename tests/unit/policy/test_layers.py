"""Layers: the narrower may only tighten. Every way to loosen is refused by name; every tightening loads and binds."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlseal.errors import Misuse, PolicyInvalid, Unreadable
from mlseal.policy import compare, layers, schema
from mlseal.policy.gate import Action, decide
from mlseal.policy.load import load, load_all, parse

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORG = """policy: org/1
applies: [{tool: t, action: a, model: "risk-*"}]
assurance: {identity: local, log: pinned, time: local}
revocationMaxAge: 24h
revokers: [{issuer: i, san: monitor}, {issuer: i, san: second}]
gate: [{issuer: i, san: gate}]
ownership: {by: [{issuer: i, san: owner}, {issuer: i, san: second}]}
dataPolicy: {by: [{issuer: i, san: owner}]}
waivers: {by: [{issuer: i, san: officer}, {issuer: i, emailDomain: board.example}, {issuer: https://a.example/issuer, role: officer}]}
unsigned: [{name: uci, owner: board, until: 2027-06-01T00:00:00Z}, {name: kept, sha256: SUM, owner: board, until: 2027-06-01T00:00:00Z}]
observe: {until: 2026-06-01T00:00:00Z, owner: x}
ungoverned: [{tool: t, action: b, model: "toy-*", workspace: "*", owner: lead, until: 2027-01-01T00:00:00Z}]
require:
  - {predicate: slsa-provenance, by: [{issuer: i, san: producer}]}
  - predicate: fairness
    by: [{issuer: i, san: evaluator}, {issuer: i, san: second}]
    strength: declared
    maxAge: 30d
    where: 'p.outcome == "need"'
    assurance: {identity: local, log: unwitnessed, time: local}
    control: [ISO:1]
    when:
      - {id: gap, message: gap, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'}
      - {id: enough, message: enough, check: "p.smallestGroupPositives >= 100", waivable: false}
  - predicate: human-approval
    by: [{issuer: i, emailDomain: lab.example}]
    distinct: 2
    notBy: [trainer]
    reviewed: [slsa-provenance]
    effectiveOn: 2026-11-01T00:00:00Z
""".replace("SUM", "a" * 64)
FAIR = "require:\n  - predicate: fairness\n    by: [{issuer: i, san: evaluator}]\n"
VOTE = "require:\n  - predicate: human-approval\n    by: [{issuer: i, emailDomain: lab.example}]\n"
FREE = "{tool: t, action: b, model: toy-1, workspace: w, owner: o, until: 2026-12-31T00:00:00Z}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def layer(body: str, beneath: str = ORG, name: str = "model/1", called: str = "org/1") -> str:
    return f"policy: {name}\nextends: {{policy: {called}, sha256: {digest(beneath)}}}\n{body}"


def among(*texts: str):
    files = {digest(text): text.encode() for text in texts}
    return files.get


LOOSER = {
    "assurance identity": ("assurance: {identity: local, log: unwitnessed, time: local}", "assurance.log"),
    "revocationMaxAge": ("revocationMaxAge: 25h", "revocationMaxAge"),
    "another revoker": ("revokers: [{issuer: i, san: monitor}, {issuer: i, san: me}]", "revokers"),
    "another gate": ("gate: [{issuer: i, san: gate}, {issuer: i, san: me}]", "gate"),
    "no gate": ("gate: null", "gate"),
    "another role owner": ("ownership: {by: [{issuer: i, san: me}]}", "ownership.by"),
    "more role owners": (
        "ownership: {by: [{issuer: i, san: owner}, {issuer: i, san: second}, {issuer: i, san: me}]}",
        "ownership.by",
    ),
    "fewer role owners": ("ownership: {by: [{issuer: i, san: owner}]}", "ownership.by"),
    "another data owner": ("dataPolicy: {by: [{issuer: i, san: me}]}", "dataPolicy.by"),
    "another waiver": ("waivers: {by: [{issuer: i, san: me}]}", "waivers.by"),
    "a waiver domain": ("waivers: {by: [{issuer: i, emailDomain: other.example}]}", "waivers.by"),
    "a sub-domain": ("waivers: {by: [{issuer: i, san: me@sub.board.example}]}", "waivers.by"),
    "another issuer's domain": ("waivers: {by: [{issuer: j, san: me@board.example}]}", "waivers.by"),
    "a role's look-alike": (
        "waivers: {by: [{issuer: https://a.example/issuer, san: https://a.example/roles/officers/x}]}",
        "waivers.by",
    ),
    "unsigned source": ("unsigned: [{name: other, owner: o, until: 2027-01-01T00:00:00Z}]", "unsigned"),
    "unsigned with other bytes": (
        f"unsigned: [{{name: kept, sha256: {'b' * 64}, owner: o, until: 2027-01-01T00:00:00Z}}]",
        "unsigned",
    ),
    "unsigned with any bytes": ("unsigned: [{name: kept, owner: o, until: 2027-01-01T00:00:00Z}]", "unsigned"),
    "unsigned for longer": ("unsigned: [{name: uci, owner: o, until: 2027-06-02T00:00:00Z}]", "unsigned"),
    "observe for longer": ("observe: {until: 2026-06-02T00:00:00Z, owner: o}", "observe"),
    "exempt another tool": (f"ungoverned: [{FREE.replace('tool: t', 'tool: u')}]", "ungoverned"),
    "exempt more models": (f"ungoverned: [{FREE.replace('toy-1', 'to*')}]", "ungoverned"),
    "exempt all models": (f"ungoverned: [{FREE.replace(' model: toy-1,', '')}]", "ungoverned"),
    "exempt what states no workspace": (f"ungoverned: [{FREE.replace(' workspace: w,', '')}]", "ungoverned"),
    "exempt for longer": (f"ungoverned: [{FREE.replace('2026-12-31', '2027-01-02')}]", "ungoverned"),
    "another signer": (FAIR.replace("evaluator", "me"), "require.fairness.by"),
    "one more signer": (FAIR.replace("}]", "}, {issuer: i, san: me}]"), "require.fairness.by"),
    "a weaker claim": (FAIR + "    strength: inferred", "require.fairness.strength"),
    "any claim": (FAIR + "    strength: null", "require.fairness.strength"),
    "older": (FAIR + "    maxAge: 31d", "require.fairness.maxAge"),
    "any age": (FAIR + "    maxAge: null", "require.fairness.maxAge"),
    "other results": (FAIR + "    where: 'p.outcome == \"use\"'", "require.fairness.where"),
    "a narrower where": (FAIR + "    where: 'p.outcome == \"need\" && p.smallestGroupPositives > 5'", "require.fairness.where"),
    "all results": (FAIR + "    where: null", "require.fairness.where"),
    "later": (VOTE + "    effectiveOn: 2026-11-02T00:00:00Z", "require.human-approval.effectiveOn"),
    "some day": (FAIR + "    effectiveOn: 2026-10-02T00:00:00Z", "require.fairness.effectiveOn"),
    "about something else": (FAIR + "    of: slsa-provenance", "require.fairness.of"),
    "another type": (FAIR.replace("fairness", "pii-scan\n    id: fairness"), "fairness is another type"),
    "a threshold": (FAIR + "    when: [{id: gap, message: m, check: 'p.metric(\"equalizedOddsDifference\").ciHigh <= 0.2'}]", "condition gap"),
    "a threshold, even a lower one": (
        FAIR + "    when: [{id: gap, message: m, check: 'p.metric(\"equalizedOddsDifference\").ciHigh <= 0.1'}]",
        "condition gap",
    ),
    "opened to waivers": (
        FAIR + "    when: [{id: enough, message: m, check: 'p.smallestGroupPositives >= 100', waivable: true}]",
        "condition enough",
    ),
    "fewer people": (VOTE + "    distinct: 1", "require.human-approval.distinct"),
    "fewer excluded": (VOTE + "    notBy: [owner]", "require.human-approval.notBy"),
    "nobody excluded": (VOTE + "    notBy: null", "require.human-approval.notBy"),
    "less read": (VOTE + "    reviewed: [fairness]", "require.human-approval.reviewed"),
    "whoever votes": (VOTE.replace("emailDomain: lab.example", "emailDomain: example.org"), "require.human-approval.by"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "place"), LOOSER.values(), ids=LOOSER.keys())
def test_a_loosening_is_refused_and_says_what_where_and_what_instead(body: str, place: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse(layer(body).encode(), name="m.yaml", find=among(ORG))
    said = str(caught.value)
    assert place in said
    assert "line " in said
    assert caught.value.got and caught.value.expected and caught.value.remedy, said
    assert caught.value.remedy.startswith("leave")


def test_requirements_assurance_is_compared_as_it_is_judged() -> None:
    strict = ORG.replace("    assurance: {identity: local, log: unwitnessed, time: local}\n", "")
    low = FAIR + "    assurance: {identity: local, log: unwitnessed, time: local}"
    with pytest.raises(PolicyInvalid, match=r"require\.fairness\.assurance\.log is looser"):
        parse(layer(low, strict).encode(), find=among(strict))


TIGHTER = {
    "nothing of its own": "",
    "assurance": "assurance: {identity: verified-token, log: witnessed, time: independent}",
    "revocationMaxAge": "revocationMaxAge: 1h",
    "fewer revokers": "revokers: [{issuer: i, san: monitor}]",
    "the same gate": "gate: [{issuer: i, san: gate}]",
    "one officer": "waivers: {by: [{issuer: i, san: officer}]}",
    "a person of the domain": "waivers: {by: [{issuer: i, san: ann@board.example}]}",
    "a person of the role": "waivers: {by: [{issuer: https://a.example/issuer, san: https://a.example/roles/officer/ann}]}",
    "nobody may waive": "waivers: null",
    "no unsigned source": "unsigned: null",
    "one unsigned source's bytes": f"unsigned: [{{name: uci, sha256: {'0' * 64}, owner: o, until: 2027-05-01T00:00:00Z}}]",
    "data policies demanded": "dataPolicy: {by: [{issuer: i, san: owner}], required: true}",
    "exempt less": f"ungoverned: [{FREE}]",
    "exempt by more facts": f"ungoverned: [{FREE.replace('model:', 'alias: x, model:')}]",
    "another window": "freeze: [{tool: t, action: a, from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, owner: o, reason: r}]",
    "other actions": 'applies: [{tool: t, action: "*"}]',
    "one signer": FAIR,
    "stronger": FAIR + "    strength: measured",
    "younger": FAIR + "    maxAge: 7d",
    "sooner": VOTE + "    effectiveOn: 2026-10-01T00:00:00Z",
    "at once": VOTE + "    effectiveOn: null",
    "another condition": FAIR + "    when: [{id: tight, message: m, check: 'p.metric(\"equalizedOddsDifference\").ciHigh <= 0.1'}]",
    "the same condition": FAIR + "    when: [{id: enough, message: other words, check: 'p.smallestGroupPositives >= 100'}]",
    "closed to waivers": FAIR + "    when: [{id: gap, message: gap, check: 'p.metric(\"equalizedOddsDifference\").ciHigh <= 0.15', waivable: false}]",
    "assured": FAIR + "    assurance: {identity: local, log: pinned, time: independent}",
    "other words": FAIR + "    remedy: ask us\n    control: [ISO:2]",
    "more people": VOTE + "    distinct: 3",
    "more excluded": VOTE + "    notBy: [trainer, dataOwner]",
    "more read": VOTE + "    reviewed: [slsa-provenance, fairness]",
    "a new requirement": "require:\n  - {predicate: pii-scan, by: [{issuer: i, san: s}], effectiveOn: 2027-01-01T00:00:00Z}",
    "a chain": "require:\n  - {predicate: data-provenance, of: slsa-provenance, by: [{issuer: i, san: s}]}",
    "read what is new": VOTE + "    reviewed: [slsa-provenance, pii-scan]\n  - {predicate: pii-scan, by: [{issuer: i, san: s}]}",
}  # fmt: skip


@pytest.mark.parametrize("body", TIGHTER.values(), ids=TIGHTER.keys())
def test_every_tightening_loads_with_all_that_is_beneath(body: str) -> None:
    policy = parse(layer(body).encode(), find=among(ORG))
    assert [one.name for one in policy.layers] == ["model/1", "org/1"]
    assert {r.id for r in policy.require} >= {"slsa-provenance", "fairness", "human-approval"}
    fairness = next(r for r in policy.require if r.id == "fairness")
    assert {rule.id for rule in fairness.rules} >= {"gap", "enough"}
    assert fairness.part.strength in {"declared", "measured"}
    assert policy.gate == policy.parent.gate
    names = [r.id for r in policy.require]
    for requirement in policy.require:
        for earlier in [requirement.part.of, *(requirement.part.reviewed or ())]:
            assert earlier is None or names.index(earlier) < names.index(requirement.id)


def test_what_is_not_taken_over() -> None:
    policy = parse(layer("").encode(), find=among(ORG))
    assert (policy.part.observe, policy.part.ungoverned, policy.part.tests) == (None, None, None)
    assert policy.waivers == policy.parent.waivers
    assert policy.part.assurance == policy.parent.part.assurance


def test_a_third_layer_tightens_the_second() -> None:
    domain = layer(FAIR + "    maxAge: 10d", name="domain/1")
    good = layer(FAIR + "    maxAge: 5d", domain, called="domain/1")
    policy = parse(good.encode(), find=among(ORG, domain))
    assert [one.name for one in policy.layers] == ["model/1", "domain/1", "org/1"]
    looser = layer(FAIR + "    maxAge: 20d", domain, called="domain/1")  # organization would let it pass
    with pytest.raises(PolicyInvalid, match=r"require\.fairness\.maxAge is looser than domain/1"):
        parse(looser.encode(), find=among(ORG, domain))


def test_the_layer_beneath_is_found_by_its_digest_only(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(layer(""))
    with pytest.raises(Unreadable, match=r"line 2: the policy that it extends is not at hand.*org/1, sha256"):
        load(tmp_path / "model.yaml")
    (tmp_path / "org.yaml").write_text(ORG + "# changed\n")
    with pytest.raises(Unreadable, match="not at hand"):
        load(tmp_path / "model.yaml")
    (tmp_path / "anything.yml").write_text(ORG)
    assert load(tmp_path / "model.yaml").parent.name == "org/1"
    with pytest.raises(Unreadable, match="another digest"):
        parse(layer("").encode(), find=lambda _: b"policy: org/1\n")
    with pytest.raises(PolicyInvalid, match="the file with that digest is org/1"):
        parse(layer("", called="other/1").encode(), find=among(ORG))


def test_all_layers_are_in_force_and_two_versions_of_one_are_not(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(layer(""))
    newer = ORG.replace("24h", "12h")
    (tmp_path / "org.yaml").write_text(ORG)
    assert [p.name for p in load_all([tmp_path / "model.yaml"])] == ["model/1", "org/1"]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "org.yaml").write_text(ORG)
    (tmp_path / "org.yaml").write_text(newer)
    assert [p.name for p in load_all([tmp_path / "model.yaml", tmp_path / "store" / "org.yaml"])] == [
        "model/1",
        "org/1",
    ]
    with pytest.raises(PolicyInvalid, match="two policies have one name; got org/1"):
        load_all([tmp_path / "model.yaml", tmp_path / "org.yaml", tmp_path / "store" / "org.yaml"])


def test_too_many_layers_and_one_of_the_same_name() -> None:
    texts, beneath, called = [ORG], ORG, "org/1"
    for number in range(layers.MAX_LAYERS + 2):
        texts.append(layer("", beneath, name=f"l/{number}", called=called))
        beneath, called = texts[-1], f"l/{number}"
    assert len(parse(texts[layers.MAX_LAYERS - 1].encode(), find=among(*texts)).layers) == layers.MAX_LAYERS
    with pytest.raises(PolicyInvalid, match="layers"):
        parse(texts[layers.MAX_LAYERS].encode(), find=among(*texts))
    with pytest.raises(PolicyInvalid, match="its own name"):
        parse(layer("", name="org/1").encode(), find=among(ORG))


def test_a_layer_must_be_a_policy_together_with_what_is_beneath() -> None:
    windows = "policy: org/1\nfreeze: [{tool: t, action: a, from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, owner: o, reason: r}]\n"
    with pytest.raises(PolicyInvalid, match="belong together"):
        parse(layer(FAIR, windows).encode(), find=among(windows))
    policy = parse(layer("applies: [{tool: t, action: a}]\n" + FAIR, windows).encode(), find=among(windows))
    assert [r.id for r in policy.require] == ["fairness"]
    for gone in ("of: slsa-provenanc", "of: fairness2"):
        with pytest.raises(PolicyInvalid, match="no earlier requirement"):
            body = f"require:\n  - {{predicate: data-provenance, {gone}, by: [{{issuer: i, san: s}}]}}"
            parse(layer(body).encode(), find=among(ORG))
    with pytest.raises(PolicyInvalid, match="taken"):
        parse(
            layer(FAIR + "    when: [{id: human-approval, message: m, check: p.smallestGroupPositives > 1}]").encode(),
            find=among(ORG),
        )


def test_every_key_of_the_language_is_compared_and_an_unknown_one_is_refused() -> None:
    """Whoever adds a key says which way it tightens, or no policy with layers loads."""
    parts = {part for part in vars(schema).values() if isinstance(part, type) and issubclass(part, schema.Part)}
    untold = parts - {schema.Part, schema.Sample, schema.Control, schema.Controls}
    assert untold == set(compare.ELSEWHERE)
    for part, keys in compare.ELSEWHERE.items():
        assert set(part.model_fields) == keys | set(compare.TABLES.get(part, ())), part
    taken = compare.REQUIREMENT.pop("max_age")
    try:
        with pytest.raises(Misuse, match="max_age cannot be compared"):
            parse(layer(FAIR + "    maxAge: 300d").encode(), find=among(ORG))
    finally:
        compare.REQUIREMENT["max_age"] = taken


# --- judged -----------------------------------------------------------------------------------------------------------

BASE = """policy: org/1
applies: [{tool: t, action: a, model: "risk-*"}]
assurance: {identity: local, log: unwitnessed, time: local}
revokers: [{issuer: https://oidc.example, san: monitor}]
waivers: {by: [{issuer: https://oidc.example, san: officer}]}
require:
"""
NARROW = "applies: [{tool: t, action: a, model: risk-7}, {tool: t, action: c}]\nrequire:\n  - predicate: fairness\n    by: [{issuer: https://oidc.example, san: evaluator}]\n    maxAge: 1d\n    strength: measured\n"


def judged(world, rules, action: Action | None, body: str = NARROW):
    from mlseal.policy import samples
    from mlseal.policy.facts import Target

    org = BASE + rules["fairness"]
    policy = parse(layer(body, org).encode(), find=among(org))
    verdict = decide(world.source, Target("x", samples.digest("target")), action, [policy], now=world.now)
    stopping = {(r.policy, r.rule) for r in verdict.reasons if r.outcome != "note"}
    return verdict, stopping


def test_several_must_all_allow_and_the_verdict_names_every_layer(world, rules) -> None:
    from datetime import timedelta

    seven, other = Action("t", "a", {"model": "risk-7"}), Action("t", "a", {"model": "risk-8"})
    body = {"strength": "measured", "metrics": [{"name": "equalizedOddsDifference", "ciHigh": 0.1}]}
    world.add("slsa-provenance", "producer")
    world.add("fairness", "evaluator", body, age=timedelta(days=3))
    verdict, stopping = judged(world, rules, seven)
    assert (verdict.kind, stopping) == ("undecided", {("model/1", "fairness")})
    assert {name: len(sha) for name, sha in verdict.policies} == {"model/1": 64, "org/1": 64}
    verdict, stopping = judged(world, rules, other)  # the layer is silent, what is beneath it is not
    assert (verdict.kind, [name for name, _ in verdict.policies]) == ("allowed", ["org/1"])
    world.add("fairness", "second", body)
    assert judged(world, rules, seven)[0].kind == "undecided", "fresh, but not by whom the layer lists"
    world.add("fairness", "evaluator", {**body, "strength": "declared"})
    assert judged(world, rules, seven)[0].kind == "undecided", "fresh or measured is not fresh and measured"
    world.add("fairness", "evaluator", {**body, "smallestGroupPositives": 9})
    assert judged(world, rules, seven)[0].kind == "allowed"
    world.add("fairness", "second", {**body, "metrics": [{"name": "equalizedOddsDifference", "ciHigh": 0.9}]})
    verdict, stopping = judged(world, rules, seven)
    assert (verdict.kind, stopping) == ("refused", {("org/1", "gap")}), "a failure that only the layer beneath counts"


def test_what_is_beneath_is_judged_for_actions_that_only_the_layer_covers(world, rules) -> None:
    verdict, stopping = judged(world, rules, Action("t", "c"))
    assert stopping == {("model/1", "fairness"), ("org/1", "fairness")}
    assert [name for name, _ in verdict.policies] == ["model/1", "org/1"]
    told = judged(world, rules, None, "")[0].summary()
    assert told.count("no fairness evidence") == 1, "said once, though two layers say it"
    assert judged(world, rules, Action("t", "d"))[1] == {("", "applies")}


def waive(world, policy: str) -> None:
    world.add("waiver", "officer", {"rule": "gap", "policy": policy, "reason": "r", "expires": "2027-01-01T00:00:00Z"})


def test_a_waiver_names_the_layer_that_states_the_rule(world, rules) -> None:
    world.add("fairness", "evaluator", {"metrics": [{"name": "equalizedOddsDifference", "ciHigh": 0.3}]})
    waive(world, "model/1")
    assert judged(world, rules, None, "")[0].kind == "refused"
    world.facts.pop()
    waive(world, "org/1")
    assert judged(world, rules, None, "")[0].kind == "allowed"
    closed = "require:\n  - predicate: fairness\n    by: [{issuer: https://oidc.example, san: evaluator}]\n    when: [{id: gap, message: gap, check: 'p.metric(\"equalizedOddsDifference\").ciHigh <= 0.15', waivable: false}]\n"
    assert judged(world, rules, None, closed)[1] == {("model/1", "gap")}
    assert judged(world, rules, None, "waivers: null\n")[1] == {("model/1", "gap")}
