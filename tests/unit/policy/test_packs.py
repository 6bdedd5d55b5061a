"""The ready packs: strict, tested by controls that notice every weakening, and filled without a hole."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlseal.cli import main
from mlseal.errors import Misuse
from mlseal.policy import controls
from mlseal.policy.compare import differences
from mlseal.policy.lint import remarks
from mlseal.policy.load import load, parse
from mlseal.policy.packs import filling, training
from mlseal.policy.packs.filling import People
from tests.unit.policy.test_pack_mutants import VARIANTS, Variant, document, judged, shipped

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
FOLDER = Path(filling.__file__).parent
PACKS = filling.names()
ISSUER = "https://oidc.example"
SANS = {role: f"https://ci.example/{role}" for role in filling.ROLES}
ELSEWHERE = People(ISSUER, SANS, ("@lab.example",), "https://login.example")
ANSWERS = {"outcome": "need", "attribute": "sex", "table": "test.csv", "suite": "a" * 64}

# What `policy lint` says of a pack, and why it is so; docs/packs.md tells the reader.
EXPLAINED = {
    "tests: no negative controls in the file": "they stand beside it",
    "assurance.identity: local": "an authority of one's own knows the machine's users",
    "assurance.time: local": "and its clock",
    "ungoverned: mlflow/create": "a registered version is a candidate; ends by itself",
    "training-data: no conditions": "the comparison is the content: one that fails makes no evidence",
    "measured-data: no conditions": "the same",
}


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_a_pack_is_valid_lints_as_explained_and_passes_its_controls(variant: Variant) -> None:
    policy = parse(filling.text_of(*variant)[0].encode())
    said = list(remarks(policy))
    assert [remark for remark in said if not remark.startswith(tuple(EXPLAINED))] == []
    assert [outcome.name for outcome in controls.run(policy, shipped(variant), now=NOW) if not outcome.passed] == []
    named = {control.rule for control in shipped(variant)}
    wanted = {r.id for r in policy.require} | {rule.id for r in policy.require for rule in r.rules}
    assert named >= wanted | {"revocations"}


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_each_rule_says_in_two_lines_what_it_proves_and_what_not_and_which_controls_it_serves(variant: Variant) -> None:
    before = re.findall(r"^  # (.*)\n  # (.*)\n  - predicate: ", filling.text_of(*variant)[0], re.MULTILINE)
    policy = parse(filling.text_of(*variant)[0].encode())
    assert len(before) == len(policy.require)
    assert all(a.startswith("Proves: ") and b.startswith("Does not prove: ") for a, b in before)
    assert [r.id for r in policy.require if not r.control] == []


@pytest.mark.parametrize("name", [name for name in PACKS if name != "general"])
def test_a_pack_asks_at_least_what_the_general_one_asks(name: str) -> None:
    """As strict in every key; where a condition differs, it is by a lower bound."""
    general, own = load(FOLDER / "general.yaml"), load(FOLDER / f"{name}.yaml")
    changed = {d.place: d for d in differences(general, own) if d.relation in {"looser", "changed"}}
    bounds = ("fairness.when.gap", "membership.when.few-members", "evasion.when.few-moved")
    assert set(changed) <= {f"require.{bound}.check" for bound in bounds}
    for found in changed.values():
        asked, there = (float(str(text).rpartition("<=")[2]) for text in (found.after, found.before))
        assert asked < there


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v[1] != training.RUN], ids="-".join)
def test_for_another_stage_of_training_only_the_training_differs(variant: Variant) -> None:
    """Nothing is lost but the scan of code, which is mlseal's own, and what followed provenance follows the new rule."""
    name, stage = variant
    predicate = {"training.dp": "dp-training", "training.federated": "federated-training"}[stage]
    usual, own = document((name, training.RUN)), document(variant)
    assert {key: usual[key] for key in usual if key != "require"} == {key: own[key] for key in own if key != "require"}
    there = {part.get("id", part["predicate"]): part for part in usual["require"]}
    here = {part.get("id", part["predicate"]): part for part in own["require"]}
    assert (there.keys() - here.keys(), here.keys() - there.keys()) == ({"slsa-provenance", "code-scan"}, {predicate})
    before, after = there["slsa-provenance"], here[predicate]
    assert (after["by"], after["maxAge"]) == (before["by"], before["maxAge"])
    assert set(before["control"]) <= set(after["control"])
    assert before["when"][1:] == after["when"][len(after["when"]) - len(before["when"]) + 1 :]
    for part in there.keys() & here.keys():
        moved = there[part].get("of") == "slsa-provenance"
        wanted = {key: there[part][key] for key in there[part] if not (moved and key in {"of", "input"})}
        assert judged(here[part]) == judged({**wanted, "of": predicate} if moved else wanted)
    assert "code-scan" not in "".join(filling.text_of(*variant)).replace("is scanned either", "")
    assert f"--provenance {predicate} " in here["model-file"]["remedy"]


