"""The compiled YAML, run as host processes against a real trust service: what passes, what stops, what is left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiling, host, hostprocess, image

from mlseal.errors import DigestMismatch, Misuse, Refusal, Unchecked
from mlseal.evidence import statement
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance

STAGES = {"ingestion.source", "training.run", "governance.fairness"}
"""Of the pipelines of the main job."""
EXAMPLE = Path(__file__).parents[3] / "examples" / "demo" / "pipeline.py"
PROVENANCE = {
    "path": "data",
    "dvc": {"oid": "0" * 32 + ".dir", "hash": "md5", "version": "3.67.1"},
    "git": {"dirty": False},
    "origin": "added",
    "files": 2,
    "size": 100,
    "notProven": ["anything: a sample for a test"],
}
REAL = "ghcr.io/example/mlseal@sha256:" + hashlib.sha256(b"an image").hexdigest()


def test_gated_pipeline_allows(bench: Any) -> None:
    """Trained, judged, enforced, deployed; evidence and verdict say what happened and where."""
    result = bench.run("gated", parameters={"epochs": 3, "note": 'it\'s "python3"'}).require()
    assert [t.stage for t in result.tasks] == ["training.run", "decide", "enforce", "deploy"]
    model = measure(result.output("training-run", "out"))
    assert bench.marker.read_text() == model.sha256 == result.outputs["Output"]
    evidence = Bundle.read(result.output("training-run", "evidence"))
    predicate = evidence.statement.predicate
    assert predicate["runDetails"]["builder"]["id"] == "https://mlseal.dev/builder/host-process/v0.1"
    assert predicate["buildDefinition"]["externalParameters"]["parameters"] == {
        "epochs": "3",
        "note": 'it\'s "python3"',
    }
    assert {s.sha256 for s in evidence.statement.subjects} == {s.sha256 for s in model.subjects}
    verdict = bench.verdict(result)
    assert verdict["verificationResult"] == "PASSED"
    assert verdict["mlseal"]["action"] == {
        "tool": "kfp",
        "action": "gate",
        "model": "risk-a",
        "workspace": "default",
        "builder": "host-process",
    }
    assert predicate["runDetails"]["metadata"]["invocationId"] == verdict["mlseal"]["nonce"]
    assert evidence.evidence_id in {i["annotations"]["evidenceId"] for i in verdict["inputAttestations"]}
    assert "not enforced" in result.notice


def test_unchanged_run_takes_what_exists_and_is_judged_anew(bench: Any) -> None:
    """The training is not repeated, its model is put back from bytes whose digest verified; the verdict is a new one."""
    first = bench.run("gated", bench.host(reuse=True)).require()
    bench.marker.unlink()
    again = bench.run("gated", bench.host(reuse=True)).require()
    one, other = (Bundle.read(r.output("training-run", "evidence")) for r in (first, again))
    assert one.raw == other.raw
    assert "serves again" in again.log.read_text()
    assert "serves again" not in first.log.read_text()
    assert (
        bench.marker.read_text()
        == measure(again.output("training-run", "out")).sha256
        == one.statement.subjects[-1].sha256
    )
    assert bench.verdict(first)["mlseal"]["nonce"] != bench.verdict(again)["mlseal"]["nonce"]
    without = bench.run("gated").require()
    assert Bundle.read(without.output("training-run", "evidence")).evidence_id != one.evidence_id


@pytest.mark.parametrize(
    ("name", "parameters", "stopped", "error", "words"),
    [
        ("gated", {"name": "other-a"}, "enforce", Refusal, "no policy governs this action"),
        ("unevidenced", {}, "enforce", Unchecked, "slsa-provenance"),
        ("model-rewritten-before", {}, "enforce", Refusal, "is not what an earlier task made"),
        ("evidence-rewritten", {}, "enforce", Refusal, "evidence:evidence_1"),
        ("model-rewritten-after", {}, "enforce", DigestMismatch, "the statement is not about these bytes"),
        ("evidence-dropped", {}, "enforce", Refusal, "evidence_1 was dropped"),
        ("undeclared", {}, "decide", Unchecked, "input 'model' is missing"),
    ],
)
def test_gate_stops(
    bench: Any, name: str, parameters: dict[str, Any], stopped: str, error: type[Exception], words: str
) -> None:
    """Whoever cheats between two steps: the protected step does not run, and the reason is said."""
    if name == "unevidenced":
        (bench.base / "model").mkdir()
        (bench.base / "model" / "weights.json").write_text(json.dumps({"from": "nowhere", "at": time.time()}))
        parameters = {"model": str(bench.base / "model")}
    result = bench.run(name, **parameters)
    assert not result.ok
    assert result.tasks[-1].stage == stopped
    expected = Refusal if issubclass(error, Refusal) else error
    with pytest.raises(expected, match=words):
        result.require()
    assert result.tasks[-1].exit_code == expected.exit_code
    assert result.tasks[-1].error is not None
    if error is DigestMismatch:
        assert result.tasks[-1].error["error"] == "DigestMismatch"
    assert not bench.marker.exists()
    if stopped == "enforce" and name != "model-rewritten-after":
        assert bench.verdict(result)["verificationResult"] == "FAILED"
    if name == "model-rewritten-before":
        assert bench.verdict(result)["mlseal"]["reasons"][0]["rule"] == "model-digest"


def test_allowing_verdict_serves_one_run_and_its_policies(bench: Any) -> None:
    """The gate's own allowing verdict about these very bytes: from an earlier run, then under an edited policy."""
    first = bench.run("gated").require()
    bench.marker.unlink()
    verdict = first.output("decide", "verdict")
    result = bench.run(
        "verdict-of-another-run",
        model=str(first.output("training-run", "out")),
        verdict=str(verdict),
        verdict_sha256=hashlib.sha256(verdict.read_bytes()).hexdigest(),
    )
    with pytest.raises(Refusal, match="made for another run"):
        result.require()
    assert not bench.marker.exists()
    nonce = bench.verdict(first)["mlseal"]["nonce"]
    bench.policy.write_text(bench.policy.read_text() + "# edited after the verdict\n")
    document = {
        "inputs": {
            "parameterValues": {
                "model_name": "risk-a",
                "run_id": nonce,
                "workspace": "default",
                "action": "gate",
                "verdict_sha256": hashlib.sha256(verdict.read_bytes()).hexdigest(),
            },
            "artifacts": {
                "model": {"artifacts": [{"uri": str(first.output("training-run", "out"))}]},
                "verdict": {"artifacts": [{"uri": str(verdict)}]},
            },
        },
        "outputs": {"parameters": {"passed_sha256": {"outputFile": str(bench.base / "passed")}}},
    }
    done = _step(bench, "enforce", document)
    assert done.returncode == Refusal.exit_code
    assert "made by other policies than apply here" in done.stderr
    assert not (bench.base / "passed").exists()


