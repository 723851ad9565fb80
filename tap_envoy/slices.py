"""How a stream is divided: into windows of time where the endpoint has filters for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tap_envoy.pagination import ROW_CAP
from tap_envoy.records import format_timestamp, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_envoy.records import Record

OVERLAP = timedelta(seconds=2)
"""Windows overlap by this: a filter may exclude the time it names, or compare whole seconds."""

TOLERANCE = timedelta(hours=1)
"""Rows outside a window by more than this show that the filter is ignored."""

MIN_WINDOW = timedelta(hours=2)
"""Windows shorter than this are not divided."""

LONGEST_ROW = timedelta(days=1)
"""How far the halves of a window overlap where rows have a length."""

EARLIEST_DATE = datetime(2013, 1, 1, tzinfo=UTC)
"""Envoy has no data from before (inferred; if it has, set `start_date`)."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """What a run is to read of a stream.

    Attributes:
        start: The earliest time; None for all there is.
        now: When the run started.
        end: The latest time of streams that hold future rows.
    """

    start: datetime | None
    now: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a stream.

    Attributes:
        slicer: What it is a part of.
        start: The earliest time; None is open.
        end: The latest time; None is open.
        variant: Query parameters beside those of the times.
        complete_until: The time before which no row is missing once it was read; None for its end.
    """

    slicer: Slicer
    start: datetime | None = None
    end: datetime | None = None
    variant: Mapping[str, str] = field(default_factory=dict)
    complete_until: datetime | None = None

    @property
    def params(self) -> dict[str, str]:
        """The query parameters that select it."""
        params = dict(self.variant)
        if self.start and self.slicer.start_param:
            params[self.slicer.start_param] = format_timestamp(self.start - OVERLAP)
        if self.end and self.slicer.end_param:
            params[self.slicer.end_param] = format_timestamp(self.end + OVERLAP)
        return params

    @property
    def description(self) -> str:
        """The parameters of its variant, as a message names them."""
        return " and ".join(f"`{name}={value}`" for name, value in self.variant.items())

    @property
    def max_rows(self) -> int | None:
        """Rows beyond which to divide it; None if it cannot be divided."""
        return ROW_CAP if self.slicer.end_param else None

    def shows_filter_ignored(self, records: Iterable[Record]) -> bool:
        """Return whether a row lies outside."""
        first = format_timestamp(self.start - TOLERANCE) if self.start else ""
        last = format_timestamp(self.end + TOLERANCE) if self.end else "9"
        times = filter(None, map(self.slicer.times, records)) if self.params else ()
        return any(finish < first or begin > last for begin, finish in times)

    def halves(self, now: datetime, seen: list[str]) -> list[Slice]:
        """Return both halves, or nothing if it cannot be divided.

        Args:
            now: The end of a slice without one.
            seen: Times of its rows, if some are known: it is divided in the middle of them.
        """
        start, end = self.start or EARLIEST_DATE, self.end or now
        overlap = LONGEST_ROW if self.slicer.end_field else OVERLAP
        if not self.slicer.end_param or end - start < max(4 * overlap, MIN_WINDOW):
            return []
        first, last = (parse_time(min(seen)), parse_time(max(seen))) if seen else (start, end)
        middle = first + (last - first) / 2
        if not start + overlap < middle < end - overlap:
            middle = start + (end - start) / 2
        until = min(middle - overlap, self.complete_until or middle)
        return [
            replace(self, end=middle + overlap / 2, complete_until=until),
            replace(self, start=middle - overlap / 2),
        ]


@dataclass(frozen=True, slots=True)
class Slicer:
    """How an endpoint is divided: by time if it has filters for it, else into `variants` only.

    Attributes:
        time_field: The property that says when a row begins.
        start_param: The filter by earliest time.
        end_param: The filter by latest time.
        end_field: The property that says when a row ends, if rows have a length.
        max_window: The longest window that Envoy accepts; None for one that is open.
        variants: Query parameters of each part that has to be requested by itself.
    """

    time_field: str | None = None
    start_param: str | None = None
    end_param: str | None = None
    end_field: str | None = None
    max_window: timedelta | None = None
    variants: tuple[Mapping[str, str], ...] = ({},)

    def times(self, record: Record) -> tuple[str, str] | None:
        """Return when a row begins and ends, if that is known."""
        begin = record.get(self.time_field) if self.time_field else None
        return (begin, record.get(self.end_field or "") or begin) if begin else None

    def whole(self, start: datetime | None) -> Slice:
        """Return all as one slice without filters."""
        return Slice(Slicer(self.time_field, end_field=self.end_field), start)

    def slices(self, time_range: TimeRange) -> Iterator[Slice]:
        """Yield the slices, oldest first."""
        if self.max_window is None:
            for variant in self.variants:
                yield Slice(self, time_range.start, variant=variant)
            return
        start = time_range.start or EARLIEST_DATE
        while start < time_range.end:
            end = min(start + self.max_window, time_range.end)
            following = start + self.max_window / 2
            is_last = end == time_range.end
            yield Slice(self, start, end, complete_until=None if is_last else following)
            if is_last:
                return
            start = following
