"""A program is scanned: each part fires and stays silent, nothing is passed over, and no secret comes out."""

import hashlib
import json

import pytest

from mlseal.errors import Misuse, Unreadable
from mlseal.stages.testing import sarif
from tests import sarif_schema
from tests.unit.stages.test_dependencies import OTHER, PYYAML

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"  # the shape of a key, in two parts: this file shall pass its own scan
TOKEN = "ghp_" + "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"
CLEAN = "def add(a, b):\n    return a + b\n"
SHELL = "import subprocess\n\n\ndef run(x):\n    subprocess.call(x, shell=True)  # nosec\n"


@pytest.fixture
def scan(perform, tmp_path):
    """Writes files (name → text or bytes), scans them; returns the predicate, the report and what was shown."""

    def go(files, **arguments):
        code = tmp_path / f"code-{len(list(tmp_path.iterdir()))}"
        for name, content in files.items():
            path = code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        report, shown = tmp_path / f"{code.name}.sarif", []
        said = perform("testing.code", code=code, report=report, log=shown.append, **arguments)
        return said.predicate, report, "\n".join(shown)

    return go


def facts(said, part):
    (found,) = [entry["annotations"] for entry in said["configuration"] if entry.get("name") == part]
    return found


def test_clean_code_passes_both_parts(scan):
    said, report, _ = scan({"a.py": CLEAN, "b/notes.md": "nothing here\n"})
    assert (said["result"], said["passedTests"], said["failedTests"]) == ("PASSED", ["code", "secrets"], [])
    assert facts(said, "code")["scanned"] == 1 and facts(said, "secrets")["scanned"] == 2
    (digest,) = [entry["digest"]["sha256"] for entry in said["configuration"] if entry["name"] == "report"]
    assert digest == hashlib.sha256(report.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["a.py", ".git/hooks/a.py", "tests/a.pyw", "tool"])
def test_a_dangerous_call_fails_wherever_it_hides(scan, name):
    said, report, shown = scan({name: ("" if "." in name else "#!/usr/bin/env python3\n") + SHELL, "ok.py": CLEAN})
    assert said["failedTests"] == ["code"] and said["passedTests"] == ["secrets"]
    assert facts(said, "code")["high"] == 1
    (high,) = [r for r in json.loads(report.read_text())["runs"][0]["results"] if r["level"] == "error"]
    assert high["ruleId"] == "B602" and f"{name}:" in shown


def test_the_severity_that_fails_is_the_callers(scan):
    low = {"a.py": "import subprocess\n"}
    assert scan(low)[0]["passedTests"] == ["code", "secrets"]
    assert scan(low, severity="low")[0]["failedTests"] == ["code"]
    with pytest.raises(Misuse, match="no such severity"):
        scan(low, severity="critical")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.py", f"x = 1\r\nkey = '{KEY}'  # pragma: allowlist secret\r\n", 2),
        ("deep/.env", f"\nAWS={KEY}\n", 2),
        ("poetry.lock", f"a\nb\ntoken = '{TOKEN}'\n", 3),
        ("note.ipynb", json.dumps({"cells": [{"source": [f"k = '{TOKEN}'"]}]}), 1),
        ("picture.png", b"\x89PNG\xff\xfe" + KEY.encode() + b"\x00\xff", None),
        ("latin.txt", "caf\xe9\n".encode("latin-1") + f"t = '{TOKEN}'\n".encode(), 2),
    ],
)
def test_a_secret_is_counted_and_placed_and_never_shown(scan, name, content, line):
    said, report, shown = scan({name: content, "ok.py": CLEAN}, parts="secrets")
    assert said["failedTests"] == ["secrets"] and facts(said, "secrets")["found"] >= 1
    results = json.loads(report.read_text())["runs"][0]["results"]
    assert line is None or line in {r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in results}
    everything = json.dumps(said) + report.read_text() + shown
    for secret in (KEY, TOKEN):
        for form in (secret, *(getattr(hashlib, h)(secret.encode()).hexdigest() for h in ("sha1", "sha256", "md5"))):
            assert form not in everything
    assert name not in report.read_text() and name in shown, "the person is told, the record is not"


def test_bandits_words_about_a_password_stay_out(scan):
    said, report, shown = scan({"a.py": "password = 'correct-horse-battery'\n"})
    assert facts(said, "code")["low"] == 1
    assert "correct-horse" not in json.dumps(said) + report.read_text() + shown


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.py": "def (:\n", "b.py": CLEAN}, "syntax error"),
        ({"a.ipynb": "{}", "b.py": CLEAN}, "no notebooks"),
        ({"a.R": "x <- 1\n"}, "no Python"),
        ({"a.py": b"\xff\xfe\x00", "b.py": CLEAN}, "exception while scanning|syntax error"),
    ],
)
def test_code_that_was_not_looked_at_fails(scan, files, reason):
    import re

    said, _, shown = scan(files)
    assert "code" in said["failedTests"] and re.search(reason, facts(said, "code")["reason"])
    assert re.search(reason, shown)


def test_dependencies_are_a_part_of_their_own(scan, tmp_path):
    folder = tmp_path / "advisories"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(PYYAML))
    (folder / "b.json").write_text(json.dumps(OTHER))
    wanted = tmp_path / "requirements.txt"
    given = {"parts": "code,secrets,dependencies", "requirements": wanted, "advisories": folder}
    for text, failed in (("pyyaml==6.0\n", []), ("pyyaml==5.3\n", ["dependencies"]), ("pyyaml\n", ["dependencies"])):
        wanted.write_text(text)
        said, report, _ = scan({"a.py": CLEAN}, **given)
        assert said["failedTests"] == failed, text
    assert facts(said, "dependencies")["reason"].startswith("1 not audited: no exact version")
    assert {"input:advisories", "input:requirements"} < {entry["name"] for entry in said["configuration"]}
    with pytest.raises(Misuse, match="the part is named"):
        scan({"a.py": CLEAN}, requirements=wanted)
    with pytest.raises(Misuse, match="the part is named"):
        scan({"a.py": CLEAN}, parts="dependencies")


