"""What a run prints on stderr: few lines, and a last one that repeats the first cause."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.runner import clean_environment, run, run_tap
from tests.sandbox import ScriptedResponse
from tests.sandbox.server import environment

INFO = {"TAP_ENVOY_LOGLEVEL": "INFO"}
FORBIDDEN = ScriptedResponse(403, {"message": "no"})


# Successful runs


def test_successful_run_prints_few_lines(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/entries", ScriptedResponse(), ScriptedResponse(503, b""))
    catalog = sandbox.write_catalog("entries", "flows")
    run = sandbox.run_tap(*catalog, environment=INFO, start_date="2024-01-01", **sandbox.login)
    assert run.code == 0
    newest = sandbox.envoy.rows["entries"][-1]["signedInAt"]
    lines = [re.sub(r"[\d.]+ (s|requests?)\b", r"_ \1", line) for line in run.log("INFO")]
    assert [line for line in lines if "additionalFields" not in line] == [
        lines[0],
        "Requesting an access token with the password grant.",
        "Signed in.",
        "entries: reading from 2024-01-01 (`start_date`).",
        f"entries: 320 rows in _ s (_ requests, 1 retry), bookmark {newest}.",
        "flows: reading all rows.",
        "flows: 12 rows in _ s (_ request).",
        "Done: 332 rows from 2 streams in _ s (_ requests).",
    ]


def test_log_configuration_receives_metrics_but_no_other_lines_of_sdk(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    log, path = tmp_path / "log", tmp_path / "logging.json"
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,  # as Meltano has it
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log)}},
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    path.write_text(json.dumps(configuration))
    variables = {**INFO, "SINGER_SDK_LOG_CONFIG": str(path)}
    catalog = sandbox.write_catalog("entries")
    assert sandbox.run_tap(*catalog, environment=variables, start_date="2024-01-01").code == 0
    lines = log.read_text().splitlines()
    others = [line for line in lines if not line.startswith("METRIC")]
    assert len(others) < len(lines)
    assert not any(line.startswith(("Skipping", "Beginning", "Starting")) for line in others)
    assert len(others) <= 8


def test_invalid_log_configuration_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text("version: 7")
    run = sandbox.run_tap(environment={"SINGER_SDK_LOG_CONFIG": str(path)})
    assert run.code == 1
    assert run.err == "SINGER_SDK_LOG_CONFIG: not a valid log configuration (ValueError).\n"


@pytest.mark.parametrize("level", ["", "verbose"])
def test_log_variables_of_other_programs_are_ignored(sandbox: Sandbox, level: str) -> None:
    variables = {"LOGLEVEL": level, "TAP_ENVOY_LOGLEVEL": level, "SINGER_SDK_LOG_CONFIG": ""}
    run = sandbox.run_tap(environment=variables)
    assert run.code == 0, run.err


# Failed runs


def test_failed_stream_stops_no_other_and_keeps_its_bookmark(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/entries", ScriptedResponse(), FORBIDDEN)
    catalog = sandbox.write_catalog("entries", "invites", "locations")
    time = "2024-01-03T08:00:00Z"
    given = {
        "entries": {"replication_key": "signedInAt", "replication_key_value": time},
        "reservations": {"replication_key": "startTime", "replication_key_value": time},
    }  # the latter is not selected
    run = sandbox.run_tap(*catalog, *sandbox.write_state({"bookmarks": given}), environment=INFO)
    assert run.code == 1
    assert len(run.records("locations")) == 250
    first, last = run.errors
    assert first.startswith("entries: Envoy denied access (HTTP 403: ")
    assert last == f"Failed: entries (1 of 3 streams): {first.removeprefix('entries: ')}"
    assert run.log()[-1] == last
    newest = max(row["createdAt"] for row in sandbox.envoy.rows["invites"])
    reached = {"replication_key": "createdAt", "replication_key_value": newest}
    assert run.state["bookmarks"] == {**given, "invites": reached, "locations": {}}


def test_rejected_credentials_are_one_error(sandbox: Sandbox) -> None:
    catalog = sandbox.write_catalog("entries", "flows")
    run = sandbox.run_tap(*catalog, environment=INFO, api_key="not-the-key-of-this-integration")
    assert run.log()[-1] == run.assert_failed("Failed: entries, flows (2 of 2 streams)", "api_key")
    assert len(run.errors) == 1


@pytest.mark.parametrize(
    ("option", "text", "part"),
    [
        ("--config", '{"page_size": 0}', "`page_size`"),
        ("--config", "[]", "does not contain a JSON object"),
        ("--config", None, "cannot read"),
        ("--catalog", None, "cannot read"),
        ("--catalog", '{"streams": []}', "no stream is selected"),
        ("--state", None, "cannot read"),
        ("--state", '{"value": 7}', "no `bookmarks`"),
        ("--state", "{\n5}", "line 2 column 1"),
    ],
)
def test_invalid_file_is_last_line(
    sandbox: Sandbox, option: str, text: str | None, part: str
) -> None:
    path = sandbox.folder / "input.json"
    if text is not None:
        path.write_text(text, encoding="utf-8-sig")  # as some editors do
    run = sandbox.run_tap(option, str(path))
    assert run.log()[-1] == run.assert_failed(part)
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize(
    ("broken", "part"), [("client.check_bookmark", "entries (1 of 2 streams): "), ("tap.time", "")]
)
def test_unexpected_error_is_last_line_without_its_text(
    sandbox: Sandbox, broken: str, part: str
) -> None:
    program = f"from tap_envoy import __main__, client, tap; {broken} = None; __main__.main()"
    catalog = sandbox.write_catalog("entries", "flows")
    command = [sys.executable, "-c", program, *sandbox.write_config(), *catalog]
    done = run(command, environment=clean_environment())
    assert done.log()[-1] == done.assert_failed(f"{part}Unexpected error (", "Error at ")
    assert len(done.records("flows")) == (12 if part else 0)  # which come after entries
    assert "NoneType" not in done.err


@pytest.mark.parametrize("value", ["'\\ud800'", "md5(email.zebra)"], ids=["surrogate", "map"])
def test_record_that_cannot_be_written_fails_its_stream_alone(sandbox: Sandbox, value: str) -> None:
    catalog = sandbox.write_catalog("entries", "flows")
    run = sandbox.run_tap(*catalog, stream_maps={"entries": {"fullName": value}})
    run.assert_failed("Failed: entries (1 of 2 streams): ", "stream")
    assert run.records("entries") == []
    assert len(run.records("flows")) == 12
    for row in sandbox.envoy.rows["entries"]:
        assert row["fullName"] not in run.err


@pytest.mark.parametrize("option", [[], ["--test"]], ids=["run", "test"])
def test_lines_fit_any_encoding(sandbox: Sandbox, option: list[str]) -> None:
    sandbox.envoy.script("/v1/locations", FORBIDDEN)
    variables = {"PYTHONIOENCODING": "latin-1:strict"}
    run = sandbox.run_tap(*sandbox.write_catalog("locations"), *option, environment=variables)
    assert run.code == 1
    assert r"\u201cno\u201d" in (run.out if option else run.log()[-1])
    assert "Traceback" not in run.err


# Options that need no settings


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--discover"], '"tap_stream_id":"entries"'),
        (["--about"], "  entries         Visitors"),
        (["--version"], "tap-envoy v"),
        (["--help"], "Sign in, request each stream once"),
    ],
)
def test_options_without_settings_request_nothing(
    sandbox: Sandbox, arguments: list[str], part: str
) -> None:
    variables = environment(sandbox.envoy, sandbox.address)
    for more in ([], ["--config=ENV"]):
        run = run_tap(*arguments, *more, environment=variables)
        assert run.code == 0
        assert part in run.out
    assert sandbox.envoy.requests == []
