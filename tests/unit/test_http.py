import itertools
import logging
import math
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
import requests

from tap_envoy.exceptions import (
    REQUEST_ERRORS,
    EnvoyError,
    NoConnectionError,
    ResponseLostError,
    ResponseTooLargeError,
    RunAbortedError,
    TransientError,
    connection_error,
)
from tap_envoy.http import (
    MAX_RESPONSE_BYTES,
    MAX_RESPONSE_TIME,
    EnvoySession,
    RateLimiter,
    RetryPolicy,
    parse_retry_after,
)
from tests.unit.local_server import Received, Reply, serve, serve_socket
from tests.unit.virtual_time import VirtualTime

LOGGER = logging.getLogger("test")


def limiter(per_second: float, time: VirtualTime) -> RateLimiter:
    return RateLimiter(per_second, clock=time, sleep=time.sleep)


# Rate limiter


@pytest.mark.parametrize("rate", [0.1, 8, 9.5, 201])
@pytest.mark.parametrize("threads", [1, 8])
def test_rate_limiter_spaces_requests_evenly(rate: float, threads: int) -> None:
    time = VirtualTime()
    limit = limiter(rate, time)
    sent: list[float] = []

    def work() -> None:
        for _ in range(40 // threads):
            sent.append(limit.acquire())  # noqa: PERF401  # as they come

    time.run(*[work] * threads)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert gaps == pytest.approx([1 / rate] * 39)


def test_rate_limiter_builds_up_no_burst_while_idle() -> None:
    time = VirtualTime()
    limit = limiter(8, time)
    limit.acquire()
    time.now += 60
    sent = [limit.acquire() for _ in range(3)]
    assert sent == pytest.approx([160, 160.09375, 160.21875])


def test_rate_limiter_makes_up_for_a_slot_taken_late() -> None:
    time = VirtualTime()
    limit = limiter(10, time)
    limit.acquire()
    time.now += 0.12
    assert [limit.acquire(), limit.acquire()] == pytest.approx([100.12, 100.2])
    time.now += 0.18  # late by more than a quarter of an interval
    assert [limit.acquire(), limit.acquire()] == pytest.approx([100.38, 100.455])


def test_rate_limiter_pause_reaches_threads_that_sleep_for_their_slot() -> None:
    time = VirtualTime()
    limit = limiter(1, time)
    sent: list[float] = []

    def pause() -> None:
        time.sleep(2.5)
        limit.pause(6)

    time.run(*[lambda: sent.append(limit.acquire())] * 6, pause)
    assert sent == pytest.approx([100, 101, 102, 108.5, 109.5, 110.5])


def test_rate_limiter_pause_never_shortens_a_longer_one() -> None:
    time = VirtualTime()
    limit = limiter(10, time)
    limit.pause(5)
    limit.pause(1)
    limit.pause(-9)
    assert limit.acquire() == pytest.approx(105)


def test_throttled_lowers_the_rate_by_a_fifth_and_logs_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = VirtualTime()
    limit = limiter(9.5, time)
    sent = [limit.acquire() for _ in range(8)]
    for moment in sent:  # responses to one burst
        limit.throttled(moment)
    assert limit.rate == pytest.approx(7.6)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Rate limit reached (HTTP 429); continuing with 7.6 requests per second."
    )
    limit.throttled(limit.acquire())
    assert limit.rate == pytest.approx(6.08)


@pytest.mark.parametrize(("rate", "lowest"), [(9.5, 1), (1.1, 1), (1, 1), (0.5, 0.5)])
def test_throttled_does_not_lower_the_rate_below_one(rate: float, lowest: float) -> None:
    time = VirtualTime()
    limit = limiter(rate, time)
    for _ in range(20):
        limit.throttled(limit.acquire())
    assert limit.rate == lowest


def test_succeeded_raises_the_rate_step_by_step() -> None:
    time = VirtualTime()
    limit = limiter(10, time)
    limit.throttled(limit.acquire())
    limit.succeeded()
    assert limit.rate == 8
    rates = []
    for _ in range(12):
        time.now += 1
        for _ in range(8):
            limit.succeeded()
        rates.append(limit.rate)
    assert rates == pytest.approx([8.2, 8.4, 8.6, 8.8, 9, 9.2, 9.4, 9.6, 9.8, 10, 10, 10])


