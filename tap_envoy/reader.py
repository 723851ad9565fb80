"""How a stream is read: slice by slice, in passes, without parameters that Envoy rejects."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from functools import partial
from http import HTTPStatus
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Any

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import MAX_DEPTH, DepthLimitError, Page, PageRequest, Paging, Pass, Proof
from tap_envoy.records import format_timestamp
from tap_envoy.slices import OVERLAP, TOLERANCE, FilterUnusableError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from tap_envoy.prefetch import PrefetchPool
    from tap_envoy.records import Record
    from tap_envoy.slices import Slice, Slicer, TimeRange

MAX_PASSES = 20
"""Passes over a slice, after which a list that keeps changing fails."""

MAX_REMEMBERED = 2 * MAX_DEPTH
"""Ids above which those are forgotten that no later slice should contain."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a response that were not emitted before."""

    records: list[Record]
    bookmark: str | None = None  # the time before which no row is missing, if that is known
    total: int | None = None  # rows of the slice, if that is known


@dataclass
class StreamReader:
    """Reads all rows of a stream, each of them once.

    Attributes:
        slicer: How the stream is divided.
        sort_params: Query parameters that ask for an order.
        page_size: Rows to ask for on a page.
        fetch: Requests a page with these query parameters; called in several threads.
        pool: Requests pages ahead.
        warn: Takes a warning for the user.
    """

    slicer: Slicer
    sort_params: Mapping[str, str]
    page_size: InitVar[int]
    fetch: Callable[[dict[str, Any]], Page]
    pool: PrefetchPool
    warn: Callable[[str], None]

    def __post_init__(self, page_size: int) -> None:
        self._paging = Paging(page_size)
        self._rejected: frozenset[str] = frozenset()  # parameters
        self._total_ignores_filter = False
        self._emitted: dict[str, str] = {}  # ids that may come again, with the end of each row
        self._latest = ""

    def read(self, time_range: TimeRange) -> Iterator[Batch]:
        """Yield the rows as they come, and bookmarks between the slices.

        Raises:
            EnvoyError: If the stream cannot be read completely.
        """
        try:
            for part, first in self._first_pages(self.slicer.slices(time_range)):
                if part.variant and first.rejection:
                    self.warn(f"Envoy rejected {part.description}; reading without.")
                else:
                    yield from self._read_slice(part, first)
        except FilterUnusableError as error:
            if self.slicer.max_window:
                raise EnvoyError(f"{error}, without which it returns only some rows.") from None
            self.warn(f"{error}; reading the whole list.")
            part = self.slicer.whole(time_range.start)
            yield from self._read_slice(part, self._first_page(part))
        if self._latest:
            yield Batch([], self._latest)

    # Requests

    def _first_pages(self, slices: Iterator[Slice]) -> Iterator[tuple[Slice, Page]]:
        """Yield each slice with its first page; the first slice shows which parameters work."""
        yield from self.pool.ahead(self._negotiate, islice(slices, 1))
        yield from self.pool.ahead(self._first_page, slices)

    def _negotiate(self, part: Slice) -> Page:
        """Return the first page of a slice, with as many parameters as Envoy accepts."""
        first = self._first_page(part)
        if first.rejection is None or first.rejection.status == HTTPStatus.NOT_FOUND:
            return first
        groups = [*filter(None, ([*self.sort_params], [*part.params], ["perPage"], ["page"]))]
        for chosen in chain(*(combinations(groups, n) for n in range(1, len(groups) + 1))):
            self._rejected = frozenset(names := [*chain(*chosen)])
            page = self._first_page(part)
            if page.rejection is None:
                message = f"Envoy rejected {shown(names)}{first.rejection.detail}"
                if not self._rejected.isdisjoint(part.params):
                    raise FilterUnusableError(message)
                self.warn(f"{message}; reading without.")
                return page
        return first

    def _first_page(self, part: Slice) -> Page:
        return self._request(part, PageRequest(1, self._paging.size))

    def _request(self, part: Slice, request: PageRequest) -> Page:
        params: dict[str, Any] = {**self.sort_params, **part.params}
        params |= {"page": request.number, "perPage": request.size}
        try:
            page = self.fetch({k: v for k, v in params.items() if k not in self._rejected})
        except RequestRejectedError as error:
            return Page([], rejection=error)
        return replace(page, total=None) if self._total_ignores_filter and part.params else page

    # Slices

    def _read_slice(self, part: Slice, first: Page) -> Iterator[Batch]:
        """Yield the rows of a slice, or of its halves if it is too deep, oldest first."""
        unread = [(part, first)]
        while unread:
            part, first = unread.pop()
            if part.start:
                yield from self._advance(part.start)
            try:
                yield from self._read_passes(part, first)
            except DepthLimitError as error:
                if part.max_rows is None:
                    raise
                halves = part.halves(self._emitted.values() if error.rows else ())
                unread += reversed(self._divide(part, first.total, halves))

    def _advance(self, start: datetime) -> Iterator[Batch]:
        """Yield a bookmark before a slice, and forget rows that it cannot contain."""
        if len(self._emitted) > MAX_REMEMBERED:
            earliest = format_timestamp(start - TOLERANCE)
            kept = {key: end for key, end in self._emitted.items() if not end or end >= earliest}
            self._emitted = kept
        if self._latest:
            yield Batch([], min(self._latest, format_timestamp(start)))

    def _divide(
        self, part: Slice, total: int | None, halves: list[Slice]
    ) -> list[tuple[Slice, Page]]:
        """Return what to read instead of a slice that is too deep, with first pages.

        These are its halves, if Envoy accepts their filters and they hold all rows of the slice.
        Otherwise it is the slice again, now without regard to its total or its depth.
        """
        firsts = [self._first_page(half) for half in halves]
        as_deep_as_possible = replace(part, max_rows=None)
        if not halves or any(page.rejection for page in firsts):
            return [(as_deep_as_possible, self._first_page(part))]
        for half, page in zip(halves, firsts, strict=True):
            half.check_filter(page.records)
        totals = [page.total for page in firsts if page.total is not None]
        if total not in {None, MAX_DEPTH} and len(totals) == len(halves):
            if min(totals) >= total:
                self._total_ignores_filter = True
                return [(part, self._first_page(part))]
            if sum(totals) < total:
                first = self._first_page(part)
                if sum(totals) < (first.total or 0):  # rows without a time are in neither half
                    return [(as_deep_as_possible, first)]
        return [*zip(halves, firsts, strict=True)]

    # Passes

    def _read_passes(self, part: Slice, first: Page) -> Iterator[Batch]:
        """Yield the rows of a slice, in as many passes as it takes until none is missing."""
        previous, emitted_before = None, len(self._emitted)
        for _ in range(MAX_PASSES):
            emitted = len(self._emitted)
            this = Pass(self._paging, partial(self._request, part), self.pool, part.max_rows)
            try:
                yield from self._read_pass(part, this, first)
            except DepthLimitError:
                if part.max_rows or len(self._emitted) == emitted:
                    raise
                # Else the list may have shrunk: read it once more.
            if _is_complete(this, previous):
                self._check_total(part, this)
                if part.variant and this.ids and len(self._emitted) == emitted_before:
                    self.warn(f"Envoy ignores {part.description}; such rows may be missing.")
                return
            if previous and previous.proof is this.proof is Proof.TORN:
                # Perhaps pages are not as long as requested; this holds for the rest of the stream.
                self._paging.can_overlap = False
            previous, first = this, self._first_page(part)
        raise EnvoyError("The list kept changing while it was read; run again later.")

    def _read_pass(self, part: Slice, this: Pass, first: Page) -> Iterator[Batch]:
        """Yield the rows of one pass that were not emitted yet."""
        if first.rejection:
            raise first.rejection
        for page in this.read(first):
            part.check_filter(page.records)
            yield Batch(self._new_rows(part, page), total=this.total)

    def _new_rows(self, part: Slice, page: Page) -> list[Record]:
        """Return the rows that were not emitted yet and are not older than the slice."""
        is_filtered = bool(part.params)
        earliest = format_timestamp(part.start - OVERLAP) if part.start else ""
        rows, emitted = [], self._emitted
        for record in page.records:
            if record["id"] not in emitted:
                begin, end = part.slicer.times(record)
                self._latest = max(self._latest, begin)
                emitted[record["id"]] = end
                if is_filtered or not end or end >= earliest:
                    rows.append(record)
        return rows

    def _check_total(self, part: Slice, this: Pass) -> None:
        """Find out why a complete slice has fewer rows than its total."""
        if this.total is None or len(this.ids) >= this.total:
            return
        if part.params:
            whole = self._first_page(self.slicer.whole(None))
            self._total_ignores_filter = whole.total == this.total
        if not self._total_ignores_filter:
            self.warn(
                f"Envoy reports {this.total} rows, but returns {len(this.ids)}; perhaps these "
                "credentials may not see the others."
            )


def _is_complete(this: Pass, previous: Pass | None) -> bool:
    """Return whether a pass, with the one before it, shows that no row is missing."""
    if this.proof is Proof.TORN:
        return False
    is_same = previous is not None and previous.proof is this.proof and previous.ids == this.ids
    return is_same or (this.proof is Proof.COMPLETE and len(this.ids) >= this.expected)
