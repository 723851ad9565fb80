"""Progress and summary log lines."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

PROGRESS_INTERVAL = 30.0
"""Seconds between two progress lines of a stream."""


@dataclass(slots=True)
class StreamProgress:
    """What a run has read of one stream; requests may be counted in several threads.

    Attributes:
        stream: Name of the stream.
        logger: For the progress lines and the summary line.
        rows: Rows emitted.
        requests: Requests sent.
        retries: Requests that repeated a failed one.
        start: When reading began, by `time.monotonic`; 0 if it has not.
        is_complete: Whether the whole stream was read.
        error: Why it was not.
    """

    stream: str
    logger: logging.Logger
    rows: int = 0
    requests: int = 0
    retries: int = 0
    start: float = 0.0
    is_complete: bool = False
    error: str = ""
    _last_logged: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Start the clock."""
        self.start = self._last_logged = time.monotonic()

    def count_request(self, *, is_retry: bool) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.retries += is_retry

    def count_rows(self, rows: int, total: int | None) -> None:
        """Count emitted rows, of which there will be `total`; log progress now and then."""
        self.rows += rows
        now = time.monotonic()
        if now - self._last_logged < PROGRESS_INTERVAL:
            return
        self._last_logged = now
        rate = self.rows / (now - self.start)
        text = f"{self.stream}: {self.rows:,} rows so far, {rate:,.0f} per second"
        if total and rate:
            share, rest = min(1.0, self.rows / total), max(0, total - self.rows)
            text += f"; {share:.0%} of {total:,}, about {rest / rate:,.0f} s left"
        self.logger.info("%s.", text, extra=self._fields())

    def log_summary(self, bookmark: str | None) -> None:
        """Log what was read."""
        fields = self._fields()
        state = "" if self.is_complete else "incomplete, "
        requests = _count(self.requests, "request")
        if self.retries:
            requests += f", {_count(self.retries, 'retry', 'retries')}"
        text = (
            f"{self.stream}: {state}{_count(self.rows, 'row')} in {fields['seconds']:,.1f} s "
            f"({requests}){f', bookmark {bookmark}' if bookmark else ''}"
        )
        self.logger.info("%s.", text, extra={**fields, "bookmark": bookmark})

    def _fields(self) -> dict[str, str | float]:
        """Return what a structured log has besides the text."""
        seconds = round(time.monotonic() - self.start, 3)
        counts = {"rows": self.rows, "requests": self.requests, "seconds": seconds}
        return {"stream": self.stream, **counts}


def log_summary(
    streams: Sequence[StreamProgress],
    logger: logging.Logger,
    seconds: float,
    *,
    stopped_by: str = "",
    cause: str = "",
) -> None:
    """Log the last line of a run, which says all that an alert shows of it.

    Args:
        streams: The progress of the selected streams.
        logger: Receives the line.
        seconds: The duration of the run.
        stopped_by: The signal that stopped the run, such as `SIGTERM`, if one did.
        cause: Why no further stream was read, if so.
    """
    rows, requests = sum(x.rows for x in streams), sum(x.requests for x in streams)
    fields = {"rows": rows, "requests": requests, "seconds": round(seconds, 3)}
    failed = [x for x in streams if not x.is_complete]
    share = f"{len(failed)} of {_count(len(streams), 'stream')}"
    names = f"{', '.join(x.stream for x in failed)} ({share})"
    kept = " Rows already sent are kept." if rows else ""
    if stopped_by:
        text = f"Stopped by {stopped_by}; incomplete: {names}. Run again to continue."
        logger.warning("%s", text, extra=fields)
    elif failed or cause:
        causes = [x.error for x in failed if x.error]
        if causes and cause:
            logger.error("%s", cause)
        logger.error("Failed: %s: %s%s", names, (causes or [cause])[0], kept, extra=fields)
    else:
        text = f"{_count(rows, 'row')} from {_count(len(streams), 'stream')} in {seconds:,.1f} s"
        logger.info("Done: %s (%s).", text, _count(requests, "request"), extra=fields)


def _count(number: int, singular: str, plural: str = "") -> str:
    """Return such as "1 row" or "1,200 rows"."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