class LeakyBucket:
    def __init__(self, rate: int) -> None:
        self.rate, self.level, self.time = rate, 0.0, -math.inf

    def accepts(self, now: float) -> bool:
        self.level = max(0, self.level - (now - self.time) * self.rate)
        self.time = now
        if self.level + 1 > self.rate:
            return False
        self.level += 1
        return True


class FixedWindow:
    def __init__(self, rate: int) -> None:
        self.rate, self.window, self.count = rate, -1, 0

    def accepts(self, now: float) -> bool:
        if int(now) != self.window:
            self.window, self.count = int(now), 0
        self.count += 1
        return self.count <= self.rate


class SlidingWindow:
    def __init__(self, rate: int) -> None:
        self.accepted: deque[float] = deque([-math.inf] * rate, maxlen=rate)

    def accepts(self, now: float) -> bool:
        if now - self.accepted[0] < 1:
            return False
        self.accepted.append(now)
        return True


Server = LeakyBucket | FixedWindow | SlidingWindow


class Client:
    """Threads that send requests to a simulated server."""

    def __init__(
        self, server: Server, latency: float, time: VirtualTime, limit: RateLimiter
    ) -> None:
        self.server, self.latency, self.time, self.limit = server, latency, time, limit
        self.left: list[int] = []
        self.done = self.refused = 0

    def work(self) -> None:
        send = RetryPolicy(clock=self.time, sleep=self.time.sleep).decorator(LOGGER, self.limit)(
            self.send
        )
        while self.left:
            self.left.pop()
            send()

    def send(self) -> None:
        sent_at = self.limit.acquire()
        self.time.sleep(self.latency / 2)
        is_accepted = self.server.accepts(self.time.now)
        self.time.sleep(self.latency / 2)
        if not is_accepted:
            self.refused += 1
            self.limit.throttled(sent_at)
            raise TransientError("HTTP 429.", status=429)
        self.limit.succeeded()
        self.done += 1


@pytest.mark.parametrize("server", [LeakyBucket, FixedWindow, SlidingWindow])
@pytest.mark.parametrize(("latency", "least"), [(0.15, 9.2), (0.3, 9.0), (0.6, 8.7)])
def test_rate_limiter_reaches_the_limit_of_the_api(
    server: type[Server], latency: float, least: float
) -> None:
    time = VirtualTime()
    client = Client(server(10), latency, time, limiter(9.5, time))
    client.left = [0] * 90
    time.run(*[client.work] * 8)
    assert client.done == 90
    assert client.refused <= 2
    assert 90 / (time.now - 100) >= least


@pytest.mark.parametrize("server", [LeakyBucket, FixedWindow, SlidingWindow])
def test_two_runs_share_the_limit_of_the_api(server: type[Server]) -> None:
    time, shared = VirtualTime(), server(10)
    clients = [Client(shared, 0.3, time, limiter(9.5, time)) for _ in range(2)]
    for client in clients:
        client.left = [0] * 300
    time.run(*[client.work for client in clients] * 8)
    assert [client.done for client in clients] == [300, 300]
    assert 600 / (time.now - 100) >= 8
    assert sum(client.refused for client in clients) < 120


# Retry policy


def outcome(
    time: VirtualTime,
    errors: Callable[[int], TransientError | None],
    limit: RateLimiter | None = None,
) -> int:
    """Call a function that fails as `errors` says, with retries; return the attempts."""
    attempts = 0

    def work() -> int:
        nonlocal attempts
        attempts += 1
        if error := errors(attempts):
            raise error
        return attempts

    return RetryPolicy(clock=time, sleep=time.sleep).decorator(LOGGER, limit)(work)()


def test_waits_double_with_jitter_up_to_a_minute_and_last_five_minutes() -> None:
    time = VirtualTime()
    with pytest.raises(
        EnvoyError, match=r"Down. Gave up after 3\d\d s; run again later."
    ) as raised:
        outcome(time, lambda _: TransientError("Down."))
    assert not isinstance(raised.value, RunAbortedError)
    for wait, longest in zip(time.slept, [2, 4, 8, 16, 32, *[60] * 20], strict=False):
        assert 0.75 * longest <= wait <= longest
    assert len({wait / 2**n for n, wait in enumerate(time.slept)}) == len(time.slept)
    assert 300 <= sum(time.slept) <= 360


