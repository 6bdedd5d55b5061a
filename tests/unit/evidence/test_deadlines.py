"""Calls that hang end for whoever waits, and what came before is not lost."""

import threading

import pytest

from mlseal.errors import Misuse, ServiceUnavailable
from mlseal.evidence.deadlines import Limits, each, within

PATIENT = Limits(call=60.0, total=60.0, workers=4)


@pytest.fixture
def released():
    event = threading.Event()
    yield event
    event.set()


def test_one_call(released):
    assert within(60, lambda: 7, "it") == 7
    with pytest.raises(Misuse, match="mine"):
        within(60, lambda: (_ for _ in ()).throw(Misuse("mine")), "it")
    with pytest.raises(ServiceUnavailable, match=r"it did not answer; expected within 0.05 s"):
        within(0.05, released.wait, "it")


def test_a_time_limit_of_the_work_itself_is_not_taken_for_ours():
    def late():
        raise TimeoutError("the socket's own")

    with pytest.raises(TimeoutError, match="the socket's own"):
        within(60, late, "it")


def test_each_answers_once_and_errors_are_told_with_their_item():
    def work(number):
        if number % 3 == 0:
            raise ValueError(number)
        return number * 2

    found = dict(each(work, range(100), PATIENT, "it"))
    assert {n: found[n] for n in found if n % 3} == {n: 2 * n for n in range(100) if n % 3}
    assert all(isinstance(found[n], ValueError) for n in range(0, 100, 3))
    assert list(each(work, [], PATIENT, "it")) == []


def test_no_more_than_so_many_at_once():
    lock, now, most = threading.Lock(), [0], [0]

    def work(_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.002)
        with lock:
            now[0] -= 1

    assert len(list(each(work, range(50), PATIENT, "it"))) == 50
    assert 1 <= most[0] <= PATIENT.workers


@pytest.mark.parametrize(
    "limits",
    [Limits(call=0.05, total=60.0, workers=1), Limits(call=60.0, total=0.05, workers=1)],
    ids=["call", "total"],
)
def test_one_that_hangs_ends_the_waiting(released, limits):
    begun = []

    def work(number):
        begun.append(number)
        released.wait()

    with pytest.raises(ServiceUnavailable, match=r"it did not answer; got 0 of 3 answers; expected one within"):
        list(each(work, [1, 2, 3], limits, "it"))
    released.set()
    assert begun == [1], "the others are not begun any more"


def test_who_asks_for_no_more_begins_no_more(released):
    begun, before = [], threading.enumerate()

    def work(number):
        begun.append(number)
        if number > 1:
            released.wait()
        return number

    answers = each(work, range(1, 100), Limits(call=60.0, total=60.0, workers=1), "it")
    assert next(answers) == (1, 1)
    (worker,) = (one for one in threading.enumerate() if one not in before and one.name == "mlseal-fetch")
    answers.close()
    released.set()
    worker.join(60)
    assert len(begun) <= 2
