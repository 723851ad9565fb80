"""Pages requested ahead of the reader, by a few threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

MAX_IN_FLIGHT = 8
"""Requests under way at most: enough for ten requests a second up to 800 ms a response."""

SLOW_JOB = 0.02
"""Seconds from which on it is worth running several jobs at once, and ahead. The wait for the rate
limiter counts, so that jobs are slow at the default rate."""

FAST_JOBS = 16
"""Consecutive jobs that must be faster than that, before threads are not worth it any more."""

SIGNAL_INTERVAL = 0.1
"""Seconds after which a signal is noticed where it does not interrupt a wait, as on Windows."""

T = TypeVar("T")


class PrefetchPool(Generic[T]):
    """Runs jobs in a few daemon threads while the reader handles the results before.

    Fast jobs are run in the reader's thread: to pass each page from one processor to another takes
    an eighth of a run's processor time, and gains nothing.

    A `ThreadPoolExecutor` would delay the end of the program until each server has responded.

    Attributes:
        max_in_flight: Jobs that are worth running at once: one, or many if they are slow.
    """

    def __init__(
        self, max_in_flight: int = 1, *, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Create a pool; threads are started when they are needed.

        Args:
            max_in_flight: See above.
            waiting: Returns a context manager that is entered to wait for a result; may raise.
        """
        self.max_in_flight = max_in_flight
        self._waiting = waiting
        self._fast_jobs = 0
        self._threads = 0
        self._jobs: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
        self._is_closed = False

    def __enter__(self) -> PrefetchPool[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closed = True
        for _ in range(self._threads):
            self._jobs.put(None)

    @property
    def is_open(self) -> bool:
        """Whether results are still wanted."""
        return not self._is_closed

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run a job as soon as a thread is free; at once, and in this thread, if jobs are fast."""
        future: Future[T] = Future()
        if self._fast_jobs >= FAST_JOBS:
            with self._waiting():
                self._run(future, job)
            return future
        if self._threads < self.max_in_flight:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put((future, job))
        return future

    def result(self, future: Future[T]) -> T:
        """Return the result of a job, as soon as it is there."""
        while not future.done():
            with self._waiting():
                wait([future], SIGNAL_INTERVAL)
        return future.result()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._is_closed:
                self._run(*job)

    def _run(self, future: Future[T], job: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        start = time.monotonic()
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001  # raised again by `result`
            future.set_exception(error)
        else:
            self._adapt(time.monotonic() - start)
            future.set_result(result)

    def _adapt(self, seconds: float) -> None:
        """Decide by the duration of the last jobs how many are worth running at once."""
        if seconds >= SLOW_JOB:
            self._fast_jobs, self.max_in_flight = 0, MAX_IN_FLIGHT
        else:
            self._fast_jobs += 1
            if self._fast_jobs >= FAST_JOBS:
                self.max_in_flight = 1
