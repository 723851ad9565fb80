"""Singer messages on stdout."""

import io
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from singer_sdk.singerlib.encoding.simple import (
    ActivateVersionMessage,
    Message,
    RecordMessage,
    SchemaMessage,
    StateMessage,
)

from tap_envoy.exceptions import EnvoyError
from tap_envoy.writer import BufferedMessageWriter, ShutdownError


def record(stream: str = "entries", **values: Any) -> RecordMessage:
    return RecordMessage(stream=stream, record={"id": "1", **values})


def schema(stream: str) -> SchemaMessage:
    return SchemaMessage(stream=stream, schema={"properties": {}}, key_properties=["id"])


def write(*messages: Message) -> BufferedMessageWriter:
    writer = BufferedMessageWriter()
    for message in messages:
        writer.write_message(message)
    return writer


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return type and stream of the messages written since the last call."""
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [f"{x['type']} {x.get('stream', '')}".strip() for x in messages]


def test_activate_version_is_written_after_records(capsys: pytest.CaptureFixture[str]) -> None:
    versions = ActivateVersionMessage("a", 1), ActivateVersionMessage("b", 1)  # a map's aliases
    writer = write(schema("a"), schema("b"), *versions, record("a"))
    writer.release_versions()
    assert written(capsys)[2:] == ["RECORD a", "ACTIVATE_VERSION a", "ACTIVATE_VERSION b"]


def test_activate_version_of_failed_stream_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    writer = write(schema("flows"), ActivateVersionMessage("flows", 1))
    writer.discard_versions()
    writer.release_versions()  # of the next stream, whose SCHEMA a stream map may remove
    assert written(capsys) == ["SCHEMA flows"]


def test_records_are_buffered_until_flush_or_state(capsys: pytest.CaptureFixture[str]) -> None:
    writer = write(record(), record())
    assert written(capsys) == []
    writer.flush()
    assert written(capsys) == ["RECORD entries"] * 2
    writer.write_message(record())
    writer.write_message(StateMessage({}))
    assert written(capsys) == ["RECORD entries", "STATE"]


def test_state_holds_bookmarks_without_markers_of_sdk(capsys: pytest.CaptureFixture[str]) -> None:
    bookmark = {"replication_key": "signedInAt", "replication_key_value": "2024-03-14T08:00:00Z"}
    markers = {"replication_key_signpost": "x", "progress_markers": {}, "partitions": []}
    write(StateMessage({"bookmarks": {"entries": bookmark | markers, "flows": markers}}))
    state = json.loads(capsys.readouterr().out)["value"]
    assert state == {"bookmarks": {"entries": bookmark, "flows": {}}}


def nested(value: Any) -> Any:
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["Grace \ud800", nested("Grace")], ids=["surrogate", "nested"])
def test_record_that_json_cannot_express_is_error_of_its_stream(
    capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    writer = write(record(), record(fullName=value), record())
    writer.flush()
    assert written(capsys) == []
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
    writer.write_message(record())
    with pytest.raises(ShutdownError) as caught:
        writer.flush()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # another one ends the process
    assert json.loads(stdout.getvalue())["type"] == "RECORD"
