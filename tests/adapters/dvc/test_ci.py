"""The CI templates, run as their runners run them: a request is judged by the protected branch, never by itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapters.dvc.people import Person, Scene, fresh, policy_text
from mlseal_dvc import commands, reports

from mlseal.errors import Unchecked

CI = Path(__file__).resolve().parents[3] / "dvc_hooks" / "ci"
ACTION, WORKFLOW = CI / "github" / "action.yml", CI / "github" / "example-workflow.yml"
TEMPLATE = CI / "gitlab" / "mlseal.gitlab-ci.yml"


@dataclass
class Project:
    """A protected branch with trust root and policy, on a forge; requests are branches there."""

    scene: Scene
    forge: Path
    fingerprint: str
    python: Path
    runner: Person
    tmp: Path

    @property
    def inputs(self) -> dict[str, str]:
        return {
            "trust-fingerprint": self.fingerprint,
            "policy": ".mlseal/data-policy.yaml",
            "install": "",
            "python": str(self.python),
        }

    def request(self, name: str, change: Callable[[], object]) -> str:
        """A branch from main with what `change` makes of the owner's working tree."""
        self.scene.owner.git("checkout", "-q", "-f", "-B", name, "main")
        change()
        commit = self.scene.owner.commit(name)
        self.scene.owner.git("push", "-q", "-f", "--no-verify", "origin", f"{name}:refs/pull/7/head", name)
        return commit

    def github(self, head: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        return run_action(self, head, self.inputs | inputs)

    def gitlab(self, head: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        return run_job(self, head, self.inputs | inputs)


@pytest.fixture
def project(scene: Scene, authority: Any, interpreters: dict[str, Path], tmp_path: Path) -> Project:
    own = scene.repo / ".mlseal"
    own.mkdir()
    shutil.copy(authority.trusted_root, own / "trusted_root.json")
    (own / "data-policy.yaml").write_text(policy_text(authority.issuer, authority.san("producer")))
    scene.owner.commit("trust root and policy")
    forge = tmp_path / "forge.git"
    scene.owner.git("init", "-q", "--bare", str(forge))
    scene.owner.git("remote", "add", "origin", str(forge))
    scene.owner.git("push", "-q", "--no-verify", "origin", "main")
    runner = scene.newcomer("runner", autoload=False, clone=False)
    # Neither token nor pinned root nor policy: what a fork's request has.
    env = {key: value for key, value in runner.env.items() if not key.startswith(("MLSEAL_", "DVC_", "SIGSTORE"))}
    runner.env = env | {"HOME": str(tmp_path / "nobody")}
    (tmp_path / "nobody").mkdir()
    return Project(scene, forge, authority.trust.fingerprint, interpreters["plain"], runner, tmp_path)


def run_action(project: Project, head: str, inputs: dict[str, str], event: str = "pull_request_target") -> Any:
    """The composite action's steps as GitHub runs them, in a checkout of the protected branch."""
    action = yaml.safe_load(ACTION.read_text())
    temp = Path(shutil.copytree(project.tmp / "nobody", project.tmp / f"run-{len(list(project.tmp.glob('run-*')))}"))
    checkout = temp / "checkout"
    project.runner.git("clone", "-q", "-b", "main", "--depth", "1", f"file://{project.forge}", str(checkout), cwd=temp)
    base = project.runner.git("rev-parse", "HEAD", cwd=checkout).stdout.strip()
    context = {
        "github.event.pull_request.base.sha": base,
        "github.event.pull_request.head.sha": head,
        "github.event.pull_request.number": "7",
        "runner.temp": str(temp),
    }

    def expand(text: object) -> str:
        return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda found: context[found[1]], str(text))

    assert inputs.keys() <= action["inputs"].keys()
    for name, declared in action["inputs"].items():
        assert name in inputs or "default" in declared, f"input {name} is required"
        context[f"inputs.{name}"] = inputs.get(name, expand(declared.get("default", "")))
    env = project.runner.env | {"GITHUB_EVENT_NAME": event, "GITHUB_ACTIONS": "true"}
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        env[name] = str(temp / name)
    printed = ["", ""]
    for step in action["runs"]["steps"]:
        script = temp / "step.sh"
        assert "${{" not in step["run"], "values reach a script through its environment only"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=checkout,
            env=env | {name: expand(value) for name, value in step["env"].items()},
            capture_output=True,
            text=True,
            check=False,
        )
        printed = [printed[0] + done.stdout, printed[1] + done.stderr]
        if done.returncode != 0:
            break
    summary = temp / "GITHUB_STEP_SUMMARY"
    done.summary = summary.read_text() if summary.exists() else ""
    done.stdout, done.stderr = printed
    return done


