"""How long to go on asking an address that does not answer as it should."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tap_envoy.errors import EnvoyError, NoConnectionError, RunEndedError, TransientError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from contextlib import AbstractContextManager

T = TypeVar("T")

LONGEST_REQUESTED_WAIT = 300.0
"""Seconds: a `Retry-After` beyond this is cut to it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Waits that double, with jitter. As it stands it outlasts five minutes of outage.

    Attributes:
        first_wait: Seconds before the first retry, at most.
        longest_wait: Seconds that no wait exceeds, but for one that the server asks for.
        tries: How often to ask in all.
        sleep: Waits for a number of seconds; a test passes one that does not.
        hold: Keeps other requests back for the context, while a wait lasts that the server
            asked for.
    """

    first_wait: float = 2.0
    longest_wait: float = 60.0
    tries: int = 12
    sleep: Callable[[float], None] = time.sleep
    hold: Callable[[], AbstractContextManager[None]] = nullcontext

    def call(self, ask: Callable[[], T], logger: logging.Logger) -> T:
        """Return what `ask` returns, once it does.

        Raises:
            EnvoyError: If the last try failed too, or if `ask` says that waiting is no use.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return ask()
            except TransientError as error:
                if attempt >= self.tries:
                    # Where there is no connection, the other lists are not to be had either.
                    kind = RunEndedError if isinstance(error, NoConnectionError) else EnvoyError
                    raise kind(
                        f"{error} Gave up after {attempt} tries; run again later."
                    ) from error
                wait = self._wait(attempt, error)
                logger.warning(
                    "%s Waiting %.1f seconds, then try %d of %d.",
                    error,
                    wait,
                    attempt + 1,
                    self.tries,
                )
                with nullcontext() if error.wait is None else self.hold():
                    self.sleep(wait)

    def _wait(self, attempt: int, error: TransientError) -> float:
        if error.wait is not None:
            return min(error.wait, LONGEST_REQUESTED_WAIT)
        longest = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.75, 1)  # noqa: S311  # not for secrets
