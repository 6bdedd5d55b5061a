"""``make bench``: every bar of DESIGN section 11 that this release has, ours beside its peer in one run.

python -m benchmarks                      all
python -m benchmarks digest log           some
python -m benchmarks dvc --files 100000   at the size of the bar; fewer unless asked
"""

import argparse
import importlib
import time

ALL = (
    *("statement", "digest", "log", "fairness", "ingestion", "privacy", "lifecycle"),
    *("guard", "mlflow", "pipeline", "scans", "remote", "robustness", "dvc"),
)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks")
    options.add_argument("names", nargs="*", choices=[[], *ALL], metavar="NAME", help=" ".join(ALL))
    options.add_argument("--files", type=int, default=10_000, help="files of the dvc benchmark")
    chosen = options.parse_args()
    for name in chosen.names or ALL:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        module = importlib.import_module(f"benchmarks.bench_{name}")
        module.main(chosen.files) if name == "dvc" else module.main()
        print(f"   ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
