"""One pass over a list: overlapping pages, and what they prove.

A row that is deleted while a list is read moves all later rows up, so that plain pages miss one.
Overlapping pages show this: each page after the first must begin with a row that is known already.
A pass in which every page does so has missed no row that kept its place among the others, whatever
was inserted or deleted between its requests. Let x be a row that was missed, and q the first page
that begins after x. The pages before q end before x, so all that is known lies before x; but q
begins with a known row. A row that moved to the end is on the last page, which is answered last.
Of one that moved to the front, or from one page under way to another, only the total tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count, pairwise, takewhile
from typing import TYPE_CHECKING

from tap_envoy.exceptions import EnvoyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_envoy.exceptions import RequestRejectedError
    from tap_envoy.prefetch import PrefetchPool
    from tap_envoy.records import Record

MAX_DEPTH = 10_000
"""Rows of a list beyond which Envoy may return none (documented for invites)."""

COMMON_LIMITS = {10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200, 250, 300, 500, 1000}
"""Rows to which servers limit a response; any other number is a whole list (inferred)."""

SECONDS_PER_PAGE = 0.02
"""Seconds of a response, with its wait for the rate limit, for which one page more is requested
ahead: where responses are fast, more threads would only delay each other."""


class DepthLimitError(EnvoyError):
    """Raised if Envoy returns no more rows of a list that may have more.

    Attributes:
        rows: How many it returned; 0 if the list was not read, as its total shows that it is long.
    """

    def __init__(self, rows: int, rejection: RequestRejectedError | None = None) -> None:
        self.rows = rows
        reason = rejection.detail if rejection else ""
        super().__init__(
            f"Envoy returned {rows:,} rows of a list that may have more{reason}; report this to "
            "the maintainers of the tap."
        )


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to request."""

    number: int  # counted from 1
    size: int  # rows to ask for

    @property
    def end(self) -> int:
        """Rows of the list up to the end of this page."""
        return self.number * self.size


@dataclass(frozen=True, slots=True)
class Page:
    """A response of a list endpoint."""

    records: list[Record]  # each with an `id`
    total: int | None = None  # rows of the list according to `meta.total`, if Envoy sends it
    rejection: RequestRejectedError | None = None  # why Envoy rejected the request, if it did

    @property
    def ids(self) -> list[str]:
        """The ids of the rows."""
        return [record["id"] for record in self.records]


@dataclass(slots=True)
class Paging:
    """How an endpoint serves pages, as far as its responses have shown.

    Attributes:
        size: Rows to ask for on a first page.
        can_overlap: Whether it serves pages of any size up to that.
        largest: Rows of the largest first page; at first, fewer than any server has on a page.
    """

    size: int
    can_overlap: bool = True
    largest: int = 8


def plain_pages(size: int, max_rows: int | None) -> Iterator[PageRequest]:
    """Yield the pages after the first, side by side, up to `max_rows` rows of the list."""
    for number in count(2):
        if max_rows is not None and number * size > max_rows:
            return
        yield PageRequest(number, size)


