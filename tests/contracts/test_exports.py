"""What the package offers is small, real, and collides with nobody."""

import ast
import importlib
import pkgutil
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import click
import pytest

import mlseal

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["mlseal", "mlseal_kfp", "mlseal_mlflow", "mlseal_dvc", "mlseal_gx"]
# Import names that other distributions own; ours must stay apart, or a neighbour's install overwrites a gate.
FOREIGN_NAMES = {"kfp_components", "mlflow_plugins", "dvc_hooks", "expectations", "tests", "benchmarks", "examples"}


def test_the_package_offers_about_ten_names():
    assert len(mlseal.__all__) <= 12
    for name in mlseal.__all__:
        assert getattr(mlseal, name) is not None
    assert len((ROOT / "mlseal/__init__.py").read_text().splitlines()) <= 60


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'verify_everything'"):
        mlseal.verify_everything  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_exists_and_none_is_private(package):
    for module in modules(package):
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module.__name__}.__all__ names {name}"
            assert name == "__version__" or not name.startswith("_"), f"{module.__name__} exports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_imported_by_star(package):
    for module in modules(package):
        stars = [
            node.lineno
            for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        ]
        assert not stars, f"{module.__file__}:{stars}"


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package):
    assert Path(importlib.import_module(package).__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize("name", PACKAGES)
def test_our_import_names_are_ours_alone(name):
    # An editable install lists no files; then the module itself must be the one beside this test.
    assert set(packages_distributions().get(name, ["mlseal"])) == {"mlseal"}
    assert ROOT in Path(importlib.import_module(name).__file__).parents


def test_we_take_no_name_of_others():
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    ours = {Path(package).name for package in packages}
    assert ours == set(PACKAGES)
    assert ours & FOREIGN_NAMES == set()


@pytest.mark.parametrize(
    "point",
    [
        p
        for g in ("mlseal.commands", "mlflow.model_registry_store", "mlflow.artifact_repository")
        for p in entry_points(group=g)
        if p.dist.name == "mlseal"
    ],
    ids=lambda p: f"{p.group}:{p.name}",
)
def test_every_entry_point_loads(point):
    assert callable(point.load())


def test_every_command_of_the_table_is_a_command_with_help():
    from mlseal.cli import COMMANDS, main

    context = click.Context(main, info_name="mlseal")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert isinstance(command, click.Command), name
        assert (command.help or "").strip(), f"mlseal {name} has no help"
    assert set(COMMANDS) <= set(main.list_commands(context))


# They print nothing of their own: a service, a shell's script, a file, somebody else's server, a hook that git runs.
WITHOUT_JSON = {
    "serve",
    "completion",
    "guard",
    "mlflow prompt",
    "mlflow serve",
    "dvc gateway",
    "dvc hook pre-commit",
    "dvc hook pre-push",
}


def test_every_command_takes_json_but_those_that_have_nothing_to_say():
    from mlseal.cli import main

    without = {
        " ".join(words)
        for words, command in leaves(main, click.Context(main))
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT_JSON
    readme = (ROOT / "README.md").read_text()
    assert [words for words in WITHOUT_JSON if f"`{words}`" not in readme] == []


def leaves(command, context, words=()):
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        yield from leaves(below, click.Context(below, info_name=name, parent=context), (*words, name))


def modules(package):
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)
