"""A run that is stopped from outside ends what it started, leaves nothing, and says so; one that is killed, the next time."""

# ruff: noqa: F811 - fixtures of another module are arguments here

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from mlseal.errors import Cancelled, Unchecked
from mlseal.stages import runner, workspace
from mlseal.stages.base import Context, DatasetPath, Finding, OutputModel
from mlseal.stages.cancellation import Cancellation
from tests.unit.stages.test_runner import data, define, finding  # noqa: F401 - fixtures

HANGING = """
import pathlib, subprocess, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]); out.mkdir(); (out / "half").write_text("half")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("children", child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def gone(pid):
    for _ in range(600):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def hanging(authority, data, program, tmp_path, temporary):
    """`mlseal run training.run` in a process of its own, in the middle of its script; yields it and the grandchild."""
    command = ["run", "training.run", "--script", str(program(HANGING)), "--data", str(data)]
    command += ["--out", str(tmp_path / "place" / "model"), "-o", str(tmp_path / "b.json")]
    child = subprocess.Popen(
        [sys.executable, "-m", "mlseal", *command],
        env={**authority.env, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = next(line for line in child.stderr if line.startswith("children"))
        yield child, int(line.split()[1])
    finally:
        child.kill()
        child.communicate(timeout=60)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_its_children_and_leaves_nothing(authority, hanging, tmp_path, temporary, sign):
    child, grandchild = hanging
    before = set(authority.store.ids())
    child.send_signal(sign)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert said.splitlines()[-1].startswith(f"mlseal: the run was stopped before it was done; got signal {sign.name}")
    assert gone(grandchild), "a child with a session of its own ends too"
    assert set(authority.store.ids()) == before
    assert not list((tmp_path / "place").iterdir()) and not (tmp_path / "b.json").exists()
    assert not list(temporary.glob("mlseal-*"))


def test_after_a_kill_the_next_run_ends_children_and_removes_what_is_left(
    hanging,
    define,
    data,
    perform,
    tmp_path,
    temporary,
):
    child, grandchild = hanging
    child.kill()
    child.communicate(timeout=60)
    left = list((tmp_path / "place").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".model."), "unpublished, under its hidden name"
    assert not gone_now(grandchild)
    mine = temporary / "mlseal-stage-of-somebody"
    mine.mkdir(mode=0o700)

    def probe(data: DatasetPath, *, context: Context) -> Finding:
        """Probe."""
        return finding()

    define(probe)
    perform("testing.probe", data=data)
    assert gone(grandchild)
    assert not list((tmp_path / "place").iterdir())
    assert list(temporary.glob("mlseal-*")) == [mine], "a directory without a lock is nobody's known remains"


def test_a_child_that_started_this_moment_is_known_by_its_environment():
    """While a program is put in place of another, the system shows an empty environment: about every third time."""
    for _ in range(100):
        with subprocess.Popen(["/bin/sleep", "60"], env={"HOME": "/a/home"}) as child:
            seen = workspace._environment(Path(f"/proc/{child.pid}"))
            child.kill()
        assert seen[0] == b"HOME=/a/home"


def test_a_process_without_an_environment_is_nobodys(tmp_path):
    with subprocess.Popen(["/bin/sleep", "60"], env={}) as bare:
        workspace.end_processes(tmp_path)
        assert bare.poll() is None
        bare.kill()
        bare.wait()
        assert workspace._environment(Path(f"/proc/{os.getpid()}"))
        with pytest.raises(OSError):
            workspace._environment(Path(f"/proc/{bare.pid}"))


def gone_now(pid):
    return not os.path.exists(f"/proc/{pid}")


# --- inside one process -----------------------------------------------------------------------------------------------


def interrupted_by_itself(data: DatasetPath, out: OutputModel, how: str = "", *, context: Context) -> Finding:
    """Stop in the middle."""
    out.write_text("half")
    if how == "swallowed":
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
    elif how == "asked":
        context.cancellation.cancel("a test")
        assert context.cancelled
    elif how == "loop":
        context.cancellation.cancel("a test")
        for epoch in range(3):
            context.progress(epoch, 3, "epochs")
        raise AssertionError("a stopped loop goes on")
    elif how == "child failed":
        context.cancellation.cancel("a test")
        raise Unchecked("the child was killed")
    else:
        signal.raise_signal(getattr(signal, how))
    return finding(subjects=("out",))


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "swallowed", "asked", "loop", "child failed"])
def test_however_it_is_stopped_nothing_is_signed(authority, define, data, tmp_path, temporary, how):
    define(interrupted_by_itself)
    before, handlers = set(authority.store.ids()), (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with pytest.raises(Cancelled) as caught:
        runner.run(
            "testing.probe",
            {"data": str(data), "out": str(tmp_path / "place" / "model"), "how": how},
            signer=authority.signer(),
            store=authority.store,
            quiet=True,
        )
    assert caught.value.exit_code == 130
    assert set(authority.store.ids()) == before
    assert not list((tmp_path / "place").iterdir()) and not list(temporary.glob("mlseal-*"))
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_a_signal_that_comes_while_signing_lets_it_finish(authority, define, data, tmp_path, monkeypatch):
    """The log may hold the entry already: evidence and output appear together or not at all."""

    def writes(data: DatasetPath, out: OutputModel, *, context: Context) -> Finding:
        """Write."""
        out.write_text("weights")
        return finding(subjects=("out",))

    define(writes)
    signer = authority.signer()
    sign = signer.sign
    monkeypatch.setattr(signer, "sign", lambda statement: (signal.raise_signal(signal.SIGTERM), sign(statement))[1])
    made = runner.run(
        "testing.probe",
        {"data": str(data), "out": str(tmp_path / "model")},
        signer=signer,
        store=authority.store,
        quiet=True,
    )
    assert made.evidence_id in authority.store.ids() and (tmp_path / "model").read_text() == "weights"


def test_what_a_stage_started_is_ended_once_however_it_ends(define, data, perform):
    ended = []

    def serves(data: DatasetPath, fail: bool = False, *, context: Context) -> Finding:
        """Serve."""
        context.on_cancel(lambda: ended.append("first"))
        context.on_cancel(lambda: 1 / 0)
        context.on_cancel(lambda: ended.append("second"))
        if fail:
            raise Unchecked("no")
        return finding()

    define(serves)
    perform("testing.probe", data=data)
    assert ended == ["second", "first"], "newest first, and one that fails does not keep the others"
    with pytest.raises(Unchecked):
        perform("testing.probe", data=data, fail="true")
    assert ended == ["second", "first"] * 2


def test_what_is_registered_after_the_stop_ends_at_once():
    stop, ended = Cancellation(), []
    stop.cancel("a test")
    stop.on_cancel(lambda: ended.append(1))
    assert ended == [1]


def test_outside_the_main_thread_no_handler_is_touched():
    handlers = []

    def work():
        with Cancellation().listening():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_an_ignored_signal_stays_ignored():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Cancellation().listening():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, old)


FORK = """
import os, signal, time
from mlseal.stages.cancellation import Cancellation
stop = Cancellation()
ready, tell = os.pipe()
stop.on_cancel(lambda: print("ended the server", os.getpid(), flush=True))
with stop.listening():
    child = os.fork()
    while child == 0:
        os.write(tell, b".")
        time.sleep(0.05)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), stop.asked, flush=True)
