"""Which pages of a slice to ask for next, and when to stop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tap_envoy.errors import EnvoyError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tap_envoy.slices import Slice

SHORT = 4
"""Pages of a list so short that reading ahead is not worth a request that may be in vain."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list.

    Attributes:
        records: The rows, each with an `id`.
        total: How many rows the whole slice has, if the API said so.
        size: How many rows a full page has, if the API said so.
    """

    records: Rows
    total: int | None = None
    size: int | None = None


@dataclass(slots=True)
class Reading:
    """A slice on its way: what was asked of it, and what came.

    What a list says of its length differs (other clients have seen `meta` hold `total` and
    `perPage`, or neither), so the end is where `total` is reached, else an empty page, else one
    shorter than the pages before it: a server may serve smaller pages than it was asked for.
    """

    part: Slice
    page_size: int
    last: int
    """The deepest page that may be asked for."""
    asked: int = 0
    taken: int = 0
    answers: deque[Future[Page]] = field(default_factory=deque)
    ids: set[str] = field(default_factory=set)
    oldest: str | None = None
    newest: str | None = None
    sorted: bool = True
    ended: bool = False
    total: int | None = None
    _rows: int = 0
    _full: int = 0
    _known: int = 1
    _previous: list[str] = field(default_factory=list)

    def next(self) -> int | None:
        """Return the page to ask for next, or None while that hangs on answers to come."""
        if self.asked < min(self._known, self.last):
            self.asked += 1
            return self.asked
        return None

    def take(self, page: Page) -> None:
        """Take the next page in.

        Raises:
            EnvoyError: If the same page comes twice, or the list ends before its own total.
        """
        self.taken += 1
        ids = [record["id"] for record in page.records]
        if ids and ids == self._previous:
            raise EnvoyError(
                f"Envoy sent page {self.taken - 1} again as page {self.taken}, so the list cannot "
                "be read to its end; report this to Envoy."
            )
        self._previous = ids
        self.total = page.total
        self._rows += len(ids)
        if not ids and page.total is not None and self._rows < page.total:
            raise EnvoyError(
                f"Envoy announced {page.total} rows, but page {self.taken} is empty after "
                f"{self._rows}; run again to read the list whole."
            )
        self._look_ahead(page, len(ids))

    def note(self, times: list[str]) -> None:
        """Take in the times of the next rows."""
        if times:
            in_turn = [self.newest or times[0], *times]
            self.sorted = self.sorted and in_turn == sorted(in_turn)
            self.oldest = min(self.oldest or times[0], *times)
            self.newest = max(in_turn)

    def _look_ahead(self, page: Page, count: int) -> None:
        """Tell whether that was the end, else which pages are sure, or likely, to be there."""
        # A first page that is short may be the last one, or the server's idea of a full one.
        self._full = page.size or max(self._full, count)
        if page.total is not None:
            self.ended = self._rows >= page.total
            left = -(-(page.total - self._rows) // max(1, self._full))
            # At the least the next one, even where pages turned out emptier than they might be.
            self._known = self.taken + (max(1, left) if self.taken + left > SHORT else 1)
        else:
            sure = self.taken > 1 or page.size is not None or count >= self.page_size
            self.ended = not count or (sure and count < self._full)
            # Nobody knows how many there are: a tenth of what came is risked in vain.
            self._known = self.taken + 1 + self.taken // 10
