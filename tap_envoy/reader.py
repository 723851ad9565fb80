"""Reads a list: its slices, their pages, a few requests ahead of who takes the rows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from tap_envoy.ahead import Workers
from tap_envoy.errors import EnvoyError
from tap_envoy.pages import Page, Reading, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_envoy.slices import Cut, Period, Slice


@dataclass(frozen=True, slots=True)
class Progress:
    """What became known with a page.

    Attributes:
        rows: Rows to be emitted, none of them for the second time.
        bookmark: The time up to which all has been emitted once these rows are, if that moved.
        total: How many rows the list has in all, if that is known.
    """

    rows: Rows
    bookmark: str | None
    total: int | None


class ListReader:
    """Reads a list, slice by slice, page by page, a few requests ahead of who takes its rows."""

    def __init__(  # noqa: PLR0913  # what a list is, and the run that it is read in
        self,
        cut: Cut,
        period: Period,
        fetch: Callable[[Slice, int, Callable[[], bool]], Page],
        *,
        page_size: int,
        depth: int,
        check: Callable[[], None],
    ) -> None:
        """Make ready to read; nothing is asked yet.

        Args:
            cut: How the list is cut into slices.
            period: What is to be read.
            fetch: Gets the page of a number (from 1) of a slice, while its third argument says
                that it is still wanted; called from several threads.
            page_size: How many rows each page is asked to have.
            depth: How deep Envoy lets anyone look: page × perPage must not exceed it.
            check: Called now and then while an answer is awaited; may raise, to stop.
        """
        self._cut = cut
        self._slices = cut.slices(period)
        self._fetch = fetch
        self._page_size = page_size
        self._last = depth // page_size
        self._depth = depth
        self._check = check
        self._readings: deque[Reading] = deque()
        self._before: frozenset[str] | set[str] = frozenset()
        self._newest: str | None = None
        self._resumable = True
        self._before_cut = 0
        self._emitted = 0
        self._announced = 0

    def read(self) -> Iterator[Progress]:
        """Yield what comes, page by page, in order.

        Raises:
            EnvoyError: If the list cannot be read to its end.
        """
        with Workers[Page]() as workers:
            while self._ask(workers):
                reading = self._readings[0]
                page = workers.result(reading.answers.popleft(), self._check)
                if self._is_too_deep(page):
                    self._cut_up(reading)
                    continue
                reading.take(page)
                rows = self._new_rows(reading, page)
                if not reading.ended and reading.taken == reading.last:
                    yield Progress(rows, self._bookmark(reading), self._total(page))
                    self._cut_up(reading)
                    continue
                if reading.ended:
                    self._before = reading.ids
                    self._readings.popleft()
                yield Progress(rows, self._bookmark(reading), self._total(page))
        if self._emitted < self._announced:
            raise EnvoyError(
                f"Envoy announced {self._announced} rows, but {self._emitted} came: those without "
                f"`{self._cut.by}` are out of reach in a list this long, or rows were removed "
                "meanwhile; run again."
            )
        if not self._resumable and self._newest:
            yield Progress([], self._newest, None)

    def _ask(self, workers: Workers[Page]) -> bool:
        """Ask for as much as may be under way at once; returns whether anything is."""
        while sum(len(reading.answers) for reading in self._readings) < workers.ahead:
            asking = self._next()
            if asking is None:
                break
            reading, number = asking
            fetch = partial(self._fetch, reading.part, number, workers.is_open)
            reading.answers.append(workers.submit(fetch))
        return bool(self._readings)

    def _next(self) -> tuple[Reading, int] | None:
        """Return the page to ask for next, of the slice that is emitted first, if any is known."""
        for reading in self._readings:
            if (number := reading.next()) is not None:
                return reading, number
        part = next(self._slices, None)
        if part is None:
            return None
        self._readings.append(Reading(part, self._page_size, self._last))
        return self._next()

    def _is_too_deep(self, page: Page) -> bool:
        """Tell whether a window is better halved before any of it is emitted."""
        return self._cut.cut_ahead and page.total is not None and page.total > self._depth

    def _cut_up(self, reading: Reading) -> None:
        """Put what is left of a slice that is too deep in its place."""
        if self._cut.in_order and not reading.sorted:
            raise EnvoyError(
                f"The list has more than {len(reading.ids)} rows, and Envoy did not send them in "
                f"the order of `{self._cut.by}`, so the rest is out of reach; report this to Envoy."
            )
        seen = None
        if reading.oldest and reading.newest:
            seen = datetime.fromisoformat(reading.oldest), datetime.fromisoformat(reading.newest)
        rest = self._cut.rest(reading.part, seen, frozenset(reading.ids))
        if self._cut.in_order:
            self._before = reading.ids
            if not self._cut.query(reading.part):
                self._announced = reading.total or 0
            self._before_cut += len(reading.ids)
        self._readings.popleft()
        readings = [Reading(part, self._page_size, self._last) for part in rest]
        self._readings.extendleft(reversed(readings))

    def _new_rows(self, reading: Reading, page: Page) -> Rows:
        """Return the rows that have not been emitted yet, and note their times."""
        if (by := self._cut.by) is not None:
            reading.note([time for row in page.records if (time := row.get(by)) is not None])
        ids, before, told = reading.ids, self._before, reading.part.told
        rows = []
        for row in page.records:
            key = row["id"]
            if not (key in ids or key in before or key in told):
                rows.append(row)
            ids.add(key)
        if self._cut.in_order and reading.sorted and (reading.newest or "") > (self._newest or ""):
            # From here on all is later than the slice before, whose rows cannot come again.
            self._before = frozenset()
        self._emitted += len(rows)
        return rows

    def _total(self, page: Page) -> int | None:
        """Return how many rows there are in all, where a slice is all there is to come."""
        if page.total is None or self._cut.cut_ahead:
            return None
        return self._before_cut + page.total

    def _bookmark(self, reading: Reading) -> str | None:
        """Return the time up to which all is out, once a page of `reading` is."""
        if self._cut.in_order or reading.ended:
            self._newest = max(filter(None, (self._newest, reading.newest)), default=None)
        if not self._cut.in_order:
            return self._newest if reading.ended else None
        self._resumable = self._resumable and reading.sorted
        return self._newest if self._resumable else None