def test_an_unset_pack_permits_nothing_and_a_set_one_what_it_says() -> None:
    open_ = filling.fill("credit", People.of_authority("lab.example"), {}, now=NOW)
    assert open_.unset == ("outcome", "attribute", "table", "suite")
    answers = ANSWERS | {"outcome": "yes", "table": "1.0"}  # texts, also where YAML would see a truth or a number
    set_ = filling.fill("credit", People.of_authority("lab.example"), answers, now=NOW)
    assert set_.unset == ()
    assert "SET-" not in set_.text.partition("require:")[2].replace("no evidence says SET-…", "")
    # The same imagined evidence, about the question that was set: allowed by the one, stopped by the other.
    good = next(o for o in controls.run(set_.policy, set_.tests, now=NOW) if o.name == "good")
    assert good.verdict.kind == "allowed"
    assert (
        next(o for o in controls.run(open_.policy, set_.tests, now=NOW) if o.name == "good").verdict.kind != "allowed"
    )


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
@pytest.mark.parametrize("people", [People.of_authority("lab.example"), ELSEWHERE], ids=["own", "elsewhere"])
def test_nobody_imagined_stays_in_a_filled_pack(variant: Variant, people: People) -> None:
    (name, stage), answers = variant, ANSWERS | {"model": "risk-*", "name": "risk/2"}
    made = filling.substituted(name, people, answers, now=NOW, trained_by=stage)
    policy = parse(made[0].encode())
    assert "authority.example" not in made[0] + made[1]
    assert policy.name == "risk/2"
    assert 'model: "risk-*"' in made[0]
    assert 'model: "*"' not in made[0]
    assert "2000-01-01" not in made[0]
    assert policy.part.assurance.log == ("pinned" if people.authority else "witnessed")


def test_people_are_named_or_nothing_is_made() -> None:
    two = People(ISSUER, SANS, ("ana@lab.example", "ben@lab.example"))
    assert 'san: "ben@lab.example"' in filling.fill("hr", two, {}, now=NOW).text
    for people, words in (
        (People(ISSUER, SANS), "nobody may approve"),
        (People(ISSUER, {**SANS, "gate": SANS["producer"]}, ("@lab.example",)), "would not stop"),
        (People(ISSUER, {**SANS, "evaluator": SANS["producer"]}, ("@lab.example",)), "would not stop"),
        (People(ISSUER, {"producer": "x"}, ("@lab.example",)), "nobody is named for the role evaluator"),
        (People(ISSUER, SANS, ("ana@lab.example",)), "would not stop"),
        (People(ISSUER, SANS, (SANS["evaluator"], "ben@lab.example")), "would not stop"),
    ):
        with pytest.raises(Misuse, match=words):
            filling.fill("hr", people, {}, now=NOW)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outcome", 'need" || "a" == "a'),
        ("attribute", "sex' or"),
        ("table", "a\n  - predicate: x"),
        ("table", "x" * 101),
        ("suite", "A" * 64),
        ("model", 'a", alias: "b'),
        ("name", "Upper/1"),
        ("policy", "x"),
    ],
)
def test_a_value_that_could_say_more_than_itself_is_refused(key: str, value: str) -> None:
    with pytest.raises(Misuse):
        filling.fill("general", People.of_authority("lab.example"), {key: value}, now=NOW)


FLAGS = [f"--identity={role}={san}" for role, san in SANS.items()] + ["--identity=reviewer=@lab.example"]


def test_the_command_writes_both_files_or_none(tmp_path: Path) -> None:
    file = tmp_path / "org.yaml"
    call = ["policy", "new", "general", "--issuer", ISSUER, *FLAGS, "-o", str(file), "--json"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said["sha256"] == load(file).sha256
    assert said["unset"] == ["outcome", "attribute", "table", "suite"]
    assert CliRunner().invoke(main, ["policy", "test", str(file)]).exit_code == 0
    before = file.read_bytes()
    assert CliRunner().invoke(main, call).exit_code == 2
    assert file.read_bytes() == before
    private = tmp_path / "private.yaml"
    done = CliRunner().invoke(main, [*call[:-3], "-o", str(private), "--trained-by", "training.dp", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["policy"] == load(private).name == "pack-general-training.dp/1"
    done = CliRunner().invoke(main, [*call[:-3], "-o", str(tmp_path / "x.yaml"), "--trained-by", "training.other"])
    assert done.exit_code == 2
    assert "expected training.run, training.dp, training.federated" in done.output
    assert not (tmp_path / "x.yaml").exists()
    for wrong in ("none", "general"):
        other = tmp_path / "other.yaml"
        flags = FLAGS[1:] if wrong == "general" else FLAGS
        assert (
            CliRunner().invoke(main, ["policy", "new", wrong, "--issuer", ISSUER, *flags, "-o", str(other)]).exit_code
            == 2
        )
        assert not other.exists()
        assert not other.with_suffix(".tests").exists()
    gone = tmp_path / "gone" / "a.yaml"
    assert CliRunner().invoke(main, [*call[:-2], str(gone)]).exit_code == 11
    file.unlink()  # tests that are there already are not overwritten either
    assert CliRunner().invoke(main, call).exit_code == 2
    assert not file.exists()


def test_the_list_names_every_pack_and_its_frameworks() -> None:
    done = CliRunner().invoke(main, ["policy", "new", "--list", "--json"])
    rows = {row["pack"]: row for row in json.loads(done.output)["packs"]}
    assert set(rows) == {"clinical", "credit", "general", "hr"}
    assert any(control.startswith("HIPAA:") for control in rows["clinical"]["control"])
    assert "  13 rules; refers to EU-AI-Act" in CliRunner().invoke(main, ["policy", "new", "--list"]).output
