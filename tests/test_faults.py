"""What a run survives, what ends it, and how it is stopped: real processes, sockets, signals."""

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tap_envoy.output import Stop, StoppedError
from tap_envoy.pace import Pace
from tap_envoy.retry import Retry
from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene, read
from tests.program import HERE, clean_environment
from tests.sandbox import Answer
from tests.sandbox.bucket import LeakyBucket
from tests.sandbox.data import entries
from tests.sandbox.server import connections
from tests.test_lists import STREAMS, ids

LIST = "/v1/locations"
TOKEN = "/oauth2/token"


# Survived

FAULTS = {
    "429": Answer(429, {"message": "slow down"}),
    "429, to be asked again after a second": Answer(429, b"", {"Retry-After": "1"}),
    "408": Answer(408, b""),
    "500": Answer(500, b"<h1>oops</h1>"),
    "502": Answer(502, b""),
    "503": Answer(503, b""),
    "504": Answer(504, b""),
    "a body cut short": Answer(cut=True),
    "half a page": Answer(200, b'{"data": [{"id": "v-100"}, {"id":'),
    "a web page": Answer(200, b"<html>maintenance</html>"),
    "no answer in time": Answer(delay=1.5),
    "a revoked token": Answer(401, {"message": "revoked"}),
    "a revoked token, by 200": Answer(200, {"status": 401, "message": "revoked"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_on_pages_ahead_costs_no_row_and_no_order(scene: Scene, fault: Answer) -> None:
    scene.envoy.rows["entries"] = entries(1500)
    # The second one comes after the first has been asked again: eight are under way at once.
    scene.envoy.script("/v1/entries", Answer(), Answer(), fault, *[Answer()] * 8, fault)
    run = scene.run(*scene.select("entries"), request_timeout=1, **scene.login)
    assert run.code == 0, run.errors
    assert ids(run.records("entries")) == ids(scene.envoy.rows["entries"])
    assert "Traceback" not in run.err


def test_a_connection_that_is_reset_costs_no_row(scene: Scene) -> None:
    with Relay(scene.address, resets=3) as relay:
        run = scene.run(api_url=f"{relay.address}/v1")
    assert run.code == 0, run.errors
    assert len(run.records()) == 250
    assert relay.resets == 0


def test_an_envoy_that_comes_up_late_is_waited_for(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tap = scene.tap(api_url=f"http://127.0.0.1:{port}/v1")
    relays: list[Relay] = []

    def late(_wait: float) -> None:
        if not relays:
            relays.append(Relay(scene.address, port=port).__enter__())

    tap.retry = Retry(sleep=late)  # type: ignore[misc]  # for this one tap
    assert len(read(tap)) == 250
    relays[0].__exit__()


class Relay:
    """Passes bytes on to an address, after resetting some connections."""

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
            onward = socket.create_connection(self.target)
            for source, sink in ((connection, onward), (onward, connection)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_wait_that_envoy_asks_for_is_told_in_a_line_and_holds_the_others(scene: Scene) -> None:
    scene.envoy.rows["entries"] = entries(2000)
    slow = Answer(429, {"message": "slow down"}, {"Retry-After": "1"})
    scene.envoy.script("/v1/entries", Answer(), Answer(), slow)
    run = scene.run(*scene.select("entries"), requests_per_second=50)
    assert len(run.records("entries")) == 2000
    (line,) = run.warnings
    assert "HTTP 429: “slow down”. Waiting 1.0 seconds" in line
    times = [request.time for request in scene.envoy.asked("/v1/entries")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) > 0.7  # nothing left in the meantime


# Pace


class Clock:
    """A clock that only moves when somebody sleeps, for several threads."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_leave_evenly_and_nothing_is_caught_up_on() -> None:
    clock = Clock()
    pace = Pace(8, clock=clock, sleep=clock.sleep)
    left = []
    for turn in range(20):
        if turn == 10:
            clock.now += 60  # an idle minute does not buy a burst
        pace.wait()
        left.append(clock.now)
    gaps = [round(later - earlier, 6) for earlier, later in itertools.pairwise(left)]
    assert gaps == [0.125] * 9 + [60.0] + [0.125] * 9


def test_a_server_that_enforces_its_limit_has_no_reason_to(scene: Scene) -> None:
    scene.envoy.limit = LeakyBucket(10)
    scene.envoy.rows["entries"] = entries(2400)
    run = scene.run(*scene.select("entries"), requests_per_second=8)
    assert len(run.records("entries")) == 2400
    times = [request.time for request in scene.envoy.asked("/v1/entries")]
    assert len(times) == 24
    assert times[-1] - times[0] >= 23 / 8 - 0.1
    assert "HTTP 429" not in run.err


# Ended quickly


def test_an_error_ahead_is_met_in_its_turn_and_ends_the_reading(scene: Scene) -> None:
    scene.envoy.rows["entries"] = entries(9000)
    scene.envoy.script("/v1/entries", *[Answer()] * 4, Answer(400, {"message": "no"}))
    run = scene.run(*scene.select("entries"), requests_per_second=100)
    run.failed_with("entries: ", "HTTP 400", "no")
    assert len(run.records("entries")) in {300, 400, 500}  # requests may pass each other
    assert len(scene.envoy.asked("/v1/entries")) < 20


# A target that is gone


def start(scene: Scene, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    """Start the program as a process of its own, with the settings of the last run."""
    command = [sys.executable, "-m", "tests.hasty", "--config", str(scene.folder / "config.json")]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=HERE,
        env=clean_environment(TAP_ENVOY_LOGLEVEL="INFO"),
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
    )


def configure(scene: Scene, **config: Any) -> None:
    settings = scene.addresses | {"api_key": scene.envoy.api_key} | config
    (scene.folder / "config.json").write_text(json.dumps(settings))


def test_a_target_that_dies_ends_the_run_at_once(scene: Scene) -> None:
    scene.envoy.rows["entries"] = entries(9000)
    configure(scene, requests_per_second=20)
    with start(scene, *scene.select("entries")) as tap:
        assert tap.stdout is not None
        assert tap.stderr is not None
        for _ in range(20):
            tap.stdout.readline()
        tap.stdout.close()
        err = tap.stderr.read().decode()
    assert tap.returncode == 1
    assert "The output cannot be written any more (Broken pipe)" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert len(scene.envoy.asked("/v1/entries")) < 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to offer")
def test_a_full_disk_ends_the_run_at_once(scene: Scene) -> None:
    configure(scene)
    with Path("/dev/full").open("wb") as full, start(scene, stdout=full) as tap:
        assert tap.stderr is not None
        err = tap.stderr.read().decode()
    assert tap.returncode == 1
    assert "The output cannot be written any more (No space left on device)" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


# Stopped

MOMENTS: dict[str, Callable[[Scene], None]] = {
    "while rows are written": lambda _scene: None,
    "while Envoy is awaited": lambda scene: scene.envoy.script(
        "/v1/entries", *[Answer()] * 3, *[Answer(delay=30)] * 20
    ),
    "while a wait lasts": lambda scene: scene.envoy.script(
        "/v1/entries", *[Answer()] * 3, *[Answer(503, b"", {"Retry-After": "60"})] * 20
    ),
    "while it logs in": lambda scene: scene.envoy.script(TOKEN, Answer(delay=30)),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("prepare", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_signal_ends_the_run_after_a_whole_line_and_the_last_state(
    scene: Scene, prepare: Callable[[Scene], None], number: signal.Signals
) -> None:
    scene.envoy.rows["entries"] = entries(9000)
    prepare(scene)
    configure(scene, requests_per_second=10, api_key=None, **scene.login)
    with start(scene, *scene.select("entries")) as tap:
        assert tap.stdout is not None
        assert tap.stderr is not None
        deadline = time.monotonic() + 20
        waits_for_login = prepare is MOMENTS["while it logs in"]
        while len(scene.envoy.requests) < (1 if waits_for_login else 5):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        asked = time.monotonic()
        tap.send_signal(number)
        out, err = tap.communicate(timeout=20)
        took = time.monotonic() - asked
    assert tap.returncode == 128 + number
    assert took < 5  # a second or two, on a machine that is busy with other tests
    messages = [json.loads(line) for line in out.splitlines()]
    assert "Traceback" not in err.decode()
    assert "Stopped by a signal" in err.decode()
    assert "Incomplete: entries." in err.decode()
    if not waits_for_login:
        assert messages[-1]["type"] == "STATE"
        reached = messages[-1]["value"]["bookmarks"]["entries"]["replication_key_value"]
        rows = [m["record"] for m in messages if m["type"] == "RECORD"]
        assert rows[-101]["signedInAt"] <= reached <= rows[-1]["signedInAt"]


def test_a_second_signal_does_not_wait() -> None:
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop.check()
        stop.ask(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(StoppedError) as stopped:
            stop.check()
        assert stopped.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)


# Seen by no one


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (LIST, Answer(401, {"message": "no"})),
        (LIST, Answer(403, {"message": "no"})),
        (LIST, Answer(500, {"message": "no"})),
        (LIST, Answer(200, {"access_token": "x", "data": None})),
        (LIST, Answer(429, b"", {"Retry-After": "0"})),
        (TOKEN, Answer(401, {"error": "no"})),
        (TOKEN, Answer(503, b"")),
        (TOKEN, Answer(200, {"access_token": 5, "refresh_token": "hidden-refresh-token"})),
        (TOKEN, Answer(302, b"", {"Location": "https://evil.example/?t=hidden-refresh-token"})),
    ],
)
def test_no_secret_is_seen_whatever_is_answered(scene: Scene, path: str, answer: Answer) -> None:
    scene.envoy.script(path, *[answer] * 9)
    run = scene.run(**scene.login)  # which looks for each secret in all that was printed
    assert "Traceback" not in run.err
    assert "hidden-refresh-token" not in run.err


def test_nobody_in_the_records_is_named_in_a_log(scene: Scene) -> None:
    broken = {"data": [{"id": "v-1", "fullName": "Grace Secretive"}, {"fullName": "Alan Hidden"}]}
    scene.envoy.script("/v1/entries", Answer(200, broken))
    scene.envoy.script("/v1/employees", Answer(200, {"data": "Edsger Private"}))
    scene.envoy.script("/v1/invites", Answer(200, broken), Answer(200, broken))
    run = scene.run(*scene.select(*STREAMS), start_date="2024-01-01")
    assert run.code == 1
    names = ("Grace", "Alan", "Edsger", "Ada Example", "visitor1@", "host@example.com", "ACME")
    for name in names:
        assert name not in run.err


def test_retries_outlast_five_minutes_and_never_wait_longer_than_one() -> None:
    waits: list[float] = []
    retry = Retry(sleep=waits.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tap = TapEnvoy(config={"api_key": "k", "api_url": f"http://127.0.0.1:{port}/v1"})
    tap.retry = retry  # type: ignore[misc]  # for this one tap
    with pytest.raises(Exception, match="Gave up after 12 tries"):
        read(tap)
    assert 1 <= waits[0] <= 2
    assert max(waits) <= 60
    assert sum(waits) >= 300
