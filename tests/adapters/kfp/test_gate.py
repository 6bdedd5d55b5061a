"""decide and enforce, step by step: each check has a case in which it alone stops the run."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import image, step

from mlseal.errors import Misuse, PolicyInvalid, Refusal, Unchecked
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import slsa_vsa
from mlseal.evidence.revoking import snapshot

POLICY = """\
policy: gate-tests/1
applies: [{{tool: kfp, action: gate, model: "risk-*", workspace: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
gate: [{{issuer: "{issuer}", san: "{gate}"}}]
require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
    when:
      - {{id: passed, message: "the tests did not pass", check: 'p.result == "PASSED"'}}
ungoverned:
  - {{tool: kfp, action: try, model: "*", owner: tests, until: "2100-01-01T00:00:00Z"}}
"""
RUN = "0f5c2b7e-run"


@dataclass
class Case:
    """One execution of a gate task in this process."""

    authority: Any
    base: Path
    policy: Path
    capture: Any
    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """What is to pass."""
        return self.base / "model"

    @property
    def verdict(self) -> Path:
        """Where decide puts its verdict."""
        return self.base / "out" / "verdict"

    def evidence(self, result: str = "PASSED", role: str = "evaluator") -> Path:
        """A test result about the model, as a task would hand it on."""
        claim = {
            "result": result,
            "configuration": [{"name": "suite", "digest": {"sha256": "0" * 64}}],
            "url": f"https://tests.example/{uuid.uuid4().hex}",
        }
        bundle = self.authority.signer(role).sign(
            statement.make(measure(self.model).subjects, "https://in-toto.io/attestation/test-result/v0.1", claim)
        )
        path = self.base / f"evidence-{uuid.uuid4().hex[:6]}"
        bundle.write(path)
        return path

    def give(self, port: str, path: Path, sha256: str | None = None) -> None:
        """Connect an evidence or verdict port, with its digest."""
        self.artifacts[port] = [path]
        self.parameters[f"{port}_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest() if sha256 is None else sha256

    def document(self, stage: str) -> dict[str, Any]:
        """The ExecutorInput."""
        outputs: dict[str, Any] = {"outputFile": str(self.base / "out" / "executor_output.json")}
        if stage == "decide":
            outputs["artifacts"] = {"verdict": {"artifacts": [{"name": "verdict", "uri": str(self.verdict)}]}}
            outputs["parameters"] = {"verdict_sha256": {"outputFile": str(self.base / "out" / "verdict_sha256")}}
        else:
            outputs["parameters"] = {"passed_sha256": {"outputFile": str(self.base / "out" / "passed_sha256")}}
        told = {"model_name": "risk-a", "run_id": RUN, "action": "gate", "workspace": "default", "model_sha256": ""}
        return {
            "inputs": {
                "parameterValues": told | self.parameters,
                "artifacts": {
                    p: {"artifacts": [{"uri": str(f)} for f in fs]}
                    for p, fs in ({"model": [self.model]} | self.artifacts).items()
                },
            },
            "outputs": outputs,
        }

    def run(self, stage: str) -> tuple[int, str]:
        """Exit status and standard error of the step."""
        code = step.main(
            [stage, "--image", image.host_reference(), "--executor-input", json.dumps(self.document(stage))]
        )
        return code, self.capture.readouterr().err

    def decided(self) -> dict[str, Any]:
        """The verdict that decide writes; it must exit 0."""
        code, err = self.run("decide")
        assert code == 0, err
        assert (self.base / "out" / "verdict_sha256").read_text() == hashlib.sha256(
            self.verdict.read_bytes()
        ).hexdigest()
        return dict(Bundle.read(self.verdict).statement.predicate)

    def rules(self) -> list[str]:
        """The rules that the verdict names."""
        return [reason["rule"] for reason in self.decided()["mlseal"]["reasons"]]


@pytest.fixture
def case(authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Case:
    """A model of its own, the policy in force, a fresh revocation snapshot."""
    base = tmp_path / "case"
    base.mkdir()
    (base / "model").mkdir()
    (base / "model" / "weights").write_text(uuid.uuid4().hex)
    policy = base / "policy.yaml"
    policy.write_text(
        POLICY.format(issuer=authority.issuer, **{r: authority.san(r) for r in ("monitor", "gate", "evaluator")})
    )
    for name, value in {
        "MLSEAL_TRUST": authority.trust_config,
        "MLSEAL_STORE": authority.store,
        "MLSEAL_POLICY": policy,
        "MLSEAL_KFP_HOST": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    snapshot(Archive.open(authority.trust, authority.store), authority.signer("monitor"), valid_for=timedelta(hours=24))
    return Case(authority, base, policy, capfd)


@pytest.fixture
def allowed(case: Case) -> Case:
    """A case in which decide allowed and enforce would pass."""
    case.give("evidence_1", case.evidence())
    assert case.decided()["verificationResult"] == "PASSED"
    kept = case.base / "verdict"
    kept.write_bytes(case.verdict.read_bytes())
    case.artifacts.clear()
    case.parameters.clear()
    case.give("verdict", kept)
    return case


def test_allowed_passes(allowed: Case) -> None:
    """And says what passed."""
    assert allowed.run("enforce")[0] == 0
    assert (allowed.base / "out" / "passed_sha256").read_text() == measure(allowed.model).sha256


# --- decide: exit 0 and a signed verdict, whatever it says -----------------------------------------------------------


def test_failed_evidence_is_a_refusal(case: Case) -> None:
    """Exit 0 for decide, exit 10 for enforce."""
    case.give("evidence_1", case.evidence("FAILED"))
    assert case.decided()["mlseal"]["verdict"] == "refused"
    case.artifacts.clear()
    case.give("verdict", case.verdict)
    code, err = case.run("enforce")
    assert code == Refusal.exit_code
    assert "the tests did not pass" in err


def test_a_pipeline_brings_a_layer_of_the_policy_in_force(case: Case) -> None:
    """Both are judged and named; what the layer adds stops decide's verdict and enforce, on evidence that is the same."""
    layer = case.base / "brought"
    layer.mkdir()
    beneath = hashlib.sha256(case.policy.read_bytes()).hexdigest()
    rule = '{id: counted, message: "no test is named", check: "nonEmpty(p.passedTests)"}'
    text = f"policy: risk-team/1\nextends: {{policy: gate-tests/1, sha256: {beneath}}}\nrequire:\n"
    text += f"  - {{predicate: test-result, by: BY, when: [{rule}]}}\n"
    by = f'[{{issuer: "{case.authority.issuer}", san: "{case.authority.san("evaluator")}"}}]'
    (layer / "policy").write_text(text.replace("BY", by))
    case.artifacts["policy"] = [layer / "policy"]
    case.give("evidence_1", case.evidence())
    verdict = case.decided()
    assert [reason["message"] for reason in verdict["mlseal"]["reasons"]] == ["no test is named"]
    assert beneath in json.dumps(verdict["mlseal"])
    kept = case.base / "verdict"
    kept.write_bytes(case.verdict.read_bytes())
    case.artifacts = {"policy": [layer / "policy"]}
    case.give("verdict", kept)
    code, err = case.run("enforce")
    assert code == Refusal.exit_code
    assert "no test is named" in err
    (layer / "policy").write_text((layer / "policy").read_text().replace(beneath, "ab" * 32))
    code, err = case.run("enforce")
    assert code != 0
    assert "extends" in err


OPENING = {
    "by exempting it": 'ungoverned: [{tool: kfp, action: gate, model: free, owner: me, until: "2099-01-01T00:00:00Z"}]\n',
    "by judging it": "applies: [{tool: kfp, action: gate, model: free}]\nrequire: [{predicate: test-result, by: BY}]\n",
}


@pytest.mark.parametrize("way", OPENING)
def test_a_pipeline_opens_nothing_that_no_policy_in_force_speaks_of(case: Case, way: str) -> None:
    """It would choose the gate, the signer and the rule."""
    signer = f'[{{issuer: "{case.authority.issuer}", san: "{case.authority.san("evaluator")}"}}]'
    gates = f'[{{issuer: "{case.authority.issuer}", san: "{case.authority.san("gate")}"}}]'
    revokers = f'[{{issuer: "{case.authority.issuer}", san: "{case.authority.san("monitor")}"}}]'
    head = f"policy: mine/1\ngate: {gates}\nrevokers: {revokers}\n"
    head += "assurance: {identity: local, log: pinned, time: local}\n"
    (case.base / "mine").write_text(head + OPENING[way].replace("BY", signer))
    case.artifacts["policy"] = [case.base / "mine"]
    case.parameters["model_name"] = "free"
    case.give("evidence_1", case.evidence())
    verdict = case.decided()
    assert verdict["mlseal"]["verdict"] == "refused"
    assert "no policy governs this action" in verdict["mlseal"]["reasons"][0]["message"]
    case.give("verdict", case.verdict)
    code, err = case.run("enforce")
    assert code == Refusal.exit_code
    assert "no policy governs this action" in err


def test_a_pipeline_sends_evidence_to_no_server_of_its_choice(case: Case) -> None:
    """The gate would ask it with its own token."""
    beneath = hashlib.sha256(case.policy.read_bytes()).hexdigest()
    text = f"policy: risk-team/1\nextends: {{policy: gate-tests/1, sha256: {beneath}}}\n"
    text += "opa: [{id: theirs, server: 'https://opa.example', decision: a/b}]\n"
    (case.base / "mine").write_text(text)
    case.artifacts["policy"] = [case.base / "mine"]
    code, err = case.run("decide")
    assert code == PolicyInvalid.exit_code
    assert "asks an OPA server on its own account" in err


def test_no_evidence_is_undecided(case: Case) -> None:
    """Exit 11 for enforce, with the command that would make it."""
    assert case.decided()["mlseal"]["verdict"] == "undecided"
    case.give("verdict", case.verdict)
    code, err = case.run("enforce")
    assert code == Unchecked.exit_code
    assert "remedy" in err


@pytest.mark.parametrize(
    "problem", ["edited", "no digest", "other digest", "dropped", "spoilt", "not a bundle", "missing file"]
)
def test_evidence_that_does_not_hold_becomes_a_reason(case: Case, problem: str) -> None:
    """Though the same evidence lies whole in the store, where it would suffice."""
    path = case.evidence()
    case.give("evidence_1", path)
    if problem == "edited":
        path.write_bytes(path.read_bytes() + b"\n")
    elif problem == "no digest":
        del case.parameters["evidence_1_sha256"]
    elif problem == "other digest":
        case.parameters["evidence_1_sha256"] = "ab" * 32
    elif problem == "dropped":
        case.artifacts.clear()
    elif problem == "spoilt":
        document = json.loads(path.read_bytes())
        document["dsseEnvelope"]["signatures"][0]["sig"] = (
            "MEQCIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAiAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
        )
        path.write_text(json.dumps(document))
        case.give("evidence_1", path)
    elif problem == "not a bundle":
        path.write_text("{}")
        case.give("evidence_1", path)
    elif problem == "missing file":
        path.unlink()
    verdict = case.decided()
    assert verdict["verificationResult"] == "FAILED"
    assert verdict["mlseal"]["reasons"][0]["rule"] == "evidence:evidence_1"


def test_dropped_evidence_is_named(case: Case) -> None:
    """Not only that something is wrong: which port, and that its file never came."""
    case.give("evidence_1", case.evidence())
    case.artifacts.clear()
    assert "evidence_1 was dropped" in case.decided()["mlseal"]["reasons"][0]["message"]


def test_collected_digests_must_match_one_by_one(case: Case) -> None:
    """A list of files and a list of digests of another length, or in another order."""
    paths = [case.evidence(), case.evidence()]
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    case.artifacts["collected"] = paths
    case.parameters["collected_sha256"] = digests
    assert case.rules() == []
    case.parameters["collected_sha256"] = digests[:1]
    assert case.rules()[0] == "evidence:collected[1]"
    case.parameters["collected_sha256"] = digests[::-1]
    assert case.rules()[:2] == ["evidence:collected[0]", "evidence:collected[1]"]
    case.artifacts["collected"] = paths[:1]
    case.parameters["collected_sha256"] = digests
    assert case.rules()[0] == "evidence:collected[1]"


def test_model_with_another_digest_is_a_reason(case: Case) -> None:
    """What an earlier task announced is not what lies here."""
    case.give("evidence_1", case.evidence())
    case.parameters["model_sha256"] = "ab" * 32
    assert case.rules() == ["model-digest"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"run_id": ""}, Misuse, "does not know its run"),
        ({"run_id": "{{$.pipeline_job_uuid}}"}, Misuse, "does not know its run"),
        ({"model_name": "risk-а"}, Misuse, "no policy can be matched with"),  # a Cyrillic letter
        ({"model_sha256": "ABC"}, Misuse, "is no SHA-256"),
        ({"collected_sha256": "x"}, Misuse, "no list of digests"),
    ],
)
def test_decide_without_a_verdict(case: Case, change: dict[str, Any], code: type[Any], words: str) -> None:
    """Where no verdict could be stated the task fails and leaves nothing."""
    case.parameters |= change
    exit_code, err = case.run("decide")
    assert exit_code == code.exit_code
    assert words in err
    assert list((case.base / "out").glob("*")) == [] if (case.base / "out").exists() else True


