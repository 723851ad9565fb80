"""Three ways to limit requests per second."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol


class RateLimit(Protocol):
    """Decides whether a request is served or answered with 429.

    Attributes:
        retry_after: The `Retry-After` header of a 429 response; None leaves the header out.
    """

    retry_after: str | None

    def allows(self) -> bool: ...


class LeakyBucket:
    """Accept a burst of `per_second` requests, then one request per interval."""

    def __init__(
        self,
        per_second: float,
        retry_after: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retry_after = retry_after
        self._per_second = per_second
        self._clock = clock
        self._level = 0.0
        self._updated = clock()

    def allows(self) -> bool:
        now = self._clock()
        self._level = max(0.0, self._level - (now - self._updated) * self._per_second)
        self._updated = now
        if self._level + 1 > self._per_second:
            return False
        self._level += 1
        return True


class FixedWindow:
    """Accept `per_second` requests in each whole second of the clock."""

    def __init__(
        self,
        per_second: int,
        retry_after: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retry_after = retry_after
        self._per_second = per_second
        self._clock = clock
        self._second = -1
        self._count = 0

    def allows(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._per_second


class SlidingWindow:
    """Accept at most `per_second` requests in any period of one second."""

    def __init__(
        self,
        per_second: int,
        retry_after: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retry_after = retry_after
        self._clock = clock
        self._accepted: deque[float] = deque(maxlen=per_second)

    def allows(self) -> bool:
        now = self._clock()
        is_full = len(self._accepted) == self._accepted.maxlen
        if is_full and now - self._accepted[0] < 1:
            return False
        self._accepted.append(now)  # drops the oldest
        return True
