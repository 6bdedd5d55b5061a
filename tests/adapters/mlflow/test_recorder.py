"""Refusals are signed once, in order, and cannot fill the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from mlseal_mlflow import recorder, stopping
from mlseal_mlflow.recorder import Background, Recorder

from mlseal.errors import ServiceUnavailable


class Signed(list):
    """Collects what is signed; fails on demand."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted, self.done, self.fail = wanted, threading.Event(), set()

    def __call__(self, statement):
        self.append(statement)
        if len(self) >= self.wanted:
            self.done.set()
        if statement in self.fail:
            raise ServiceUnavailable("the log did not answer")


def test_equal_refusals_are_signed_once():
    signed = Signed(2)
    one = Recorder(signed)
    assert [one.submit("a", "same"), one.submit("b", "same"), one.submit("c", "other")] == [True, False, True]
    assert signed.done.wait(5)
    assert signed == ["a", "c"]


def test_after_a_while_it_is_signed_again():
    signed = Signed(2)
    one = Recorder(signed, seconds=0)
    assert one.submit("a", "same")
    assert one.submit("b", "same")
    assert signed.done.wait(5)


def test_a_failing_service_does_not_end_the_recorder():
    signed = Signed(2)
    signed.fail.add("a")
    one = Recorder(signed)
    one.submit("a", 1)
    one.submit("b", 2)
    assert signed.done.wait(5)
    assert signed == ["a", "b"]


def test_a_flood_is_cut():
    hold = threading.Event()
    one = Recorder(lambda statement: hold.wait(5))
    taken = sum(one.submit(str(i), i) for i in range(1000))
    hold.set()
    assert taken <= recorder._BURST + 2


def test_what_waits_is_signed_before_the_process_ends():
    hold = threading.Event()
    signed = []
    one = Recorder(lambda statement: hold.wait(5) and signed.append(statement))
    for name in "abc":
        one.submit(name, name)
    assert not stopping.drain(0.05), "somebody still holds it"
    assert signed == []
    threading.Timer(0.05, hold.set).start()
    assert stopping.drain(5)
    assert signed == ["a", "b", "c"]


def test_draining_does_not_wait_for_a_thread_that_is_gone(tmp_path):
    """As in a forked worker: it has the queue of its parent, not the thread."""
    hold = threading.Event()
    one = Background("waiting")
    one.run(hold.wait)
    one.run(hold.wait)
    end = time.monotonic() + 5
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not one.drain(30) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert time.monotonic() < end
    hold.set()
    assert one.drain(5)


def test_a_program_that_ends_signs_what_waits(tmp_path):
    """As the workers of gunicorn end."""
    script = (
        "import pathlib, sys, time\nfrom mlseal_mlflow.recorder import Recorder\n"
        "one = Recorder(lambda s: (time.sleep(0.2), pathlib.Path(sys.argv[1], s).touch()))\n"
        "one.submit('a', 1)\none.submit('b', 2)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["a", "b"]
