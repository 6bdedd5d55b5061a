"""The main job, on real people: signed data, a pipeline, a gate that refuses for a reason, a repair, an audit.

    make demo                                        RAND Health Insurance Experiment, 5,398 people
    make demo ARGS=--full                            and a private retrain, its attacks, notes with names in them
    python examples/demo/main.py --data nhefs        the same job on another data set

Nothing is scripted: the thresholds stand in ``examples/demo/policies``, and whether the gate refuses or allows is what
the data say. The job ends with status 0 only if every step ended as such a history must; it prints what it refused.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import full
from rich.console import Console
from workbench import (
    Canary,
    Row,
    Unexpected,
    Workbench,
    answer,
    card_of,
    fresh,
    in_words,
    mlflow_server,
    private_python,
    reason,
    share,
    without_network,
)

from mlseal.evidence.predicates import fairness
from mlseal.evidence.store import Store

HERE = Path(__file__).resolve().parent
NAME = "demo.mlseal.local"
ISSUER = f"https://{NAME}/issuer"
PRODUCER = f"https://{NAME}/roles/producer"
MODEL = "outreach"
CANDIDATES = (("a", "use", "admin"), ("b", "need", "admin+income"))
"""Label, what is learned, from which features: the convenient label first, the purpose second."""


@dataclass
class Job:
    """The job on one data set: the workbench and what earlier steps made."""

    bench: Workbench
    data: str
    about: dict[str, Any]
    python: Path
    service: subprocess.Popen[bytes] | None = None

    # -- trust and data ---------------------------------------------------------------------------------------------

    def found_authority(self, row: Row) -> None:
        """An authority of this machine: keys in one process, short-lived tokens for everybody else."""
        bench = self.bench
        bench.run("mlseal", "init", ".mlseal", "--name", NAME, "--state", bench.root / "authority")
        self.service = subprocess.Popen(
            [sys.executable, "-m", "mlseal", "serve", "--state", str(bench.root / "authority")],
            env=bench.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        bench.run("mlseal", "log", "pin")
        row.proved = "one process holds the keys; its first checkpoint is pinned, so a rewritten log would be noticed"

    def sign_data(self, row: Row) -> None:
        """Plain ``dvc push`` signs what it uploads."""
        bench, run = self.bench, self.bench.run
        run("git", "init", "-q", "-b", "main")
        run("dvc", "init", "-q")
        run("python", HERE / "data.py", "--name", self.data, "--out", "data")
        self.about.update(json.loads((bench.project / "data" / "dataset.json").read_text()))
        run("dvc", "add", "-q", "data")
        run("dvc", "remote", "add", "-q", "-d", "store", bench.root / "remote")
        run("mlseal", "dvc", "install", python=self.python)
        run("git", "add", "-A", quiet=True)
        run("git", "commit", "-q", "-m", "data of the outreach programme")
        run("mlseal", "revoke", "--snapshot", "--role", "monitor")  # nothing withdrawn so far: the push takes it along
        run("dvc", "push", python=self.python)
        rows = self.about["rows"]
        row.proved = f"{rows['train'] + rows['test']} people; digest, commit and signer of exactly the objects uploaded"

    def swap_data(self, row: Row) -> None:
        """Somebody with access to the remote exchanges a data file; a colleague pulls."""
        bench, colleague = self.bench, self.bench.root / "colleague"
        objects = sorted((bench.root / "remote" / "files" / "md5").rglob("*"), key=lambda p: p.stat().st_size)
        target = next(p for p in reversed(objects) if p.is_file())
        kept, mode = target.read_bytes(), target.stat().st_mode
        target.chmod(0o644)
        target.write_bytes(kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:])
        target.chmod(0o444)  # what a careful attacker does: DVC trusts read-only objects
        bench.run("git", "clone", "-q", bench.project, colleague)
        done = bench.run("dvc", "pull", cwd=colleague, python=self.python, expect=1)
        if (colleague / "data").exists():
            raise Unexpected("changed data reached the colleague's workspace")
        row.refused = reason(done.stderr + done.stdout)
        target.chmod(0o644)
        target.write_bytes(kept)
        target.chmod(mode & 0o777)
        shutil.rmtree(colleague)
        bench.run("git", "clone", "-q", bench.project, colleague)
        bench.run("dvc", "pull", cwd=colleague, python=self.python)
        row.proved = "with the object restored, the same pull succeeds"

    # -- models -----------------------------------------------------------------------------------------------------

    def compile(self, row: Row) -> None:
        """The pipelines, compiled once; everything below runs that YAML."""
        self.bench.run("mlseal", "kfp", "compile", HERE / "pipeline.py", "--host", "-o", self.bench.root / "compiled")
        row.proved = "two pipelines: the team builds, governance releases; a step cannot sign for the other account"

    def build(self, row: Row, label: str, target: str, features: str) -> tuple[Path, str]:
        """Train one model from verified data; its directory and digest."""
        _, result = self.bench.pipeline(
            "build",
            label,
            "producer",
            row,
            data_uri=str(self.bench.project / "data"),
            script_uri=str(HERE / "train_model.py"),
            provenance_issuer=ISSUER,
            provenance_san=PRODUCER,
            training=json.dumps({"target": target, "features": features}),
        )
        (task,) = [t for t in result["tasks"] if t["stage"] == "training.run"]
        model = Path(task["directory"]) / "out"
        digest = next(str(v) for v in result["outputs"].values())
        card = card_of(model)
        row.proved = (
            f"the data's signer before use; model {digest[:12]}… was made from these bytes by this program. Its card,"
            f" signed with it: AUC {card['auc_label']:.3f} for {target}; the quarter that it invites reaches"
            f" {share(card['need_reached'])} of those in need"
        )
        return model, digest

    def release(self, row: Row, label: str, model: Path, digest: str) -> bool:
        """Measure and judge in the name of governance; whether it passes is what the data say."""
        bench = self.bench
        bench.run("mlseal", "revoke", "--snapshot", "--role", "monitor")
        done, _ = bench.pipeline(
            "release",
            f"{label}-release",
            "evaluator",
            row,
            expect=(0, 10, 11),
            model_uri=str(model),
            data_uri=str(bench.project / "data"),
            model_name=MODEL,
            model_sha256=digest,
            outcome=self.about["targets"]["need"],
            attribute=self.about["attribute"],
            cluster=self.about["cluster"] or "",
            producer_issuer=ISSUER,
            producer_san=PRODUCER,
            provenance_issuer=ISSUER,
            provenance_san=PRODUCER,
        )
        _, measured = self.fairness(digest)
        row.proved = in_words(measured)
        if done.returncode:
            row.refused = json.loads(done.stderr.strip().splitlines()[-1])["message"]
        return done.returncode == 0

    def fairness(self, digest: str) -> tuple[str, dict[str, Any]]:
        """Id and claim of the newest fairness evidence about `digest`, to tell of; the gate verified it for itself."""
        store = Store(self.bench.store)
        about = [
            (said.predicate["finishedOn"], said.evidence_id, dict(said.predicate))
            for said in (store.get(evidence_id).statement for evidence_id in store.ids())
            if said.predicate_type == fairness.URI and digest in {subject.sha256 for subject in said.subjects}
        ]
        _, evidence_id, claim = max(about, key=lambda item: item[:2])
        return evidence_id, claim

    # -- registry ---------------------------------------------------------------------------------------------------

    def register(self, url: str, model: Path) -> str:
        """A new version with the bytes of `model`; registering is free, promoting is not."""
        done = self.bench.run(
            "python", HERE / "registry_client.py", "register", model, MODEL, MLFLOW_TRACKING_URI=url, quiet=True
        )
        return done.stdout.split()[-1]

    def promote(self, url: str, version: str) -> tuple[int, str]:
        """Ask the registry to call `version` champion; HTTP status and message."""
        self.bench.say(f"[dim]PUT alias champion → version {version}[/]")
        status, body = answer(
            f"{url}/api/2.0/mlflow/registered-models/alias",
            "POST",
            {"name": MODEL, "alias": "champion", "version": version},
        )
        return status, " ".join(str(body.get("message", "")).split())

    def champion(self, url: str) -> str | None:
        """The version that champion points at now, asked of the registry."""
        status, body = answer(f"{url}/api/2.0/mlflow/registered-models/alias?name={MODEL}&alias=champion", "GET")
        return str(body["model_version"]["version"]) if status == 200 else None

    def refuse_alias(self, row: Row, url: str, version: str, before: str | None) -> None:
        """An alias that must be refused, with the registry's state unchanged."""
        status, message = self.promote(url, version)
        if status != 403 or self.champion(url) != before:
            raise Unexpected(f"alias ended with {status}: {message}")
        row.refused = message

    def load(self, url: str, expect: int) -> str:
        """Load the champion through the verifying scheme; what it printed, or the refusal."""
        done = self.bench.run(
            "python",
            HERE / "registry_client.py",
            "score",
            f"attested:/{MODEL}@champion",
            self.bench.project / "data" / "test.parquet",
            expect=expect,
            MLFLOW_TRACKING_URI=url,
        )
        return done.stdout.strip() if expect == 0 else reason(done.stderr)

    def spoil(self, url: str, canary: Path) -> tuple[Path, bytes]:
        """Overwrite the stored pickle through MLflow's own artifact proxy; returns what restores it."""
        (stored,) = [
            p for p in (self.bench.root / "mlflow" / "artifacts").rglob("model.pkl") if self.is_champions(url, p)
        ]
        kept = stored.read_bytes()
        path = stored.relative_to(self.bench.root / "mlflow" / "artifacts").as_posix()
        request = urllib.request.Request(
            f"{url}/api/2.0/mlflow-artifacts/artifacts/{path}", method="PUT", data=pickle.dumps(Canary(str(canary)))
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            if response.status != 200 or stored.read_bytes() == kept:
                raise Unexpected("the artifact proxy did not take the hostile file; the attack was not made")
        return stored, kept

    def is_champions(self, url: str, file: Path) -> bool:
        """Whether `file` belongs to the version that champion points at."""
        version = self.champion(url)
        _, body = answer(f"{url}/api/2.0/mlflow/model-versions/get?name={MODEL}&version={version}", "GET")
        return str(body["model_version"]["run_id"]) in file.parts

    # -- people and audit -------------------------------------------------------------------------------------------

    def approve(self, model: Path, digest: str) -> str:
        """A person who read the fairness evidence says yes to exactly these bytes; the approval's evidence id."""
        read, _ = self.fairness(digest)
        done = self.bench.run("mlseal", "approve", model, "--evidence", read, "--role", "reviewer/17", "--json")
        return str(json.loads(done.stdout)["evidenceId"])

    def audit(self, row: Row) -> None:
        """Everything again, from files, without service, keys or network."""
        bench = self.bench
        bench.run("mlseal", "log", "recover")  # what the stopped registry signed last and did not get to store
        bench.run("mlseal", "log", "export", bench.root / "log")
        self.stop()
        shutil.rmtree(bench.root / "authority")
        prefix = without_network()
        done = bench.run("mlseal", "audit", ".mlseal", "--tiles", bench.root / "log", "--json", prefix=prefix)
        report = json.loads(done.stdout)
        where = "in an empty network namespace"
        if not prefix:
            where = "with the service gone (this machine allows no empty network namespace)"
        row.proved = f"{report['treeSize']} log entries and {report['verified']} bundles verified {where}, keys deleted"

    def stop(self) -> None:
        """End the trust service that this job started."""
        if self.service is not None and self.service.poll() is None:
            self.service.send_signal(signal.SIGTERM)
            self.service.wait(30)


def story(job: Job, *, more: bool) -> None:
    """The steps in order; each ends the job if it does not end as such a step must. `more`: those of ``--full``."""
    bench = job.bench
    with bench.step("An authority for this machine") as row:
        job.found_authority(row)
    with bench.step("dvc push signs the data") as row:
        job.sign_data(row)
    with bench.step("Data changed on the remote") as row:
        job.swap_data(row)
    with bench.step("Compile the pipelines") as row:
        job.compile(row)
    with mlflow_server(bench) as url:
        chosen = next(
            (made for label, target, features in CANDIDATES if (made := candidate(job, url, label, target, features))),
            None,
        )
        if chosen is None:
            bench.say("[bold]No candidate passed its release: there is nothing to promote, and nothing was.[/]")
        else:
            promotion(job, url, *chosen)
    if more:
        full.steps(bench, job.about, chosen[0] if chosen else None)
    with bench.step("Audit, offline") as row:
        job.audit(row)


def candidate(job: Job, url: str, label: str, target: str, features: str) -> tuple[Path, str, str] | None:
    """Build, release and register one candidate; (directory, digest, version) if the release let it pass."""
    bench = job.bench
    with bench.step(f"Build model {label.upper()}: learns {target}") as row:
        model, digest = job.build(row, label, target, features)
    with bench.step(f"Release model {label.upper()}") as row:
        passed = job.release(row, label, model, digest)
    with bench.step(f"Promote model {label.upper()} in MLflow" + (": nobody has approved" if passed else "")) as row:
        version = job.register(url, model)
        job.refuse_alias(row, url, version, None)
    return (model, digest, version) if passed else None


def promotion(job: Job, url: str, model: Path, digest: str, version: str) -> None:
    """Approval, promotion, an attack on the stored model, and the approval's withdrawal."""
    bench = job.bench
    with bench.step("A person approves, the alias goes through") as row:
        approval = job.approve(model, digest)
        status, message = job.promote(url, version)
        if status != 200 or job.champion(url) != version:
            raise Unexpected(f"alias refused: {status} {message}")
        row.proved = f"champion is version {version}; {job.load(url, 0)} through attested:/"
    with bench.step("The stored model is overwritten") as row:
        canary = bench.root / "canary"
        stored, kept = job.spoil(url, canary)
        row.refused = job.load(url, 10)
        if canary.exists():
            raise Unexpected("the hostile pickle ran")
        stored.write_bytes(kept)
        row.proved = f"hostile pickle in the registry's storage, not unpickled; restored: {job.load(url, 0)}"
    with bench.step("The approval is withdrawn") as row:
        bench.run("mlseal", "revoke", approval, "--reason", "withdrawn", "--role", "monitor")
        job.refuse_alias(row, url, version, version)
        row.proved = "the gate is closed again, for the alias and for loading: " + job.load(url, 10)[:160]


def default_work() -> Path:
    """A directory of this user outside the working tree: the service's keys may not lie inside a project."""
    return Path(tempfile.gettempdir()) / f"mlseal-demo-{os.getuid()}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The main job of mlseal, on real data.")
    parser.add_argument("--data", choices=("randhie", "nhefs", "diabetes"), default="randhie")
    parser.add_argument("--work", type=Path, default=default_work(), help="directory for everything that is made")
    parser.add_argument("--full", action="store_true", help="also the stages that need torch, spaCy and ART (randhie)")
    options = parser.parse_args()
    if options.full and options.data != "randhie":
        parser.error("--full is told of randhie alone: its policies name households")
    started = time.monotonic()
    console = Console(width=max(100, min(160, Console().width)))
    bench = Workbench(fresh(options.work.resolve()), console)
    bench.project.mkdir()
    shutil.copytree(HERE / "policies", bench.root / "policies")
    job = Job(bench, options.data, {}, private_python(bench))
    try:
        story(job, more=options.full)
    finally:
        job.stop()
    console.print(bench.table())
    console.print(bench.stage_table())
    total = sum(row.seconds for row in bench.rows)
    console.print(
        f"{len(bench.rows)} steps in {time.monotonic() - started:.0f} s (steps {total:.0f} s)."
        f" Commands, logs, evidence and models: {bench.root}"
    )


if __name__ == "__main__":
    main()
