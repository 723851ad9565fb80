"""Requests made ahead of the reader, by a few threads."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

MOST = 8
"""Requests under way at most: enough to keep the pace of ten a second up to 800 ms an answer."""

WORTH = 0.02
"""Seconds of waiting for an answer from which more requests under way are worth it. Threads that
have nothing to wait for are only in each other's way, and what they bring takes room."""

T = TypeVar("T")
Job = tuple["Future[T]", "Callable[[], T]"]


class Workers(Generic[T]):
    """A few threads that make requests, while the reader is busy with the answers before.

    A ThreadPoolExecutor would hold up the end of the program until each server has answered;
    these threads are daemons, started one by one as they are needed, and gone with the block.

    Attributes:
        ahead: Requests that are worth having under way at once.
    """

    def __init__(self, ahead: int = 1) -> None:
        self.ahead = ahead
        self._started = 0
        self._jobs: SimpleQueue[Job[T] | None] = SimpleQueue()
        self._closed = False

    def __enter__(self) -> Workers[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        for _ in range(self._started):
            self._jobs.put(None)

    def is_open(self) -> bool:
        """Tell whether what the jobs come to is still wanted."""
        return not self._closed

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have a job done as soon as a thread is free; returns what it will have come to."""
        future: Future[T] = Future()
        if self._started < self.ahead:
            self._started += 1
            threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put((future, job))
        return future

    def result(self, future: Future[T], check: Callable[[], None]) -> T:
        """Return what a job came to, calling `check` now and then until it is done."""
        if self.ahead < MOST and wait([future], timeout=WORTH).not_done:
            self.ahead = min(2 * self.ahead, MOST)
        while not future.done():
            check()
            wait([future], timeout=0.1)
        return future.result()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if self._closed:
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  # told to the reader, who raises it
                future.set_exception(error)
