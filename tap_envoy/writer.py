"""Singer messages on stdout, buffered; a signal ends the run between two of them."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import time
from typing import Any

from singer_sdk.contrib.msgspec import MsgSpecWriter, encoder
from singer_sdk.singerlib.encoding.simple import (
    ActivateVersionMessage,
    Message,
    RecordMessage,
    StateMessage,
)
from typing_extensions import override

from tap_envoy.catalog import without_markers
from tap_envoy.exceptions import EnvoyError, RunAbortedError

logger = logging.getLogger(__name__)

SHUTDOWN_GRACE = 1.5
"""Seconds between a signal and the end of a process that cannot stop by itself."""


class ShutdownError(SystemExit):
    """Raised when a signal stops the run; the exit code is 128 + signal, as in shells."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum
        self.signal_name = signal.Signals(signum).name
        super().__init__(self.exit_code)


class BufferedMessageWriter(MsgSpecWriter):
    """Writes whole lines to stdout, also when a signal stops the run.

    Records are buffered until `flush`, or another message.

    ACTIVATE_VERSION messages are held back: the SDK writes them before the records, and a target
    removes older rows as soon as it reads one.

    Attributes:
        record_error: Why a record of the stream was not written, or None. Raised where the SDK
            writes a record, it would end the run instead of the stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record_error: EnvoyError | None = None
        self._buffer: list[dict[str, Any]] = []
        self._held_versions: list[Message] = []
        self._is_writing = False
        self._shutdown: ShutdownError | None = None

    def write_record(self, message: dict[str, Any]) -> None:
        """Buffer a RECORD message, with values that msgspec encodes."""
        self._buffer.append(message)

    @override
    def write_message(self, message: Message) -> None:
        """Write a message, or hold it back if it is an ACTIVATE_VERSION.

        Raises:
            RunAbortedError: If stdout is closed or full.
        """
        if isinstance(message, RecordMessage):
            self.write_record(message.to_dict())
        elif isinstance(message, ActivateVersionMessage):
            self._held_versions.append(message)
        else:
            if isinstance(message, StateMessage):
                bookmarks = without_markers(message.value.get("bookmarks", {}))
                message = StateMessage({"bookmarks": bookmarks})
            self._buffer.append(message.to_dict())
            self.flush()

    def release_versions(self) -> None:
        """Write the ACTIVATE_VERSION messages held back: their stream is complete."""
        self._buffer += [message.to_dict() for message in self._held_versions]
        self._held_versions.clear()
        self.flush()

    def discard_versions(self) -> None:
        """Forget the ACTIVATE_VERSION messages and the error of a stream: it has failed."""
        self._held_versions.clear()
        self.record_error = None

    def flush(self) -> None:
        """Write the buffered messages to stdout; blocks while the target does not read.

        If JSON cannot express one of them, none is written, and `record_error` is set.

        Raises:
            RunAbortedError: If stdout is closed or full.
            ShutdownError: If a signal arrived meanwhile.
        """
        self._is_writing = True
        messages, self._buffer = self._buffer, []
        try:
            rest = memoryview(encoder.encode_lines(messages))
            while rest:  # with PYTHONUNBUFFERED, a signal cuts a write short
                rest = rest[sys.stdout.buffer.write(rest) :]
            sys.stdout.flush()
        except OSError as error:
            raise output_error(error) from None
        except (OverflowError, RecursionError, TypeError, ValueError):
            self.record_error = EnvoyError(
                "JSON cannot express a value of a record; check `stream_maps`."
            )
        finally:
            self._is_writing = False
        if shutdown := self._shutdown:
            self._shutdown = None
            raise shutdown

    def shut_down(self, signum: int) -> None:
        """Stop the run because of a signal; another signal ends the process at once.

        A process that does not end in time, e.g. because the target does not read, is killed.

        Raises:
            ShutdownError: Wherever the run is; but `flush` raises it after a write to stdout.
        """
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_DFL)
        error = ShutdownError(signum)
        # Not `threading.Thread`: the signal may have interrupted one that holds its locks.
        _thread.start_new_thread(_kill, (error, SHUTDOWN_GRACE))
        if not self._is_writing:
            raise error
        self._shutdown = error


def _kill(error: ShutdownError, grace: float) -> None:
    time.sleep(grace)
    text = "Stopped by %s while the target was not reading; its last line may be incomplete."
    # In a thread, because stderr may be blocked too.
    _thread.start_new_thread(logger.warning, (text, error.signal_name))
    time.sleep(0.1)
    os._exit(error.exit_code)


def output_error(error: OSError) -> RunAbortedError:
    """Return the error to raise where stdout cannot be written; what is buffered is dropped."""
    # Python flushes stdout once more at exit: what is left in its buffer must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return RunAbortedError(
        f"Cannot write to stdout ({error.strerror}): the target has exited or the disk is full; "
        "check the target's output and run again."
    )
