"""`tap-envoy --test`."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import Sandbox
from tests.runner import ROOT, clean_environment
from tests.sandbox import RESOURCES, Quirks, ScriptedResponse, list_path

STREAMS = [name.replace("-", "_") for name in RESOURCES]
KEY_LINE = "Signing in with the Client API Key (`api_key`)."


def test_selected_streams_come_first_and_the_others_in_one_line(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        KEY_LINE,
        "ok         locations: 250 rows",
        f"others     ok: {', '.join(sorted({*STREAMS} - {'locations'}))}",
        "9 of 9 streams can be read.",
    ]
    assert {request.query["perPage"] for request in sandbox.envoy.requests} == {"1"}
    assert "\x1b" not in run.out


def test_one_row_is_singular(sandbox: Sandbox) -> None:
    del sandbox.envoy.rows["locations"][1:]
    run = sandbox.run_tap("--test", *sandbox.write_catalog("locations"))
    assert "ok         locations: 1 row" in run.out.splitlines()


def test_a_stream_without_a_known_total_can_be_read(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test", *sandbox.write_catalog("reservations"))
    assert "ok         reservations: can be read" in run.out.splitlines()


def test_a_rejected_parameter_is_reported_and_the_stream_can_be_read(sandbox: Sandbox) -> None:
    sandbox.envoy.quirks = Quirks(rejected={"sort"})
    run = sandbox.run_tap("--test", *sandbox.write_catalog("locations"))
    assert run.code == 0
    (line,) = [line for line in run.out.splitlines() if line.startswith("ok         locations: ")]
    assert "250 rows; Envoy rejected `sort`" in line
    assert "Invalid parameter: sort" in line
    assert line.endswith("reading the list without.")


@pytest.mark.parametrize("first", ["catalog", "test"])
def test_with_a_catalog_only_selected_streams_are_requested(sandbox: Sandbox, first: str) -> None:
    catalog = sandbox.write_catalog("invites", "employees")
    arguments = [*catalog, "--test"] if first == "catalog" else ["--test", *catalog]
    run = sandbox.run_tap(*arguments)
    assert run.code == 0
    assert {r.path for r in sandbox.envoy.requests} == {"/v1/invites", "/v1/employees"}
    assert run.out.splitlines()[-1] == "2 of 2 streams can be read."
    assert "others" not in run.out


def test_a_sign_in_names_the_company_and_happens_once(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test", **sandbox.login)
    assert run.code == 0
    assert run.out.startswith("Signed in to company 10000.\n")
    assert len(sandbox.envoy.requests_for("/oauth2/token")) == 1


def test_a_missing_scope_fails_only_if_its_stream_is_selected(sandbox: Sandbox) -> None:
    sandbox.envoy.integration_scopes -= {"invites.read"}
    run = sandbox.run_tap("--test")
    assert run.code == 0  # only locations are selected
    (line,) = [line for line in run.out.splitlines() if line.startswith("others")]
    assert line.endswith("; forbidden: invites")
    assert run.out.splitlines()[-1] == "8 of 9 streams can be read."
    run = sandbox.run_tap("--test", *sandbox.write_catalog("invites", "locations"))
    assert run.code == 1
    (line,) = [line for line in run.out.splitlines() if line.startswith("forbidden  invites: ")]
    assert "`invites.read`" in line


def test_a_sign_in_that_is_refused_for_all_streams_is_repeated_for_the_selected_ones(
    sandbox: Sandbox,
) -> None:
    sandbox.envoy.integration_scopes -= {"invites.read"}
    run = sandbox.run_tap("--test", **sandbox.login)
    assert run.code == 0
    assert run.out.splitlines() == [
        "Signed in to company 10000.",
        "ok         locations: 250 rows",
        "others     not tested: the integration does not have the scopes of all streams",
        "1 of 1 stream can be read.",
    ]


@pytest.mark.parametrize(
    ("response", "part"),
    [
        (ScriptedResponse(500, {"message": "oops"}), "HTTP 500"),
        (ScriptedResponse(200, b"<html>"), "not JSON"),
        (ScriptedResponse(404, b""), "HTTP 404"),
    ],
)
def test_a_failing_stream_is_reported_at_once_with_its_cause(
    sandbox: Sandbox, response: ScriptedResponse, part: str
) -> None:
    sandbox.envoy.script("/v1/locations", response)
    run = sandbox.run_tap("--test", *sandbox.write_catalog("locations"))
    assert run.code == 1
    (line,) = [line for line in run.out.splitlines() if line.startswith("failed     locations: ")]
    assert part in line
    assert len(sandbox.envoy.requests) == 1  # no retries
    assert run.out.splitlines()[-1] == "0 of 1 stream can be read."


def test_a_rejected_key_is_reported_once(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test", api_key="not-the-key-of-this-integration")
    assert run.code == 1
    first, second = run.out.splitlines()
    assert first == KEY_LINE
    assert second.startswith("failed     ")
    assert "`api_key`" in second


def test_a_rejected_sign_in_is_one_line(sandbox: Sandbox) -> None:
    wrong = {**sandbox.login, "password": "not-the-right-one-at-all"}
    run = sandbox.run_tap("--test", **wrong)
    assert run.code == 1
    (line,) = run.out.splitlines()
    assert line.startswith("failed     ")
    assert "HTTP 401" in line
    assert len(sandbox.envoy.requests) == 1  # wrong passwords can lock a user out


def test_a_server_that_is_down_is_one_line(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    run = sandbox.run_tap("--test", api_url=address)
    assert run.code == 1
    assert "Traceback" not in run.out + run.err
    _, line = run.out.splitlines()
    assert line.startswith("failed     ")
    assert "`api_url`" in line


def test_a_server_that_does_not_respond_is_reported_soon(sandbox: Sandbox) -> None:
    for resource in RESOURCES:
        sandbox.envoy.script(list_path(resource), ScriptedResponse(delay=30))
    start = time.monotonic()
    run = sandbox.run_tap("--test", request_timeout=1)
    assert time.monotonic() - start < 15  # nine waits of a second, at the same time
    assert run.code == 1
    assert run.out.splitlines()[-1] == "0 of 9 streams can be read."


@pytest.mark.parametrize("option", ["--test", "--test=schema"])
def test_invalid_settings_are_reported(sandbox: Sandbox, option: str) -> None:
    run = sandbox.run_tap(option, page_size=0)
    run.assert_failed("`page_size`")
    assert run.out == ""


def test_the_schema_test_writes_schemas_and_requests_nothing(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test=schema")
    assert run.code == 0
    assert {message["type"] for message in run.messages} == {"SCHEMA"}
    assert len(run.messages) == 9
    assert all("properties" in message["schema"] for message in run.messages)
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_test_while_the_token_endpoint_is_awaited(
    sandbox: Sandbox, number: signal.Signals
) -> None:
    sandbox.envoy.script("/oauth2/token", ScriptedResponse(delay=30))
    arguments = [*sandbox.write_config(**sandbox.login), "--test"]
    command = [sys.executable, "-m", "tests.fast_tap", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdout=pipe, stderr=pipe
    ) as test:
        deadline = time.monotonic() + 20
        while not sandbox.envoy.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        test.send_signal(number)
        start = time.monotonic()
        out, err = test.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert test.returncode == 128 + number
    assert out == b""
    assert f"Stopped by {number.name}." in err.decode()
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_shown_on_a_terminal_unless_no_color_is_set(
    sandbox: Sandbox, no_color: str
) -> None:
    terminal, stdout = pty.openpty()
    command = [sys.executable, "-m", "tests.fast_tap", *sandbox.write_config(), "--test"]
    environment = clean_environment(NO_COLOR=no_color)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.DEVNULL
    ) as test:
        assert test.wait(30) == 0
    out = os.read(terminal, 1 << 16).decode()
    os.close(stdout)
    os.close(terminal)
    assert ("\x1b[32mok" in out) == (not no_color)
    assert "locations: 250 rows" in out


def test_help_describes_the_test(sandbox: Sandbox) -> None:
    text = " ".join(sandbox.run_tap("--help").out.split())
    assert "Sign in, request one row of each stream, and print which streams can be read" in text
    assert json.dumps("sync a single record") not in text
