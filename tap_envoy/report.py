"""What a person on call reads: how far a stream is, what it came to, and what the run came to."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

INTERVAL = 30.0
"""Seconds between two lines that say how far a stream is."""


class Tally:
    """Counts what a stream takes; safe to use from several threads."""

    def __init__(
        self,
        name: str,
        logger: logging.Logger,
        *,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            name: The stream.
            logger: Where it is told how far the stream is.
            interval: Seconds between two such lines.
            clock: Tells seconds, of whatever beginning.
        """
        self.name = name
        self.rows = self.requests = self.retries = 0
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._began = self._ended = self._told = clock()
        self._lock = threading.Lock()

    def count_request(self, *, again: bool) -> None:
        """Count a request, and whether it is made again after a fault."""
        with self._lock:
            self.requests += 1
            self.retries += again

    def count_rows(self, rows: int, total: int | None) -> None:
        """Count rows that came, of so many in all if that is known; tell it now and then."""
        self.rows += rows
        self._ended = now = self._clock()
        if now - self._told < self._interval:
            return
        self._told = now
        speed = self.rows / max(now - self._began, 0.001)
        text = f"{self.name}: {self.rows:,} rows so far, {speed:,.0f} a second"
        if total and speed:
            left = max(0, total - self.rows)
            done = min(1.0, self.rows / total)
            text += f"; {done:.0%} of {total:,} done, about {left / speed:,.0f} s left"
        self._logger.info("%s.", text)

    def sum_up(self, bookmark: str | None, *, complete: bool) -> str:
        """Return the line that says what the stream came to."""
        seconds = self._ended - self._began
        text = (
            f"{self.name}: {'read' if complete else 'INCOMPLETE'}, {self.rows:,} rows, "
            f"{self.requests:,} requests, {self.retries:,} of them retries, {seconds:.1f} s"
        )
        return f"{text}, bookmark {bookmark}." if bookmark else f"{text}."


def sum_up(tallies: Sequence[Tally], incomplete: Sequence[str], streams: int) -> str:
    """Return the line that says what the run came to."""
    rows = sum(tally.rows for tally in tallies)
    requests = sum(tally.requests for tally in tallies)
    text = f"{rows:,} rows in {requests:,} requests from {streams - len(incomplete)} of {streams}"
    if not incomplete:
        return f"Done: {text} streams."
    return f"Incomplete: {', '.join(incomplete)}. {text} streams; what came is kept, run again."