def test_no_connection_to_the_end_aborts_the_run() -> None:
    with pytest.raises(RunAbortedError, match="Gave up after"):
        outcome(VirtualTime(), lambda _: NoConnectionError("Cannot connect."))


def test_retry_returns_the_result_and_logs_each_wait(caplog: pytest.LogCaptureFixture) -> None:
    error = TransientError("Busy.")
    assert outcome(VirtualTime(), lambda attempt: None if attempt == 3 else error) == 3
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("Busy. Retrying in ")
    assert first.endswith(" s (attempt 2).")
    assert second.endswith(" s (attempt 3).")


def test_final_error_is_not_retried() -> None:
    def fail() -> None:
        raise EnvoyError("No.")

    time = VirtualTime()
    with pytest.raises(EnvoyError, match=r"^No\.$"):
        RetryPolicy(clock=time, sleep=time.sleep).decorator(LOGGER)(fail)()
    assert time.slept == []


def test_slow_first_failure_is_still_retried() -> None:
    time = VirtualTime()

    def errors(attempt: int) -> TransientError | None:
        time.sleep(600)
        return ResponseLostError("Lost.") if attempt == 1 else None

    assert outcome(time, errors) == 2


def test_without_time_one_attempt_is_made() -> None:
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise TransientError("Busy.")

    with pytest.raises(EnvoyError, match=r"^Busy\.$"):
        RetryPolicy(max_time=0).decorator(LOGGER)(fail)()
    assert attempts == [1]


@pytest.mark.parametrize("retry_after", [None, 0, 1, 2, 5, -7])
def test_outage_of_90_s_is_survived_whatever_retry_after_says(retry_after: float | None) -> None:
    time = VirtualTime()
    error = TransientError("Busy.", retry_after=retry_after)
    attempts = outcome(time, lambda _: error if time.now < 190 else None, limiter(9.5, time))
    assert attempts <= 10
    assert time.now >= 190


def test_retry_after_lengthens_a_wait_up_to_five_minutes() -> None:
    for retry_after, expected in [(100, 100), (9e9, 300)]:
        time = VirtualTime()
        error = TransientError("Busy.", retry_after=retry_after)
        outcome(time, lambda attempt, error=error: error if attempt == 1 else None)  # type: ignore[misc]
        assert time.slept == [expected]


def test_retry_after_pauses_all_requests() -> None:
    time = VirtualTime()
    limit = limiter(10, time)
    error = TransientError("Busy.", retry_after=30)
    time.sleep(0)
    start = time.now

    def watch() -> None:
        time.sleep(1)
        assert limit.acquire() == pytest.approx(start + 30)

    time.run(watch, lambda: outcome(time, lambda n: error if n == 1 else None, limit))


def test_backoff_without_retry_after_pauses_no_other_request() -> None:
    time = VirtualTime()
    limit = limiter(10, time)
    outcome(time, lambda attempt: TransientError("Busy.") if attempt == 1 else None, limit)
    time.now = 100
    assert limit.acquire() == 100


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("7", 7),
        ("0", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 400, 300),
        ("9" * 5000, None),
        (format_datetime(datetime(2001, 1, 1, tzinfo=UTC)), 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        (format_datetime(datetime(2999, 1, 1, tzinfo=UTC)), 300),
    ],
)
def test_parse_retry_after(header: str | None, expected: float | None) -> None:
    response = requests.Response()
    if header is not None:
        response.headers["Retry-After"] = header
    assert parse_retry_after(response) == expected


# Session


def session(**limits: float) -> EnvoySession:
    return EnvoySession(RateLimiter(1000), **limits)  # type: ignore[arg-type]


