"""Pages of a list, and the `meta` that describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.sandbox.quirks import Quirks

DEPTH = 10_000
"""The documented limit of page × perPage for invites."""
MAX_PER_PAGE = 100


class QueryRejectedError(Exception):
    """A query that Envoy answers with an error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        number: As the query has it.
        index: Counted from 0.
        size: Rows of a full page.
    """

    number: int
    index: int
    size: int

    @classmethod
    def parse(
        cls, query: Mapping[str, str], per_page: int, max_rows: int, quirks: Quirks
    ) -> "Page":
        """Return the page that a query asks for.

        Args:
            query: The parameters of the request.
            per_page: Rows of a page if the query has no `perPage`.
            max_rows: What page × perPage must not exceed, as documented; 0: no limit.
            quirks: How this Envoy differs from the documented one.

        Raises:
            QueryRejectedError: If there is no such page.
        """
        number = _number(query, "page", quirks.first_page)
        requested = _number(query, "perPage", per_page)
        if number < quirks.first_page or requested < 1:
            raise QueryRejectedError("page and perPage must be positive")
        if "perPage" in query and 0 < quirks.max_per_page_accepted < requested:
            raise QueryRejectedError("perPage is too large", quirks.rejected_status)
        requested = quirks.fixed_size or requested
        clamp = max(MAX_PER_PAGE, per_page) if quirks.clamp is None else quirks.clamp
        size = quirks.fixed_size or min(requested, clamp)
        index = number - quirks.first_page
        if quirks.max_rows is not None:
            max_rows = quirks.max_rows
        if 0 < max_rows < (index + 1) * requested:
            raise QueryRejectedError(f"page * perPage must not exceed {max_rows}")
        if 0 < quirks.max_pages < index + 1:
            raise QueryRejectedError(f"page must not exceed {quirks.max_pages}")
        return cls(number, index, size)

    def part(self, rows: int, quirks: Quirks) -> slice:
        """Return which of the `rows` of the list this page contains.

        Raises:
            QueryRejectedError: If the page is past the end, and that is an error.
        """
        if quirks.single_response:
            return slice(0, rows)
        last = max(0, (rows - 1) // self.size)
        if self.index > last and isinstance(quirks.past_end, int):
            raise QueryRejectedError("There is no such page", quirks.past_end)
        index = min(self.index, last) if quirks.past_end == "repeat" else self.index
        return slice(index * self.size, (index + 1) * self.size)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise QueryRejectedError(f"{name} must be a number") from None


def describe_pages(
    page: Page, per_page: str | None, quirks: Quirks, *, sent: int, selected: int, existing: int
) -> dict[str, Any]:
    """Return the `meta` of a response.

    Args:
        page: The page that is sent.
        per_page: `perPage` of the request, if it has one.
        quirks: How this Envoy differs from the documented one.
        sent: Rows of the page.
        selected: Rows of the list.
        existing: Rows of the list without its filters.
    """
    if quirks.meta == "relationships":
        return {"relationships": []}
    size = selected if quirks.single_response else page.size
    totals: dict[str, int | None] = {
        "page": sent,
        "pages": -(-selected // max(1, size)),
        "too_small": selected // 2,
        "zero": 0,
        "negative": -1,
        "null": None,
        "capped": min(selected, DEPTH),
        "unfiltered": existing,
    }
    meta: dict[str, Any] = {
        "page": page.number,
        "perPage": int(per_page) if quirks.per_page_echoed and per_page else size,
        "totalCount" if quirks.total == "renamed" else "total": totals.get(quirks.total, selected),
    }
    if quirks.meta == "total_only":
        del meta["page"], meta["perPage"]
    if quirks.numbers_as_strings:
        meta = {name: None if value is None else str(value) for name, value in meta.items()}
    return meta
