"""The HTTP session of a run, its rate limiter and its retry policy."""

from __future__ import annotations

import http.client
import io
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import backoff
import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.exceptions import InvalidHeader, ProtocolError
from urllib3.util import Retry as RetryAfterParser

from tap_envoy.exceptions import (
    EnvoyError,
    NoConnectionError,
    ResponseTooLargeError,
    RunAbortedError,
    TransientError,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator, Iterator

    import urllib3

P = ParamSpec("P")
T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], object]

MIN_RATE = 1.0
"""Requests per second that HTTP 429 does not lower the rate beyond."""

RECOVERY = 0.02
"""Share of the full rate that is regained for each second in which requests succeed."""

MIN_WAIT = 0.001
"""Seconds between two looks at whether it is a thread's turn."""

MAX_RETRY_AFTER = 300.0
"""Seconds to which a longer `Retry-After` is cut."""

MAX_RESPONSE_TIME = 180.0
"""Seconds, in addition to the read timeout, in which a whole response must arrive."""

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Size limit of a decompressed response body."""

READ_SIZE = 1 << 16
"""Bytes to read at once: a page of 100 rows takes one call, where `requests` makes five."""


class RateLimiter:
    """Spaces requests evenly across threads; idle time builds up no burst.

    Envoy allows 10 requests per second for each access token (documented for spaces). Whether it
    counts them in a leaky bucket or in windows is unknown; even spacing satisfies both.
    """

    def __init__(
        self, per_second: float, *, clock: Clock = time.monotonic, sleep: Sleep = time.sleep
    ) -> None:
        """Create a limiter.

        Args:
            per_second: The full rate, in requests per second, above 0.
            clock: Returns seconds from an arbitrary origin.
            sleep: Waits for a number of seconds.
        """
        self._full_rate = self._rate = float(per_second)
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._turns = self._served = 0
        self._next_slot = clock()
        self._lowered_at = self._raised_at = float("-inf")
        self._logger = logging.getLogger(__name__)

    @property
    def rate(self) -> float:
        """The present rate in requests per second."""
        return self._rate

    def acquire(self) -> float:
        """Wait until a request may be sent; return the time by the clock.

        Requests leave in the order of the calls: a reader that needs the pages in order would
        wait for one that others have overtaken.
        """
        with self._lock:
            turn = self._turns
            self._turns += 1
        while True:
            now, delay = self._claim(turn)
            if delay <= 0:
                return now
            self._sleep(delay)  # during which a pause may move the slot

    def pause(self, seconds: float) -> None:
        """Send no request for `seconds`, in any thread."""
        with self._lock:
            self._next_slot = max(self._next_slot, self._clock() + seconds)

    def throttled(self, sent_at: float) -> None:
        """Lower the rate by a fifth after HTTP 429.

        Args:
            sent_at: When the request was sent, as `acquire` returned it. Requests that were
                sent before the rate was last lowered do not lower it again.
        """
        with self._lock:
            now = self._clock()
            lowered = max(self._rate * 0.8, min(MIN_RATE, self._full_rate))
            if sent_at <= self._lowered_at or lowered == self._rate:
                return
            self._rate = lowered
            self._lowered_at = self._raised_at = now
        self._logger.warning(
            "Rate limit reached (HTTP 429); continuing with %.1f requests per second.", lowered
        )

    def succeeded(self) -> None:
        """Raise the rate by one step, at most once per second, until it is the full rate."""
        if self._rate == self._full_rate:
            return
        with self._lock:
            now = self._clock()
            if now - self._raised_at >= 1:
                self._raised_at = now
                self._rate = min(self._full_rate, self._rate + RECOVERY * self._full_rate)

    def _claim(self, turn: int) -> tuple[float, float]:
        """Take the next slot if it is due; return the time and the seconds left to wait."""
        with self._lock:
            now, interval = self._clock(), 1 / self._rate
            late = now - self._next_slot
            if ahead := turn - self._served:
                return now, max(ahead * interval - late, MIN_WAIT)  # those ahead may wake late
            if late < 0:
                return now, -late
            self._served += 1
            # Makes up for a slot taken late, or the rate would not be reached; by a quarter of an
            # interval at most, so that no second holds more than ten requests at 9.5 per second.
            self._next_slot = max(self._next_slot, now - interval / 4) + interval
            return now, 0.0


class EnvoySession(requests.Session):
    """A session that limits the rate of requests, and the duration and size of responses.

    It follows no redirect: credentials never go to another host.
    """

    def __init__(
        self,
        rate_limiter: RateLimiter,
        *,
        max_time: float = MAX_RESPONSE_TIME,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        """Create a session.

        Args:
            rate_limiter: Decides when a request is sent.
            max_time: Seconds, in addition to the read timeout, for a whole response.
            max_bytes: Size limit of a decompressed response body.
        """
        super().__init__()
        self.rate_limiter = rate_limiter
        for scheme in ("https://", "http://"):
            self.mount(scheme, _BoundedAdapter(max_time, max_bytes))

    @override
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request when the rate limiter allows it, and report the result to the limiter.

        Raises:
            ResponseTooLargeError: If the response exceeds the size limit.
            requests.RequestException: If there is no response, or not in time.
        """
        sent_at = self.rate_limiter.acquire()
        response = super().send(request, **kwargs)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            self.rate_limiter.throttled(sent_at)
        elif response.ok:
            self.rate_limiter.succeeded()
        return response

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: no redirect is followed."""


class _BoundedAdapter(HTTPAdapter):
    """Limits the duration of responses, headers included, and the size of their bodies."""

    def __init__(self, max_time: float, max_bytes: int) -> None:
        self._response_class = staticmethod(partial(_BoundedResponse, max_time))
        self._max_bytes = max_bytes
        self._pools: dict[str, Any] = {}
        super().__init__()

    @override
    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the connection pool of an endpoint.

        The settings for TLS and proxies are those of the run: to compare them for each request
        would take a seventh of its processor time.
        """
        endpoint = str(request.url).partition("?")[0]
        pool: Any = self._pools.get(endpoint)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, *args, **kwargs)
            self._pools[endpoint] = pool
        if "ConnectionCls" not in vars(pool):
            pool.ConnectionCls = type(
                "BoundedConnection",
                (pool.ConnectionCls,),
                {"response_class": self._response_class},
            )
        return pool

    @override
    def close(self) -> None:
        self._pools.clear()
        super().close()

    @override
    def build_response(
        self, req: requests.PreparedRequest, resp: urllib3.BaseHTTPResponse
    ) -> requests.Response:
        resp.stream = partial(_bounded, resp, resp.stream, self._max_bytes)  # type: ignore[method-assign]
        return super().build_response(req, resp)


