"""What a run is given besides settings, as far as the tap itself decides."""

import pytest

from tap_envoy.tap import TapEnvoy

TIME = "2024-03-14T08:00:00.000Z"
BOOKMARKS = {"entries": {"replication_key": "signedInAt", "replication_key_value": TIME}}


def test_bookmarks_of_unknown_streams_are_ignored_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = {"tap_stream_id": "entries", "selected": True}
    tap = TapEnvoy(
        config={"api_key": "not-used"},
        catalog={"streams": [entries]},
        state={"bookmarks": {**BOOKMARKS, "issues": {}}},
    )
    assert [stream.name for stream in tap.selected_streams] == ["entries"]
    assert tap.state == {"bookmarks": BOOKMARKS}
    assert caplog.messages == ["--state: ignoring bookmarks of unknown streams: issues."]
