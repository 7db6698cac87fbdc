"""Jobs that run side by side: their results come in the order of the jobs, and what ends one ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

import pytest

from preprocess.in_order import Job, in_order
from tests.support.readers import go_on
from tests.support.recipient import eventually


def counting(job: int, count: int) -> Job[tuple[int, int]]:
    def run(goes_on: Callable[[], None]) -> Generator[tuple[int, int], None, None]:
        for number in range(count):
            goes_on()
            yield job, number

    return run


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    jobs = [counting(job, count) for job, count in enumerate([3, 0, 20, 1, 7])]
    found = list(in_order(jobs, threads, 3, go_on))
    assert found == [(job, number) for job, count in enumerate([3, 0, 20, 1, 7]) for number in range(count)]


def test_jobs_that_are_not_due_run_meanwhile_but_no_more_than_are_allowed() -> None:
    begun: list[int] = []
    may_end = threading.Event()

    def job(number: int) -> Job[int]:
        def run(goes_on: Callable[[], None]) -> Generator[int, None, None]:
            begun.append(number)
            if number == 0:
                assert may_end.wait(10)
            yield number

        return run

    found = in_order((job(number) for number in range(9)), 2, 4, go_on)
    first: list[int] = []
    taking = threading.Thread(target=lambda: first.append(next(found)))
    taking.start()
    eventually(lambda: begun == [0, 1, 2, 3])
    may_end.set()
    taking.join()
    assert [*first, *found] == list(range(9))


def test_an_error_comes_after_the_results_before_it() -> None:
    def broken(goes_on: Callable[[], None]) -> Generator[tuple[int, int], None, None]:
        yield 1, 0
        raise ArithmeticError

    found = in_order([counting(0, 2), broken, counting(2, 2)], 2, 3, go_on)
    assert [next(found) for _ in range(3)] == [(0, 0), (0, 1), (1, 0)]
    with pytest.raises(ArithmeticError):
        next(found)


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_end_in_the_middle_ends_all_jobs(interrupted: bool) -> None:
    ended: list[int] = []
    stop = threading.Event()

    def endless(job: int) -> Job[int]:
        def run(goes_on: Callable[[], None]) -> Generator[int, None, None]:
            try:
                while True:
                    goes_on()
                    yield job
            finally:
                ended.append(job)

        return run

    def interrupt() -> None:
        if stop.is_set():
            raise InterruptedError

    found = in_order([endless(job) for job in range(4)], 2, 4, interrupt)
    assert next(found) == 0
    if interrupted:
        stop.set()
        with pytest.raises(InterruptedError):
            list(found)
    else:
        found.close()  # type: ignore[attr-defined]
    assert sorted(ended) == [0, 1]
