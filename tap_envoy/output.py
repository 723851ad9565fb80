"""What is written to stdout, and what ends the writing: a stop, or a target that is gone."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter, encoder
from singer_sdk.singerlib.encoding.simple import Message, RecordMessage
from typing_extensions import override

from tap_envoy.errors import RunEndedError

if TYPE_CHECKING:
    from collections.abc import Callable


MOST_HELD_BACK = 1 << 16
"""Bytes that are written at once: a system call for each row is what costs the most."""


class StoppedError(SystemExit):
    """A signal asked the run to stop; its code is the one that shells give to that."""


class Stop:
    """Whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self._signal = 0

    def ask(self, number: int) -> None:
        """Ask for a stop by a signal; a second one of the kind does not wait for it."""
        self._signal = number
        signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """Stop here, if that was asked for.

        Raises:
            StoppedError: If so.
        """
        if self._signal:
            raise StoppedError(128 + self._signal)


class LineWriter(MsgSpecWriter):
    """Writes whole lines to stdout, many at a time where there is no need to hurry."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Make a writer.

        Args:
            check: Called before each record; may raise, so that no line is ever cut by a stop.
        """
        super().__init__()
        self._check = check
        self._lines = bytearray()

    @override
    def write_message(self, message: Message) -> None:
        """Write a message.

        Raises:
            RunEndedError: If nobody can read it.
        """
        is_record = isinstance(message, RecordMessage)
        if is_record:
            self._check()
        encoder.encode_into(message.to_dict(), self._lines, -1)  # at the end
        self._lines += b"\n"
        if not is_record or len(self._lines) > MOST_HELD_BACK:
            self.flush()

    def flush(self) -> None:
        """Let the target have all that was written so far.

        Raises:
            RunEndedError: If nobody can read it.
        """
        lines, self._lines = memoryview(self._lines), bytearray()
        try:
            while lines:
                # Without a buffer of Python's own (PYTHONUNBUFFERED) it may take but a part.
                lines = lines[sys.stdout.buffer.write(lines) or 0 :]
            sys.stdout.flush()
        except OSError as error:
            raise _gone(error) from None


def _gone(error: OSError) -> RunEndedError:
    # What is still in the buffer has nowhere to go, nor must it end the program a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return RunEndedError(
        f"The output cannot be written any more ({error.strerror}): the target has ended, or the "
        "disk is full; see what the target says, and run again."
    )
