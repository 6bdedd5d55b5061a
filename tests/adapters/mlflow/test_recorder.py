"""Refusals are signed once, in order, and cannot fill the log."""

from __future__ import annotations

import threading

from mlseal_mlflow import recorder
from mlseal_mlflow.recorder import Recorder

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
