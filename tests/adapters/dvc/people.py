"""People with their own homes, interpreters with and without the autoload, and real git, DVC and trust service."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The classic MD5 collision (Wang and others, 2004); any common suffix keeps it.
_FIRST = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99f"
    "d91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1e"
    "c69821bcb6a8839396f9652b6ff72a70"
)
_SECOND = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a085125e8f7cdc99f"
    "d91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1e"
    "c69821bcb6a8839396f965ab6ff72a70"
)
COLLIDING = (bytes.fromhex(_FIRST), bytes.fromhex(_SECOND))


_MARK = "\n=== end of step "
_SESSION = f"""
import json, sys
from dvc.cli import main
for step in json.loads(sys.argv[1]):
    code = exec(step) or 0 if isinstance(step, str) else main(step)
    print({_MARK!r} + str(code), file=sys.stderr, flush=True)
"""


@dataclass
class Person:
    """Somebody at a shell: an interpreter, a home, a directory."""

    python: Path
    env: dict[str, str]
    cwd: Path
    log: list[str] = field(default_factory=list)

    def run(
        self, *command: str, cwd: Path | None = None, ok: bool | None = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=cwd or self.cwd,
            env=self.env | env,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            timeout=180,
            check=False,
        )
        if ok is not None:
            assert (done.returncode == 0) is ok, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def git(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return self.run("git", "-c", "init.defaultBranch=main", *arguments, **kwargs)

    def dvc(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.python), "-m", "dvc", *arguments, **kwargs)

    def session(self, *steps: list[str] | str) -> list[tuple[int, str]]:
        """Several commands of DVC in one interpreter, which saves starting it; exit code and standard error of each.

        A step that is a text is Python, run between them.
        """
        done = self.run(str(self.python), "-c", _SESSION, json.dumps(steps))
        parts = done.stderr.split(_MARK)
        assert len(parts) == len(steps) + 1, done.stderr
        return [(int(after.split("\n")[0]), said) for said, after in zip(parts, parts[1:], strict=False)]

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


def policy_text(issuer: str, san: str, extra: str = "") -> str:
    return f"""policy: data/1
applies: [{{tool: dvc, action: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
require:
  - predicate: data-provenance
    by: [{{issuer: "{issuer}", san: "{san}"}}]
{extra}"""
