"""How a stream is divided into slices: by time where the endpoint has a filter for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from tap_envoy.exceptions import EnvoyError
from tap_envoy.records import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tap_envoy.records import Record

MAX_DEPTH = 10_000
"""Rows: page x perPage must not exceed this (documented for invites; inferred for the others, where
it costs one more slice in 10,000 rows if it is wrong)."""

OVERLAP = timedelta(seconds=2)
"""Slices overlap by this: a filter may exclude the time it names, or compare whole seconds."""

WIDER_OVERLAPS = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))
"""Overlaps to try where the next slice does not begin with a known row."""

FILTER_TOLERANCE = timedelta(days=1)
"""Rows outside a slice by more than this show that the filter is ignored."""

PRECISION = timedelta(hours=1)
"""A row that reaches beyond its slice by more than this need not lie within it."""

FAR_AHEAD = timedelta(days=365)
"""A slice so far ahead has other rows than one that was read, or none."""

MIN_LENGTH = timedelta(days=1)
"""Rows that have a length are taken to be as long as this, even if all that came are shorter."""

EARLIEST_DATE = datetime(2013, 1, 1, tzinfo=UTC)
"""Envoy has no data from before (inferred; if it has, set `start_date`)."""

TIME_BOUNDS = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC))
"""Clamp times to this range so that date arithmetic cannot overflow."""


def parse_time(text: str) -> datetime:
    """Return an ISO-8601 time, in UTC where it has no zone, clamped to `TIME_BOUNDS`."""
    time = datetime.fromisoformat(text)
    return min(
        max(time if time.tzinfo else time.replace(tzinfo=UTC), TIME_BOUNDS[0]), TIME_BOUNDS[1]
    )


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
class StreamSlice:
    """A part of a stream.

    Attributes:
        start: The earliest time; None is open.
        end: The latest time; None is open.
        params: The query parameters that select the slice.
        is_continuation: Whether it must begin with a row that the slice before it has.
        is_optional: Whether the stream is read without it, if Envoy rejects `params`.
        overlap: How far `params` reach back behind `start`.
        known_ids: Ids of rows that an attempt at a larger slice has emitted.
        parent_total: The `total` of the larger slice that this one is a half of.
    """

    start: datetime | None = None
    end: datetime | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    is_continuation: bool = False
    is_optional: bool = False
    overlap: timedelta = OVERLAP
    known_ids: frozenset[str] = frozenset()
    parent_total: int | None = None

    @property
    def description(self) -> str:
        """The query parameters, as a message names them."""
        return " and ".join(f"`{name}={value}`" for name, value in self.params.items())

    def excludes(self, times: tuple[str, str]) -> bool:
        """Return whether a row from one time to another lies clearly outside the slice."""
        first, last = times
        if self.start and last < format_timestamp(self.start - self.overlap - FILTER_TOLERANCE):
            return True
        return bool(self.end and first > format_timestamp(self.end + FILTER_TOLERANCE))

    def cuts(self, times: tuple[str, str]) -> bool:
        """Return whether a row from one time to another lies partly outside the slice."""
        first, last = times
        if self.start and first < format_timestamp(self.start - PRECISION):
            return True
        return bool(self.end and last > format_timestamp(self.end + PRECISION))


@dataclass(frozen=True, slots=True)
class SingleSlice:
    """Reads an endpoint without a filter by time, in one slice.

    Attributes:
        variants: Query parameters of each part that has to be requested by itself; parts after
            the first are optional.
        time_field: The property that is compared with the start of the run's range, if any.
        end_field: The property that says when a row ends, if rows have a length.
    """

    variants: tuple[Mapping[str, str], ...] = ({},)
    time_field: str | None = None
    end_field: str | None = None
    max_depth: ClassVar[int | None] = None
    is_sorted: ClassVar[bool] = False

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the query parameters that select slices."""
        return tuple(dict.fromkeys(name for variant in self.variants for name in variant))

    def slices(self, _time_range: TimeRange) -> Iterator[StreamSlice]:
        """Yield the slices."""
        for index, variant in enumerate(self.variants):
            yield StreamSlice(params=variant, is_optional=index > 0)

    def elsewhere(self, part: StreamSlice, _now: datetime) -> StreamSlice:
        """Return a slice with other rows."""
        others = (variant for variant in self.variants if variant != part.params)
        return StreamSlice(params=next(others, {}))

    def times(self, record: Record) -> tuple[str, str] | None:
        """Return when a row begins and ends."""
        return _times(record, self.time_field, self.end_field) if self.time_field else None


