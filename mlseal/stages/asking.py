"""A model that answers one question after another, in a child process: an attack asks it thousands of times.

    python -I asking.py --model DIR --columns '["age", "visits"]'

Standard input: a number of rows (8 bytes, little-endian), then their values as 64-bit floats, and so on until it ends.
Standard output: a class for each row, as 64-bit floats. Loading a pickle runs the model's code, so it is not loaded in
the process that counts; what the model prints goes nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlseal.errors import Unchecked
from mlseal.stages import process, scoring
from mlseal.stages.base import Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COUNT = struct.Struct("<q")


class Asked:
    """A model that was started and answers; `timeout` seconds in all. It ends with the run, or by `close`."""

    def __init__(self, context: Context, model: Path, columns: Sequence[str], timeout: float) -> None:
        home = context.workspace / "asked"
        home.mkdir(mode=0o700, exist_ok=True)
        words = ["--model", str(model), "--columns", json.dumps(list(columns))]
        self._until = time.monotonic() + timeout
        self._closed = False
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-B", __file__, *words],
            env=process.environment(home),
            cwd=home,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        context.on_cancel(self.close)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The class of each of `values`, (rows, columns). Raises `Unchecked` when there is none, or not in time."""
        import numpy as np

        assert self._child.stdin is not None
        if self._closed:
            raise Unchecked("the model stopped answering", got="it was ended")
        try:
            self._child.stdin.write(_COUNT.pack(len(values)) + np.ascontiguousarray(values, "<f8").tobytes())
            self._child.stdin.flush()
            found = np.frombuffer(self._read(8 * len(values)), "<f8")
        except OSError as error:
            raise Unchecked("the model stopped answering", remedy="see that it decides on every row") from error
        if not np.isin(found, (0, 1)).all():
            raise Unchecked("the model's decisions are not 0 and 1", remedy="attack a model of two classes, 0 and 1")
        return found.astype(np.int64)

    def close(self) -> None:
        """End the model's process and whatever it started."""
        if self._closed:
            return  # the number may be another's by now
        self._closed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            with suppress(OSError):  # what was not read is of no use to anybody now
                if pipe is not None:
                    pipe.close()

    def _read(self, wanted: int) -> bytes:
        assert self._child.stdout is not None
        found, number = b"", self._child.stdout.fileno()
        while len(found) < wanted:
            left = self._until - time.monotonic()
            if left <= 0 or not select.select([number], [], [], left)[0]:
                raise Unchecked("the model took too long to answer", remedy="raise --timeout, or attack fewer --rows")
            part = os.read(number, wanted - len(found))
            if not part:
                raise BrokenPipeError
            found += part
        return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Answer for a model, one question after another.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--columns", type=json.loads, required=True)
    options = parser.parse_args()
    # What the model's code prints must not stand among the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        _answer(scoring.load(options.model), options.columns, sys.stdin.buffer, answers)


def _answer(model: object, columns: Sequence[str], questions: BinaryIO, answers: BinaryIO) -> None:
    import numpy as np
    import pandas as pd

    while head := questions.read(_COUNT.size):
        (count,) = _COUNT.unpack(head)
        values = np.frombuffer(questions.read(8 * count * len(columns)), "<f8").reshape(count, len(columns))
        classes = scoring.score(model, pd.DataFrame(values, columns=list(columns)), "decision")
        answers.write(np.array(classes, "<f8").tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
