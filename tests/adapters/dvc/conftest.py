"""People with their own homes, interpreters with and without the autoload, and real git, DVC and trust service."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# The classic MD5 collision (Wang and others, 2004); any common suffix keeps it.
COLLIDING = tuple(
    bytes.fromhex(text)
    for text in (
        "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99f"
        "d91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1e"
        "c69821bcb6a8839396f9652b6ff72a70",
        "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a085125e8f7cdc99f"
        "d91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1e"
        "c69821bcb6a8839396f965ab6ff72a70",
    )
)


@dataclass
class Person:
    """Somebody at a shell: an interpreter, a home, a directory."""

    python: Path
    env: dict[str, str]
    cwd: Path
    log: list[str] = field(default_factory=list)

    def run(self, *command: str, cwd: Path | None = None, ok: bool | None = True, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=cwd or self.cwd, env=self.env | env, capture_output=True, text=True, errors="surrogateescape",
            stdin=subprocess.DEVNULL, timeout=180, check=False,
        )
        if ok is not None:
            assert (done.returncode == 0) is ok, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def git(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return self.run("git", "-c", "init.defaultBranch=main", *arguments, **kwargs)

    def dvc(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.python), "-m", "dvc", *arguments, **kwargs)

    def mlseal(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.python), "-m", "mlseal", *arguments, **kwargs)

    def commit(self, message: str = "work") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").stdout.strip()


@dataclass
class Scene:
    """An owner with a protected repository and a directory remote."""

    owner: Person
    repo: Path
    remote: Path
    policy: Path
    newcomer: Callable[..., Person]

    @property
    def evidence(self) -> Path:
        return self.remote / "attestations" / "v1"

    def bundles(self) -> list[Path]:
        return sorted(self.evidence.glob("bundles/*/*/*/*.sigstore.json"))

    def objects(self) -> list[Path]:
        return sorted(p for p in (self.remote / "files").rglob("*") if p.is_file())

    def object_of(self, pointer: str) -> Path:
        """The remote object that a ``.dvc`` file of the owner names."""
        oid = oid_in(self.repo / pointer)
        return self.remote / "files" / "md5" / oid[:2] / oid[2:]

    def add(self, name: str, data: bytes | dict[str, bytes] | None = None) -> Path:
        """Track new content under `name` and commit the pointer."""
        path = self.repo / name
        if isinstance(data, dict):
            for inner, content in data.items():
                (path / inner).parent.mkdir(parents=True, exist_ok=True)
                (path / inner).write_bytes(content)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if data is not None else fresh())
        self.owner.dvc("add", "-q", str(path))
        self.owner.commit(f"add {name!r}")
        return path


def fresh() -> bytes:
    """Content that no other test has, so that the log sees each statement once."""
    return f"id,value\n1,{secrets.token_hex(16)}\n".encode()


def oid_in(pointer: Path) -> str:
    import yaml

    return str(yaml.safe_load(pointer.read_text())["outs"][0]["md5"])


def replace(path: Path, data: bytes) -> None:
    """What somebody with write access to the remote does: other bytes, and DVC's "do not check" mode."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def statement_in(bundle: Path) -> dict[str, Any]:
    import base64

    return json.loads(base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"]))


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


@pytest.fixture
def scene(authority: Any, interpreters: dict[str, Path], tmp_path: Path) -> Iterator[Scene]:
    """A repository of the authority's owner, protected, with autoload, policy and remote; nothing added yet."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(authority.issuer, authority.san("producer")))
    repo, remote = tmp_path / "repo", tmp_path / "remote"
    repo.mkdir()
    env = authority.env | {
        "MLSEAL_POLICY": str(policy),
        "MLSEAL_STATE_DIR": str(tmp_path / "owner-state"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "owner-dvc"),
    }
    owner = Person(interpreters["auto"], env, repo)

    def newcomer(name: str = "reader", *, autoload: bool = True, clone: bool = True, trusts: bool = True) -> Person:
        """A second person: own home, the public root, a policy; a clone of the repository."""
        home = tmp_path / f"home-{name}"
        home.mkdir(mode=0o700)
        own = {key: value for key, value in env.items() if not key.startswith(("MLSEAL_", "XDG_"))} | {
            "HOME": str(home),
            "MLSEAL_POLICY": str(policy),
            "DVC_SITE_CACHE_DIR": str(tmp_path / f"dvc-{name}"),
        }
        place = tmp_path / f"clone-{name}"
        person = Person(interpreters["auto" if autoload else "plain"], own, place)
        if clone:
            person.git("clone", "-q", str(repo), str(place), cwd=tmp_path)
        if trusts:
            root = tmp_path / f"root-{name}.json"
            root.write_bytes(authority.trusted_root.read_bytes())
            person.mlseal("trust", "add", str(root), "--fingerprint", authority.trust.fingerprint, cwd=home)
        return person

    owner.git("init", "-q")
    owner.dvc("init", "-q")
    owner.dvc("remote", "add", "-q", "-d", "store", str(remote))
    owner.mlseal("dvc", "install", "--no-autoload")
    owner.commit("begin")
    yield Scene(owner, repo, remote, policy, newcomer)


def policy_text(issuer: str, san: str, extra: str = "") -> str:
    return f"""policy: data/1
applies: [{{tool: dvc, action: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
require:
  - predicate: data-provenance
    by: [{{issuer: "{issuer}", san: "{san}"}}]
{extra}"""
