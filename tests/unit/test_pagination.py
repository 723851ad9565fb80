"""The pages of one slice: which are requested, and when the slice is complete."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import (
    MAX_PASSES,
    EndpointBehavior,
    Page,
    PageRequest,
    Probes,
    SlicePaginator,
    overlapping_pages,
    plain_pages,
)

Serve = Callable[[PageRequest, list[str]], list[str]]


def take(pages: Any, count: int) -> list[tuple[int, int]]:
    return [(page.number, page.per_page) for page, _ in zip(pages, range(count), strict=False)]


# Plans


def test_page_knows_which_rows_it_holds() -> None:
    page = PageRequest(3, 98)
    assert (page.start, page.end) == (196, 294)


def test_plain_pages_lie_side_by_side() -> None:
    assert take(plain_pages(30, None), 4) == [(2, 30), (3, 30), (4, 30), (5, 30)]
    assert take(plain_pages(30, 90), 9) == [(2, 30), (3, 30)]
    assert take(plain_pages(30, 89), 9) == [(2, 30)]


def test_overlapping_pages_are_those_of_the_design() -> None:
    pages = take(overlapping_pages(100, 100, None), 12)
    assert pages[:9] == [(number, 101 - number) for number in range(2, 11)]
    assert pages[9:] == [(10, 100), (11, 99), (12, 98)]


@given(size=st.integers(3, 250), count=st.integers(1, 60))
def test_overlapping_pages_overlap_and_reach_further(size: int, count: int) -> None:
    end = size
    for page, _ in zip(overlapping_pages(size, size, None), range(count), strict=False):
        assert page.start < end < page.end
        assert (size + 1) // 2 - 1 <= page.per_page <= size
        others = [PageRequest((end - 1) // rows + 1, rows) for rows in range(size // 2, size + 1)]
        assert page.end == max(other.end for other in others)
        end = page.end


@given(size=st.integers(3, 120), depth=st.integers(3, 3000), gain=st.sampled_from([1, 50]))
def test_overlapping_pages_stay_within_the_depth_limit(size: int, depth: int, gain: int) -> None:
    pages = list(overlapping_pages(size, size, depth, min_gain=gain))
    assert all(page.end <= depth for page in pages)
    ends = [size, *(page.end for page in pages)]
    assert all(a < b for a, b in pairwise(ends))
    gains = [b - a for a, b in pairwise(ends) if depth - a < size]
    assert all(rows >= gain for rows in gains)


def test_page_that_ends_at_the_depth_limit_is_requested() -> None:
    assert take(overlapping_pages(100, 100, 198), 9) == [(2, 99)]
    assert take(overlapping_pages(100, 100, 197), 1) == [(2, 98)]


def test_overlapping_pages_cost_a_seventh_more_than_plain_ones() -> None:
    pages = list(overlapping_pages(100, 100, 9_999))
    assert len(pages) + 1 <= 1.145 * 100


# Passes over a list


class Endpoint:
    """A list that a paginator reads, one page after the other."""

    def __init__(
        self, rows: int, serve: Serve | None = None, *, total: int | None = None, **options: Any
    ) -> None:
        self.rows = [f"r-{number}" for number in range(rows)]
        self.total = total
        self.requests: list[PageRequest] = []
        self.passes = 1
        self.last_fruitful = 0
        self.emitted: list[str] = []
        self.before: Callable[[int], None] = lambda _: None
        self._time = options.pop("time", None)
        behavior = options.pop("behavior", None) or EndpointBehavior(100, first_page=1)
        self.behavior = behavior
        self.paginator = SlicePaginator(behavior, **options)
        self._serve = serve or serve_pages

    def read(self, limit: int = 500) -> list[str]:
        """Read passes until the slice is settled or too deep."""
        paginator = self.paginator
        while not paginator.is_settled and not paginator.is_too_deep:
            page = paginator.next_page()
            if page is None:
                assert paginator.is_done
                if not paginator.is_torn:
                    break
                paginator.restart()
                self.passes += 1
                continue
            self.requests.append(page)
            assert len(self.requests) <= limit, "the read does not end"
            self.before(len(self.requests))
            new = paginator.advance(page, self._answer(page))
            self.emitted += [row["id"] for row in new]
            self.last_fruitful = self.passes if new else self.last_fruitful
        return self.emitted

    def _answer(self, page: PageRequest) -> Page:
        try:
            records = [{"id": key, "at": self._time or key} for key in self._serve(page, self.rows)]
        except RequestRejectedError as error:
            return Page([], rejection=error)
        return Page(records, self.total)


def serve_pages(page: PageRequest, rows: list[str]) -> list[str]:
    return rows[page.start : page.end] if page.number else reject(400)


def reject(status: int) -> Any:
    raise RequestRejectedError("HTTP.", status=status, detail="")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 99, 100, 101, 199, 250, 1000])
@pytest.mark.parametrize("has_total", [True, False])
def test_quiet_list_is_settled_by_one_pass(count: int, *, has_total: bool) -> None:
    endpoint = Endpoint(count, total=count if has_total else None)
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled
    assert endpoint.passes == 1
    assert endpoint.behavior.can_overlap
    assert endpoint.paginator.first_id == (endpoint.rows[0] if count else None)
    assert endpoint.paginator.last_id == (endpoint.rows[-1] if count else None)


def test_page_that_is_known_to_be_short_is_the_last_one() -> None:
    endpoint = Endpoint(30, behavior=EndpointBehavior(100, first_page=1, largest_page=100))
    assert endpoint.read() == endpoint.rows
    assert len(endpoint.requests) == 1


def test_first_page_is_requested_alone() -> None:
    paginator = Endpoint(1000).paginator
    assert paginator.next_page() == PageRequest(1, 100)
    assert paginator.next_page() is None
    assert not paginator.is_done


def test_total_says_how_many_pages_are_requested_ahead() -> None:
    endpoint = Endpoint(1000, total=1000)
    paginator = endpoint.paginator
    first = paginator.next_page()
    assert first is not None
    paginator.advance(first, endpoint._answer(first))  # noqa: SLF001
    pages = []
    while (page := paginator.next_page()) is not None:
        pages.append(page)
    assert len(pages) == 9
    assert paginator.total == 1000


def test_without_a_total_few_pages_are_requested_ahead() -> None:
    endpoint = Endpoint(4000)
    paginator, ahead = endpoint.paginator, []
    for _ in range(31):
        page = paginator.next_page()
        assert page is not None
        waiting = [page]
        while (further := paginator.next_page()) is not None:
            waiting.append(further)
        ahead.append(len(waiting))
        for request in waiting:
            paginator.advance(request, endpoint._answer(request))  # noqa: SLF001
        if paginator.is_done:
            break
    assert ahead[:3] == [1, 1, 1]
    assert 3 <= max(ahead) <= 5


@given(
    count=st.integers(100, 400),
    position=st.floats(0, 0.999),
    request=st.integers(2, 6),
    kind=st.sampled_from(["insert", "delete"]),
    size=st.sampled_from([100, 20]),
)
def test_no_row_is_missed_when_one_is_inserted_or_deleted(
    count: int, position: float, request: int, kind: str, size: int
) -> None:
    endpoint = Endpoint(count, behavior=EndpointBehavior(size, first_page=1))
    gone = ""

    def change(number: int) -> None:
        nonlocal gone
        if number != request:
            return
        index = int(position * len(endpoint.rows))
        if kind == "insert":
            endpoint.rows.insert(index, "new")
        else:
            gone = endpoint.rows.pop(index)

    endpoint.before = change
    emitted = endpoint.read()
    assert len(emitted) == len(set(emitted))
    assert set(endpoint.rows) - {"new"} <= set(emitted)
    assert set(emitted) <= {*endpoint.rows, gone, "new"}


def test_deletion_within_the_overlap_is_read_again() -> None:
    endpoint = Endpoint(250)
    endpoint.before = lambda number: endpoint.rows.__delitem__(slice(5)) if number == 3 else None
    assert set(endpoint.read()) >= set(endpoint.rows)
    assert endpoint.passes == 2


@pytest.mark.parametrize(
    ("time_field", "time", "is_read_again"),
    [(None, None, False), ("at", None, False), ("at", "same", True)],
)
def test_deleted_row_of_the_overlap_is_distinguished_from_rows_that_change_places(
    time_field: str | None, time: str | None, *, is_read_again: bool
) -> None:
    """The fourth page begins with three known rows, of which one is missing."""
    endpoint = Endpoint(350, time=time, time_field=time_field)
    endpoint.before = lambda number: endpoint.rows.__delitem__(292) if number == 4 else None
    assert set(endpoint.read()) >= set(endpoint.rows)
    assert (endpoint.passes > 1) is is_read_again


@pytest.mark.parametrize("count", [350, 700])
def test_known_rows_in_another_order_are_read_again(count: int) -> None:
    endpoint = Endpoint(count)

    def change(number: int) -> None:
        if number == 4:
            endpoint.rows[291:294] = [endpoint.rows[292], endpoint.rows[291]]

    endpoint.before = change
    assert set(endpoint.read()) >= set(endpoint.rows)
    assert endpoint.passes > 1


def test_known_row_behind_a_new_one_is_no_proof_of_the_order() -> None:
    moved = ["9", "10", "11", "5", "12"]
    endpoint = Endpoint(
        14,
        lambda page, rows: (
            moved
            if (endpoint.passes, page.number) == (1, 2)
            else [key.removeprefix("r-") for key in rows[page.start : page.end]]
        ),
        behavior=EndpointBehavior(10, first_page=1),
    )
    assert "13" in endpoint.read()


def test_gap_in_the_middle_of_a_later_pass_is_read_again() -> None:
    """The first passes end at their gaps; the third goes on, and must not forget its own."""
    gaps = {(1, 3), (2, 3), (3, 5)}

    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        if (endpoint.passes, page.number) in gaps:
            del rows[:8]
        return rows[page.start : page.end]

    endpoint = Endpoint(800, serve)
    assert set(endpoint.read()) >= set(endpoint.rows)


def test_rows_that_no_page_has_are_missed_loudly() -> None:
    def skipping(page: PageRequest, rows: list[str]) -> list[str]:
        skipped = 5 if page.number > 2 else 0
        return rows[page.start + skipped : page.end + skipped]

    with pytest.raises(EnvoyError, match="kept changing"):
        Endpoint(800, skipping).read()


def test_list_that_never_settles_fails() -> None:
    endpoint = Endpoint(300)

    def change(_: int) -> None:
        endpoint.rows[:] = [f"{key}x" for key in endpoint.rows]

    endpoint.before = change
    with pytest.raises(EnvoyError, match="The list kept changing while it was read"):
        endpoint.read()
    assert endpoint.passes == MAX_PASSES == 30


@pytest.mark.parametrize("inserted", [1, 4])
def test_list_without_new_rows_that_does_not_settle_fails_after_five_passes(inserted: int) -> None:
    endpoint = Endpoint(60)

    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        present = [*rows, "new"] if endpoint.passes >= inserted else list(rows)
        if endpoint.passes > 1:  # of the rows seen before, each pass misses another one
            del present[endpoint.passes]
        return present[(page.number - 1) * 25 :][:25]

    endpoint = Endpoint(60, serve)
    with pytest.raises(EnvoyError, match=r"kept changing while it was read; run again later\.$"):
        endpoint.read()
    assert endpoint.passes == endpoint.last_fruitful + 5


def test_rows_in_random_order_fail_without_a_total() -> None:
    rng = random.Random(3)  # noqa: S311

    def shuffled(page: PageRequest, rows: list[str]) -> list[str]:
        rng.shuffle(rows)
        return rows[page.start : page.end]

    endpoint = Endpoint(300, shuffled)
    with pytest.raises(
        EnvoyError,
        match="^Envoy returns the rows in a different order each time, so that it is not certain "
        r"that all were read; run again later\.$",
    ):
        endpoint.read(5000)
    assert endpoint.passes == min(endpoint.last_fruitful + 15, MAX_PASSES)


def test_rows_in_random_order_are_settled_by_a_total() -> None:
    rng = random.Random(3)  # noqa: S311

    def shuffled(page: PageRequest, rows: list[str]) -> list[str]:
        rng.shuffle(rows)
        return rows[page.start : page.end]

    endpoint = Endpoint(150, shuffled, total=150)
    assert sorted(endpoint.read(5000)) == sorted(endpoint.rows)


def test_deleted_row_does_not_stand_in_for_a_missing_one() -> None:
    """Rows change places; the first two passes miss one, between them one goes and one comes."""
    pages = {
        (1, 1): "0 1 2 3 4 5 6 7 8 9",
        (1, 2): "9 0 10 11 12 gone",
        (2, 1): "0 1 2 3 4 5 6 7 8 9",
        (2, 2): "9 0 10 11 12 new",
        (3, 1): "0 1 2 3 4 5 6 7 8 9",
        (3, 2): "9 10 11 12 missing new",
    }
    endpoint = Endpoint(
        15,
        lambda page, _: pages[min(endpoint.passes, 3), page.number].split(),
        total=15,
        behavior=EndpointBehavior(10, first_page=1),
    )
    assert "missing" in endpoint.read()


def test_rows_that_total_promises_but_no_page_has_fail() -> None:
    endpoint = Endpoint(250, total=300)
    with pytest.raises(
        EnvoyError, match=r"reports 300 rows, but only 250 can be read; report this to Envoy\.$"
    ):
        endpoint.read()
    assert endpoint.passes == 2


@pytest.mark.parametrize("total", [0, 1, 3, 100, 249])
def test_total_that_is_too_small_is_ignored(total: int) -> None:
    endpoint = Endpoint(250, total=total)
    assert endpoint.read() == endpoint.rows
    assert not endpoint.behavior.has_credible_total
    assert endpoint.paginator.total is None


def test_total_without_effect_of_the_filter_is_ignored() -> None:
    endpoint = Endpoint(250, total=900, probes=Probes(count_others=lambda: 900))
    assert endpoint.read() == endpoint.rows
    assert endpoint.passes == 1
    assert not endpoint.behavior.has_credible_total


def test_total_that_the_filter_affects_is_believed() -> None:
    endpoint = Endpoint(250, total=300, probes=Probes(count_others=lambda: 900))
    with pytest.raises(EnvoyError, match="reports 300 rows"):
        endpoint.read()


# Other kinds of pages


@pytest.mark.parametrize("count", [3, 40, 41, 80, 130])
def test_clamped_pages_are_read(count: int) -> None:
    def clamped(page: PageRequest, rows: list[str]) -> list[str]:
        size = min(page.per_page, 40)
        return rows[(page.number - 1) * size :][:size]

    endpoint = Endpoint(count, clamped)
    assert endpoint.read() == endpoint.rows


@pytest.mark.parametrize("count", [3, 25, 26, 130])
@pytest.mark.parametrize("has_total", [True, False])
def test_pages_of_one_size_are_settled_by_two_passes(count: int, *, has_total: bool) -> None:
    def fixed(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[(page.number - 1) * 25 :][:25]

    endpoint = Endpoint(count, fixed, total=count if has_total else None)
    assert endpoint.read() == endpoint.rows
    assert endpoint.passes <= 4  # of which two tried to overlap
    assert endpoint.paginator.is_settled
    assert not endpoint.paginator.is_overlapping or count <= 25


@pytest.mark.parametrize("count", [26, 60, 75, 130])
@pytest.mark.parametrize("has_total", [True, False])
def test_pages_of_one_size_end_with_the_last_page_again(count: int, *, has_total: bool) -> None:
    def repeating(page: PageRequest, rows: list[str]) -> list[str]:
        last = (len(rows) - 1) // 25
        return rows[min(page.number - 1, last) * 25 :][:25]

    endpoint = Endpoint(count, repeating, total=count if has_total else None)
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_pages_too_small_to_overlap_at_each_depth_are_read(size: int) -> None:
    endpoint = Endpoint(130, behavior=EndpointBehavior(size, first_page=1))
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled


def test_page_sizes_that_are_not_accepted_are_not_requested_again() -> None:
    def strict(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[page.start : page.end] if page.per_page == 100 else reject(400)

    endpoint = Endpoint(250, strict)
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled
    assert sum(page.per_page != 100 for page in endpoint.requests) == 1


@pytest.mark.parametrize("status", [404, 400])
@pytest.mark.parametrize("count", [3, 99, 100, 101, 250])
def test_rejected_page_past_the_end_is_the_end(status: int, count: int) -> None:
    def strict(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[page.start : page.end] or reject(status)

    endpoint = Endpoint(count, strict, total=count)
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled


def test_rejected_page_before_the_end_is_too_deep() -> None:
    def capped(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[page.start : page.end] if page.end <= 300 else reject(400)

    endpoint = Endpoint(500, capped, total=500)
    assert endpoint.read() == endpoint.rows[: len(endpoint.emitted)]
    assert endpoint.paginator.is_too_deep
    assert endpoint.paginator.can_continue
    assert endpoint.paginator.rejection is not None
    assert len(endpoint.emitted) > 280


def test_total_of_one_page_does_not_explain_a_rejected_page() -> None:
    def capped(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[page.start : page.end] if page.end <= 100 else reject(400)

    endpoint = Endpoint(250, capped, total=100)
    endpoint.read()
    assert endpoint.paginator.is_too_deep
    assert not endpoint.paginator.is_settled


def test_list_is_read_up_to_the_cap_before_a_rejected_page() -> None:
    def capped(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[page.start : page.end] if page.end <= 1000 else reject(400)

    endpoint = Endpoint(1050, capped)
    assert endpoint.read() == endpoint.rows[:1000]
    assert endpoint.paginator.is_too_deep


def test_pages_that_do_not_overlap_must_agree_before_a_slice_can_follow() -> None:
    def fixed(page: PageRequest, rows: list[str]) -> list[str]:
        return rows[(page.number - 1) * 100 :][:100]

    behavior = EndpointBehavior(100, first_page=1, can_overlap=False)
    endpoint = Endpoint(900, fixed, behavior=behavior, max_depth=500)
    paginator = endpoint.paginator
    while not paginator.is_done:
        page = paginator.next_page()
        if page is not None:
            paginator.advance(page, endpoint._answer(page))  # noqa: SLF001
    assert paginator.is_torn
    assert not paginator.can_continue
    paginator.restart()
    endpoint.read()
    assert paginator.is_too_deep
    assert paginator.can_continue


def test_depth_limit_is_not_exceeded() -> None:
    endpoint = Endpoint(900, max_depth=500)
    endpoint.read()
    assert endpoint.passes == 1
    assert endpoint.behavior.can_overlap
    assert endpoint.paginator.is_too_deep
    assert endpoint.paginator.can_continue
    assert max(page.end for page in endpoint.requests) <= 500


@pytest.mark.parametrize("count", [3, 61, 101, 253])
def test_one_response_is_the_whole_list(count: int) -> None:
    endpoint = Endpoint(count, lambda _, rows: rows)
    assert endpoint.read() == endpoint.rows


@pytest.mark.parametrize("count", [60, 100, 250])
def test_one_response_of_a_round_number_of_rows_needs_evidence(count: int) -> None:
    def serve(_: PageRequest, rows: list[str]) -> list[str]:
        return rows

    with pytest.raises(
        EnvoyError,
        match=f"returned {count} rows, which may be the first of more; report this to the main",
    ):
        Endpoint(count, serve).read()
    assert len(Endpoint(count, serve, total=count).read()) == count
    endpoint = Endpoint(count, serve)
    endpoint = Endpoint(count, serve, probes=Probes(reversed_ids=lambda: endpoint.rows[::-1]))
    assert len(endpoint.read()) == count


def test_one_response_that_changes_before_it_is_proven_is_requested_again() -> None:
    def newest() -> list[str]:
        if endpoint.passes == 1:
            endpoint.rows.append("new")
        return endpoint.rows[::-1]

    endpoint = Endpoint(60, lambda _, rows: list(rows), probes=Probes(reversed_ids=newest))
    assert endpoint.read() == endpoint.rows
    assert "new" in endpoint.rows


def test_one_page_of_more_rows_is_not_the_whole_list() -> None:
    def first_page(_: PageRequest, rows: list[str]) -> list[str]:
        return rows[:60]

    def newest() -> list[str]:
        return [f"r-{number}" for number in range(200, 140, -1)]

    with pytest.raises(EnvoyError, match="returned 60 rows"):
        Endpoint(200, first_page, probes=Probes(reversed_ids=newest)).read()
    with pytest.raises(EnvoyError, match="returned 60 rows"):
        Endpoint(200, first_page, total=200).read()


def test_groups_that_fill_the_page_are_not_the_whole_list() -> None:
    """In descending order, the first page brings the same rows in another order."""
    endpoint = Endpoint(
        200,
        lambda _, rows: rows[:60],
        total=200,
        probes=Probes(reversed_ids=lambda: [f"r-{number}" for number in range(59, -1, -1)]),
    )
    with pytest.raises(EnvoyError, match="returned 60 rows"):
        endpoint.read()


def test_first_page_for_ever_fails() -> None:
    with pytest.raises(EnvoyError, match="ignores or rejects `page`"):
        Endpoint(300, lambda page, rows: rows[: page.per_page]).read()


@pytest.mark.parametrize("count", [0, 3, 7, 60])
def test_endpoint_without_page_parameter_has_one_response(count: int) -> None:
    behavior = EndpointBehavior(100, is_paged=False)
    endpoint = Endpoint(count, behavior=behavior, total=count)
    assert endpoint.read() == endpoint.rows
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("first", "is_whole"),
    [
        (Page([{"id": "r-0"}], total=60), True),
        (Page([{"id": "r-0"}], total=1), False),
        (Page([{"id": f"r-{number}"} for number in range(60)], total=60), False),
    ],
    ids=["total of the list", "total of the page", "`perPage` has no effect"],
)
def test_total_of_a_single_response_is_believed_if_one_row_has_the_same(
    first: Page, *, is_whole: bool
) -> None:
    endpoint = Endpoint(
        60,
        behavior=EndpointBehavior(100, is_paged=False),
        total=60,
        probes=Probes(first_row=lambda: first),
    )
    if is_whole:
        assert endpoint.read() == endpoint.rows
        return
    with pytest.raises(EnvoyError, match="returned 60 rows"):
        endpoint.read()


# Short pages, and caps


def hides(page: PageRequest, rows: list[str]) -> list[str]:
    """Serve pages of which one row in 37 is hidden afterwards."""
    return [row for row in serve_pages(page, rows) if int(row[2:]) % 37]


@pytest.mark.parametrize("per_page", [50, 100])
@pytest.mark.parametrize("count", [38, 120, 875])
def test_short_page_without_a_total_does_not_end_a_list(count: int, per_page: int) -> None:
    endpoint = Endpoint(count, hides, behavior=EndpointBehavior(per_page, first_page=1))
    assert set(endpoint.read(2000)) == set(hides(PageRequest(1, count), endpoint.rows))
    assert endpoint.paginator.is_settled


@pytest.mark.parametrize("status", [404, 400])
def test_rejected_page_after_a_short_one_ends_the_list(status: int) -> None:
    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        return serve_pages(page, rows) or reject(status)

    endpoint = Endpoint(250, serve)
    assert endpoint.read() == endpoint.rows
    assert endpoint.paginator.is_settled
    assert endpoint.passes == 1


@pytest.mark.parametrize("beyond", [list, lambda: reject(404)], ids=["empty", "404"])
def test_cap_is_not_taken_for_the_end_of_a_list(beyond: Callable[[], list[str]]) -> None:
    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        return serve_pages(page, rows) if page.end <= 300 else beyond()

    endpoint = Endpoint(900, serve)
    endpoint.read()
    assert endpoint.paginator.is_too_deep
    assert not endpoint.paginator.is_settled


def test_total_that_is_capped_with_the_depth_is_not_the_end() -> None:
    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        return serve_pages(page, rows) if page.end <= 300 else reject(400)

    endpoint = Endpoint(900, serve, total=300, max_depth=300)
    endpoint.read()
    assert endpoint.paginator.is_too_deep


# Numbering


def from_zero(behavior: EndpointBehavior) -> Serve:
    """Serve pages counted from 0, requested as the reader does."""

    def serve(page: PageRequest, rows: list[str]) -> list[str]:
        index = page.number - 1 if behavior.first_page == 0 and page.number else page.number
        return rows[index * page.per_page :][: page.per_page]

    return serve


@pytest.mark.parametrize("count", [0, 1, 3, 60, 100, 101, 150, 199, 200, 201, 350])
@pytest.mark.parametrize("has_total", [True, False])
def test_pages_counted_from_zero_are_noticed(count: int, *, has_total: bool) -> None:
    behavior = EndpointBehavior(100)
    total = count if has_total else None
    endpoint = Endpoint(count, from_zero(behavior), behavior=behavior, total=total)
    assert sorted(endpoint.read()) == sorted(endpoint.rows)
    assert behavior.first_page == (0 if count else None)


@pytest.mark.parametrize(
    ("size", "deleted"), [*((100, count) for count in range(1, 13)), (40, 5), (20, 3), (7, 1)]
)
def test_deletions_do_not_hide_that_pages_count_from_zero(size: int, deleted: int) -> None:
    behavior = EndpointBehavior(size)
    endpoint = Endpoint(400, from_zero(behavior), behavior=behavior)
    endpoint.before = lambda n: endpoint.rows.__delitem__(slice(deleted)) if n == 2 else None
    assert set(endpoint.read()) >= set(endpoint.rows)
    assert behavior.first_page == 0


@pytest.mark.parametrize("count", [26, 30, 60, 75])
@pytest.mark.parametrize("has_total", [True, False])
def test_pages_of_one_size_counted_from_zero_are_noticed(count: int, *, has_total: bool) -> None:
    behavior = EndpointBehavior(100)

    def fixed(page: PageRequest, rows: list[str]) -> list[str]:
        return from_zero(behavior)(PageRequest(page.number, 25), rows)

    total = count if has_total else None
    endpoint = Endpoint(count, fixed, behavior=behavior, total=total)
    assert sorted(endpoint.read()) == sorted(endpoint.rows)
    assert behavior.first_page == 0


@pytest.mark.parametrize("count", [1, 2])
def test_numbering_of_a_list_as_short_as_its_total_is_not_checked(count: int) -> None:
    endpoint = Endpoint(count, behavior=EndpointBehavior(100), total=count)
    assert endpoint.read() == endpoint.rows
    assert [page.number for page in endpoint.requests] == [1, 2]


def test_empty_list_is_settled_by_the_check_of_its_numbering() -> None:
    endpoint = Endpoint(0, behavior=EndpointBehavior(100))
    assert endpoint.read() == []
    assert endpoint.paginator.is_settled
    assert [page.number for page in endpoint.requests] == [1, 0]


def test_page_zero_like_page_one_proves_that_pages_count_from_one() -> None:
    behavior = EndpointBehavior(100)
    first = PageRequest(1, 100)
    endpoint = Endpoint(
        60, lambda page, rows: serve_pages(page if page.number else first, rows), behavior=behavior
    )
    endpoint.before = lambda n: endpoint.rows.__delitem__(59) if n == 2 else None
    assert set(endpoint.read()) >= set(endpoint.rows)
    assert behavior.first_page == 1


@pytest.mark.parametrize("count", [140, 250, 1000])
def test_full_second_page_proves_that_pages_count_from_one(count: int) -> None:
    behavior = EndpointBehavior(100)
    endpoint = Endpoint(count, behavior=behavior)
    assert endpoint.read() == endpoint.rows
    assert all(page.number for page in endpoint.requests)
    assert behavior.first_page == (1 if count > 150 else None)


@pytest.mark.parametrize("count", [0, 60])
def test_rejected_page_zero_proves_that_pages_count_from_one(count: int) -> None:
    behavior = EndpointBehavior(100)
    endpoint = Endpoint(count, lambda p, rows: serve_pages(p, rows[::-1]), behavior=behavior)
    endpoint.before = lambda n: endpoint.rows.reverse() if n == 2 else None
    assert sorted(endpoint.read()) == sorted(endpoint.rows)
    assert behavior.first_page == 1