def run_job(project: Project, head: str, inputs: dict[str, str]) -> Any:
    """The job's script as GitLab runs it, in a checkout of the request itself."""
    spec, jobs = (yaml.safe_load(part) for part in TEMPLATE.read_text().split("\n---\n"))
    declared = spec["spec"]["inputs"]
    assert inputs.keys() <= declared.keys()
    values = {name: inputs[name] if name in inputs else each["default"] for name, each in declared.items()}
    (job,) = jobs.values()
    text = "\n".join(job["script"])
    script = re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda found: values[found[1]], text)
    place = project.tmp / f"job-{len(list(project.tmp.glob('job-*')))}"
    project.runner.git("clone", "-q", str(project.forge), str(place), cwd=project.tmp)
    project.runner.git("fetch", "-q", "origin", "refs/pull/7/head", cwd=place)
    project.runner.git("checkout", "-q", "--detach", head, cwd=place)
    env = project.runner.env | {
        "CI_COMMIT_SHA": head,
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_PROJECT_URL": "https://forge.example/team/data",
        "TMPDIR": str(project.tmp),
    }
    done = subprocess.run(["sh", "-c", script], cwd=place, env=env, capture_output=True, text=True, check=False)
    report = place / "mlseal-dvc.json"
    done.report = json.loads(report.read_text()) if report.is_file() and report.read_text() else None
    return done


def unsigned(project: Project) -> None:
    """Data that somebody pushed with a DVC without mlseal."""
    scene = project.scene
    (scene.repo / "theirs.csv").write_bytes(fresh())
    plain = Person(project.python, scene.owner.env, scene.repo)
    plain.dvc("add", "-q", "theirs.csv")
    plain.dvc("push", "theirs.csv")


def signed(project: Project) -> None:
    scene = project.scene
    (scene.repo / "data.csv").write_bytes(fresh())
    scene.owner.dvc("add", "-q", "data.csv")
    scene.owner.dvc("push", "data.csv")


