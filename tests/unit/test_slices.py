"""How a stream is divided into windows of time."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.pagination import MAX_DEPTH
from tap_envoy.records import format_timestamp
from tap_envoy.slices import (
    EARLIEST_DATE,
    MIN_WINDOW,
    OVERLAP,
    TOLERANCE,
    Slice,
    Slicer,
    TimeRange,
)
from tap_envoy.streams import ReservationsStream, SpacesStream

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
START = datetime(2024, 3, 1, tzinfo=UTC)
OPEN = Slicer("createdAt", "createdAtAfter", "createdAtBefore")
WINDOWS = ReservationsStream.slicer


def row(begin: datetime, end: datetime | None = None) -> dict[str, Any]:
    """Return a row of either slicer."""
    times = {"startTime": begin, "endTime": end, "createdAt": begin}
    return {name: format_timestamp(time) for name, time in times.items() if time}


def test_list_without_filters_is_one_slice() -> None:
    (part,) = Slicer().slices(TimeRange(None, START))
    assert (part.params, part.max_rows, part.start) == ({}, None, None)
    assert not part.shows_filter_ignored([row(START)])


def test_open_window_starts_two_seconds_early_and_has_no_end() -> None:
    (part,) = OPEN.slices(TimeRange(START, START + DAY))
    assert part.params == {"createdAtAfter": "2024-02-29T23:59:58.000Z"}
    assert part.max_rows == MAX_DEPTH == 10_000
    (everything,) = OPEN.slices(TimeRange(None, START))
    assert everything.params == {}


def test_variants_are_slices_with_their_parameters() -> None:
    parts = SpacesStream.slicer.slices(TimeRange(None, START))
    assert [part.params for part in parts] == [{}, {"type": "ROOM"}]


def test_whole_list_has_no_filter_and_keeps_its_start() -> None:
    for slicer in (OPEN, WINDOWS):
        part = slicer.whole(START)
        assert (part.params, part.max_rows, part.start, part.end) == ({}, None, START, None)
        assert part.slicer.times(row(START, START + HOUR)) == slicer.times(row(START, START + HOUR))


@pytest.mark.parametrize("days", [0.5, 15, 29, 30, 31, 100])
def test_windows_are_at_most_30_days_long_and_begin_15_days_apart(days: float) -> None:
    time_range = TimeRange(START, START + days * DAY)
    parts = [*WINDOWS.slices(time_range)]
    assert (parts[0].start, parts[-1].end) == (START, time_range.end)
    for part in parts:
        assert part.start
        assert part.end
        assert part.end - part.start + 2 * OVERLAP <= 30 * DAY
        assert part.params == {
            "startTime": format_timestamp(part.start - OVERLAP),
            "endTime": format_timestamp(part.end + OVERLAP),
        }
        assert part.max_rows is None  # nothing tells of a cap
    starts = [part.start for part in parts if part.start]
    steps = {after - before for before, after in pairwise(starts)}
    assert all(14.9 * DAY < step <= 15 * DAY for step in steps)
    assert len(parts) == 1 + max(0, -(-(days - 29.9999) // 15))


def test_windows_begin_with_the_earliest_date_and_none_begins_after_the_end() -> None:
    assert next(WINDOWS.slices(TimeRange(None, START))).start == EARLIEST_DATE
    assert [*WINDOWS.slices(TimeRange(START, START))] == []


@given(
    start=st.floats(0, 99),
    length=st.floats(0, 14.9),
    meaning=st.sampled_from(["begins", "overlaps", "within"]),
)
def test_every_row_of_up_to_15_days_lies_in_a_window(
    start: float, length: float, meaning: str
) -> None:
    begin, end = START + start * DAY, START + (start + length) * DAY
    parts = WINDOWS.slices(TimeRange(START, START + 130 * DAY))
    holds = {
        "begins": lambda part: part.start <= begin <= part.end,
        "overlaps": lambda part: part.start <= end and begin <= part.end,
        "within": lambda part: part.start <= begin and end <= part.end,
    }
    assert any(holds[meaning](part) for part in parts)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, ("", "")),
        ({"startTime": "b"}, ("b", "b")),
        ({"startTime": "b", "endTime": "e"}, ("b", "e")),
    ],
)
def test_times_of_a_row_are_empty_or_equal_where_they_are_missing(
    record: dict[str, str], expected: tuple[str, str]
) -> None:
    assert WINDOWS.times(record) == expected
    assert Slicer().times(record) == ("", "")


@pytest.mark.parametrize(
    ("begin", "end", "is_shown"),
    [
        (START - HOUR, None, False),
        (START - HOUR - SECOND, None, True),
        (START - 9 * DAY, START - HOUR, False),
        (START - 9 * DAY, START - HOUR - SECOND, True),
        (START + DAY + HOUR, None, False),
        (START + DAY + HOUR + SECOND, START + 9 * DAY, True),
    ],
)
def test_row_clearly_outside_of_a_window_shows_that_the_filter_is_ignored(
    begin: datetime, end: datetime | None, *, is_shown: bool
) -> None:
    part = Slice(WINDOWS, START, START + DAY)
    inside, unknown = row(START + HOUR, START + 2 * HOUR), {"id": "1"}
    assert part.shows_filter_ignored([inside, unknown, row(begin, end)]) is is_shown
    assert not Slice(OPEN).shows_filter_ignored([row(begin, end)])
    assert not OPEN.whole(START).shows_filter_ignored([row(begin, end)])


def test_slice_without_an_end_contains_any_later_row() -> None:
    assert not Slice(OPEN, START).shows_filter_ignored([row(START + 9999 * DAY)])
    assert not Slice(OPEN, None, START).shows_filter_ignored([row(EARLIEST_DATE - 9999 * DAY)])


def test_halves_meet_in_the_middle_and_overlap_by_their_filters() -> None:
    part = Slice(OPEN, START, START + 2 * DAY, max_rows=MAX_DEPTH)
    left, right = part.halves([])
    assert (left.start, left.end) == (START, START + DAY)
    assert (right.start, right.end) == (START + DAY, START + 2 * DAY)
    assert left.max_rows == right.max_rows == MAX_DEPTH
    assert left.params["createdAtBefore"] == "2024-03-02T00:00:02.000Z"
    assert right.params["createdAtAfter"] == "2024-03-01T23:59:58.000Z"


def test_open_slice_is_halved_between_the_earliest_date_and_now() -> None:
    left, right = Slice(OPEN).halves([])
    assert (left.start, right.end) == (None, None)
    assert left.end == right.start
    middle = EARLIEST_DATE + (datetime.now(UTC) - EARLIEST_DATE) / 2
    assert left.end
    assert abs(left.end - middle) < HOUR


@pytest.mark.parametrize(
    ("hours", "expected"),
    [([5, 3, 40], 5), ([1, 1, 1], 24), ([47, 47], 24), ([1.1, 1.1], 1.1), ([46.9], 46.9)],
)
def test_slice_is_halved_at_the_median_unless_that_is_near_its_edge(
    hours: list[float], expected: float
) -> None:
    part = Slice(OPEN, START, START + 2 * DAY)
    left, right = part.halves([format_timestamp(START + hour * HOUR) for hour in hours])
    assert left.end == right.start == START + expected * HOUR


@pytest.mark.parametrize(("length", "count"), [(MIN_WINDOW, 2), (MIN_WINDOW - SECOND, 0)])
def test_slice_is_not_halved_if_rows_outside_would_not_show(length: timedelta, count: int) -> None:
    assert len(Slice(OPEN, START, START + length).halves([])) == count
    assert MIN_WINDOW / 2 >= TOLERANCE
