"""Children end, are contained as far as a process can be, and fail in one sentence."""

import os
import time

import pytest

from mlseal.errors import Misuse, Unchecked
from mlseal.stages.process import Program, run


@pytest.fixture
def execute(program, tmp_path):
    def go(text, *arguments, timeout=20.0):
        lines = []
        run(Program(program(text), arguments, tmp_path / "child-home", timeout), lines.append)
        return lines

    return go


def test_output_arrives_line_by_line_with_control_characters_removed(execute):
    assert execute(
        "import sys; print('one'); print('t\\x1b[2Jwo', *sys.argv[1:], file=sys.stderr)", "a b", "$HOME"
    ) == ["one", "t [2Jwo a b $HOME"]


def test_the_child_sees_no_credentials_and_a_home_of_its_own(execute, monkeypatch, tmp_path):
    monkeypatch.setenv("MLSEAL_TOKEN_FILE", "/secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    lines = execute(
        "import os, sys; print(sorted(os.environ)); print(os.environ['HOME'], os.getcwd(), sys.flags.isolated)"
    )
    names = set(eval(lines[0]))
    assert not [n for n in names if n.startswith(("MLSEAL", "AWS", "PYTHON"))]
    assert lines[1] == f"{tmp_path}/child-home {tmp_path}/child-home 1"


def test_modules_beside_the_program_are_not_found(execute, program):
    program("value = 1", "neighbour.py")
    with pytest.raises(Unchecked, match="No module named 'neighbour'"):
        execute("import neighbour")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; print('why'); sys.exit(3)", "exit code 3; last line: why"),
        ("raise ValueError('bad rows')", "ValueError: bad rows"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL; last line: no output"),
    ],
)
def test_failure_is_one_sentence_with_the_last_line(execute, text, message):
    with pytest.raises(Unchecked) as caught:
        execute(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_program_that_does_not_end_is_stopped_with_its_children(execute, tmp_path):
    text = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(child.pid, flush=True); time.sleep(300)\n"
    )
    started = time.monotonic()
    with pytest.raises(Unchecked, match=r"no end after 1 s") as caught:
        execute(text, timeout=1.0)
    assert time.monotonic() - started < 15
    _assert_gone(int(str(caught.value).split("last line: ")[1].split(";")[0]))


def test_stragglers_do_not_outlive_a_program_that_ended_well(execute):
    text = (
        "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']).pid)\n"
    )
    _assert_gone(int(execute(text)[0]))


def _assert_gone(pid):
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_positive_number(program, tmp_path, timeout):
    with pytest.raises(Misuse):
        Program(program(""), [], tmp_path, timeout)
