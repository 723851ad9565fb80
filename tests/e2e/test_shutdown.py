"""How a run is stopped: signals, and targets that exit, stop reading, or read slowly."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.runner import Run, clean_environment, run, run_tap
from tests.sandbox import RESOURCES, ScriptedResponse
from tests.sandbox.data import entries

INFO = {"TAP_ENVOY_LOGLEVEL": "INFO"}
GOOD, SLOW = ScriptedResponse(), ScriptedResponse(delay=30)
BUSY = ScriptedResponse(503, b"", {"Retry-After": "60"})


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def stop(
    number: signal.Signals, stdout: Path, condition: Callable[[], object], *options: str
) -> Run:
    """Stop a run by a signal, soon after a condition is met; assert how it ends."""
    begin = 0.0

    def interact(process_id: int) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process_id, number)
        nonlocal begin
        begin = time.monotonic()

    run = run_tap(*options, environment=INFO, stdout=stdout, interact=interact)
    assert time.monotonic() - begin < 4  # two seconds, on a busy machine
    assert run.code == 128 + number
    assert_clean(run)
    return run


def unread_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def assert_clean(run: Run) -> None:
    for part in ("Traceback", "Exception ignored", "Fatal Python error", "Logging error"):
        assert part not in run.err
    assert len(run.errors) <= 1


@pytest.mark.parametrize(
    ("number", "awaited"), [(signal.SIGTERM, SLOW), (signal.SIGINT, BUSY)], ids=["page", "retry"]
)
def test_signal_while_waiting_ends_run_after_whole_line_and_last_state(
    sandbox: Sandbox, pipe: Path, number: signal.Signals, awaited: ScriptedResponse
) -> None:
    sandbox.envoy.rows["entries"] = entries(900)
    sandbox.envoy.script("/v1/entries", GOOD, *[awaited] * 20)
    lines: list[bytes] = []

    def read() -> None:
        with pipe.open("rb") as file:
            lines.extend(file)

    target = threading.Thread(target=read, daemon=True)
    target.start()
    options = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    # The first page is written before the next one comes.
    run = stop(number, pipe, lambda: len(lines) > 100, *options)
    target.join(5)
    types = [json.loads(line)["type"] for line in lines]
    assert types == ["SCHEMA", *["RECORD"] * 100, "STATE"]
    assert run.log()[-1] == (
        f"Stopped by {number.name}; incomplete: entries (1 of 1 stream). Run again to continue."
    )


def test_signal_during_grant_ends_run_once_token_is_stored(sandbox: Sandbox) -> None:
    cache, output = sandbox.folder / "tokens.json", sandbox.folder / "output"
    token = sandbox.envoy.new_refresh_token("locations.read")
    sandbox.envoy.script("/oauth2/token", ScriptedResponse(delay=0.7))
    config = {**sandbox.client, "refresh_token": token, "token_cache": str(cache)}
    run = stop(
        signal.SIGTERM, output, lambda: sandbox.envoy.requests, *sandbox.write_config(**config)
    )
    assert run.log()[-1].startswith("Stopped by SIGTERM; incomplete: locations (1 of 1 stream).")
    (newest,) = sandbox.envoy.refresh_tokens.keys() - {token}
    assert newest in cache.read_text()
    assert output.read_bytes() == b""


def test_signal_while_target_does_not_read_ends_run(sandbox: Sandbox, pipe: Path) -> None:
    sandbox.envoy.rows["entries"] = entries(500)  # more than the pipe holds
    options = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    target = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = stop(signal.SIGTERM, pipe, lambda: unread_bytes(target) > 60_000, *options)
    os.close(target)
    assert run.log()[-1].startswith("Stopped by SIGTERM while the target was not reading")


def test_signal_during_imports_ends_program_silently() -> None:
    program = (
        "import logging, signal; from tap_envoy.__main__ import main\n"
        "logging.getLevelNamesMapping = lambda: signal.raise_signal(signal.SIGINT)\n"
        "main()"
    )
    stopped = run([sys.executable, "-c", program], environment=clean_environment())
    assert stopped.code == -signal.SIGINT
    assert stopped.out + stopped.err == ""


def test_target_that_exits_ends_run_with_one_error(sandbox: Sandbox, pipe: Path) -> None:
    sandbox.envoy.rows["entries"] = entries(3000)

    def read_one_line(_: int) -> None:
        with pipe.open("rb") as file:
            file.readline()

    options = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    run = run_tap(*options, stdout=pipe, interact=read_one_line)
    run.assert_failed("Failed: entries (1 of 1 stream): Cannot write to stdout (Broken pipe)")
    assert_clean(run)
    assert len(sandbox.envoy.requests) < 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", [[], ["--discover"]], ids=["run", "discover"])
def test_full_disk_ends_run_with_one_error(sandbox: Sandbox, option: list[str]) -> None:
    run = run_tap(*sandbox.write_config(), *option, stdout=Path("/dev/full"))
    run.assert_failed("Cannot write to stdout (No space left on device)")
    assert_clean(run)


def test_closed_stdout_is_reported() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "tap_envoy"]
    done = run(command, environment=clean_environment())
    assert done.code == 1
    assert done.err == "stdout is closed; redirect it to a target or to a file.\n"


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs a small pipe")
def test_slow_target_with_non_blocking_pipe_receives_whole_output() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    command = [sys.executable, "-m", "tap_envoy", "--discover"]
    with subprocess.Popen(command, env=clean_environment(), stdout=writer) as tap:
        os.close(writer)
        with open(reader, "rb") as catalog:  # noqa: PTH123  # a descriptor
            assert len(json.load(catalog)["streams"]) == len(RESOURCES)
    assert tap.returncode == 0
