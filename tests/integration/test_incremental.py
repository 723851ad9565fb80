"""Incremental reads: from one run to the next, and after what fails in between."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sandbox, read
from tests.runner import run_tap
from tests.sandbox import ScriptedResponse, data
from tests.sandbox.timestamps import format_time

KEYS = {
    "entries": "signedInAt",
    "invites": "createdAt",
    "work_schedules": "createdAt",
    "reservations": "startTime",
}


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def state(stream: str, value: Any) -> dict[str, Any]:
    return {
        "bookmarks": {stream: {"replication_key": KEYS[stream], "replication_key_value": value}}
    }


# From one run to the next


@pytest.mark.parametrize("stream", KEYS)
def test_second_run_reads_what_is_new_and_a_week_back(sandbox: Sandbox, stream: str) -> None:
    key, rows = KEYS[stream], sandbox.envoy.rows[stream]
    first = sandbox.tap(start_date="2023-06-01")
    before = datetime.now(UTC)
    read(first, stream)
    reached = first.state["bookmarks"][stream]["replication_key_value"]
    newest = min(max(row[key] for row in rows), format_time(before))  # not past the run's start
    assert newest >= reached >= format_time(datetime.fromisoformat(newest) - timedelta(minutes=1))
    rows.append({**rows[0], "id": "new-one", "endTime": reached, key: reached})
    second = ids(read(sandbox.tap(state=state(stream, reached)), stream))
    since = format_time(datetime.fromisoformat(reached) - timedelta(days=7))
    expected = {row["id"] for row in rows if row[key] >= since}
    assert expected <= set(second)
    assert len(second) <= len(expected) + 3  # what overlaps
    assert stream == "reservations" or len(expected) < len(rows)


@pytest.mark.parametrize("stream", KEYS)
@pytest.mark.parametrize("has_state", [False, True])
def test_start_date_bounds_the_first_run_and_the_lookback(
    sandbox: Sandbox, stream: str, *, has_state: bool
) -> None:
    rows = sandbox.envoy.rows[stream]
    middle = sorted(row[KEYS[stream]] for row in rows)[len(rows) // 2]
    expected = {row["id"] for row in rows if row[KEYS[stream]] >= middle}
    tap = sandbox.tap(state=state(stream, middle) if has_state else None, start_date=middle)
    found = set(ids(read(tap, stream)))
    assert expected <= found
    assert len(found) <= len(expected) + 2


def test_full_table_read_has_all_rows_and_keeps_the_bookmark(sandbox: Sandbox) -> None:
    given = state("entries", "2024-03-14T08:00:00.000Z")
    tap = sandbox.tap(state=given)
    tap.streams["entries"].forced_replication_method = "FULL_TABLE"
    assert len(read(tap, "entries")) == len(sandbox.envoy.rows["entries"])
    assert tap.state == given


# Failures


def test_failed_stream_keeps_the_bookmark_of_its_last_complete_window(sandbox: Sandbox) -> None:
    first = datetime.now(UTC) - timedelta(days=400)
    rows = sandbox.envoy.rows["reservations"] = data.reservations(400, first)
    real, refusal = ScriptedResponse(), ScriptedResponse(403, b"")
    sandbox.envoy.script("/v1/reservations", *[real] * 20, *[refusal] * 99)
    run = sandbox.run_tap(*sandbox.write_catalog("reservations"), start_date=f"{first:%Y-%m-%d}")
    run.assert_failed("Failed: reservations (1 of 1 stream): Envoy denied access (HTTP 403)")
    reached = run.state["bookmarks"]["reservations"]["replication_key_value"]
    found = {row["id"] for row in run.records("reservations")}
    assert found >= {row["id"] for row in rows if row["startTime"] <= reached}
    assert len(found) < len(rows)


def test_killed_run_goes_on_from_its_last_complete_window(sandbox: Sandbox, tmp_path: Path) -> None:
    first = datetime.now(UTC) - timedelta(days=400)
    rows = sandbox.envoy.rows["reservations"] = data.reservations(1_500, first, hours=6)
    found, last = set[str](), dict[str, Any]()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def kill_at_1200_records(process_id: int) -> None:
        with pipe.open(encoding="utf-8") as lines:
            for message in map(json.loads, lines):
                if message["type"] == "RECORD":
                    found.add(message["record"]["id"])
                elif message["type"] == "STATE":
                    last.update(message["value"])
                if len(found) == 1_200:
                    os.kill(process_id, signal.SIGKILL)
                    return

    options = *sandbox.write_catalog("reservations"), *sandbox.write_config(start_date=f"{first}")
    run = run_tap(*options, stdout=pipe, interact=kill_at_1200_records)
    assert run.code == -signal.SIGKILL
    again = ids(read(sandbox.tap(state=last), "reservations"))
    assert found | set(again) == set(ids(rows))
    assert 500 <= len(again) < 800


# Depth


def test_invites_beyond_the_cap_are_read_once(sandbox: Sandbox) -> None:
    times = [data.START + number * timedelta(minutes=1) for number in range(12_000)]
    rows = [{"id": f"i-{n}", "createdAt": format_time(time)} for n, time in enumerate(times)]
    sandbox.envoy.rows["invites"] = rows
    assert sorted(ids(read(sandbox.tap(), "invites"))) == sorted(ids(rows))
    queries = [request.query for request in sandbox.envoy.requests_for("/v1/invites")]
    assert max(int(query["page"]) * int(query["perPage"]) for query in queries) <= 10_000
