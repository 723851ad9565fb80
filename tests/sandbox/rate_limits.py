"""The rate limit of an access token: a leaky bucket was seen."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class LeakyBucket:
    """Allows a burst of `per_second` requests, then even ones."""

    per_second: float
    clock: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _updated: float = 0.0

    def allows(self) -> bool:
        """Count a request; return whether it is served."""
        now = self.clock()
        self._level = max(0.0, self._level - (now - self._updated) * self.per_second)
        self._updated = now
        is_allowed = self._level + 1 <= self.per_second
        self._level += is_allowed
        return is_allowed
