"""The reading core, against endpoints simulated within the test."""

import random
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tap_envoy.pagination import Page
from tap_envoy.prefetch import PrefetchPool
from tests.random_cases import CHOICES, random_case, rows_of
from tests.sandbox import RESOURCES, Change, Quirks, data
from tests.sandbox.timestamps import format_time
from tests.unit.simulated_endpoint import (
    assert_complete,
    assert_nothing_lost,
    create_reader,
    simulate,
)

# Any list


@given(rng=st.randoms(use_true_random=False))
@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_list_is_read_completely_or_fails_loudly(rng: random.Random) -> None:
    case = random_case(rng)
    note(case.description)
    outcome = simulate(**case.arguments, limit=3000)
    assert_nothing_lost(outcome)
    if not (outcome.warnings or case.quirks.max_rows or case.quirks.max_pages):
        # Only the ids of the last two slices are kept: a read that begins again without a filter,
        # and windows that are halved, may emit a row twice.
        assert len(set(outcome.ids)) == len(outcome.ids)


# Each quirk alone

OUT_OF_REACH = "refused to return more than"
NOT_PAGED = "ignores or rejects `page`"
WITHOUT_TIME_FILTER = ("employees", "flows", "spaces")

LOUD: dict[tuple[str, Any], dict[str, str]] = {
    # Rows beyond the first page, or beyond a cap, are out of reach without a filter by time.
    ("max_rows", 100): dict.fromkeys(WITHOUT_TIME_FILTER, OUT_OF_REACH),
    ("max_rows", 200): dict.fromkeys(WITHOUT_TIME_FILTER, OUT_OF_REACH),
    ("rejected", "page"): dict.fromkeys(WITHOUT_TIME_FILTER, NOT_PAGED),
    ("ignored", "page"): dict.fromkeys(WITHOUT_TIME_FILTER, NOT_PAGED),
    # Envoy returns some rows alone where it gets no filter.
    ("rejected", "type"): {"spaces": "does not accept `type`"},
    ("rejected", "startTime"): {"reservations": "does not accept `startTime`"},
    ("rejected", "endTime"): {"reservations": "does not accept `startTime`"},
}
"""The reasons for which a stream of 230 rows may fail, by quirk."""


def single_quirks(stream: str) -> Iterator[tuple[str, Any]]:
    for name in sorted(RESOURCES[stream].parameters):
        yield "rejected", name
        yield "ignored", name
    for size in (50, 25, 10):
        yield "max_per_page_accepted", size
    for quirk, values in CHOICES.items():
        for value in values:
            yield quirk, value


@pytest.mark.parametrize("stream", RESOURCES)
def test_single_quirk_is_read_completely_or_fails_for_its_reason(stream: str) -> None:
    rows = rows_of(stream, 230)
    start = datetime.now(UTC) - timedelta(days=70) if stream == "reservations" else None
    for quirk, value in single_quirks(stream):
        options: dict[str, Any] = {quirk: {value} if quirk in {"rejected", "ignored"} else value}
        quirks = Quirks(**options)
        outcome = simulate(stream, rows, quirks, start=start, in_flight=3, limit=3000)
        assert_nothing_lost(outcome)
        reason = LOUD.get((quirk, value), {}).get(stream)
        if outcome.error:
            assert reason, f"{quirk}={value}: {outcome.error}"
            assert reason in outcome.error, f"{quirk}={value}"


def test_rejected_required_filter_fails_after_the_rows() -> None:
    outcome = simulate("spaces", rows_of("spaces", 60), Quirks(rejected={"type"}))
    assert len(outcome.rows) == 60  # the desks
    assert outcome.error is not None


def test_rejected_rooms_are_skipped_with_one_warning() -> None:
    outcome = simulate("spaces", rows_of("spaces", 60), Quirks(rejected={"type=ROOM"}))
    assert outcome.error is None
    assert outcome.missing == {f"r-{100_000 + number}" for number in range(15)}
    (warning,) = outcome.warnings
    assert "`type=ROOM`" in warning
    assert "“no”" in warning


