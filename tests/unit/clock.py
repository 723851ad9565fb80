"""A clock for tests in which nothing waits."""

import random
from typing import TYPE_CHECKING

from tap_envoy.session import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """A clock that only sleeping moves, by up to `oversleep` seconds more than asked for."""

    def __init__(self, oversleep: float = 0.0) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.oversleep = oversleep
        self.rng = random.Random(0)  # noqa: S311
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()
        self.now += seconds + self.rng.uniform(0, self.oversleep)

    def limiter(self, per_second: float) -> RateLimiter:
        return RateLimiter(per_second, clock=self, sleep=self.sleep)