@pytest.mark.parametrize("what", ["missing", "empty", "no policy"])
def test_decide_on_nothing(case: Case, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bytes, no content, nobody's policy."""
    if what == "no policy":
        monkeypatch.delenv("MLSEAL_POLICY")
        assert case.run("decide")[0] == Misuse.exit_code
    else:
        (case.model / "weights").write_text("") if what == "empty" else case.artifacts.update(
            model=[case.base / "none"]
        )
        assert case.run("decide")[0] == Unchecked.exit_code
    assert not case.verdict.exists()


def test_exempted_action_passes_with_its_owner_named(case: Case) -> None:
    """What a policy leaves ungoverned, by whose decision and until when, stands in the verdict."""
    case.parameters["action"] = "try"
    verdict = case.decided()
    assert "exempted by tests until 2100" in json.dumps(verdict["mlseal"]["reasons"])
    case.give("verdict", case.verdict)
    assert case.run("enforce")[0] == 0


def test_what_is_only_observed_passes_and_says_so(case: Case) -> None:
    """Until its end an observing policy records what it would have refused; afterwards the same evidence stops."""
    text = case.policy.read_text()
    case.policy.write_text(text.replace("require:", 'observe: {until: "2100-01-01T00:00:00Z", owner: tests}\nrequire:'))
    case.give("evidence_1", case.evidence("FAILED"))
    verdict = case.decided()
    assert (verdict["verificationResult"], verdict["mlseal"]["verdict"]) == ("FAILED", "refused")
    assert verdict["mlseal"]["mode"] == "observe"
    case.artifacts.clear()
    case.give("verdict", case.verdict)
    assert case.run("enforce")[0] == 0
    case.policy.write_text(text)
    assert case.run("enforce")[0] == Refusal.exit_code, "a verdict by another policy"
    del case.artifacts["verdict"]
    assert case.decided()["mlseal"]["mode"] == "enforce"


# --- enforce: each check alone ----------------------------------------------------------------------------------------


def test_model_changed_after_the_verdict(allowed: Case) -> None:
    """The bytes are hashed again."""
    (allowed.model / "weights").write_text("other")
    code, err = allowed.run("enforce")
    assert code == Refusal.exit_code
    assert "not about these bytes" in err


def test_model_renamed_after_the_verdict(allowed: Case) -> None:
    """Same bytes under another file name: the OMS root is the same, the manifest is not."""
    (allowed.model / "weights").rename(allowed.model / "loader.py")
    code, err = allowed.run("enforce")
    assert code == Refusal.exit_code
    assert "not about these bytes" in err


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"run_id": "another-run"}, Refusal, "made for another run"),
        ({"run_id": ""}, Misuse, "does not know its run"),
        ({"model_name": "risk-b"}, Refusal, "about another action"),
        ({"workspace": "prod"}, Refusal, "about another action"),
        ({"model_name": "free"}, Refusal, "no policy governs"),
        ({"verdict_sha256": "ab" * 32}, Refusal, "not the one that its task made"),
        ({"verdict_sha256": ""}, Misuse, "comes without its digest"),
        ({"model_sha256": "ab" * 32}, Refusal, "is not what an earlier task made"),
    ],
)
def test_enforce_compares_what_it_is_told(allowed: Case, change: dict[str, str], error: type[Any], words: str) -> None:
    """Run, action, digests."""
    allowed.parameters |= change
    code, err = allowed.run("enforce")
    assert (code, words in err) == (error.exit_code, True), err
    assert not (allowed.base / "out" / "passed_sha256").exists()


