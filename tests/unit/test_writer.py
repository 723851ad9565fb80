"""Singer messages on stdout, and the shutdown between two of them."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, Self, cast

import pytest
from singer_sdk.singerlib.encoding.simple import (
    ActivateVersionMessage,
    Message,
    RecordMessage,
    SchemaMessage,
    StateMessage,
)

from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.writer import (
    BUFFER_SIZE,
    BufferedMessageWriter,
    ShutdownError,
    ShutdownRequest,
)

LOGGER = logging.getLogger("test")


def record(stream: str = "entries", **values: Any) -> RecordMessage:
    return RecordMessage(stream=stream, record={"id": "1", **values})


def schema(stream: str) -> SchemaMessage:
    return SchemaMessage(stream=stream, schema={"properties": {}}, key_properties=["id"])


def nested(value: Any) -> Any:
    for _ in range(100_000):
        value = [value]
    return value


class Pipe:
    """A pipe in place of stdout; what is read from it is kept."""

    def __init__(self, *, unbuffered: bool = False) -> None:
        self.reader, self.writer = os.pipe()
        # With PYTHONUNBUFFERED, stdout.buffer is a FileIO.
        raw = FileIO(self.writer, "w", closefd=False)
        self.stdout: TextIOWrapper[Any] = TextIOWrapper(
            cast("Any", raw) if unbuffered else BufferedWriter(raw), write_through=unbuffered
        )
        self.chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._stdout, sys.stdout = sys.stdout, self.stdout
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stdout

    def start_reading(self) -> None:
        self._thread.start()

    def messages(self) -> list[dict[str, Any]]:
        """Return all that was written; nothing can be written after."""
        if not self._thread.is_alive():
            self._thread.start()
        os.close(self.writer)
        self._thread.join()
        return [json.loads(line) for line in b"".join(self.chunks).splitlines()]

    def _read(self) -> None:
        while chunk := os.read(self.reader, 1 << 16):
            self.chunks.append(chunk)


def write(*messages: Message) -> BufferedMessageWriter:
    writer = BufferedMessageWriter(check=lambda: None)
    for message in messages:
        writer.write_message(message)
    return writer


def types(pipe: Pipe) -> list[tuple[str, str | None]]:
    return [(message["type"], message.get("stream")) for message in pipe.messages()]


def test_activate_version_is_held_until_released() -> None:
    with Pipe() as pipe:
        writer = write(schema("flows"), ActivateVersionMessage("flows", 1), record("flows"))
        writer.release_versions()
        writer.write_message(StateMessage({}))
        assert types(pipe) == [
            ("SCHEMA", "flows"),
            ("RECORD", "flows"),
            ("ACTIVATE_VERSION", "flows"),
            ("STATE", None),
        ]


def test_activate_version_of_a_failed_stream_is_forgotten_at_the_next_schema() -> None:
    with Pipe() as pipe:
        writer = write(ActivateVersionMessage("flows", 1), schema("locations"))
        writer.release_versions()
        assert types(pipe) == [("SCHEMA", "locations")]


def test_discarded_versions_are_not_released() -> None:
    with Pipe() as pipe:
        writer = write(schema("flows"), ActivateVersionMessage("flows", 1))
        writer.discard_versions()
        writer.release_versions()
        assert types(pipe) == [("SCHEMA", "flows")]


def test_versions_of_all_aliases_are_released_once() -> None:
    with Pipe() as pipe:
        writer = write(
            schema("a"), schema("b"), ActivateVersionMessage("a", 1), ActivateVersionMessage("b", 1)
        )
        writer.release_versions()
        writer.release_versions()
        assert types(pipe)[2:] == [("ACTIVATE_VERSION", "a"), ("ACTIVATE_VERSION", "b")]


def test_records_are_buffered_until_a_state_or_a_full_buffer() -> None:
    with Pipe() as pipe:
        pipe.start_reading()
        writer = write(record())
        assert not pipe.chunks
        writer.write_message(record(text="x" * BUFFER_SIZE))
        writer.write_message(record())
        writer.write_message(StateMessage({}))
        assert [kind for kind, _ in types(pipe)] == ["RECORD", "RECORD", "RECORD", "STATE"]


def test_a_check_that_raises_leaves_whole_lines() -> None:
    with Pipe() as pipe:
        checks = iter([None])

        def check() -> None:
            if next(checks, "stop"):
                raise ShutdownError(signal.SIGTERM)

        writer = BufferedMessageWriter(check)
        writer.write_message(record())
        with pytest.raises(ShutdownError):
            writer.write_message(record())
        writer.flush()
        assert types(pipe) == [("RECORD", "entries")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Grace Secretive \ud800", "JSON cannot express"),
        (nested("Grace"), "is nested too deeply"),
    ],
    ids=["surrogate", "nested"],
)
def test_a_record_that_json_cannot_express_is_reported_without_its_value(
    value: Any, reason: str
) -> None:
    with Pipe() as pipe:
        writer = write(record(), record(fullName=value), record())
        with pytest.raises(EnvoyError, match=reason) as caught:
            writer.check_records()
        assert not isinstance(caught.value, RunAbortedError)
        assert "Grace" not in str(caught.value)
        writer.write_message(schema("flows"))
        writer.check_records()  # of another stream
        assert [kind for kind, _ in types(pipe)] == ["RECORD", "RECORD", "SCHEMA"]


def test_a_state_that_json_cannot_express_aborts_the_run() -> None:
    with Pipe(), pytest.raises(RunAbortedError, match="state: JSON cannot express"):
        write(StateMessage({"bookmarks": "\ud800"}))


def test_a_closed_pipe_aborts_the_run() -> None:
    with Pipe() as pipe:
        os.close(pipe.reader)
        with pytest.raises(RunAbortedError, match=r"Cannot write to stdout \(Broken pipe\)"):
            write(StateMessage({}))
        pipe.stdout.flush()  # as Python does at exit
        os.close(pipe.writer)


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_non_blocking_pipe_is_waited_for(*, unbuffered: bool) -> None:
    with Pipe(unbuffered=unbuffered) as pipe:
        os.set_blocking(pipe.writer, False)
        threading.Timer(0.05, pipe.start_reading).start()
        writer = write(*[record(text="x" * 1000)] * 1000)
        writer.flush()
    assert len(pipe.messages()) == 1000


# Shutdown


@pytest.fixture
def _restore_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_restore_handler")
def test_a_shutdown_request_raises_the_exit_code_of_shells() -> None:
    request = ShutdownRequest(LOGGER, grace=3600, exit_process=lambda _code: None)
    request.check()
    request.request(signal.SIGTERM)
    with pytest.raises(ShutdownError) as caught:
        request.check()
    assert caught.value.code == caught.value.exit_code == 143
    assert caught.value.signal_name == "SIGTERM"


@pytest.mark.usefixtures("_restore_handler")
def test_a_second_signal_ends_the_process_at_once() -> None:
    request = ShutdownRequest(LOGGER, grace=3600, exit_process=lambda _code: None)
    request.request(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("_restore_handler")
def test_a_signal_interrupts_a_wait_but_nothing_else() -> None:
    request = ShutdownRequest(LOGGER, grace=3600, exit_process=lambda _code: None)
    signal.signal(signal.SIGTERM, lambda signum, _frame: request.request(signum))
    with request.interrupting():
        pass
    begin = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(ShutdownError), request.interrupting():
        threading.Event().wait(30)
    assert time.monotonic() - begin < 10
    request.request(signal.SIGTERM)  # outside, or a second time


@pytest.mark.usefixtures("_restore_handler")
def test_no_wait_begins_after_a_signal() -> None:
    request = ShutdownRequest(LOGGER, grace=3600, exit_process=lambda _code: None)
    request.request(signal.SIGTERM)
    with pytest.raises(ShutdownError), request.interrupting():
        pytest.fail("waited")


@pytest.mark.usefixtures("_restore_handler")
def test_a_process_that_is_blocked_is_ended_after_the_grace_period(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codes: list[int] = []
    ended = threading.Event()

    def exit_process(code: int) -> None:
        codes.append(code)
        ended.set()

    request = ShutdownRequest(LOGGER, grace=0.1, exit_process=exit_process)
    request.request(signal.SIGTERM)
    assert ended.wait(5)
    assert codes == [143]
    (message,) = caplog.messages
    assert message.startswith("Stopped by SIGTERM while the target was not reading")
