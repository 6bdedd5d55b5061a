"""Installing, repeating, removing; the wheel itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from adapters.dvc.people import Person, Scene
from mlseal_dvc import wheel


def test_wheel_is_deterministic_and_complete(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = wheel.build(tmp_path / "a"), wheel.build(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {"mlseal-dvc-autoload.pth", "mlseal-dvc-autoload.start", "mlseal_dvc_autoload.py"} < set(names)
    assert names[-1].endswith("RECORD")


def test_install_and_uninstall_in_an_environment_of_its_own(scene: Scene, interpreters, tmp_path: Path) -> None:
    import shutil

    # The plain environment, copied with its links, so that what is installed here touches no other test.
    own = tmp_path / "env"
    shutil.copytree(interpreters["plain"].parent.parent, own, symlinks=True)
    person = Person(own / "bin" / "python", scene.owner.env, scene.repo)
    imports = "import sys, time; sys.exit('mlseal_dvc_autoload' in sys.modules)"
    person.run(str(person.python), "-c", imports)
    person.mlseal("dvc", "install")
    person.run(str(person.python), "-c", imports, ok=False)
    heavy = "import sys; sys.exit(any(m in sys.modules for m in ('mlseal', 'dvc', 'sigstore')))"
    person.run(str(person.python), "-c", heavy)
    person.mlseal("dvc", "install")
    scene.add("data.csv")
    assert "signed 1 outputs" in person.dvc("push").stderr
    answer = person.mlseal("dvc", "status", "--json").stdout
    assert '"protected": true' in answer
    person.mlseal("dvc", "uninstall")
    person.run(str(person.python), "-c", imports)
    assert not (scene.repo / ".git" / "hooks" / "pre-push").exists()


def test_boot_costs_next_to_nothing() -> None:
    boot = Path(wheel.__file__).parent / "autoload"
    code = (
        f"import sys, time; sys.path.insert(0, {str(boot)!r}); t = time.perf_counter();"
        "import mlseal_dvc_autoload; mlseal_dvc_autoload.install(); print(time.perf_counter() - t)"
    )
    times = [
        float(subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.005


def test_autoload_without_mlseal_refuses(interpreters, tmp_path: Path) -> None:
    """mlseal was uninstalled, the autoload left behind: DVC must not go on as if it were protected."""
    code = (
        "import sys; sys.modules['mlseal_dvc'] = None\ntry: import dvc.repo\nexcept ImportError: pass\nimport dvc.repo"
    )
    done = subprocess.run([interpreters["auto"], "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip uninstall mlseal-dvc-autoload" in done.stderr


def test_unprotected_repository_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    person = Person(
        scene.owner.python, {k: v for k, v in scene.owner.env.items() if k != "MLSEAL_POLICY"}, tmp_path / "other"
    )
    person.cwd.mkdir()
    person.git("init", "-q")
    person.dvc("init", "-q")
    person.dvc("remote", "add", "-q", "-d", "s", str(tmp_path / "s"))
    (person.cwd / "x").write_text("x")
    person.dvc("add", "-q", "x")
    done = person.dvc("push")
    assert "mlseal" not in done.stderr
    assert not (tmp_path / "s" / "attestations").exists()
    assert len(list((tmp_path / "s").rglob("*"))) > 1