def test_enforce_without_verdict_or_model(allowed: Case) -> None:
    """A port that is not connected is a stop."""
    kept = allowed.artifacts.pop("verdict")
    assert allowed.run("enforce")[0] == Misuse.exit_code
    allowed.artifacts |= {"verdict": kept, "model": []}
    assert allowed.run("enforce")[0] == Misuse.exit_code


def test_policy_without_gate_is_refused(allowed: Case) -> None:
    """Nobody is named whose verdict could be believed."""
    allowed.policy.write_text(
        "\n".join(line for line in allowed.policy.read_text().splitlines() if not line.startswith("gate:"))
    )
    code, err = allowed.run("enforce")
    assert code == Misuse.exit_code
    assert "names no gate" in err


def _vsa(allowed: Case, change: Any) -> Path:
    """A verdict that differs from the allowing one, signed by the gate itself."""
    said = Bundle.read(allowed.artifacts["verdict"][0]).statement
    predicate = copy.deepcopy(dict(said.predicate))
    change(predicate)
    made = allowed.authority.signer("gate").sign(statement.make(said.subjects, slsa_vsa.URI, predicate))
    path = allowed.base / "signed-verdict"
    made.write(path)
    return path


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p.pop("mlseal"), Refusal, "no mlseal details"),
        (lambda p: p.update(verificationResult="FAILED"), Refusal, "contradicts itself"),
        (lambda p: p["mlseal"].update(verdict="refused"), Refusal, "contradicts itself"),
        (
            lambda p: (p.update(verificationResult="FAILED"), p["mlseal"].update(verdict="undecided")),
            Unchecked,
            "undecided by",
        ),
        (lambda p: p["mlseal"].update(nonce=None), Refusal, "made for another run"),
        (lambda p: p["mlseal"].update(policies=[]), Refusal, "other policies"),
        (lambda p: p["mlseal"]["policies"].append({"name": "x/1", "sha256": "ab" * 32}), Refusal, "other policies"),
        (lambda p: p["mlseal"].update(action={}), Refusal, "another action"),
    ],
)
def test_enforce_reads_the_whole_verdict(allowed: Case, change: Any, error: type[Any], words: str) -> None:
    """Even what the gate signed must be consistent, complete, and about this run."""
    allowed.give("verdict", _vsa(allowed, change))
    code, err = allowed.run("enforce")
    assert (code, words in err) == (error.exit_code, True), err


