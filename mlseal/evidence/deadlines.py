"""Calls that may hang, made so that they end for whoever waits: no file system of fsspec promises a deadline.

The calls run in threads that the end of the process does not wait for, as it would for those of a pool. One that hangs
for ever costs its thread; it is never waited for twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from typing import TypeVar

from mlseal.errors import ServiceUnavailable

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """How long to wait for a remote part, and how many calls to have under way.

    Attributes:
        call: seconds without any answer after which the others are not waited for either.
        total: seconds for all calls of one question.
        workers: calls at once.
    """

    call: float = 20.0
    total: float = 120.0
    workers: int = 16


def within(seconds: float, work: Callable[[], R], what: str) -> R:
    """The result of `work`, or what it raises; `ServiceUnavailable` naming `what` after `seconds`."""
    answer: Future[R] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            answer.set_exception(error)

    threading.Thread(target=run, name="mlseal-fetch", daemon=True).start()
    try:
        return answer.result(seconds)
    except TookTooLong as error:
        if answer.done():  # the work itself ran into a time limit of its own
            raise
        raise ServiceUnavailable(f"{what} did not answer", expected=f"within {seconds:g} s") from error


def each(work: Callable[[T], R], items: Collection[T], limits: Limits, what: str) -> Generator[tuple[T, R | Exception]]:
    """Each item with the result of `work` on it, or what that raised, in the order in which the answers come.

    At most ``limits.workers`` at once; one that is asked for no more (the iterator closed) begins no further call.
    Raises `ServiceUnavailable` naming `what` when no answer comes for ``limits.call`` seconds, or some are still
    missing after ``limits.total``.
    """
    answers: queue.SimpleQueue[tuple[T, R | Exception]] = queue.SimpleQueue()
    todo, ended = iter(items), threading.Event()
    taking = threading.Lock()

    def run() -> None:
        while not ended.is_set():
            with taking:
                try:
                    item = next(todo)
                except StopIteration:
                    return
            try:
                answers.put((item, work(item)))
            except Exception as error:  # noqa: BLE001 - told with its item
                answers.put((item, error))

    end = time.monotonic() + limits.total
    try:
        for _ in range(min(limits.workers, len(items))):
            threading.Thread(target=run, name="mlseal-fetch", daemon=True).start()
        for done in range(len(items)):
            try:
                yield answers.get(timeout=max(0.0, min(limits.call, end - time.monotonic())))
            except queue.Empty as error:
                raise ServiceUnavailable(
                    f"{what} did not answer",
                    got=f"{done} of {len(items)} answers",
                    expected=f"one within {limits.call:g} s, and all within {limits.total:g} s",
                    remedy="ask again (what came is kept), or wait longer: MLSEAL_STORE_SECONDS",
                ) from error
    finally:
        ended.set()
