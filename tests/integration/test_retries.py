"""Faults that pass cost no row; those that do not end a stream in one sentence."""

import itertools
import logging
import socket
import threading
from typing import Any, Self

import pytest

from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.http import RetryPolicy
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read
from tests.sandbox import ScriptedResponse
from tests.sandbox.data import entries
from tests.sandbox.rate_limits import LeakyBucket
from tests.sandbox.server import connections

LIST = "/v1/entries"


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


FAULTS = {
    "429": ScriptedResponse(429, {"message": "slow down"}),
    "429 with Retry-After: 0": ScriptedResponse(429, b"", {"Retry-After": "0"}),
    "429 in the body": ScriptedResponse(200, {"status": 429, "message": "slow down"}),
    "408": ScriptedResponse(408, b""),
    "500": ScriptedResponse(500, b"<h1>oops</h1>"),
    "502": ScriptedResponse(502, b""),
    "503": ScriptedResponse(503, b""),
    "504": ScriptedResponse(504, b""),
    "a body cut short": ScriptedResponse(cut=True),
    "half a page": ScriptedResponse(200, b'{"data": [{"id": "v-100"}, {"id":'),
    "a web page": ScriptedResponse(200, b"<html>maintenance</html>"),
    "no body": ScriptedResponse(200, b""),
    "a body nested too deeply": ScriptedResponse(200, b"[" * 100_000),
    "no response in time": ScriptedResponse(delay=1.5),
    "a revoked token": ScriptedResponse(401, {"message": "revoked"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_that_passes_costs_no_row_and_no_order(
    sandbox: Sandbox, fault: ScriptedResponse
) -> None:
    sandbox.envoy.rows["entries"] = entries(1500)
    # The second one comes after the first has been retried: eight requests are under way at once.
    real = ScriptedResponse()
    sandbox.envoy.script(LIST, real, real, fault, *[real] * 8, fault)
    credentials = {"api_key": None, "scopes": ["token.refresh", "entries.read"], **sandbox.login}
    rows = read(sandbox.tap(request_timeout=1, **credentials), "entries")
    assert ids(rows) == ids(sandbox.envoy.rows["entries"])


def test_retry_after_pauses_all_requests_and_is_logged_once(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.envoy.rows["entries"] = entries(2000)
    slow = ScriptedResponse(429, {"message": "slow down"}, {"Retry-After": "1"})
    sandbox.envoy.script(LIST, ScriptedResponse(), ScriptedResponse(), slow)
    policy = RetryPolicy(initial_wait=0.002, max_wait=0.06, max_time=5)
    tap = sandbox.tap(requests_per_second=50)
    tap.api.retry_policy = policy
    assert len(read(tap, "entries")) == 2000
    (line,) = [m for m in caplog.messages if "Retrying" in m]
    assert "HTTP 429: “slow down”. Retrying in 1.0 s" in line
    times = [request.time for request in sandbox.envoy.requests_for(LIST)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) > 0.7  # no request in the meantime


def test_outage_that_lasts_is_given_up_with_its_last_error(sandbox: Sandbox) -> None:
    down = ScriptedResponse(503, {"message": "down"})
    sandbox.envoy.script(LIST, ScriptedResponse(), ScriptedResponse(500, b"first"), *[down] * 200)
    with pytest.raises(EnvoyError, match=r"HTTP 503: “down”.*Gave up after") as caught:
        read(sandbox.tap(), "entries")
    assert not isinstance(caught.value, RunAbortedError)


def test_final_error_after_a_transient_one_is_reported(sandbox: Sandbox) -> None:
    final = ScriptedResponse(404, {"message": "second"})
    sandbox.envoy.script(LIST, ScriptedResponse(500, b"first"), final)
    with pytest.raises(EnvoyError, match="second"):
        read(sandbox.tap(), "entries")


def test_error_of_a_page_requested_ahead_is_raised_in_its_turn(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.envoy.rows["entries"] = entries(9000)
    sandbox.envoy.script(LIST, *[ScriptedResponse()] * 4, ScriptedResponse(403, {"message": "no"}))
    tap = sandbox.tap(requests_per_second=100)
    rows = list(tap.streams["entries"].get_records(None))
    assert 100 <= len(rows) <= 1000  # eight requests at once may pass each other
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert error.startswith("entries: Envoy denied access (HTTP 403): “no”")
    assert len(sandbox.envoy.requests_for(LIST)) < 20


def test_limit_of_the_api_is_kept_without_a_rejection(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.envoy.limit = LeakyBucket(10)
    sandbox.envoy.rows["entries"] = entries(1500)
    # Requests of the test before may still be under way.
    tap = sandbox.tap(requests_per_second=9.5, user_agent="this one")
    tap.api.retry_policy = RetryPolicy(initial_wait=0.002, max_wait=0.06, max_time=5)
    assert len(read(tap, "entries")) == 1500
    requests = sandbox.envoy.requests_for(LIST)
    times = [request.time for request in requests if request.headers["user-agent"] == "this one"]
    # A busy machine may send the first one late.
    assert times[-1] - times[0] >= (len(times) - 1) / 9.5 - 0.5
    assert "HTTP 429" not in caplog.text


# Connections


class Relay:
    """Passes bytes on to an address, after it has reset some connections."""

    def __init__(self, target: str, *, resets: int = 0, port: int = 0) -> None:
        host, _, target_port = target.removeprefix("http://").partition(":")
        self.target = (host, int(target_port))
        self.resets = resets
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        for connection in connections(self._listener):
            if self.resets:
                self.resets -= 1
                connection.recv(1)
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()
                continue
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, connection: socket.socket) -> None:
        with connection, socket.create_connection(self.target) as onward:
            back = threading.Thread(target=self._pass, args=(onward, connection), daemon=True)
            back.start()
            self._pass(connection, onward)
            back.join()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_connections_that_are_reset_cost_no_row(sandbox: Sandbox) -> None:
    with Relay(sandbox.address, resets=3) as relay:
        tap = sandbox.tap(api_url=f"{relay.address}/v1")
        assert len(read(tap)) == 250
        tap.api.session.close()
    assert relay.resets == 0


def test_server_that_starts_late_is_waited_for(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    relays: list[Relay] = []

    def start_server(_seconds: float) -> None:
        if not relays:
            relays.append(Relay(sandbox.address, port=port).__enter__())

    monkeypatch.setattr(TapEnvoy, "retry_policy", RetryPolicy(sleep=start_server))
    tap = sandbox.tap(api_url=f"http://127.0.0.1:{port}/v1")
    assert len(read(tap)) == 250
    tap.api.session.close()
    relays[0].__exit__()


def test_second_stream_is_not_started_without_a_connection(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    run = sandbox.run_tap(*sandbox.write_catalog("companies", "flows"), api_url=address)
    run.assert_failed("Cannot connect to Envoy", "connection refused", "Gave up")
    assert "Not started: flows." in run.log()[-1]
