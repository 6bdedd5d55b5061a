"""A policy that cannot be what its author meant is refused, naming the line; what is valid loads whole."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlseal.errors import PolicyInvalid, Unreadable
from mlseal.evidence.identity import EmailDomain, Identity
from mlseal.policy.load import load, load_all, parse
from mlseal.policy.names import Action, canonical, canonical_facts

FILE = Path(__file__).with_name("production.yaml")
TEXT = FILE.read_text()


def test_a_whole_policy_loads() -> None:
    policy = load(FILE)
    assert (policy.name, policy.sha256) == ("production-clinical/3", hashlib.sha256(FILE.read_bytes()).hexdigest())
    assert [r.id for r in policy.require] == ["slsa-provenance", "data-provenance", "fairness", "human-approval"]
    assert policy.require[3].by == (EmailDomain("https://login.example", "hospital.example"),)
    assert policy.revokers == (Identity("https://oidc.example", "https://oidc.example/roles/monitor"),)
    assert policy.require[2].part.max_age == timedelta(days=30)
    assert [rule.waivable for rule in policy.require[2].rules] == [True, False]


def test_an_absent_assurance_key_means_the_strictest() -> None:
    part = parse(
        TEXT.replace("assurance: {identity: verified-token, log: pinned, time: independent}\n", "").encode()
    ).part
    assert (part.assurance.identity, part.assurance.log, part.assurance.time) == (
        "verified-token",
        "witnessed",
        "independent",
    )


CHANGES = {
    "unknown key": ("maxAge: 30d", "maxage: 30d", "maxage"),
    "unknown key at the top": ("revokers:", "revoker:", "revoker"),
    "unknown predicate": ("predicate: fairness", "predicate: fairnes", "fairnes"),
    "duration without unit": ("maxAge: 30d", "maxAge: 30", "duration"),
    "duration of zero": ("maxAge: 30d", "maxAge: 0d", "duration"),
    "misspelt field": ("p.smallestGroupPositives", "p.smalestGroupPositives", "smallestGroupPositives"),
    "misspelt metric field": (".ciHigh <= 0.15", ".ciHi <= 0.15", "ciHigh"),
    "id taken twice": ("id: enough", "id: gap", "taken"),
    "reserved id": ("id: enough", "id: revocations", "taken"),
    "pattern as identity": ("san: https://oidc.example/roles/producer}]", "san: 'https://oidc.example/*'}]", "exact"),
    "san and domain": ("emailDomain: hospital.example}]", "emailDomain: hospital.example, san: x}]", "exactly one"),
    "nobody may sign": (
        "by: [{issuer: https://oidc.example, san: https://oidc.example/roles/evaluator}]",
        "by: []",
        "at least 1",
    ),
    "domain with a pattern": ("emailDomain: hospital.example}]", "emailDomain: '*.example'}]", "emailDomain"),
    "of something later": ("of: slsa-provenance", "of: fairness", "earlier"),
    "of something without inputs": ("distinct: 2", "of: data-provenance", "inputs"),
    "input without of": ("    of: slsa-provenance\n", "", "input needs of"),
    "distinct as text": ("distinct: 2", "distinct: '2'", "integer"),
    "distinct of none": ("distinct: 2", "distinct: 0", "greater"),
    "distinct on evidence": ("maxAge: 30d", "distinct: 2", "human-approval"),
    "reviewed of nothing": ("reviewed: [fairness]", "reviewed: [fairnes]", "fairnes"),
    "measured without strength": ("    input: data\n", "    input: data\n    strength: measured\n", "strength"),
    "unknown strength": ("strength: measured", "strength: proven", "measured"),
    "unknown level": ("log: pinned", "log: trusted", "pinned"),
    "alias that looks alike": ("alias: champion", "alias: ch\u0430mpion", "ASCII"),
    "bad name": ("policy: production-clinical/3", "policy: Production", "policy"),
    "condition as bool": ('check: "p.smallestGroupPositives >= 100"', "check: true", "string"),
    "observe without end": ("revocationMaxAge: 24h", "observe: {owner: me}", "until"),
    "observe with a bare date": ("revocationMaxAge: 24h", "observe: {owner: me, until: 2026-12-01}", "zone"),
    "ungoverned without owner": (
        "revocationMaxAge: 24h",
        "ungoverned: [{tool: a, action: b, until: 2027-01-01T00:00:00Z}]",
        "owner",
    ),
    "pattern that is no text": ("alias: champion", "alias: 3", "string"),
    "applies without require": ("require:", "ungoverned:", "require"),
    "test of a misspelt field": ("smallestGroupPositives: 182", "smallestGroupPositives: many", None),
}


@pytest.mark.parametrize(("old", "new", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_refused(old: str, new: str, said: str | None) -> None:
    assert old in TEXT
    if said is None:  # loads; found by `policy test`
        assert parse(TEXT.replace(old, new).encode())
        return
    with pytest.raises(PolicyInvalid, match=r"line \d+") as caught:
        parse(TEXT.replace(old, new, 1).encode(), name="p.yaml")
    assert said in str(caught.value)


def test_the_line_is_that_of_the_fault() -> None:
    line = next(i for i, text in enumerate(TEXT.splitlines(), 1) if "id: enough" in text)
    with pytest.raises(PolicyInvalid, match=rf"p.yaml line {line}:"):
        parse(TEXT.replace("p.smallestGroupPositives >= 100", "p.smallestGroupPositive >= 100").encode(), name="p.yaml")


def test_applies_and_require_belong_together() -> None:
    free = "policy: a/1\nungoverned: [{tool: a, action: b, owner: x, until: 2027-01-01T00:00:00Z}]\n"
    assert parse(free.encode()).part.require is None
    for part in ("applies: [{tool: a, action: b}]\n", "require: [{predicate: fairness, by: [{issuer: i, san: s}]}]\n"):
        with pytest.raises(PolicyInvalid, match="belong together"):
            parse((free + part).encode())


@pytest.mark.parametrize(
    "text", ["policy: a/1", "policy: a/1\nrevocationMaxAge: 1h", "policy: a/1\napplies: []\nrequire: []"]
)
def test_a_policy_that_asks_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid, match="empty|at least 1"):
        parse(text.encode())


def test_files(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        load(tmp_path / "none.yaml")
    with pytest.raises(PolicyInvalid, match="no policy"):
        load_all([tmp_path])
    (tmp_path / "a.yaml").write_text(TEXT)
    (tmp_path / "b.yml").write_text(TEXT.replace("production-clinical/3", "b/1"))
    assert [p.name for p in load_all([tmp_path])] == ["production-clinical/3", "b/1"]
    (tmp_path / "c.yaml").write_text(TEXT)
    with pytest.raises(PolicyInvalid, match="one name"):
        load_all([tmp_path])


def test_names_are_compared_canonically() -> None:
    assert canonical("Champion") == canonical("champion") == "champion"
    for name in ("ch\u0430mpion", "champion\u200b", " champion", "champion ", "", "a\nb", "\uff43hampion", "ﬁ"):
        with pytest.raises(ValueError, match="ASCII"):
            canonical(name)
    with pytest.raises(ValueError, match="alias"):
        canonical_facts(Action("mlflow", "alias", {"alias": "chаmpion"}))
    assert canonical_facts(Action("MLflow", "Alias", {"Model": "Risk-A", "tool": "x"}))["tool"] == "mlflow"


@pytest.mark.parametrize(
    ("facts", "applies"),
    [
        ({"alias": "champion", "model": "risk-a", "workspace": "default"}, True),
        ({"alias": "CHAMPION", "model": "Risk-A/b", "workspace": "x"}, True),
        ({"alias": "challenger", "model": "risk-a", "workspace": "x"}, False),
        ({"alias": "champion", "model": "xrisk-a", "workspace": "x"}, False),
        ({"alias": "champion2", "model": "risk-a", "workspace": "x"}, False),
        ({"alias": "champion"}, True),  # what is not stated cannot make an action ungoverned
        ({}, True),
    ],
)
def test_applies(facts: dict[str, str], applies: bool) -> None:
    assert load(FILE).applies(canonical_facts(Action("mlflow", "alias", facts))) is applies


def test_an_exemption_needs_every_fact_and_ends() -> None:
    raw = b"policy: x/1\nungoverned: [{tool: mlflow, action: alias, alias: scratch, owner: ml-lead, until: 2027-01-01T00:00:00Z}]"
    policy = parse(raw)
    before, after = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    stated = canonical_facts(Action("mlflow", "alias", {"alias": "Scratch"}))
    assert "ml-lead" in (policy.exempts(stated, before) or "")
    assert policy.exempts(stated, after) is None
    assert policy.exempts(canonical_facts(Action("mlflow", "alias")), before) is None