def test_verdict_of_another_signer(allowed: Case) -> None:
    """The same words from the evaluator."""
    said = Bundle.read(allowed.artifacts["verdict"][0]).statement
    predicate = dict(said.predicate) | {"slsaVersion": "1.1"}  # another statement, or the log shows the first signature
    path = allowed.base / "other"
    allowed.authority.signer("evaluator").sign(statement.make(said.subjects, slsa_vsa.URI, predicate)).write(path)
    allowed.give("verdict", path)
    code, err = allowed.run("enforce")
    assert code == Refusal.exit_code
    assert "this identity may not make" in err


def test_evidence_as_verdict(allowed: Case) -> None:
    """A bundle of another type, however well signed."""
    allowed.give("verdict", allowed.evidence(role="gate"))
    code, err = allowed.run("enforce")
    assert code == Refusal.exit_code
    assert "of another type" in err


def test_revoked_verdict(allowed: Case) -> None:
    """Withdrawn between the two tasks."""
    from mlseal.evidence.revoking import revoke

    archive = Archive.open(allowed.authority.trust, allowed.authority.store)
    archive.refresh()
    evidence_id = Bundle.read(allowed.artifacts["verdict"][0]).evidence_id
    revoke(archive, allowed.authority.signer("monitor"), evidence_id, reason="withdrawn")
    assert allowed.run("enforce")[0] == Refusal.exit_code


