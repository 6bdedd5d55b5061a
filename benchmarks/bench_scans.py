"""The scans beside the libraries that they wrap, alone, on the same files in one run.

Bar: what makes it evidence (a private copy, hashing before and after, counting, report, statement) costs ≤ 5 % of the
library alone or ≤ 50 ms. Signing is in ``bench_statement``. Floor: reading every file once.

    python benchmarks/bench_scans.py [ROUNDS]
"""

import json
import pickle
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mlseal.stages import runner
from mlseal.stages.testing import formats, osv

CODE = Path(__file__).resolve().parents[1] / "mlseal" / "stages" / "testing"
ADVISORIES, PACKAGES = 3000, 200


def seconds(work) -> tuple[float, float]:
    """Wall and processor seconds; on a busy machine only the second says what the work costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def stage(name: str, scratch: Path, **arguments) -> None:
    report = scratch / "report.sarif"
    outputs = {} if name == "testing.dependencies" else {"report": str(report)}
    texts = {key: str(value) for key, value in arguments.items()} | outputs
    with runner.performed(name, texts, archive=lambda: None):
        pass


def code_alone(code: Path) -> None:
    from bandit.core import config, manager
    from detect_secrets.core import scan
    from detect_secrets.settings import default_settings

    files = [str(path) for path in sorted(code.rglob("*")) if path.is_file()]
    scanner = manager.BanditManager(config.BanditConfig(), "file", quiet=True, ignore_nosec=True)
    scanner.files_list = files
    scanner.run_tests()
    with default_settings():
        for file in files:
            list(scan.scan_file(file))


def dependencies_alone(wanted: Path, advisories: Path) -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    database = osv.load(advisories)
    for line in wanted.read_text().splitlines():
        requirement = Requirement(line)
        database.affecting(requirement.name, Version(next(iter(requirement.specifier)).version))


def model_alone(model: Path) -> None:
    from picklescan.scanner import scan_file_path

    formats.check(model, model.name, "sklearn", model.parent / "expanded")
    scan_file_path(str(model))


def write_advisories(folder: Path) -> None:
    folder.mkdir()
    for number in range(ADVISORIES):
        package = {"ecosystem": "PyPI", "name": f"package{number % PACKAGES}"}
        events = [{"introduced": "0"}, {"fixed": f"{number % 7}.{number % 11}"}]
        entry = {
            "id": f"PYSEC-{number}",
            "modified": "2026-01-01T00:00:00Z",
            "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
        }
        (folder / f"{number}.json").write_text(json.dumps(entry))


def compare(name: str, alone, whole, rounds: int) -> None:
    alone(), whole()  # imports and caches are not what is measured
    pairs = [(seconds(alone), seconds(whole)) for _ in range(rounds)]
    bare, made = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    wall, cpu = (statistics.median(two[clock] - one[clock] for one, two in pairs) for clock in (0, 1))
    bar = max(0.05 * bare, 0.050)
    verdict = "met" if wall <= bar else "met in processor time, machine busy" if cpu <= bar else "MISSED"
    more = f"{wall * 1e3:+7.1f} ms ({cpu * 1e3:+.1f} of processor)"
    print(f"  {name:22} alone {bare * 1e3:8.1f} ms, as evidence {made * 1e3:8.1f} ms, {more}   {verdict}")


def main(rounds: int = 5) -> None:
    print("bar: ≤ 5 % or ≤ 50 ms over the library alone, medians of interleaved pairs")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        code, advisories, wanted, model = (scratch / name for name in ("code", "advisories", "wanted.txt", "model.pkl"))
        shutil.copytree(CODE, code, ignore=shutil.ignore_patterns("__pycache__"))
        write_advisories(advisories)
        wanted.write_text("".join(f"package{number}==3.{number % 9}\n" for number in range(PACKAGES)))
        model.write_bytes(pickle.dumps({f"w{n}": [float(n)] * 20 for n in range(2000)}))
        compare("testing.code", lambda: code_alone(code), lambda: stage("testing.code", scratch, code=code), rounds)
        compare(
            "testing.dependencies",
            lambda: dependencies_alone(wanted, advisories),
            lambda: stage("testing.dependencies", scratch, requirements=wanted, advisories=advisories),
            rounds,
        )
        compare(
            "testing.model_file",
            lambda: model_alone(model),
            lambda: stage("testing.model_file", scratch, model=model, second_opinions="picklescan"),
            rounds,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
