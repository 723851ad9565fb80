"""How a list is read to its end: by overlapping pages.

A row that is deleted while a list is read moves all later rows up, so that plain pages miss one.
Overlapping pages show this: each page after the first must begin with a row that is known already.
A pass in which every page does so has missed no row that stayed, whatever was inserted or deleted
between its requests. Let x be a row that was missed, and q the first page that begins after x. The
pages before q end before x, so all that is known lies before x; but q begins with a known row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_envoy.exceptions import RequestRejectedError
    from tap_envoy.prefetch import PrefetchPool
    from tap_envoy.records import Record

MIN_SIZE = 3
"""Rows of a page from which on pages can overlap."""

ROW_CAP = 10_000
"""Rows beyond which Envoy may return nothing (documented for invites, where it says so)."""

INFINITE = 10**9
"""More rows than any list has."""

USUAL_LIMITS = {10, 20, 25, 30, 50, 100, 200, 250, 500, 1000}
"""Rows to which servers limit a response; any other number is the whole list (inferred)."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to request.

    Attributes:
        number: The page, counted from 1.
        size: Rows to ask for.
    """

    number: int
    size: int

    @property
    def end(self) -> int:
        """Rows of the list up to the end of this page."""
        return self.number * self.size


@dataclass(frozen=True, slots=True)
class Page:
    """A response of a list endpoint.

    Attributes:
        records: The rows, each with an `id`.
        total: Rows of the list according to `meta.total`; a hint at best.
        rejection: Why Envoy rejected the request, if it did.
    """

    records: list[Record]
    total: int | None = None
    rejection: RequestRejectedError | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of the rows."""
        return [record["id"] for record in self.records]


def plain_pages(size: int, max_rows: int | None) -> Iterator[PageRequest]:
    """Yield the pages after the first, side by side, up to `max_rows` rows."""
    page = PageRequest(2, size)
    while max_rows is None or page.end <= max_rows:
        yield page
        page = PageRequest(page.number + 1, size)


