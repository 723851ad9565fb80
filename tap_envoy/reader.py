"""How a stream is read: slice by slice, in passes, and with less where Envoy refuses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import combinations, count
from typing import TYPE_CHECKING, Any

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import ROW_CAP, Ending, Page, PageRequest, Pages, Pass
from tap_envoy.records import format_timestamp
from tap_envoy.slices import OVERLAP

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from tap_envoy.prefetch import PrefetchPool
    from tap_envoy.records import Record
    from tap_envoy.slices import Slice, Slicer, TimeRange

MAX_AHEAD = 8
"""Slices whose first pages are requested ahead."""

MAX_FRUITLESS = 5
"""Consecutive passes over a slice without a new row, after which a stream fails."""

MAX_PASSES = 20
"""Passes over a slice in all."""


class FilterIgnoredError(Exception):
    """Raised when rows show that Envoy ignores a filter."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a response brought.

    Attributes:
        records: Rows to emit.
        bookmark: The time before which no row is missing once these are emitted, if that is known.
        total: Rows of the slice, if that is known.
    """

    records: list[Record]
    bookmark: str | None = None
    total: int | None = None


class StreamReader:
    """Reads all rows of a stream."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        slicer: Slicer,
        sort: Mapping[str, str],
        pages: Pages,
        fetch: Callable[[dict[str, Any]], Page],
        pool: PrefetchPool,
        warn: Callable[[str], None],
        *,
        needs_filter: bool = False,
    ) -> None:
        self._slicer = slicer
        self._sort = sort
        self._paging = pages
        self._fetch = fetch
        self._pool = pool
        self._warn = warn
        self._needs_filter = needs_filter
        self._dropped: tuple[str, ...] = ()
        self._latest = ""
        self._recent: deque[set[str]] = deque(maxlen=4)  # ids that the next slices may repeat

    def read(self, time_range: TimeRange) -> Iterator[Batch]:
        """Yield the rows as they come.

        Raises:
            EnvoyError: If the stream cannot be read completely.
        """
        self._now = time_range.now
        slices = self._slicer.slices(time_range)
        part = next(slices, None)
        if part is None:
            return
        whole = self._slicer.whole(time_range.start)
        try:
            first = self._negotiate(part)
            if "filter" in self._dropped:
                part, slices = whole, iter(())
            yield from self._read_slice(part, first)
            for part, first in self._pool.ahead(self._first_page, slices, lambda: MAX_AHEAD):
                if part.variant and first.rejection:
                    self._warn(f"Envoy rejected {part.description}; reading without.")
                else:
                    yield from self._read_slice(part, first)
        except FilterIgnoredError as error:
            if self._needs_filter:
                raise EnvoyError(f"{error}, without which it returns only some rows.") from None
            self._warn(f"{error}; reading the whole list.")
            yield from self._read_slice(whole, self._first_page(whole))
        if self._latest:
            yield Batch([], self._latest)

    def _negotiate(self, part: Slice) -> Page:
        """Return the first page of a slice, with as many parameters as Envoy accepts.

        Raises:
            RequestRejectedError: If it does not even accept the guide's bare call.
        """
        first = self._first_page(part)
        names = {
            "sort": [*self._sort],
            "filter": [] if self._needs_filter else [*part.params],
            "page size": ["perPage"],
            "page": ["page"],
        }
        groups = [group for group in names if names[group]]
        rejection = first.rejection
        if rejection is None or rejection.status == HTTPStatus.NOT_FOUND:
            return first
        for dropped in (d for n in range(1, len(groups) + 1) for d in combinations(groups, n)):
            self._dropped = dropped
            page = self._first_page(part)
            if page.rejection is None:
                self._paging.size = None if "page size" in dropped else self._paging.size
                self._paging.are_numbered = "page" not in dropped
                shown = " and ".join(f"`{name}`" for group in dropped for name in names[group])
                self._warn(f"Envoy rejected {shown}{rejection.detail}; reading without.")
                return page
        raise rejection

    def _first_page(self, part: Slice) -> Page:
        return self._request(part, self._paging.first)

    def _request(self, part: Slice, page: PageRequest) -> Page:
        groups: dict[str, Mapping[str, Any]] = {
            "sort": self._sort,
            "filter": part.params,
            "page": {"page": page.number},
            "page size": {"perPage": page.size},
        }
        kept = (params for name, params in groups.items() if name not in self._dropped)
        try:
            return self._fetch({name: value for params in kept for name, value in params.items()})
        except RequestRejectedError as error:
            return Page([], rejection=error)

    def _read_slice(self, part: Slice, first: Page) -> Iterator[Batch]:
        """Read a slice; where it is too deep, its halves instead, oldest first.

        Raises:
            EnvoyError: If it cannot be read completely.
            FilterIgnoredError: If Envoy ignores its filter.
        """
        unread = [(part, first)]
        while unread:
            part, first = unread.pop()
            halves = yield from self._read_undivided(part, first)
            unread += reversed(halves)
            if not halves and part.complete_until and self._latest:
                yield Batch([], min(self._latest, format_timestamp(part.complete_until)))

    def _read_undivided(
        self, part: Slice, first: Page
    ) -> Generator[Batch, None, list[tuple[Slice, Page]]]:
        """Read a slice in passes until none is missing; return its halves if it is too deep."""
        max_rows, previous, fruitless = part.max_rows, None, 0
        known = set().union(*self._recent) if part.variant else set()
        emitted: set[str] = set()
        self._recent.append(emitted)
        for number in count(1):
            before = len(emitted)
            this = yield from self._read_pass(part, first, max_rows, emitted)
            is_new = len(emitted) > before
            if self._is_complete(part, this, previous, is_new=is_new):
                if part.variant and emitted and emitted <= known:
                    self._warn(f"Envoy ignores {part.description}; such rows may be missing.")
                return []
            if this.ending is Ending.CUT_OFF and max_rows is not None:
                if halves := self._halves(part, this):
                    return halves
                max_rows = None  # read on until Envoy refuses
            elif this.ending is Ending.CUT_OFF and previous and previous.ending is this.ending:
                raise EnvoyError(_cut_off(this))
            if previous and not (self._is_joined(this) or self._is_joined(previous)):
                self._paging.can_overlap = False  # the gap is none of the list's
            fruitless = 0 if is_new else fruitless + 1
            if fruitless == MAX_FRUITLESS or number == MAX_PASSES:
                raise EnvoyError("The list kept changing while it was read; run again later.")
            previous, first = this, self._first_page(part)
        raise AssertionError

    def _read_pass(
        self, part: Slice, first: Page, max_rows: int | None, emitted: set[str]
    ) -> Generator[Batch, None, Pass]:
        """Yield the rows of one pass over a slice that were not emitted yet; return the pass."""
        if first.rejection:
            raise first.rejection
        fetch = partial(self._request, part)
        this = Pass(first, self._paging, fetch, self._pool, max_rows)
        if max_rows is not None and (first.total or 0) > max_rows:
            this.ending = Ending.CUT_OFF  # before anything is emitted
            return this
        for page in this:
            if part.shows_filter_ignored(page.records):
                names = " and ".join(f"`{name}`" for name in part.params)
                raise FilterIgnoredError(f"Envoy ignores {names}")
            this.times += [times[0] for times in map(part.slicer.times, page.records) if times]
            yield Batch(self._new(part, page, emitted), total=this.total)
        return this

    def _halves(self, part: Slice, this: Pass) -> list[tuple[Slice, Page]]:
        """Return both halves of a slice with their first pages, or none if it cannot be divided."""
        total = this.first.total
        halves = [(half, self._first_page(half)) for half in part.halves(self._now, this.times)]
        if any(page.rejection for _, page in halves):
            return []
        totals = [page.total for _, page in halves if page.total is not None]
        if total in {None, ROW_CAP} or len(totals) < len(halves):
            return halves
        # Either total ignores the filter, or rows without a time are in neither.
        is_ignored = min(totals, default=0) >= total
        return [] if is_ignored or sum(totals) < total else halves

    @staticmethod
    def _is_joined(this: Pass) -> bool:
        return not this.overlaps or this.ending is not Ending.UNPROVEN

    def _is_complete(self, part: Slice, this: Pass, previous: Pass | None, *, is_new: bool) -> bool:
        """Return whether a pass, with the one before it, shows that no row is missing."""
        if this.ending is Ending.CUT_OFF:
            return False
        is_same = (
            previous is not None
            and previous.ending is this.ending
            and not (this.overlaps and this.ending is Ending.UNPROVEN)
            and previous.ids == this.ids
        )
        if this.is_disordered and not is_same:
            return not is_new and this.total is not None and len(this.ids) >= this.total
        expected = min(this.first.total or 0, this.total or 0)
        is_filtered = part.params and this.max_rows is not None  # whose total may be that of all
        if is_filtered or len(this.ids) >= expected:
            return this.ending is Ending.PROVEN or is_same
        if is_same:
            self._warn(
                f"Envoy reports {expected} rows, but returns {len(this.ids)}; perhaps the others "
                "are hidden from this API user."
            )
        return is_same

    def _new(self, part: Slice, page: Page, emitted: set[str]) -> list[Record]:
        """Return the rows that were not emitted yet and are not older than the range."""
        rows = [
            record
            for record in page.records
            if not any(record["id"] in ids for ids in self._recent)
        ]
        emitted.update(page.ids)
        times = [part.slicer.times(row) for row in rows]
        self._latest = max(self._latest, *(time[0] for time in times if time), "")
        if part.start and not part.params:
            start = format_timestamp(part.start - OVERLAP)
            rows = [r for r, time in zip(rows, times, strict=True) if not time or time[1] >= start]
        return rows


def _cut_off(last: Pass) -> str:
    reason = last.rejection.detail if last.rejection else ""
    return (
        f"Envoy returned {len(last.ids):,} rows of a list that may have more{reason}; report this "
        "to the maintainers of the tap."
    )
