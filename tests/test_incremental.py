"""Incremental reads: what is new, nothing lost, nothing twice in a run."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.errors import EnvoyError
from tap_envoy.slices import DEPTH, MOMENT
from tap_envoy.streams import EntriesStream
from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene, read
from tests.program import HERE, clean_environment
from tests.sandbox import Answer
from tests.sandbox.data import START, entries, invites, moment, reservations, work_schedules
from tests.sandbox.lists import Habits
from tests.test_lists import STREAMS, ids, path

KEYS = {
    "entries": "signedInAt",
    "invites": "createdAt",
    "work_schedules": "createdAt",
    "reservations": "startTime",
}


def state_of(tap: TapEnvoy) -> dict[str, Any]:
    return json.loads(json.dumps(tap.state))  # type: ignore[no-any-return]


def bookmark(stream: str, value: Any) -> dict[str, Any]:
    entry = {"replication_key": KEYS[stream], "replication_key_value": value}
    return {"bookmarks": {stream: entry}}


@pytest.mark.parametrize("stream", KEYS)
def test_a_second_run_reads_what_is_new_and_a_week_back(scene: Scene, stream: str) -> None:
    first = scene.run(*scene.select(stream), start_date="2023-06-01")
    assert first.code == 0
    rows = scene.envoy.rows[stream]
    begun = datetime.now(UTC) if stream == "reservations" else datetime.max.replace(tzinfo=UTC)
    newest = min(max(row[KEYS[stream]] for row in rows), moment(begun))
    reached = first.state["bookmarks"][stream]["replication_key_value"]
    assert first.state["bookmarks"][stream]["replication_key"] == KEYS[stream]
    assert abs(datetime.fromisoformat(reached) - datetime.fromisoformat(newest)) < timedelta(
        minutes=2
    )
    new = {**rows[0], "id": "new-one", KEYS[stream]: reached}
    rows.append(new)
    second = scene.run(*scene.select(stream), *scene.remember(first.state))
    assert second.code == 0
    since = moment(datetime.fromisoformat(reached) - timedelta(days=7))
    expected = {row["id"] for row in rows if row[KEYS[stream]] >= since}
    assert expected <= set(ids(second.records(stream)))
    assert len(second.records(stream)) <= len(expected) + 3  # what overlaps
    assert "new-one" in expected
    assert len(expected) < len(rows)


def test_a_late_sign_out_arrives_through_the_lookback(scene: Scene) -> None:
    rows = scene.envoy.rows["entries"]
    tap = scene.tap()
    read(tap, "entries")
    late = rows[-3]
    assert late["signedOutAt"] is None
    late["signedOutAt"] = "2024-03-15T00:00:00.000Z"
    again = {row["id"]: row for row in read(scene.tap(state=state_of(tap)), "entries")}
    assert again[late["id"]]["signedOutAt"] == "2024-03-15T00:00:00.000Z"
    assert len(again) == 7 * 24 + 1


@pytest.mark.parametrize("inclusive", [True, False])
def test_without_a_lookback_only_the_bookmark_itself_is_read_again(
    scene: Scene, *, inclusive: bool
) -> None:
    scene.envoy.habits = Habits(inclusive=inclusive)
    state = bookmark("entries", scene.envoy.rows["entries"][-2]["signedInAt"])
    rows = read(scene.tap(state=state, lookback_days=0), "entries")
    assert ids(rows) == ["v-318", "v-319"]


@pytest.mark.parametrize("stream", KEYS)
def test_a_start_date_bounds_the_first_run_and_the_lookback(scene: Scene, stream: str) -> None:
    rows = scene.envoy.rows[stream]
    middle = sorted(row[KEYS[stream]] for row in rows)[len(rows) // 2]
    expected = {row["id"] for row in rows if row[KEYS[stream]] >= middle}
    for state in (None, bookmark(stream, middle)):
        came = set(ids(read(scene.tap(state=state, start_date=middle), stream)))
        assert expected <= came
        assert len(came) <= len(expected) + 2


@pytest.mark.parametrize("stream", KEYS)
def test_a_time_that_is_missing_neither_ends_the_run_nor_moves_the_bookmark(
    scene: Scene, stream: str
) -> None:
    key = KEYS[stream]
    rows = scene.envoy.rows[stream] = scene.envoy.rows[stream][:40]
    rows[3][key] = None
    del rows[5][key]
    rows[7][key] = "no time at all" if stream == "entries" else None
    if stream == "reservations":
        rows[3][key] = rows[5][key] = rows[7][key] = None
    run = scene.run(*scene.select(stream), start_date=None)
    assert run.code == 0, run.err
    assert sorted(ids(run.records(stream))) == sorted(ids(rows))
    newest = max(row[key] for row in run.records(stream) if row.get(key))
    assert run.state["bookmarks"][stream]["replication_key_value"] <= newest


def test_the_bookmark_never_passes_the_moment_the_run_began(scene: Scene) -> None:
    before = moment(datetime.now(UTC))
    run = scene.run(*scene.select("reservations"), start_date="2026-01-01")
    reached = run.state["bookmarks"]["reservations"]["replication_key_value"]
    assert before <= reached <= moment(datetime.now(UTC))
    assert max(row["startTime"] for row in run.records("reservations")) > reached
    again = scene.run(*scene.select("reservations"), *scene.remember(run.state))
    coming = {r["id"] for r in run.records("reservations") if r["startTime"] > reached}
    assert coming <= set(ids(again.records("reservations")))


@pytest.mark.parametrize("days", [0, 5])
def test_reservations_are_read_as_far_ahead_as_is_set(scene: Scene, days: int) -> None:
    tap = scene.tap(start_date="2026-01-01", lookahead_days=days)
    rows = read(tap, "reservations")
    limit = datetime.now(UTC) + timedelta(days=days)
    assert max(row["startTime"] for row in rows) <= moment(limit)
    assert len(rows) >= 110 + days


@pytest.mark.parametrize("window", ["begins", "overlaps", "within"])
def test_whatever_a_window_means_each_reservation_comes_once(scene: Scene, window: str) -> None:
    scene.envoy.habits = Habits(window=window)
    scene.envoy.rows["reservations"] = reservations(900, hours=5)
    rows = read(scene.tap(start_date="2026-01-01", lookahead_days=400), "reservations")
    assert sorted(ids(rows)) == sorted(ids(scene.envoy.rows["reservations"]))


# State that is not ours


@pytest.mark.parametrize("value", ["next week", 5, ["2024-01-01"], {}])
def test_a_bookmark_that_is_no_time_is_a_sentence(scene: Scene, value: Any) -> None:
    state = scene.remember(bookmark("entries", value))
    run = scene.run(*scene.select("entries"), *state, start_date="2024-01-01")
    run.failed_with("--state", "entries", "not a time")


@pytest.mark.parametrize("state", [{"bookmarks": []}, {"bookmarks": {"entries": 7}}])
def test_a_state_of_another_shape_is_a_sentence(scene: Scene, state: Any) -> None:
    scene.run(*scene.remember(state)).failed_with("--state", "`bookmarks`")


@pytest.mark.parametrize("value", ["2024-03-14T10:00:00+02:00", "2024-03-14T08:00:00.000000Z"])
def test_a_bookmark_in_another_format_is_understood(scene: Scene, value: str) -> None:
    run = scene.run(*scene.select("entries"), *scene.remember(bookmark("entries", value)))
    assert run.code == 0
    (first, *_) = scene.envoy.asked("/v1/entries")
    assert first.query["signedInAtAfter"] == "2024-03-07T07:59:59.999Z"


@pytest.mark.parametrize("stream", KEYS)
@pytest.mark.parametrize("value", ["0001-01-01", "0001-01-01T00:00:00+14:00"])
def test_a_start_at_the_beginning_of_time_is_all_there_is(
    scene: Scene, stream: str, value: str
) -> None:
    assert len(read(scene.tap(start_date=value), stream)) == len(scene.envoy.rows[stream])
    state = bookmark(stream, "0001-01-01T00:00:00.000Z")
    assert len(read(scene.tap(state=state), stream)) == len(scene.envoy.rows[stream])


@pytest.mark.parametrize("stream", KEYS)
def test_a_start_at_the_end_of_time_is_nothing(scene: Scene, stream: str) -> None:
    assert read(scene.tap(start_date="9999-12-31T23:59:59-14:00"), stream) == []


def test_a_catalogue_may_ask_for_the_whole_list(scene: Scene) -> None:
    option, file = scene.select("entries")
    catalog = json.loads((scene.folder / "catalog.json").read_text())
    for stream in catalog["streams"]:
        stream["replication_method"] = "FULL_TABLE"
    (scene.folder / "catalog.json").write_text(json.dumps(catalog))
    state = scene.remember(bookmark("entries", "2024-03-14T00:00:00.000Z"))
    run = scene.run(option, file, *state, emit_activate_version_messages=True)
    assert len(run.records("entries")) == 320
    assert "ACTIVATE_VERSION" in {message["type"] for message in run.messages}


# Interrupted


@pytest.mark.parametrize("stream", ["entries", "work_schedules"])
def test_a_run_that_is_killed_is_resumed_and_no_row_is_lost(scene: Scene, stream: str) -> None:
    make = entries if stream == "entries" else work_schedules
    scene.envoy.rows[stream] = make(12_000, minutes=30)
    scene.run(*scene.select(stream), page_size=0)  # writes the settings, and ends
    config = json.loads((scene.folder / "config.json").read_text()) | {"page_size": 100}
    (scene.folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "tests.hasty", "--config", str(scene.folder / "config.json")]
    environment = clean_environment(TAP_ENVOY_LOGLEVEL="ERROR")
    came: list[str] = []
    state: dict[str, Any] = {}
    with subprocess.Popen(
        [*command, *scene.select(stream)], stdout=subprocess.PIPE, cwd=HERE, env=environment
    ) as tap:
        assert tap.stdout is not None
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "RECORD":
                came.append(message["record"]["id"])
            elif message["type"] == "STATE":
                state = message["value"]
            if len(came) == 7_777:
                tap.send_signal(signal.SIGKILL)
                break
    resumed = scene.run(*scene.select(stream), *scene.remember(state))
    assert resumed.code == 0
    assert set(came) | set(ids(resumed.records(stream))) == set(ids(scene.envoy.rows[stream]))
    again = len(resumed.records(stream))
    assert again < (5_600 if stream == "entries" else 12_000)  # from where the last slice began


def test_a_list_that_is_not_in_order_moves_the_bookmark_at_its_end_only(scene: Scene) -> None:
    rows = scene.envoy.rows["entries"]
    rows[50]["signedInAt"], rows[120]["signedInAt"] = "2024-03-12 08:00:00", "2024-03-09T00:00:00Z"
    run = scene.run(*scene.select("entries"))  # the sandbox sorts the texts
    assert run.code == 0
    assert len(run.records("entries")) == 320
    assert run.state["bookmarks"]["entries"]["replication_key_value"] == rows[-1]["signedInAt"]


# Deep lists


@pytest.mark.parametrize(
    ("meta", "inclusive"), [(("page", "perPage", "total"), True), (("relationships",), False)]
)
@pytest.mark.parametrize(
    ("stream", "count"), [("entries", 25_000), ("invites", 12_000), ("work_schedules", 12_000)]
)
def test_a_list_deeper_than_envoy_shows_comes_whole_and_once(
    scene: Scene, stream: str, count: int, meta: tuple[str, ...], *, inclusive: bool
) -> None:
    make = {"entries": entries, "invites": invites, "work_schedules": work_schedules}[stream]
    scene.envoy.rows[stream] = make(count, minutes=1)
    scene.envoy.habits = Habits(inclusive=inclusive)
    scene.envoy.meta_keys = meta
    came = ids(read(scene.tap(), stream))
    assert len(came) == count
    assert set(came) == set(ids(scene.envoy.rows[stream]))
    asked = [r.query for r in scene.envoy.asked(path(stream))]
    assert max(int(query["page"]) * int(query["perPage"]) for query in asked) <= DEPTH
    # Not many requests more than the rows take: what comes in no order is halved, and read anew.
    assert len(asked) <= count / 100 * (2.5 if stream == "work_schedules" else 1.1)


def test_deep_locations_are_cut_by_time_too(scene: Scene) -> None:
    rows = scene.envoy.rows["locations"]
    first = datetime(2021, 1, 1, tzinfo=UTC)
    scene.envoy.rows["locations"] = [
        {**rows[n % 250], "id": str(n), "createdAt": moment(first + timedelta(minutes=n // 300))}
        for n in range(10_500)
    ]
    assert sorted(ids(read(scene.tap()))) == sorted(ids(scene.envoy.rows["locations"]))


def test_rows_that_a_cut_puts_out_of_reach_are_an_error(scene: Scene) -> None:
    row = scene.envoy.rows["locations"][0]
    first = datetime(2021, 1, 1, tzinfo=UTC)
    rows = [
        {**row, "id": str(n), "createdAt": moment(first + timedelta(minutes=n))}
        for n in range(10_500)
    ]
    for row in rows[100:110]:
        row["createdAt"] = None  # they sort behind all others, where no filter by time finds them
    scene.envoy.rows["locations"] = rows
    run = scene.run()
    run.failed_with("announced 10500 rows, but 10490 came", "`createdAt`")
    assert len(run.records()) == 10_490


def test_hundreds_of_ties_across_a_cut_come_once(scene: Scene) -> None:
    scene.envoy.rows["entries"] = entries(9_700, minutes=1) + [
        {**row, "id": f"tie-{n}"}
        for n, row in enumerate(entries(800, START + timedelta(days=20), days=0))
    ]
    came = ids(read(scene.tap(), "entries"))
    assert sorted(came) == sorted(ids(scene.envoy.rows["entries"]))


@pytest.mark.parametrize("stream", ["entries", "work_schedules"])
def test_more_rows_in_one_instant_than_envoy_shows_are_an_error(scene: Scene, stream: str) -> None:
    make = entries if stream == "entries" else work_schedules
    scene.envoy.rows[stream] = make(10_300, days=0)
    with pytest.raises(EnvoyError, match=r"More than 10000 rows share the time 2024-03-01T08"):
        read(scene.tap(), stream)


@pytest.mark.parametrize("meta", [("total",), None])
def test_a_deep_list_that_cannot_be_cut_is_an_error_once_what_can_be_had_is_out(
    scene: Scene, meta: tuple[str, ...] | None
) -> None:
    space = scene.envoy.rows["spaces"][0]
    scene.envoy.rows["spaces"] = [{**space, "id": str(n)} for n in range(DEPTH + 1)]
    scene.envoy.meta_keys = meta
    run = scene.run(*scene.select("spaces"))
    run.failed_with("spaces: ", "goes on after 10000 rows")
    assert len(run.records("spaces")) == 10_000


def test_an_envoy_that_ignores_the_filter_does_not_make_a_loop(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntriesStream, "depth", 200)
    rows = scene.envoy.rows["entries"]
    pages = [rows[:100], rows[100:200]] * 2
    scene.envoy.script("/v1/entries", *[Answer(200, {"data": page}) for page in pages])
    with pytest.raises(EnvoyError, match="it ignores `signedInAtAfter`"):
        read(scene.tap(), "entries")
    assert len(scene.envoy.asked("/v1/entries")) == 4


def test_a_deep_list_that_comes_out_of_order_is_an_error_once_what_can_be_had_is_out(
    scene: Scene,
) -> None:
    row = scene.envoy.rows["entries"][0]
    rows = [
        {**row, "id": str(n), "signedInAt": moment(START - n * MOMENT)} for n in range(DEPTH + 1)
    ]
    pages = [rows[start : start + 100] for start in range(0, 10_001, 100)]
    scene.envoy.script("/v1/entries", *[Answer(200, {"data": page}) for page in pages])
    run = scene.run(*scene.select("entries"))
    run.failed_with("entries: ", "in the order of `signedInAt`", "the rest is out of reach")
    assert len(run.records("entries")) == 10_000


# Any times at all

TIMES = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([0, 0, 0, 1, 500])), min_size=0, max_size=40
)


@given(
    times=TIMES,
    page_size=st.integers(1, 7),
    stream=st.sampled_from(sorted(KEYS)),
    inclusive=st.booleans(),
    total=st.booleans(),
)
@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_comes_out_is_what_is_there(
    scene: Scene,
    times: list[tuple[int, int]],
    page_size: int,
    stream: str,
    *,
    inclusive: bool,
    total: bool,
) -> None:
    key = KEYS[stream]
    row = dict(scene.envoy.rows[stream][0]) if scene.envoy.rows[stream] else {"id": ""}
    first = datetime.now(UTC) - timedelta(days=40)
    scene.envoy.rows[stream] = rows = [
        {**row, "id": f"r{n}", key: moment(first + timedelta(days=day, milliseconds=ms))}
        for n, (day, ms) in enumerate(times)
    ]
    ties = max(map(times.count, times), default=0)
    scene.envoy.habits = Habits(inclusive=inclusive, depth=3 * page_size + 3 * ties * page_size)
    scene.envoy.meta_keys = ("total",) if total else None
    tap = scene.tap(page_size=page_size, start_date=moment(first - MOMENT))
    tap.streams[stream].depth = scene.envoy.habits.depth  # type: ignore[attr-defined]
    came = ids(read(tap, stream))
    assert sorted(came) == sorted(ids(rows))


def test_every_incremental_stream_is_covered_here() -> None:
    streams = TapEnvoy(validate_config=False).streams
    assert {n for n, s in streams.items() if s.replication_key} == set(KEYS)
    assert {n: s.replication_key for n, s in streams.items() if s.replication_key} == KEYS
    assert set(streams) == set(STREAMS)