def overlapping_pages(size: int, max_rows: int | None) -> Iterator[PageRequest]:
    """Yield the pages after the first, each beginning before the end of the last.

    Of all pages of half as many to as many rows, the next is the one that reaches furthest. For
    100 rows: (2, 99), (3, 98), … (10, 91), (10, 100), …: about 14 % more requests than plain pages.

    Args:
        size: Rows of the first page.
        max_rows: Rows that no page may reach beyond, if there is a limit.
    """
    end = size
    while True:
        sizes = range(max(1, size // 2), size + 1)
        pages = [PageRequest((end - 1) // rows + 1, rows) for rows in sizes]
        # For a few rows there are ends at which all pages end: one page then lies beside the last.
        pages = [page for page in pages if page.end > end] or [PageRequest(end // size + 1, size)]
        pages = [page for page in pages if page.end <= (max_rows or page.end)]
        if not pages:
            return
        page = max(pages, key=lambda page: (page.end, page.size))
        yield page
        end = page.end


class Ending(Enum):
    """How a pass ended."""

    PROVEN = auto()  # at the end of the list, and no row is missing
    UNPROVEN = auto()  # at the end of the list, but rows may be missing
    CUT_OFF = auto()  # before the end of the list: Envoy returns no more rows


@dataclass(slots=True)
class Pages:
    """What is known of how an endpoint serves pages; corrected by each response.

    Attributes:
        size: Rows to ask for; None leaves it to Envoy.
        are_numbered: Whether the endpoint accepts `page`.
        largest: Rows of the largest page so far: fewer are the end of a list.
        can_overlap: Whether the endpoint serves pages of any size.
    """

    size: int | None
    are_numbered: bool = True
    largest: int = 1
    can_overlap: bool = True

    @property
    def first(self) -> PageRequest:
        """The first page of a list."""
        return PageRequest(1, self.size or 0)


@dataclass(slots=True)
class Pass:
    """One pass over a list: iterate over it for its pages, then see how it ended.

    Attributes:
        first: The response to the first page.
        pages: What is known of the endpoint's pages.
        fetch: Requests a page.
        pool: Requests pages ahead.
        max_rows: Rows that no page may reach beyond, if there is a limit.
        ids: Ids of the rows so far.
        times: When they begin, for the reader's use.
        total: The newest `total`.
        ending: How it ended.
        overlaps: Whether each page begins before the end of the last.
        is_disordered: Whether rows changed places between two requests.
        rejection: Why Envoy rejected the last page, if it did.
    """

    first: Page
    pages: Pages
    fetch: Callable[[PageRequest], Page]
    pool: PrefetchPool
    max_rows: int | None
    ids: set[str] = field(default_factory=set)
    times: list[str] = field(default_factory=list)
    total: int | None = None
    ending: Ending = Ending.PROVEN
    overlaps: bool = False
    is_disordered: bool = False
    rejection: RequestRejectedError | None = None
    _last: str = ""
    _received: int = 0
    _end: int = 0

    def __iter__(self) -> Iterator[Page]:
        """Yield the pages until the list ends, or Envoy returns no more."""
        first, pages, size = self.first, self.pages, len(self.first.records)
        self._take(first, first.ids, size)
        yield first
        if not size or self._is_surely_whole(size):
            return
        pages.largest = max(pages.largest, size)
        if not pages.are_numbered:
            return self._end_unpaged()
        self.overlaps = pages.can_overlap and MIN_SIZE <= size <= (pages.size or 0)
        plan = (overlapping_pages if self.overlaps else plain_pages)(size, self.max_rows)
        self.ending = Ending.CUT_OFF  # unless the list ends before the plan
        is_proven, was_short = self.overlaps, False
        for request, page in self.pool.ahead(self.fetch, plan, self._worth_requesting):
            if page.rejection is not None:
                return self._end_rejected(page.rejection, was_short=was_short, is_proven=is_proven)
            if self._received == 1 and page.ids[:1] == first.ids[:1]:
                return self._end_unpaged()
            last, rows = self._last, len(page.records)
            pages.can_overlap &= rows <= request.size
            overlap = self._take(page, page.ids, request.end)
            yield page
            has_new, is_short = overlap < rows, rows < request.size
            # Its known rows end with the last row taken, or nothing follows a short page.
            joins = page.ids[overlap - 1] == last if overlap else was_short and not rows
            is_proven &= joins and not self.is_disordered and (has_new or is_short)
            if not has_new or (is_short and len(self.ids) >= (self.total or INFINITE)):
                return self._end_with_list(is_proven=is_proven)
            was_short = is_short
        return None

    def _is_surely_whole(self, size: int) -> bool:
        """Return whether the first page, much shorter than others were, is the whole list."""
        if self.total is None:
            return size <= self.pages.largest // 2
        return size >= self.total and size < self.pages.largest

    def _take(self, page: Page, ids: list[str], end: int) -> int:
        """Take in a page; return how many rows at its beginning were known."""
        overlap = next((n for n, key in enumerate(ids) if key not in self.ids), len(ids))
        self.is_disordered |= not self.ids.isdisjoint(ids[overlap:])
        self.ids.update(ids)
        if overlap < len(ids):
            self._last = ids[-1]
        self.total = page.total
        self._received += 1
        self._end = max(self._end, end)
        return overlap

    def _end_with_list(self, *, is_proven: bool) -> None:
        """End at what looks like the end of the list, or of what Envoy returns of one."""
        is_told = self.total is not None and len(self.ids) >= self.total
        at_cap = 0 <= ROW_CAP - len(self.ids) < len(self.first.records)
        self.ending = Ending.PROVEN if is_proven else Ending.UNPROVEN
        if at_cap and (not is_told or self.total == ROW_CAP):
            self.ending = Ending.CUT_OFF

    def _end_unpaged(self) -> None:
        """End with the first response: the list, or as much of it as can be read."""
        rows, limits = len(self.ids), {*USUAL_LIMITS, self.pages.size}
        is_whole = rows not in limits if self.total is None else rows >= self.total
        self.ending = Ending.PROVEN if is_whole else Ending.CUT_OFF

    def _end_rejected(
        self, rejection: RequestRejectedError, *, was_short: bool, is_proven: bool
    ) -> None:
        """End at a page that Envoy rejects: past the end of the list, or too deep."""
        self.rejection = rejection
        self.pages.can_overlap &= self._received > 1  # perhaps it does not accept the size
        is_only = self._received == 1 and len(self.first.records) < (self.pages.size or 0)
        is_missing = is_only or rejection.status == HTTPStatus.NOT_FOUND
        if was_short or (is_missing and not self.overlaps):
            self._end_with_list(is_proven=is_proven)

    def _worth_requesting(self) -> int:
        """Return how many pages to request ahead: those that are left, or as many as came."""
        if self.total is None:
            return self._received
        return -(-(self.total - self._end) // len(self.first.records))
