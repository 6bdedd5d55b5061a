"""Policies in Rego, decided by OPA's own engine, through `mlseal gate` with real evidence.

The engine is OPA's (1.20.2), the HTTP around it ours after OPA's documentation: see `server`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import secrets
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.evidence import canonical, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import SHORT
from mlseal.evidence.revoking import snapshot
from mlseal.policy import samples
from tests.adapters.opa.running import running

EXAMPLE = Path(__file__).parents[3] / "examples" / "opa"
REGO, POLICY = EXAMPLE / "gate.rego", (EXAMPLE / "policy.yaml").read_text()
HERE = "http://127.0.0.1:8181"


@pytest.fixture(scope="module")
def url():
    with running(REGO) as made:
        yield made.url


@pytest.fixture
def bench(authority, tmp_path):
    return Bench(authority, tmp_path)


class Bench:
    """A model, what roles sign about it, and the example's policy for this authority."""

    def __init__(self, authority: Any, folder: Path) -> None:
        self.authority, self.model, self.folder = authority, folder / "model", folder
        self.model.mkdir()
        (self.model / "weights.bin").write_bytes(secrets.token_bytes(64))
        self.subjects = measure(self.model).subjects
        snapshot(
            Archive.open(authority.trust, authority.store), authority.signer("monitor"), valid_for=timedelta(hours=24)
        )

    def policy(self, url: str, *changes: tuple[str, str]) -> Path:
        head = POLICY.partition("tests:\n")[0].replace("https://oidc.example/roles/", f"{self.authority.san('x')[:-1]}")
        text = head.replace("https://oidc.example", self.authority.issuer).replace(HERE, url)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = self.folder / "policy.yaml"
        file.write_text(text)
        return file

    def sign(self, kind: str, role: str, body: dict[str, Any]) -> None:
        made = samples.make(kind, body, Identity("i", "s"), utcnow(), now=utcnow() + timedelta(days=9))
        claim = made.predicate.model_dump(by_alias=True, exclude_none=True, mode="json")
        self.authority.signer(role).sign(statement.make(self.subjects, SHORT[kind], claim))

    def trained(self) -> None:
        self.sign("slsa-provenance", "producer", {"runDetails": {"metadata": {"invocationId": secrets.token_hex(4)}}})

    def fairness(self, high: float, role: str = "evaluator") -> None:
        metric = {"name": "equalizedOddsDifference", "value": high / 2, "ciLow": 0.0, "ciHigh": high}
        self.sign("fairness", role, {"runId": secrets.token_hex(4), "metrics": [metric]})

    def call(self, *command: str) -> Any:
        return self.authority.call(*command, "--store", str(self.authority.store.root))

    def gate(self, policy: Path, *more: str) -> tuple[int, dict[str, Any]]:
        done = self.call("gate", str(self.model), "--policy", str(policy), "--json", *more)
        return done.returncode, json.loads(done.stdout)


def next_second() -> None:
    """Times of signatures are whole seconds; what must come later waits for the next."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.02)


def reasons(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    return [(r["rule"], r["message"]) for r in verdict["reasons"] if r["outcome"] != "note"]


def test_the_example_refuses_what_its_tests_imagine(home, url, tmp_path):
    """The controls of the policy, as they ship, against the Rego itself."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace(HERE, url))
    done = home.call("policy", "test", str(file), "--ask-opa", "--json")
    tests = json.loads(done.stdout)["tests"]
    assert [row for row in tests if not row["passed"]] == []
    assert len(tests) == 14


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        ("after > before + 0.02", "the gap grows within its bound"),
        ("time.parse_rfc3339_ns(measured.signedOn) < time.parse_rfc3339_ns(trained.signedOn)", "measured before it was trained"),
        ("measured.signer == trained.signer", "the trainer measures"),
    ],
)  # fmt: skip
def test_a_rule_taken_out_of_the_rego_is_noticed_by_the_controls(home, tmp_path, rule, test):
    weak, file = tmp_path / "weak.rego", tmp_path / "policy.yaml"
    assert rule in REGO.read_text()
    weak.write_text(REGO.read_text().replace(rule, "false"))
    with running(weak) as server:
        url = server.url
        file.write_text(POLICY.replace(HERE, url))
        done = home.call("policy", "test", str(file), "--ask-opa", "--json")
    assert done.returncode == 10
    assert [row["test"] for row in json.loads(done.stdout)["tests"] if not row["passed"]] == [test]


