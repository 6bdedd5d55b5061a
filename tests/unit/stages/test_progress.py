"""Progress goes to standard error, and only for work that takes a while."""

import os
import pty
import subprocess
import sys

CODE = """
import sys, time
from mlseal.stages import progress
progress._AFTER, progress._EVERY = {after}, 0.1
with progress.Progress("testing.slow", quiet={quiet}) as shown:
    shown.log("one line")
    time.sleep({seconds})
print("result")
"""


def run(home, after=0.05, seconds=0.4, quiet=False, **kwargs):
    code = CODE.format(after=after, seconds=seconds, quiet=quiet)
    return subprocess.run(
        [sys.executable, "-c", code], env=home.env, capture_output=True, text=True, check=True, **kwargs
    )


def test_without_a_terminal_a_line_now_and_then(home):
    done = run(home)
    assert done.stdout == "result\n"
    assert done.stderr.startswith("one line\n") and "testing.slow: 0 s …" in done.stderr


def test_quick_or_quiet_work_says_nothing_more(home):
    assert run(home, after=30).stderr == "one line\n"
    assert run(home, quiet=True).stderr == ""


def test_on_a_terminal_a_status_line_that_goes_away(home):
    controller, terminal = pty.openpty()
    code = CODE.format(after=0.05, seconds=1.2, quiet=False)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**home.env, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        check=True,
    )
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert done.stdout == "result\n"
    assert "one line" in shown and "testing.slow" in shown