def _bounded(
    response: urllib3.BaseHTTPResponse,
    stream: Callable[..., Iterator[bytes]],
    max_bytes: int,
    _part_size: int,
    **kwargs: Any,
) -> Iterator[bytes]:
    """Yield the parts of a body as long as they stay within `max_bytes`."""
    size = 0
    try:
        for part in stream(READ_SIZE, **kwargs):
            size += len(part)
            if size > max_bytes:
                response.close()
                raise ResponseTooLargeError
            yield part
    except ValueError as error:  # urllib3 accepts chunks of a negative length
        response.close()
        raise ProtocolError(str(error)) from error


class _BoundedResponse(http.client.HTTPResponse):
    """A response with a deadline; skips informational responses and malformed header lines."""

    def __init__(self, max_time: float, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        deadline = time.monotonic() + max_time + (sock.gettimeout() or 0)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock, deadline), READ_SIZE)

    @override
    def begin(self) -> None:
        super().begin()
        while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
            self.headers = self.msg = None  # type: ignore[assignment]  # makes it read on
            super().begin()
        # urllib3 would log lines that are no headers, with a traceback, and go on.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline; the socket's own timeout limits each gap only."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._socket = sock
        self._deadline = deadline

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        timeout = self._socket.gettimeout()
        if timeout is None or timeout > left:
            self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries with exponential backoff and jitter, for at least five minutes by default.

    Attributes:
        initial_wait: Seconds before the first retry, at most.
        max_wait: Seconds between two attempts, at most, unless the server asks for more.
        max_time: Seconds after the first failure from which on a failed attempt is the last;
            0 for a single attempt.
        clock: Returns seconds from an arbitrary origin.
        sleep: Waits for a number of seconds.
    """

    initial_wait: float = 2.0
    max_wait: float = 60.0
    max_time: float = 300.0
    clock: Clock = time.monotonic
    sleep: Sleep = time.sleep

    def decorator(
        self,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        limiter: RateLimiter | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator that repeats a function while it raises `TransientError`.

        The decorated function raises `RunAbortedError` if there was no connection to the end,
        and `EnvoyError` if another transient error remained.

        Args:
            logger: Receives one warning for each retry.
            limiter: Paused for as long as a `Retry-After` asks.
        """
        return backoff.on_exception(
            partial(self._waits, logger, limiter),
            TransientError,
            jitter=None,
            logger=None,
        )

    def _waits(
        self, logger: logging.Logger | logging.LoggerAdapter[Any], limiter: RateLimiter | None
    ) -> Generator[float, TransientError, NoReturn]:
        """Wait before each retry; raise when the time is over.

        The waiting is done here, and `backoff` gets zeros, because its sleep cannot be replaced.
        """
        error = yield 0.0
        start, attempt = self.clock(), 0
        while True:
            elapsed = self.clock() - start
            if elapsed >= self.max_time:
                raise _final_error(error, f"{elapsed:.0f} s" if attempt else None) from error
            wait = self._wait(attempt, error)
            logger.warning("%s Retrying in %.1f s (attempt %d).", error, wait, attempt + 2)
            if limiter and error.retry_after:
                limiter.pause(min(error.retry_after, MAX_RETRY_AFTER))
            self.sleep(wait)
            error = yield 0.0
            attempt += 1

    def _wait(self, attempt: int, error: TransientError) -> float:
        """Return the backoff, or what the server asked for if that is longer."""
        longest = min(self.max_wait, self.initial_wait * 2.0 ** min(attempt, 30))
        wait = longest * random.uniform(0.75, 1)  # noqa: S311  # not for secrets
        return max(wait, min(error.retry_after or 0.0, MAX_RETRY_AFTER))


def _final_error(error: TransientError, elapsed: str | None) -> EnvoyError:
    """Return the error for an attempt that is not repeated; `elapsed` if it was a retry."""
    kind = RunAbortedError if isinstance(error, NoConnectionError) else EnvoyError
    return kind(f"{error} Gave up after {elapsed}; run again later." if elapsed else str(error))


def parse_retry_after(response: requests.Response) -> float | None:
    """Return the seconds of a `Retry-After` header (a number or an HTTP date), or None."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        return min(RetryAfterParser().parse_retry_after(header), MAX_RETRY_AFTER)
    except (InvalidHeader, OverflowError, ValueError):
        return None
