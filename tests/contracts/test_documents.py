"""What the pages say can be typed, and does what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts import commands, console

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*/README.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
    if "node_modules" not in page.parts
)
SOURCES = sorted(
    file
    for folder in (
        "mlseal",
        "kfp_components/mlseal_kfp",
        "mlflow_plugins/mlseal_mlflow",
        "dvc_hooks/mlseal_dvc",
        "expectations/mlseal_gx",
    )
    for file in (ROOT / folder).rglob("*.py")
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if console.steps(page)], ids=name)
def test_every_console_block_does_what_the_page_says(page, home, tmp_path):
    work = tmp_path / "project"
    work.mkdir()
    env = home.env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLSEAL_EXAMPLES": str(ROOT / "examples"),
    }
    for file, text in console.files(page).items():
        (work / file).write_text(text)
    for step in console.steps(page):
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=work,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        assert (wrong := step.disagreement(done.returncode, done.stdout)) is None, wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_on_a_page_exists(page):
    assert [wrong for command in commands.in_page(page) if (wrong := commands.fault(command))] == []


def test_every_command_that_a_message_names_exists():
    """A remedy that cannot be typed is worse than none."""
    found = {(name(file), command) for file in SOURCES for command in commands.in_source(file)}
    assert len(found) > 20
    assert sorted(f"{file}: {wrong}" for file, command in found if (wrong := commands.fault(command))) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_and_path_on_a_page_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    assert {target for target in re.findall(r"`make ([a-z]+)", text)} <= targets
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), f"{name(page)} links to {link}"


RUNS = {"demo": "examples/demo/main.py", "test": "-m pytest", "bench": "benchmarks/bench_statement.py"}
"""Target → what its recipe must start."""


def test_the_two_commands_of_the_readme_start_what_they_promise():
    """`make -n` prints the recipe: the commands themselves take minutes and have tests of their own."""
    blocks = [text for language, text, _ in console.fences(ROOT / "README.md") if language == "sh"]
    targets = [target for text in blocks for target in re.findall(r"^make ([a-z]+)", text, re.MULTILINE)]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        started = [line for line in done.stdout.splitlines() if RUNS[target] in line]
        assert started, f"make {target} does not start {RUNS[target]}"
        assert all((ROOT / word).is_file() for line in started for word in line.split() if word.endswith(".py"))


def python_of(page: str) -> str:
    (text,) = [text for language, text, _ in console.fences(ROOT / page) if language == "python"]
    return text


def test_the_stage_of_the_page_is_a_stage():
    made: dict = {}
    exec(python_of("docs/stages/README.md"), made)  # noqa: S102 - our own page
    assert made["mine"].name == "testing.mine"
    assert [(p.name, p.role, bool(p.help)) for p in made["mine"].parameters] == [
        ("dataset", "input", True),
        ("strictness", "value", True),
    ]


def test_the_pipeline_of_the_page_compiles(tmp_path):
    from mlseal_kfp import compiling, image

    file = tmp_path / "pipeline.py"
    file.write_text("def deploy(**given): pass\n" + python_of("kfp_components/README.md"))
    (made,) = compiling.compile_pipelines(file, image.PLACEHOLDER).values()
    assert made.name == "release"


def test_every_hook_for_other_repositories_is_a_command():
    import yaml

    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert len({hook["id"] for hook in hooks}) == len(hooks) == 5
    assert [wrong for hook in hooks if (wrong := commands.fault(hook["entry"]))] == []


def test_the_exit_codes_of_the_page_are_those_of_the_program():
    from mlseal import errors

    text = (ROOT / "README.md").read_text()
    for error in (errors.Refusal, errors.Unchecked, errors.Misuse):
        assert re.search(rf"\|\s*{error.exit_code}\s*\|", text), f"README does not table exit code {error.exit_code}"


def test_the_runner_of_pages_notices_a_lie(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ mlseal init\nname …\n$ mlseal frobnicate   # exit 2\nno … command\n```\n")
    right, wrong = console.steps(page)
    assert (right.exit_code, wrong.exit_code) == (0, 2)
    assert right.disagreement(0, "name   project.mlseal.local\n") is None
    assert "exit 1" in right.disagreement(1, "")
    assert "not found" in right.disagreement(0, "something else")
    assert commands.fault("mlseal frobnicate") and commands.fault("mlseal doctor --frob")
    assert commands.fault("mlseal doctor --json") is None
