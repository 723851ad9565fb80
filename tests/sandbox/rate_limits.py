"""Three rate limits that Envoy may apply to the requests of a second."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class RateLimit(ABC):
    """Decides which requests are answered with 429.

    Attributes:
        per_second: The limit.
        retry_after: The `Retry-After` header of a 429 response; None: no such header.
        clock: Returns a time in seconds.
    """

    per_second: float
    retry_after: str | None = None
    clock: Callable[[], float] = time.monotonic

    @abstractmethod
    def allows(self) -> bool:
        """Count a request; return whether it is served."""


@dataclass
class LeakyBucket(RateLimit):
    """Allows a burst of `per_second` requests, then evenly spaced ones."""

    _level: float = 0.0
    _updated: float = 0.0

    def allows(self) -> bool:
        now = self.clock()
        self._level = max(0.0, self._level - (now - self._updated) * self.per_second)
        self._updated = now
        if self._level + 1 > self.per_second:
            return False
        self._level += 1
        return True


@dataclass
class FixedWindow(RateLimit):
    """Allows `per_second` requests in each whole second of the clock."""

    _second: int = -1
    _count: int = 0

    def allows(self) -> bool:
        second = int(self.clock())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self.per_second


@dataclass
class SlidingWindow(RateLimit):
    """Allows `per_second` requests in any period of one second."""

    _allowed: deque[float] = field(default_factory=deque)

    def allows(self) -> bool:
        now = self.clock()
        while self._allowed and now - self._allowed[0] >= 1:
            self._allowed.popleft()
        if len(self._allowed) >= self.per_second:
            return False
        self._allowed.append(now)
        return True
