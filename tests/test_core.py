"""The tap as a Singer program: its catalog, its messages, and the suite of the SDK."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.assertion import SnapshotAssertion

from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox
from tests.runner import clean_environment, run_tap
from tests.sandbox import Envoy, ScriptedResponse, serve


def test_the_catalog_matches_its_snapshot(snapshot: SnapshotAssertion) -> None:
    assert json.loads(run_tap("--discover").out) == snapshot


def test_the_command_is_installed() -> None:
    command = [str(Path(sys.executable).with_name("tap-envoy")), "--version"]
    done = subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", env=clean_environment()
    )
    assert done.stdout.startswith(f"tap-envoy v{TapEnvoy.plugin_version}, Meltano SDK")


def test_records_match_their_schema(sandbox: Sandbox) -> None:
    run = sandbox.run_tap()
    (schema,) = [message for message in run.messages if message["type"] == "SCHEMA"]
    assert schema["key_properties"] == ["id"]
    Draft202012Validator.check_schema(schema["schema"])
    validator = Draft202012Validator(schema["schema"])
    for record in run.records():
        validator.validate(record)


def test_keys_are_unique(sandbox: Sandbox) -> None:
    keys = [record["id"] for record in sandbox.run_tap().records()]
    assert len(keys) == len(set(keys)) == 250
    assert all(isinstance(key, str) and key for key in keys)


def test_the_last_state_is_accepted_by_the_next_run(sandbox: Sandbox) -> None:
    state = sandbox.run_tap().messages[-1]
    assert state == {"type": "STATE", "value": {"bookmarks": {"locations": {}}}}
    again = sandbox.run_tap(*sandbox.write_state(state["value"]))
    assert again.code == 0
    assert len(again.records()) == 250  # FULL_TABLE: all of them, each time
    assert again.messages[-1] == state


def select_properties(sandbox: Sandbox, **selected: bool) -> tuple[str, str]:
    """Write a catalog that selects these properties of locations or not; return the option."""
    option, path = sandbox.write_catalog("locations")
    catalog = json.loads(Path(path).read_text())
    (locations,) = [s for s in catalog["streams"] if s["tap_stream_id"] == "locations"]
    for entry in locations["metadata"]:
        if entry["breadcrumb"] and entry["breadcrumb"][-1] in selected:
            entry["metadata"]["selected"] = selected[entry["breadcrumb"][-1]]
    Path(path).write_text(json.dumps(catalog))
    return option, path


def test_a_deselected_property_is_left_out(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(*select_properties(sandbox, address=False))
    assert len(run.records()) == 250
    assert not any("address" in record for record in run.records())
    assert not any("address" in line for line in run.warnings)


def test_records_are_the_same_with_and_without_the_sdks_record_processing(
    sandbox: Sandbox,
) -> None:
    """With all properties selected, the SDK's processing of each value is skipped."""
    skipped = sandbox.run_tap(*select_properties(sandbox))
    processed = sandbox.run_tap(*select_properties(sandbox, logoUrl=False))
    messages = [m for m in skipped.messages if m["type"] == "RECORD"]
    others = [m for m in processed.messages if m["type"] == "RECORD"]
    assert len(messages) == 250
    for message, other in zip(messages, others, strict=True):
        del message["record"]["logoUrl"]
        times = message.pop("time_extracted"), other.pop("time_extracted")
        assert all(datetime.fromisoformat(time).utcoffset() == timedelta(0) for time in times)
        assert message == other


# ACTIVATE_VERSION


def test_versions_are_activated_after_the_last_record(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(emit_activate_version_messages=True)
    messages = [message for message in run.messages if message["type"] != "STATE"]
    assert [m["type"] for m in messages] == ["SCHEMA", *["RECORD"] * 250, "ACTIVATE_VERSION"]
    assert {m["version"] for m in messages[1:]} == {messages[-1]["version"]}


def test_a_failed_stream_activates_nothing(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/flows", ScriptedResponse(403, b""))
    catalog = sandbox.write_catalog("flows", "locations")
    maps = {"locations": None}  # a stream without a SCHEMA message after the failed one
    run = sandbox.run_tap(*catalog, emit_activate_version_messages=True, stream_maps=maps)
    assert run.code == 1
    assert {message["type"] for message in run.messages} == {"SCHEMA", "STATE"}


def test_no_version_is_activated_by_default(sandbox: Sandbox) -> None:
    types = {message["type"] for message in sandbox.run_tap().messages}
    assert types == {"SCHEMA", "RECORD", "STATE"}


# The suite of the SDK

suite_envoy = Envoy()


def everything() -> dict[str, Any]:
    """Return a catalog in which everything is selected."""
    discovered = TapEnvoy(validate_config=False).catalog_dict
    for stream in discovered["streams"]:
        for entry in stream["metadata"]:
            entry["metadata"]["selected"] = True
    return discovered


CONFIG: dict[str, Any] = {
    "api_key": suite_envoy.api_key,
    "api_url": "http://127.0.0.1:9/v1",
    "start_date": "2024-01-01",
    "requests_per_second": 1000,
}
TestStandardSuite = get_tap_test_class(
    tap_class=TapEnvoy,
    config=CONFIG,
    suite_config=SuiteConfig(ignore_no_records=False),
    catalog=everything(),
)


@pytest.fixture(scope="module", autouse=True)
def _serve_suite() -> Iterator[None]:
    with serve(suite_envoy) as address:
        CONFIG["api_url"] = f"{address}/v1"
        yield
