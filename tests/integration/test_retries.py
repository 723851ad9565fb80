"""Faults that pass cost no row; those that do not end a stream in one sentence."""

import itertools
from typing import Any

import pytest

from tap_envoy.exceptions import RunAbortedError
from tap_envoy.session import RetryPolicy
from tests.conftest import Sandbox, read
from tests.sandbox import ScriptedResponse
from tests.sandbox.rate_limits import LeakyBucket
from tests.unit.local_server import unused_port

LIST = "/v1/entries"
BUSY = {"message": "slow down"}
POLICY = RetryPolicy(initial_wait=0.002, max_wait=0.06, max_time=5)

FAULTS = {
    "429": ScriptedResponse(429, BUSY),
    "429 in the body": ScriptedResponse(200, {"status": 429, "message": "slow down"}),
    "500": ScriptedResponse(500, b"<h1>oops</h1>"),
    "a body cut short": ScriptedResponse(cut=True),
    "half a page": ScriptedResponse(200, b'{"data": [{"id": "v-100"}, {"id":'),
    "a web page": ScriptedResponse(200, b"<html>maintenance</html>"),
    "no response in time": ScriptedResponse(delay=0.6),
}


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_that_passes_costs_no_row(sandbox: Sandbox, fault: ScriptedResponse) -> None:
    # The second one comes after the first has been retried: eight requests are under way at once.
    real = ScriptedResponse()
    sandbox.envoy.script(LIST, real, fault, *[real] * 8, fault)
    tap = sandbox.tap(page_size=10)
    tap.session.timeout = 0.3
    tap.session.retry_policy = POLICY
    assert ids(read(tap, "entries")) == sandbox.envoy.stable_ids("entries")


def test_retry_after_pauses_all_requests_and_is_logged_once(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    real = ScriptedResponse()
    sandbox.envoy.script(LIST, real, real, ScriptedResponse(429, BUSY, {"Retry-After": "1"}))
    del sandbox.envoy.rows["entries"][100:]
    tap = sandbox.tap(page_size=10, requests_per_second=20)
    tap.session.retry_policy = POLICY
    assert ids(read(tap, "entries")) == sandbox.envoy.stable_ids("entries")
    (line,) = [line for line in caplog.messages if "Retrying" in line]
    assert "HTTP 429: “slow down”. Retrying in 1.0 s" in line
    times = [request.time for request in sandbox.envoy.requests_for(LIST)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) > 0.7
    assert gaps.index(max(gaps)) < 6, gaps  # not only once eight requests are under way


def test_limit_of_the_api_is_kept_without_a_rejection(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.envoy.limit = LeakyBucket(10)
    del sandbox.envoy.rows["entries"][100:]
    tap = sandbox.tap(page_size=10, requests_per_second=9.5)
    assert ids(read(tap, "entries")) == sandbox.envoy.stable_ids("entries")
    times = [request.time for request in sandbox.envoy.requests_for(LIST)]
    assert len(times) > 10
    # A busy machine may send the first one late.
    assert times[-1] - times[0] >= (len(times) - 1) / 9.5 - 0.5
    assert "HTTP 429" not in caplog.text


def test_lost_connection_ends_the_run_and_not_only_the_stream(sandbox: Sandbox) -> None:
    stream = sandbox.tap(api_url=f"http://127.0.0.1:{unused_port()}/v1").envoy_streams[0]
    with pytest.raises(RunAbortedError, match=r"Cannot connect to Envoy .* Gave up"):
        list(stream.get_records(None))
