"""What a run is given besides settings, as far as the tap itself decides."""

from typing import Any

import pytest

from tap_envoy.tap import TapEnvoy

BOOKMARK = {"replication_key": "signedInAt", "replication_key_value": "2024-03-14T08:00:00.000Z"}
STATE = {"bookmarks": {"entries": BOOKMARK}}


def tap(state: dict[str, Any], *entries: dict[str, Any]) -> TapEnvoy:
    return TapEnvoy(config={"api_key": "not-used"}, catalog={"streams": entries}, state=state)


def test_full_table_replication_keeps_bookmark() -> None:
    entry = {"tap_stream_id": "entries", "selected": True, "replication_method": "FULL_TABLE"}
    run = tap(STATE, entry)
    assert run.streams["entries"].replication_method == "FULL_TABLE"
    assert run.state == STATE


def test_unknown_streams_in_files_are_ignored_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = {"bookmarks": {**STATE["bookmarks"], "issues": {}}}
    run = tap(state, {"tap_stream_id": "entries", "selected": True}, {"tap_stream_id": "issues"})
    assert [stream.name for stream in run.selected_streams] == ["entries"]
    assert run.state == STATE
    assert caplog.messages == [
        "--catalog: ignoring unknown streams: issues.",
        "--state: ignoring bookmarks of unknown streams: issues.",
    ]
