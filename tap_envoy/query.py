"""The query of a list, and what is left of it where Envoy rejects a part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tap_envoy.exceptions import RequestRejectedError

SMALLER_PAGES = (50, 25, 10)
"""Rows to ask for where Envoy rejects `perPage`."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a request says beside the page; the fewer, the surer that Envoy accepts it.

    Attributes:
        has_sort: Whether it asks for an order.
        has_filter: Whether it asks for a slice.
        per_page: Rows to ask for; None leaves it to Envoy.
        has_page: Whether it names a page.
    """

    has_sort: bool
    has_filter: bool
    per_page: int | None
    has_page: bool = True

    def params(
        self, sort: Mapping[str, str], filters: Mapping[str, str], number: int, per_page: int
    ) -> dict[str, Any]:
        """Return the query parameters of a request."""
        params: dict[str, Any] = {}
        if self.has_sort:
            params |= sort
        if self.has_filter:
            params |= filters
        if self.has_page:
            params["page"] = number
        if self.per_page is not None:
            params["perPage"] = per_page
        return params

    def simpler(self) -> Iterator[Query]:
        """Yield queries that ask for less, least loss first; the last is the guide's bare call."""
        size = self.per_page or 0
        pages = [
            self,
            *(replace(self, per_page=rows) for rows in SMALLER_PAGES if rows < size),
            replace(self, per_page=None),
            replace(self, has_page=False),
            replace(self, has_page=False, per_page=None),
        ]
        seen = {self}
        for has_filter in (True, False):
            for query in pages:
                for has_sort in (True, False):
                    less = replace(
                        query,
                        has_sort=self.has_sort and has_sort,
                        has_filter=self.has_filter and has_filter,
                    )
                    if less not in seen:
                        seen.add(less)
                        yield less

    def dropped(self, other: Query, filters: tuple[str, ...]) -> list[str]:
        """Return the names of the parameters that `other` has in addition."""
        names = ["sort", "order"] if other.has_sort and not self.has_sort else []
        names += filters if other.has_filter and not self.has_filter else []
        names += ["page"] if other.has_page and not self.has_page else []
        names += ["perPage"] if other.per_page != self.per_page else []
        return names


class QueryRelaxation:
    """Drops parameters, step by step, until Envoy accepts a query.

    Attributes:
        query: What is requested at present.
    """

    def __init__(
        self, query: Query, filter_names: tuple[str, ...], warn: Callable[[str], None]
    ) -> None:
        """Begin with all parameters.

        Args:
            query: All that is documented.
            filter_names: Names of the parameters that select slices.
            warn: Logs a sentence.
        """
        self.query = query
        self._full = query
        self._filter_names = filter_names
        self._warn = warn
        self._rejection: RequestRejectedError | None = None
        self._simpler: Iterator[Query] = iter(())

    @property
    def is_under_way(self) -> bool:
        """Whether the query was relaxed and no response has come yet."""
        return self._rejection is not None

    def relax(self, rejection: RequestRejectedError) -> None:
        """Ask for less, after Envoy rejected the query.

        Raises:
            RequestRejectedError: If there is nothing less to ask for.
        """
        if self._rejection is None:
            self._rejection, self._simpler = rejection, self._queries(rejection.detail)
        query = next(self._simpler, None)
        if query is None:
            raise self._rejection
        self.query = query

    def accept(self) -> None:
        """Say once, after a response, what Envoy rejected and how the stream is read instead."""
        rejection, self._rejection = self._rejection, None
        if rejection is None:
            return
        dropped = self.query.dropped(self._full, self._filter_names)
        names = " and ".join(f"`{name}`" for name in dropped)
        self._warn(
            f"Envoy rejected {names or 'the request'} (HTTP {rejection.status}){rejection.detail}; "
            "reading the list without."
        )

    def _queries(self, reason: str) -> Iterator[Query]:
        """Return queries that ask for less; first those without what Envoy's reason names."""

        def is_unnamed(query: Query) -> bool:
            return not any(name in reason for name in query.dropped(self.query, self._filter_names))

        return iter(sorted(self.query.simpler(), key=is_unnamed))
