"""The tap as a Singer program: its catalog, its messages, and the SDK's own test suite."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, catalog
from tests.sandbox import RESOURCES, Envoy, ScriptedResponse, serve

CATALOG = {x["tap_stream_id"]: x for x in TapEnvoy(validate_config=False).catalog_dict["streams"]}


@pytest.mark.parametrize("stream", CATALOG)
def test_catalog_matches_its_snapshot(stream: str, snapshot: SnapshotAssertion) -> None:
    assert CATALOG[stream] == snapshot.use_extension(JSONSnapshotExtension)


def test_versions_are_activated_after_the_records_of_complete_streams(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/flows", ScriptedResponse(403, b""))
    option = sandbox.write_catalog("flows", "locations")
    run = sandbox.run_tap(*option, emit_activate_version_messages=True)
    assert run.messages[-1]["type"] == "STATE"
    messages = [message for message in run.messages if message["type"] != "STATE"]
    assert [(message["stream"], message["type"]) for message in messages] == [
        ("flows", "SCHEMA"),
        ("locations", "SCHEMA"),
        *[("locations", "RECORD")] * 250,
        ("locations", "ACTIVATE_VERSION"),
    ]
    assert {message["version"] for message in messages[2:]} == {messages[-1]["version"]}
    assert "ACTIVATE_VERSION" not in sandbox.run_tap().out


def test_records_are_the_same_with_and_without_stream_maps(sandbox: Sandbox) -> None:
    """Where nothing maps or flattens a stream, the SDK's processing of each value is skipped."""
    plain, mapped = (
        [m for m in sandbox.run_tap(stream_maps=maps).messages if m["type"] == "RECORD"]
        for maps in ({}, {"locations": {"logoUrl": None}})
    )
    assert len(plain) == 250
    for message, other in zip(plain, mapped, strict=True):
        del message["record"]["logoUrl"]
        # What is missing becomes null where a stream map may read it.
        message["record"] = dict.fromkeys(other["record"]) | message["record"]
        times = message.pop("time_extracted"), other.pop("time_extracted")
        assert all(datetime.fromisoformat(time).utcoffset() == timedelta(0) for time in times)
        assert message == other


def test_records_say_when_their_page_came(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/locations", ScriptedResponse(), ScriptedResponse(delay=0.5))
    records = [m for m in sandbox.run_tap().messages if m["type"] == "RECORD"]
    first, last = (datetime.fromisoformat(m["time_extracted"]) for m in (records[0], records[-1]))
    assert last - first > timedelta(seconds=0.4)


# The SDK's test suite

suite_envoy = Envoy()
for rows in suite_envoy.rows.values():
    rows[0]["undeclared"] = True  # as in a live Envoy: the suite wants a value in each column


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
    catalog=catalog(*RESOURCES),
)


@pytest.fixture(scope="module", autouse=True)
def _serve_suite() -> Iterator[None]:
    with serve(suite_envoy) as address:
        CONFIG["api_url"] = f"{address}/v1"
        yield
