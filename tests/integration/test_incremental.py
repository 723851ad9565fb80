"""Incremental reads: from one run to the next, and after what fails in between."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read
from tests.runner import ROOT, clean_environment
from tests.sandbox import Quirks, ScriptedResponse
from tests.sandbox.data import entries, invites, reservations, work_schedules
from tests.sandbox.timestamps import format_time

KEYS = {
    "entries": "signedInAt",
    "invites": "createdAt",
    "work_schedules": "createdAt",
    "reservations": "startTime",
}


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def bookmark_of(tap: TapEnvoy, stream: str) -> Any:
    return tap.state["bookmarks"][stream].get("replication_key_value")


def state(stream: str, value: Any) -> dict[str, Any]:
    entry = {"replication_key": KEYS[stream], "replication_key_value": value}
    return {"bookmarks": {stream: entry}}


# From one run to the next


@pytest.mark.parametrize("stream", KEYS)
def test_second_run_reads_what_is_new_and_a_week_back(sandbox: Sandbox, stream: str) -> None:
    key, rows = KEYS[stream], sandbox.envoy.rows[stream]
    first = sandbox.tap(start_date="2023-06-01")
    before = datetime.now(UTC)
    read(first, stream)
    reached = bookmark_of(first, stream)
    newest = min(max(row[key] for row in rows), format_time(before))  # not past the run's start
    assert newest >= reached >= format_time(datetime.fromisoformat(newest) - timedelta(minutes=1))
    rows.append({**rows[0], "id": "new-one", "endTime": reached, key: reached})
    second = ids(read(sandbox.tap(state=state(stream, reached)), stream))
    since = format_time(datetime.fromisoformat(reached) - timedelta(days=7))
    expected = {row["id"] for row in rows if row[key] >= since}
    assert "new-one" in expected
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


def test_time_that_is_none_becomes_null_and_moves_no_bookmark(sandbox: Sandbox) -> None:
    row, *others = sandbox.envoy.rows["entries"]
    newest = max(other["signedInAt"] for other in others)
    row["signedInAt"] = "no time at all"
    sandbox.envoy.quirks = Quirks(ignored={"sort", "signedInAtAfter"})
    tap = sandbox.tap(start_date="2026-01-01")
    (found,) = [record for record in read(tap, "entries") if record["id"] == row["id"]]
    assert found["signedInAt"] is None
    assert found["additionalFields"] == {"signedInAt": "no time at all"}
    assert bookmark_of(tap, "entries") == newest


# Failures


def test_failed_run_keeps_the_bookmarks_that_it_was_given(sandbox: Sandbox) -> None:
    given = state("entries", "no time")["bookmarks"]
    given |= state("reservations", "2026-01-01T00:00:00.000Z")["bookmarks"]  # is not selected
    catalog = sandbox.write_catalog("entries", "invites", "locations")
    option = sandbox.write_state({"bookmarks": given})
    run = sandbox.run_tap(*catalog, *option, start_date="2024-03-01")
    run.assert_failed("Failed: entries (1 of 3 streams): The bookmark in the state is not a time")
    assert run.records("invites")
    left = run.state["bookmarks"]
    assert left.pop("invites").keys() == {"replication_key", "replication_key_value"}
    assert {name: bookmark for name, bookmark in left.items() if bookmark} == given


def test_failed_stream_keeps_the_bookmark_of_its_last_complete_window(sandbox: Sandbox) -> None:
    first = datetime.now(UTC) - timedelta(days=400)
    rows = sandbox.envoy.rows["reservations"] = reservations(400, first)
    real, refusal = ScriptedResponse(), ScriptedResponse(403, b"")
    sandbox.envoy.script("/v1/reservations", *[real] * 20, *[refusal] * 99)
    catalog = sandbox.write_catalog("reservations")
    run = sandbox.run_tap(*catalog, start_date=f"{first:%Y-%m-%d}")
    run.assert_failed("Failed: reservations (1 of 1 stream): Envoy denied access (HTTP 403)")
    reached = run.state["bookmarks"]["reservations"]["replication_key_value"]
    found = {row["id"] for row in run.records("reservations")}
    assert found >= {row["id"] for row in rows if row["startTime"] <= reached}
    assert len(found) < len(rows)


def test_killed_run_goes_on_from_its_last_complete_window(sandbox: Sandbox) -> None:
    first = datetime.now(UTC) - timedelta(days=400)
    rows = sandbox.envoy.rows["reservations"] = reservations(3_000, first, hours=3)
    command = [sys.executable, "-m", "tests.fast_tap", *sandbox.write_catalog("reservations")]
    command += sandbox.write_config(start_date=format_time(first))
    environment = clean_environment(TAP_ENVOY_LOGLEVEL="ERROR")
    found: set[str] = set()
    last: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as tap:
        assert tap.stdout is not None
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "RECORD":
                found.add(message["record"]["id"])
            elif message["type"] == "STATE":
                last = message["value"]
            if len(found) == 2_500:
                tap.send_signal(signal.SIGKILL)
                break
    again = ids(read(sandbox.tap(state=last), "reservations"))
    assert found | set(again) == set(ids(rows))
    assert 500 <= len(again) < 1_500


# Lists that differ

MAKERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "entries": entries,
    "invites": invites,
    "work_schedules": work_schedules,
}


@pytest.mark.parametrize("stream", MAKERS)
@pytest.mark.parametrize("meta", ["honest", "missing"])
@pytest.mark.parametrize("difference", ["ignored", "rejected"])
def test_filter_without_effect_is_read_whole_with_one_warning(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    stream: str,
    meta: Any,
    difference: str,
) -> None:
    name = "signedInAt" if stream == "entries" else "createdAt"
    filters = {f"{name}After", f"{name}Before"}
    sandbox.envoy.quirks = Quirks(meta=meta, **{difference: filters})  # type: ignore[arg-type]
    rows = sandbox.envoy.rows[stream] = MAKERS[stream](500, hours=1)
    start = rows[300][name]
    tap = sandbox.tap(start_date=start)
    found = ids(read(tap, stream))
    expected = {row["id"] for row in rows if row[name] >= start}
    assert len(found) == len(set(found))
    assert expected <= set(found)
    assert len(found) <= len(expected) + 2
    assert bookmark_of(tap, stream) == max(row[name] for row in rows)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith(f"{stream}: Envoy {difference.replace('ignored', 'ignores')} ")
    assert f"{name}After" in warning


def test_invites_beyond_the_cap_are_read_once(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["invites"] = invites(12_000, minutes=1)
    found = ids(read(sandbox.tap(), "invites"))
    assert sorted(found) == sorted(ids(sandbox.envoy.rows["invites"]))
    queries = [request.query for request in sandbox.envoy.requests_for("/v1/invites")]
    assert max(int(query["page"]) * int(query["perPage"]) for query in queries) <= 10_000