def overlapping_pages(size: int, max_rows: int | None) -> Iterator[PageRequest]:
    """Yield the pages after the first, each beginning before the end of the last.

    Of all pages of half as many to as many rows, the next is the one that reaches furthest. For
    100 rows: (2, 99), (3, 98), … (10, 91), (10, 100), …: about 14 % more requests than plain pages.
    """
    end = size
    while True:
        sizes = range(max(1, size // 2), size + 1)
        pages = [PageRequest((end - 1) // rows + 1, rows) for rows in sizes]
        # Up to ten rows, there are ends at which pages of every size end: the next is beside it.
        pages = [page for page in pages if page.end > end] or [PageRequest(end // size + 1, size)]
        pages = [page for page in pages if max_rows is None or page.end <= max_rows]
        if not pages:
            return
        page = max(pages, key=lambda page: (page.end, page.size))
        yield page
        end = page.end


class Proof(Enum):
    """What a pass proves."""

    COMPLETE = auto()  # no row is missing that was in the list throughout
    UNCONFIRMED = auto()  # the same, if another pass has the same rows
    TORN = auto()  # nothing: rows have moved, or it was not finished


@dataclass(slots=True)
class Pass:
    """One pass over a list.

    Attributes:
        paging: How the endpoint serves pages; updated.
        fetch: Requests a page.
        pool: Requests pages ahead.
        max_rows: Rows of the list that no page may reach beyond; None for no limit.
        ids: Ids of the rows so far.
        totals: The total in each response, in the order in which they came.
        proof: What the pass proves, once it is finished.
    """

    paging: Paging
    fetch: Callable[[PageRequest], Page]
    pool: PrefetchPool
    max_rows: int | None
    ids: set[str] = field(default_factory=set)
    totals: list[int | None] = field(default_factory=list)
    proof: Proof = Proof.TORN

    @property
    def total(self) -> int | None:
        """The newest total, if Envoy sends one."""
        return self.totals[-1]

    @property
    def expected(self) -> int:
        """Rows that the pass must have: the newest total, and what was deleted meanwhile."""
        totals = [total or 0 for total in self.totals]
        return totals[-1] + sum(max(0, before - after) for before, after in pairwise(totals))

    def read(self, first: Page) -> Iterator[Page]:
        """Yield the pages of the list, the first of which was requested already.

        Raises:
            DepthLimitError: If Envoy returns no more rows of a list that may have more.
        """
        if self.max_rows is not None and (first.total or 0) > self.max_rows:
            raise DepthLimitError(0)
        self.totals.append(first.total)
        self.ids.update(first.ids)
        yield first
        size = len(first.records)
        is_much_shorter = size <= self.paging.largest // 4
        is_all = is_much_shorter if first.total is None else first.total == size < self.paging.size
        if not size or is_all:
            self.proof = Proof.COMPLETE
            return
        self.paging.largest = max(self.paging.largest, size)
        if self.paging.can_overlap and size <= self.paging.size:
            yield from self._read_overlapping(first)
        else:
            yield from self._read_plain(first)

    def _read_overlapping(self, first: Page) -> Iterator[Page]:
        """Yield the pages after the first, while each begins with the last of the known rows."""
        size = len(first.records)
        last_id, tail = first.ids[-1], PageRequest(1, size)
        had_new = True
        was_short = size < 3  # noqa: PLR2004  # too few rows for the next page to begin within
        for request, page in self._pages_after(first, overlapping_pages(size, self.max_rows)):
            if len(page.records) > request.size or (page.rejection and tail.number == 1):
                self.paging.can_overlap = False  # it does not serve pages of this size
                return
            if page.rejection:
                raise DepthLimitError(len(self.ids), page.rejection)
            ids = page.ids
            known = list(takewhile(self.ids.__contains__, ids))
            joins = known[-1:] == [last_id] and self.ids.isdisjoint(ids[len(known) :])
            has_new, is_short = len(known) < len(ids), len(ids) < request.size
            self.ids.update(ids)
            yield page
            is_end = was_short and not ids
            if not is_end:
                if not joins or not (has_new or is_short):
                    return  # torn: rows have moved
                last_id, was_short, tail = ids[-1], is_short, request
                is_end = is_short and self._is_last(request.end)
            if is_end or not (has_new or had_new):
                break
            had_new = has_new  # one page may have none, if its last rows are hidden
        else:
            return
        # Unless it was requested after all others, the last page may have been answered before a
        # row moved from another page to the end.
        was_last = self._is_last(tail.end) and len({*self.totals}) == 1
        if was_last or self.ids.issuperset(self._fetch(tail).ids):
            self._finish(Proof.COMPLETE, request, request.size)

    def _read_plain(self, first: Page) -> Iterator[Page]:
        """Yield the pages after the first, while none has a row that is known already."""
        size = len(first.records)
        for request, page in self._pages_after(first, plain_pages(self.paging.size, self.max_rows)):
            if page.rejection:
                raise DepthLimitError(len(self.ids), page.rejection)
            if not self.ids.isdisjoint(page.ids):
                return  # torn: rows have moved
            self.ids.update(page.ids)
            yield page
            size = max(size, len(page.ids))
            if not page.ids or (len(page.ids) < size and self._is_last(request.number * size)):
                self._finish(Proof.UNCONFIRMED, request, size)
                return

    def _pages_after(
        self, first: Page, plan: Iterator[PageRequest]
    ) -> Iterator[tuple[PageRequest, Page]]:
        """Yield the planned pages; none if the second is the first again, which is the list.

        The last one, as far as the total tells, is requested after all others are answered.
        """
        size = len(first.records)
        ahead = self.pool.ahead(self._fetch, plan, lambda: self._pages_ahead(size))
        for number, (request, page) in enumerate(ahead):
            if number == 0 and page.ids[:2] == first.ids[:2]:
                asked = self.paging.size  # some of as many rows may be hidden
                is_limit = size in COMMON_LIMITS or 0.9 * asked <= size <= asked
                if is_limit if self.total is None else size < self.total:
                    break
                self.proof = Proof.COMPLETE
                return
            yield request, page
        raise DepthLimitError(len(self.ids))

    def _finish(self, proof: Proof, last: PageRequest, size: int) -> None:
        """Set what the pass proves, unless a cap, beyond which pages are empty, looks the same."""
        is_near_cap = (last.number - 2) * size <= MAX_DEPTH <= last.number * max(last.size, size)
        is_confirmed = self.total not in {None, MAX_DEPTH} and len(self.ids) >= (self.total or 0)
        if is_near_cap and not is_confirmed:
            raise DepthLimitError(len(self.ids))
        self.proof = proof

    def _is_last(self, end: int) -> bool:
        return self.total is not None and end >= self.total

    def _fetch(self, request: PageRequest) -> Page:
        page = self.fetch(request)
        if not page.rejection:
            self.totals.append(page.total)
        return page

    def _pages_ahead(self, size: int) -> int:
        """Return how many pages to request ahead: those left but the last, or as many as came."""
        rows = len(self.ids) if self.total is None else self.total - len(self.ids) - size
        return min(-(-rows // size), 1 + int(self.pool.latency / SECONDS_PER_PAGE))