@pytest.mark.parametrize("stream", [s for s in RESOURCES if s not in {"reservations", "spaces"}])
def test_bare_request_is_the_last_resort(stream: str) -> None:
    rows, rejected = rows_of(stream, 7), RESOURCES[stream].parameters
    outcome = simulate(stream, rows, Quirks(rejected=rejected))
    assert_complete(outcome)
    assert outcome.requests[-1] == {}
    (warning,) = outcome.warnings
    assert "“no”" in warning
    assert "`page` and `perPage`" in warning


@pytest.mark.parametrize("stream", ["entries", "invites", "locations", "flows", "employees"])
@pytest.mark.parametrize("name", ["sort", "order", "perPage"])
@pytest.mark.parametrize("status", [400, 422])
def test_rejected_parameter_is_warned_of_once_and_quoted(
    stream: str, name: str, status: int
) -> None:
    quirks = Quirks(rejected={name}, rejected_status=status)
    outcome = simulate(stream, rows_of(stream, 230), quirks, in_flight=3)
    assert_complete(outcome)
    warnings = [text for text in outcome.warnings if f"HTTP {status}" in text]
    assert len(warnings) == 1
    assert f"`{name}`" in warnings[0]
    assert "“no”" in warnings[0]


# A start date where the filter does not work


@pytest.mark.parametrize("stream", ["entries", "invites", "work_schedules"])
@pytest.mark.parametrize("how", ["rejected", "ignored"])
def test_unusable_filter_leaves_older_rows_out(stream: str, how: str) -> None:
    names = {"signedInAtAfter", "createdAtAfter"} & RESOURCES[stream].parameters
    start = data.START + timedelta(hours=200)
    rows = rows_of(stream, 400)
    quirks: dict[str, Any] = {how: names}
    outcome = simulate(stream, rows, Quirks(**quirks), start=start)
    assert_complete(outcome)
    assert len(outcome.rows) == len(outcome.wanted) < 310
    assert outcome.warnings
    assert outcome.bookmark == max(filter(None, outcome.wanted.values()))


# Depth


@pytest.mark.parametrize("count", [1990, 2000])
def test_list_as_long_as_the_last_page_allowed_is_read(count: int) -> None:
    """Overlapping pages have higher numbers than plain ones, so that a cap of pages meets them."""
    assert_complete(simulate("flows", rows_of("flows", count), Quirks(max_pages=20), in_flight=8))


def test_cap_of_a_clamped_list_is_not_its_end() -> None:
    outcome = simulate("spaces", rows_of("spaces", 101), Quirks(clamp=40, max_rows=100))
    assert outcome.error is not None
    assert "refused to return more than 80 rows" in outcome.error


@pytest.mark.parametrize("stream", ["entries", "invites", "locations", "work_schedules"])
@pytest.mark.parametrize("cap", [{"max_rows": 300}, {"max_pages": 4}, {"max_pages": 7}], ids=str)
def test_caps_are_met_by_slices(stream: str, cap: dict[str, Any]) -> None:
    outcome = simulate(stream, rows_of(stream, 1500, minutes=30), Quirks(**cap), in_flight=3)
    assert outcome.error is None
    assert_nothing_lost(outcome)


def test_too_many_rows_of_one_time_fail() -> None:
    rows = rows_of("entries", 600, minutes=0)
    outcome = simulate("entries", rows, Quirks(max_rows=300))
    assert outcome.error is not None
    assert "refused to return more than" in outcome.error


@pytest.mark.parametrize("past_end", [404, 400])
def test_list_that_shrinks_so_that_a_page_is_rejected_is_read_again(past_end: Any) -> None:
    changes = [Change("employees", 2, "delete", 0.99)] * 5
    rows, quirks = rows_of("employees", 200), Quirks(past_end=past_end)
    assert_complete(simulate("employees", rows, quirks, changes=changes))


# Order


@pytest.mark.parametrize("reverses", [False, True])
@pytest.mark.parametrize("meta", ["honest", "missing"])
def test_interrupted_run_of_a_grouped_list_misses_nothing(meta: Any, *, reverses: bool) -> None:
    stream, rows = "entries", rows_of("entries", 1300)
    quirks = Quirks(order="grouped", grouped_reverses=reverses, meta=meta)
    ids = {row["id"] for row in rows}
    whole = simulate(stream, rows, quirks, in_flight=3)
    assert_complete(whole)
    for count in range(1, len(whole.bookmarks), 3):
        first = simulate(stream, rows, quirks, in_flight=3, stop_after=count)
        assert not first.passed_by_bookmark
        if first.bookmark:  # without one, the next run reads all
            start = datetime.fromisoformat(first.bookmark)
            second = simulate(stream, rows, quirks, start=start, in_flight=3)
            assert second.error is None
            assert ids <= {*first.ids, *second.ids}