def test_collected_evidence_and_a_policy_of_the_pipeline(bench: Any) -> None:
    """Two measurements from a loop, judged also by a policy that the pipeline brings: it can only be stricter."""
    model = bench.run("gated").require().output("training-run", "out")
    table = bench.base / "test.csv"
    table.write_text(
        "need,black,female,chosen\n"
        + "".join(
            f"{i % 2},{i // 2 % 2},{i // 4 % 2},{int(i % 2 == 1 or (strict and i % 5 == 0))}\n"
            for i in range(400)
            for strict in (i % 3 == 0,)
        )
    )
    own = bench.base / "pipeline-policy.yaml"
    head = bench.policy.read_text().partition("require:")[0].replace("tests/1", "pipeline/1")
    issuer, san = bench.authority.issuer, bench.authority.san("producer")
    own.write_text(
        head
        + f"""require:
  - predicate: fairness
    by: [{{issuer: "{issuer}", san: "{san}"}}]
    when:
      - {{id: gap, message: "the gap is too wide", check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.0'}}
"""
    )
    result = bench.run("looped", model=str(model), data=str(table), policy=str(own))
    verdict = bench.verdict(result)["mlseal"]
    assert {p["name"] for p in verdict["policies"]} == {"tests/1", "pipeline/1"}
    assert [r["rule"] for r in verdict["reasons"]] == ["gap"]
    kinds = [i["annotations"]["predicateType"] for i in bench.verdict(result)["inputAttestations"]]
    assert sum(kind.endswith("/fairness/v0.1") for kind in kinds) == 2  # both turns of the loop were weighed
    with pytest.raises(Refusal, match="gap"):
        result.require()


