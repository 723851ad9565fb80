"""The HTTP session of a run: rate limit, timeout, retries."""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from typing_extensions import override
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry as RetryAfterParser

from tap_envoy.exceptions import EnvoyError, NoConnectionError, RunAbortedError, TransientError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

T = TypeVar("T")

MAX_RETRY_AFTER = 300.0
"""Seconds to which a longer `Retry-After` is cut."""

MANY_RATE_LIMITED = 3
"""Responses with HTTP 429 to one request from which on another program is suspected."""

OTHER_PROGRAM = " Another program may be using the same credentials; see `requests_per_second`."


class RateLimiter:
    """Spaces requests evenly across threads; idle time does not build up a burst.

    Envoy allows 10 requests per second for each access token (documented for spaces). Whether it
    counts them in a leaky bucket or in windows is unknown; even spacing satisfies both.
    """

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Create a limiter.

        Args:
            per_second: Requests per second, above 0.
            clock: Returns seconds from an arbitrary origin.
            sleep: Waits for a number of seconds.
        """
        self._interval = 1 / per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        # Slots are times of a clock that stands still during pauses.
        self._next_slot = self._resume_at = clock()
        self._paused = 0.0

    def acquire(self) -> None:
        """Reserve the next slot, and wait for it; requests leave in the order of the calls."""
        with self._lock:
            # A slot taken late is made up for, but never so that a second holds eleven requests.
            slot = max(self._next_slot, self._clock() - self._paused - self._interval / 4)
            self._next_slot = slot + self._interval
        while (delay := slot + self._paused - self._clock()) > 0:
            self._sleep(delay)  # during which a pause may move the slot

    def pause(self, seconds: float) -> None:
        """Send no request for `seconds`; threads that wait already leave evenly afterwards."""
        with self._lock:
            now = self._clock()
            self._next_slot = max(self._next_slot, now - self._paused)
            self._paused += max(0.0, now + seconds - max(now, self._resume_at))
            self._resume_at = max(self._resume_at, now + seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries with exponential backoff and jitter.

    Attributes:
        initial_wait: Seconds before the first retry, at most.
        max_wait: Seconds between two attempts, at most, unless the server asks for more.
        max_time: Seconds after the first failure from which on a failed attempt is the last;
            0 for a single attempt.
    """

    initial_wait: float = 2.0
    max_wait: float = 60.0
    max_time: float = 300.0

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after an attempt: the backoff, or `retry_after` if longer."""
        longest = min(self.max_wait, self.initial_wait * 2.0 ** min(attempt - 1, 30))
        backoff = longest * random.uniform(0.75, 1)  # noqa: S311  # not for secrets
        return max(backoff, min(retry_after or 0.0, MAX_RETRY_AFTER))


class EnvoySession(requests.Session):
    """The session that all list requests of a run share.

    It uses a proxy and a CA bundle of the environment. It follows no redirect, so that credentials
    never reach another host.

    Attributes:
        rate_limiter: Decides when a request is sent.
        timeout: Seconds to wait for a connection or for data.
        retry_policy: How `retry` waits.
    """

    def __init__(
        self,
        rate_limiter: RateLimiter,
        *,
        timeout: float = 60.0,
        user_agent: str = "tap-envoy",
        retry_policy: RetryPolicy = RetryPolicy(),
    ) -> None:
        super().__init__()
        # A refused key was seen as HTTP 200 where `Accept` asked for version 3.
        self.headers.update({"Accept": "application/json", "User-Agent": user_agent})
        self.rate_limiter = rate_limiter
        self.timeout = timeout
        self.retry_policy = retry_policy

    def fresh(self) -> EnvoySession:
        """Return a session without open connections, for a request that must not be repeated.

        The server may have closed a connection that has idled, which shows only once it is used.
        """
        return EnvoySession(
            self.rate_limiter, timeout=self.timeout, user_agent=str(self.headers["User-Agent"])
        )

    @override
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        self.rate_limiter.acquire()
        return super().send(request, **kwargs)

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: no redirect is followed."""

    def retry(self, attempt: Callable[[], T], logger: logging.Logger) -> T:
        """Return the result of `attempt`, repeated while it raises `TransientError`.

        A rate limit (HTTP 429) and a `Retry-After` header pause all requests of the session.

        Raises:
            RunAbortedError: If there was no connection to the end.
            EnvoyError: If another transient error remained.
        """
        policy, start, rate_limited = self.retry_policy, None, 0
        for number in itertools.count(1):
            try:
                return attempt()
            except TransientError as error:
                start = time.monotonic() if start is None else start
                elapsed = time.monotonic() - start
                is_limit = error.status == HTTPStatus.TOO_MANY_REQUESTS
                rate_limited += is_limit
                hint = OTHER_PROGRAM if rate_limited >= MANY_RATE_LIMITED else ""
                if elapsed >= policy.max_time:
                    kind = RunAbortedError if isinstance(error, NoConnectionError) else EnvoyError
                    after = (
                        f" Gave up after {elapsed:.0f} s; run again later." if number > 1 else ""
                    )
                    raise kind(f"{error}{hint}{after}") from error
                wait = policy.wait(number, error.retry_after)
                if error.retry_after and error.retry_after > MAX_RETRY_AFTER:
                    hint += f" Envoy asked to wait {error.retry_after:,.0f} s."
                logger.warning(
                    "%s%s Retrying in %.1f s (attempt %d).", error, hint, wait, number + 1
                )
                if error.retry_after or is_limit:
                    self.rate_limiter.pause(wait)
                time.sleep(wait)
        raise AssertionError


def parse_retry_after(response: requests.Response) -> float | None:
    """Return the seconds of a `Retry-After` header (a number or an HTTP date), or None."""
    try:
        return RetryAfterParser().parse_retry_after(response.headers.get("Retry-After", ""))
    except (InvalidHeader, OverflowError, ValueError):
        return None
