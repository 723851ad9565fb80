"""The sandbox answers as Envoy's documentation says, and differs as the quirks say."""

from typing import Any, get_args

import pytest

from tests.sandbox import RESOURCES, Change, ChangeSchedule, Quirks, respond
from tests.sandbox.__main__ import main
from tests.sandbox.data import START, all_rows, entries, reservations
from tests.sandbox.quirks import Meta, Row
from tests.sandbox.rate_limits import LeakyBucket

PAGE_2 = {"page": "2", "perPage": "100"}
ASCENDING = {"sort": "SIGNED_IN_AT", "order": "ASC"}
FEBRUARY = {"startTime": "2024-02-01", "endTime": "2024-02-29"}


def ask(
    stream: str, query: dict[str, str] | None = None, rows: list[Row] | None = None, **quirks: Any
) -> tuple[int, Any]:
    """Return the status and body for `rows` (default: those of the sandbox) with some quirks."""
    rows = all_rows()[stream] if rows is None else rows
    return respond(RESOURCES[stream], rows, query or {}, Quirks(**quirks))


@pytest.mark.parametrize(
    ("stream", "size", "total"),
    [
        ("locations", 10, 250),
        ("companies", 1, None),
        ("employees", 10, 130),
        ("entries", 30, 320),
        ("invites", 100, 230),
        ("work_schedules", 100, 210),
        ("spaces", 250, None),
    ],
)
def test_bare_request_returns_documented_size_and_meta(stream: str, size: int, total: Any) -> None:
    status, body = ask(stream)
    assert (status, len(body["data"])) == (200, size)
    echo = {"page": 1, "perPage": size, "total": total}
    assert body["meta"] == (echo if total else {"relationships": []})


@pytest.mark.parametrize(
    ("stream", "query", "quirks", "expected"),
    [
        ("locations", {"updatedAtAfter": "2024-01-01"}, {}, 400),
        ("locations", {"sort": "CREATED_AT"}, {}, 400),
        ("entries", {"signedInAtAfter": "yesterday"}, {}, 400),
        ("entries", {"page": "0"}, {}, 400),
        ("reservations", {"startTime": "2024-01-01", "endTime": "2024-02-01"}, {}, 400),
        ("reservations", FEBRUARY, {"ignored": {"startTime"}}, 100),
        ("entries", {"signedInAtAfter": "2024-03-14T12:00:00Z"}, {}, 4),
        ("entries", {"signedInAtAfter": "2024-03-14T15:00:00.185Z"}, {"inclusive": False}, 0),
        ("entries", {"signedInAtAfter": "2024-03-14T15:00:00.9Z"}, {"whole_seconds": True}, 1),
        ("spaces", {"type": "ROOM"}, {}, 20),
        ("spaces", {"type": "ROOM"}, {"rejected": {"type=ROOM"}, "rejected_status": 422}, 422),
        ("entries", ASCENDING, {"rejected": {"sort"}}, 400),
        ("entries", PAGE_2, {"clamp": 40}, 40),
        ("entries", {"perPage": "7"}, {"fixed_size": 10}, 10),
        ("invites", PAGE_2, {"single_response": True}, 230),
        ("invites", PAGE_2, {"hidden": 10}, 85),
        ("invites", {"page": "101"}, {}, 400),
        ("entries", {"page": "3", "perPage": "99"}, {"max_rows": 200}, 400),
        ("entries", {"page": "3", "perPage": "99"}, {"max_rows": 200, "beyond_cap": "empty"}, 2),
    ],
)
def test_query_returns_so_many_rows_or_this_status(
    stream: str, query: dict[str, str], quirks: dict[str, Any], expected: int
) -> None:
    status, body = ask(stream, query, **quirks)
    assert (len(body["data"]) if status == 200 else status) == expected


@pytest.mark.parametrize(
    ("query", "quirks", "name", "value"),
    [
        (ASCENDING, {}, "id", "v-0"),
        (ASCENDING, {"ignored": {"order"}}, "id", "v-319"),
        ({}, {}, "id", "v-319"),
        (ASCENDING, {"timestamps": "space_utc"}, "signedInAt", "2024-03-01 08:00:00 UTC"),
        (ASCENDING, {"timestamps": "offset"}, "signedInAt", "2024-03-01T10:00:00.185000+02:00"),
    ],
)
def test_first_entry_depends_on_order_and_format(
    query: dict[str, str], quirks: dict[str, Any], name: str, value: str
) -> None:
    assert ask("entries", query, **quirks)[1]["data"][0][name] == value


def test_meta_is_as_the_quirk_says() -> None:
    query, rows = {"signedInAtAfter": "2024-03-02"}, entries(10_050)
    metas = {meta: ask("entries", query, rows, meta=meta)[1] for meta in get_args(Meta)}
    totals = {name: body.get("meta", {}).get("total") for name, body in metas.items()}
    others = {"missing": None, "relationships": None, "unfiltered": 10_050, "capped": 10_000}
    assert totals == {"honest": 10_034, "everywhere": 10_034, **others}


@pytest.mark.parametrize(("window", "expected"), [("begins", 2), ("overlaps", 3), ("within", 1)])
def test_window_of_reservations_means_what_the_quirk_says(window: str, expected: int) -> None:
    rows = reservations(10, START, hours=10)  # of nine hours each
    query = {"startTime": "2024-03-01T23:00:00Z", "endTime": "2024-03-02T16:00:00Z"}
    assert len(ask("reservations", query, rows, window=window)[1]["data"]) == expected


def test_changes_are_applied_between_requests_and_recorded() -> None:
    rows = entries(5)
    kinds: list[Any] = ["delete", "insert", "edit"]
    schedule = ChangeSchedule(Change("entries", 1, kind, 0) for kind in kinds)
    schedule.after_request("invites", rows)  # nothing is due
    schedule.after_request("entries", rows)
    assert [row["id"] for row in rows] == ["v-1", "v-2", "v-3", "v-4", "new-900001"]
    assert schedule.stable_rows(rows) == entries(5)[1:]


def test_leaky_bucket_allows_a_burst_and_then_even_requests() -> None:
    times = iter([100.6, 100.9, 101.0, 101.2, 101.7])
    limit = LeakyBucket(2, clock=lambda: next(times))
    assert [limit.allows() for _ in range(5)] == [True, True, False, True, True]


def test_quirks_are_parsed_or_reported(capsys: pytest.CaptureFixture[str]) -> None:
    known = Quirks.parse(["rejected=sort,type=ROOM", "clamp=25", "max_rows=0", "meta=missing"])
    assert known == Quirks(rejected={"sort", "type=ROOM"}, clamp=25, max_rows=0, meta="missing")
    for wrong in ("clamps=25", "clamp=many", "meta=wrong"):
        with pytest.raises(SystemExit):
            main(["--quirk", wrong])
        assert wrong.partition("=")[0] in capsys.readouterr().err