def test_demo_pipelines_run(bench: Any) -> None:
    """Build as the producer, release as the evaluator; the untrusted data stop the build before it trains."""
    made = compiling.compile_pipelines(EXAMPLE, image.host_reference())
    build, release = (compiling.write(made[name], bench.base / "compiled") for name in ("build", "release"))
    data = bench.base / "data"
    data.mkdir()
    shutil.copy(bench.data, data / "train.csv")
    rows = (f"{i % 2},{i // 2 % 2},{i % 2}\n" for i in range(400))
    (data / "test.csv").write_text("need,black,chosen\n" + "".join(rows))
    bench.script.write_text(bench.script.read_text().replace("given.data)", "given.data, 'train.csv')"))
    parameters = {
        "data_uri": str(data),
        "script_uri": str(bench.script),
        "provenance_issuer": bench.authority.issuer,
        "provenance_san": bench.authority.san("producer"),
        "training": {"target": "need"},
    }
    stopped = host.run(build, parameters, bench.base / "runs", bench.host())
    assert [t.stage for t in stopped.tasks] == ["ingestion.source"]
    with pytest.raises(Unchecked, match="no data-provenance evidence"):
        stopped.require()
    bench.authority.signer("producer").sign(statement.make(measure(data).subjects, data_provenance.URI, PROVENANCE))
    built = host.run(build, parameters, bench.base / "runs", bench.host()).require()
    (digest,) = built.outputs.values()
    told = {
        "model_uri": str(built.output("training-run", "out")),
        "data_uri": str(data),
        "model_name": "risk-a",
        "model_sha256": str(digest),
        "outcome": "need",
        "attribute": "black",
        "table": "test.csv",
        "select": "column:chosen",
        "producer_issuer": bench.authority.issuer,
        "producer_san": bench.authority.san("producer"),
        "provenance_issuer": bench.authority.issuer,
        "provenance_san": bench.authority.san("producer"),
    }
    released = host.run(
        release, told, bench.base / "runs", bench.host(environment={"MLSEAL_ROLE": "evaluator"})
    ).require()
    assert {t.stage for run in (built, released) for t in run.tasks} == STAGES | {"decide", "enforce"}
    assert released.outputs["Output"] == digest
    evidence = Bundle.read(released.output("governance-fairness", "evidence"))
    assert evidence.statement.predicate["modelProvenance"]


def test_verdict_signed_by_a_producer_is_refused(bench: Any) -> None:
    """The run's own account signs an allowing verdict: its signature is good, its identity is not the gate's."""
    result = bench.run("gated", bench.host(environment={"MLSEAL_GATE_ROLE": "producer"}))
    assert bench.verdict(result)["verificationResult"] == "PASSED"
    with pytest.raises(Refusal, match="this identity may not make"):
        result.require()
    assert not bench.marker.exists()


def test_placeholder_and_foreign_images_do_not_run(bench: Any) -> None:
    """The checked-in file as it is; an image that this host does not stand in for; other code."""
    parameters = {"data": str(bench.data), "script": str(bench.script), "marker": str(bench.marker)}
    for reference, error in (
        (image.PLACEHOLDER, Misuse),
        (REAL, Misuse),
        (f"{image.HOST_REPOSITORY}@{REAL.rpartition('@')[2]}", DigestMismatch),
    ):
        pipeline = bench.pipelines["gated"].with_image(reference)
        path = compiling.write(pipeline, bench.base / "other")
        with pytest.raises(error):
            host.run(path, parameters, bench.base / "root", bench.host())
    assert not (bench.base / "root").exists()


