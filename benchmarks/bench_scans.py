"""The scans beside the libraries that they wrap, alone, on the same files in one run.

Bar: what makes it evidence (a private copy, hashing before and after, counting, report, statement) costs ≤ 5 % of the
library alone or ≤ 50 ms. Signing is in ``bench_statement``. Floor: reading every file once.

    python -m benchmarks.bench_scans [ROUNDS]
"""

import json
import pickle
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.beside import compare, stage
from mlseal.stages.testing import formats, osv

CODE = Path(__file__).resolve().parents[1] / "mlseal" / "stages" / "testing"
ADVISORIES, PACKAGES = 3000, 200


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


def dependencies_alone(wanted: Path, advisories: Path) -> list[str]:
    from packaging.requirements import Requirement
    from packaging.version import Version

    about = defaultdict(list)
    for file in advisories.iterdir():
        for affected in json.loads(file.read_text())["affected"]:
            about[affected["package"]["name"]] += [one["events"] for one in affected["ranges"]]
    pinned = map(Requirement, wanted.read_text().splitlines())
    versions = {one.name: Version(next(iter(one.specifier)).version) for one in pinned}
    return [
        name
        for name, version in versions.items()
        for since, until in about[name]
        if Version(since["introduced"]) <= version < Version(until["fixed"])
    ]


def dependencies_unsigned(wanted: Path, advisories: Path) -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    database = osv.load(advisories)
    for line in wanted.read_text().splitlines():
        requirement = Requirement(line)
        database.affecting(requirement.name, Version(next(iter(requirement.specifier)).version))


def model_alone(model: Path) -> None:
    from fickling.analysis import check_safety
    from fickling.fickle import Pickled
    from picklescan.scanner import scan_file_path

    scan_file_path(str(model))
    check_safety(Pickled.load(model.read_bytes()))


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


def code(scratch: Path, rounds: int) -> None:
    copy, report = scratch / "code", scratch / "code.sarif"
    shutil.copytree(CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def whole() -> None:
        report.unlink(missing_ok=True)
        stage("testing.code", code=copy, report=report)()

    base = "bandit's manager over the files, and detect-secrets' scan_file of each"
    compare("testing.code", lambda: code_alone(copy), whole, rounds, (copy,), base=base)


def dependencies(scratch: Path, rounds: int) -> None:
    advisories, wanted = scratch / "advisories", scratch / "wanted.txt"
    write_advisories(advisories)
    wanted.write_text("".join(f"package{number}==3.{number % 9}\n" for number in range(PACKAGES)))
    whole = stage("testing.dependencies", requirements=wanted, advisories=advisories)
    base = f"json and packaging, as no library reads a directory: {ADVISORIES} advisories parsed, versions compared"
    besides = "strict checks of each advisory, so that a damaged one is no advisory that is missing"
    compare(
        "testing.dependencies",
        lambda: dependencies_alone(wanted, advisories),
        whole,
        rounds,
        (wanted, advisories),
        base=base,
        besides=besides,
        unsigned=lambda: dependencies_unsigned(wanted, advisories),
    )


def model_file(scratch: Path, rounds: int) -> None:
    model, report = scratch / "model.pkl", scratch / "model.sarif"
    model.write_bytes(pickle.dumps({f"w{n}": [float(n)] * 20 for n in range(2000)}))

    def whole() -> None:
        report.unlink(missing_ok=True)
        stage("testing.model_file", model=model, report=report)()

    def unsigned() -> None:
        formats.check(model, model.name, "sklearn", model.parent / "expanded")
        model_alone(model)

    besides = "the allow-list, which decides: every opcode followed"
    compare(
        "testing.model_file",
        lambda: model_alone(model),
        whole,
        rounds,
        (model,),
        base="picklescan and fickling on the file",
        besides=besides,
        unsigned=unsigned,
    )


ROWS = {"testing.code": code, "testing.dependencies": dependencies, "testing.model_file": model_file}


def main(rounds: int = 5) -> None:
    print("bar: ≤ 5 % or ≤ 50 ms over the library alone, medians of interleaved pairs")
    with tempfile.TemporaryDirectory() as directory:
        for row in ROWS.values():
            row(Path(directory), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
