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
    """What a run has read of one stream; requests are counted in several threads."""

    stream: str
    logger: logging.Logger
    rows: int = 0
    requests: int = 0
    retries: int = 0  # requests that repeated a failed one
    is_complete: bool = False
    error: str = ""  # why it is not complete
    _start: float = 0.0
    _last_logged: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Start the clock."""
        self._start = self._last_logged = time.monotonic()

    def count_request(self, *, is_retry: bool) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.retries += is_retry

    def count_rows(self, rows: int, total: int | None) -> None:
        """Count emitted rows, perhaps of `total`; log progress now and then."""
        self.rows += rows
        now = time.monotonic()
        if now - self._last_logged >= PROGRESS_INTERVAL:
            self._last_logged = now
            share = f" of {total:,}" if total and total > self.rows else ""
            rate = self.rows / (now - self._start)
            text = f"{self.stream}: {self.rows:,}{share} rows so far, {rate:,.0f} per second"
            self.logger.info("%s.", text)

    def log_summary(self, bookmark: str | None) -> None:
        """Log what was read."""
        seconds = time.monotonic() - self._start
        state = "" if self.is_complete else "incomplete, "
        requests = count(self.requests, "request")
        if self.retries:
            requests += f", {count(self.retries, 'retry', 'retries')}"
        text = f"{self.stream}: {state}{count(self.rows, 'row')} in {seconds:,.1f} s ({requests})"
        self.logger.info("%s.", f"{text}, bookmark {bookmark}" if bookmark else text)


def log_summary(
    streams: Sequence[StreamProgress],
    logger: logging.Logger,
    seconds: float,
    *,
    stopped_by: str = "",
    cause: str = "",
) -> None:
    """Log the last line of a run of `seconds`, which says all that an alert shows of it.

    `stopped_by` is the signal that stopped the run, such as `SIGTERM`, and `cause` is why it ended
    early; both may be empty.
    """
    failed = [x for x in streams if not x.is_complete]
    share = f"({len(failed)} of {count(len(streams), 'stream')})"
    names = f"{', '.join(x.stream for x in failed)} {share}" if failed else ""
    error = next((x.error for x in failed if x.error), "")
    if stopped_by:
        first = f" First error: {error}" if error else ""
        text = "Stopped by %s; incomplete: %s. Run again to continue.%s"
        logger.warning(text, stopped_by, names or "no stream", first)
    elif failed or cause:
        first = error or cause
        if cause and first != cause:
            logger.error("%s", cause)
        logger.error("Failed: %s", f"{names}: {first}" if names else first)
    else:
        rows = count(sum(x.rows for x in streams), "row")
        requests = count(sum(x.requests for x in streams), "request")
        text = f"{rows} from {count(len(streams), 'stream')} in {seconds:,.1f} s ({requests})"
        logger.info("Done: %s.", text)


def count(number: int, singular: str, plural: str = "") -> str:
    """Return such as "1 row" or "1,200 rows"."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