def test_real_evidence_is_allowed_and_then_refused_by_rego_alone(bench, url, tmp_path):
    policy = bench.policy(url)
    bench.trained()
    bench.fairness(0.1)
    signed = tmp_path / "verdict.sigstore.json"
    code, verdict = bench.gate(policy, "-o", str(signed))
    assert (code, verdict["verdict"], reasons(verdict)) == (0, "allowed", [])
    (asked,) = verdict["opa"]
    assert (asked["answer"], asked["revision"], asked["server"]) == ("allowed", "r1", url)
    assert len(asked["decisionId"]) == 36
    assert json.loads(Bundle.read(signed).statement.payload)["predicate"]["mlseal"]["opa"] == verdict["opa"]
    next_second()
    bench.fairness(0.14)  # within the bound of every condition in CEL
    code, verdict = bench.gate(policy)
    assert (code, verdict["verdict"]) == (10, "refused")
    assert reasons(verdict) == [("rego", "OPA refuses: the gap grew from 0.1 to 0.14 between two results")]
    done = bench.call("explain", str(bench.model), "--policy", str(policy))
    assert "✗ rego" in done.stdout
    assert f"asked OPA: mlseal/gate/decision of {url} says false, revision r1 by its own word" in done.stdout


def test_the_document_that_is_printed_is_the_one_that_is_asked_about(bench, tmp_path):
    log = tmp_path / "decisions"
    bench.trained()
    bench.fairness(0.1)
    action = ("--action", "mlflow/alias", "--fact", "alias=Champion", "--fact", "model=risk-a")
    with running(REGO, "--log", str(log)) as server:
        url = server.url
        policy = bench.policy(url)
        code, verdict = bench.gate(policy, *action)
        assert code == 0
        done = bench.call("policy", "input", str(bench.model), "--policy", str(policy), *action)
        printed = json.loads(done.stdout)
        question = urllib.request.Request(  # what a Rego author does with it, without the gate
            f"{url}/v1/data/mlseal/gate/decision?strict-builtin-errors=true", json.dumps({"input": printed}).encode()
        )
        with urllib.request.urlopen(question, timeout=30) as answer:
            assert json.load(answer)["result"] == {"allow": True, "reasons": []}
    asked, tried = (json.loads(line) for line in log.read_text().splitlines())
    assert tried["input"] == printed
    assert asked["decision_id"] == verdict["opa"][0]["decisionId"]
    assert asked["input"] | {"now": printed["now"]} == printed
    assert hashlib.sha256(canonical.dumps(asked["input"])).hexdigest() == verdict["opa"][0]["inputSha256"]
    assert printed["action"]["alias"] == "champion"


def test_what_the_rules_stop_never_leaves_the_gate(bench, tmp_path):
    log = tmp_path / "decisions"
    with running(REGO, "--log", str(log)) as server:
        url = server.url
        policy = bench.policy(url)
        bench.trained()
        assert bench.gate(policy)[0] == 11
        bench.fairness(0.3)
        code, verdict = bench.gate(policy)
        assert (code, [rule for rule, _ in reasons(verdict)]) == (10, ["gap"])
        bench.model.joinpath("weights.bin").write_bytes(secrets.token_bytes(64))  # another model, which satisfies all
        bench.subjects = measure(bench.model).subjects
        bench.trained()
        bench.fairness(0.1)
        window = (
            "tool: mlflow, action: alias, from: 2020-01-01T00:00:00Z, until: 2099-01-01T00:00:00Z, owner: o, reason: r"
        )
        shut = bench.policy(url, ("\nrequire:", f"\nfreeze: [{{{window}}}]\nrequire:"))
        code, verdict = bench.gate(shut)
        assert (code, [rule for rule, _ in reasons(verdict)]) == (10, ["freeze"])
        done = bench.call("policy", "input", str(bench.model), "--policy", str(shut))
        assert "OPA would not be asked now: freeze: " in done.stderr
    assert not log.exists()
    bench.fairness(0.3)
    done = bench.call("policy", "input", str(bench.model), "--policy", str(policy))  # for the author, all the same
    assert [f["satisfies"] for f in json.loads(done.stdout)["requirements"]["fairness"]["facts"]] == [True, False]
    assert "OPA would not be asked now: gap: " in done.stderr


