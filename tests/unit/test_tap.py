"""What a run is given besides settings, as far as the tap itself decides."""

from typing import Any

import pytest

from tap_envoy.tap import TapEnvoy
from tests.conftest import catalog

CONFIG: dict[str, Any] = {"api_key": "not-used", "api_url": "http://127.0.0.1:9/v1"}
BOOKMARK = {"replication_key": "signedInAt", "replication_key_value": "2024-03-14T08:00:00.000Z"}
STATE = {"bookmarks": {"entries": BOOKMARK}}


def tap(**arguments: Any) -> TapEnvoy:
    return TapEnvoy(config=dict(CONFIG), **arguments)


def names(tap: TapEnvoy) -> list[str]:
    return [stream.name for stream in tap.selected_streams]


def test_tap_without_catalog_selects_locations() -> None:
    assert names(tap()) == ["locations"]


def test_discovered_catalog_is_accepted_without_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert names(tap(catalog=catalog("flows", "entries"), state=STATE)) == ["entries", "flows"]
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


def test_full_table_replication_keeps_bookmark() -> None:
    value = catalog("entries")
    for stream in value["streams"]:
        stream["replication_method"] = "FULL_TABLE"
    run = tap(catalog=value, state=STATE)
    assert run.streams["entries"].replication_method == "FULL_TABLE"
    assert run.state == STATE


def test_unknown_streams_in_files_are_ignored_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    value = catalog("entries")
    value["streams"].append({"tap_stream_id": "issues"})
    state = {"bookmarks": {**STATE["bookmarks"], "issues": {}}}
    run = tap(catalog=value, state=state)
    assert names(run) == ["entries"]
    assert run.state == STATE
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"] == [
        "--catalog: ignoring unknown streams: issues.",
        "--state: ignoring bookmarks of unknown streams: issues.",
    ]
