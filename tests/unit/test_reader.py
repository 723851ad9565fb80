"""The reading core, against endpoints simulated within the test.

By hand: `READER_CASES=0-10000 uv run pytest -n0 -s tests/unit/test_reader.py -k random` reads that
many random lists.
"""

import os
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakSet

import pytest

from tap_envoy.exceptions import RequestRejectedError
from tap_envoy.pagination import Page
from tap_envoy.slices import TimeRange
from tests.random_cases import Case, random_case, rows_of
from tests.sandbox import RESOURCES, Change, Quirks, data
from tests.unit.simulated_endpoint import (
    LongList,
    ShuffledPool,
    assert_complete,
    assert_nothing_lost,
    create_reader,
    simulate,
)

FIRST, LAST = map(int, os.environ.get("READER_CASES", "0-100").split("-"))
CAPPED = {"entries": "signedIn", "invites": "created", "work_schedules": "created"}
ALL = TimeRange(None, datetime(2030, 1, 1, tzinfo=UTC))


# Random lists


@pytest.mark.parametrize("max_quirks", [0, 4], ids=["documented", "different"])
def test_random_lists_that_change_are_read_completely_or_fail(max_quirks: int) -> None:
    readable = complete = 0
    for seed in range(FIRST, LAST):
        case = random_case(random.Random(seed), max_quirks)  # noqa: S311
        outcome = simulate(case)
        try:
            assert_nothing_lost(outcome)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {case}") from error
        readable += not case.may_fail
        complete += not case.may_fail and not outcome.error
    print(f"{complete} of {readable} lists that can be read were read.")  # noqa: T201
    assert complete >= (0.99 if max_quirks else 1) * readable


# Parameters that Envoy rejects or ignores


@pytest.mark.parametrize("stream", [*RESOURCES])
def test_rejected_parameter_is_left_out_with_one_warning(stream: str) -> None:
    start = datetime.now(UTC) - timedelta(days=50) if stream == "reservations" else None
    for name in RESOURCES[stream].parameters - {"type", "page", "startTime", "endTime"}:
        outcome = simulate(Case(stream, rows_of(stream, 130), Quirks(rejected={name}), start=start))
        assert_complete(outcome)
        is_needed = name not in RESOURCES[stream].filters  # there is no start
        assert len(outcome.warnings) == is_needed
        for warning in outcome.warnings:
            assert f"`{name}`" in warning
            assert warning.endswith(": “no”; reading without.")


def test_fewest_parameters_are_left_out() -> None:
    quirks = Quirks(rejected={"perPage", "order"}, rejected_status=422)
    outcome = simulate(Case("employees", rows_of("employees", 60), quirks))
    assert_complete(outcome)
    text = "Envoy rejected `sort` and `order` and `perPage`: “no”; reading without."
    assert outcome.warnings == [text]
    assert [len(request) for request in outcome.requests[:6]] == [4, 2, 3, 3, 1, 1]


def test_endpoint_that_rejects_any_request_fails_with_its_first_reason() -> None:
    def fetch(params: Mapping[str, Any]) -> Page:
        raise RequestRejectedError(f"{len(params)} parameters.", status=400, detail="")

    with pytest.raises(RequestRejectedError, match="4 parameters"):
        [*create_reader("employees", fetch, ShuffledPool()).read(ALL)]


UNUSABLE = [("rejected", "rejected {}: “no”"), ("ignored", "ignores {}")]


@pytest.mark.parametrize("stream", CAPPED)
@pytest.mark.parametrize(("how", "reason"), UNUSABLE)
def test_unusable_filter_is_warned_of_once_and_older_rows_are_left_out(
    stream: str, how: str, reason: str
) -> None:
    name, start = f"{CAPPED[stream]}AtAfter", data.START + timedelta(hours=200)
    quirks: Any = {how: {name}}
    outcome = simulate(Case(stream, rows_of(stream, 400), Quirks(**quirks), start=start))
    assert_complete(outcome)
    assert len(outcome.rows) == len(outcome.wanted) < 310
    assert outcome.warnings == [f"Envoy {reason.format(f'`{name}`')}; reading the whole list."]
    assert outcome.bookmarks[-1][1] == max(filter(None, outcome.wanted.values()))


@pytest.mark.parametrize(("how", "reason"), UNUSABLE)
def test_unusable_window_of_reservations_fails(how: str, reason: str) -> None:
    quirks: Any = {how: {"endTime"}}
    rows, start = rows_of("reservations", 400), datetime.now(UTC) - timedelta(days=20)
    outcome = simulate(Case("reservations", rows, Quirks(**quirks), start=start))
    reason = reason.format("`startTime` and `endTime`")
    assert outcome.error == f"Envoy {reason}, without which it returns only some rows."


@pytest.mark.parametrize(
    ("quirks", "warnings"),
    [
        ({}, []),
        ({"rejected": {"type=ROOM"}}, ["Envoy rejected `type=ROOM`; reading without."]),
        ({"ignored": {"type"}}, ["Envoy ignores `type=ROOM`; such rows may be missing."]),
    ],
)
@pytest.mark.parametrize("count", [2, 60])
def test_missing_rooms_are_warned_of(quirks: Any, warnings: list[str], count: int) -> None:
    outcome = simulate(Case("spaces", data.spaces(count, 0), Quirks(**quirks)))
    assert_complete(outcome)
    assert outcome.warnings == warnings


# Totals


