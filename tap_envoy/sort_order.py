"""Proof that a list is sorted by time, so that a bookmark can move while it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tap_envoy.pagination import TOTAL_CAP
from tap_envoy.slices import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tap_envoy.pagination import SlicePaginator
    from tap_envoy.records import Record
    from tap_envoy.slices import SortedSlicer, StreamSlice

ROWS_BEFORE_PROOF = 500
"""Rows of a sorted stream before the order is proven, so that its bookmark can move."""

MIN_ALTERNATIONS = 3
"""Returns to an earlier group that show that rows are not grouped: one may be a new row."""


@dataclass(slots=True)
class Alternation:
    """Counts how often the rows of a list return to a group, such as a location.

    A list that goes group by group never does. Without this, such a list looks sorted by time as
    long as its later groups begin later.
    """

    count: int = 0
    groups: set[Any] = field(default_factory=set)
    _last: Any = None

    @property
    def is_shown(self) -> bool:
        """Whether the list does not go group by group."""
        return self.count >= MIN_ALTERNATIONS

    @property
    def is_missing(self) -> bool:
        """Whether there are several groups, and the list may go group by group."""
        return len(self.groups) > 1 and not self.is_shown

    def note(self, groups: Iterable[Any]) -> None:
        """Take in the groups of new rows, in their order; None for a row without one."""
        for group in groups:
            if group is None:
                continue
            if group != self._last and group in self.groups:
                self.count += 1
            self.groups.add(group)
            self._last = group


class SortOrder:
    """What is known of the order of a list.

    A list that goes location by location, each in order, looks sorted for thousands of rows.
    """

    def __init__(
        self,
        slicer: SortedSlicer,
        count: Callable[[StreamSlice], int | None],
        newest: Callable[[StreamSlice], Record | None],
    ) -> None:
        """Begin with a list of which nothing came yet.

        Args:
            slicer: Names the time by which the list should be sorted.
            count: Requests the `total` of a slice.
            newest: Requests the first row of a slice in descending order.
        """
        self._slicer = slicer
        self._count = count
        self._newest = newest
        self._alternations = {name: Alternation() for name in slicer.group_fields}
        self._is_proven = False
        self._proven_until: str | None = None
        self._proof_after = ROWS_BEFORE_PROOF

    def note(self, new: list[Record]) -> None:
        """Take in the new rows of a page, in their order."""
        for name, alternation in self._alternations.items():
            if not alternation.is_shown:
                alternation.note(record.get(name) for record in new)

    def bookmark(
        self, part: StreamSlice, paginator: SlicePaginator, latest: str | None, emitted: int
    ) -> str | None:
        """Return the time up to which no row is missing, if that is certain.

        Args:
            part: The slice that is being read.
            paginator: Its pages.
            latest: The latest time of its rows.
            emitted: Rows of the list so far.
        """
        if not self._is_certain and emitted >= self._proof_after and not paginator.is_done:
            self._proof_after = 2 * emitted
            self.prove(part, paginator, latest)
        return latest if self._is_certain else self._proven_until

    def prove(self, part: StreamSlice, paginator: SlicePaginator, latest: str | None) -> bool:
        """Return whether no row older than `latest` is still to come.

        The counts of rows show it, or else the newest row, if it is not known yet.
        """
        counts = self._do_counts_agree(paginator, latest)
        if counts:
            self._proven_until = latest
        if counts is not None or self._is_proven:
            self._is_proven = counts is not False
            return self._is_proven
        newest = self._newest(part)
        times = self._slicer.times(newest) if newest else None
        if newest is None or times is None or times[0] < (latest or ""):
            return False
        # It is the last row where groups come in the same order in both directions, too.
        is_last = newest["id"] == paginator.last_id and self._alternates
        self._is_proven = is_last or newest["id"] not in paginator.ids
        return self._is_proven

    @property
    def _is_certain(self) -> bool:
        """Whether the rest of the list is sorted too, and not only what came."""
        return self._is_proven and self._alternates

    @property
    def _alternates(self) -> bool:
        """Whether the rows alternate between groups, or have none."""
        grouped = [each for each in self._alternations.values() if each.groups]
        is_shown = any(each.is_shown for each in grouped) or not grouped
        return is_shown and not any(each.is_missing for each in grouped)

    def _do_counts_agree(self, paginator: SlicePaginator, latest: str | None) -> bool | None:
        """Compare how many rows are older than `latest` with how many came.

        Returns:
            None if `total` does not tell.
        """
        if latest is None:
            return None
        newer = self._count(self._slicer.following(parse_time(latest)))
        total = paginator.total
        if total is None or newer is None or TOTAL_CAP in {total, newer}:
            return None
        older, read = total - newer, len(paginator.ids)
        # If far fewer are older, the total is not affected by the filter, and rows were deleted.
        return None if 2 * older < read else older <= read
