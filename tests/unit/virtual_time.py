"""Time that passes only while all threads of a test sleep."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class VirtualTime:
    """A clock and a sleep for threads that are started by `run`."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self._running = 1
        self._wake_times: list[float] = []
        self._changed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self.slept.append(seconds)
            wake_time = self.now + max(seconds, 1e-9)
            self._wake_times.append(wake_time)
            self._running -= 1
            self._advance()
            self._changed.wait_for(lambda: self.now >= wake_time)

    def run(self, *jobs: Callable[[], object]) -> None:
        """Run each job in a separate thread; return when all have ended."""

        def work(job: Callable[[], object]) -> None:
            try:
                job()
            finally:
                with self._changed:
                    self._running -= 1
                    self._advance()

        self._running = len(jobs)
        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._running = 1

    def _advance(self) -> None:
        """Move on to the next time at which a thread wakes, if none is running."""
        if self._running == 0 and self._wake_times:
            self.now = max(self.now, min(self._wake_times))
            self._running = sum(time <= self.now for time in self._wake_times)
            self._wake_times = [time for time in self._wake_times if time > self.now]
            self._changed.notify_all()
