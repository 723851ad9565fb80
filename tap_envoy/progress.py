"""Progress and summary log lines."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROGRESS_INTERVAL = 30.0
"""Seconds between two progress lines of a stream."""


class StreamProgress:
    """Counts the rows and requests of one stream; safe to use from several threads."""

    def __init__(
        self,
        name: str,
        logger: logging.Logger,
        *,
        interval: float = PROGRESS_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start counting, and the clock.

        Args:
            name: The stream.
            logger: For the progress lines and the summary line.
            interval: Seconds between two progress lines.
            clock: Returns seconds since any fixed moment.
        """
        self.name = name
        self.rows = self.requests = self.retries = 0
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._start = self._last_logged = clock()
        self._is_summarized = False
        self._lock = threading.Lock()

    def count_request(self, *, retried: bool) -> None:
        """Count a request, and whether it repeats a failed one."""
        with self._lock:
            self.requests += 1
            self.retries += retried

    def count_rows(self, rows: int, total: int | None) -> None:
        """Count rows; log a progress line if the last one is `interval` seconds old.

        Args:
            rows: Number of rows emitted since the last call.
            total: Number of rows that the whole stream will emit, or None if it is not known.
        """
        self.rows += rows
        now = self._clock()
        if now - self._last_logged < self._interval:
            return
        self._last_logged = now
        rate = self.rows / max(now - self._start, 0.001)
        text = f"{self.name}: {self.rows:,} rows so far, {rate:,.0f} per second"
        if total and rate:
            share = min(1.0, self.rows / total)
            seconds_left = max(0, total - self.rows) / rate
            text += f"; {share:.0%} of {total:,}, about {seconds_left:,.0f} s left"
        self._logger.info("%s.", text, extra=self._fields(now))

    def log_summary(self, bookmark: str | None, *, complete: bool) -> None:
        """Log what was read, once: further calls do nothing.

        Args:
            bookmark: The stream's bookmark, if it has one.
            complete: Whether the stream was read to its end.
        """
        if self._is_summarized:
            return
        self._is_summarized = True
        fields = self._fields(self._clock())
        requests = _count(self.requests, "request")
        if self.retries:
            requests += f", {_count(self.retries, 'retry', 'retries')}"
        text = (
            f"{self.name}: {'' if complete else 'incomplete, '}{_count(self.rows, 'row')} in "
            f"{fields['seconds']:,.1f} s ({requests})"
        )
        if bookmark:
            text += f", bookmark {bookmark}"
        self._logger.info("%s.", text, extra={**fields, "bookmark": bookmark})

    def _fields(self, now: float) -> dict[str, str | float]:
        """Return what a structured log carries besides the text."""
        return {
            "stream": self.name,
            "rows": self.rows,
            "requests": self.requests,
            "seconds": round(now - self._start, 3),
        }


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to.

    Attributes:
        progress: Of the streams that were started.
        incomplete: Names of those that were not read to their end.
        not_started: Names of the selected streams that were not started.
        seconds: Duration of the run.
        stopped_by: The signal that stopped the run, such as `SIGTERM`, or None.
    """

    progress: Sequence[StreamProgress]
    incomplete: Sequence[str]
    not_started: Sequence[str]
    seconds: float
    stopped_by: str | None = None


def log_summary(run: RunSummary, logger: logging.Logger) -> None:
    """Log the last line of a run: at INFO if all selected streams are complete, else WARNING."""
    rows = sum(stream.rows for stream in run.progress)
    requests = sum(stream.requests for stream in run.progress)
    streams = len(run.progress) + len(run.not_started)
    level = logging.INFO
    text = (
        f"Done: {_count(rows, 'row')} from {_count(streams, 'stream')} in {run.seconds:,.1f} s "
        f"({_count(requests, 'request')})."
    )
    if run.incomplete or run.not_started or run.stopped_by:
        level = logging.WARNING
        text = " ".join(_failures(run, streams, rows))
    fields = {"rows": rows, "requests": requests, "seconds": round(run.seconds, 3)}
    logger.log(level, "%s", text, extra=fields)


def _failures(run: RunSummary, streams: int, rows: int) -> Iterator[str]:
    if run.stopped_by:
        yield f"Stopped by {run.stopped_by}."
    if run.incomplete:
        verb = "Incomplete" if run.stopped_by else "Failed"
        names = ", ".join(run.incomplete)
        yield f"{verb}: {names} ({len(run.incomplete)} of {_count(streams, 'stream')})."
    if run.not_started:
        yield f"Not started: {', '.join(run.not_started)}."
    if run.stopped_by:
        yield "Run again to continue from the last STATE message."
    elif rows:
        yield "Rows already sent are kept."


def _count(number: int, singular: str, plural: str | None = None) -> str:
    """Return such as "1 row" or "1,200 rows"."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
