"""The reading core, against endpoints simulated within the test.

By hand: `READER_CASES=0-10000 uv run pytest -n0 -s tests/unit/test_reader.py -k random` reads that
many random lists.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakSet

import pytest

from tap_envoy.exceptions import RequestRejectedError
from tap_envoy.pagination import Page
from tap_envoy.slices import TimeRange
from tests.random_cases import random_case, rows_of
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
        case = random_case(random.Random(seed), max_quirks=max_quirks)  # noqa: S311
        outcome = simulate(**case.arguments)
        try:
            assert_nothing_lost(outcome)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {case.description}") from error
        readable += not case.may_fail
        complete += not case.may_fail and not outcome.error
    print(f"{complete} of {readable} lists that can be read were read.")  # noqa: T201
    assert complete >= (0.99 if max_quirks else 1) * readable


# Parameters that Envoy rejects or ignores


@pytest.mark.parametrize("stream", [*RESOURCES])
def test_rejected_parameter_is_left_out_with_one_warning(stream: str) -> None:
    start = datetime.now(UTC) - timedelta(days=50) if stream == "reservations" else None
    for name in RESOURCES[stream].parameters - {"type", "page"}:
        outcome = simulate(stream, rows_of(stream, 130), Quirks(rejected={name}), start=start)
        if name in {"startTime", "endTime"}:
            assert outcome.error == (
                "Envoy rejected `startTime` and `endTime`: “no”, without which it returns only "
                "some rows."
            )
            continue
        assert_complete(outcome)
        is_needed = name not in RESOURCES[stream].filters  # there is no start
        assert len(outcome.warnings) == is_needed
        for warning in outcome.warnings:
            assert f"`{name}`" in warning
            assert warning.endswith(": “no”; reading without.")


def test_fewest_parameters_are_left_out() -> None:
    quirks = Quirks(rejected={"perPage", "order"}, rejected_status=422)
    outcome = simulate("employees", rows_of("employees", 60), quirks)
    assert_complete(outcome)
    (warning,) = outcome.warnings
    assert warning == "Envoy rejected `sort` and `order` and `perPage`: “no”; reading without."
    assert [len(request) for request in outcome.requests[:6]] == [4, 2, 3, 3, 1, 1]


@pytest.mark.parametrize(("status", "requests"), [(400, 8), (404, 1)])
def test_endpoint_that_rejects_any_request_fails_with_its_first_reason(
    status: int, requests: int
) -> None:
    made: list[Mapping[str, Any]] = []

    def fetch(params: Mapping[str, Any]) -> Page:
        made.append(params)
        raise RequestRejectedError(f"HTTP {len(made)}.", status=status, detail="")

    with pytest.raises(RequestRejectedError, match="HTTP 1"):
        [*create_reader("employees", fetch, ShuffledPool()).read(ALL)]
    assert len(made) == requests
    assert made[-1] == {} or status == 404


@pytest.mark.parametrize("stream", CAPPED)
@pytest.mark.parametrize("how", ["rejected", "ignored"])
def test_unusable_filter_is_warned_of_once_and_older_rows_are_left_out(
    stream: str, how: str
) -> None:
    name, start = f"{CAPPED[stream]}AtAfter", data.START + timedelta(hours=200)
    quirks: dict[str, Any] = {how: {name}}
    outcome = simulate(stream, rows_of(stream, 400), Quirks(**quirks), start=start)
    assert_complete(outcome)
    assert len(outcome.rows) == len(outcome.wanted) < 310
    (warning,) = outcome.warnings
    verb, reason = ("rejected", ": “no”") if how == "rejected" else ("ignores", "")
    assert warning == f"Envoy {verb} `{name}`{reason}; reading the whole list."
    assert outcome.bookmark == max(filter(None, outcome.wanted.values()))


def test_ignored_window_of_reservations_fails() -> None:
    start = datetime.now(UTC) - timedelta(days=20)
    quirks = Quirks(ignored={"startTime"})
    outcome = simulate("reservations", rows_of("reservations", 400), quirks, start=start)
    assert outcome.error == (
        "Envoy ignores `startTime` and `endTime`, without which it returns only some rows."
    )


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
    outcome = simulate("spaces", data.spaces(count, 0), Quirks(**quirks))
    assert_complete(outcome)
    assert outcome.warnings == warnings


# Totals


@pytest.mark.parametrize("count", [60, 250])
def test_rows_that_the_total_counts_and_no_page_has_are_warned_of(count: int) -> None:
    outcome = simulate("employees", rows_of("employees", count), Quirks(hidden=30))
    assert_complete(outcome)
    (warning,) = outcome.warnings
    assert warning == (
        f"Envoy reports {count} rows, but returns {len(outcome.rows)}; perhaps the others are "
        "hidden from this API user."
    )


@pytest.mark.parametrize(("stream", "start"), [("employees", None), ("work_schedules", data.START)])
def test_row_that_moves_to_an_earlier_page_is_read(stream: str, start: datetime | None) -> None:
    rows = [{**row, "name": row["id"].zfill(9)} for row in rows_of(stream, 250)]
    moves = (Change(stream, 2, "delete", 240), Change(stream, 2, "insert", 0, rows[240]))
    outcome = simulate(stream, rows, changes=moves, start=start)
    assert_complete(outcome)
    assert len(outcome.rows) == 250


@pytest.mark.parametrize("seed", range(20))
def test_row_that_moves_behind_a_page_which_came_early_is_read(seed: int) -> None:
    move = Change("work_schedules", 2, "edit", 101)
    arguments: dict[str, Any] = {"start": data.START, "in_flight": 8, "seed": seed}
    rows = rows_of("work_schedules", 250)
    assert_complete(simulate("work_schedules", rows, changes=[move], **arguments))


@pytest.mark.parametrize(("meta", "warnings"), [("honest", 1), ("unfiltered", 0)])
def test_total_of_more_rows_than_a_filter_leaves_is_explained_once(
    meta: Any, warnings: int
) -> None:
    start = data.START + timedelta(hours=50)
    quirks = Quirks(meta=meta, hidden=30 if meta == "honest" else 0)
    outcome = simulate("entries", rows_of("entries", 250), quirks, start=start)
    assert_complete(outcome)
    assert len(outcome.warnings) == warnings
    assert len(outcome.requests) <= 8


# Depth


@pytest.mark.parametrize(
    ("count", "has_total", "requests"),
    [(10_001, True, 150), (25_000, True, 330), (25_000, False, 900)],
)
def test_list_beyond_the_depth_limit_is_read_in_windows(
    count: int, requests: int, *, has_total: bool
) -> None:
    long = LongList(count, has_total=has_total)
    batches = create_reader("entries", long.fetch, ShuffledPool(8)).read(ALL)
    ids = [row["id"] for batch in batches for row in batch.records]
    assert len(ids) == len(set(ids)) == count
    assert long.deepest <= 10_000
    assert long.requests <= requests


def test_total_that_ignores_the_filter_is_no_reason_to_halve() -> None:
    long, warnings = LongList(25_000), list[str]()

    def fetch(params: Mapping[str, Any]) -> Page:
        return replace(long.fetch(params), total=25_000)

    batches = create_reader("entries", fetch, ShuffledPool(8), warnings.append).read(ALL)
    assert sum(len(batch.records) for batch in batches) == 25_000
    assert long.requests <= 900
    assert not warnings


@pytest.mark.parametrize(
    ("count", "beyond_cap", "meta"),
    [(10_050, "empty", "honest"), (10_400, 400, "missing")],
)
def test_list_without_a_filter_fails_beyond_the_cap(count: int, beyond_cap: Any, meta: Any) -> None:
    quirks = Quirks(max_rows=10_000, beyond_cap=beyond_cap, meta=meta)
    outcome = simulate("employees", rows_of("employees", count), quirks, in_flight=8)
    assert outcome.error
    assert outcome.error.endswith("report this to the maintainers of the tap.")
    assert 9_900 < len(outcome.rows) == len(set(outcome.ids))


@pytest.mark.parametrize("stream", CAPPED)
@pytest.mark.parametrize("meta", ["honest", "missing", "unfiltered"])
def test_bookmark_moves_with_each_window_of_a_capped_list(stream: str, meta: Any) -> None:
    outcome = simulate(stream, rows_of(stream, 600), Quirks(max_rows=200, meta=meta), in_flight=3)
    assert_complete(outcome)
    assert len({bookmark for _, bookmark in outcome.bookmarks}) > 3
    assert not outcome.warnings


@pytest.mark.parametrize(
    "quirks", [{"rejected": {"createdAtBefore"}}, {"ignored": {"createdAtBefore"}}, {}]
)
@pytest.mark.parametrize("case", ["apart", "at one time", "without a time"])
def test_capped_list_that_cannot_be_divided_fails(quirks: Any, case: str) -> None:
    rows = rows_of("invites", 600, minutes=0.01 if case == "at one time" else 60)
    if case == "without a time":
        rows[::50] = [{**row, "createdAt": None} for row in rows[::50]]
    outcome = simulate("invites", rows, Quirks(max_rows=200, **quirks))
    assert_nothing_lost(outcome)
    assert bool(outcome.error) is bool(quirks or case != "apart")


@pytest.mark.parametrize("after", range(3, 9))
def test_deletion_while_a_window_is_halved_is_no_reason_to_fail(after: int) -> None:
    changes = [Change("invites", after, "delete", position) for position in (0.1, 0.9)]
    outcome = simulate("invites", rows_of("invites", 250), Quirks(max_rows=200), changes=changes)
    assert_complete(outcome)


def test_interrupted_run_goes_on_from_the_last_complete_window() -> None:
    rows = rows_of("invites", 600)
    full = simulate("invites", rows, Quirks(max_rows=200))
    for stop in range(0, len(full.bookmarks), 3):
        first = simulate("invites", rows, Quirks(max_rows=200), stop_after=stop)
        start = datetime.fromisoformat(first.bookmark) if first.bookmark else None
        second = simulate("invites", rows, Quirks(max_rows=200), start=start)
        assert_complete(second)
        assert {*first.ids, *second.ids} == {row["id"] for row in rows}
    assert len(second.requests) < len(full.requests) / 3


class Key(str):  # noqa: SLOT000  # weak references need a dictionary
    """An id that can be counted."""


def test_few_ids_of_a_long_list_are_remembered() -> None:
    long, kept, most = LongList(60_000), WeakSet[Key](), 0

    def fetch(params: Mapping[str, Any]) -> Page:
        page = long.fetch(params)
        for record in page.records:
            record["id"] = Key(record["id"])
            kept.add(record["id"])
        return page

    for _ in create_reader("entries", fetch, ShuffledPool(1)).read(ALL):
        most = max(most, len(kept))
    assert most < 35_000


# Lists that change


def test_list_that_changes_for_ever_fails() -> None:
    changes = [Change("desks", number, "delete", 0) for number in range(1, 200)]
    outcome = simulate("desks", rows_of("desks", 250), changes=changes)
    assert outcome.error == "The list kept changing while it was read; run again later."


def test_time_range_without_a_slice_has_nothing_to_read() -> None:
    outcome = simulate("reservations", [], start=datetime.now(UTC) + timedelta(days=99))
    assert (outcome.error, outcome.requests) == (None, [])


def test_as_many_requests_are_in_flight_as_the_total_allows() -> None:
    outcome = simulate("employees", rows_of("employees", 2_000), in_flight=8)
    assert outcome.most_in_flight == 8
    assert len(outcome.requests) <= 1.17 * 20
