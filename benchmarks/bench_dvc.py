"""``dvc add`` and ``dvc push`` of a directory of many small files: with our autoload beside plain DVC, in one run.

Bars (DESIGN, section 11, at 100,000 files): the first push + at most 10 s, a push of nothing new + at most 3 s. Two
repositories hold the same files, each with its own cache and directory remote; both run the same DVC from the same
libraries; each step alternates, and medians of the rounds are compared. Seconds of the clock and seconds of processors
are both printed: on a busy machine only the second says what the work
costs. OpenSSF ``model_signing`` signs the same directory with a key of its own, once:
what a signature over these files costs that knows nothing of DVC, a remote or a log.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import authority

ROUNDS = 5
FIRST = 3
"""Pairs of repositories, since only the first push of each is one: making 100,000 files costs what the disk wants."""
MODEL_SIGNING = """
import sys
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing import hashing, signing
root, out = sys.argv[1:]
pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
open(out + ".key", "wb").write(pem)
config = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
signing.Config().use_elliptic_key_signer(private_key=out + ".key").set_hashing_config(config).sign(root, out)
"""
POLICY = """policy: bench/1
applies: [{tool: dvc, action: "*"}]
assurance: {identity: local, log: pinned, time: local}
require:
  - predicate: data-provenance
    by: [{issuer: "https://bench.mlseal.local/issuer", san: "https://bench.mlseal.local/roles/producer"}]
"""


def interpreter(base: Path, *, autoload: bool) -> Path:
    """An environment that shares this one's libraries, with the autoload or without."""
    root = base / ("with" if autoload else "without")
    venv.create(root, symlinks=True, with_pip=False)
    python = root / "bin" / "python"
    site = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    libraries = [
        p for p in sys.path if Path(p).is_dir() and "lib-dynload" not in p and p != str(Path(os.__file__).parent)
    ]
    (site / "shared.pth").write_text("\n".join(map(os.path.abspath, libraries)) + "\n")
    if autoload:
        run(python, "-c", "from mlseal_dvc import setup; setup.install()")
    return python


def run(python: Path, *arguments: str, cwd: Path | None = None) -> tuple[float, float]:
    """Seconds of one command that must succeed: by the clock, and of all cores."""
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen([python, *arguments], cwd=cwd, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for; Popen must not do it again
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(arguments)}: {said.read().decode(errors='replace')}")
    return took, usage.ru_utime + usage.ru_stime


def repository(base: Path, python: Path, files: int) -> Path:
    """A git and DVC repository with `files` files of 100 bytes that nobody has added yet, and an empty remote."""
    repo = base / "repository"
    repo.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    run(python, "-m", "dvc", "init", "-q", cwd=repo)
    config = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {base / 'remote'}\n"
    (repo / ".dvc" / "config").write_text(config)
    for i in range(files):
        folder = repo / "data" / f"{i % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(f"{i:>99}\n")
    time.sleep(2.1)  # younger files are not remembered
    return repo


def commit(repo: Path) -> None:
    subprocess.run(["git", "-C", str(repo), "add", "-A"], check=True)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    subprocess.run(["git", "-C", str(repo), *identity, "commit", "-qnm", "add"], check=True)


def compare(base: Path, files: int) -> None:
    """Set both up, then time each step, plain first."""
    os.environ |= {"MLSEAL_POLICY": str(base / "policy.yaml"), "DVC_NO_ANALYTICS": "1"}
    # Installed packages have byte code; a checkout or a setting that forbids it would time the compiler instead.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(base / "bytecode")
    (base / "policy.yaml").write_text(POLICY)
    pythons = {"plain": interpreter(base, autoload=False), "ours": interpreter(base, autoload=True)}
    steps = Steps(pythons, {"dvc add": [], "first dvc push": [], "dvc push, nothing new": []})
    for number in range(FIRST):
        pair = base / str(number)
        repos = {name: repository(pair / name, python, files) for name, python in pythons.items()}
        run(pythons["ours"], "-m", "mlseal", "dvc", "install", "--no-autoload", cwd=repos["ours"])
        steps.take("dvc add", repos, "add", "-q", "data")
        for repo in repos.values():
            commit(repo)
        steps.take("first dvc push", repos, "push", "-q")
        if number < FIRST - 1:
            shutil.rmtree(pair)
    for _ in range(ROUNDS):
        steps.take("dvc push, nothing new", repos, "push", "-q")
    steps.report({"first dvc push": 10, "dvc push, nothing new": 3})
    clock, cpu = run(pythons["plain"], "-c", MODEL_SIGNING, str(repos["plain"] / "data"), str(base / "model.sig"))
    print(f"model_signing of the same directory: {clock:.2f} s (of processors {cpu:.2f} s)", flush=True)


@dataclass
class Steps:
    """Times of each step, by the clock and of all cores, for each interpreter."""

    pythons: dict[str, Path]
    times: dict[str, list[dict[str, tuple[float, float]]]]

    def take(self, what: str, repos: dict[str, Path], *command: str) -> None:
        """Run the step in both repositories; who begins alternates."""
        names = list(repos) if len(self.times[what]) % 2 == 0 else list(reversed(repos))
        taken = {}
        for name in names:
            os.environ["DVC_SITE_CACHE_DIR"] = str(repos[name].parent / "site")
            taken[name] = run(self.pythons[name], "-m", "dvc", *command, cwd=repos[name])
        self.times[what].append(taken)

    def report(self, bars: dict[str, float]) -> None:
        """One line a step: medians, and the median of the differences."""
        for what, rounds in self.times.items():
            plain, ours = (statistics.median(one[name][0] for one in rounds) for name in ("plain", "ours"))
            more, cpu = (statistics.median(one["ours"][i] - one["plain"][i] for one in rounds) for i in (0, 1))
            scaled = f"; bar at 100,000 files: + {bars[what]:g} s" if what in bars else ""
            print(
                f"{what}: plain {plain:.2f} s, ours {ours:.2f} s, {more:+.2f} s"
                f" (of processors {cpu:+.2f} s{scaled}; {len(rounds)} rounds)",
                flush=True,
            )


def main(files: int = 10_000) -> None:
    base = Path(tempfile.mkdtemp(prefix="mlsb-"))
    print(f"{files} files of 100 bytes in one directory output, load {os.getloadavg()[0]:.1f}")
    try:
        with authority():
            compare(base, files)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=10_000)
    main(options.parse_args().files)
