"""The tap as a Singer program: catalogue, selection, keys, state."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.assertion import SnapshotAssertion

from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene
from tests.program import clean_environment, run_tap
from tests.sandbox import Envoy, serve


def test_the_catalogue_is_the_reviewed_one(snapshot: SnapshotAssertion) -> None:
    assert json.loads(run_tap("--discover").out) == snapshot


def test_the_program_is_installed_under_its_name() -> None:
    command = [
        str(sys.executable).replace("python", "tap-envoy").rstrip("0123456789."),
        "--version",
    ]
    done = subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", env=clean_environment()
    )
    assert done.stdout.startswith(f"tap-envoy v{TapEnvoy.plugin_version}, Meltano SDK")


def test_records_are_what_the_schema_says(scene: Scene) -> None:
    run = scene.run()
    (schema,) = [message for message in run.messages if message["type"] == "SCHEMA"]
    assert schema["key_properties"] == ["id"]
    Draft202012Validator.check_schema(schema["schema"])
    validator = Draft202012Validator(schema["schema"])
    for record in run.records():
        validator.validate(record)


def test_keys_are_there_and_come_once(scene: Scene) -> None:
    keys = [record["id"] for record in scene.run().records()]
    assert len(keys) == len(set(keys)) == 250
    assert all(isinstance(key, str) and key for key in keys)


def test_the_last_state_has_nothing_unfinished_and_starts_the_next_run(scene: Scene) -> None:
    state = scene.run().messages[-1]
    assert state == {"type": "STATE", "value": {"bookmarks": {"locations": {}}}}
    path = scene.folder / "state.json"
    path.write_text(json.dumps(state["value"]))
    again = scene.run("--state", str(path))
    assert again.code == 0
    assert len(again.records()) == 250  # FULL_TABLE: all of them, each time
    assert again.messages[-1] == state


def catalog(scene: Scene, **selected: bool) -> str:
    """Write a catalogue in which these properties, or all of locations, are (not) selected."""
    discovered: dict[str, Any] = json.loads(run_tap("--discover").out)
    (locations,) = [s for s in discovered["streams"] if s["tap_stream_id"] == "locations"]
    for entry in locations["metadata"]:
        name = entry["breadcrumb"][-1] if entry["breadcrumb"] else "stream"
        if name in selected:
            entry["metadata"]["selected"] = selected[name]
    path = scene.folder / "catalog.json"
    path.write_text(json.dumps(discovered))
    return str(path)


def test_a_property_that_is_not_selected_stays_away(scene: Scene) -> None:
    run = scene.run("--catalog", catalog(scene, address=False, stream=True))
    assert len(run.records()) == 250
    assert not any("address" in record for record in run.records())
    assert not any("address" in line for line in run.warnings)


def test_the_shorter_way_of_a_row_changes_nothing_of_it(scene: Scene) -> None:
    """With all selected the SDK need not look at each value; with one property less it does."""
    shorter = scene.run("--catalog", catalog(scene, stream=True))
    longer = scene.run("--catalog", catalog(scene, stream=True, logoUrl=False))
    messages = [m for m in shorter.messages if m["type"] == "RECORD"]
    others = [m for m in longer.messages if m["type"] == "RECORD"]
    assert len(messages) == 250
    for message, other in zip(messages, others, strict=True):
        del message["record"]["logoUrl"]
        times = message.pop("time_extracted"), other.pop("time_extracted")
        assert all(datetime.fromisoformat(time).utcoffset() == timedelta(0) for time in times)
        assert message == other


def test_a_stream_that_is_not_selected_asks_for_nothing(scene: Scene) -> None:
    run = scene.run("--catalog", catalog(scene, stream=False), **scene.login)
    assert run.code == 0
    assert run.records() == []
    assert scene.envoy.requests == []


# The SDK's own suite, against the sandbox

suite_envoy = Envoy()


def everything() -> dict[str, Any]:
    """Return a catalogue in which all is selected."""
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
