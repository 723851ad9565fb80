"""How a stream is read: slice by slice, with pages requested ahead, and less where Envoy refuses.

No parameter beyond the bare request is certain to work (envoy-api, section 2). Each may be rejected
or ignored; both are noticed here, and the stream is then read with less.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import EndpointBehavior, Page, PageRequest, Probes, SlicePaginator
from tap_envoy.query import Query, QueryRelaxation
from tap_envoy.records import format_timestamp
from tap_envoy.slices import (
    FILTER_TOLERANCE,
    MAX_DEPTH,
    MIN_LENGTH,
    OVERLAP,
    SingleSlice,
    SortedSlicer,
    StreamSlice,
    WindowSlicer,
    parse_time,
    too_many,
)
from tap_envoy.sort_order import SortOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tap_envoy.prefetch import PrefetchPool
    from tap_envoy.records import Record
    from tap_envoy.slices import Slicer, TimeRange

FIRST_ROW = PageRequest(1, 1)

DEFAULT_WINDOW = timedelta(days=14)
"""Reservations that Envoy returns without a filter: so far back, and so far ahead (documented)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is documented of a list endpoint.

    Attributes:
        slicer: How it is divided into slices.
        sort: The parameters that ask for ascending order.
        page_size: Rows to ask for.
        needs_filter: Whether it returns only some rows where it gets no filter.
    """

    slicer: Slicer
    sort: Mapping[str, str]
    page_size: int
    needs_filter: bool = False

    @property
    def filter_names(self) -> tuple[str, ...]:
        """Names of the query parameters that select slices."""
        return self.slicer.param_names


@dataclass(frozen=True, slots=True)
class Batch:
    """What a response brought.

    Attributes:
        records: Rows to emit, none of them for the second time.
        bookmark: The time up to which no row is missing once these are emitted, if that is known.
        total: Rows of the stream, if that is known.
        resets_bookmark: Whether bookmarks of this run were based on an order that does not hold.
    """

    records: list[Record]
    bookmark: str | None = None
    total: int | None = None
    resets_bookmark: bool = False


@dataclass(slots=True)
class ActiveSlice:
    """A slice that is being read.

    Attributes:
        part: The slice.
        paginator: Its pages.
        earliest: The earliest time of its rows.
        latest: The latest time of its rows.
        latest_before: The latest time before the newest page.
        last_time: The time of the last row of the newest page.
        rows_before: Rows emitted before this slice.
    """

    part: StreamSlice
    paginator: SlicePaginator
    earliest: str | None = None
    latest: str | None = None
    latest_before: str | None = None
    last_time: str | None = None
    rows_before: int = 0

    def note_times(self, times: list[str], *, is_first: bool) -> bool:
        """Take in the times of a page; return whether they are in ascending order."""
        self.latest_before = self.latest
        if is_first:
            self.last_time = None
        if not times:
            return True
        is_sorted = times == sorted(times)
        if not self.paginator.is_overlapping and self.last_time:
            is_sorted = is_sorted and times[0] >= self.last_time
        self.last_time = times[-1]
        self.earliest = min(self.earliest or times[0], *times)
        self.latest = max(self.latest or times[0], *times)
        return is_sorted

    def restart(self) -> None:
        """Begin another pass over the slice.

        Raises:
            EnvoyError: If there were too many.
        """
        self.earliest = self.latest = self.last_time = None
        self.paginator.restart()


class StreamReader:
    """Reads all rows of a stream, and says up to which time none is missing."""

    def __init__(
        self,
        endpoint: Endpoint,
        time_range: TimeRange,
        fetch: Callable[[dict[str, Any], bool], Page],
        *,
        wants_bookmark: bool,
        warn: Callable[[str], None],
    ) -> None:
        """Prepare to read; nothing is requested yet.

        Args:
            endpoint: What is documented of the endpoint.
            time_range: What is to be read.
            fetch: Requests a page by its query parameters, with retries; runs in several threads.
                Raises `RequestRejectedError` where Envoy does not accept the request. The second
                argument says that even a server error is such an answer.
            wants_bookmark: Whether bookmarks are used, so that it is worth proving the order.
            warn: Logs a sentence, such as "Envoy ignores `sort`; reading the whole list."
        """
        self._endpoint = endpoint
        self._range = time_range
        self._fetch = fetch
        self._wants_bookmark = wants_bookmark
        self._warn = warn
        size = endpoint.page_size
        full = Query(bool(endpoint.sort), has_filter=True, per_page=size)
        self._relaxation = QueryRelaxation(full, endpoint.filter_names, warn)
        self._behavior = EndpointBehavior(size)
        self._ids_before: set[str] = set()
        self._resets_bookmark = False
        self._longest: timedelta | None = timedelta(0)
        self._overlap: timedelta | None = None
        self._begin(endpoint.slicer)

    def _begin(self, slicer: Slicer) -> None:
        """Read from the start of the range, by a slicer."""
        self._slicer = slicer
        self._slices = slicer.slices(self._range)
        self._active: deque[ActiveSlice] = deque()
        self._recent_ids: deque[set[str]] = deque(maxlen=2)
        self._latest: str | None = None
        self._exceeds_default = False
        self._emitted = 0
        self._order = None
        if isinstance(slicer, SortedSlicer):
            self._order = SortOrder(slicer, self._count, self._newest)

    def read(self, pool: PrefetchPool[Page]) -> Iterator[Batch]:
        """Yield the rows as they come, in order.

        Raises:
            EnvoyError: If the stream cannot be read completely.
        """
        self._pool = pool
        while True:
            if self._resets_bookmark:  # before a request, which a signal may interrupt
                self._resets_bookmark = False
                yield Batch([], resets_bookmark=True)
            if not self._schedule():
                break
            active = self._active[0]
            if not active.paginator.pending:
                self._continue(active)
                continue
            request, future = active.paginator.pending.popleft()
            try:
                page = pool.result(future)
            except RequestRejectedError as error:
                if request.number == 1:
                    self._simplify(active, error)
                    continue
                page = Page([], rejection=error)
            yield from self._take(active, request, page)
        self._check_default_rows()
        if self._latest:
            yield Batch([], self._latest)

    # Requests

    @property
    def _query(self) -> Query:
        return self._relaxation.query

    def _schedule(self) -> bool:
        """Request as many pages as may be under way; return whether any slice is left."""
        free = self._pool.max_in_flight - sum(len(a.paginator.pending) for a in self._active)
        if self._active and not self._active[0].paginator.pending:
            free = max(1, free)  # the slice whose turn it is does not wait for those after it
        while free > 0 and (scheduled := self._next_page()) is not None:
            active, page = scheduled
            job = partial(self._fetch, self._params(active.part, page), page.number == 0)
            active.paginator.pending.append((page, self._pool.submit(job)))
            free -= 1
        return bool(self._active)

    def _next_page(self) -> tuple[ActiveSlice, PageRequest] | None:
        for active in self._active:
            if (page := active.paginator.next_page()) is not None:
                return active, page
            if active.paginator.is_done:
                return None  # it ran out of pages, which is dealt with in its turn
        part = next(self._slices, None)
        if part is None:
            return None
        self._active.append(self._activate(part))
        return self._next_page()

    def _activate(self, part: StreamSlice) -> ActiveSlice:
        has_filter = bool(part.params) and self._query.has_filter
        others = self._slicer.elsewhere(part, self._range.now)
        paginator = SlicePaginator(
            self._behavior,
            max_depth=self._slicer.max_depth,
            time_field=self._slicer.time_field if self._slicer.is_sorted else None,
            probes=Probes(
                count_others=partial(self._count, others) if has_filter else None,
                reversed_ids=partial(self._reversed_ids, part) if self._query.has_sort else None,
                first_row=partial(self._request, part),
            ),
        )
        return ActiveSlice(part, paginator, rows_before=self._emitted)

    def _params(self, part: StreamSlice, page: PageRequest, **sort: str) -> dict[str, Any]:
        first = 0 if self._behavior.first_page == 0 else 1
        number = page.number - 1 + first if page.number else 0
        return self._query.params(
            {**self._endpoint.sort, **sort}, part.params, number, page.per_page
        )

    def _request(self, part: StreamSlice, page: PageRequest = FIRST_ROW, **sort: str) -> Page:
        """Return a page of a slice, by default the first row alone."""
        job = partial(self._fetch, self._params(part, page, **sort), False)  # noqa: FBT003
        try:
            return self._pool.result(self._pool.submit(job))
        except RequestRejectedError:
            return Page([])

    def _count(self, part: StreamSlice) -> int | None:
        """Return the `total` of a slice."""
        return self._request(part).total

    def _newest(self, part: StreamSlice) -> Record | None:
        """Return the first row in descending order."""
        return next(iter(self._request(part, order="DESC").records), None)

    def _reversed_ids(self, part: StreamSlice) -> list[str]:
        """Return the ids that the first page has in descending order."""
        page = PageRequest(1, self._behavior.page_size)
        return [record["id"] for record in self._request(part, page, order="DESC").records]

    def _simplify(self, active: ActiveSlice, error: RequestRejectedError) -> None:
        """Ask for less, after Envoy rejected the first page of a slice.

        Raises:
            RequestRejectedError: If there is nothing less to ask for.
        """
        is_new = not self._relaxation.is_under_way or error.status == HTTPStatus.NOT_FOUND
        if is_new and self._accepts_page_zero(active.part):
            self._behavior.first_page = 0
            self._restart(self._slicer)
            return
        if error.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise error
        if active.part.is_optional:
            wanted = active.part.description
            self._warn(f"Envoy rejected {wanted} (HTTP {error.status}){error.detail}; skipping it.")
            self._active.remove(active)
            return
        self._relaxation.relax(error)
        query = self._query
        self._behavior = EndpointBehavior(query.per_page or self._endpoint.page_size)
        self._behavior.is_paged = query.has_page
        slicer = self._endpoint.slicer
        is_sliced = query.has_filter and (query.has_sort or not slicer.is_sorted)
        self._restart(slicer if is_sliced else self._single_slice())

    def _accepts_page_zero(self, part: StreamSlice) -> bool:
        """Return whether page 1 may have been rejected because it is past the end."""
        if self._behavior.first_page is not None or not self._query.has_page:
            return False
        page = PageRequest(0, self._behavior.page_size)
        job = partial(self._fetch, self._params(part, page), True)  # noqa: FBT003
        try:
            self._pool.result(self._pool.submit(job))
        except RequestRejectedError:
            return False
        return True

    def _single_slice(self, *, is_filtered: bool = True) -> SingleSlice:
        """Return the slicer that reads the whole list, from its start where that is possible."""
        slicer = self._endpoint.slicer
        can_filter = is_filtered and self._query.has_filter
        if isinstance(slicer, SingleSlice):
            return slicer if can_filter else SingleSlice()
        params: Mapping[str, str] = {}
        if can_filter and isinstance(slicer, SortedSlicer):
            params = next(slicer.slices(self._range)).params
        end_field = slicer.end_field if isinstance(slicer, WindowSlicer) else None
        return SingleSlice((params,), slicer.time_field, end_field)

    def _restart(self, slicer: Slicer) -> None:
        """Read again from the start of the range, without emitting a row twice."""
        for active in self._active:
            self._recent_ids.append(active.paginator.ids)
            self._ids_before |= active.paginator.ids | active.part.known_ids
        self._ids_before.update(*self._recent_ids)
        self._resets_bookmark = self._wants_bookmark
        self._begin(slicer)

    # Responses

    def _take(self, active: ActiveSlice, request: PageRequest, page: Page) -> Iterator[Batch]:
        """Take in a response; yield what it brought."""
        self._relaxation.accept()
        paginator = active.paginator
        if request.number == 1 and (problem := self._find_misplaced(active, page)):
            self._handle_misplaced(active, problem)
            return
        is_first = active.latest is None
        numbering = self._behavior.first_page
        new = paginator.advance(request, page)
        if numbering != self._behavior.first_page == 0:
            self._renumber(active)
        self._exceeds_default = self._exceeds_default or self._exceed_default(page.records)
        self._note_lengths(active.part, page.records)
        if self._order:
            self._order.note(new)
        times = [] if paginator.repeats_first else self._times(page.records)
        is_sorted = active.note_times(times, is_first=request.number <= 1)
        if is_first and self._is_too_deep(active):
            self._divide(active, known_ids=frozenset())
            return
        is_misled = self._slicer.is_sorted and not is_sorted
        yield self._batch(active, new, is_misled=is_misled)
        if is_misled:
            self._warn(
                f"Envoy does not sort by `{self._slicer.time_field}`; reading the whole list."
            )
            self._restart(self._single_slice())
        elif self._overlap and self._longest and self._longest > self._overlap:
            # A row may lie in neither half of a window. Doubling bounds the number of restarts.
            self._longest, self._overlap = 2 * self._longest, None
            self._restart(self._slicer)
        elif paginator.is_settled:
            self._finish(active)
            if isinstance(self._slicer, WindowSlicer) and self._latest:
                yield Batch([], self._latest)
        elif paginator.is_done:
            self._continue(active)

    def _renumber(self, active: ActiveSlice) -> None:
        """Request the pages of the other slices again, now that the first page is number 0."""
        for index, other in enumerate(self._active):
            if other is not active:
                known_ids = other.part.known_ids | other.paginator.ids
                self._active[index] = self._activate(replace(other.part, known_ids=known_ids))

    def _find_misplaced(self, active: ActiveSlice, page: Page) -> str | None:
        """Return what is wrong with the first page of a slice, if anything is."""
        part, slicer = active.part, self._slicer
        times = [time for record in page.records if (time := slicer.times(record))]
        if not isinstance(slicer, SingleSlice) and any(part.excludes(time) for time in times):
            return "filter"
        if part.is_continuation:
            first = page.records[0]["id"] if page.records else None
            if not any(first in ids for ids in self._recent_ids):
                return "gap"
        return None

    def _handle_misplaced(self, active: ActiveSlice, problem: str) -> None:
        """Reach further back, or read the whole list, if a slice is not what was asked for."""
        slicer, part = self._slicer, active.part
        wider = slicer.widened(part) if isinstance(slicer, SortedSlicer) else None
        if problem == "gap" and wider is not None:
            self._active[0] = self._activate(wider)
            return
        names = " and ".join(f"`{name}`" for name in part.params)
        self._warn(f"Envoy ignores {names}; reading the whole list.")
        self._restart(self._single_slice(is_filtered=False))

    def _note_lengths(self, part: StreamSlice, records: list[Record]) -> None:
        """Take in how long rows are, until one shows that windows cut rows."""
        if not isinstance(self._slicer, WindowSlicer) or not self._slicer.end_field:
            return
        for first, last in filter(None, map(self._slicer.times, records)):
            if self._longest is None or part.cuts((first, last)):
                self._longest = None
                return
            self._longest = max(self._longest, parse_time(last) - parse_time(first))

    def _times(self, records: list[Record]) -> list[str]:
        """Return when each row begins, if that is known."""
        field = self._slicer.time_field
        return [time for record in records if (time := record.get(field))] if field else []

    def _batch(self, active: ActiveSlice, new: list[Record], *, is_misled: bool) -> Batch:
        """Return what a page brought; `is_misled`: it shows that the order does not hold."""
        rows = new
        for ids in (*self._recent_ids, self._ids_before, active.part.known_ids):
            if ids:
                rows = [row for row in rows if row["id"] not in ids]
        if isinstance(self._slicer, SingleSlice) and self._slicer.time_field and self._range.start:
            start = format_timestamp(self._range.start - OVERLAP)
            times = self._slicer.times
            rows = [row for row in rows if (time := times(row)) is None or time[1] >= start]
        self._emitted += len(rows)
        bookmark = None if is_misled else self._sorted_bookmark(active)
        total = None if isinstance(self._slicer, WindowSlicer) else active.paginator.total
        if total is not None:
            total += active.rows_before
        return Batch(rows, bookmark, total, resets_bookmark=is_misled and self._wants_bookmark)

    def _sorted_bookmark(self, active: ActiveSlice) -> str | None:
        """Return the time up to which no row is missing, if the order is proven."""
        paginator = active.paginator
        if self._order is None or not (self._wants_bookmark and paginator.is_complete_so_far):
            return None
        return self._order.bookmark(active.part, paginator, active.latest, self._emitted)

    # What follows a slice

    def _finish(self, active: ActiveSlice) -> None:
        """Go on after a slice that is settled."""
        self._active.popleft()
        ids = active.paginator.ids
        if active.part.is_optional and ids and ids in self._recent_ids:
            wanted = active.part.description
            self._warn(f"Envoy ignores {wanted}; check that such rows are not missing.")
        self._recent_ids.append(ids)
        if not self._active and (part := next(self._slices, None)):
            self._active.append(self._activate(part))
        latest, following = active.latest, self._active[0].part.start if self._active else None
        if latest and following:
            # A row that begins later may lie in the next slice alone.
            latest = min(latest, format_timestamp(following))
        self._latest = max(filter(None, (self._latest, latest)), default=None)

    def _continue(self, active: ActiveSlice) -> None:
        """Read what is left of a slice that broke off.

        Raises:
            EnvoyError: If it cannot be read.
        """
        paginator, slicer = active.paginator, self._slicer
        until = active.latest_before if paginator.is_torn else active.latest
        start = active.part.start
        has_advanced = until is not None and (start is None or parse_time(until) > start)
        if isinstance(slicer, SortedSlicer) and paginator.can_continue and has_advanced:
            self._follow(active, slicer, cast("str", until))
        elif paginator.is_too_deep:
            self._divide(active, known_ids=frozenset(paginator.ids))
        else:
            active.restart()

    def _follow(self, active: ActiveSlice, slicer: SortedSlicer, until: str) -> None:
        """Read on from a time, once it is proven that no earlier row is still to come."""
        order = cast("SortOrder", self._order)
        if not order.prove(active.part, active.paginator, active.latest):
            self._warn(f"Envoy does not sort by `{slicer.time_field}`; reading the whole list.")
            self._restart(self._single_slice())
            return
        self._recent_ids.append(active.paginator.ids)
        self._latest = max(filter(None, (self._latest, until)), default=None)
        self._active[0] = self._activate(slicer.following(parse_time(until)))

    def _is_at_last_row(self, active: ActiveSlice) -> bool:
        """Return whether the last row that Envoy returns is the last one of the list."""
        last = self._newest(active.part) if self._query.has_sort else None
        paginator = active.paginator
        return last is not None and last["id"] == paginator.last_id != paginator.first_id

    def _is_too_deep(self, active: ActiveSlice) -> bool:
        """Return whether a window is better halved before any of it is emitted."""
        total = active.paginator.total
        if not isinstance(self._slicer, WindowSlicer) or (total or 0) <= MAX_DEPTH:
            return False
        if total == active.part.parent_total:
            self._behavior.has_credible_total = False  # it does not respect the filter
            return False
        return True

    def _divide(self, active: ActiveSlice, *, known_ids: frozenset[str]) -> None:
        """Halve a window that is too deep.

        Raises:
            EnvoyError: If the slice cannot be divided.
        """
        slicer, part, paginator = self._slicer, active.part, active.paginator
        if isinstance(slicer, SingleSlice) and self._is_at_last_row(active):
            self._finish(active)
            return
        if isinstance(slicer, WindowSlicer):
            seen = None
            if active.earliest and active.latest:
                seen = parse_time(active.earliest), parse_time(active.latest)
            longest = self._longest if slicer.end_field else None
            halves = slicer.halves(part, seen, known_ids, paginator.total, longest)
            if longest is not None:
                overlap = max(longest, MIN_LENGTH)
                self._overlap = min(self._overlap or overlap, overlap)
            self._active.popleft()
            self._active.extendleft(self._activate(half) for half in reversed(halves))
            return
        if isinstance(slicer, SortedSlicer) and active.latest:
            raise EnvoyError(too_many(parse_time(active.latest), slicer.start_param))
        reason = "" if paginator.rejection is None else f" (HTTP {paginator.rejection.status})"
        detail = "" if paginator.rejection is None else paginator.rejection.detail
        raise EnvoyError(
            f"Envoy refused to return more than {len(paginator.ids):,} rows{reason}{detail}, and "
            "the list cannot be requested in parts; ask Envoy how to read all of it."
        )

    def _exceed_default(self, records: list[Record]) -> bool:
        """Return whether Envoy would not return some of these rows without a filter."""
        if not self._endpoint.needs_filter:
            return False
        margin = DEFAULT_WINDOW + FILTER_TOLERANCE
        first, last = (format_timestamp(self._range.now + sign * margin) for sign in (-1, 1))
        times = filter(None, map(self._slicer.times, records))
        return any(end < first or start > last for start, end in times)

    def _check_default_rows(self) -> None:
        """Check that Envoy did not return the rows alone that it returns without a filter.

        Raises:
            EnvoyError: If it did.
        """
        endpoint = self._endpoint
        is_filtered = self._slicer is endpoint.slicer and self._query.has_filter
        if not endpoint.needs_filter or is_filtered or self._exceeds_default:
            return
        names = " and ".join(f"`{name}`" for name in endpoint.filter_names)
        raise EnvoyError(
            f"Envoy does not accept {names}, so that only the rows were read that it returns by "
            "default; report this to the maintainers of the tap."
        )