def test_session_reports_status_to_the_limiter() -> None:
    statuses = [200, 429, 429, 200]
    with serve(lambda _: Reply(statuses.pop(0))) as url, session() as http:
        http.get(url)
        assert http.rate_limiter.rate == 1000
        http.get(url)
        assert http.rate_limiter.rate == 800
        http.get(url)
        assert http.rate_limiter.rate == 640
        http.get(url)
        assert http.rate_limiter.rate == 640


def test_session_follows_no_redirect() -> None:
    received: list[Received] = []

    def answer(request: Received) -> Reply:
        received.append(request)
        return Reply(302, b"", {"Location": "/elsewhere"})

    with serve(answer) as url, session() as http:
        assert http.get(url).status_code == 302
    assert [request.path for request in received] == ["/"]


def test_session_accepts_a_malformed_redirect() -> None:
    with serve(lambda _: Reply(302, b"", {"Location": "http://[bad"})) as url, session() as http:
        assert http.get(url, allow_redirects=False).status_code == 302


def test_session_skips_informational_responses() -> None:
    sent = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    with serve_socket(lambda connection: connection.sendall(sent)) as url, session() as http:
        response = http.get(url)
    assert (response.status_code, response.content) == (200, b"ok")


def trickle(prefix: bytes, part: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(prefix)
        while True:
            connection.sendall(part)
            time.sleep(0.02)

    return send


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("prefix", "part"),
    [
        (b"", b"H"),
        (HEAD + b"X: ", b"y"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (HEAD + b"Content-Length: 99999\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["status", "header", "informational", "body", "chunks"],
)
def test_session_limits_the_duration_of_a_response(prefix: bytes, part: bytes) -> None:
    started = time.monotonic()
    with (
        serve_socket(trickle(prefix, part)) as url,
        session(max_time=0.1) as http,
        pytest.raises(REQUEST_ERRORS) as raised,
    ):
        http.get(url, timeout=0.2)
    assert 0.25 < time.monotonic() - started < 1.5
    error = connection_error(raised.value, where="Envoy", timeout=0.2)
    assert isinstance(error, ResponseLostError)
    assert "No complete response" in str(error)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_session_limits_the_size_of_a_body(encoding: str) -> None:
    body = b"x" * 100_000
    if encoding == "gzip":
        compressor = zlib.compressobj(wbits=31)
        body = compressor.compress(body) + compressor.flush()
        assert len(body) < 1000
    reply = Reply(200, body, {"Content-Encoding": encoding})
    with serve(lambda _: reply) as url:
        with session(max_bytes=100_000) as http:
            assert http.get(url).content == b"x" * 100_000
        with session(max_bytes=99_999) as http, pytest.raises(ResponseTooLargeError):
            http.get(url)


def test_session_reports_a_chunk_of_negative_length_as_a_lost_response() -> None:
    chunk = HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx"
    with (
        serve_socket(lambda connection: connection.sendall(chunk)) as url,
        session() as http,
        pytest.raises(REQUEST_ERRORS) as raised,
    ):
        http.get(url)
    error = connection_error(raised.value, where="Envoy", timeout=1)
    assert isinstance(error, ResponseLostError)


def test_default_limits_of_a_response_are_minutes_and_megabytes() -> None:
    assert 120 <= MAX_RESPONSE_TIME <= 300
    assert MAX_RESPONSE_BYTES >= 32 * 1024 * 1024


def test_session_keeps_connections_open() -> None:
    ports = set()
    with serve(lambda _: Reply(200, b"x" * 50_000)) as url, session() as http:
        for _ in range(3):
            response = http.get(url, stream=True)
            connection = response.raw.connection
            ports.add(connection.sock.getsockname() if connection else None)
            assert len(response.content) == 50_000
    assert len(ports) == 1


def test_session_uses_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []

    def answer(request: Received) -> Reply:
        paths.append(request.path)
        return Reply(200)

    with serve(answer) as proxy, session() as http:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        assert http.get("http://api.example/v1").ok
    assert paths == ["http://api.example/v1"]


def test_sessions_are_safe_in_threads() -> None:
    with serve(lambda request: Reply(200, request.path.encode())) as url, session() as http:
        results: list[bool] = []

        def work(number: int) -> None:
            results.append(http.get(f"{url}/{number}").content == f"/{number}".encode())

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 16