@pytest.mark.parametrize("changes", [(), (Change("entries", 3, "delete", 0.1),)], ids=len)
def test_bookmark_does_not_move_where_only_the_newest_row_speaks_for_the_order(
    changes: tuple[Change, ...],
) -> None:
    quirks = Quirks(order="grouped", meta="missing", max_rows=0 if changes else 300)
    outcome = simulate("entries", rows_of("entries", 1600), quirks, changes=changes)
    assert_nothing_lost(outcome)


@pytest.mark.parametrize("meta", ["honest", "missing"])
def test_interrupted_run_of_a_list_whose_later_groups_begin_later_misses_nothing(meta: Any) -> None:
    """Where the order is proven first, the list is sorted so far."""
    first, second = ([{**r, "locationId": x} for r in rows_of("entries", 1500)] for x in "12")
    rows = first + [{**row, "id": f"b{row['id']}"} for row in second[900:]]
    for count in range(1, 30):
        quirks = Quirks(order="grouped", meta=meta)
        assert not simulate("entries", rows, quirks, stop_after=count).passed_by_bookmark


@pytest.mark.parametrize("quirks", [{"fixed_size": 50}, {"rejected": {"perPage"}}], ids=str)
def test_bookmark_does_not_pass_rows_that_plain_pages_may_have_missed(
    quirks: dict[str, Any],
) -> None:
    changes = [Change("entries", 9, "delete", number) for number in (0, 1, 2)]
    outcome = simulate("entries", rows_of("entries", 1500), Quirks(**quirks), changes=changes)
    assert outcome.error is None
    assert_nothing_lost(outcome)


@pytest.mark.parametrize("seed", range(12))
def test_bookmark_does_not_pass_rows_that_change_places(seed: int) -> None:
    rows = rows_of("entries", 1300)
    for row in rows[650:950]:
        row["signedInAt"] = rows[650]["signedInAt"]
    outcome = simulate("entries", rows, Quirks(unstable=True, meta="missing"), seed=seed)
    assert not outcome.passed_by_bookmark


@pytest.mark.parametrize(("sites", "meta"), [(3, "honest"), (3, "missing"), (1, "honest")])
def test_bookmark_moves_while_a_list_is_read(sites: int, meta: Any) -> None:
    rows = [
        {**row, "locationId": f"100{number % sites}"}
        for number, row in enumerate(rows_of("entries", 3000))
    ]
    outcome = simulate("entries", rows, Quirks(meta=meta))
    marks = [bookmark for count, bookmark in outcome.bookmarks if 700 < count < 3000]
    assert all(marks)
    assert len(set(marks)) >= (20 if sites > 1 else 2)


@pytest.mark.parametrize("stream", ["entries", "invites"])
def test_interrupted_run_of_a_sorted_list_has_a_recent_bookmark(stream: str) -> None:
    rows = rows_of(stream, 1600)
    for count in range(1, 16, 2):
        outcome = simulate(stream, rows, in_flight=3, stop_after=count)
        assert not outcome.passed_by_bookmark
        if len(outcome.rows) > 700:
            assert outcome.bookmark is not None
            behind = [row for row in outcome.rows if row[KEYS[stream]] > outcome.bookmark]
            assert len(behind) <= 300


KEYS = {"entries": "signedInAt", "invites": "createdAt"}


@pytest.mark.parametrize("stream", ["entries", "invites", "locations"])
def test_descending_list_is_read_as_a_whole(stream: str) -> None:
    outcome = simulate(stream, rows_of(stream, 900), Quirks(order="descending"), in_flight=3)
    assert_complete(outcome)
    (warning,) = outcome.warnings
    assert "does not sort" in warning
    if stream in KEYS:
        assert outcome.bookmark == max(filter(None, outcome.wanted.values()))


