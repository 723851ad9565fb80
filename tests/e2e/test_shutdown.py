"""How a run is stopped: signals, and targets that exit, stop reading, or read slowly."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sandbox
from tests.runner import ROOT, clean_environment, run
from tests.sandbox import ScriptedResponse
from tests.sandbox.data import entries

TOKEN = "/oauth2/token"


def start(arguments: tuple[str, ...], **options: Any) -> "subprocess.Popen[bytes]":
    """Start the program."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fast_tap", *arguments],
        cwd=ROOT,
        env=clean_environment(TAP_ENVOY_LOGLEVEL="INFO"),
        **options,
    )


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_clean(err: str) -> None:
    for part in ("Traceback", "Exception ignored", "Fatal Python error", "Logging error"):
        assert part not in err


# Targets


def test_a_target_that_exits_ends_the_run_at_once(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"] = entries(9000)
    config = sandbox.write_config(requests_per_second=20)
    with start((*config, *sandbox.write_catalog("entries"))) as tap:
        assert tap.stdout is not None
        assert tap.stderr is not None
        for _ in range(20):
            tap.stdout.readline()
        tap.stdout.close()
        err = tap.stderr.read().decode()
    assert tap.returncode == 1
    assert_clean(err)
    first, second = [line for line in err.splitlines() if "ERROR" in line or "WARNING" in line]
    assert "Cannot write to stdout (Broken pipe): the target has exited" in first
    assert "Failed: entries (1 of 1 stream)." in second
    assert len(sandbox.envoy.requests_for("/v1/entries")) < 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", [[], ["--discover"], ["--about"], ["--test"], ["--help"]])
def test_a_full_disk_ends_the_run_at_once(sandbox: Sandbox, option: list[str]) -> None:
    arguments = (*sandbox.write_config(), *option)
    with Path("/dev/full").open("wb") as full, start(arguments, stdout=full) as tap:
        assert tap.stderr is not None
        err = tap.stderr.read().decode()
    assert tap.returncode == 1
    assert err.count("Cannot write to stdout (No space left on device)") == 1
    assert_clean(err)


def test_a_closed_stdout_is_one_sentence(sandbox: Sandbox) -> None:
    program = (sys.executable, "-m", "tests.fast_tap", *sandbox.write_config())
    command = ("sh", "-c", 'exec "$@" >&-', "sh", *program)
    run(command, environment=clean_environment()).assert_failed("stdout is closed")
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_whose_target_neither_reads_nor_exits(
    sandbox: Sandbox, number: signal.Signals
) -> None:
    sandbox.envoy.rows["entries"] = entries(3000)  # more than a pipe holds
    arguments = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    with start(arguments) as tap:
        assert tap.stderr is not None
        wait_until(lambda: len(sandbox.envoy.requests_for("/v1/entries")) >= 2)
        time.sleep(0.5)  # until the pipe is full
        tap.send_signal(number)
        begin = time.monotonic()
        assert tap.wait(20) == 128 + number
        assert time.monotonic() - begin < 4  # a second or two, on a busy machine
        err = tap.stderr.read().decode()
    assert f"Stopped by {number.name} while the target was not reading" in err
    assert_clean(err)


def test_a_non_blocking_stdout_loses_no_row(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"] = entries(3000)
    arguments = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    chunks: list[bytes] = []

    def read() -> None:
        time.sleep(1)  # until the pipe is full
        while chunk := os.read(reader, 1 << 16):
            chunks.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    with start(arguments, stdout=writer) as tap:
        os.close(writer)
        _, err = tap.communicate(timeout=30)
    thread.join()
    os.close(reader)
    assert tap.returncode == 0, err.decode()
    records = [x for x in b"".join(chunks).splitlines() if json.loads(x)["type"] == "RECORD"]
    assert len(records) == 3000


def test_a_target_that_reads_slowly_is_not_hurried(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"] = entries(2000)
    arguments = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    with start(arguments, stderr=subprocess.DEVNULL) as tap:
        assert tap.stdout is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(tap.stdout, fcntl.F_SETPIPE_SZ, 4096)
        time.sleep(2.5)  # longer than the watchdog waits after a signal
        lines = tap.stdout.readlines()
    assert tap.returncode == 0
    assert sum(json.loads(line)["type"] == "RECORD" for line in lines) == 2000


# Signals

MOMENTS: dict[str, Callable[[Sandbox], None]] = {
    "while records are written": lambda _sandbox: None,
    "while a response is awaited": lambda sandbox: sandbox.envoy.script(
        "/v1/entries", *[ScriptedResponse()] * 20, *[ScriptedResponse(delay=30)] * 20
    ),
    "while a retry is awaited": lambda sandbox: sandbox.envoy.script(
        "/v1/entries",
        *[ScriptedResponse()] * 20,
        *[ScriptedResponse(503, b"", {"Retry-After": "60"})] * 20,
    ),
    "while the first slow response is awaited": lambda sandbox: sandbox.envoy.script(
        "/v1/entries", *[ScriptedResponse()] * 30, ScriptedResponse(delay=30)
    ),
    "during the sign-in": lambda sandbox: sandbox.envoy.script(TOKEN, ScriptedResponse(delay=30)),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_the_run_after_a_whole_line_and_a_last_state(
    sandbox: Sandbox, moment: str, number: signal.Signals
) -> None:
    sandbox.envoy.rows["entries"] = entries(9000)
    MOMENTS[moment](sandbox)
    rate = 1000 if "first slow" in moment else 25  # fast ones are awaited without threads
    config = sandbox.write_config(requests_per_second=rate, **sandbox.login)
    is_signing_in = moment == "during the sign-in"
    output = sandbox.folder / "output.jsonl"  # a pipe would be full
    with (
        output.open("wb") as file,
        start((*config, *sandbox.write_catalog("entries")), stdout=file) as tap,
    ):
        wait_until(lambda: len(sandbox.envoy.requests) >= (1 if is_signing_in else 20))
        time.sleep(0.3)
        tap.send_signal(number)
        begin = time.monotonic()
        _, err = tap.communicate(timeout=20)
        seconds = time.monotonic() - begin
    assert tap.returncode == 128 + number
    assert seconds < 4  # a second or two, on a busy machine
    assert_clean(err.decode())
    messages = [json.loads(line) for line in output.read_bytes().splitlines()]
    last = err.decode().splitlines()[-1]
    assert f"| Stopped by {number.name}." in last
    assert "Run again to continue from the last STATE message." in last
    if is_signing_in:
        assert "Not started: entries." in last
        assert messages == []
        return
    assert "Incomplete: entries (1 of 1 stream)." in last
    assert messages[-1]["type"] == "STATE"
    reached = messages[-1]["value"]["bookmarks"]["entries"]["replication_key_value"]
    rows = [message["record"] for message in messages if message["type"] == "RECORD"]
    assert rows[-101]["signedInAt"] <= reached <= rows[-1]["signedInAt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_imports_ends_the_program(number: signal.Signals) -> None:
    program = f"""
import os, sys

class Sender:
    def find_spec(self, name, *_):
        if name == "tap_envoy.tap":
            os.kill(os.getpid(), {number:d})

sys.meta_path.insert(0, Sender())
from tap_envoy.__main__ import main
main()
"""
    stopped = run([sys.executable, "-c", program], environment=clean_environment())
    assert stopped.code == 128 + number
    assert stopped.out + stopped.err == ""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_still_log_do_not_break_the_exit(sandbox: Sandbox, attempt: int) -> None:
    sandbox.envoy.rows["entries"] = entries(9000)
    refusal = ScriptedResponse(403, {"message": "no"})
    slow = ScriptedResponse(503, b"", delay=0.02 * (attempt + 1))  # logged as retries
    sandbox.envoy.script("/v1/entries", *[ScriptedResponse()] * 8, refusal, *[slow] * 200)
    run = sandbox.run_tap(*sandbox.write_catalog("entries"))
    assert run.code == 1
    assert_clean(run.err)
