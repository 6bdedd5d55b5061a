"""The requirements that the pages of the scans show are policies, and stop what they say."""

import json
from pathlib import Path

import pytest
import yaml

from tests.contracts import console

PAGES = Path(__file__).parents[3] / "docs" / "stages"
HEAD = {
    "policy": "scans/1",
    "applies": [{"tool": "mlflow", "action": "alias", "alias": "champion"}],
    "assurance": {"identity": "local", "log": "pinned", "time": "local"},
    "revocationMaxAge": "24h",
    "revokers": [{"issuer": "https://oidc.example", "san": "https://ci.example/roles/monitor"}],
    "gate": [{"issuer": "https://oidc.example", "san": "https://ci.example/roles/gate"}],
}
STAGE = {"digest": {"sha256": "{sha256:configuration}"}}
RESULTS = {
    "testing.code": {"result": "PASSED", "passedTests": ["code", "secrets", "dependencies"]},
    "testing.model_file": {"result": "WARNED", "passedTests": ["signature", "allow-list", "picklescan"], "warnedTests": ["fickling"]},
}  # fmt: skip
VULNS = {"strength": "measured", "complete": True, "vulnerabilities": 0}
STOPPED = {
    "testing.code": [
        ("a secret", {"code-scan.result": "FAILED"}, "scanned"),
        ("nobody audited", {"code-scan.passedTests": ["code", "secrets"]}, "scanned"),
    ],
    "testing.dependencies": [
        ("one is not audited", {"vulns.complete": False}, "audited"),
        ("one is affected", {"vulns.vulnerabilities": 1}, "audited"),
        ("stale advisories", {"vulns.scanner.db.lastUpdate": "2020-01-01T00:00:00Z"}, "fresh"),
    ],
    "testing.model_file": [
        ("planted", {"model-file.result": "FAILED"}, "listed"),
        ("nobody signed", {"model-file.passedTests": ["allow-list", "picklescan"]}, "signed"),
        ("picklescan flags it", {"model-file.passedTests": ["allow-list", "signature"]}, "picklescan"),
    ],
}


@pytest.mark.parametrize("name", STOPPED)
def test_the_requirement_of_the_page_allows_and_stops(home, tmp_path, name):
    (text,) = [t for language, t, _ in console.fences(PAGES / f"{name}.md") if language == "yaml"]
    (requirement,) = yaml.safe_load(text)
    body = {**RESULTS.get(name, VULNS)}
    if name in RESULTS:
        body["configuration"] = [{"name": name, **STAGE}]
    else:
        from datetime import UTC, datetime

        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body["scanner"] = {"uri": "pkg:pypi/packaging", "db": {"lastUpdate": now}, "result": []}
    sample = {"predicate": requirement["predicate"], "by": requirement["by"][0], "body": body}
    if "id" in requirement:
        sample["id"] = requirement["id"]
    tests = [{"name": "good", "expect": "allowed", "evidence": [sample]}]
    tests += [
        {"name": n, "like": "good", "expect": "refused", "rule": rule, "set": change}
        for n, change, rule in STOPPED[name]
    ]
    policy = tmp_path / "scans.yaml"
    policy.write_text(json.dumps({**HEAD, "require": [requirement], "tests": tests}))
    done = home.call("policy", "test", str(policy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(STOPPED[name])}" and all(n in done.stdout for n, _, _ in STOPPED[name])
