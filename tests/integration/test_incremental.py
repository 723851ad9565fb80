"""Incremental reads: what is new, no row lost, none twice in a run."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError
from tap_envoy.slices import MAX_DEPTH, OVERLAP
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read
from tests.runner import ROOT, clean_environment
from tests.sandbox import Quirks, ScriptedResponse, list_path
from tests.sandbox.data import START, entries, invites, reservations, work_schedules
from tests.sandbox.timestamps import format_time

KEYS = {
    "entries": "signedInAt",
    "invites": "createdAt",
    "work_schedules": "createdAt",
    "reservations": "startTime",
}


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def state_of(tap: TapEnvoy) -> dict[str, Any]:
    return json.loads(json.dumps(tap.state))  # type: ignore[no-any-return]


def bookmark_of(tap: TapEnvoy, stream: str) -> Any:
    return tap.state["bookmarks"][stream].get("replication_key_value")


def bookmark(stream: str, value: Any) -> dict[str, Any]:
    entry = {"replication_key": KEYS[stream], "replication_key_value": value}
    return {"bookmarks": {stream: entry}}


# From one run to the next


@pytest.mark.parametrize("stream", KEYS)
def test_second_run_reads_what_is_new_and_a_week_back(sandbox: Sandbox, stream: str) -> None:
    key, rows = KEYS[stream], sandbox.envoy.rows[stream]
    first = sandbox.tap(start_date="2023-06-01")
    read(first, stream)
    reached = bookmark_of(first, stream)
    is_future = stream == "reservations"
    newest = min(max(row[key] for row in rows), format_time(first.run_start))
    assert abs(datetime.fromisoformat(reached) - datetime.fromisoformat(newest)) < timedelta(
        minutes=2
    )
    rows.append({**rows[0], "id": "new-one", "endTime": reached, key: reached})
    second = read(sandbox.tap(state=state_of(first)), stream)
    since = format_time(datetime.fromisoformat(reached) - timedelta(days=7))
    expected = {row["id"] for row in rows if row[key] >= since}
    assert "new-one" in expected
    assert expected <= set(ids(second))
    assert len(second) <= len(expected) + 3  # what overlaps
    assert is_future or len(expected) < len(rows)


def test_late_sign_out_is_seen_through_the_lookback(sandbox: Sandbox) -> None:
    rows = sandbox.envoy.rows["entries"]
    tap = sandbox.tap()
    read(tap, "entries")
    late = rows[-3]
    assert late["signedOutAt"] is None
    late["signedOutAt"] = "2024-03-15T00:00:00.000Z"
    again = {row["id"]: row for row in read(sandbox.tap(state=state_of(tap)), "entries")}
    assert again[late["id"]]["signedOutAt"] == "2024-03-15T00:00:00.000Z"
    assert len(again) == 7 * 24 + 1


@pytest.mark.parametrize("inclusive", [True, False])
def test_zero_lookback_reads_again_only_the_bookmark_itself(
    sandbox: Sandbox, *, inclusive: bool
) -> None:
    sandbox.envoy.quirks = Quirks(inclusive=inclusive)
    state = bookmark("entries", sandbox.envoy.rows["entries"][-2]["signedInAt"])
    rows = read(sandbox.tap(state=state, lookback_days=0), "entries")
    assert ids(rows) == ["v-318", "v-319"]


@pytest.mark.parametrize("stream", KEYS)
@pytest.mark.parametrize("has_state", [False, True])
def test_start_date_bounds_the_first_run_and_the_lookback(
    sandbox: Sandbox, stream: str, *, has_state: bool
) -> None:
    rows = sandbox.envoy.rows[stream]
    middle = sorted(row[KEYS[stream]] for row in rows)[len(rows) // 2]
    expected = {row["id"] for row in rows if row[KEYS[stream]] >= middle}
    state = bookmark(stream, middle) if has_state else None
    found = set(ids(read(sandbox.tap(state=state, start_date=middle), stream)))
    assert expected <= found
    assert len(found) <= len(expected) + 2


@pytest.mark.parametrize("stream", KEYS)
def test_missing_time_neither_ends_the_stream_nor_moves_the_bookmark(
    sandbox: Sandbox, stream: str
) -> None:
    key = KEYS[stream]
    rows = sandbox.envoy.rows[stream] = sandbox.envoy.rows[stream][:40]
    rows[3][key] = None
    del rows[5][key]
    tap = sandbox.tap(start_date="2025-12-01" if stream == "reservations" else None)
    found = read(tap, stream)
    assert sorted(ids(found)) == sorted(ids(rows))
    newest = max(row[key] for row in found if row.get(key))
    assert bookmark_of(tap, stream) <= newest


def test_unreadable_time_is_an_error_without_its_value(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"][7]["signedInAt"] = "no time at all"
    sandbox.envoy.quirks = Quirks(ignored={"sort", "signedInAtAfter"})
    tap = sandbox.tap()
    with pytest.raises(EnvoyError, match="`signedInAt` is not a timestamp") as caught:
        read(tap, "entries")
    assert "no time" not in str(caught.value)
    assert bookmark_of(tap, "entries") is None


def test_bookmark_does_not_pass_the_start_of_the_run(sandbox: Sandbox) -> None:
    tap = sandbox.tap(start_date="2026-01-01")
    rows = read(tap, "reservations")
    reached = bookmark_of(tap, "reservations")
    assert reached == format_time(tap.run_start)
    coming = {row["id"] for row in rows if row["startTime"] > reached}
    assert coming
    assert coming <= set(ids(read(sandbox.tap(state=state_of(tap)), "reservations")))


def test_stream_that_fails_keeps_the_bookmark_it_reached(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["entries"] = entries(5000)
    real, refusal = ScriptedResponse(), ScriptedResponse(403, b"")
    sandbox.envoy.script("/v1/entries", *[real] * 25, *[refusal] * 9)
    tap = sandbox.tap()
    times = [row["signedInAt"] for row in tap.streams["entries"].get_records(None)]  # type: ignore[call-overload]
    assert 500 < len(times) < 5000
    assert bookmark_of(tap, "entries") == times[-1]


@pytest.mark.parametrize("days", [0, 5])
def test_reservations_are_read_as_far_ahead_as_is_set(sandbox: Sandbox, days: int) -> None:
    tap = sandbox.tap(start_date="2026-01-01", lookahead_days=days)
    rows = read(tap, "reservations")
    latest = max(row["startTime"] for row in rows)
    assert latest <= format_time(tap.run_start + timedelta(days=days) + OVERLAP)
    assert len(rows) >= 110 + days


@pytest.mark.parametrize("window", ["begins", "overlaps", "within"])
def test_reservations_are_complete_whatever_a_window_means(sandbox: Sandbox, window: Any) -> None:
    sandbox.envoy.quirks = Quirks(window=window)
    sandbox.envoy.rows["reservations"] = reservations(900, hours=5)
    rows = read(sandbox.tap(start_date="2026-01-01", lookahead_days=400), "reservations")
    assert sorted(ids(rows)) == sorted(ids(sandbox.envoy.rows["reservations"]))


def test_windows_overlap_and_end_at_the_lookahead(sandbox: Sandbox) -> None:
    tap = sandbox.tap(start_date="2026-01-01", lookahead_days=10)
    read(tap, "reservations")
    queries = [request.query for request in sandbox.envoy.requests_for("/v1/reservations")]
    windows = sorted({(query["startTime"], query["endTime"]) for query in queries})
    starts = [datetime.fromisoformat(start) for start, _ in windows]
    ends = [datetime.fromisoformat(end) for _, end in windows]
    assert all(e - s <= timedelta(days=30) for s, e in zip(starts, ends, strict=True))
    assert all(s < e for s, e in zip(starts[1:], ends, strict=False))
    assert starts[0] <= datetime(2026, 1, 1, tzinfo=UTC)
    assert timedelta(0) <= max(ends) - (tap.run_start + timedelta(days=10)) <= OVERLAP


# State from elsewhere


@pytest.mark.parametrize("value", ["2024-03-14T10:00:00+02:00", "2024-03-14T08:00:00.000000Z"])
def test_bookmark_in_another_format_is_understood(sandbox: Sandbox, value: str) -> None:
    read(sandbox.tap(state=bookmark("entries", value)), "entries")
    (first, *_) = sandbox.envoy.requests_for("/v1/entries")
    assert first.query["signedInAtAfter"] == "2024-03-07T07:59:58.000Z"


@pytest.mark.parametrize("stream", ["entries", "work_schedules"])
@pytest.mark.parametrize("value", ["0001-01-01", "0001-01-01T00:00:00+14:00"])
def test_earliest_start_reads_all_there_is(sandbox: Sandbox, stream: str, value: str) -> None:
    assert len(read(sandbox.tap(start_date=value), stream)) == len(sandbox.envoy.rows[stream])
    state = bookmark(stream, "0001-01-01T00:00:00.000Z")
    assert len(read(sandbox.tap(state=state), stream)) == len(sandbox.envoy.rows[stream])


def test_catalog_may_ask_for_the_whole_stream(sandbox: Sandbox) -> None:
    option, path = sandbox.write_catalog("entries")
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  # a path as the command line has it
        catalog = json.load(file)
    for stream in catalog["streams"]:
        stream["replication_method"] = "FULL_TABLE"
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(catalog, file)
    state = sandbox.write_state(bookmark("entries", "2024-03-14T00:00:00.000Z"))
    run = sandbox.run_tap(option, path, *state, emit_activate_version_messages=True)
    assert len(run.records("entries")) == 320
    assert "ACTIVATE_VERSION" in {message["type"] for message in run.messages}


# Interrupted


@pytest.mark.parametrize("stream", ["entries", "work_schedules"])
def test_run_that_is_killed_is_resumed_without_a_lost_row(sandbox: Sandbox, stream: str) -> None:
    make = entries if stream == "entries" else work_schedules
    sandbox.envoy.rows[stream] = make(12_000, minutes=30)
    catalog = sandbox.write_catalog(stream)
    command = [sys.executable, "-m", "tests.fast_tap", *sandbox.write_config(), *catalog]
    environment = clean_environment(TAP_ENVOY_LOGLEVEL="ERROR")
    found: list[str] = []
    state: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as tap:
        assert tap.stdout is not None
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "RECORD":
                found.append(message["record"]["id"])
            elif message["type"] == "STATE":
                state = message["value"]
            if len(found) == 7_777:
                tap.send_signal(signal.SIGKILL)
                break
    again = read(sandbox.tap(state=state), stream)
    assert set(found) | set(ids(again)) == set(ids(sandbox.envoy.rows[stream]))
    # From the last STATE, less the lookback, or from where the last window began.
    assert len(again) < (5_700 if stream == "entries" else 12_000)


# Deep lists

MAKERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "entries": entries,
    "invites": invites,
    "work_schedules": work_schedules,
}


@pytest.mark.parametrize(
    ("stream", "count", "quirks"),
    [
        ("entries", 25_000, Quirks()),
        ("invites", 12_000, Quirks(meta="relationships", inclusive=False)),
        ("work_schedules", 12_000, Quirks()),
        ("work_schedules", 12_000, Quirks(meta="relationships", inclusive=False)),
    ],
)
def test_list_beyond_the_depth_limit_is_complete(
    sandbox: Sandbox, stream: str, count: int, quirks: Quirks
) -> None:
    sandbox.envoy.rows[stream] = MAKERS[stream](count, minutes=1)
    sandbox.envoy.quirks = quirks
    found = ids(read(sandbox.tap(), stream))
    assert len(found) == count
    assert set(found) == set(ids(sandbox.envoy.rows[stream]))
    queries = [request.query for request in sandbox.envoy.requests_for(list_path(stream))]
    assert max(int(query["page"]) * int(query["perPage"]) for query in queries) <= MAX_DEPTH
    # Without a `total`, a tenth is requested in vain, and windows are halved after they are read.
    assert len(queries) <= count / 100 * (2.8 if stream == "work_schedules" else 1.25)


def test_equal_times_across_the_depth_limit_are_complete(sandbox: Sandbox) -> None:
    last = START + timedelta(days=20)
    ties = [{**row, "id": f"tie-{n}"} for n, row in enumerate(entries(800, last, days=0))]
    sandbox.envoy.rows["entries"] = entries(9_700, minutes=1) + ties
    found = ids(read(sandbox.tap(), "entries"))
    assert sorted(found) == sorted(ids(sandbox.envoy.rows["entries"]))


@pytest.mark.parametrize("stream", ["entries", "work_schedules"])
def test_more_rows_at_one_time_than_the_depth_limit_are_an_error(
    sandbox: Sandbox, stream: str
) -> None:
    sandbox.envoy.rows[stream] = MAKERS[stream](10_300, days=0)
    sandbox.envoy.quirks = Quirks(max_rows=MAX_DEPTH)
    with pytest.raises(EnvoyError, match=r"More rows have the time|more than 10,000 rows"):
        read(sandbox.tap(), stream)


def test_list_without_a_filter_is_an_error_where_its_depth_is_limited(sandbox: Sandbox) -> None:
    flow = sandbox.envoy.rows["flows"][0]
    sandbox.envoy.rows["flows"] = [{**flow, "id": str(n)} for n in range(1_100)]
    assert len(read(sandbox.tap(), "flows")) == 1_100
    sandbox.envoy.quirks = Quirks(max_rows=1_000)
    tap = sandbox.tap()
    with pytest.raises(EnvoyError, match=r"refused to return more than .* rows \(HTTP 400\)"):
        read(tap, "flows")


# Any times

TIMES = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([0, 0, 0, 1, 500])), min_size=0, max_size=40
)


@given(
    times=TIMES,
    page_size=st.integers(3, 9),
    stream=st.sampled_from(sorted(KEYS)),
    inclusive=st.booleans(),
    meta=st.sampled_from(["honest", "missing"]),
)
@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_at_any_times_are_read_once(
    sandbox: Sandbox,
    times: list[tuple[int, int]],
    page_size: int,
    stream: str,
    meta: Any,
    *,
    inclusive: bool,
) -> None:
    key = KEYS[stream]
    row = dict(sandbox.envoy.rows[stream][0]) if sandbox.envoy.rows[stream] else {"id": ""}
    first = datetime.now(UTC) - timedelta(days=40)
    sandbox.envoy.rows[stream] = rows = [
        {
            **row,
            "id": f"r{n}",
            key: format_time(first + timedelta(days=day, milliseconds=ms)),
            "endTime": format_time(first + timedelta(days=day, hours=1)),
        }
        for n, (day, ms) in enumerate(times)
    ]
    sandbox.envoy.quirks = Quirks(inclusive=inclusive, meta=meta)
    tap = sandbox.tap(page_size=page_size, start_date=format_time(first - OVERLAP))
    found = ids(read(tap, stream))
    assert sorted(found) == sorted(ids(rows))
