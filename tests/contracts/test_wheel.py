"""The wheel that people install holds everything that the code reads, nothing else, and works away from the source."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "mlseal": "mlseal",
    "mlseal_kfp": "kfp_components/mlseal_kfp",
    "mlseal_mlflow": "mlflow_plugins/mlseal_mlflow",
    "mlseal_dvc": "dvc_hooks/mlseal_dvc",
    "mlseal_gx": "expectations/mlseal_gx",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.strip().splitlines()[-1]


def test_the_wheel_holds_our_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*FOLDERS, "mlseal-0.1.0.dist-info"}
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


@pytest.mark.parametrize("package", FOLDERS)
def test_every_file_of_a_package_is_in_the_wheel(wheel, package):
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / FOLDERS[package]
    wanted = {
        f"{package}/{f.relative_to(folder).as_posix()}"
        for f in folder.rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    }
    assert wanted - names == set()


def test_the_licence_is_in_the_wheel(wheel):
    assert any(name.endswith("/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_the_installed_wheel_works_away_from_the_repository(wheel, tmp_path, home):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import mlseal; assert mlseal.__file__.startswith({str(site)!r}); "
    code += "from mlseal.cli import main; main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=home.env, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "mlseal, version 0.1.0"), done.stderr
    init = f"import sys; sys.path.insert(0, {str(site)!r}); from mlseal.cli import main; main(['init', 'd', '--name', 'w.mlseal.local'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", init], cwd=tmp_path, env=home.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d/trusted_root.json").is_file()