def test_withdrawal_that_nobody_shows_stops(allowed: Case) -> None:
    """What a revoker signed after the verdict may be its withdrawal; what came before it cannot be."""
    from mlseal.evidence.revoking import revoke

    shown: dict[Path, bytes] = {}

    def hide(bundle: Bundle) -> None:
        path = allowed.authority.store.path(bundle.evidence_id)
        shown[path] = path.read_bytes()
        path.unlink()
        for index in allowed.authority.trust.state_directory().glob("index-*"):
            index.unlink()  # a pod knows nothing

    archive = Archive.open(allowed.authority.trust, allowed.authority.store)
    archive.refresh()
    by_monitor = [
        b for b in archive.of_type(["revocation-snapshot"]) if "monitor" in str(archive.index.leaf(b.evidence_id))
    ]
    verdict = Bundle.read(allowed.artifacts["verdict"][0])
    try:
        hide(by_monitor[-1])
        assert allowed.run("enforce")[0] == 0
        hide(revoke(archive, allowed.authority.signer("monitor"), verdict.evidence_id, reason="withdrawn"))
        code, err = allowed.run("enforce")
        assert (code, "after the verdict, and nobody shows it" in err) == (Unchecked.exit_code, True), err
    finally:
        for path, raw in shown.items():
            path.write_bytes(raw)
    assert allowed.run("enforce")[0] == Refusal.exit_code


