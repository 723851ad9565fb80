import heapq
import logging
import re
import socket
import time
from collections.abc import Iterable
from email.utils import formatdate
from itertools import repeat

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError, NoConnectionError, RunAbortedError, TransientError
from tap_envoy.session import EnvoySession, RateLimiter, RetryPolicy, parse_retry_after
from tests.unit.clock import Clock
from tests.unit.local_server import serve

# Rate limiter


def send(clock: Clock, limiter: RateLimiter, latency: float, requests: int) -> list[float]:
    """Send requests by eight threads, which queue for the limiter; return their times."""
    ready, sent = [clock.now] * 8, []
    for _ in range(requests):
        clock.now = max(clock.now, heapq.heappop(ready))
        limiter.acquire()
        sent.append(clock.now)
        heapq.heappush(ready, clock.now + latency)
    return sent


@pytest.mark.parametrize("rate", [0.1, 9.5, 201])
def test_rate_limiter_spaces_requests_evenly(rate: float) -> None:
    clock = Clock()
    sent = send(clock, clock.limiter(rate), 0.0, 40)
    assert sent == pytest.approx([100 + n / rate for n in range(40)])


@pytest.mark.parametrize(("latency", "least"), [(0.15, 9.2), (0.3, 9.0), (0.6, 8.7)])
def test_rate_limiter_loses_no_slot_to_latency_and_late_threads(
    latency: float, least: float
) -> None:
    clock = Clock(oversleep=0.02)
    sent = send(clock, clock.limiter(9.5), latency, 300)
    assert 299 / (sent[-1] - sent[0]) >= least


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.floats(0, longest) | st.just(0.0) for longest in (0.3, 0.5, 3)]),
        min_size=11,
        max_size=60,
    )
)
def test_rate_limiter_never_sends_eleven_requests_in_a_second(
    steps: list[tuple[float, float, float]],
) -> None:
    clock = Clock()
    limiter = clock.limiter(9.5)
    sent = []
    for idle, clock.oversleep, pause in steps:
        clock.now += idle
        limiter.pause(pause)
        limiter.acquire()
        sent.append(clock.now)
    assert all(later - earlier > 1 for earlier, later in zip(sent, sent[10:], strict=False))


def test_rate_limiter_pause_reaches_a_thread_that_waits_and_keeps_the_longest() -> None:
    clock = Clock()
    limiter = clock.limiter(1)
    limiter.acquire()

    def pause() -> None:
        for seconds in (6, 1, -9) if len(clock.slept) == 1 else ():
            limiter.pause(seconds)

    clock.on_sleep = pause
    assert send(clock, limiter, 0.0, 3) == pytest.approx([106, 106.75, 107.75])


# Retries


def retry(clock: Clock, errors: Iterable[TransientError], **policy: float) -> str:
    """Retry what raises these errors, then returns "result"."""
    session = EnvoySession(clock.limiter(1000), retry_policy=RetryPolicy(**policy))
    remaining = iter(errors)

    def attempt() -> str:
        for error in remaining:
            raise error
        return "result"

    return session.retry(attempt, logging.getLogger("test"))


def rejection(status: int, retry_after: str = "") -> TransientError:
    """Return the error for a response with this status and header."""
    response = requests.Response()
    response.status_code = status
    response.headers["Retry-After"] = retry_after
    return TransientError(f"HTTP {status}.", response)


def test_retry_waits_double_with_jitter_up_to_a_minute_and_last_five_minutes() -> None:
    clock = Clock()
    with pytest.raises(
        EnvoyError, match=r"^Down. Gave up after 3\d\d s; correct it, or run later.$"
    ) as e:
        retry(clock, repeat(TransientError("Down.")))
    assert not isinstance(e.value, RunAbortedError)
    slept = clock.slept
    for wait, longest in zip(slept, [2, 4, 8, 16, 32, *[60] * 20], strict=False):
        assert 0.75 * longest <= wait <= longest
    assert len({wait / 2**n for n, wait in enumerate(slept)}) == len(slept)
    assert 300 <= sum(slept) <= 360


def test_retry_without_a_connection_to_the_end_aborts_the_run() -> None:
    with pytest.raises(RunAbortedError, match="Gave up after"):
        retry(Clock(), repeat(NoConnectionError("Cannot connect.")))


def test_retry_without_time_makes_one_attempt_and_keeps_the_cause() -> None:
    clock = Clock()
    with pytest.raises(EnvoyError, match=r"^HTTP 503\. The server asked to wait 3600 s\.$"):
        retry(clock, [rejection(503, "3600")], max_time=0)
    assert clock.slept == []


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 2), (1, 2), (100, 100), (3600, 300)])
def test_retry_after_only_lengthens_a_wait_up_to_five_minutes(
    retry_after: int, wait: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    retry(clock, [rejection(503, str(retry_after))])
    assert clock.slept[0] == pytest.approx(wait, rel=0.25)
    assert ("asked to wait 3600 s" in caplog.text) == (retry_after == 3600)


def test_retries_are_logged_and_repeated_429_suggests_another_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert retry(Clock(), map(rejection, (429, 429, 503))) == "result"
    advice = " Another program may be using the same credentials; see `requests_per_second`."
    first, second, third = (re.sub(r"\d\.\d s", "N s", line) for line in caplog.messages)
    assert first == "HTTP 429. Retrying in N s (attempt 2)."
    assert second == f"HTTP 429.{advice} Retrying in N s (attempt 3)."
    assert third == "HTTP 503. Retrying in N s (attempt 4)."


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *[("", 0), ("7", 7), ("soon", 0), ("-5", 0), ("9" * 5000, 0)],
        (formatdate(0, usegmt=True), 0),
    ],
)
def test_parse_retry_after(header: str, expected: float) -> None:
    assert parse_retry_after(rejection(503, header).response) == expected
    later = formatdate(time.time() + 7777, usegmt=True)
    assert parse_retry_after(rejection(503, later).response) == pytest.approx(7777, abs=9)


# Session


def test_session_keeps_connections_open_and_uses_the_proxy_except_for_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections: list[list[bytes]] = []

    def answer(client: socket.socket) -> None:
        connections.append([])
        while request := client.recv(65536):
            connections[-1].append(request.split()[1])
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    with serve(answer) as url, EnvoySession(RateLimiter(1000)) as session:
        for name, value in (("http_proxy", url), ("no_proxy", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        session.get("http://api.example/1")
        session.get("http://api.example/2")
        with session.fresh() as fresh:
            fresh.get(f"{url}/token")
    assert connections == [[b"http://api.example/1", b"http://api.example/2"], [b"/token"]]
