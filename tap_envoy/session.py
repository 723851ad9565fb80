"""The HTTP session of a run: rate limit, timeout, retries."""

from __future__ import annotations

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

from tap_envoy.exceptions import (
    REQUEST_ERRORS,
    EnvoyError,
    NoConnectionError,
    RunAbortedError,
    TransientError,
    connection_error,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

T = TypeVar("T")

MAX_RETRY_AFTER = 300.0
"""Seconds to which a longer `Retry-After` is cut."""

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
        self.clock = clock
        self.sleep = sleep
        self._interval = 1 / per_second
        self._next_slot = self._resume_at = clock()
        self._turn = threading.Lock()
        self._pausing = threading.Lock()

    def acquire(self) -> None:
        """Wait until the next request may be sent; one thread waits, the others queue behind it."""
        with self._turn:
            while (delay := max(self._next_slot, self._resume_at) - self.clock()) > 0:
                self.sleep(delay)  # during which a pause may begin
            # A late request is made up for, but never so that a second holds eleven of them.
            earliest = self.clock() - self._interval / 4
            self._next_slot = max(self._next_slot, earliest) + self._interval

    def pause(self, seconds: float) -> None:
        """Let no request be sent for `seconds`, also none that waits already."""
        with self._pausing:
            self._resume_at = max(self._resume_at, self.clock() + seconds)


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

    def wait(self, attempt: int, retry_after: float) -> float:
        """Return the seconds to wait after an attempt: the backoff, or `retry_after` if longer."""
        longest = min(self.max_wait, self.initial_wait * 2.0 ** (attempt - 1))
        backoff = longest * random.uniform(0.75, 1)  # noqa: S311  # not for secrets
        return max(backoff, min(retry_after, MAX_RETRY_AFTER))


class EnvoySession(requests.Session):
    """The session that all list requests of a run share.

    It uses a proxy and a CA bundle of the environment, but no password of `.netrc`. It follows no
    redirect, so that credentials never reach another host.
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
        self.auth = lambda request: request  # `requests` reads `.netrc` where there is none
        self.rate_limiter = rate_limiter
        self.timeout = timeout
        self.retry_policy = retry_policy
        self._environment: Any = None

    def fresh(self) -> EnvoySession:
        """Return a session without open connections, for a request that must not be repeated.

        The server may have closed a connection that has idled, which shows only once it is used.
        """
        user_agent = str(self.headers["User-Agent"])
        return EnvoySession(self.rate_limiter, timeout=self.timeout, user_agent=user_agent)

    @override
    def request(
        self, method: Any, url: Any, *args: Any, where: str = "Envoy (`api_url`)", **options: Any
    ) -> requests.Response:
        """Return the response to a request; an error names `where` it was sent, with its setting.

        Raises:
            TransientError: If there is no response, but may be one later.
            EnvoyError: If there is no response for another reason.
        """
        options.setdefault("timeout", self.timeout)
        try:
            return super().request(method, url, *args, **options)
        except REQUEST_ERRORS as error:
            problem = connection_error(error, url, where)
        raise problem  # without the other as its context, which would keep the connection open

    @override
    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        """Return the proxies and the CA bundle, found once: all requests go to one host."""
        if not self._environment:
            self._environment = super().merge_environment_settings(*args, **kwargs)
        return self._environment

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
        policy, limiter = self.retry_policy, self.rate_limiter
        start, number = None, 0
        while True:
            number += 1
            try:
                return attempt()
            except TransientError as error:
                now, text = limiter.clock(), str(error)
                start = now if start is None else start
                status = None if error.response is None else error.response.status_code
                is_limit = status == HTTPStatus.TOO_MANY_REQUESTS
                retry_after = parse_retry_after(error.response)
                text += OTHER_PROGRAM if is_limit and number > 1 else ""
                if retry_after > MAX_RETRY_AFTER:
                    text += f" The server asked to wait {retry_after:g} s."
                if now - start >= policy.max_time:
                    if number > 1:
                        text += f" Gave up after {now - start:.0f} s; correct it, or run later."
                    kind = RunAbortedError if isinstance(error, NoConnectionError) else EnvoyError
                    raise kind(text) from error
                wait = policy.wait(number, retry_after)
                logger.warning("%s Retrying in %.1f s (attempt %d).", text, wait, number + 1)
                if is_limit or retry_after:
                    limiter.pause(wait)
                limiter.sleep(wait)


def parse_retry_after(response: requests.Response | None) -> float:
    """Return the seconds of a `Retry-After` header (a number or an HTTP date), or 0."""
    header = "" if response is None else response.headers.get("Retry-After", "")
    try:
        return RetryAfterParser().parse_retry_after(header)
    except (InvalidHeader, OverflowError, ValueError):
        return 0.0