def test_bookmark_of_a_wrong_assumption_is_reset() -> None:
    """The list looks sorted for more rows than it takes to prove it, and then does not."""
    rows = rows_of("entries", 1200)
    late = [{**row, "id": f"late-{row['id']}"} for row in rows[:50]]
    changes = [Change("entries", 11, "insert", 1.0, row) for row in late]
    outcome = simulate("entries", rows, Quirks(ignored={"sort"}), changes=changes)
    assert outcome.error is None
    assert_nothing_lost(outcome)


@pytest.mark.parametrize("stream", ["entries", "employees", "spaces"])
@pytest.mark.parametrize("seed", range(4))
def test_rows_of_one_time_in_changing_order_are_all_read_or_it_fails(
    stream: str, seed: int
) -> None:
    rows = rows_of(stream, 60)
    if stream == "entries":
        rows += [
            {**row, "id": f"same-{number}"}
            for number, row in enumerate(rows_of("entries", 400, minutes=0))
        ]
    outcome = simulate(stream, rows, Quirks(unstable=True), in_flight=3, seed=seed)
    assert_nothing_lost(outcome)


def test_hundreds_of_equal_times_in_a_stable_order_are_read() -> None:
    rows = rows_of("entries", 700, minutes=0) + [
        {**row, "id": f"later-{row['id']}"} for row in rows_of("entries", 300)
    ]
    assert_complete(simulate("entries", rows, in_flight=3))


# Values


@pytest.mark.parametrize("timestamps", CHOICES["timestamps"])
@pytest.mark.parametrize("inclusive", [True, False])
def test_timestamps_in_any_format_are_read(timestamps: Any, *, inclusive: bool) -> None:
    quirks = Quirks(timestamps=timestamps, inclusive=inclusive, whole_seconds=True, max_rows=300)
    outcome = simulate("entries", rows_of("entries", 900), quirks, in_flight=3)
    assert_complete(outcome)
    assert all(row["signedInAt"].endswith("Z") for row in outcome.rows)


@pytest.mark.parametrize("stream", RESOURCES)
def test_numeric_ids_become_strings(stream: str) -> None:
    outcome = simulate(stream, rows_of(stream, 60), Quirks(numeric_ids=True))
    assert_complete(outcome)
    assert all(key.isdecimal() for key in outcome.ids)


@pytest.mark.parametrize("window", ["begins", "overlaps", "within"])
@pytest.mark.parametrize("days", [0.5, 5, 14.9])
def test_reservations_are_read_whatever_a_window_means(window: Any, days: float) -> None:
    now = datetime.now(UTC)
    rows = data.reservations(200, now - timedelta(days=60), hours=12)
    for row in rows:
        begin = datetime.fromisoformat(row["startTime"])
        row["endTime"] = format_time(begin + timedelta(days=days))
    outcome = simulate("reservations", rows, Quirks(window=window), start=now - timedelta(days=70))
    assert_complete(outcome)


@pytest.mark.parametrize("slow_jobs", range(4, 24))
def test_responses_that_become_fast_do_not_stop_a_stream(slow_jobs: int) -> None:
    """Pages of later windows are under way when one at a time begins to be enough."""
    outcome = simulate(
        "reservations",
        data.reservations(160),
        page_size=10,
        start=datetime.now(UTC) - timedelta(days=200),
        in_flight=8,
        slow_jobs=slow_jobs,
    )
    assert_complete(outcome)


@pytest.mark.parametrize("window", ["begins", "overlaps", "within"])
def test_long_reservation_across_halves_of_a_window_is_read(window: Any) -> None:
    """It is not among the rows that came before the window was halved, but another one comes."""
    now = datetime.now(UTC)
    rows = data.reservations(700, now - timedelta(days=58), hours=2)
    for first in (43, 20):
        begin, end = (format_time(now - timedelta(days=days)) for days in (first, first - 6))
        rows.append({**rows[0], "id": f"d-{first}", "startTime": begin, "endTime": end})
    quirks = Quirks(window=window, max_rows=300)
    outcome = simulate("reservations", rows, quirks, start=now - timedelta(days=70))
    assert outcome.error is None
    assert not outcome.missing


