"""Streams are read completely over HTTP, or fail loudly, whatever Envoy does."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError
from tests.conftest import Sandbox, read
from tests.random_cases import Case, random_case, rows_of
from tests.sandbox import RESOURCES, ChangeSchedule, Envoy, Quirks, list_path, random_delays
from tests.sandbox.server import Stage

NOT_PAGED = "ignores or rejects `page`"
OUT_OF_REACH = "refused to return more than"
SORTED = ("locations", "entries", "invites")
FILTERED = (*SORTED, "work_schedules")
UNFILTERED = ("employees", "flows", "spaces")
ALL = tuple(RESOURCES)

TABLE: list[tuple[dict[str, Any], tuple[str, ...], str | None]] = [
    ({"rejected": {"sort"}}, (*SORTED, "employees", "flows"), None),
    ({"rejected": {"order"}, "rejected_status": 422}, (*SORTED, "employees", "flows"), None),
    ({"rejected": {"perPage"}}, ALL, None),
    ({"rejected": {"createdAtAfter"}}, ("invites", "work_schedules"), None),
    ({"rejected": {"page"}}, UNFILTERED, NOT_PAGED),
    ({"rejected": {"page"}}, FILTERED, None),
    ({"rejected": {"type"}}, ("spaces",), "does not accept `type`"),
    ({"rejected": {"startTime"}}, ("reservations",), "does not accept `startTime`"),
    ({"max_per_page_accepted": 50}, ALL, None),
    ({"max_per_page_accepted": 10, "rejected_status": 422}, ("flows", "entries"), None),
    ({"ignored": {"sort"}}, (*SORTED, "employees", "flows"), None),
    ({"ignored": {"order"}}, (*SORTED, "employees", "flows"), None),
    ({"ignored": {"perPage"}}, ALL, None),
    ({"ignored": {"page"}}, UNFILTERED, NOT_PAGED),
    ({"ignored": {"page"}}, FILTERED, None),
    ({"ignored": {"signedInAtAfter"}}, ("entries",), None),
    ({"ignored": {"createdAtAfter"}}, ("invites", "work_schedules"), None),
    ({"ignored": {"startTime", "endTime"}}, ("reservations",), None),
    ({"ignored": {"type"}}, ("spaces",), None),
    *[({"meta": meta}, FILTERED, None) for meta in Quirks.alternatives("meta")],
    *[
        ({"total": total}, ("entries", "flows", "spaces"), None)
        for total in Quirks.alternatives("total")
        if total != "capped"  # at more rows than these lists have
    ],
    ({"numbers_as_strings": True, "per_page_echoed": True, "clamp": 40}, ALL, None),
    *[({"clamp": size}, ("entries", "flows", "work_schedules"), None) for size in (10, 25, 50)],
    *[({"fixed_size": size}, ("locations", "employees"), None) for size in (10, 25, 40, 50)],
    ({"single_response": True}, ("locations", "flows", "invites", "companies"), None),
    ({"first_page": 0}, ALL, None),
    *[({"past_end": end}, ("entries", "spaces"), None) for end in Quirks.alternatives("past_end")],
    *[({"first_page": 0, "past_end": end}, ("invites", "flows"), None) for end in ("repeat", 404)],
    ({"max_rows": 200}, FILTERED, None),
    ({"max_pages": 2}, FILTERED, None),
    ({"max_rows": 200}, UNFILTERED, OUT_OF_REACH),
    ({"order": "grouped"}, SORTED, None),
    ({"order": "grouped", "grouped_reverses": True}, SORTED, None),
    ({"order": "descending"}, SORTED, None),
    *[
        ({"timestamps": style}, ("entries", "reservations"), None)
        for style in Quirks.alternatives("timestamps")
    ],
    ({"inclusive": False, "whole_seconds": True, "max_rows": 200}, FILTERED, None),
    ({"numeric_ids": True}, ALL, None),
    ({"window": "overlaps"}, ("reservations",), None),
    ({"window": "within"}, ("reservations",), None),
]
"""Quirks, the streams that they concern, and why these fail (None: they are read completely)."""


def describe(options: dict[str, Any]) -> str:
    """Return quirks as text that is the same in each process."""
    values = {k: sorted(v) if isinstance(v, set | frozenset) else v for k, v in options.items()}
    return ",".join(f"{name}={value}" for name, value in values.items())


def arrange(envoy: Envoy, stream: str, **options: Any) -> None:
    envoy.rows[stream] = rows_of(stream, 230)
    envoy.resource_quirks[stream] = Quirks(**options)


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("options", "stream", "reason"),
    [
        pytest.param(options, stream, reason, id=f"{stream}-{describe(options)}")
        for options, streams, reason in TABLE
        for stream in streams
    ],
)
def test_quirk_is_read_completely_or_fails_for_its_reason(
    sandbox: Sandbox, options: dict[str, Any], stream: str, reason: str | None
) -> None:
    arrange(sandbox.envoy, stream, **options)
    start = {"start_date": "2026-01-01"} if stream == "reservations" else {}
    tap = sandbox.tap(**start)
    if reason is not None:
        with pytest.raises(EnvoyError, match=reason) as raised:
            read(tap, stream)
        assert "\n" not in str(raised.value)
        return
    emitted = ids(read(tap, stream))
    assert set(emitted) >= sandbox.envoy.stable_ids(stream)
    assert len(set(emitted)) == len(emitted)


PROGRAM_RUNS: list[tuple[str, dict[str, Any], str | None, str | None]] = [
    ("entries", {"rejected": {"sort"}}, "rejected `sort` and `order`", None),
    ("invites", {"rejected": RESOURCES["invites"].parameters}, "rejected", NOT_PAGED),
    ("entries", {"order": "grouped"}, "does not sort by `signedInAt`", None),
    ("flows", {"max_rows": 200}, None, OUT_OF_REACH),
    ("spaces", {"rejected": {"type=ROOM"}}, "`type=ROOM`", None),
    ("locations", {"clamp": 25, "meta": "missing", "past_end": 404}, None, None),
]


@pytest.mark.parametrize(
    ("stream", "options", "warning", "reason"),
    [pytest.param(*run, id=f"{run[0]}-{describe(run[1])}") for run in PROGRAM_RUNS],
)
def test_program_reports_a_quirk_in_one_line(
    sandbox: Sandbox, stream: str, options: dict[str, Any], warning: str | None, reason: str | None
) -> None:
    arrange(sandbox.envoy, stream, **options)
    run = sandbox.run_tap(*sandbox.write_catalog(stream))
    if reason is None:
        assert run.code == 0, run.err
        missing = sandbox.envoy.stable_ids(stream) - set(ids(run.records(stream)))
        assert {key[:1] for key in missing} <= ({"r"} if stream == "spaces" else set())
    else:
        run.assert_failed(f"{stream}: ", reason)
    assert "Traceback" not in run.err
    reports = [line for line in run.warnings if line.startswith(f"{stream}: Envoy")]
    assert len(reports) == (warning is not None)
    assert all(str(warning) in line for line in reports)


@given(seed=st.integers(0, 10**6))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_changing_list_is_read_completely_or_fails(
    sandbox: Sandbox, stage: tuple[Stage, str], seed: int
) -> None:
    case = random_case(random.Random(seed))  # noqa: S311
    envoy = stage[0].envoy = Envoy()
    serve_case(envoy, case, seed)
    start = {"start_date": case.start.isoformat()} if case.start else {}
    settings = {**sandbox.addresses, "api_key": envoy.api_key, "page_size": case.page_size}
    tap = sandbox.tap(**settings, **start)
    try:
        emitted = set(ids(read(tap, case.stream)))
    except EnvoyError as error:
        assert str(error).endswith(".")  # noqa: PT017
        return
    key = tap.streams[case.stream].replication_key or ""
    first = case.start.isoformat()[:19] if case.start else ""
    rows = {row["id"]: row for row in envoy.rows[case.stream]}
    for row in envoy.changes.stable_rows(list(rows.values())):
        if (row.get(key) or first) > first:
            (emitted_id,) = {str(row["id"])} if not case.quirks.numeric_ids else numeric(row)
            assert emitted_id in emitted, case.description


def serve_case(envoy: Envoy, case: Case, seed: int) -> None:
    envoy.rows[case.stream] = [dict(row) for row in case.rows]
    envoy.resource_quirks[case.stream] = case.quirks
    envoy.changes = ChangeSchedule(case.changes)
    envoy.response_delay = random_delays(0.005, seed)
    envoy.rng = random.Random(seed)  # noqa: S311


def numeric(row: dict[str, Any]) -> set[str]:
    return {"".join(filter(str.isdigit, row["id"]))}


def test_lists_beyond_the_depth_limit_are_read(sandbox: Sandbox) -> None:
    for stream in ("entries", "invites"):
        sandbox.envoy.rows[stream] = rows_of(stream, 25_000, minutes=1)
        sandbox.envoy.resource_quirks[stream] = Quirks(max_rows=10_000)
        emitted = ids(read(sandbox.tap(), stream))
        assert len(emitted) == len(set(emitted)) == 25_000
        assert len(sandbox.envoy.requests_for(list_path(stream))) <= 1.15 * 250 + 12
