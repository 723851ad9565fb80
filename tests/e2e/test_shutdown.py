"""How a run is stopped: signals, and targets that exit, stop reading, or read slowly."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.runner import ROOT, Run, clean_environment, run, run_tap
from tests.sandbox import ScriptedResponse
from tests.sandbox.data import entries

INFO = {"TAP_ENVOY_LOGLEVEL": "INFO"}
PROGRAM = [sys.executable, "-m", "tests.fast_tap"]
GOOD, SLOW = ScriptedResponse(), ScriptedResponse(delay=30)
BUSY = ScriptedResponse(503, b"", {"Retry-After": "60"})


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def stop(number: signal.Signals, stdout: Path, wait: Callable[[], object], *options: str) -> Run:
    """Stop a run by a signal after `wait`; assert how it ends."""
    begin = 0.0

    def interact(process_id: int) -> None:
        wait()
        os.kill(process_id, number)
        nonlocal begin
        begin = time.monotonic()

    run = run_tap(*options, environment=INFO, stdout=stdout, interact=interact)
    assert time.monotonic() - begin < 4  # two seconds, on a busy machine
    assert run.code == 128 + number
    assert_clean(run)
    return run


def assert_clean(run: Run) -> None:
    for part in ("Traceback", "Exception ignored", "Fatal Python error", "Logging error"):
        assert part not in run.err


def wait_until(condition: Callable[[], object], then: float = 0) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(then)


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

    def wait_for_first_page() -> None:  # written before the next page comes
        wait_until(lambda: len(lines) > 100)

    options = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    run = stop(number, pipe, wait_for_first_page, *options)
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

    def wait_for_grant() -> None:
        wait_until(lambda: sandbox.envoy.requests)

    config = {**sandbox.client, "refresh_token": token, "token_cache": str(cache)}
    run = stop(signal.SIGTERM, output, wait_for_grant, *sandbox.write_config(**config))
    assert run.log()[-1].startswith("Stopped by SIGTERM; incomplete: locations (1 of 1 stream).")
    (newest,) = sandbox.envoy.refresh_tokens.keys() - {token}
    assert newest in cache.read_text()
    assert output.read_bytes() == b""


@pytest.mark.parametrize("count", [1, 2])
def test_signal_while_target_does_not_read_ends_run(
    sandbox: Sandbox, pipe: Path, count: int
) -> None:
    sandbox.envoy.rows["entries"] = entries(3000)  # more than the pipe holds

    def send(process_id: int) -> None:
        wait_until(lambda: len(sandbox.envoy.requests) > 1, then=0.5)
        for _ in range(count):
            os.kill(process_id, signal.SIGTERM)
            time.sleep(0.2)

    options = (*sandbox.write_config(), *sandbox.write_catalog("entries"))
    target = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = run_tap(*options, environment=INFO, stdout=pipe, interact=send)
    os.close(target)
    assert run.code == (143 if count == 1 else -signal.SIGTERM)  # a second one ends it at once
    text = "Stopped by SIGTERM while the target was not reading"
    assert run.log()[-1].startswith(text) == (count == 1)


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
    sandbox.envoy.rows["entries"] = entries(9000)

    def read_one_line(_: int) -> None:
        with pipe.open("rb") as file:
            file.readline()

    options = (*sandbox.write_config(requests_per_second=20), *sandbox.write_catalog("entries"))
    run = run_tap(*options, stdout=pipe, interact=read_one_line)
    assert run.code == 1
    assert_clean(run)
    text = "Failed: entries (1 of 1 stream): Cannot write to stdout (Broken pipe)"
    assert [error[: len(text)] for error in run.errors] == [text]
    assert len(sandbox.envoy.requests) < 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", [[], ["--discover"]], ids=["run", "discover"])
def test_full_disk_ends_run_with_one_error(sandbox: Sandbox, option: list[str]) -> None:
    run = run_tap(*sandbox.write_config(), *option, stdout=Path("/dev/full"))
    run.assert_failed("Cannot write to stdout (No space left on device)")
    assert_clean(run)
    assert len(run.errors) == 1


def test_closed_stdout_is_reported() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "tap_envoy"]
    done = run(command, environment=clean_environment())
    assert done.code == 1
    assert done.err == "stdout is closed; redirect it to a target or to a file.\n"


def test_slow_target_with_non_blocking_pipe_receives_each_row(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"] = entries(3000)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [*PROGRAM, *sandbox.write_config(), *sandbox.write_catalog("entries")]
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=writer) as tap:
        os.close(writer)
        wait_until(lambda: len(sandbox.envoy.requests) > 1, then=1)  # until the pipe is full
        with open(reader, "rb") as file:  # noqa: PTH123  # a descriptor
            types = [json.loads(line)["type"] for line in file]
    assert tap.returncode == 0
    assert types.count("RECORD") == 3000
