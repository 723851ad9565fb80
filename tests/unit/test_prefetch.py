"""Calls made ahead of the reader, by real threads."""

import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from tap_envoy.prefetch import MAX_IN_FLIGHT, PrefetchPool
from tests.unit.simulated_endpoint import ShuffledPool


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_results_come_in_order_with_their_items(limit: int) -> None:
    def slow_if_even(item: int) -> int:
        time.sleep(0 if item % 2 else 0.003)
        return 10 * item

    with PrefetchPool() as pool:
        results = [*pool.ahead(slow_if_even, range(20), lambda: limit)]
    assert results == [(item, 10 * item) for item in range(20)]


@pytest.mark.parametrize(("limit", "expected"), [(-1, 1), (3, 3), (100, MAX_IN_FLIGHT)])
def test_calls_in_flight_reach_the_limit_and_do_not_exceed_it(limit: int, expected: int) -> None:
    gate, started = threading.Event(), list[int]()

    def call(item: int) -> None:
        started.append(item)
        gate.wait(10)

    with PrefetchPool() as pool:
        results = pool.ahead(call, count(), lambda: limit)
        reader = threading.Thread(target=next, args=(results,), daemon=True)
        reader.start()
        wait_until(lambda: len(started) == expected)
        time.sleep(0.02)
        assert sorted(started) == [*range(expected)]
        gate.set()
        reader.join(10)


def test_latency_rises_at_once_and_falls_slowly() -> None:
    ticks = iter([0, 0.5, 0.5, 0.6, 0.6, 2.6])
    with PrefetchPool(clock=ticks.__next__) as pool:
        latencies = [pool.latency for _ in pool.ahead(str, range(3), lambda: 1)]
    assert latencies == [0.5, 0.45, 2]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt("stop")])
def test_error_of_a_call_is_raised_in_its_turn(error: BaseException) -> None:
    def fail_at_two(item: int) -> int:
        if item == 2:
            raise error
        return item

    with PrefetchPool() as pool:
        results = pool.ahead(fail_at_two, range(10), lambda: 5)
        assert [next(results), next(results)] == [(0, 0), (1, 1)]
        with pytest.raises(type(error), match=str(error)):
            next(results)
        assert [*pool.ahead(fail_at_two, [7])] == [(7, 7)]  # the threads go on


def test_calls_that_are_not_needed_any_more_are_cancelled() -> None:
    pool = ShuffledPool()
    for _ in pool.ahead(str, count()):
        break
    assert pool.waiting
    assert all(future.cancelled() for future, _ in pool.waiting)


def test_threads_end_with_the_pool_and_never_delay_the_end_of_the_program() -> None:
    before = set(threading.enumerate())
    with PrefetchPool() as pool:
        assert [*pool.ahead(lambda item: item, range(20))]
        threads = set(threading.enumerate()) - before
        assert 1 <= len(threads) <= MAX_IN_FLIGHT
        assert all(thread.daemon for thread in threads)
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
