"""Foreign reports: what they say is signed as somebody's word, what they do not say is no pass."""

import json
import secrets

import pytest

from mlseal.errors import Misuse
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.policy import gate
from mlseal.policy.load import parse


@pytest.fixture
def about(tmp_path):
    path = tmp_path / "service.py"
    path.write_text(f"x = '{secrets.token_hex(8)}'\n")
    return path


@pytest.fixture
def take(perform, about, tmp_path):
    def go(document, form):
        report = tmp_path / "report"
        report.write_text(document if isinstance(document, str) else json.dumps(document))
        return perform("testing.report", report=report, about=about, format=form).predicate

    return go


def sarif(*levels, **run):
    results = [{"level": level, "message": {"text": "m"}} for level in levels]
    return {
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "zap", "version": "2"}}, "results": results, **run}],
    }


def bom(*ratings, **more):
    found = [{"id": f"CVE-2026-{i}", **({"ratings": [{"severity": r}]} if r else {})} for i, r in enumerate(ratings)]
    tools = {"components": [{"type": "application", "name": "grype", "version": "0.9"}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"tools": tools},
        "vulnerabilities": found,
    } | more


@pytest.mark.parametrize(
    ("document", "form", "result", "failed"),
    [
        (sarif(), "sarif", "PASSED", []),
        (sarif("note"), "sarif", "PASSED", []),
        (sarif("warning"), "sarif", "WARNED", []),
        (sarif("error", "note"), "sarif", "FAILED", ["findings:error"]),
        (sarif(invocations=[{"executionSuccessful": False}]), "sarif", "FAILED", ["did-not-run"]),
        (sarif(results=None), "sarif", "FAILED", ["did-not-run"]),
        (bom(), "cyclonedx", "PASSED", []),
        (bom("low", "medium"), "cyclonedx", "WARNED", []),
        (bom("low", "high"), "cyclonedx", "FAILED", ["CVE-2026-1"]),
        (bom(None), "cyclonedx", "FAILED", ["CVE-2026-0"]),
        (bom("made up"), "cyclonedx", "FAILED", ["CVE-2026-0"]),
        ({"tool": {"name": "suite"}, "passed": ["a"]}, "json", "PASSED", []),
        ({"tool": {"name": "suite"}, "passed": ["a"], "failed": ["b c\n<script>"]}, "json", "FAILED", ["other"]),
    ],
)
def test_the_worst_of_what_it_says_is_the_result(take, document, form, result, failed):
    said = take(document, form)
    assert (said["result"], said["failedTests"]) == (result, failed)


def test_report_tool_and_strength_stand_in_the_evidence(take, tmp_path):
    said = take(sarif("error"), "sarif")
    taken, tool, harness = said["configuration"]
    assert taken["digest"] == {"sha256": measure(tmp_path / "report").sha256}
    assert (tool["name"], tool["annotations"]) == ("tool:zap", {"version": "2"})
    assert harness["annotations"]["strength"] == "declared"


def test_a_long_list_is_counted(take):
    said = take({"tool": {"name": "suite"}, "failed": [f"t{i:03}" for i in range(150)]}, "json")
    assert len(said["failedTests"]) == 101 and said["failedTests"][-1] == "50 more"


@pytest.mark.parametrize(
    ("document", "form"),
    [
        ("", "sarif"),
        ("{", "json"),
        ({"tool": {"name": "suite"}}, "json"),
        ({"tool": {"name": "suite"}, "passed": [1]}, "json"),
        ({"tool": {"name": "suite"}, "passed": ["a"], "skipped": ["b"]}, "json"),
        ({"passed": ["a"]}, "json"),
        ({"tool": {"name": "\n"}, "passed": ["a"]}, "json"),
        (bom(vulnerabilities=None), "cyclonedx"),
        (bom(metadata={}), "cyclonedx"),
        (bom(bomFormat="SPDX"), "cyclonedx"),
        (sarif(), "cyclonedx"),
        (bom(), "sarif"),
        (sarif(), "spdx"),
    ],
)
def test_what_says_nothing_is_misuse_and_not_a_pass(take, document, form):
    if document == "":
        document = " "
    with pytest.raises(Misuse):
        take(document, form)


WANTED = ("declared", "measured")
POLICY = """policy: p/1
applies: [{{tool: "*", action: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
require:
  - predicate: slsa-provenance
    by: [{{issuer: "{issuer}", san: "{producer}"}}]
  - predicate: test-result
    strength: {strength}
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
    when: [{{id: passed, message: "scan", check: 'p.result == "PASSED"'}}]
"""


def test_a_policy_that_wants_what_was_measured_refuses_it(authority, about, program, tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(sarif()))
    (tmp_path / "data").write_text(secrets.token_hex(8))
    script = program("import pathlib, sys; pathlib.Path(sys.argv[4]).write_text(pathlib.Path(sys.argv[2]).read_text())")
    store = ("--store", str(authority.store.root))
    model = tmp_path / "model"
    trained = authority.call(
        "run", "training.run", "--script", str(script), "--data", str(tmp_path / "data"), "--out", str(model), *store
    )
    assert trained.returncode == 0, trained.stderr
    done = authority.call("import", str(report), "--format", "sarif", "--about", str(model), *store)
    assert done.returncode == 0, done.stderr

    def judged(strength):
        names = {"producer": authority.san("producer"), "evaluator": authority.san("evaluator")}
        text = POLICY.format(issuer=authority.issuer, strength=strength, **names)
        return gate.judge(measure(model), None, [parse(text.encode())], Archive.open(authority.trust, authority.store))

    # What else is missing here, a snapshot of revocations, is the same for both.
    said = {strength: [r for r in judged(strength).reasons if r.rule.startswith("test-result")] for strength in WANTED}
    assert not said["declared"]
    (refused,) = said["measured"]
    assert "declared" in f"{refused.message} {refused.got}", refused