def test_the_report_is_sarif_as_published_and_equal_for_equal_findings(scan):
    files = {"a b.py": SHELL, "c.py": f"import pickle\nk = '{KEY}'\n"}
    _, one, _ = scan(files)
    _, two, _ = scan(files)
    assert one.read_bytes() == two.read_bytes()
    document = json.loads(one.read_text())
    assert sarif_schema.faults(document) == []
    for run in document["runs"]:
        for result in run["results"]:
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
            assert 0 <= result["locations"][0]["physicalLocation"]["artifactLocation"]["index"] < len(run["artifacts"])


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("version", "2.0.0"),
        ("$schema", "sarif-schema-2.1.0.json"),
        ("runs.0.tool.driver.name", None),
        ("runs.0.columnKind", "bytes"),
        ("runs.0.invocations.0.executionSuccessful", "yes"),
        ("runs.0.results.0.level", "critical"),
        ("runs.0.results.0.message.words", "a property that SARIF has not"),
        ("runs.0.results.0.locations.0.physicalLocation.region.startLine", 0),
        ("runs.0.artifacts.0.location.uri", "a b.py"),
    ],
)
def test_the_published_schema_notices_what_is_no_sarif(scan, place, wrong):
    document = json.loads(scan({"a b.py": SHELL})[1].read_text())
    assert sarif_schema.faults(document) == []
    *way, last = (int(step) if step.isdigit() else step for step in place.split("."))
    inner = document
    for step in way:
        inner = inner[step]
    inner[last] = wrong
    assert len(sarif_schema.faults(document)) == 1


@pytest.mark.parametrize("files", [{"a.py": b""}, {"a.py": b"", "b/c.py": b""}])
def test_empty_code_stops(scan, files):
    with pytest.raises(Unreadable, match="empty"):
        scan(files)


@pytest.mark.parametrize("parts", ["", "code,code", "code,magic"])
def test_parts_that_do_not_exist_stop(scan, parts):
    with pytest.raises(Misuse, match="no such part"):
        scan({"a.py": CLEAN}, parts=parts)


def test_names_of_files_are_committed_where_they_shall_be(scan, monkeypatch):
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    said, report, _ = scan({"smith-0231.py": SHELL})
    assert said["failedTests"] == ["code"]
    assert "smith-0231" not in json.dumps(said) + report.read_text()


# --- reports of other tools -------------------------------------------------------------------------------------------


def foreign(results, **run):
    return {
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "other", "version": "3"}}, "results": results, **run}],
    }


@pytest.fixture
def imported(scan, tmp_path):
    def go(document, **arguments):
        path = tmp_path / "other.sarif"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return scan({"a.py": SHELL}, foreign=path, **arguments)[0]

    return go


def found(level=None, **more):
    return {"message": {"text": "x"}, **({"level": level} if level else {}), **more}


def test_a_foreign_report_is_declared_and_named_by_its_tool(imported):
    said = imported(foreign([]))
    assert (said["result"], said["passedTests"]) == ("PASSED", ["imported:other"])
    assert said["configuration"][-1]["annotations"]["strength"] == "declared"
    assert "code" not in said["passedTests"]


@pytest.mark.parametrize(
    "results",
    [
        [found("error")],
        [found()],
        [found(ruleId="r")],
        [found("warning", suppressions=[{"kind": "inSource"}])],
    ],
)
def test_findings_of_another_tool_fail_though_suppressed(imported, results):
    assert imported(foreign(results))["failedTests"] == ["imported:other"]


@pytest.mark.parametrize(
    "results",
    [[found("note")], [found("error", baselineState="absent")], [found("error", kind="pass")], [found("none")]],
)
def test_notes_and_what_is_gone_do_not_fail(imported, results):
    assert imported(foreign(results))["passedTests"] == ["imported:other"]


def test_a_rules_own_level_counts(imported):
    document = foreign([found(ruleId="r")])
    document["runs"][0]["tool"]["driver"]["rules"] = [{"id": "r", "defaultConfiguration": {"level": "note"}}]
    assert imported(document)["passedTests"] == ["imported:other"]
    assert imported(document, severity="low")["failedTests"] == ["imported:other"]


@pytest.mark.parametrize(
    "document",
    [foreign([], invocations=[{"executionSuccessful": False}]), foreign(None)],
)
def test_a_run_that_did_not_end_well_fails_with_its_reason(imported, document):
    said = imported(document)
    assert said["failedTests"] == ["imported:other"] and facts(said, "imported:other")["reason"]


@pytest.mark.parametrize(
    "document",
    ["no json", '{"version": "2.1.0"', "[]", {"version": "2.1.0", "runs": []}, {"version": "2.0.0", "runs": [{}]},
     {"version": "2.1.0", "runs": [{}]}, foreign([{}]), foreign([found("dreadful")])],
)  # fmt: skip
def test_what_is_no_sarif_stops(imported, document):
    with pytest.raises(Unreadable, match="SARIF"):
        imported(document)


def test_what_is_written_is_read_back(scan):
    _, report, _ = scan({"a.py": SHELL + f"k = '{KEY}'\n"})
    bandit, secrets = sarif.read(report)
    assert (bandit.tool, bandit.count("error"), secrets.tool, secrets.count("error")) == (
        "bandit", 1, "detect-secrets", 1,
    )  # fmt: skip
