"""How one slice is read to its end: by overlapping pages, in passes.

A row that is deleted while a list is read moves all later rows up, so that plain pages miss one.
Overlapping pages show this: each page after the first must begin with rows that are already known.
A pass in which every page does so has missed no row that stayed, whatever was inserted or deleted
between its requests, and in whatever order they were answered. Let x be a row that was missed, and
q the first page that begins after x. The pages before q end before x, so all that is known lies
before x; but q begins with a known row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING

from tap_envoy.exceptions import EnvoyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tap_envoy.exceptions import RequestRejectedError
    from tap_envoy.records import Record

NUMBERING_MARGIN = 13
"""More rows than are deleted between the first two requests (inferred)."""

TAIL = 400
"""Rows of which the order is remembered: more than two pages."""

MAX_FRUITLESS_PASSES = 5
"""Consecutive passes that bring no new row and still do not settle the slice."""

MAX_UNSTABLE_PASSES = 15
"""The same where the order is not stable."""

PASSES_TO_CUT_SHORT = 2
"""Passes that end at the first gap; later ones read on, to collect rows in an unstable order."""

MAX_PASSES = 30
"""Passes over one slice in all."""

SMALLEST_LIMIT = 2
"""Rows: no server limits its pages to so few (inferred), so a first page of these is the list."""

TOTAL_CAP = 10_000
"""A `total` of exactly this may mean "or more" (inferred). If it does not, nothing is lost."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to request.

    Attributes:
        number: The page, counted from 1; 0 asks whether the server counts from 0.
        per_page: Rows asked for.
    """

    number: int
    per_page: int

    @property
    def start(self) -> int:
        """Rows of the list before this page."""
        return (self.number - 1) * self.per_page

    @property
    def end(self) -> int:
        """Rows of the list up to the end of this page."""
        return self.number * self.per_page


@dataclass(frozen=True, slots=True)
class Page:
    """A response of a list endpoint.

    Attributes:
        records: The rows, each with an `id`.
        total: Rows of the whole list, according to `meta.total`.
        rejection: Envoy's rejection of a page after the first, if there was one.
    """

    records: list[Record]
    total: int | None = None
    rejection: RequestRejectedError | None = None


@dataclass(slots=True)
class EndpointBehavior:
    """What is known of how an endpoint serves pages. All slices of a stream share one.

    It begins with what is documented, and is corrected by what comes.

    Attributes:
        page_size: Rows to ask for.
        is_paged: False if the endpoint accepts no page parameter: one response is all there is.
        first_page: Number of the first page, 0 or 1; None until it is proven.
        can_overlap: False if the endpoint serves pages of one size, whatever is asked for.
        largest_page: Rows of the largest page so far: fewer are not a full page.
        has_credible_total: False once the rows contradicted `total`.
    """

    page_size: int
    is_paged: bool = True
    first_page: int | None = None
    can_overlap: bool = True
    largest_page: int = 0
    has_credible_total: bool = True


@dataclass(frozen=True, slots=True)
class Probes:
    """Requests that tell what the pages of a slice leave open; each is None if it cannot.

    Attributes:
        count_others: Returns the `total` that comes with a filter for other rows.
        reversed_ids: Returns the ids of the first page in descending order.
        first_row: Returns a page of one row.
    """

    count_others: Callable[[], int | None] | None = None
    reversed_ids: Callable[[], list[str]] | None = None
    first_row: Callable[[], Page] | None = None


class Verdict(Enum):
    """What a page means for the pass."""

    CONTINUE = auto()
    END = auto()
    WHOLE = auto()  # one response held the whole list
    TORN = auto()  # rows may have been missed before this page
    TOO_DEEP = auto()
    CHECK_NUMBERING = auto()


@dataclass(slots=True)
class Pass:
    """One pass over a slice.

    Attributes:
        plan: The pages to request.
        allowed: How many pages may be requested for now.
        requested: Pages requested.
        pages: Pages received.
        size: Rows of a full page.
        end: Rows of the list that the pages so far reach.
        first_ids: Ids of the first page.
        tail: Ids of the last rows, in the order of the list.
        ids: Ids of all rows.
        new: Rows that no pass before brought.
        total: The newest `total`.
        is_overlapping: Whether each page begins within the one before it.
        has_gap: Whether a page did not continue the one before it.
        has_hole: Whether such a page had rows.
        is_disordered: Whether rows changed places.
        is_complete: Whether the pass reached the end of the list.
        repeats_first: Whether the second page was the first one again.
        is_single_response: Whether one response is all that can be read.
        splits_time: Whether a page began between rows of one time, which may change places.
        was_short: Whether the newest page is short, and the next one shows whether it is the last.
    """

    plan: Iterator[PageRequest]
    allowed: int = 1
    requested: int = 0
    pages: int = 0
    size: int = 0
    end: int = 0
    first_ids: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    new: int = 0
    total: int | None = None
    is_overlapping: bool = False
    has_gap: bool = False
    has_hole: bool = False
    is_disordered: bool = False
    is_complete: bool = False
    repeats_first: bool = False
    is_single_response: bool = False
    splits_time: bool = False
    was_short: bool = False

    @property
    def is_second(self) -> bool:
        """Whether the newest page is the second one."""
        return self.pages == 2  # noqa: PLR2004


def plain_pages(per_page: int, max_depth: int | None) -> Iterator[PageRequest]:
    """Yield the pages after the first, side by side."""
    page = PageRequest(2, per_page)
    while max_depth is None or page.end <= max_depth:
        yield page
        page = PageRequest(page.number + 1, per_page)


def overlapping_pages(
    size: int, end: int, max_depth: int | None, *, min_gain: int = 1
) -> Iterator[PageRequest]:
    """Yield the pages after row `end`, each beginning before the end of the last.

    Of all pages of half as many to as many rows, the next is the one that reaches furthest. For
    100 rows: (2, 99), (3, 98), … (10, 91), (10, 100), …: about 14 % more requests than plain
    pages. Ends where no page of these sizes overlaps and reaches further.

    Args:
        size: Rows of a full page.
        end: Rows that the pages so far reach.
        max_depth: Rows that no page may reach beyond.
        min_gain: Rows that the last page before `max_depth` must add at least.
    """
    sizes = range(max(1, size // 2), size + 1)
    while True:
        limit = end + size if max_depth is None else max_depth
        reach = (((end - 1) // rows + 1) * rows for rows in sizes)
        further = [
            (last, last_size)
            for last, last_size in zip(reach, sizes, strict=True)
            if end < last <= limit
        ]
        best, per_page = max(further, default=(end, size))
        if best == end or (limit - end < size and best - end < min_gain):
            return
        yield PageRequest(best // per_page, per_page)
        end = best


class SlicePaginator:
    """Decides which page of a slice to request next, and when the slice is complete.

    It makes no request. Ask `next_page`, and pass the responses to `advance` in the same order.

    Attributes:
        pending: The requests under way, for the reader's use; emptied when a pass is abandoned.
        is_settled: Whether no row is missing, as far as that can be proven.
        is_too_deep: Whether the list goes on beyond the depth that may be requested.
        is_torn: Whether the pass missed rows, or may have.
        can_continue: Whether what came before the last page is complete, so that a slice that
            begins there can follow; set where the pass is torn or too deep.
        rejection: Envoy's last rejection of a page after the first, if there was one.
        ids: Ids of all rows so far.
    """

    def __init__(
        self,
        behavior: EndpointBehavior,
        *,
        max_depth: int | None = None,
        time_field: str | None = None,
        probes: Probes | None = None,
    ) -> None:
        """Begin the first pass.

        Args:
            behavior: What is known of the endpoint; it is updated.
            max_depth: Rows that page x perPage must not exceed; None if there is no such limit.
            time_field: The property by which the rows are sorted, if they are.
            probes: Other requests for the slice that may be made.
        """
        self._behavior = behavior
        self._max_depth = max_depth
        self._time_field = time_field
        self._probes = probes or Probes()
        self._confirmed: set[str] = set()
        self._confirmed_total: int | None = None
        self._has_checked_numbering = False
        self._overlaps = True
        self._pass = self._new_pass()
        self._previous: Pass | None = None
        self._passes = 1
        self._fruitless = 0
        self.ids: set[str] = set()
        self.pending: deque[tuple[PageRequest, Future[Page]]] = deque()
        self.is_settled = self.is_too_deep = self.is_torn = self.can_continue = False
        self.rejection: RequestRejectedError | None = None

    @property
    def is_done(self) -> bool:
        """Whether the pass needs no further page."""
        return self.is_settled or self.is_too_deep or self.is_torn

    @property
    def total(self) -> int | None:
        """Rows of the slice, if `total` is credible."""
        return self._pass.total if self._behavior.has_credible_total else None

    @property
    def is_overlapping(self) -> bool:
        """Whether each page of this pass begins within the one before it."""
        return self._pass.is_overlapping

    @property
    def is_complete_so_far(self) -> bool:
        """Whether no row before the end of the newest page is missing, as far as can be proven."""
        current = self._pass
        is_in_doubt = current.has_gap or current.is_disordered or current.splits_time
        return current.is_overlapping and not is_in_doubt and not self.is_torn

    @property
    def repeats_first(self) -> bool:
        """Whether the newest page is the first one again."""
        return self._pass.repeats_first

    @property
    def first_id(self) -> str | None:
        """The id of the first row."""
        return self._pass.first_ids[0] if self._pass.first_ids else None

    @property
    def last_id(self) -> str | None:
        """The id of the last row of the list, as far as it was read."""
        return self._pass.tail[-1] if self._pass.tail else None

    def next_page(self) -> PageRequest | None:
        """Return the next page to request, or None until a response tells more."""
        current = self._pass
        if self.is_done or current.requested >= current.allowed:
            return None
        page = next(current.plan, None)
        if page is not None:
            current.requested += 1
        elif current.requested == current.pages:
            self._run_out_of_pages()
        return page

    def advance(self, request: PageRequest, page: Page) -> list[Record]:
        """Take in the response to a page.

        Returns:
            The rows that no response before brought.

        Raises:
            EnvoyError: If the slice cannot be read completely.
        """
        if request.number == 0:
            return self._note_numbering(page)
        current = self._pass
        current.pages += 1
        ids = [record["id"] for record in page.records]
        verdict = self._judge(request, page, ids)
        new = self._collect(page, ids)
        match verdict:
            case Verdict.CONTINUE:
                self._plan(request)
            case Verdict.WHOLE:
                self._end_single_response()
            case Verdict.END:
                current.is_complete = True
                if self._ends_at_cap():
                    self._stop_short()
                else:
                    self.is_settled = self._is_proven()
                    self.is_torn = not self.is_settled
            case Verdict.TORN:
                current.has_gap = self.is_torn = True
                self.can_continue = not current.is_disordered
            case Verdict.TOO_DEEP:
                self._stop_short()
            case Verdict.CHECK_NUMBERING:
                self._abandon()
                current.plan = iter([PageRequest(0, self._behavior.page_size)])
                current.requested, current.allowed = 0, 1
        return new

    def restart(self) -> None:
        """Begin another pass.

        Raises:
            EnvoyError: If there were too many.
        """
        last = self._pass
        # Torn at the second page twice: perhaps pages are of one size, whatever is asked for.
        if last.is_overlapping and last.is_second and self._passes > 1:
            self._overlaps = False
        self._fruitless = 0 if last.new else self._fruitless + 1
        self._passes += 1
        limit = MAX_UNSTABLE_PASSES if last.is_disordered else MAX_FRUITLESS_PASSES
        if self._fruitless >= limit or self._passes > MAX_PASSES:
            raise EnvoyError(self._reason(last))
        self._previous = last if last.is_complete else None
        self._abandon()
        self._pass = self._new_pass()

    def _end_single_response(self) -> None:
        """End the slice with one response: the list, or as much as can be read of it at once."""
        current = self._pass
        current.is_complete = current.is_single_response = True
        self.is_settled = self._is_whole()
        self.is_too_deep = not self.is_settled and self._max_depth is not None
        self.is_torn = not self.is_settled and not self.is_too_deep
        self.can_continue = self.is_too_deep

    def _run_out_of_pages(self) -> None:
        """Give up on overlapping pages where they reach no further, else on this depth."""
        current, limit = self._pass, self._max_depth
        if current.is_overlapping and (limit is None or current.end + current.size <= limit):
            self._behavior.can_overlap = False
            self.is_torn = True
        else:
            self._stop_short()

    def _stop_short(self) -> None:
        """Note that the list goes on beyond what may be requested."""
        current = self._pass
        current.is_complete = True
        self.is_too_deep = current.is_overlapping or self._agrees()
        self.is_torn = not self.is_too_deep
        self.can_continue = self.is_too_deep and not current.is_disordered

    def _new_pass(self) -> Pass:
        return Pass(iter([PageRequest(1, self._behavior.page_size)]))

    def _abandon(self) -> None:
        self.pending.clear()
        self.is_torn = self.is_too_deep = self.can_continue = False

    # What a page means

    def _judge(self, request: PageRequest, page: Page, ids: list[str]) -> Verdict:
        if self._pass.pages == 1:
            return self._judge_first(request, ids)
        if page.rejection is not None:
            return self._judge_rejection(page.rejection)
        if ids and self._pass.is_second and ids == self._pass.first_ids[: len(ids)]:
            self._pass.repeats_first = True
            return Verdict.CHECK_NUMBERING if self._must_check_numbering else Verdict.WHOLE
        if self._pass.is_overlapping:
            return self._judge_overlapping(request, page.records, ids)
        return self._judge_plain(request, ids)

    def _judge_first(self, request: PageRequest, ids: list[str]) -> Verdict:
        behavior, count = self._behavior, len(ids)
        self._pass.first_ids, self._pass.size, self._pass.end = ids, count, count
        is_known_to_be_short = count < behavior.largest_page
        behavior.largest_page = max(behavior.largest_page, count)
        if not behavior.is_paged:
            return Verdict.WHOLE
        if not count or is_known_to_be_short:
            return Verdict.CHECK_NUMBERING if self._must_check_numbering else Verdict.END
        if count > request.per_page:
            behavior.can_overlap = False
        return Verdict.CONTINUE

    def _judge_rejection(self, rejection: RequestRejectedError) -> Verdict:
        """Tell the end of the list from a limit of its depth."""
        current, total = self._pass, self.total
        if self._must_check_numbering:
            return Verdict.CHECK_NUMBERING
        if current.is_overlapping and current.is_second:
            self._overlaps = False  # perhaps it is the number of rows that is not accepted
            return Verdict.TORN
        # A total of one page's rows may count these alone, and one that is a round number may be a
        # cap: the overlapping pages of a quiet list do not go past its end.
        may_be_cap = total == TOTAL_CAP or (current.is_overlapping and not (total or 0) % 100)
        has_all = total is not None and len(current.first_ids) < total <= len(current.ids)
        is_not_found = rejection.status == HTTPStatus.NOT_FOUND and not self.rejection
        is_past_end = is_not_found and not current.is_overlapping
        if (has_all and not may_be_cap) or is_past_end or current.was_short:
            current.has_gap |= not current.was_short
            return Verdict.END
        if current.is_second and current.size != self._behavior.page_size:
            return Verdict.WHOLE
        is_first, self.rejection = self.rejection is None, rejection
        if current.is_overlapping and self._max_depth is None:
            # Perhaps the list has become shorter; if not, plain pages reach furthest.
            self._overlaps = is_first
            return Verdict.TORN
        return Verdict.TOO_DEEP

    def _judge_overlapping(
        self, request: PageRequest, records: list[Record], ids: list[str]
    ) -> Verdict:
        """Check that a page continues the one before it."""
        current, behavior = self._pass, self._behavior
        if current.was_short and current.ids.issuperset(ids):
            return Verdict.END
        known = self._count_known(ids)
        current.has_gap |= not known
        current.has_hole |= not known and bool(ids)
        current.is_disordered |= known > 0 and self._is_disordered(request, records, ids, known)
        current.splits_time |= self._splits_time(records, known)
        if current.is_second and (verdict := self._judge_second(request, ids, known)):
            return verdict
        if len(ids) > request.per_page:
            behavior.can_overlap = False
            return Verdict.TORN
        is_unconnected = bool(ids) and not known and self._passes <= PASSES_TO_CUT_SHORT
        if is_unconnected or known == request.per_page:
            return Verdict.TORN
        if len(ids) == request.per_page:
            current.was_short = False
            return Verdict.CONTINUE
        # A server that falls back to another size sends rows that are out of place.
        behavior.can_overlap = behavior.can_overlap and not current.is_disordered
        return self._end_after_short_page(ids)

    def _end_after_short_page(self, ids: list[str]) -> Verdict:
        """Return whether a short page ends the list; without a `total`, no more rows may follow.

        A server that hides rows after it has made the pages sends short ones in between.
        """
        current = self._pass
        current.was_short = self.total is None and not current.ids.issuperset(ids)
        return Verdict.CONTINUE if current.was_short else Verdict.END

    def _judge_second(self, request: PageRequest, ids: list[str], known: int) -> Verdict | None:
        """Learn from the second page how the endpoint counts pages, or return None."""
        current, behavior = self._pass, self._behavior
        if len(ids) > request.per_page:
            behavior.can_overlap = False
        if not self._must_check_numbering:
            return None
        is_as_expected = known == current.end - request.start and not current.is_disordered
        if not behavior.can_overlap or not known or not is_as_expected:
            return Verdict.CHECK_NUMBERING
        if len(ids) == request.per_page:  # a short page may be the last one again
            behavior.first_page = 1
        return None

    def _judge_plain(self, request: PageRequest, ids: list[str]) -> Verdict:
        current = self._pass
        # So few rows may be the last ones of a list that counts from 0, unless they are the total.
        is_short = not ids and current.size <= SMALLEST_LIMIT and current.size == self.total
        if self._must_check_numbering and not is_short:
            return Verdict.CHECK_NUMBERING
        if ids and current.ids.issuperset(ids):
            # Past the end some servers repeat the last page; others repeat the first for ever.
            is_last_again = not current.is_second or len(ids) != request.per_page
            current.has_gap = True
            current.is_disordered |= not is_last_again or ids != current.tail[-len(ids) :]
            return Verdict.END
        current.is_disordered |= not current.ids.isdisjoint(ids)
        if len(ids) < current.size:
            return self._end_after_short_page(ids)
        current.was_short = False
        return Verdict.CONTINUE

    @property
    def _must_check_numbering(self) -> bool:
        return self._behavior.first_page is None and not self._has_checked_numbering

    def _count_known(self, ids: list[str]) -> int:
        """Return how many rows at the beginning are known from this pass."""
        known = 0
        while known < len(ids) and ids[known] in self._pass.ids:
            known += 1
        return known

    def _is_disordered(
        self, request: PageRequest, records: list[Record], ids: list[str], known: int
    ) -> bool:
        """Return whether the rows are in another order than before."""
        current = self._pass
        if not current.ids.isdisjoint(ids[known:]):
            return True
        expected = current.end - request.start
        if known >= expected and ids[:known] != current.tail[-known:]:
            return True
        if known == expected:
            return False
        tail = iter(current.tail)  # of which some may be deleted by now
        if not all(key in tail for key in ids[:known]):
            return True
        # Rows of one time may change places, which looks like an insertion or a deletion.
        return self._splits_time(records, known)

    def _splits_time(self, records: list[Record], known: int) -> bool:
        """Return whether the first new row has the time of the last known one."""
        field = self._time_field
        if field is None or not 0 < known < len(records):
            return False
        return bool(records[known].get(field) == records[known - 1].get(field))

    # What follows

    def _collect(self, page: Page, ids: list[str]) -> list[Record]:
        """Take in the rows of a page; return those that are new to the slice."""
        current = self._pass
        fresh = [key for key in ids if key not in current.ids]
        current.tail = (current.tail + fresh)[-TAIL:]
        current.ids.update(fresh)
        if page.rejection is None:
            current.total = page.total
        if page.total is not None and page.total < len(current.ids):
            self._behavior.has_credible_total = False
        new = [record for record in page.records if record["id"] not in self.ids]
        self.ids.update(fresh)
        current.new += len(new)
        return new

    def _plan(self, request: PageRequest) -> None:
        """Plan the pages after this one, and decide how many of them to request ahead."""
        current = self._pass
        if current.pages == 1:
            size = current.size
            can_overlap = self._behavior.can_overlap and self._overlaps
            current.is_overlapping = can_overlap and size > SMALLEST_LIMIT
            if current.is_overlapping:
                # A sorted list is continued by time: no request for a few rows before the limit.
                min_gain = size // 2 if self._time_field else 1
                first = []
                if self._must_check_numbering:
                    # Counted from 0, it would begin so many rows earlier.
                    first = [PageRequest(2, size - min(NUMBERING_MARGIN, (size - 1) // 2))]
                end = first[0].end if first else size
                pages = overlapping_pages(size, end, self._max_depth, min_gain=min_gain)
                current.plan = chain(first, pages)
            else:
                current.plan = plain_pages(min(size, request.per_page), self._max_depth)
            if size < request.per_page:
                current.allowed = 2
                return
        else:
            current.end = request.end
        if self.total is None:
            ahead = 1 + current.pages // 10  # a tenth of what came may be requested in vain
        else:
            ahead = max(1, -(-(self.total - current.end) // current.size))
        current.allowed = current.pages + ahead

    def _note_numbering(self, page: Page) -> list[Record]:
        """Learn from page 0 whether that is the first page (envoy-api: from 1, seen in clients)."""
        self._has_checked_numbering = True
        first, repeats_first = self._pass.first_ids, self._pass.repeats_first
        found = [record["id"] for record in page.records]
        known = len(set(found) & set(first))
        if 2 * known < len(found):
            self._behavior.first_page = 0
        elif page.rejection is not None or (
            first and known >= 0.9 * len(found) and not repeats_first
        ):
            self._behavior.first_page = 1
        if first or self._behavior.first_page == 0:
            self._pass = self._new_pass()
        else:
            self._pass.is_complete = True
            self.is_settled = self._is_proven()
            self.is_torn = not self.is_settled
        return []

    # Whether all rows came

    def _is_proven(self) -> bool:
        """Return whether a pass that reached the end shows that no row is missing.

        Raises:
            EnvoyError: If rows are missing for good.
        """
        current, total = self._pass, self.total
        if current.is_disordered:
            return self._is_confirmed()
        if self._is_short_of_total():
            if self._agrees() and self._previous and self._previous.total == total:
                raise EnvoyError(
                    f"Envoy reports {total} rows, but only {len(current.ids)} can be read; report "
                    "this to Envoy."
                )
            return False
        is_short = current.pages == 1 or len(current.ids) <= SMALLEST_LIMIT
        if not current.has_gap and (current.is_overlapping or is_short):
            return True
        return self._agrees() and not current.has_hole

    def _ends_at_cap(self) -> bool:
        """Return whether pages are empty beyond a depth: no list that is quiet ends at a gap."""
        current = self._pass
        has_gap = current.has_gap and not (current.has_hole or current.is_second)
        return current.is_overlapping and has_gap and self._agrees()

    def _agrees(self) -> bool:
        """Return whether this pass brought the same rows as the one before.

        Then none is missing: where a deletion hides a row, the pass has seen the deleted row, and
        the next pass does not see it.
        """
        return self._previous is not None and self._previous.ids == self._pass.ids

    def _is_confirmed(self) -> bool:
        """Return whether passes that brought nothing new have, together, as many rows as `total`.

        Where the order is not stable, a pass misses rows that the next one may bring. Rows of
        passes before the last new row do not count: they may be deleted by now.
        """
        current, total = self._pass, self.total
        if current.new or total != self._confirmed_total:
            self._confirmed, self._confirmed_total = set(), total
        self._confirmed |= current.ids
        return total is not None and total != TOTAL_CAP and len(self._confirmed) >= total

    def _is_short_of_total(self) -> bool:
        total = self.total
        if total is None or len(self._pass.ids) >= total:
            return False
        if self._probes.count_others is not None and self._probes.count_others() == total:
            self._behavior.has_credible_total = False  # it does not respect the filter
            return False
        return True

    def _is_whole(self) -> bool:
        """Tell a whole list in one response from its first rows."""
        behavior, rows, total = self._behavior, len(self._pass.ids), self.total
        probes = self._probes
        if probes.first_row and rows > 1 and rows == total:
            first = probes.first_row()
            # A total that is one then counts this page alone; it may do so if there is no page.
            is_same = len(first.records) == 1 and first.total == total
            behavior.has_credible_total = is_same or (behavior.is_paged and len(first.records) > 1)
            total = self.total
        last = probes.reversed_ids() if probes.reversed_ids else self._pass.first_ids
        if last != self._pass.first_ids:
            return set(last) == self._pass.ids and not self._is_short_of_total()
        if total is not None:
            return rows >= total
        if not rows or rows < behavior.largest_page:
            return True
        return rows % 5 > 0 and rows != behavior.page_size  # limits of servers are round numbers

    def _reason(self, last: Pass) -> str:
        """Return why the slice could not be settled."""
        if self.rejection is not None:
            return f"Envoy rejected a page before the end of the list: {self.rejection}"
        if last.is_single_response:
            return (
                f"Envoy ignores or rejects `page` and returned {len(last.ids)} rows, which may be "
                "the first of more; report this to the maintainers of the tap."
            )
        if last.is_disordered:
            return (
                "Envoy returns the rows in a different order each time, so that it is not certain "
                "that all were read; run again later."
            )
        return "The list kept changing while it was read; run again later."