@dataclass(frozen=True, slots=True)
class SortedSlicer:
    """Reads an endpoint that sorts by time: a slice is open, the next begins where it broke off.

    Attributes:
        time_field: The property it is sorted by.
        start_param: The filter by earliest time.
        group_fields: The properties by which Envoy may group the rows before it sorts them.
    """

    time_field: str
    start_param: str
    group_fields: tuple[str, ...] = ("locationId", "flowId")
    max_depth: ClassVar[int | None] = MAX_DEPTH
    is_sorted: ClassVar[bool] = True

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the query parameters that select slices."""
        return (self.start_param,)

    def slices(self, time_range: TimeRange) -> Iterator[StreamSlice]:
        """Yield the first slice."""
        yield self._slice(StreamSlice(start=time_range.start))

    def following(self, time: datetime) -> StreamSlice:
        """Return what is left of a slice that was read up to a time."""
        return self._slice(StreamSlice(start=time, is_continuation=True))

    def elsewhere(self, _part: StreamSlice, now: datetime) -> StreamSlice:
        """Return a slice with other rows."""
        return self._slice(StreamSlice(start=now + FAR_AHEAD))

    def widened(self, part: StreamSlice) -> StreamSlice | None:
        """Return a slice that overlaps further with the one before it; None if that is in vain."""
        wider = next((overlap for overlap in WIDER_OVERLAPS if overlap > part.overlap), None)
        return self._slice(replace(part, overlap=wider)) if wider else None

    def times(self, record: Record) -> tuple[str, str] | None:
        """Return when a row begins and ends."""
        return _times(record, self.time_field)

    def _slice(self, part: StreamSlice) -> StreamSlice:
        if part.start is None:
            return part
        return replace(part, params={self.start_param: format_timestamp(part.start - part.overlap)})


@dataclass(frozen=True, slots=True)
class WindowSlicer:
    """Reads an endpoint of unknown order in windows, halved where they are too deep.

    Attributes:
        time_field: The property that the filters are about.
        start_param: The filter by earliest time.
        end_param: The filter by latest time.
        end_field: The property that says when a row ends, if rows have a length.
        max_window: The longest window that Envoy accepts; None for windows with open ends.
        step: How long after a window the next one begins.
        has_future: Whether rows may lie in the future.
    """

    time_field: str
    start_param: str
    end_param: str
    end_field: str | None = None
    max_window: timedelta | None = None
    step: timedelta = timedelta(0)
    has_future: bool = False
    max_depth: ClassVar[int | None] = MAX_DEPTH
    is_sorted: ClassVar[bool] = False

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the query parameters that select slices."""
        return (self.start_param, self.end_param)

    def slices(self, time_range: TimeRange) -> Iterator[StreamSlice]:
        """Yield the windows, oldest first."""
        if self.max_window is None:
            yield self._slice(StreamSlice(start=time_range.start))
            return
        end = time_range.end if self.has_future else time_range.now
        start = time_range.start or EARLIEST_DATE
        while start < end:
            yield self._slice(StreamSlice(start, min(start + self.max_window, end)))
            start += self.step

    def elsewhere(self, part: StreamSlice, now: datetime) -> StreamSlice:
        """Return a slice with other rows."""
        width = part.end - part.start if part.start and part.end else timedelta(days=1)
        return self._slice(StreamSlice(now + FAR_AHEAD, now + FAR_AHEAD + width))

    def halves(
        self,
        part: StreamSlice,
        seen: tuple[datetime, datetime] | None,
        known_ids: frozenset[str],
        total: int | None,
        longest: timedelta | None,
    ) -> list[StreamSlice]:
        """Return both halves of a window that is too deep.

        Args:
            part: The window.
            seen: The earliest and the latest time in it, as far as it was read.
            known_ids: Ids of the rows that it has emitted.
            total: Its `total`.
            longest: The longest row so far, if a window may contain only the rows that lie
                within it: each row must then lie within one of the halves.

        Raises:
            EnvoyError: If it cannot be halved further.
        """
        earliest, latest = seen or (EARLIEST_DATE, datetime.now(UTC))
        start, end = part.start or earliest, part.end or latest
        reach = max(longest, MIN_LENGTH) / 2 if longest is not None else timedelta(0)
        middle = start + (end - start) / 2
        if middle - start < reach + max(reach, OVERLAP):
            raise EnvoyError(too_many(start, self.start_param))
        half = StreamSlice(known_ids=known_ids | part.known_ids, parent_total=total)
        return [
            self._slice(replace(half, start=part.start, end=middle + reach)),
            self._slice(replace(half, start=middle - reach, end=part.end)),
        ]

    def times(self, record: Record) -> tuple[str, str] | None:
        """Return when a row begins and ends."""
        return _times(record, self.time_field, self.end_field)

    def _slice(self, part: StreamSlice) -> StreamSlice:
        params = {}
        if part.start:
            params[self.start_param] = format_timestamp(part.start - OVERLAP)
        if part.end:
            params[self.end_param] = format_timestamp(part.end + OVERLAP)
        return replace(part, params=params)


Slicer = SingleSlice | SortedSlicer | WindowSlicer


def _times(record: Record, time_field: str, end_field: str | None = None) -> tuple[str, str] | None:
    time = record.get(time_field)
    if time is None:
        return None
    return time, (record.get(end_field) if end_field else None) or time


def too_many(time: datetime, param: str) -> str:
    """Return the message for more rows at one time than can be requested."""
    return (
        f"More rows have the time {format_timestamp(time)} than Envoy returns for a query (or it "
        f"ignores `{param}`); report this to Envoy."
    )