@pytest.mark.parametrize(
    ("stream", "count", "quirks", "total"),
    [
        ("employees", 60, {"hidden": 30}, 60),
        ("employees", 250, {"hidden": 30}, 250),
        ("entries", 250, {"hidden": 30}, 200),
        ("entries", 250, {"meta": "unfiltered"}, None),  # which explains it
    ],
)
def test_total_of_more_rows_than_come_is_warned_of_unless_it_ignores_the_filter(
    stream: str, count: int, quirks: Any, total: int | None
) -> None:
    start = data.START + timedelta(hours=50) if stream == "entries" else None
    outcome = simulate(Case(stream, rows_of(stream, count), Quirks(**quirks), start=start))
    assert_complete(outcome)
    assert len(outcome.requests) <= 10
    text = (
        f"Envoy reports {total} rows, but returns {len(outcome.rows)}; perhaps these "
        "credentials may not see the others."
    )
    assert outcome.warnings == ([text] if total else [])


@pytest.mark.parametrize(("stream", "start"), [("employees", None), ("work_schedules", data.START)])
@pytest.mark.parametrize("is_deletion_hiding_it", [True, False])
def test_row_that_moves_to_an_earlier_page_is_read(
    stream: str, start: datetime | None, *, is_deletion_hiding_it: bool
) -> None:
    rows = [{**row, "name": row["id"].zfill(9)} for row in rows_of(stream, 250)]
    changes = [Change(stream, 2, "delete", 240), Change(stream, 2, "insert", 0, rows[240])]
    if is_deletion_hiding_it:  # of a row that was read: as many rows came as the total says
        changes.append(Change(stream, 2, "delete", 10))
    outcome = simulate(Case(stream, rows, changes=changes, start=start))
    assert_complete(outcome)
    assert len(outcome.rows) == 250


# Depth


@pytest.mark.parametrize(
    ("meta", "requests"), [("honest", 330), ("missing", 900), ("unfiltered", 900)]
)
def test_list_beyond_the_depth_limit_is_read_in_windows(meta: Any, requests: int) -> None:
    long, warnings = LongList(25_000, meta), list[str]()
    reader = create_reader("entries", long.fetch, ShuffledPool(), warnings.append)
    ids = [row["id"] for batch in reader.read(ALL) for row in batch.records]
    assert len(ids) == len(set(ids)) == 25_000
    assert long.requests <= requests
    assert not warnings


@pytest.mark.parametrize("stream", CAPPED)
@pytest.mark.parametrize("meta", ["honest", "missing", "unfiltered"])
def test_bookmark_moves_with_each_window_of_a_capped_list(stream: str, meta: Any) -> None:
    outcome = simulate(Case(stream, rows_of(stream, 600), Quirks(max_rows=200, meta=meta)))
    assert_complete(outcome)
    assert len({bookmark for _, bookmark in outcome.bookmarks}) > 3
    assert not outcome.warnings


@pytest.mark.parametrize(
    ("stream", "minutes", "quirks"),
    [
        ("employees", 60, {}),  # without a filter by time
        ("invites", 60, {"rejected": {"createdAtBefore"}}),
        ("invites", 60, {"ignored": {"createdAtBefore"}}),
        ("invites", 0.01, {}),  # all of almost the same time
        ("invites", None, {}),  # some without a time
    ],
)
def test_capped_list_that_cannot_be_divided_fails(
    stream: str, minutes: float | None, quirks: Any
) -> None:
    rows = rows_of(stream, 600, minutes or 60)
    for row in () if minutes else rows[::50]:
        row["createdAt"] = None
    outcome = simulate(Case(stream, rows, Quirks(max_rows=200, **quirks)))
    assert_nothing_lost(outcome)
    assert "rows of a list that may have more" in outcome.error
    assert len(outcome.rows) > 180


@pytest.mark.parametrize("after", range(3, 9))
def test_deletion_while_a_window_is_halved_is_no_reason_to_fail(after: int) -> None:
    changes = [Change("invites", after, "delete", position) for position in (0.1, 0.9)]
    outcome = simulate(
        Case("invites", rows_of("invites", 250), Quirks(max_rows=200), changes=changes)
    )
    assert_complete(outcome)


def test_list_that_shrinks_below_the_cap_is_read() -> None:
    deletions = [Change("employees", 2, "delete", 0)] * 60
    rows = rows_of("employees", 250)
    assert_complete(simulate(Case("employees", rows, Quirks(max_rows=200), deletions)))


class Key(str):  # noqa: SLOT000  # weak references need a dictionary
    """An id that can be counted."""


def test_few_ids_of_a_long_list_are_remembered() -> None:
    long, kept, most = LongList(40_000), WeakSet[Key](), 0

    def fetch(params: Mapping[str, Any]) -> Page:
        page = long.fetch(params)
        for record in page.records:
            record["id"] = Key(record["id"])
            kept.add(record["id"])
        return page

    for _ in create_reader("entries", fetch, ShuffledPool()).read(ALL):
        most = max(most, len(kept))
    assert most < 35_000


# Lists that change


def test_list_that_changes_for_ever_fails() -> None:
    changes = [Change("desks", number, "delete", 0) for number in range(1, 200)]
    outcome = simulate(Case("desks", rows_of("desks", 250), changes=changes))
    assert outcome.error == "The list kept changing while it was read; run again later."


def test_time_range_without_a_slice_has_nothing_to_read() -> None:
    outcome = simulate(Case("reservations", [], start=datetime.now(UTC) + timedelta(days=99)))
    assert (outcome.error, outcome.requests) == ("", [])