# --- a pod: no store, no memory --------------------------------------------------------------------------------------


def test_pod_without_store_needs_known_evidence(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says what exists; what nobody shows leaves the verdict undecided; a directory of bundles decides it."""
    case.give("evidence_1", case.evidence())
    monkeypatch.delenv("MLSEAL_STORE")
    monkeypatch.chdir(case.base)
    assert case.decided()["mlseal"]["verdict"] == "undecided"
    copied = case.base / "copied"
    subprocess.run(["cp", "-r", str(case.authority.store.root), str(copied)], check=True)
    known = sorted(copied.rglob("*.sigstore.json"))
    assert known
    case.artifacts["known_evidence"] = [copied]
    # The first pod's verdict was logged and its store is gone: show that bundle too, as an operator would.
    from mlseal.evidence.store import Store

    Store(copied).put(Bundle.read(case.verdict))
    Store(case.authority.store.root).put(Bundle.read(case.verdict))
    verdict = case.decided()
    assert verdict["mlseal"]["verdict"] == "allowed", verdict["mlseal"]["reasons"]
    Store(case.authority.store.root).put(Bundle.read(case.verdict))


def test_step_prints_one_sentence(case: Case) -> None:
    """As a process: no traceback, the error once for people and once as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "mlseal_kfp.step", "decide", "--image", image.host_reference(), "--executor-input", "{"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == Refusal.exit_code
    assert len(lines) == 2
    assert json.loads(lines[1].removeprefix(step.ERROR_MARK))["error"] == "MalformedEvidence"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["decide"],
        ["decide", "--executor-input", "{}"],
        ["decide", "--image", "x", "--executor-input", "{}", "--force"],
    ],
)
def test_other_arguments_are_refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The argv of a component is fixed."""
    assert step.main(arguments) == Misuse.exit_code
    assert "not the arguments of a component" in capfd.readouterr().err
