"""The order of a list is proven by counts, by its newest row, and by rows that alternate."""

from typing import Any

import pytest

from tap_envoy.pagination import EndpointBehavior, Page, SlicePaginator
from tap_envoy.slices import SortedSlicer, StreamSlice
from tap_envoy.sort_order import SortOrder

SLICER = SortedSlicer("at", start_param="after")
PART = StreamSlice()
FIRST, LATER = "2024-05-17T12:00:00.000Z", "2024-05-18T12:00:00.000Z"


def first_page(total: int | None) -> SlicePaginator:
    """Return a paginator that has read 100 rows of a list."""
    paginator = SlicePaginator(EndpointBehavior(100, first_page=1))
    request = paginator.next_page()
    assert request is not None
    rows: list[dict[str, Any]] = [{"id": str(number), "at": FIRST} for number in range(100)]
    paginator.advance(request, Page(rows, total))
    return paginator


def create_order(newer: int | None, newest: dict[str, Any] | None = None) -> SortOrder:
    return SortOrder(SLICER, lambda _: newer, lambda _: newest)


@pytest.mark.parametrize(
    ("locations", "flows", "moves"),
    [
        ("1212121", "aaaaaaa", True),
        ("1212121", "abababa", True),
        ("1111111", "aaaaaaa", False),  # there may be other locations, further on
        ("1122222", "aabbbbb", False),
        ("1212121", "abcdefg", False),  # flow by flow
        ("1211111", "abaaaaa", False),  # one return may be a new row
    ],
)
def test_bookmark_follows_rows_once_they_alternate(
    locations: str, flows: str, *, moves: bool
) -> None:
    order, paginator = create_order(newer=100), first_page(total=200)
    order.note([{"locationId": x, "flowId": y} for x, y in zip(locations, flows, strict=True)])
    assert order.bookmark(PART, paginator, FIRST, 499) is None
    assert order.bookmark(PART, paginator, FIRST, 500) == FIRST
    assert order.bookmark(PART, paginator, LATER, 600) == (LATER if moves else FIRST)


def test_bookmark_follows_rows_without_groups() -> None:
    order, paginator = create_order(newer=100), first_page(total=200)
    order.note([{"locationId": None}, {}])
    assert order.bookmark(PART, paginator, FIRST, 500) == FIRST
    assert order.bookmark(PART, paginator, LATER, 600) == LATER


@pytest.mark.parametrize(
    ("total", "newer", "is_sorted"),
    [
        (200, 100, True),
        (200, 101, True),  # the overlap counts as newer
        (200, 99, False),
        (10_000, 99, False),
        (200, None, False),
        (None, 100, False),
        (200, 190, False),  # the filter has no effect on the total
    ],
)
def test_counts_prove_the_order(total: int | None, newer: int | None, *, is_sorted: bool) -> None:
    order = create_order(newer)
    assert order.prove(PART, first_page(total), FIRST) == is_sorted


@pytest.mark.parametrize(
    ("newest", "is_sorted"),
    [
        ({"id": "900", "at": LATER}, True),
        ({"id": "900", "at": FIRST}, True),
        ({"id": "900", "at": "2024-05-16T12:00:00.000Z"}, False),
        ({"id": "900", "at": None}, False),
        ({"id": "0", "at": FIRST}, False),  # ascending again
        ({"id": "99", "at": FIRST}, True),  # the last row
        (None, False),
    ],
)
def test_newest_row_proves_the_order_without_counts(
    newest: dict[str, Any] | None, *, is_sorted: bool
) -> None:
    order = create_order(None, newest)
    assert order.prove(PART, first_page(None), FIRST) == is_sorted


def test_last_row_proves_no_order_of_a_list_that_may_be_grouped() -> None:
    order = create_order(None, {"id": "99", "at": FIRST})
    order.note([{"locationId": "1"}])
    assert not order.prove(PART, first_page(None), FIRST)
