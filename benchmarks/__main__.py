"""``make bench``: every bar of DESIGN section 11 that this release has, ours beside its peer in one run.

python -m benchmarks            all
python -m benchmarks digest log some
"""

import importlib
import sys
import time

ALL = ("statement", "digest", "log", "fairness", "mlflow", "pipeline")


def main() -> None:
    for name in sys.argv[1:] or ALL:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        importlib.import_module(f"benchmarks.bench_{name}").main()
        print(f"   ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
