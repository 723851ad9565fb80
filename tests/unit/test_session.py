import heapq
import logging
import threading
import time
from email.utils import formatdate

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError, NoConnectionError, RunAbortedError, TransientError
from tap_envoy.session import EnvoySession, RateLimiter, RetryPolicy, parse_retry_after
from tests.unit.clock import Clock
from tests.unit.local_server import Received, Reply, serve

LOGGER = logging.getLogger("test")


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


def test_rate_limiter_pause_reaches_a_thread_that_waits_already() -> None:
    clock = Clock()
    limiter = clock.limiter(1)
    limiter.acquire()
    clock.on_sleep = lambda: limiter.pause(6) if len(clock.slept) == 1 else None
    sent = send(clock, limiter, 0.0, 3)
    assert sent == pytest.approx([106, 106.75, 107.75])


def test_rate_limiter_pause_never_shortens_a_longer_one() -> None:
    clock = Clock()
    limiter = clock.limiter(10)
    for seconds in (5, 1, -9):
        limiter.pause(seconds)
    limiter.acquire()
    assert clock.now == pytest.approx(105)


def test_rate_limiter_is_kept_and_paused_across_threads() -> None:
    limiter = RateLimiter(100)
    sent: list[float] = []
    start = time.monotonic()

    def work() -> None:
        for _ in range(5):
            limiter.acquire()
            sent.append(time.monotonic() - start)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    limiter.pause(0.3)
    for thread in threads:
        thread.join()
    later = [moment for moment in sent if moment > 0.2]
    assert min(later) >= 0.4
    assert max(later) - 0.4 >= (len(later) - 1.5) / 100


# Retries


class Retries:
    """Calls a function that fails as told, with retries and a clock of its own."""

    def __init__(self, **policy: float) -> None:
        self.clock = Clock()
        self.session = EnvoySession(self.clock.limiter(1000), retry_policy=RetryPolicy(**policy))

    def run(self, *errors: TransientError, forever: bool = False) -> int:
        """Return the number of attempts."""
        attempts = 0

        def attempt() -> int:
            nonlocal attempts
            attempts += 1
            if forever or attempts <= len(errors):
                raise errors[(attempts - 1) % len(errors)]
            return attempts

        return self.session.retry(attempt, LOGGER)


def test_retry_waits_double_with_jitter_up_to_a_minute_and_last_five_minutes() -> None:
    retries = Retries()
    with pytest.raises(EnvoyError, match=r"^Down. Gave up after 3\d\d s; run again later.$") as e:
        retries.run(TransientError("Down."), forever=True)
    assert not isinstance(e.value, RunAbortedError)
    slept = retries.clock.slept
    for wait, longest in zip(slept, [2, 4, 8, 16, 32, *[60] * 20], strict=False):
        assert 0.75 * longest <= wait <= longest
    assert len({wait / 2**n for n, wait in enumerate(slept)}) == len(slept)
    assert 300 <= sum(slept) <= 360


def test_retry_without_a_connection_to_the_end_aborts_the_run() -> None:
    with pytest.raises(RunAbortedError, match="Gave up after"):
        Retries().run(NoConnectionError("Cannot connect."), forever=True)


def test_retry_returns_the_result_and_logs_each_wait(caplog: pytest.LogCaptureFixture) -> None:
    assert Retries().run(TransientError("Busy."), TransientError("Busy.")) == 3
    first, second = caplog.messages
    assert first.startswith("Busy. Retrying in ")
    assert first.endswith(" s (attempt 2).")
    assert second.endswith(" s (attempt 3).")


def test_retry_without_time_makes_one_attempt() -> None:
    retries = Retries(max_time=0)
    with pytest.raises(EnvoyError, match=r"^Busy\.$"):
        retries.run(TransientError("Busy."), forever=True)
    assert retries.clock.slept == []


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 2), (1, 2), (100, 100), (3600, 300)])
def test_retry_after_only_lengthens_a_wait_up_to_five_minutes(
    retry_after: float, wait: float, caplog: pytest.LogCaptureFixture
) -> None:
    retries = Retries()
    retries.run(TransientError("Busy.", retry_after=retry_after))
    assert retries.clock.slept[0] == pytest.approx(wait, rel=0.25)
    assert ("asked to wait 3600 s" in caplog.text) == (retry_after == 3600)


def test_429_suggests_another_program(caplog: pytest.LogCaptureFixture) -> None:
    Retries().run(TransientError("HTTP 429.", status=429), TransientError("HTTP 503.", status=503))
    assert ["Another program" in line for line in caplog.messages] == [True, False]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *[(None, None), ("7", 7), ("0", 0), ("soon", None), ("-5", None), ("9" * 5000, None)],
        (formatdate(0, usegmt=True), 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_parse_retry_after(header: str | None, expected: float | None) -> None:
    response = requests.Response()
    response.headers.update({} if header is None else {"Retry-After": header})
    assert parse_retry_after(response) == expected
    response.headers["Retry-After"] = formatdate(time.time() + 77, usegmt=True)
    assert parse_retry_after(response) == pytest.approx(77, abs=3)


# Session


@pytest.mark.parametrize("location", ["/elsewhere", "http://[bad"])
def test_session_follows_no_redirect(location: str) -> None:
    received: list[Received] = []

    def answer(request: Received) -> Reply:
        received.append(request)
        return Reply(302, b"", {"Location": location})

    with serve(answer) as url, EnvoySession(RateLimiter(1000)) as session:
        assert session.get(url).status_code == 302
    assert [request.path for request in received] == ["/"]


def test_session_keeps_connections_open_but_a_fresh_one_has_none() -> None:
    ports: list[int] = []

    def answer(request: Received) -> Reply:
        ports.append(request.port)
        return Reply(200, b"x" * 50_000)

    with serve(answer) as url, EnvoySession(RateLimiter(1000)) as session:
        session.get(url)
        session.get(url)
        with session.fresh() as fresh:
            fresh.get(url)
    assert ports[0] == ports[1] != ports[2]


def test_session_uses_the_proxy_of_the_environment_except_for_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths: list[str] = []

    def answer(request: Received) -> Reply:
        paths.append(request.path)
        return Reply()

    with serve(answer) as url, EnvoySession(RateLimiter(1000)) as session:
        for name, value in (("http_proxy", url), ("no_proxy", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        session.get("http://api.example/first")
        session.get("http://api.example/second")
        with session.fresh() as fresh:
            fresh.get(f"{url}/token")
    assert paths == ["http://api.example/first", "http://api.example/second", "/token"]
