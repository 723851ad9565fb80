"""One pace for all requests of a run."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pace:
    """Lets requests leave evenly, however many threads make them: no burst, no catching up.

    Envoy allows each access token 10 requests a second, by a leaky bucket.
    """

    def __init__(
        self,
        per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Start the pace.

        Args:
            per_second: Requests a second.
            clock: Tells seconds, of whatever beginning.
            sleep: Waits for a number of seconds.
        """
        self._interval = 1 / per_second
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Condition()
        self._held = 0
        self._next = clock()

    def wait(self) -> None:
        """Wait until it is this request's turn."""
        with self._turn:
            self._turn.wait_for(lambda: not self._held)
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other request leave while the context lasts."""
        with self._turn:
            self._held += 1
        try:
            yield
        finally:
            with self._turn:
                self._held -= 1
                self._turn.notify_all()