def test_enforce_itself_refuses_the_placeholder(bench: Any) -> None:
    """Also without the runner: whoever starts the container of an unfilled file."""
    done = _step(bench, "enforce", {"outputs": {}}, reference=image.PLACEHOLDER)
    assert done.returncode == Misuse.exit_code
    assert "the image is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_stand_in_for_an_image_claims_no_image(bench: Any) -> None:
    """The file names a real image; the evidence says that it did not run."""
    parameters = {"data": str(bench.data), "script": str(bench.script), "marker": str(bench.marker)}
    result = host.run(
        bench.file("gated", REAL),
        parameters,
        bench.base / "root",
        bench.host(images=frozenset({REAL}), environment={"MLSEAL_BUILDER": "container"}),
    ).require()
    predicate = Bundle.read(result.output("training-run", "evidence")).statement.predicate
    assert predicate["runDetails"]["builder"]["id"].endswith("/host-process/v0.1")
    assert [d["name"] for d in predicate["buildDefinition"]["resolvedDependencies"]] == ["data", "code"]


def test_failing_stage_leaves_no_output(bench: Any) -> None:
    """No model, no evidence, no outputFile; the training program's last line is the reason."""
    result = bench.run("gated", parameters={"fail": "yes"})
    record = result.task("training-run")
    assert record.exit_code == Unchecked.exit_code
    with pytest.raises(Unchecked, match="no convergence"):
        result.require()
    directory = Path(record.directory)
    assert not directory.exists() or list(directory.iterdir()) == []
    assert not bench.marker.exists()


@pytest.mark.parametrize(
    "text", ["/usr/lib/python3/x", "a'b\"c", "deny' or 'x", '$(id) `id` \\ \n{"a": 1}', "日本 é", " "]
)
def test_values_arrive_as_given(bench: Any, text: str) -> None:
    """`python3`, quotes, shell and JSON in values; kfp.local's own runner changes some of these."""
    assert bench.run("echoed", text=text).require().outputs["Output"] == text


def test_root_with_python3_in_its_path(bench: Any) -> None:
    """Where kfp.local's own runner writes elsewhere and calls it a success."""
    path = bench.file("echoed")
    result = host.run(path, {"text": "x"}, bench.base / "python3 'root'", bench.host()).require()
    assert "python3 'root'" in result.task("echo-2").directory


@pytest.mark.parametrize("limit", ["task_seconds", "run_seconds"])
def test_hung_step_is_killed_with_all_it_started(bench: Any, limit: str) -> None:
    """The grandchild left its session, its parent and its environment."""
    file = bench.base / "pid"
    started = time.monotonic()
    result = bench.run("hung", bench.host(**{limit: 10.0}), text=str(file))
    assert time.monotonic() - started < 60
    with pytest.raises(
        Unchecked, match="task 'hang' did not end in time" if limit == "task_seconds" else "the run did not end in time"
    ):
        result.require()
    assert not file.exists() or _gone(int(file.read_text()))


def test_runner_ends_when_its_caller_is_killed(bench: Any) -> None:
    """SIGKILL for the process that called `run`: nothing goes on without it."""
    file = bench.base / "pid"
    path = bench.file("hung")
    program = (
        "import pathlib, sys; from mlseal_kfp.host import Host, run; "
        "run(pathlib.Path(sys.argv[1]), {'text': sys.argv[2]}, pathlib.Path(sys.argv[3]), "
        "Host(modules=frozenset({'example_deploy'})))"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(file), str(bench.base / "root")],
        env={**os.environ, **bench.environment},
    )
    _wait_for(lambda: file.exists() and file.read_text() != "")
    caller.kill()
    caller.wait()
    _wait_for(lambda: _gone(int(file.read_text())))


