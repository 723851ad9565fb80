"""Which pages to ask for, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from tap_envoy.errors import EnvoyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list.

    Attributes:
        records: The rows, each with an `id`.
        total: How many rows the whole list has, if the API said so.
        size: How many rows a full page has, if the API said so.
    """

    records: list[dict[str, Any]]
    total: int | None = None
    size: int | None = None


def read_pages(fetch: Callable[[int], Page], page_size: int) -> Iterator[Page]:
    """Yield the pages of a list, in order, with no request more than it takes to be sure.

    What a list says of its length differs (other clients have seen `meta` hold `total` and
    `perPage`, or neither), so the end is where `total` is reached, else an empty page, else one
    shorter than the pages before it: a server may serve smaller pages than it was asked for.

    Args:
        fetch: Gets the page of a number, from 1.
        page_size: How many rows each page was asked to have.

    Raises:
        EnvoyError: If the same page comes twice, or the list ends before its own total.
    """
    seen = full = 0
    previous: list[Any] = []
    for number in count(1):
        page = fetch(number)
        ids = [record["id"] for record in page.records]
        if ids and ids == previous:
            raise EnvoyError(
                f"Envoy sent page {number - 1} again as page {number}, so the list cannot be "
                "read to its end; report this to Envoy."
            )
        previous = ids
        seen += len(ids)
        if not ids and page.total is not None and seen < page.total:
            raise EnvoyError(
                f"Envoy announced {page.total} rows, but page {number} is empty after {seen}; "
                "run again to read the list whole."
            )
        yield page
        if page.total is not None:
            ended = seen >= page.total
        else:
            # A first page that is short may be the last one, or the server's idea of a full one.
            full = page.size or max(full, len(ids))
            sure = number > 1 or page.size is not None or len(ids) >= page_size
            ended = not ids or (sure and len(ids) < full)
        if ended:
            return
