"""Policies as texts: what changed, what they say, and the line that an editor needs."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mlseal.cli import main
from mlseal.evidence.predicates import SHORT
from mlseal.policy import editor
from mlseal.policy.load import load
from mlseal.policy.telling import proves, tell

FILE = Path(__file__).with_name("production.yaml")


def call(*command: str):
    return CliRunner().invoke(main, ["policy", *command])


def test_diff_says_what_is_looser_and_exits_for_it(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(FILE.read_text().replace("<= 0.15", "<= 0.10").replace("maxAge: 30d", "maxAge: 60d"))
    done = call("diff", str(FILE), str(other))
    assert done.exit_code == 10
    assert "stricter require.fairness.when.gap.check" in done.output
    assert "LOOSER require.fairness.maxAge: 30d → 60d" in done.output
    assert "production-clinical/3 is looser than production-clinical/3" in done.output
    said = json.loads(call("diff", str(FILE), str(other), "--json").output)
    assert said["looser"] is True
    assert {row["relation"] for row in said["differences"]} == {"stricter", "looser"}
    assert call("diff", str(FILE), str(FILE)).exit_code == 0
    assert call("diff", str(FILE), str(FILE)).output.endswith("the same\n")
    other.write_text(FILE.read_text().replace("<= 0.15", "<= 0.10"))
    assert call("diff", str(FILE), str(other)).exit_code == 0
    other.write_text(FILE.read_text().replace("<= 0.15", "!= 0.15"))
    done = call("diff", str(FILE), str(other), "--json")
    assert (done.exit_code, json.loads(done.output)["differences"][0]["relation"]) == (10, "changed")
    assert call("diff", str(FILE), str(tmp_path / "none.yaml")).exit_code == 11


def test_explain_says_what_is_asked_of_whom_what_it_proves_and_not() -> None:
    said = call("explain", str(FILE)).output
    for text in (
        "asks: fairness evidence about the subject; every result counts, the worst decides",
        "asks: data-provenance evidence about each input 'data' of slsa-provenance",
        "enough: positives in the smallest group: p.smallestGroupPositives >= 100, no waiver",
        "asks: by 2 distinct people",
        "asks: none of them holding the role trainer",
        "of: *@hospital.example (issuer https://login.example)",
        "proves: that a listed identity signed, about these very bytes: Fairness",
        "does not prove: that what the signer says is true",
        "does not prove: no maxAge; evidence of any age counts",
        "control: EU-AI-Act:Art10",
    ):
        assert text in said, text
    told = tell(load(FILE))
    assert [row["id"] for row in told["requirements"]] == [
        "slsa-provenance",
        "data-provenance",
        "fairness",
        "human-approval",
    ]
    assert all(row["notProven"] and row["asks"] and row["by"] for row in told["requirements"])
    assert json.loads(call("explain", str(FILE), "--json").output) == told


def test_every_type_says_what_it_proves() -> None:
    for uri in SHORT.values():
        assert len(proves(uri)) > len("that a listed identity signed, about these very bytes: ") + 10


def test_schema_prints_the_line_or_the_schema(tmp_path: Path) -> None:
    assert call("schema").output == f"# yaml-language-server: $schema={editor.FILE}\n"
    out = tmp_path / "policy.schema.json"
    assert call("schema", "-o", str(out)).output == f"# yaml-language-server: $schema={out}\n"
    assert out.read_text() == editor.text() == editor.FILE.read_text()
    assert json.loads(call("schema", "--json").output) == editor.document()
    assert call("schema", "-o", str(tmp_path / "no" / "x.json")).exit_code == 11


def test_a_policy_of_a_megabyte_gets_its_size_told(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_text(FILE.read_text() + "# " + "x" * 1_000_000 + "\n")
    done = call("lint", str(big))
    assert done.exit_code == 2
    assert f"is too large; got {big.stat().st_size} bytes; expected at most 262144" in done.output