"""


def test_a_forked_worker_that_is_ended_does_not_end_what_the_run_started():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{signal.SIGTERM.value} False\n"


# --- a sweep removes nothing else -------------------------------------------------------------------------------------


def test_a_living_run_is_left_alone_and_a_planted_list_removes_no_other_file(tmp_path, temporary):
    precious = tmp_path / "precious"
    precious.write_text("data")
    with workspace.workspace([]) as work:
        assert workspace.sweep() == 0 and work.is_dir()
        (work.parent / "outputs").write_bytes(os.fsencode(precious) + b"\0" + os.fsencode(tmp_path) + b"\0")
        copied = temporary / "mlseal-stage-copy"
        copied.mkdir(mode=0o700)
        for name in ("lock", "outputs"):
            (copied / name).write_bytes((work.parent / name).read_bytes())
        assert workspace.sweep() == 1, "the copy has no run"
    assert precious.read_text() == "data"


def test_a_link_or_an_open_directory_is_no_workspace(tmp_path, temporary):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (real / "lock").write_text("")
    (temporary / "mlseal-stage-link").symlink_to(real)
    open_ = temporary / "mlseal-stage-open"
    open_.mkdir()
    open_.chmod(0o755)
    (open_ / "lock").write_text("")
    assert workspace.sweep() == 0
    assert real.is_dir() and open_.is_dir()


def test_progress_is_shown_with_the_next_sign_of_life(capfd, monkeypatch):
    from mlseal.stages import progress

    monkeypatch.setattr(progress, "_AFTER", 0.01)
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    seen = ""
    with progress.Progress("testing.slow") as shown:
        shown.step(3, 20, "epochs")
        for _ in range(1000):
            seen += capfd.readouterr().err
            if "testing.slow · 3 of 20 epochs:" in seen:
                break
            time.sleep(0.01)
    assert "testing.slow · 3 of 20 epochs:" in seen