def test_total_of_one_response_is_not_that_of_the_list() -> None:
    quirks = Quirks(rejected={"page", "sort", "perPage"}, total="page")
    outcome = simulate("entries", rows_of("entries", 250), quirks)
    assert outcome.error is not None
    assert_nothing_lost(outcome)


def test_rooms_that_are_desks_again_are_reported() -> None:
    outcome = simulate("spaces", rows_of("spaces", 60), Quirks(ignored={"type"}))
    assert_complete(outcome)
    assert outcome.warnings == ["Envoy ignores `type=ROOM`; check that such rows are not missing."]


@pytest.mark.parametrize("window", ["begins", "overlaps", "within"])
@pytest.mark.parametrize("rejected", ["startTime", "endTime"])
def test_reservations_by_default_are_not_taken_for_all(window: Any, rejected: str) -> None:
    """A booking that began before the default window does not show that there is none."""
    now = datetime.now(UTC)
    rows = data.reservations(100, now - timedelta(days=40), hours=10)
    for row in rows:
        begin = datetime.fromisoformat(row["startTime"])
        row["endTime"] = format_time(begin + timedelta(days=20))
    quirks = Quirks(window=window, rejected={rejected})
    outcome = simulate("reservations", rows, quirks, start=now - timedelta(days=70))
    assert_nothing_lost(outcome)


# Pages


@pytest.mark.parametrize("stream", ["locations", "entries", "flows", "work_schedules", "spaces"])
@pytest.mark.parametrize("past_end", ["empty", 404, 400, "repeat"])
def test_list_numbered_from_zero_is_read(stream: str, past_end: Any) -> None:
    quirks = Quirks(first_page=0, past_end=past_end)
    for count in (0, 1, 2, 3, 60, 99, 100, 101, 199, 200, 201, 250):
        assert_complete(simulate(stream, rows_of(stream, count), quirks))


@pytest.mark.parametrize("stream", ["entries", "flows", "spaces", "work_schedules"])
@pytest.mark.parametrize("past_end", ["empty", 404, 400, "repeat"])
@pytest.mark.parametrize("sizes", [{}, {"clamp": 25}, {"fixed_size": 25}], ids=str)
def test_pages_past_the_end_end_the_list(stream: str, past_end: Any, sizes: dict[str, Any]) -> None:
    quirks = Quirks(past_end=past_end, **sizes)
    for count in (0, 1, 2, 3, 25, 60, 99, 100, 101, 200):
        assert_complete(simulate(stream, rows_of(stream, count), quirks))


@pytest.mark.parametrize("stream", ["locations", "entries", "flows", "companies", "spaces"])
@pytest.mark.parametrize("count", [0, 1, 3, 60, 100, 120, 250])
def test_list_in_one_response_is_read(stream: str, count: int) -> None:
    assert_complete(simulate(stream, rows_of(stream, count), Quirks(single_response=True)))


@pytest.mark.parametrize("stream", RESOURCES)
@pytest.mark.parametrize("meta", ["honest", "missing"])
def test_empty_list_without_page_parameter_is_empty(stream: str, meta: Any) -> None:
    start = datetime.now(UTC) - timedelta(days=70) if stream == "reservations" else None
    assert_complete(simulate(stream, [], Quirks(rejected={"page"}, meta=meta), start=start))


# Order that does not hold


def test_bookmark_is_reset_before_what_a_signal_may_interrupt() -> None:
    rows = data.entries(400)
    rows[350]["signedInAt"] = rows[0]["signedInAt"].replace("2024", "2021")
    events: list[str] = []

    def fetch(params: dict[str, Any], _is_probe: bool) -> Page:  # noqa: FBT001
        events.append("request")
        found = rows[::-1] if params.get("order") == "DESC" else rows
        start = (params["page"] - 1) * params["perPage"]
        return Page(deepcopy(found[start : start + params["perPage"]]))

    reader = create_reader("entries", fetch, warn=lambda _: events.append("warning"))
    with PrefetchPool[Page](waiting=nullcontext) as pool:
        for batch in reader.read(pool):
            kind = "rows" if batch.records else "no rows"
            events.append(f"reset, {kind}" if batch.resets_bookmark else kind)
    warning = events.index("warning")
    assert events[warning - 1] == "reset, rows"
    assert events[warning + 1] == "reset, no rows"
