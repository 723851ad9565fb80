"""Jobs run ahead in a few threads; results come when they are wanted."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import pytest

from tap_envoy.prefetch import FAST_JOBS, MAX_IN_FLIGHT, SIGNAL_INTERVAL, SLOW_JOB, PrefetchPool


class Gate:
    """Jobs that wait until they are let through."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def job(self) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.opened.wait(10)
        with self._lock:
            self.running -= 1
        return "done"


def nothing() -> None:
    pass


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_belong_to_their_jobs() -> None:
    with PrefetchPool[int](waiting=nullcontext, max_in_flight=3) as pool:
        futures = [pool.submit(lambda number=number: number) for number in range(20)]  # type: ignore[misc]
        assert [pool.result(future) for future in futures] == list(range(20))


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt("stop")])
def test_error_of_a_job_is_raised_by_result(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with PrefetchPool[None](waiting=nullcontext) as pool:
        with pytest.raises(type(error), match=str(error)):
            pool.result(pool.submit(fail))
        assert pool.result(pool.submit(nothing)) is None


@pytest.mark.parametrize("limit", [1, 3, MAX_IN_FLIGHT])
def test_jobs_under_way_do_not_exceed_the_limit(limit: int) -> None:
    gate = Gate()
    with PrefetchPool[str](waiting=nullcontext, max_in_flight=limit) as pool:
        futures = [pool.submit(gate.job) for _ in range(20)]
        wait_until(lambda: gate.running == limit)
        gate.opened.set()
        assert {pool.result(future) for future in futures} == {"done"}
    assert gate.most == limit


def test_slow_job_raises_the_limit_to_eight_until_many_are_fast() -> None:
    with PrefetchPool[None](waiting=nullcontext) as pool:
        pool.result(pool.submit(lambda: time.sleep(2 * SLOW_JOB)))
        assert pool.max_in_flight == MAX_IN_FLIGHT == 8
        pool.result(pool.submit(nothing))
        assert pool.max_in_flight == MAX_IN_FLIGHT
        for _ in range(FAST_JOBS):
            pool.result(pool.submit(nothing))
        wait_until(lambda: pool.max_in_flight == 1)


def test_fast_jobs_are_run_in_the_thread_that_submits_them_until_one_is_slow() -> None:
    with PrefetchPool[int](waiting=nullcontext) as pool:
        here = threading.get_ident()
        for _ in range(FAST_JOBS):
            assert pool.result(pool.submit(threading.get_ident)) != here
        wait_until(lambda: pool.submit(threading.get_ident).result() == here)
        assert pool.submit(lambda: time.sleep(2 * SLOW_JOB) or 1).done()  # type: ignore[func-returns-value]
        assert pool.result(pool.submit(threading.get_ident)) != here


def test_error_of_a_job_in_this_thread_is_raised_by_result() -> None:
    def fail() -> None:
        raise ValueError("no")

    with PrefetchPool[None](waiting=nullcontext) as pool:
        futures = [pool.submit(nothing) for _ in range(FAST_JOBS)]
        wait_until(lambda: all(future.done() for future in futures))
        future = pool.submit(fail)
        with pytest.raises(ValueError, match="no"):
            pool.result(future)


def test_fast_responses_keep_one_request_under_way() -> None:
    with PrefetchPool[None](waiting=nullcontext) as pool:
        for _ in range(20):
            future = pool.submit(nothing)
            wait_until(future.done)
            pool.result(future)
        assert pool.max_in_flight == 1


def test_a_wait_is_surrounded_by_the_context_manager() -> None:
    gate, entered = Gate(), []

    @contextmanager
    def waiting() -> Iterator[None]:
        entered.append("begin")
        yield
        entered.append("end")
        if len(entered) == 2 * 3:
            gate.opened.set()

    with PrefetchPool[str](waiting=waiting) as pool:
        future = pool.submit(gate.job)
        begin = time.monotonic()
        assert pool.result(future) == "done"
        assert time.monotonic() - begin >= 3 * SIGNAL_INTERVAL
        assert set(zip(entered[::2], entered[1::2], strict=True)) == {("begin", "end")}
        count = len(entered)
        assert pool.result(future) == "done"  # which takes no wait
    assert len(entered) == count


def test_error_of_the_context_manager_ends_the_wait() -> None:
    gate = Gate()

    def waiting() -> NoReturn:
        raise RuntimeError("stopped")

    with (
        PrefetchPool[str](waiting=waiting) as pool,
        pytest.raises(RuntimeError, match="stopped"),
    ):
        pool.result(pool.submit(gate.job))
    gate.opened.set()


def test_closed_pool_starts_no_job_and_waits_for_none() -> None:
    gate, started = Gate(), []
    with PrefetchPool[str](waiting=nullcontext) as pool:
        pool.submit(gate.job)
        wait_until(lambda: gate.running == 1)
        pool.submit(lambda: started.append(1) or "started")  # type: ignore[func-returns-value]
        opened, count = pool.is_open, threading.active_count()
    assert (opened, pool.is_open) == (True, False)
    gate.opened.set()
    wait_until(lambda: threading.active_count() < count)
    assert not started


def test_threads_do_not_delay_the_end_of_the_program() -> None:
    gate = Gate()
    before = set(threading.enumerate())
    with PrefetchPool[str](waiting=nullcontext, max_in_flight=2) as pool:
        pool.submit(gate.job)
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        gate.opened.set()


def test_cancelled_job_is_not_run() -> None:
    gate, started = Gate(), []
    with PrefetchPool[str](waiting=nullcontext) as pool:
        first = pool.submit(gate.job)
        wait_until(lambda: gate.running == 1)
        second = pool.submit(lambda: started.append(1) or "started")  # type: ignore[func-returns-value]
        second.cancel()
        gate.opened.set()
        third = pool.submit(lambda: "third")
        assert pool.result(first) == "done"
        assert pool.result(third) == "third"
    assert not started
