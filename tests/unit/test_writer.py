"""Singer messages on stdout."""

import io
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from singer_sdk.singerlib.encoding.simple import RecordMessage, StateMessage

from tap_envoy.exceptions import EnvoyError
from tap_envoy.writer import BufferedMessageWriter, ShutdownError

RECORD = RecordMessage(stream="entries", record={"id": "1"})


def test_state_holds_bookmarks_without_markers_of_sdk(capsys: pytest.CaptureFixture[str]) -> None:
    bookmark = {"replication_key": "signedInAt", "replication_key_value": "2024-03-14T08:00:00Z"}
    markers = {"replication_key_signpost": "x", "progress_markers": {}, "partitions": []}
    message = StateMessage({"bookmarks": {"entries": bookmark | markers, "flows": markers}})
    BufferedMessageWriter().write_message(message)
    state = json.loads(capsys.readouterr().out)["value"]
    assert state == {"bookmarks": {"entries": bookmark, "flows": {}}}


def test_record_that_json_cannot_express_is_error_of_its_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value: Any = "Grace"
    for _ in range(100_000):
        value = [value]
    writer = BufferedMessageWriter()
    for message in (RECORD, RecordMessage(stream="entries", record={"fullName": value}), RECORD):
        writer.write_message(message)
    writer.flush()
    assert capsys.readouterr().out == ""
    assert type(writer.record_error) is EnvoyError
    assert "Grace" not in str(writer.record_error)
    writer.discard_versions()
    assert writer.record_error is None


@pytest.fixture
def _restore_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class InterruptedStdout(io.BytesIO):
    """An unbuffered stdout, of which a signal cuts the first write short."""

    def write(self, lines: Any, /) -> int:
        if self.getvalue():
            return super().write(lines)
        signal.raise_signal(signal.SIGTERM)
        return super().write(lines[:5])


@pytest.mark.usefixtures("_restore_handlers")
def test_signal_while_stdout_is_written_is_raised_after_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tap_envoy.writer.SHUTDOWN_GRACE", 3600.0)
    writer, stdout = BufferedMessageWriter(), InterruptedStdout()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(stdout))
    signal.signal(signal.SIGTERM, lambda number, _: writer.shut_down(number))
    writer.write_message(RECORD)
    with pytest.raises(ShutdownError) as caught:
        writer.flush()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # another one ends the process
    assert json.loads(stdout.getvalue())["type"] == "RECORD"
