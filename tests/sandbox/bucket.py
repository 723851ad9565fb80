"""Envoy's limit of requests."""

import time


class LeakyBucket:
    """A bucket that holds a second's worth of requests, and leaks as fast."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._level = 0.0
        self._leaked = time.monotonic()

    def takes(self) -> bool:
        """Take a request in, if there is room for it; returns whether there was."""
        now = time.monotonic()
        self._level = max(0.0, self._level - (now - self._leaked) * self._per_second)
        self._leaked = now
        if self._level + 1 > self._per_second:
            return False
        self._level += 1
        return True
