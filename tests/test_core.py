"""The tap as a Singer program: its catalog, its messages, and the SDK's own test suite."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox
from tests.runner import clean_environment
from tests.sandbox import Envoy, ScriptedResponse, serve

CATALOG = {x["tap_stream_id"]: x for x in TapEnvoy(validate_config=False).catalog_dict["streams"]}


@pytest.mark.parametrize("stream", CATALOG)
def test_catalog_matches_its_snapshot(stream: str, snapshot: SnapshotAssertion) -> None:
    assert CATALOG[stream] == snapshot.use_extension(JSONSnapshotExtension)


def test_command_is_installed() -> None:
    command = [str(Path(sys.executable).with_name("tap-envoy")), "--version"]
    done = subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", env=clean_environment()
    )
    assert done.stdout.startswith(f"tap-envoy v{TapEnvoy.plugin_version}, Meltano SDK")


def test_state_is_accepted_by_the_next_run(sandbox: Sandbox) -> None:
    first = sandbox.run_tap()
    assert first.messages[-1] == {"type": "STATE", "value": {"bookmarks": {"locations": {}}}}
    second = sandbox.run_tap(*sandbox.write_state(first.state))
    assert second.code == 0
    assert second.records() == first.records()  # FULL_TABLE: all of them, each time


def test_records_are_the_same_with_and_without_the_sdks_processing(sandbox: Sandbox) -> None:
    """Where nothing maps or flattens a stream, the SDK's processing of each value is skipped."""
    skipped = sandbox.run_tap()
    processed = sandbox.run_tap(stream_maps={"locations": {"logoUrl": None}})
    messages, others = (
        [message for message in run.messages if message["type"] == "RECORD"]
        for run in (skipped, processed)
    )
    assert len(messages) == 250
    for message, other in zip(messages, others, strict=True):
        del message["record"]["logoUrl"]
        # What is missing becomes null where a stream map may read it.
        message["record"] = dict.fromkeys(other["record"]) | message["record"]
        times = message.pop("time_extracted"), other.pop("time_extracted")
        assert all(datetime.fromisoformat(time).utcoffset() == timedelta(0) for time in times)
        assert message == other


# ACTIVATE_VERSION


def test_versions_are_activated_after_the_last_record(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(emit_activate_version_messages=True)
    messages = [message for message in run.messages if message["type"] != "STATE"]
    assert [m["type"] for m in messages] == ["SCHEMA", *["RECORD"] * 250, "ACTIVATE_VERSION"]
    assert {m["version"] for m in messages[1:]} == {messages[-1]["version"]}


def test_failed_stream_activates_nothing(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/flows", ScriptedResponse(403, b""))
    catalog = sandbox.write_catalog("flows", "locations")
    maps = {"locations": None}  # a stream without a SCHEMA message after the failed one
    run = sandbox.run_tap(*catalog, emit_activate_version_messages=True, stream_maps=maps)
    assert run.code == 1
    assert {message["type"] for message in run.messages} == {"SCHEMA", "STATE"}


def test_no_version_is_activated_by_default(sandbox: Sandbox) -> None:
    types = {message["type"] for message in sandbox.run_tap().messages}
    assert types == {"SCHEMA", "RECORD", "STATE"}


# The SDK's test suite

suite_envoy = Envoy()
for rows in suite_envoy.rows.values():
    rows[0]["undeclared"] = True  # as in a live Envoy: the suite wants a value in each column


def select_all() -> dict[str, Any]:
    """Return a catalog in which everything is selected."""
    catalog = TapEnvoy(validate_config=False).catalog_dict
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            entry["metadata"]["selected"] = True
    return catalog


CONFIG: dict[str, Any] = {
    "api_key": suite_envoy.api_key,
    "api_url": "http://127.0.0.1:9/v1",  # until the sandbox is served
    "start_date": "2024-01-01",
    "requests_per_second": 1000,
}
TestStandardSuite = get_tap_test_class(
    tap_class=TapEnvoy,
    config=CONFIG,
    suite_config=SuiteConfig(ignore_no_records=False),
    catalog=select_all(),
)


@pytest.fixture(scope="module", autouse=True)
def _serve_suite() -> Iterator[None]:
    with serve(suite_envoy) as address:
        CONFIG["api_url"] = f"{address}/v1"
        yield
