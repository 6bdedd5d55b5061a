"""The card of a model that was really attacked, as a person sees it in a browser: whole, quiet, readable."""

import json

import pytest

from mlseal.stages import runner
from tests import browser
from tests.stages_cases import World, governance_fairness, testing_evasion, testing_membership

DESK, PHONE, PAPER = 1100, 390, 700
"""Widths in CSS pixels; paper is A4 within its margins."""
VIEWS = ((DESK, "light", "screen"), (PHONE, "light", "screen"), (DESK, "dark", "screen"), (PAPER, "light", "print"))
AA = 4.5
"""Contrast that WCAG 2.1 AA asks of a text."""


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("pictures")) as one:
        yield one


@pytest.fixture
def attacked(authority, tmp_path):
    """Fairness, evasion and membership of one model, by the stages themselves; its card and what they said."""
    said = {}
    model = testing_evasion.model_of(World(_made(tmp_path / "model"), "", authority))

    def run(name, given):
        arguments = {key: str(value) for key, value in {**given, "model": model}.items()}
        made = runner.run(name, arguments, signer=authority.signer("evaluator"), store=authority.store, quiet=True)
        return dict(made.statement.predicate)

    for case, name, more in (
        (governance_fairness, "governance.fairness", {}),
        (testing_evasion, "testing.evasion", {}),
        (testing_membership, "testing.membership", {"minimum_rows": 5000}),
    ):
        said[name] = run(name, case.make(World(_made(tmp_path / name), "row", authority)) | more)
    signers = {authority.san("evaluator"): authority.issuer}
    stated = tmp_path / "stated.json"
    stated.write_text(json.dumps({"uses": ["outreach, with a nurse who decides"], "limitations": ["adults only"]}))
    out = tmp_path / "card"
    run("governance.model_card", {"out": out, "signers": json.dumps(signers), "name": "risk", "stated": stated})
    return out, said


def _made(folder):
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_a_card_of_an_attacked_model_is_whole_quiet_and_readable(attacked, window):
    out, said = attacked
    page = (out / "model_card.html").as_uri()
    for width, scheme, media in VIEWS:
        seen = window.ask("look", url=page, width=width, scheme=scheme, media=media)
        assert (seen["requests"], seen["ran"], seen["scripts"]) == ([], [], 0)
        assert seen["overflow"] <= 0 and seen["hidden"] == []
        assert seen["least"] >= AA
        (plot,) = seen["plots"]
        assert plot["width"] > 300 and plot["height"] > 100 and plot["marks"] > 20
        assert seen["headings"][0] == "risk" and seen["headings"][-1] == "Not proven"
        assert all(text in seen["text"] for one in said.values() for text in one["notProven"])
    figures_stand_in_bill_and_page(out, said, seen["text"])


def figures_stand_in_bill_and_page(out, said, text):
    """Each with its interval; every attack by itself; what had not enough to go by says so, in both."""
    card = json.loads((out / "mlbom.cdx.json").read_text())["metadata"]["component"]["modelCard"]
    billed = {
        (one["type"], one["slice"]): (one["value"], *one["confidenceInterval"].values())
        for one in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    for name in ("testing.evasion", "testing.membership"):
        for metric in said[name]["metrics"]:
            figure = tuple(str(metric[key]) for key in ("value", "ciLow", "ciHigh"))
            assert billed[metric["name"], f"{said[name]['kind']}, {metric['n']} rows"] == figure
        for attack in (*said[name]["attacks"], *said[name]["controls"]):
            assert attack["name"] in text
            assert all(f"{metric['ciLow']} to {metric['ciHigh']}" in text for metric in attack["metrics"])
    assert (said["testing.evasion"]["sufficient"], said["testing.membership"]["sufficient"]) == (True, False)
    weak = "figures of security-evaluation (membership-inference)"
    assert [weak in one for one in card["considerations"]["technicalLimitations"]].count(True) == 1 and weak in text
    assert text.count("decides nothing") == len(said["testing.membership"]["metrics"])


def test_a_page_with_faults_is_seen_to_have_them(tmp_path, window):
    """What finds nothing on a card finds each of these."""
    page = tmp_path / "page.html"
    page.write_text(
        """<!doctype html><body style="margin: 0"><h1>x</h1><svg style="display: none"></svg>
        <p style="color: #aaa">pale</p><div style="overflow: auto"><p style="width: 3000px">long, but scrolls</p></div>
        <p style="position: absolute; left: -900px; width: 90px">outside</p><p style="width: 2000px">broad</p>
        <img src="http://127.0.0.1:9/x.png"><script>console.log("ran")</script><p onclick="x()">y</p>"""
    )
    seen = window.ask("look", url=page.as_uri(), width=DESK)
    assert seen["requests"] == ["http://127.0.0.1:9/x.png"] and "ran" in seen["ran"] and seen["scripts"] == 2
    assert seen["plots"] == [] and seen["overflow"] > 800 and seen["least"] < AA
    assert seen["hidden"] == ["outside", "broad"]
    printed = window.ask("look", url=page.as_uri(), width=PAPER, media="print")
    assert "long, but scrolls" in printed["hidden"], "paper does not scroll"