def test_an_answer_that_does_not_count_is_undecided(bench, url, tmp_path):
    """Each story from OPA's own engine: undefined, an error in a rule, another shape, another revision."""
    bench.trained()
    bench.fairness(0.1)
    odd = tmp_path / "odd.rego"
    odd.write_text(
        "package odd\n"
        'silent if input.subject.name == "nobody"\n'
        'failing if to_number(input.subject.name) > 1\n'
        'conflict := true if input.treeSize >= 0\nconflict := false if input.now != ""\n'
        "reasons contains input.now\n"
        'yes := "true"\n'
    )  # fmt: skip
    stories = {
        "odd/silent": "is undefined",
        "odd/nowhere": "is undefined",
        "odd/failing": "status 500, internal_error",
        "odd/conflict": "status 500, internal_error",
        "odd/reasons": "another shape",
        "odd/yes": "another shape",
        "odd": "status 500, internal_error",
        "odd/reasons/0": "is undefined",
    }
    with running([REGO, odd]) as server:
        strange = server.url
        for decision, said in stories.items():
            code, verdict = bench.gate(bench.policy(strange, ("mlseal/gate/decision", decision)))
            assert (code, verdict["verdict"]) == (11, "undecided"), decision
            assert said in json.dumps(verdict["reasons"]), (decision, verdict["reasons"])
            assert verdict["opa"][0]["answer"] == "none"
    assert bench.gate(bench.policy(url))[0] == 0
    for change in (("revision: r1", "revision: r2"), ("bundle: gate", "bundle: other")):
        code, verdict = bench.gate(bench.policy(url, change))
        assert (code, "another revision" in json.dumps(verdict)) == (11, True)
    with running(REGO, bundle=None) as server:
        bare = server.url
        code, verdict = bench.gate(bench.policy(bare))
        assert (code, "no revision" in json.dumps(verdict)) == (11, True)


def test_a_server_that_hangs_or_is_gone_is_undecided(bench):
    bench.trained()
    bench.fairness(0.1)
    with running(REGO) as server:
        policy = bench.policy(server.url, ("timeout: 5s", "timeout: 1s"))
        with server.hanging():
            code, verdict = bench.gate(policy)
            assert (code, verdict["verdict"]) == (11, "undecided")
            assert "an answer within 1 s" in json.dumps(verdict)
    code, verdict = bench.gate(policy)
    assert (code, verdict["verdict"]) == (11, "undecided")


def test_over_tls_with_a_token(bench, tmp_path, monkeypatch):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "opa")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 4, True, *[False] * 3), critical=True)  # Python 3.13 is strict
        .sign(key, hashes.SHA256())
    )
    ca, both, token = tmp_path / "ca.pem", tmp_path / "both.pem", tmp_path / "token"
    ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoded = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both.write_bytes(ca.read_bytes() + key.private_bytes(*encoded))
    token.write_text("our-word")
    bench.trained()
    bench.fairness(0.1)
    with running(REGO, "--certificate", str(both), "--token", "our-word") as server:
        url = server.url
        policy = bench.policy(url)
        code, verdict = bench.gate(policy)
        assert (code, "certificate verify failed" in json.dumps(verdict)) == (11, True)
        known = tmp_path / "opa.json"
        monkeypatch.setenv("MLSEAL_OPA", str(known))
        known.write_text(json.dumps({"servers": {url: {"caFile": str(ca)}}}))
        code, verdict = bench.gate(policy)
        assert (code, "status 401, unauthorized" in json.dumps(verdict)) == (11, True)
        known.write_text(json.dumps({"servers": {url: {"caFile": str(ca), "tokenFile": str(token)}}}))
        assert bench.gate(policy)[0] == 0
