"""Pages, and single passes over lists that change."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.exceptions import RequestRejectedError
from tap_envoy.pagination import (
    MAX_DEPTH,
    DepthLimitError,
    Page,
    PageRequest,
    Paging,
    Pass,
    Proof,
    overlapping_pages,
)
from tap_envoy.prefetch import PrefetchPool

# Which pages are requested


@given(size=st.integers(1, 250), depth=st.none() | st.integers(1, 12_000))
def test_overlapping_pages_leave_no_row_out(size: int, depth: int | None) -> None:
    pages = [
        PageRequest(1, size),
        *islice(overlapping_pages(size, depth), 3000 if size < 11 else 40),
    ]
    for before, page in pairwise(pages):
        assert page.end - page.size <= before.end - (size > 10) < page.end <= (depth or page.end)
        assert size // 2 <= page.size <= size


@pytest.mark.parametrize(("rows", "requests"), [(950, 11), (10_000, 114), (100_000, 1_143)])
def test_overlapping_pages_cost_a_seventh_more_than_plain_ones(rows: int, requests: int) -> None:
    *_, before, last = islice(overlapping_pages(100, None), requests - 1)
    assert before.end < rows <= last.end


# Passes


class SequentialPool(PrefetchPool):
    """Makes a call when its result is needed, and records how many might be in flight by then."""

    def __init__(self) -> None:
        self.limits: list[int] = []
        self.latency = 1.0

    def ahead(self, function: Any, items: Any, limit: Any = None) -> Any:
        for item in items:
            self.limits.append(limit())
            yield item, function(item)


class Endpoint:
    """A list of numbers, which passes are made over."""

    def __init__(
        self, count: int, *, total: int | None = None, max_rows: int | None = None, **paging: Any
    ) -> None:
        self.rows = [*range(count)]
        self.total, self.max_rows = total, max_rows
        self.paging = Paging(**{"size": 100, **paging})
        self.pool = SequentialPool()
        self.requests: list[PageRequest] = []
        self.read_rows: set[int] = set()
        self.before: Callable[[int], None] = lambda _: None
        self.serve: Callable[[PageRequest], list[int]] = self.rows_of

    def rows_of(self, request: PageRequest) -> list[int]:
        return self.rows[request.end - request.size : request.end]

    def fetch(self, request: PageRequest) -> Page:
        self.requests.append(request)
        assert len(self.requests) < 500, "the pass does not end"
        self.before(len(self.requests))
        try:
            rows = self.serve(request)
        except RequestRejectedError as error:
            return Page([], rejection=error)
        return Page([{"id": str(row)} for row in rows], self.total)

    def read(self) -> Proof:
        """Make a pass; return what it proves."""
        self.requests, self.read_rows = [], set()
        made = Pass(self.paging, self.fetch, self.pool, self.max_rows)
        for page in made.read(self.fetch(PageRequest(1, self.paging.size))):
            self.read_rows |= {int(key) for key in page.ids}
        return made.proof

    def change_before(self, number: int, function: Callable[[list[int]], Any]) -> None:
        """Let the rows change before a request."""
        self.before = lambda n: function(self.rows) if n == number else None

    @property
    def missing(self) -> set[int]:
        return {*self.rows} - self.read_rows


def reject(status: int = 400) -> Any:
    raise RequestRejectedError("HTTP.", status=status, detail=": “no”")


@pytest.mark.parametrize(
    ("count", "without_total", "with_total", "with_larger_total"),
    [
        (0, 1, 1, 1),
        (2, 1, 1, 3),
        (3, 4, 1, 4),
        (60, 4, 1, 4),
        (100, 4, 2, 4),
        (101, 4, 2, 4),
        (250, 5, 3, 5),
    ],
)
def test_quiet_list_takes_few_requests(
    count: int, without_total: int, with_total: int, with_larger_total: int
) -> None:
    expected = {None: without_total, count: with_total, 400: with_larger_total}
    for total, requests in expected.items():
        endpoint = Endpoint(count, total=total)
        assert endpoint.read() is Proof.COMPLETE
        assert not endpoint.missing
        assert len(endpoint.requests) == requests


@pytest.mark.parametrize(("count", "requests"), [(25, 1), (26, 4)])
def test_page_is_a_list_if_it_is_a_quarter_of_the_largest(count: int, requests: int) -> None:
    endpoint = Endpoint(100)
    endpoint.read()
    endpoint.rows = [*range(count)]
    assert endpoint.read() is Proof.COMPLETE
    assert len(endpoint.requests) == requests


@given(count=st.integers(101, 400), position=st.floats(0, 0.999), request=st.integers(2, 6))
def test_deleted_row_is_noticed_if_another_is_missed(
    count: int, position: float, request: int
) -> None:
    endpoint = Endpoint(count)
    endpoint.change_before(request, lambda rows: rows.pop(int(position * len(rows))))
    assert endpoint.read() is Proof.TORN or not endpoint.missing


@pytest.mark.parametrize(
    ("change", "can_overlap", "proof"),
    [
        (lambda rows: rows.insert(0, 900), True, Proof.COMPLETE),  # no other row is missed
        (lambda rows: rows.insert(0, 900), False, Proof.TORN),  # a row is on two pages
        (lambda rows: rows.append(rows.pop(0)), True, Proof.TORN),  # the list moves up
        (lambda rows: rows.append(rows.pop(99)), True, Proof.TORN),  # the last row taken moves
        (lambda rows: rows.insert(150, rows.pop(50)) or rows.insert(0, 900), True, Proof.TORN),
        (lambda rows: rows.insert(0, rows.pop(99)), True, Proof.TORN),  # to the front
        (lambda rows: rows.__setitem__(slice(0, 0), range(900, 998)), True, Proof.TORN),
    ],
)
def test_pass_is_torn_if_rows_move(change: Any, proof: Proof, *, can_overlap: bool) -> None:
    endpoint = Endpoint(250, can_overlap=can_overlap)
    endpoint.change_before(2, change)
    assert endpoint.read() is proof


def test_row_that_moved_behind_a_page_which_came_early_is_noticed() -> None:
    endpoint = Endpoint(250)
    endpoint.change_before(5, lambda rows: rows.append(900))
    assert endpoint.read() is Proof.TORN  # the short page is requested again, after all others
    assert endpoint.requests[-1] == endpoint.requests[2] == PageRequest(3, 98)


def test_last_page_is_requested_again_if_the_total_changed() -> None:
    endpoint = Endpoint(250, total=250)

    def grow(rows: list[int]) -> None:
        rows.append(900)
        endpoint.total = 251

    endpoint.change_before(3, grow)
    assert endpoint.read() is Proof.COMPLETE
    assert endpoint.requests[-1] == endpoint.requests[-2] == PageRequest(3, 98)


@pytest.mark.parametrize("size", [30, 100, 250])
@pytest.mark.parametrize("count", [60, 130, 300, 760])
@pytest.mark.parametrize("has_total", [True, False])
def test_pages_of_one_size_are_read_plainly(count: int, size: int, *, has_total: bool) -> None:
    endpoint = Endpoint(count, total=count if has_total else None)
    endpoint.serve = lambda request: endpoint.rows_of(PageRequest(request.number, size))
    if endpoint.read() is Proof.TORN:
        assert len(endpoint.requests) == 2
        assert endpoint.paging.can_overlap == (count < 2 * size)
        endpoint.paging.can_overlap = False  # as the reader decides after two such passes
        assert endpoint.read() is not Proof.TORN
    assert not endpoint.missing


def test_rejected_page_size_turns_to_plain_pages() -> None:
    endpoint = Endpoint(300)
    endpoint.serve = lambda r: endpoint.rows_of(r) if r.size == 100 else reject()
    assert endpoint.read() is Proof.TORN
    assert endpoint.read() is Proof.UNCONFIRMED
    assert not endpoint.missing


@pytest.mark.parametrize(
    ("count", "total", "requests"), [(300, None, 4), (300, 300, 4), (250, 250, 3), (250, 400, 4)]
)
def test_plain_pages_end_with_an_empty_one_or_the_total(
    count: int, total: int | None, requests: int
) -> None:
    endpoint = Endpoint(count, total=total, can_overlap=False)
    assert endpoint.read() is Proof.UNCONFIRMED
    assert {request.size for request in endpoint.requests} == {100}
    assert (len(endpoint.requests), endpoint.missing) == (requests, set())


@pytest.mark.parametrize("size", [7, 20, 100])
@pytest.mark.parametrize("total", [400, None])
def test_rows_hidden_after_paging_do_not_end_a_list(size: int, total: int | None) -> None:
    hidden = {*range(3, 400, 11)}
    for can_overlap in (True, False):
        endpoint = Endpoint(400, total=total, size=size, can_overlap=can_overlap)
        endpoint.serve = lambda r: [row for row in endpoint.rows_of(r) if row not in hidden]  # noqa: B023
        assert endpoint.read() is Proof.TORN or endpoint.missing == hidden
    assert not endpoint.missing - hidden


# The end of a list and the depth limit


@pytest.mark.parametrize(("total", "hidden"), [(400, 0), (400, 1), (None, 0)])
@pytest.mark.parametrize("can_overlap", [True, False])
def test_rejected_page_before_the_end_is_too_deep(
    total: int | None, hidden: int, *, can_overlap: bool
) -> None:
    endpoint = Endpoint(400, total=total, can_overlap=can_overlap)
    endpoint.serve = lambda r: reject() if r.end > 300 else endpoint.rows_of(r)[hidden:]
    with pytest.raises(DepthLimitError) as caught:
        endpoint.read()
    rows = caught.value.rows
    assert rows == len(endpoint.read_rows) > 280
    assert str(caught.value) == (
        f"Envoy returned {rows} rows of a list that may have more: “no”; report this to the "
        "maintainers of the tap."
    )


@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize("hidden", [0, 10])
@pytest.mark.parametrize("total", [None, MAX_DEPTH, 10_050])
@pytest.mark.parametrize("can_overlap", [True, False])
def test_cap_is_not_the_end(
    hidden: int, total: int | None, *, is_empty: bool, can_overlap: bool
) -> None:
    endpoint = Endpoint(10_300, total=total, can_overlap=can_overlap)

    def serve(request: PageRequest) -> list[int]:
        if request.end > MAX_DEPTH and not is_empty:
            reject()
        rows = endpoint.rows_of(request)
        return [row for row in rows if row < MAX_DEPTH and not (hidden and row % hidden == 5)]

    endpoint.serve = serve
    with pytest.raises(DepthLimitError, match=r"may have more(: “no”)?; report this"):
        endpoint.read()


@pytest.mark.parametrize(
    ("count", "total"), [(9_700, None), (9_999, 9_999), (10_001, 10_001), (10_500, None)]
)
def test_list_near_the_cap_is_complete_if_its_total_says_so(count: int, total: int | None) -> None:
    endpoint = Endpoint(count, total=total)
    assert endpoint.read() is Proof.COMPLETE
    assert not endpoint.missing


@pytest.mark.parametrize("can_overlap", [True, False])
def test_list_without_a_total_is_read_up_to_the_limit(*, can_overlap: bool) -> None:
    endpoint = Endpoint(500, max_rows=300, can_overlap=can_overlap)
    with pytest.raises(DepthLimitError) as caught:
        endpoint.read()
    assert caught.value.rows == len(endpoint.read_rows) == endpoint.requests[-1].end
    assert 294 <= endpoint.requests[-1].end <= 300


@pytest.mark.parametrize(
    ("count", "total", "is_whole"),
    [
        (37, None, True),
        (130, None, True),
        (130, 130, True),
        (37, 38, False),
        (90, None, False),
        (100, None, False),
        (250, None, False),
        (7, None, False),
    ],
)
def test_page_that_repeats_the_first_is_the_list_unless_it_may_be_limited(
    count: int, total: int | None, *, is_whole: bool
) -> None:
    endpoint = Endpoint(count, total=total, size=7 if count == 7 else 100)
    endpoint.serve = lambda _: endpoint.rows
    with nullcontext() if is_whole else pytest.raises(DepthLimitError):
        assert endpoint.read() is Proof.COMPLETE
    assert not endpoint.missing


@pytest.mark.parametrize(
    ("total", "latency", "expected"),
    [(1000, 1, [8, 8, 7, 6]), (None, 1, [1, 2, 3, 4]), (1000, 0.05, [3] * 4), (1000, 0, [1] * 4)],
)
def test_pages_before_the_last_or_as_many_as_came_are_requested_ahead_if_slow(
    total: int | None, latency: float, expected: list[int]
) -> None:
    endpoint = Endpoint(1000, total=total)
    endpoint.pool.latency = latency
    endpoint.read()
    assert endpoint.pool.limits[:4] == expected
