"""Interpreters with and without the autoload, and scenes of real git, DVC and trust service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.buckets import Bucket, new_bucket
from adapters.dvc.gates import SUFFIX, Gate, Push, start
from adapters.dvc.people import COLLIDING, Person, Scene, fresh, policy_text
from mlseal_dvc.gateway_upstream import DirectoryUpstream


@dataclass(frozen=True)
class Templates:
    """Directories to copy."""

    repo: Path
    home: Path


@pytest.fixture(scope="session")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two environments that share this one's libraries: ``plain``, and ``auto`` with the autoload installed."""
    made = {}
    libraries = [entry for entry in sys.path if entry and Path(entry).is_dir() and "lib-dynload" not in entry]
    stdlib = {str(Path(os.__file__).parent)}
    for name in ("plain", "auto"):
        root = tmp_path_factory.mktemp(name) / "env"
        venv.create(root, symlinks=True, with_pip=False)
        site = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (site / "shared.pth").write_text("\n".join(entry for entry in libraries if entry not in stdlib) + "\n")
        made[name] = root / "bin" / "python"
    code = "from mlseal_dvc import setup; setup.install(); assert setup.loaded()"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([made["auto"], "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def templates(
    _module_authority: Any, interpreters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Templates:
    """What every scene starts from, made once and copied: a protected repository, a reader's configuration."""
    base = tmp_path_factory.mktemp("templates")
    repo, home = base / "repo", base / "home"
    repo.mkdir()
    home.mkdir()
    env = _module_authority.env | {"MLSEAL_STATE_DIR": str(base / "state"), "DVC_SITE_CACHE_DIR": str(base / "dvc")}
    owner = Person(interpreters["auto"], env, repo)
    owner.git("init", "-q")
    owner.dvc("init", "-q")
    owner.mlseal("dvc", "install", "--no-autoload")
    reader = Person(interpreters["auto"], _reader_env(env, home), home)
    root = base / "trusted_root.json"
    root.write_bytes(_module_authority.trusted_root.read_bytes())
    reader.mlseal("trust", "add", str(root), "--fingerprint", _module_authority.trust.fingerprint)
    return Templates(repo, home)


@pytest.fixture
def scene(authority: Any, interpreters: dict[str, Path], templates: Templates, tmp_path: Path) -> Scene:
    """A repository of the authority's owner, protected, with autoload, policy and remote; nothing added yet."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(authority.issuer, authority.san("producer")))
    repo, remote = tmp_path / "repo", tmp_path / "remote"
    shutil.copytree(templates.repo, repo, symlinks=True)
    (repo / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    env = authority.env | {
        "MLSEAL_POLICY": str(policy),
        "MLSEAL_STATE_DIR": str(tmp_path / "owner-state"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "owner-dvc"),
    }
    owner = Person(interpreters["auto"], env, repo)

    def newcomer(name: str = "reader", *, autoload: bool = True, clone: bool = True) -> Person:
        """A second person: own home, the public root, a policy; a clone of the repository."""
        home = tmp_path / f"home-{name}"
        shutil.copytree(templates.home, home)
        own = _reader_env(env, home) | {
            "MLSEAL_POLICY": str(policy),
            "DVC_SITE_CACHE_DIR": str(tmp_path / f"dvc-{name}"),
        }
        place = tmp_path / f"clone-{name}"
        person = Person(interpreters["auto" if autoload else "plain"], own, place)
        if clone:
            person.git("clone", "-q", str(repo), str(place), cwd=tmp_path)
        return person

    owner.commit("begin")
    return Scene(owner, repo, remote, policy, newcomer)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a real S3 service on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3: str) -> Bucket:
    """A bucket of its own for each test."""
    return new_bucket(s3)


@pytest.fixture(scope="module")
def push(
    _module_authority: Any,
    interpreters: dict[str, Path],
    templates: Templates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Push:
    """One signed push, made once: a file that has an MD5 twin, and a directory."""
    base = tmp_path_factory.mktemp("pushed")
    repo, remote, policy = base / "repo", base / "remote", base / "policy.yaml"
    policy.write_text(policy_text(_module_authority.issuer, _module_authority.san("producer")))
    shutil.copytree(templates.repo, repo, symlinks=True)
    (repo / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    own = {"MLSEAL_POLICY": str(policy), "MLSEAL_STATE_DIR": str(base / "s"), "DVC_SITE_CACHE_DIR": str(base / "d")}
    owner = Person(interpreters["auto"], _module_authority.env | own, repo)
    scene = Scene(owner, repo, remote, policy, lambda: owner)
    owner.commit("begin")
    scene.add("data.csv", COLLIDING[0] + SUFFIX)
    scene.add("imgs", {name: fresh() for name in ("a", "b", "c")})
    owner.dvc("push")
    return Push(remote, _module_authority.issuer, _module_authority.san("producer"), _module_authority.trusted_root)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The directory behind the gateway."""
    made = tmp_path / "store"
    made.mkdir()
    return made


@pytest.fixture
def open_gate(authority: Any, push: Push, store: Path, tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    """Starts gateways that end with the test."""
    made: list[Gate] = []

    def make(upstream: Any = None, state: str = "state", **options: Any) -> Gate:
        made.append(start(upstream or DirectoryUpstream(store), tmp_path / state, push, **options))
        return made[-1]

    yield make
    for gate in made:
        gate.stop()


@pytest.fixture
def gate(open_gate: Callable[..., Gate]) -> Gate:
    return open_gate()


def _reader_env(env: dict[str, str], home: Path) -> dict[str, str]:
    return {k: v for k, v in env.items() if not k.startswith(("MLSEAL_", "XDG_"))} | {"HOME": str(home)}
