"""Work over two seconds shows on a terminal, on every command that hashes or judges; elsewhere nothing does."""

import os
import pty
import subprocess
import sys
import threading

import pytest

SLOW = """
import sys, time
from mlseal.cli import progress
progress.AFTER = {after}
with progress.bar("reading [b]model[/b]") as advance:
    {call}
    time.sleep(0.6)
print("result")
"""
# The program itself, with a bar from the first moment on and files too small to wait for.
COMMAND = "from mlseal.cli import main, progress; progress.AFTER = 0; main()"


def on_a_terminal(env, *command, cwd=None):
    """Run Python with `command`, standard error on a terminal: (exit code, standard output, what was shown)."""
    controller, terminal = pty.openpty()
    shown = []

    def read():
        try:
            while piece := os.read(controller, 65536):
                shown.append(piece)
        except OSError:  # Linux says so when the last writer is gone
            pass

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, *command], env={**env, "TERM": "xterm", "COLUMNS": "120"}, cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=120,
    )  # fmt: skip
    os.close(terminal)
    reader.join()
    os.close(controller)
    return done.returncode, done.stdout, b"".join(shown).decode()


@pytest.mark.parametrize("call", ["pass", "advance(3, 4)"], ids=["unknown length", "known length"])
def test_a_bar_with_time_and_bytes_that_goes_away(home, call):
    code, out, shown = on_a_terminal(home.env, "-c", SLOW.format(after=0.05, call=call))
    assert (code, out) == (0, "result\n")
    assert "reading [b]model[/b]" in shown and "0:00:00" in shown and "read" in shown.partition("0:00:00")[2]
    assert shown.rstrip().endswith("\x1b[2K")  # the line was wiped


def test_quick_work_shows_nothing(home):
    assert on_a_terminal(home.env, "-c", SLOW.format(after=30, call="pass")) == (0, "result\n", "")


def test_nothing_is_shown_where_nobody_watches(home):
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(after=0.05, call="advance(1, 2)")],
        env=home.env, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("result\n", "")


def test_what_fails_below_a_bar_is_the_last_thing_shown(home):
    code = SLOW.format(after=0.05, call="pass").replace("0.6)", "0.3); raise SystemExit('mlseal: refused')")
    code, _, shown = on_a_terminal(home.env, "-c", code)
    assert code == 1 and shown.rstrip().endswith("mlseal: refused")


def test_every_command_that_hashes_shows_it(authority, tmp_path):
    """Against a real authority; 64 MiB of nothing take long enough to be seen once the bar need not wait."""
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(64 << 20)
    (tmp_path / "result.json").write_text('{"result": "PASSED", "configuration": []}')
    policy = str(authority.dir / "policy.yaml")
    identity = ("--identity", authority.san("producer"), "--issuer", authority.issuer)
    sign = ("sign", "weights.bin", "--type", "test-result", "--predicate", "result.json", "-o", "evidence.json")
    for command, expected, labels in [
        (sign, 0, ["reading weights.bin"]),
        (("verify", "evidence.json", "--subject", "weights.bin", *identity), 0, ["reading weights.bin"]),
        (("gate", "weights.bin", "--policy", policy), 11, ["reading weights.bin", "judging weights.bin"]),
        (("explain", "weights.bin", "--policy", policy), 0, ["reading weights.bin"]),
    ]:
        code, _, shown = on_a_terminal(authority.env, "-c", COMMAND, *command, cwd=tmp_path)
        assert code == expected, shown
        assert [label for label in labels if label not in shown] == [], command