def test_what_a_file_may_not_do_here(bench: Any) -> None:
    """Conditions, other modules, variables that change trust: refused before anything starts."""
    with pytest.raises(Misuse, match="under a condition"):
        bench.run("branching", text="allow")
    with pytest.raises(Misuse, match="not allowed on this host"):
        bench.run("gated", host.Host())
    document: Any = json.loads(json.dumps(bench.pipelines["echoed"].with_image(image.host_reference()).documents[0]))
    document["deploymentSpec"]["executors"]["exec-echo"]["container"]["env"] = [{"name": "MLSEAL_TRUST", "value": "x"}]
    path = bench.base / "env.yaml"
    type(bench.pipelines["echoed"])((document,)).write(path)
    with pytest.raises(Misuse, match="sets MLSEAL_TRUST"):
        host.run(path, {"text": "x"}, bench.base / "root", bench.host())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "'text' is missing"),
        ({"text": "x", "txet": "y"}, "no parameter 'txet'"),
        ({"text": "{{$.pipeline_job_uuid}}"}, "would expand"),
        ({"text": "x" * 70_000}, "too long"),
    ],
)
def test_parameters_are_checked(bench: Any, parameters: dict[str, Any], words: str) -> None:
    """One sentence each, before anything starts."""
    with pytest.raises(Misuse, match=words):
        bench.run("echoed", **parameters)


def test_installed_kfp_is_one_that_was_tried() -> None:
    """The guard of the runner: another version is refused at run time, and this test says so at upgrade time."""
    assert metadata.version("kfp") in hostprocess.TESTED


def test_command_line_reports_and_exits_like_the_step(bench: Any, authority: Any) -> None:
    """`mlseal kfp run`: says that nothing is enforced, prints JSON, and ends with the refusing step's status."""
    (bench.base / "model").write_text("from nowhere")
    options = [part for name, value in bench.environment.items() for part in ("--env", f"{name}={value}")]
    done = authority.run(
        "kfp",
        "run",
        str(bench.file("unevidenced")),
        "--param",
        f"model={bench.base / 'model'}",
        "--param",
        f"marker={bench.marker}",
        "--root",
        str(bench.base / "root"),
        "--allow-module",
        "example_deploy",
        "--json",
        *options,
    )
    assert done.returncode == Unchecked.exit_code, done.stderr
    assert "development: not enforced" in done.stderr
    document = json.loads(done.stdout)
    assert [(t["stage"], t["exit"]) for t in document["tasks"]] == [("decide", 0), ("enforce", 11)]
    assert not bench.marker.exists()


def _step(
    bench: Any, stage: str, document: dict[str, Any], reference: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mlseal_kfp.step",
        stage,
        "--image",
        reference or image.host_reference(),
        "--executor-input",
        json.dumps(document),
    ]
    environment = {**os.environ, **bench.environment, "MLSEAL_KFP_HOST": "1", **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_embedded_trust_is_refused_inside_kubernetes(bench: Any) -> None:
    """A uid means nothing in a pod."""
    (bench.base / "model").write_text("m")
    document = {
        "inputs": {
            "parameterValues": {"model_name": "risk-a", "run_id": "r"},
            "artifacts": {"model": {"artifacts": [{"uri": str(bench.base / "model")}]}},
        },
        "outputs": {
            "artifacts": {"verdict": {"artifacts": [{"uri": str(bench.base / "v")}]}},
            "parameters": {"verdict_sha256": {"outputFile": str(bench.base / "vs")}},
        },
    }
    for stage in ("decide", "enforce", "training.run"):
        done = _step(bench, stage, document, KUBERNETES_SERVICE_HOST="10.0.0.1")
        assert done.returncode == Refusal.exit_code, done.stderr
        assert "no authority inside Kubernetes" in done.stderr
    assert not (bench.base / "v").exists()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _wait_for(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
