"""How a stream is divided by time."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError
from tap_envoy.records import format_timestamp
from tap_envoy.slices import (
    EARLIEST_DATE,
    FILTER_TOLERANCE,
    MAX_DEPTH,
    MIN_LENGTH,
    OVERLAP,
    TIME_BOUNDS,
    SingleSlice,
    SortedSlicer,
    StreamSlice,
    TimeRange,
    WindowSlicer,
    parse_time,
)

NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
ALL = TimeRange(None, NOW, NOW + 60 * DAY)
RECENT = TimeRange(NOW - 40 * DAY, NOW, NOW + 60 * DAY)

SORTED = SortedSlicer("createdAt", start_param="createdAtAfter")
OPEN_WINDOWS = WindowSlicer("createdAt", start_param="after", end_param="before")
WINDOWS = WindowSlicer(
    "startTime",
    start_param="startTime",
    end_param="endTime",
    end_field="endTime",
    max_window=timedelta(days=30) - 2 * OVERLAP,
    step=15 * DAY,
    has_future=True,
)


def at(time: datetime) -> str:
    return format_timestamp(time)


def test_constants_are_those_of_the_documentation() -> None:
    assert MAX_DEPTH == 10_000
    assert OVERLAP == 2 * SECOND
    assert FILTER_TOLERANCE == DAY
    assert MIN_LENGTH == DAY
    assert datetime(2013, 1, 1, tzinfo=UTC) == EARLIEST_DATE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-17T12:00:00Z", NOW),
        ("2024-05-17T12:00:00", NOW),
        ("2024-05-17T14:00:00+02:00", NOW),
        ("0001-01-01T00:00:00", datetime(1990, 1, 1, tzinfo=UTC)),
        ("9999-12-31T00:00:00", datetime(2990, 1, 1, tzinfo=UTC)),
        ("1990-01-02T00:00:00Z", datetime(1990, 1, 2, tzinfo=UTC)),
    ],
)
def test_time_is_parsed_and_clamped(text: str, expected: datetime) -> None:
    time = parse_time(text)
    assert time == expected
    assert time.tzinfo is not None
    assert TIME_BOUNDS[0] <= time <= TIME_BOUNDS[1]


# What lies outside a slice


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (NOW, NOW, False),
        (NOW - DAY - 2 * SECOND, NOW - DAY - 2 * SECOND, False),
        (NOW - DAY - 3 * SECOND, NOW - DAY - 3 * SECOND, True),
        (NOW - 9 * DAY, NOW, False),  # reaches into it
        (NOW + 6 * DAY, NOW + 6 * DAY, False),
        (NOW + 6 * DAY + SECOND, NOW + 9 * DAY, True),
        (NOW, NOW + 9 * DAY, False),
    ],
)
def test_rows_clearly_outside_a_slice_are_excluded(
    first: datetime, last: datetime, *, expected: bool
) -> None:
    assert StreamSlice(NOW, NOW + 5 * DAY).excludes((at(first), at(last))) is expected


def test_open_slice_excludes_nothing() -> None:
    assert not StreamSlice().excludes((at(EARLIEST_DATE), at(EARLIEST_DATE)))
    assert not StreamSlice(start=NOW).excludes((at(NOW + 999 * DAY),) * 2)
    assert not StreamSlice(end=NOW).excludes((at(EARLIEST_DATE),) * 2)


def test_wider_overlap_excludes_less() -> None:
    time = at(NOW - 2 * DAY + SECOND)
    assert StreamSlice(NOW).excludes((time, time))
    assert not StreamSlice(NOW, overlap=DAY).excludes((time, time))


# Single slices


def test_single_slice_is_the_bare_list() -> None:
    slicer = SingleSlice()
    assert list(slicer.slices(RECENT)) == [StreamSlice()]
    assert slicer.param_names == ()
    assert slicer.max_depth is None
    assert not slicer.is_sorted
    assert slicer.times({"createdAt": "x"}) is None
    assert SingleSlice(time_field="a").times({"a": "x"}) == ("x", "x")
    assert SingleSlice(time_field="a").times({"b": "x"}) is None


def test_variants_after_the_first_are_optional() -> None:
    slicer = SingleSlice(({"type": "DESK"}, {"type": "ROOM"}, {"other": "1"}))
    assert list(slicer.slices(ALL)) == [
        StreamSlice(params={"type": "DESK"}),
        StreamSlice(params={"type": "ROOM"}, is_optional=True),
        StreamSlice(params={"other": "1"}, is_optional=True),
    ]
    assert slicer.param_names == ("type", "other")


# Sorted slices


def test_sorted_slice_starts_before_its_time() -> None:
    assert list(SORTED.slices(ALL)) == [StreamSlice()]
    (part,) = SORTED.slices(RECENT)
    assert part.start == RECENT.start
    assert part.params == {"createdAtAfter": at(NOW - 40 * DAY - OVERLAP)}
    assert not part.is_continuation
    assert SORTED.param_names == ("createdAtAfter",)
    assert SORTED.max_depth == MAX_DEPTH
    assert SORTED.is_sorted


def test_following_slice_overlaps_and_is_widened() -> None:
    part: StreamSlice | None = SORTED.following(NOW)
    for overlap in (2 * SECOND, timedelta(minutes=1), HOUR, DAY):
        assert part is not None
        assert part.is_continuation
        assert part.start == NOW
        assert part.params == {"createdAtAfter": at(NOW - overlap)}
        part = SORTED.widened(part)
    assert part is None


def test_widened_slice_remains_a_continuation() -> None:
    wider = SORTED.widened(SORTED.following(NOW))
    assert wider is not None
    assert wider.is_continuation
    assert wider.start == NOW
    assert wider.overlap == timedelta(minutes=1)


def test_times_of_a_sorted_row() -> None:
    assert SORTED.times({"createdAt": "x"}) == ("x", "x")
    assert SORTED.times({"createdAt": None}) is None
    assert SORTED.times({}) is None


# Windows


def test_open_window_has_no_end() -> None:
    assert list(OPEN_WINDOWS.slices(ALL)) == [StreamSlice()]
    (part,) = OPEN_WINDOWS.slices(RECENT)
    assert part.params == {"after": at(NOW - 40 * DAY - OVERLAP)}
    assert part.end is None
    assert OPEN_WINDOWS.param_names == ("after", "before")
    assert OPEN_WINDOWS.max_depth == MAX_DEPTH
    assert not OPEN_WINDOWS.is_sorted


def test_windows_are_at_most_30_days_long_and_begin_15_days_apart() -> None:
    parts = list(WINDOWS.slices(RECENT))
    starts = [part.start for part in parts]
    assert starts == [NOW + timedelta(days=days) for days in range(-40, 60, 15)]
    assert parts[0].params == {
        "startTime": at(NOW - 40 * DAY - OVERLAP),
        "endTime": at(NOW - 10 * DAY - OVERLAP),
    }
    assert {part.end for part in parts[-2:]} == {NOW + 60 * DAY}
    for part in parts:
        begin, end = (parse_time(part.params[name]) for name in WINDOWS.param_names)
        assert end - begin <= 30 * DAY


def test_windows_begin_with_the_earliest_date_and_end_now_without_a_future() -> None:
    first, *_ = WINDOWS.slices(ALL)
    assert first.start == EARLIEST_DATE
    slicer = WindowSlicer("a", start_param="b", end_param="c", max_window=30 * DAY, step=30 * DAY)
    *_, last = slicer.slices(RECENT)
    assert (last.start, last.end) == (NOW - 10 * DAY, NOW)


@given(
    start=st.floats(-80, 55),
    length=st.floats(0, 14.9),
    meaning=st.sampled_from(["begins", "overlaps", "within"]),
)
def test_every_row_lies_in_a_window(start: float, length: float, meaning: str) -> None:
    begin = NOW + timedelta(days=start)
    end = begin + timedelta(days=length)
    time_range = TimeRange(NOW - 80 * DAY, NOW, NOW + 70 * DAY)
    parts = [(p.start, p.end) for p in WINDOWS.slices(time_range) if p.start and p.end]
    assert any(holds(meaning, first, last, begin, end) for first, last in parts)


def holds(meaning: str, first: datetime, last: datetime, begin: datetime, end: datetime) -> bool:
    """Return whether a window from `first` to `last` contains a row."""
    if meaning == "begins":
        return first <= begin <= last
    if meaning == "overlaps":
        return begin <= last and end >= first
    return first <= begin and end <= last


def test_times_of_a_row_in_a_window() -> None:
    assert WINDOWS.times({"startTime": "a", "endTime": "b"}) == ("a", "b")
    assert WINDOWS.times({"startTime": "a", "endTime": None}) == ("a", "a")
    assert WINDOWS.times({"startTime": None, "endTime": "b"}) is None
    assert OPEN_WINDOWS.times({"createdAt": "a"}) == ("a", "a")


def test_open_window_is_halved_by_what_was_seen() -> None:
    seen = NOW - 10 * DAY, NOW
    first, second = OPEN_WINDOWS.halves(StreamSlice(), seen, frozenset({"1"}), 20_000, None)
    middle = NOW - 5 * DAY
    assert (first.start, first.end, second.start, second.end) == (None, middle, middle, None)
    assert first.params == {"before": at(middle + OVERLAP)}
    assert second.params == {"after": at(middle - OVERLAP)}
    assert first.parent_total == second.parent_total == 20_000
    assert first.known_ids == second.known_ids == {"1"}


def test_halves_know_what_the_window_knew() -> None:
    part = StreamSlice(NOW - 8 * DAY, NOW, known_ids=frozenset({"0"}))
    for half in OPEN_WINDOWS.halves(part, None, frozenset({"1"}), None, None):
        assert half.known_ids == {"0", "1"}


@pytest.mark.parametrize(
    ("longest", "overlap"), [(None, 0), (timedelta(hours=9), 1), (DAY, 1), (3 * DAY, 3)], ids=str
)
def test_halves_overlap_by_the_longest_row(longest: timedelta | None, overlap: int) -> None:
    part = StreamSlice(NOW - 8 * DAY, NOW)
    first, second = WINDOWS.halves(part, None, frozenset(), None, longest)
    assert (first.start, second.end) == (NOW - 8 * DAY, NOW)
    assert first.end == NOW - 4 * DAY + overlap * DAY / 2
    assert second.start == NOW - 4 * DAY - overlap * DAY / 2


@pytest.mark.parametrize(
    ("slicer", "longest", "width"),
    [
        (OPEN_WINDOWS, None, 2 * OVERLAP),
        (WINDOWS, None, 2 * OVERLAP),
        (WINDOWS, timedelta(0), 2 * MIN_LENGTH),
        (WINDOWS, 3 * DAY, 6 * DAY),
    ],
    ids=str,
)
def test_small_window_is_not_halved(
    slicer: WindowSlicer, longest: timedelta | None, width: timedelta
) -> None:
    part = StreamSlice(NOW, NOW + width)
    assert len(slicer.halves(part, None, frozenset(), None, longest)) == 2
    part = StreamSlice(NOW, NOW + width - timedelta(milliseconds=1))
    with pytest.raises(EnvoyError, match=re.escape("2024-05-17T12:00:00.000Z")) as raised:
        slicer.halves(part, None, frozenset(), None, longest)
    assert f"`{slicer.start_param}`" in str(raised.value)


@pytest.mark.parametrize(
    ("hours", "is_cut"), [((0, 24), False), ((-1, 25), False), ((-2, 24), True), ((0, 26), True)]
)
def test_slice_cuts_rows_that_reach_beyond_it(hours: tuple[int, int], *, is_cut: bool) -> None:
    part = StreamSlice(NOW, NOW + DAY)
    first, last = (at(NOW + timedelta(hours=hour)) for hour in hours)
    assert part.cuts((first, last)) == is_cut
    assert not StreamSlice().cuts((first, last))


def test_window_without_rows_is_halved_from_the_earliest_date() -> None:
    first, second = OPEN_WINDOWS.halves(StreamSlice(), None, frozenset(), None, None)
    assert first.end == second.start
    assert first.end is not None
    assert EARLIEST_DATE < first.end < datetime.now(UTC)
