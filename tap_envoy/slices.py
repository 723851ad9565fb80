"""How a long list is cut by time, so that no part of it is deeper than Envoy lets anyone look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from tap_envoy.errors import EnvoyError
from tap_envoy.records import utc

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 10_000
"""Rows: page × perPage must not exceed this (documented for invites, taken to hold everywhere)."""

MOMENT = timedelta(milliseconds=1)
"""Envoy's times have milliseconds. Slices overlap by one, since a filter may or may not include
the time it names, and since Envoy may keep finer times than it shows."""

FOUNDED = datetime(2013, 1, 1, tzinfo=UTC)
"""Envoy has no data from before (inferred): where a list without a start has to begin."""

SANE = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC))
"""Times beyond these are taken for them: there is room to reckon on both sides."""

TOO_MANY = (
    "More than {depth} rows share the time {time}, and Envoy shows no more than that at once "
    "(or it ignores `{after}`); report this to Envoy."
)


def sane_time(text: str) -> datetime:
    """Return an ISO-8601 time, in UTC where it names no zone, that can be reckoned with."""
    moment = datetime.fromisoformat(text)
    return min(max(moment if moment.tzinfo else moment.replace(tzinfo=UTC), SANE[0]), SANE[1])


@dataclass(frozen=True, slots=True)
class Period:
    """What a run is to read of a list.

    Attributes:
        start: The earliest time, or None for all there is.
        now: When the run began.
        end: The latest time that a list which looks ahead is read to.
    """

    start: datetime | None
    now: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a list, from `after` to `before`; None is open.

    Attributes:
        told: Keys of rows that were emitted already, by an attempt at a larger slice.
    """

    after: datetime | None = None
    before: datetime | None = None
    told: frozenset[str] = frozenset()


Seen = tuple[datetime, datetime] | None
"""The oldest and the newest time of the rows of a slice that came so far."""


@dataclass(frozen=True, slots=True)
class Uncut:
    """A list that has no filter by time: it is read in one, as far as it can be."""

    by: ClassVar[str | None] = None
    in_order: ClassVar[bool] = False
    cut_ahead: ClassVar[bool] = False

    def slices(self, _period: Period) -> Iterator[Slice]:
        """Yield the one slice."""
        yield Slice()

    def query(self, _slice: Slice) -> dict[str, str]:
        """Return the filters of the slice."""
        return {}

    def rest(self, _slice: Slice, _seen: Seen, told: frozenset[str]) -> list[Slice]:
        """Tell that rows beyond the depth are out of reach.

        Raises:
            EnvoyError: Always.
        """
        raise EnvoyError(
            f"The list goes on after {len(told)} rows, but Envoy shows no more than that at once, "
            "and it cannot be asked for in parts; ask Envoy how to read it whole."
        )


@dataclass(frozen=True, slots=True)
class InOrder:
    """A list that comes sorted by time: a slice has no end, and the next begins where it broke off.

    Attributes:
        by: The property it is sorted by.
        after: The filter that says from when.
    """

    by: str
    after: str
    in_order: ClassVar[bool] = True
    cut_ahead: ClassVar[bool] = False

    def slices(self, period: Period) -> Iterator[Slice]:
        """Yield the first slice."""
        yield Slice(after=period.start)

    def query(self, part: Slice) -> dict[str, str]:
        """Return the filters of a slice."""
        return {self.after: utc(part.after - MOMENT)} if part.after else {}

    def rest(self, part: Slice, seen: Seen, told: frozenset[str]) -> list[Slice]:
        """Return what is left of a slice that was read to the depth.

        Raises:
            EnvoyError: If too many rows share one time.
        """
        if seen is None or seen[1] == part.after:
            time = utc(seen[1]) if seen else "null"
            raise EnvoyError(TOO_MANY.format(depth=len(told), time=time, after=self.after))
        return [Slice(after=seen[1])]


@dataclass(frozen=True, slots=True)
class InWindows:
    """A list that comes in no known order: it is read in windows, halved where they are too deep.

    Attributes:
        by: The property that the filters are about.
        after: The filter that says from when.
        before: The filter that says until when.
        widest: The longest window that Envoy allows; None for any, and for windows with open ends.
        overlap: How far a window reaches back into the one before.
        looks_ahead: Whether rows may lie in the future.
    """

    by: str
    after: str
    before: str
    widest: timedelta | None = None
    overlap: timedelta = MOMENT
    looks_ahead: bool = False
    in_order: ClassVar[bool] = False
    cut_ahead: ClassVar[bool] = True

    def slices(self, period: Period) -> Iterator[Slice]:
        """Yield the windows, oldest first."""
        if self.widest is None:
            yield Slice(after=period.start)
            return
        end = period.end if self.looks_ahead else period.now
        after = period.start or FOUNDED
        while after < end:
            before = min(after + self.widest, end)
            yield Slice(after, before)
            after = before

    def query(self, part: Slice) -> dict[str, str]:
        """Return the filters of a window."""
        query = {}
        if part.after:
            # A window that had to be narrow does not reach back further than it is wide.
            width = (part.before or datetime.max.replace(tzinfo=UTC)) - part.after
            query[self.after] = utc(part.after - min(self.overlap, width))
        if part.before:
            query[self.before] = utc(part.before + MOMENT)
        return query

    def rest(self, part: Slice, seen: Seen, told: frozenset[str]) -> list[Slice]:
        """Return both halves of a window that is too deep.

        Raises:
            EnvoyError: If it cannot be halved any more.
        """
        oldest, newest = seen or (FOUNDED, datetime.now(UTC))
        after, before = part.after or oldest, part.before or newest
        middle = after + (before - after) / 2
        middle -= timedelta(microseconds=middle.microsecond % 1000)
        if not after < middle < before:
            raise EnvoyError(TOO_MANY.format(depth=DEPTH, time=utc(after), after=self.after))
        told |= part.told
        return [Slice(part.after, middle, told), Slice(middle, part.before, told)]


Cut = Uncut | InOrder | InWindows
