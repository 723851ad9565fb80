"""Singer messages on stdout: buffered, in whole lines, and interrupted only between two of them."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter, encoder
from singer_sdk.singerlib.encoding.simple import (
    ActivateVersionMessage,
    Message,
    RecordMessage,
    SchemaMessage,
)
from typing_extensions import override

from tap_envoy.exceptions import EnvoyError, RunAbortedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

BUFFER_SIZE = 1 << 16
"""Bytes per write: one system call for each record would cost more than anything else."""

SHUTDOWN_GRACE = 1.5
"""Seconds between a signal and the end of a process that cannot stop by itself."""


class ShutdownError(SystemExit):
    """Raised when a signal has stopped the run; the exit code is 128 + signal, as in shells.

    Attributes:
        exit_code: 128 + signal.
        signal_name: Such as `SIGTERM`.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.exit_code = 128 + signum
        self.signal_name = signal.Signals(signum).name


class ShutdownRequest:
    """A request to end the run, made by a signal handler.

    It is honoured between two messages, and at once while the run waits for a response.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        grace: float = SHUTDOWN_GRACE,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Create the request; nothing is requested yet.

        Args:
            logger: For the warning that the process could not stop by itself.
            grace: Seconds after which the process is ended, wherever it is blocked.
            exit_process: Ends the process with an exit code, without any cleanup.
        """
        self._logger = logger
        self._grace = grace
        self._exit_process = exit_process
        self._signum = 0
        self._interrupts = False

    def request(self, signum: int) -> None:
        """Request the shutdown because of a signal; a second such signal ends the process.

        Raises:
            ShutdownError: Where `interrupting` allows it.
        """
        signal.signal(signum, signal.SIG_DFL)
        if not self._signum:
            self._signum = signum
            # A write to a target that does not read is resumed after the signal (PEP 475).
            threading.Thread(target=self._watch, name="shutdown-watchdog", daemon=True).start()
            if self._interrupts:
                raise ShutdownError(signum)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let the signal handler raise `ShutdownError` in what is done here."""
        try:
            self._interrupts = True
            self.check()
            yield
        finally:
            self._interrupts = False

    def check(self) -> None:
        """Return if no shutdown was requested.

        Raises:
            ShutdownError: If one was.
        """
        if self._signum:
            raise ShutdownError(self._signum)

    def _watch(self) -> None:
        time.sleep(self._grace)
        # In a thread: stderr may be blocked too.
        threading.Thread(target=self._warn, daemon=True).start()
        time.sleep(min(0.1, self._grace))
        self._exit_process(128 + self._signum)

    def _warn(self) -> None:
        self._logger.warning(
            "Stopped by %s while the target was not reading; its last line may be incomplete.",
            signal.Signals(self._signum).name,
        )


class BufferedMessageWriter(MsgSpecWriter):
    """Writes whole lines to stdout, many at a time.

    ACTIVATE_VERSION messages are held back: the SDK writes them before the records, and a target
    removes older rows as soon as it reads one.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        """Create the writer.

        Args:
            check: Called before each record; may raise, so that no line is ever cut.
        """
        super().__init__()
        self._check = check
        self._buffer = bytearray()
        self._held_versions: list[ActivateVersionMessage] = []
        self._record_error: EnvoyError | None = None

    @override
    def write_message(self, message: Message) -> None:
        """Write a message, or hold it back if it is an ACTIVATE_VERSION.

        A record that JSON cannot express is left out, see `check_records`.

        Raises:
            RunAbortedError: If stdout is closed or full, or JSON cannot express another message.
        """
        if isinstance(message, RecordMessage):
            self._check()
            self._append(message)
            if len(self._buffer) > BUFFER_SIZE:
                self.flush()
            return
        if isinstance(message, ActivateVersionMessage):
            self._held_versions.append(message)
            return
        if isinstance(message, SchemaMessage):
            self.discard_versions()
            self._record_error = None
        self._append(message)
        self.flush()

    def check_records(self) -> None:
        """Return if all records of the stream since its SCHEMA message were written.

        Raises:
            EnvoyError: If JSON cannot express one; raised by `write_message`, it would end the run.
        """
        if self._record_error is not None:
            raise self._record_error

    def release_versions(self) -> None:
        """Write the ACTIVATE_VERSION messages held back: their stream is complete.

        Raises:
            RunAbortedError: If stdout is closed or full.
        """
        for message in self._held_versions:
            self._append(message)
        self.discard_versions()
        self.flush()

    def discard_versions(self) -> None:
        """Drop the ACTIVATE_VERSION messages held back: their stream is not complete."""
        self._held_versions.clear()

    def flush(self) -> None:
        """Pass all lines on to the target, which may have to read first.

        Raises:
            RunAbortedError: If stdout is closed or full.
        """
        pending, self._buffer = memoryview(self._buffer), bytearray()
        try:
            while pending and (pending := pending[_write(pending) :]):
                _wait_until_writable()
            while not _flush():
                _wait_until_writable()
        except OSError as error:
            raise output_error(error) from None

    def _append(self, message: Message) -> None:
        start = len(self._buffer)
        try:
            encoder.encode_into(message.to_dict(), self._buffer, -1)  # -1: at the end
        except (OverflowError, RecursionError, TypeError, ValueError) as error:
            del self._buffer[start:]
            if isinstance(message, RecordMessage):
                self._record_error = _record_error(error)
                return
            stream = getattr(message, "stream", "state")
            raise RunAbortedError(
                f"{stream}: JSON cannot express a value of this message; check `stream_maps`."
            ) from None
        self._buffer += b"\n"


def _record_error(error: Exception) -> EnvoyError:
    if isinstance(error, RecursionError):
        return EnvoyError(
            "A record is nested too deeply; report this to the maintainers of the tap."
        )
    return EnvoyError("JSON cannot express a value of a record; check `stream_maps`.")


def _write(lines: memoryview) -> int:
    """Return how many bytes stdout accepted, 0 if it is non-blocking and full."""
    try:
        return sys.stdout.buffer.write(lines) or 0
    except BlockingIOError as error:
        return error.characters_written


def _flush() -> bool:
    """Return whether all is flushed; a non-blocking stdout may be full."""
    try:
        sys.stdout.flush()
    except BlockingIOError:
        return False
    return True


def _wait_until_writable() -> None:
    # Not `select.select`, which refuses descriptors from 1,024 on.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        selector.register(sys.stdout.fileno(), selectors.EVENT_WRITE)
        selector.select(1.0)


def output_error(error: OSError) -> RunAbortedError:
    """Return the error to raise because stdout cannot be written; what is buffered is dropped."""
    # Python flushes stdout once more at exit: what is left in its buffer must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return RunAbortedError(
        f"Cannot write to stdout ({error.strerror}): the target has exited or the disk is full; "
        "check the target's output and run again."
    )