def rewrite(project: Project) -> None:
    """Everything in the tree that one might think decides, changed for the attacker."""
    repo = project.scene.repo
    (repo / ".dvc" / "mlseal.json").unlink()
    anyone = policy_text("https://evil.example", "https://evil.example/x")
    (repo / ".mlseal" / "data-policy.yaml").write_text(anyone.replace('"*"', '"nothing"'))
    (repo / ".mlseal" / "trusted_root.json").write_text("{}")
    (repo / ".dvc" / "config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {project.tmp}\n"
    )
    for name in ("mlseal/__init__.py", "mlseal/__main__.py", "sitecustomize.py", "dvc/__init__.py"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text("import os; os._exit(0)\n")
    (repo / "mlseal-dvc.json").symlink_to(project.tmp / "victim")


def test_github_action(project: Project) -> None:
    good = project.request("good", lambda: signed(project))
    done = project.github(good)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted" in done.summary and "✅ signed by" in done.summary and "data.csv" in done.summary

    # The request rewrites policy, marker, trust root, remote and even modules: the decision stays the same.
    both = project.request("rewritten", lambda: (signed(project), rewrite(project)))
    assert project.github(both).returncode == 0
    bad = project.request("bad", lambda: (unsigned(project), rewrite(project)))
    done = project.github(bad)
    assert done.returncode == 11
    assert "::error file=theirs.csv.dvc,title=no valid provenance::no provenance of theirs.csv" in done.stderr
    assert "refused" in done.summary and "❌ no provenance of theirs.csv" in done.summary

    # An earlier commit of the request counts, though its tip no longer holds the output.
    tip = project.request("taken-back", lambda: unsigned(project))
    (project.scene.repo / "theirs.csv.dvc").unlink()
    assert project.github(project.scene.owner.commit("gone"), **{"head-ref": ""}).returncode == 128, "not on the forge"
    project.scene.owner.git("push", "-q", "--no-verify", "origin", "HEAD:refs/pull/7/head")
    taken_back = project.scene.owner.git("rev-parse", "HEAD").stdout.strip()
    assert tip[:12] in project.github(taken_back).summary

    shutil.rmtree(project.scene.evidence / "bundles")
    project.scene.owner.git("push", "-q", "-f", "--no-verify", "origin", "good:refs/pull/7/head")
    assert project.github(good).returncode == 11, "the evidence was deleted"


def test_github_action_without_data_and_with_wrong_inputs(project: Project) -> None:
    code = project.request("code", lambda: (project.scene.repo / "code.py").write_text("pass"))
    assert project.github(code).returncode == 0
    assert project.github(code, **{"trust-fingerprint": "sha256:" + "0" * 64}).returncode == 10
    done = project.github(code, policy="")
    assert done.returncode == 2 and "nobody is named" in done.stdout
    done = project.github(code, base="main")
    assert done.returncode == 2 and "commit ids" in done.stdout

    def nested() -> None:
        """A DVC repository inside, without configuration: it would hide what lies below from the one above."""
        (project.scene.repo / "sub" / ".dvc").mkdir(parents=True)
        (project.scene.repo / "sub" / ".dvc" / ".gitignore").write_text("/tmp\n")
        (project.scene.repo / "sub" / "x.csv.dvc").write_text("outs:\n- md5: " + "0" * 32 + "\n  path: x.csv\n")

    done = project.github(project.request("nested", nested))
    assert done.returncode == 11 and "'sub'" in done.stderr and "not checked" in done.stderr


def test_gitlab_template(project: Project) -> None:
    good = project.request("good", lambda: signed(project))
    done = project.gitlab(good)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.report["ok"] and [row["path"] for row in done.report["outputs"]] == ["data.csv"]
    bad = project.request("bad", lambda: (unsigned(project), rewrite(project)))
    done = project.gitlab(bad)
    assert done.returncode == 11, done.stdout + done.stderr
    assert [row["ok"] for row in done.report["outputs"]] == [False]
    assert not (project.tmp / "victim").exists()
    shutil.rmtree(project.scene.evidence / "bundles")
    project.scene.owner.git("push", "-q", "-f", "--no-verify", "origin", "good:refs/pull/7/head")
    assert project.gitlab(good).returncode == 11


def test_verify_revisions_by_hand(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    first = scene.owner.git("rev-parse", "HEAD").stdout.strip()
    scene.add("more.csv", fresh())
    ci = scene.newcomer("ci", autoload=False)
    assert ci.mlseal("dvc", "verify", "--rev", first).returncode == 0
    assert ci.mlseal("dvc", "verify", "--rev", "HEAD", "--since", first, ok=None).returncode == 11
    assert ci.mlseal("dvc", "verify", "--rev", "nonsense", "--since", first, ok=None).returncode == 2
    assert ci.mlseal("dvc", "verify", "--since", first, ok=None).returncode == 2
    from adapters.dvc.people import replace

    replace(scene.object_of("data.csv.dvc"), b"poison")
    assert ci.mlseal("dvc", "verify", "--rev", first, ok=None).returncode == 10
    assert ci.mlseal("dvc", "verify", "--rev", first, "--evidence-only").returncode == 0
    assert not (ci.cwd / "data.csv").exists()


def validate(schema: str, file: Path, *options: str) -> None:
    """The schemas come with check-jsonschema: nothing is downloaded."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_templates_have_the_shape_that_their_forges_publish(tmp_path: Path) -> None:
    validate("github-actions", ACTION)
    validate("github-workflows", WORKFLOW)
    (tmp_path / "job.yml").write_text(TEMPLATE.read_text().split("\n---\n")[1])
    validate("gitlab-ci", tmp_path / "job.yml", "--data-transform", "gitlab-ci")
    (tmp_path / "wrong.yml").write_text("job: {script: [true], when: whenever}\n")
    with pytest.raises(AssertionError):
        validate("gitlab-ci", tmp_path / "wrong.yml", "--data-transform", "gitlab-ci")


def test_the_example_runs_on_the_protected_branch_only() -> None:
    text = WORKFLOW.read_text()
    workflow = yaml.load(text, yaml.BaseLoader)
    assert list(workflow["on"]) == ["pull_request_target"] and workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    checkout = job["steps"][0]
    assert checkout["uses"].startswith("actions/checkout@") and "ref" not in checkout["with"]
    used = job["steps"][-1]["with"]
    assert used.keys() <= yaml.safe_load(ACTION.read_text())["inputs"].keys()
    assert "vars." in used["trust-fingerprint"] and "head" not in text


def test_names_in_a_report_obey_nobody() -> None:
    class Pointer:
        path, rev, stage = "a\n::stop-commands::x|<b>`", "0" * 40, "a,b:\n::error::.dvc:stage"

    class Outcome:
        pointer, attested, error = Pointer, None, Unchecked("no provenance of 100%\n::error::x", got="a | b")

    page = reports.summary([Outcome], ["0" * 40])
    assert "\n::" not in page and "<b>" not in page and r"\|" in page
    (line,) = reports.for_reviewers([Outcome])
    assert "\n" not in line and "100%25" in line and line.startswith("::error file=a%2Cb,")
    assert "\n" not in commands.printable(Pointer.path) and commands.printable("Grüße.csv") == "Grüße.csv"
