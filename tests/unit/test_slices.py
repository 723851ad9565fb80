"""How a stream is divided into windows of time."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.records import format_timestamp
from tap_envoy.slices import EARLIEST_DATE, FilterUnusableError, Slice, Slicer, TimeRange
from tap_envoy.streams import ReservationsStream

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
START = datetime(2024, 3, 1, tzinfo=UTC)
OPEN = Slicer("createdAt", "createdAtAfter", "createdAtBefore")
WINDOWS = ReservationsStream.slicer
WINDOW = Slice(WINDOWS, START, START + DAY)


def row(begin: datetime, end: datetime | None = None) -> dict[str, Any]:
    """Return a row of either slicer."""
    times = {"startTime": begin, "endTime": end, "createdAt": begin}
    return {name: format_timestamp(time) for name, time in times.items() if time}


@pytest.mark.parametrize(("days", "count"), [(0, 0), (1, 1), (29.9, 1), (30, 2), (45, 3), (100, 6)])
def test_windows_are_at_most_30_days_long_and_begin_15_days_apart(days: float, count: int) -> None:
    parts = [*WINDOWS.slices(TimeRange(START, START + days * DAY))]
    assert len(parts) == count
    assert all(part.max_rows is None for part in parts)  # nothing tells of a cap
    windows = [[*map(datetime.fromisoformat, part.params.values())] for part in parts]
    assert all(timedelta() < end - start <= 30 * DAY for start, end in windows)
    assert all(14.9 * DAY < b[0] - a[0] <= 15 * DAY for a, b in pairwise(windows))
    assert next(WINDOWS.slices(TimeRange(None, START))).start == EARLIEST_DATE
    if parts:
        assert windows[0][0] == START - 2 * SECOND
        assert windows[-1][1] == START + days * DAY + 2 * SECOND


@given(st.floats(0, 99), st.floats(0, 14.9), st.sampled_from(["begins", "overlaps", "within"]))
def test_row_of_up_to_15_days_lies_in_a_window(start: float, length: float, meaning: str) -> None:
    begin, end = START + start * DAY, START + (start + length) * DAY
    parts = WINDOWS.slices(TimeRange(START, START + 130 * DAY))
    bounds = {"begins": (begin, begin), "overlaps": (end, begin), "within": (begin, end)}
    first, last = bounds[meaning]
    assert any(p.start and p.end and p.start <= first and last <= p.end for p in parts)


@pytest.mark.parametrize(
    ("part", "begin", "end", "is_outside"),
    [
        (WINDOW, START - HOUR, None, False),
        (WINDOW, START - HOUR - SECOND, None, True),
        (WINDOW, START - 9 * DAY, START - HOUR, False),
        (WINDOW, START - 9 * DAY, START - HOUR - SECOND, True),
        (WINDOW, START + DAY + HOUR, None, False),
        (WINDOW, START + DAY + HOUR + SECOND, START + 9 * DAY, True),
        (Slice(OPEN, START), START + 9999 * DAY, None, False),
        (Slice(OPEN, None, START), START - 9999 * DAY, None, False),
        (WINDOWS.whole(START), START - 99 * DAY, None, False),
    ],
)
def test_row_clearly_outside_of_a_window_shows_that_the_filter_is_ignored(
    part: Slice, begin: datetime, end: datetime | None, *, is_outside: bool
) -> None:
    error = pytest.raises(FilterUnusableError, match="Envoy ignores `startTime` and `endTime`")
    with error if is_outside else nullcontext():
        part.check_filter([row(START), {}, row(begin, end)])


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([], 24),
        ([-9, -9, 6, 3, 5, 4, 40, 99], 5),  # the median of those within
        ([1, 1, 1], 24),  # too near to an edge
        ([47, 47], 24),
        ([1.1, 1.1], 1.1),
        ([46.9], 46.9),
    ],
)
def test_slice_is_halved_at_the_median_of_its_rows(hours: list[float], expected: float) -> None:
    part = Slice(OPEN, START, START + 2 * DAY, max_rows=9)
    left, right = part.halves(format_timestamp(START + hour * HOUR) for hour in hours)
    assert left.end == right.start == START + expected * HOUR
    assert (left.start, right.end) == (part.start, part.end)
    assert left.max_rows == right.max_rows == 9
    overlap = [left.params["createdAtBefore"], right.params["createdAtAfter"]]
    assert datetime.fromisoformat(overlap[0]) - datetime.fromisoformat(overlap[1]) == 4 * SECOND


def test_open_slice_is_halved_between_the_earliest_date_and_now() -> None:
    left, right = Slice(OPEN).halves([])
    assert (left.start, left.end, right.end) == (None, right.start, None)
    middle = EARLIEST_DATE + (datetime.now(UTC) - EARLIEST_DATE) / 2
    assert left.end
    assert abs(left.end - middle) < HOUR


@pytest.mark.parametrize(("length", "count"), [(2 * HOUR, 2), (2 * HOUR - SECOND, 0)])
def test_slice_is_not_halved_if_rows_outside_would_not_show(length: timedelta, count: int) -> None:
    assert len(Slice(OPEN, START, START + length).halves([])) == count
