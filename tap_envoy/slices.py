"""How a stream is divided: into windows of time where the endpoint has filters for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tap_envoy.pagination import MAX_DEPTH
from tap_envoy.records import format_timestamp, normalize_timestamp, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_envoy.records import Record

OVERLAP = timedelta(seconds=2)
"""Windows reach further by this: a filter may exclude the time it names, or whole seconds."""

TOLERANCE = timedelta(hours=1)
"""Rows outside a window by more than this show that the filter is ignored."""

MIN_WINDOW = timedelta(hours=2)
"""Windows shorter than this are not halved: rows outside of them would not show that."""

EARLIEST_DATE = datetime(2013, 1, 1, tzinfo=UTC)
"""Envoy has no data from before (inferred; if it has, set `start_date`)."""


class FilterUnusableError(Exception):
    """Raised if Envoy rejects or ignores the filter of a slice."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """What a run is to read of a stream."""

    start: datetime | None  # the earliest time; None for all there is
    end: datetime  # the latest time of streams that hold future rows


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a stream."""

    slicer: Slicer
    start: datetime | None = None  # the earliest time; None is open
    end: datetime | None = None  # the latest time; None is open
    variant: Mapping[str, str] = field(default_factory=dict)  # parameters beside those of the times
    max_rows: int | None = None  # rows beyond which it is halved; None if it cannot be halved

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
        """The parameters of its variant, as messages show them."""
        return shown(f"{name}={value}" for name, value in self.variant.items())

    def check_filter(self, records: Iterable[Record]) -> None:
        """Check that the rows that came do not lie outside.

        Raises:
            FilterUnusableError: If one does, although filters were requested.
        """
        earliest = format_timestamp(self.start - TOLERANCE) if self.start else ""
        latest = format_timestamp(self.end + TOLERANCE) if self.end else "9"
        for begin, end in map(self.slicer.times, records if self.params else ()):
            if begin and (end < earliest or begin > latest):
                raise FilterUnusableError(f"Envoy ignores {shown(self.params)}")

    def halves(self, times: Iterable[str]) -> list[Slice]:
        """Return both halves, or nothing if they would be too short.

        Args:
            times: When known rows end: it is divided at the median of those within it.
        """
        start, end = self.start or EARLIEST_DATE, self.end or datetime.now(UTC)
        if end - start < MIN_WINDOW:
            return []
        earliest, latest = format_timestamp(start + TOLERANCE), format_timestamp(end - TOLERANCE)
        within = sorted(time for time in times if earliest < time < latest)
        middle = parse_time(within[len(within) // 2]) if within else start + (end - start) / 2
        return [replace(self, end=middle), replace(self, start=middle)]


@dataclass(frozen=True, slots=True)
class Slicer:
    """How an endpoint is divided: by time if it has filters for it, else into `variants` only.

    Attributes:
        time_field: The property that says when a row begins.
        start_param: The filter by earliest time.
        end_param: The filter by latest time.
        end_field: The property that says when a row ends, if rows have a length.
        max_window: The longest window that Envoy accepts. If set, it returns only some rows where
            it gets no window. None: a window may be open.
        variants: Query parameters of each part that has to be requested by itself.
    """

    time_field: str | None = None
    start_param: str | None = None
    end_param: str | None = None
    end_field: str | None = None
    max_window: timedelta | None = None
    variants: tuple[Mapping[str, str], ...] = ({},)

    def times(self, record: Record) -> tuple[str, str]:
        """Return when a row begins and ends; empty if that is not known."""
        begin = normalize_timestamp(record.get(self.time_field)) or "" if self.time_field else ""
        end = normalize_timestamp(record.get(self.end_field)) if self.end_field else None
        return begin, end or begin

    def whole(self, start: datetime | None) -> Slice:
        """Return all rows from `start` on as one slice, which has no filter."""
        return Slice(Slicer(self.time_field, end_field=self.end_field), start)

    def slices(self, time_range: TimeRange) -> Iterator[Slice]:
        """Yield the slices, oldest first.

        Windows of a limited length begin half of it apart: it is not known whether a window holds
        the rows that begin in it, overlap it, or lie within it.
        """
        if self.max_window is None:
            max_rows = MAX_DEPTH if self.end_param else None
            for variant in self.variants:
                yield Slice(self, time_range.start, variant=variant, max_rows=max_rows)
            return
        start, end = time_range.start or EARLIEST_DATE, time_range.end
        while start < end:
            yield Slice(self, start, min(start + self.max_window, end))
            if start + self.max_window >= end:
                return
            start += self.max_window / 2


def shown(params: Iterable[str]) -> str:
    """Return query parameters as messages show them."""
    return " and ".join(f"`{name}`" for name in params)
