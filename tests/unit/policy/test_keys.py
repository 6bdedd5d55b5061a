"""Keys in policies: where they may stand, for how long they count, how much they assure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlseal.errors import PolicyInvalid
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import KEY_ISSUER, Identity
from mlseal.evidence.keyholder import KeyHolder
from mlseal.policy import lint, samples
from mlseal.policy.controls import run
from mlseal.policy.load import parse
from mlseal.policy.ordering import fewer, scale
from mlseal.policy.schema import Assurance, Signer

KEY, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def requirement(by: str, kind: str = "slsa-provenance", more: str = "") -> str:
    return f"\n  - {{predicate: {kind}, by: [{by}]{more}}}\n"


def signed(world: Any, fingerprint: str = KEY, *, age: timedelta = timedelta(hours=1), **more: Any) -> Any:
    level = Assurance.model_validate({"identity": "key", "log": "unwitnessed", "time": "local"})
    who = Identity(KEY_ISSUER, fingerprint)
    salt = str(len(world.facts))
    fact = samples.make("slsa-provenance", {}, who, world.now - age, now=world.now, assurance=level, salt=salt, **more)
    world.facts.append(fact)
    return fact


def outcome(verdict: Any) -> str:
    return str(verdict.kind)


def reasons(verdict: Any) -> list[str]:
    return [reason.message for reason in verdict.reasons if reason.outcome != "note"]


def test_evidence_by_a_listed_key_counts(world):
    signed(world)
    assert outcome(world.judge(requirement(f'{{key: "{KEY}"}}'))) == "allowed"


def test_another_key_is_a_stranger(world):
    signed(world, OTHER)
    verdict = world.judge(requirement(f'{{key: "{KEY}"}}'))
    assert outcome(verdict) == "refused"
    assert "signed by nobody who may" in reasons(verdict)[0]
    assert "--key URI" in verdict.reasons[0].remedy


@pytest.mark.parametrize(
    ("since", "until", "allowed"),
    [
        (None, None, True),
        (-3 * DAY, None, True),
        (-2 * DAY, -1 * DAY, True),
        (-1 * DAY, None, False),
        (None, -2 * DAY, False),
        (None, timedelta(0), True),
    ],
)
def test_a_key_counts_for_its_time_by_verified_time(world, since, until, allowed):
    signed(world, age=2 * DAY)
    term = "".join(
        f', {key}: "{rfc3339(world.now + bound)}"' for key, bound in (("from", since), ("until", until)) if bound is not None
    )  # fmt: skip
    verdict = world.judge(requirement(f'{{key: "{KEY}"{term}}}'))
    assert (outcome(verdict) == "allowed") is allowed, reasons(verdict)


def test_a_rotated_key_counts_until_then_and_its_successor_from_then_on(world):
    then = rfc3339(world.now - 5 * DAY)
    both = f'{{key: "{KEY}", until: "{then}"}}, {{key: "{OTHER}", from: "{then}"}}'
    signed(world, OTHER, age=6 * DAY)
    assert outcome(world.judge(requirement(both))) == "refused"
    signed(world, KEY, age=6 * DAY)
    assert outcome(world.judge(requirement(both))) == "allowed"
    world.facts.clear()
    signed(world, KEY, age=4 * DAY)
    assert outcome(world.judge(requirement(both))) == "refused"
    signed(world, OTHER, age=4 * DAY)
    assert outcome(world.judge(requirement(both))) == "allowed"


def test_an_absent_assurance_refuses_keys_and_key_lies_between(world, header):
    signed(world)
    wanted = requirement(f'{{key: "{KEY}"}}')
    for words, allowed in (
        ("assurance: {log: unwitnessed, time: local}", False),
        ("assurance: {identity: verified-token, log: unwitnessed, time: local}", False),
        ("assurance: {identity: key, log: unwitnessed, time: local}", True),
    ):
        text = header.replace("assurance: {identity: local, log: unwitnessed, time: local}", words)
        assert text != header
        verdict = world.judge(wanted, header=text)
        assert (outcome(verdict) == "allowed") is allowed, words
    world.facts.clear()
    world.add("slsa-provenance", "producer")
    text = header.replace("identity: local", "identity: key")
    assert (
        outcome(world.judge(requirement("{issuer: https://oidc.example, san: producer}"), header=text)) == "undecided"
    )


PLACES = {
    "revokers": ("revokers: [{issuer: https://oidc.example, san: monitor}]", 'revokers: [{key: "KEY"}]'),
    "gate": ("gate: [{issuer: https://oidc.example, san: gate}]", 'gate: [{key: "KEY"}]'),
    "ownership": ("{by: [{issuer: https://oidc.example, san: owner}]}", '{by: [{key: "KEY"}]}'),
    "waivers": ("{by: [{issuer: https://oidc.example, san: officer}]}", '{by: [{key: "KEY"}]}'),
    "dataPolicy": ("require:", 'dataPolicy: {by: [{key: "KEY"}]}\nrequire:'),
}


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_key_stands_nowhere_for_somebody_who_decides(header, place):
    before, after = PLACES[place]
    assert before in header
    with pytest.raises(PolicyInvalid, match="decides nothing"):
        parse((header.replace(before, after.replace("KEY", KEY)) + requirement(f'{{key: "{KEY}"}}')).encode())


@pytest.mark.parametrize("kind", ["human-approval", "ownership", "data-policy"])
def test_a_key_makes_no_decision(header, kind):
    with pytest.raises(PolicyInvalid, match="decides nothing"):
        parse((header + requirement(f'{{key: "{KEY}"}}', kind)).encode())


@pytest.mark.parametrize(
    "by",
    [
        "{key: SHA256:x}",
        '{key: "sha256:' + "A" * 64 + '"}',
        '{key: "sha256:' + "a" * 63 + '"}',
        f'{{key: "{KEY}", issuer: https://x.example}}',
        f'{{key: "{KEY}", san: x}}',
        f'{{key: "{KEY}", role: x}}',
        f'{{key: "{KEY}", until: tomorrow}}',
        f'{{key: "{KEY}", from: "2026-02-01T00:00:00Z", until: "2026-02-01T00:00:00Z"}}',
        f"{{issuer: {KEY_ISSUER}, san: '{KEY}'}}",
        "{issuer: https://x.example, san: x, until: '2026-02-01T00:00:00Z'}",
        "{issuer: https://x.example, san: x, from: '2026-02-01T00:00:00Z'}",
        "{san: x}",
        "{role: x}",
        "{}",
    ],
)
def test_what_is_no_way_to_name_a_key(header, by):
    with pytest.raises(PolicyInvalid):
        parse((header + requirement(by)).encode())


def moment(day: int) -> datetime:
    return datetime.fromisoformat(f"2026-02-{day:02}T00:00:00+00:00")


def key(since: int | None = None, until: int | None = None, fingerprint: str = KEY) -> Signer:
    made = {"key": fingerprint}
    made |= {"from": rfc3339(moment(since))} if since else {}
    made |= {"until": rfc3339(moment(until))} if until else {}
    return Signer.model_validate(made)


@pytest.mark.parametrize(
    ("before", "after", "relation"),
    [
        (key(), key(), "same"),
        (key(), key(3), "stricter"),
        (key(), key(None, 9), "stricter"),
        (key(3, 9), key(4, 8), "stricter"),
        (key(3, 9), key(3, 10), "looser"),
        (key(3, 9), key(2, 9), "looser"),
        (key(3, 9), key(), "looser"),
        (key(3, 9), key(4, 10), "changed"),
        (key(), key(fingerprint=OTHER), "changed"),
    ],
)
def test_a_layer_may_shorten_the_time_of_a_key_only(before, after, relation):
    assert fewer([before], [after]) == relation
    assert fewer([before], [after, after]) == relation


def test_asking_for_a_key_lies_between_a_local_role_and_a_verified_token():
    order = scale("identity")
    assert [order(one, "key") for one in ("local", "key", "verified-token")] == ["stricter", "same", "looser"]


def test_lint_says_what_a_key_leaves_open(header):
    def said(by: str, head: str = header) -> str:
        return "\n".join(lint.remarks(parse((head + requirement(by)).encode())))

    assert "has no until" in said(f'{{key: "{KEY}"}}')
    assert "has no until" not in said(f'{{key: "{KEY}", until: "2027-01-01T00:00:00Z"}}')
    strict = header.replace("identity: local", "identity: verified-token")
    assert "asks for verified-token" in said(f'{{key: "{KEY}"}}', strict)
    assert "asks for verified-token" not in said(f'{{key: "{KEY}"}}')
    assert "key" not in said("{issuer: https://oidc.example, san: producer}")


def test_controls_imagine_keys(header):
    text = header.replace("identity: local", "identity: key") + requirement(
        f'{{key: "{KEY}", until: "2099-01-01T00:00:00Z"}}'
    )
    tests = """
tests:
  - {name: good, expect: allowed, evidence: [{predicate: slsa-provenance, by: {key: "KEY"}}]}
  - {name: other, expect: refused, rule: slsa-provenance, like: good, signer: {slsa-provenance: {key: "OTHER"}}}
"""
    policy = parse((text + tests.replace("KEY", KEY).replace("OTHER", OTHER)).encode())
    outcomes = list(run(policy, tuple(policy.part.tests), now=NOW))
    assert len(outcomes) > 2
    assert all(outcome.passed for outcome in outcomes), outcomes


def test_a_holder_is_named_with_its_time():
    assert str(KeyHolder(KEY)) == f"key {KEY}"
    assert (
        str(KeyHolder(KEY, moment(3), moment(9))) == f"key {KEY} from 2026-02-03T00:00:00Z until 2026-02-09T00:00:00Z"
    )
    assert not KeyHolder(KEY).matches(Identity("https://x.example", KEY))
