"""docs/packs.md and the packs agree: which rule is evidence for which control, and of which pack."""

import re
from pathlib import Path

import pytest

from mlseal.policy.load import load, parse
from mlseal.policy.packs import filling, training

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "packs.md").read_text()
FOLDER = Path(filling.__file__).parent
NOBODY = "—"
ROW = re.compile(r"^\| `([A-Z][A-Za-z0-9-]*:[^`]+)` \|(.*)\|$", re.MULTILINE)
FRAMEWORKS = {"EU-AI-Act", "HIPAA", "ISO-42001", "NIST-AI-RMF", "SOC2"}


OTHERS, _, TABLE = PAGE.partition("## Control by control")


def rows(text=TABLE):
    return {control: [cell.strip() for cell in rest.split("|")] for control, rest in ROW.findall(text)}


def on_the_page(stage):
    """(control, rule, pack) for each rule that a row names: of the packs in brackets, of all without.

    For models of another stage of training the page has a table of its own, of what is not as in the long one.
    """
    found, column = set(), [training.RUN, *training.TRAINERS].index(stage) - 1
    other = {control: cells[column] for control, cells in rows(OTHERS).items()} if column >= 0 else {}
    for control, rules in ({control: cells[0] for control, cells in rows().items()} | other).items():
        # A bracket at the end of the list is of every rule before it that has none.
        last = re.search(r"\(([^)]*)\)$", rules)
        for name, own in re.findall(r"([a-z][a-z-]*)(?: \(([^)]*)\))?(?:, |$)", rules):
            packs = own or (last[1] if last and "(" not in rules[: last.start()] else ", ".join(filling.names()))
            found |= {(control, name, pack) for pack in packs.split(", ")}
    return found


def in_the_packs(stage):
    policies = {name: parse(filling.text_of(name, stage)[0].encode()) for name in filling.names()}
    return {(control, r.id, name) for name, policy in policies.items() for r in policy.require for control in r.control}


@pytest.mark.parametrize("stage", [training.RUN, *training.TRAINERS])
def test_the_tables_and_the_control_lists_agree_both_ways(stage):
    assert on_the_page(stage) == in_the_packs(stage)


def test_the_short_table_holds_what_differs_and_its_columns_are_the_stages():
    assert "| control | " + " | ".join(f"with `{stage}`" for stage in training.TRAINERS) + " |\n" in OTHERS
    assert [control for control, cells in rows(OTHERS).items() if {rows()[control][0]} == set(cells)] == []


def test_every_row_says_what_it_does_not_prove_and_what_is_left_to_do():
    assert len(rows()) == len(ROW.findall(TABLE))
    for control, (rules, proves, not_proven, left) in rows().items():
        assert not_proven, control
        assert left, control
        assert bool(proves) is (rules != NOBODY), control
    assert {control.partition(":")[0] for control in rows()} == FRAMEWORKS


def test_articles_nine_to_fifteen_of_the_act_each_have_a_row():
    assert {re.match(r"EU-AI-Act:Art([0-9]+)", c)[1] for c in rows() if c.startswith("EU")} == set(
        "9 10 11 12 13 14 15".split()
    )


def test_the_page_names_every_pack_and_every_setting():
    assert [name for name in filling.names() if f"| `{name}` |" not in PAGE] == []
    assert [key for key in filling.SETTINGS if f"`{key}`" not in PAGE] == []


def test_what_a_pack_tells_people_to_type_exists():
    said = {r.part.remedy for name in filling.names() for r in load(FOLDER / f"{name}.yaml").require if r.part.remedy}
    assert len(said) >= 9
    for command in said:
        stage, *options = re.fullmatch(r"mlseal run ([a-z_.]+) (.*)", command)[0].split()[2:]
        page = (ROOT / "docs" / "stages" / f"{stage}.md").read_text()
        own = {option for option in options if option.startswith("--")} - {"--role"}
        assert [option for option in own if f"| `{option}` |" not in page] == [], command
