"""What a run prints on stderr: the cause first, the summary last, nothing twice."""

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Sandbox
from tests.runner import Run, clean_environment, run_tap
from tests.runner import run as run_program
from tests.sandbox import ScriptedResponse
from tests.sandbox.server import environment

INFO = {"TAP_ENVOY_LOGLEVEL": "INFO"}
KEY_LINE = "Signing in with the Client API Key (`api_key`)."


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"[\d.]+ s\b", "0 s", line) for line in lines]


def assert_cause_above_summary(run: Run, *parts: str) -> None:
    """Assert that the run logged one error, then no more than summaries."""
    assert run.code == 1
    assert "Traceback" not in run.err
    (cause,) = run.errors
    for part in parts:
        assert part in cause
    after = run.log()[run.log().index(cause) + 1 :]
    assert after
    assert all(": incomplete, " in line for line in after[:-1])
    assert after[-1].startswith(("Failed: ", "Not started: "))


# Successful runs


def test_a_successful_run_prints_a_few_lines(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(environment=INFO)
    lines = without_times(run.log("INFO"))
    assert lines[0].startswith("tap-envoy v")
    assert lines[1] == KEY_LINE
    assert lines[2].startswith("locations: ")
    assert lines[3:] == [
        "locations: 250 rows in 0 s (3 requests).",
        "Done: 250 rows from 1 stream in 0 s (3 requests).",
    ]


def test_each_stream_ends_with_a_line_before_the_next_one_starts(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/entries", ScriptedResponse(), ScriptedResponse(503, b""))
    catalog = sandbox.write_catalog("entries", "flows")
    run = sandbox.run_tap(*catalog, environment=INFO, **sandbox.login)
    newest = sandbox.envoy.rows["entries"][-1]["signedInAt"]
    lines = without_times(run.log("INFO"))
    end = f"entries: 320 rows in 0 s (5 requests, 1 retry), bookmark {newest}."
    assert lines.index(end) < lines.index("flows: 12 rows in 0 s (2 requests).")
    assert lines[-1] == "Done: 332 rows from 2 streams in 0 s (7 requests)."
    assert len(set(run.log())) == len(run.log())


def test_details_of_the_sdk_are_shown_at_debug(sandbox: Sandbox) -> None:
    details = ("METRIC", "Skipping deselected stream", "Skipping parse of env var", "Beginning")
    shown, hidden = sandbox.run_tap().err, sandbox.run_tap(environment=INFO).err
    assert all(part in shown for part in details)
    assert not any(part in hidden for part in details)


def test_each_request_is_shown_at_debug(sandbox: Sandbox) -> None:
    lines = [line for line in sandbox.run_tap().err.splitlines() if "GET /locations" in line]
    assert len(lines) == 3
    assert all("HTTP 200" in line for line in lines)


def test_structured_logs_carry_fields_and_the_details_of_the_sdk(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"structured": {"()": "singer_sdk.logging.StructuredFormatter"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": str(tmp_path / "log.jsonl"),
                "formatter": "structured",
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    (tmp_path / "logging.yaml").write_text(yaml.safe_dump(config))
    where = {**INFO, "SINGER_SDK_LOG_CONFIG": str(tmp_path / "logging.yaml")}
    assert sandbox.run_tap(*sandbox.write_catalog("entries"), environment=where).code == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("metric_info" in line for line in lines)
    assert any(line["message"].startswith("Skipping deselected") for line in lines)
    (end,) = [line["extra"] for line in lines if "320 rows in" in line["message"]]
    assert end["stream"] == "entries"
    assert (end["rows"], end["requests"]) == (320, 4)
    assert end["seconds"] > 0
    assert end["bookmark"] == sandbox.envoy.rows["entries"][-1]["signedInAt"]
    (done,) = [line["extra"] for line in lines if line["message"].startswith("Done: ")]
    assert (done["rows"], done["requests"]) == (320, 4)


# Failed runs


def test_a_failed_stream_does_not_stop_the_others(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/flows", ScriptedResponse(403, {"message": "no"}))
    catalog = sandbox.write_catalog("entries", "flows", "locations")
    run = sandbox.run_tap(*catalog, environment=INFO)
    assert run.code == 1
    assert len(run.records("locations")) == 250
    (cause,) = run.errors
    assert cause.startswith("flows: ")
    assert run.log()[-1] == "Failed: flows (1 of 3 streams). Rows already sent are kept."


def test_a_rejected_key_is_one_error_and_later_streams_are_not_started(sandbox: Sandbox) -> None:
    catalog = sandbox.write_catalog("entries", "flows", "locations")
    run = sandbox.run_tap(*catalog, environment=INFO, api_key="not-the-key-of-this-integration")
    assert_cause_above_summary(run, "`api_key`")
    last = run.log()[-1]
    assert last == "Failed: entries (1 of 3 streams). Not started: flows, locations."


def test_a_rejected_sign_in_is_one_error_before_any_stream_starts(sandbox: Sandbox) -> None:
    config = {**sandbox.login, "password": "not-the-right-one-at-all"}
    run = sandbox.run_tap(environment=INFO, **config)
    assert_cause_above_summary(run, "HTTP 401")
    assert run.log()[-1] == "Not started: locations."
    assert run.messages == []


def test_no_connection_is_one_error(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    run = sandbox.run_tap(environment=INFO, api_url=address)
    assert_cause_above_summary(run, "`api_url`", "Gave up")


def test_a_stream_that_breaks_off_reports_its_rows(sandbox: Sandbox) -> None:
    sandbox.envoy.script(
        "/v1/locations", ScriptedResponse(), ScriptedResponse(403, {"message": "no"})
    )
    run = sandbox.run_tap(environment=INFO)
    assert_cause_above_summary(run, "locations: ")
    *_, before, last = without_times(run.log())
    assert before.startswith("locations: incomplete, 100 rows in 0 s")
    assert last == "Failed: locations (1 of 1 stream). Rows already sent are kept."


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"page_size": 0}, ["`page_size`"]),
        ({"api_key": None}, ["No credentials"]),
        ({"stream_maps": {"locatons": {"name": None}}}, ["`locatons`; did you mean `locations`?"]),
    ],
)
def test_a_setting_that_is_not_valid_is_the_last_line(
    sandbox: Sandbox, config: dict[str, Any], parts: list[str]
) -> None:
    run = sandbox.run_tap(environment=INFO, **config)
    sentence = run.assert_failed(*parts)
    assert run.log()[-1] == sentence  # what `meltano config test` shows
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize("option", ["--config", "--catalog", "--state"])
@pytest.mark.parametrize(
    ("text", "part"),
    [("", "is empty"), ("{\n5}", "line 2, column 1"), ("[]", "does not contain a JSON object")],
)
def test_a_file_that_is_not_valid_is_one_sentence(
    sandbox: Sandbox, option: str, text: str, part: str
) -> None:
    path = sandbox.folder / "input.json"
    path.write_text(text)
    sandbox.run_tap(option, str(path)).assert_failed(option, "input.json", part)
    assert sandbox.envoy.requests == []


def test_a_byte_order_mark_is_accepted_in_state_and_catalog(sandbox: Sandbox) -> None:
    files = (*sandbox.write_catalog("locations"), *sandbox.write_state({}))
    for path in files[1::2]:
        content = Path(path).read_text()
        Path(path).write_text(content, encoding="utf-8-sig")
    assert sandbox.run_tap(*files).code == 0


def test_a_stream_map_that_fails_is_one_sentence_without_a_value(sandbox: Sandbox) -> None:
    maps = {"entries": {"fullName": "md5(email.zebra)"}}
    catalog = sandbox.write_catalog("entries", "flows")
    run = sandbox.run_tap(*catalog, stream_maps=maps)
    run.assert_failed("entries: The stream map of `fullName` failed on a record")
    assert len(run.records("flows")) == 12
    assert run.records("entries") == []
    for row in sandbox.envoy.rows["entries"]:
        assert row["fullName"] not in run.err


def test_a_record_that_json_cannot_express_fails_its_stream_alone(sandbox: Sandbox) -> None:
    maps = {"entries": {"fullName": r"'\ud800'"}}
    run = sandbox.run_tap(*sandbox.write_catalog("entries", "flows"), stream_maps=maps)
    run.assert_failed("entries: JSON cannot express a value of a record; check `stream_maps`.")
    assert run.records("entries") == []
    assert len(run.records("flows")) == 12
    assert run.log()[-1].startswith("Failed: entries (1 of 2 streams).")


def test_stream_maps_of_streams_that_are_not_selected_are_accepted(sandbox: Sandbox) -> None:
    maps = {"entries": {"fullName": None}, "locations": {"name": "name.upper()"}}
    run = sandbox.run_tap(stream_maps=maps)
    assert run.code == 0, run.err
    assert run.records()[0]["name"].isupper()


@pytest.mark.parametrize(
    "arguments",
    [["--discover"], ["--about"], ["--about", "--format=json"], ["--version"], ["--help"]],
)
def test_options_that_need_no_settings_request_nothing(
    sandbox: Sandbox, arguments: list[str]
) -> None:
    variables = environment(sandbox.envoy, sandbox.address)
    for more in ([], ["--config=ENV"]):
        run = run_tap(*arguments, *more, environment=variables, module="tap_envoy")
        assert run.code == 0
        assert run.out
        assert "Traceback" not in run.err
    assert sandbox.envoy.requests == []


def test_unexpected_error_is_reported_by_its_place_alone(sandbox: Sandbox) -> None:
    program = (
        "from tap_envoy import __main__, tap; tap.TapEnvoy.retry_policy = None; __main__.main()"
    )
    command = [sys.executable, "-c", program, *sandbox.write_config()]
    run = run_program(command, environment=clean_environment())
    sentence = run.assert_failed("Unexpected error (AttributeError at client.py, line ")
    assert "NoneType" not in sentence
