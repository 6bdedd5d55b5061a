"""A source that nobody signed counts only where the policy lists it, for these bytes, until its end."""

import pytest

from mlseal.errors import PolicyInvalid
from mlseal.policy import samples
from mlseal.policy.load import parse

SOURCE = """
  - predicate: source-verification
    by: [{issuer: https://oidc.example, san: producer}]
"""
LISTED = 'unsigned: [{name: uci-adult, sha256: "%s", owner: "the data board", until: "2026-12-31T00:00:00Z"}]\n'
OTHER = '[{name: other, owner: "the data board", until: "2026-12-31T00:00:00Z"}, {'
TARGET = samples.digest("target")


def unsigned(name="uci-adult", sha256=TARGET):
    return {"method": "none", "source": None, "unsigned": {"name": name, "sha256": sha256}, "strength": "declared"}


def listing(sha256=TARGET):
    return LISTED % sha256


def judged(world, header, body, entries=""):
    world.add("source-verification", "producer", body)
    return world.judge(SOURCE, header=header.replace("require:", entries + "require:"))


def test_signed_sources_need_no_listing(world, header):
    assert judged(world, header, {}).kind == "allowed"


def test_unsigned_sources_count_only_when_listed(world, header):
    assert judged(world, header, unsigned()).kind == "refused"


def test_a_listed_source_counts_in_whatever_letter_case(world, header):
    assert judged(world, header, unsigned("UCI-Adult"), listing()).kind == "allowed"


def test_a_listing_by_name_alone_takes_any_bytes(world, header):
    assert judged(world, header, unsigned(), listing().replace(f', sha256: "{TARGET}"', "")).kind == "allowed"


@pytest.mark.parametrize(
    ("body", "entries", "word"),
    [
        (unsigned("uci-adu1t"), listing(), "does not list"),
        (unsigned(), listing(samples.digest("other")), "other bytes"),
        (unsigned(sha256=samples.digest("other")), listing(samples.digest("other")), "names other bytes"),
        (unsigned(), listing().replace("2026-12-31", "2026-11-22"), "has ended"),
        (unsigned(), listing().replace("2026-12-31", "2026-11-22").replace("[{", OTHER), "has ended"),
    ],
    ids=["look-alike", "other digest", "other claim", "ended", "ended beside another"],
)
def test_look_alikes_other_bytes_and_ended_listings_refuse(world, header, body, entries, word):
    verdict = judged(world, header, body, entries)
    assert verdict.kind == "refused" and word in verdict.summary()


def test_a_letter_outside_ascii_cannot_even_be_stated(world):
    with pytest.raises(Exception, match="unsigned.name"):
        world.add("source-verification", "producer", unsigned("uci-\N{CYRILLIC SMALL LETTER A}dult"))


def test_a_waiver_does_not_stand_in_for_a_listing(world, header):
    world.add("source-verification", "producer", unsigned())
    body = {"policy": "test/1", "rule": "source-verification", "expires": "2026-12-31T00:00:00Z"}
    world.add("waiver", "officer", body)
    assert world.judge(SOURCE, header=header).kind == "refused"


def test_signed_evidence_satisfies_beside_an_unsigned_one(world, header):
    world.add("source-verification", "producer", unsigned())
    world.add("source-verification", "producer", {})
    assert world.judge(SOURCE, header=header).kind == "allowed"


@pytest.mark.parametrize(
    "entries",
    [
        'unsigned: [{name: "uci-*", owner: o, until: "2026-12-31T00:00:00Z"}]\n',
        'unsigned: [{name: x, until: "2026-12-31T00:00:00Z"}]\n',
        "unsigned: [{name: x, owner: o}]\n",
        'unsigned: [{name: x, owner: o, until: "2026-12-31T00:00:00Z"}, {name: X, owner: o, until: "2027-12-31T00:00:00Z"}]\n',
        'unsigned: [{name: "\N{CYRILLIC SMALL LETTER A}", owner: o, until: "2026-12-31T00:00:00Z"}]\n',
        "unsigned: []\n",
    ],
)
def test_the_list_is_strict(header, entries):
    with pytest.raises(PolicyInvalid):
        parse((header.replace("require:", entries + "require:") + SOURCE).encode())
