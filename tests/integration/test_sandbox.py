"""The sandbox itself: what it answers by default, and with each quirk."""

import itertools
import json
import random
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.sandbox import (
    RESOURCES,
    Change,
    ChangeSchedule,
    Envoy,
    Quirks,
    ScriptedResponse,
    list_path,
    respond,
    serve,
    status_in_body,
)
from tests.sandbox.__main__ import instructions
from tests.sandbox.data import all_rows, entries, reservations
from tests.sandbox.quirks import Row
from tests.sandbox.rate_limits import FixedWindow, LeakyBucket, RateLimit, SlidingWindow
from tests.sandbox.server import environment, oauth_credentials
from tests.sandbox.timestamps import FORMATS, parse_time

ASCENDING = {"sort": "SIGNED_IN_AT", "order": "ASC"}
DESCENDING = {"sort": "SIGNED_IN_AT", "order": "DESC"}


def ask(
    stream: str, query: dict[str, str] | None = None, rows: list[Row] | None = None, **quirks: Any
) -> tuple[int, dict[str, Any]]:
    """Return the response for `rows` (default: those of the sandbox) with some quirks."""
    rows = all_rows()[stream] if rows is None else rows
    return respond(RESOURCES[stream], rows, query or {}, Quirks(**quirks), random.Random(1))  # noqa: S311


def page(stream: str, query: dict[str, str] | None = None, **options: Any) -> list[Row]:
    status, body = ask(stream, query, **options)
    assert status == 200, body
    rows: list[Row] = body["data"]
    return rows


def ids(rows: list[Row]) -> list[Any]:
    return [row["id"] for row in rows]


# The documented API


@pytest.mark.parametrize(
    ("stream", "rows", "total"),
    [
        ("locations", 10, 250),
        ("companies", 1, 1),
        ("employees", 10, 130),
        ("flows", 10, 12),
        ("entries", 30, 320),
        ("invites", 100, 230),
        ("work_schedules", 100, 210),
        ("reservations", 29, 29),
        ("spaces", 250, 260),
    ],
)
def test_bare_request_returns_first_page_of_documented_size(
    stream: str, rows: int, total: int
) -> None:
    status, body = ask(stream)
    assert status == 200
    assert abs(len(body["data"]) - rows) <= (stream == "reservations")
    assert abs(body["meta"]["total"] - total) <= (stream == "reservations")


@pytest.mark.parametrize(
    ("stream", "query"),
    [
        ("locations", {"updatedAtAfter": "2024-01-01"}),
        ("locations", {"sort": "CREATED_AT"}),
        ("entries", {**ASCENDING, "order": "ascending"}),
        ("entries", {"signedInAtAfter": "yesterday"}),
        ("entries", {"page": "0"}),
        ("entries", {"perPage": "many"}),
        ("invites", {"page": "101", "perPage": "100"}),
        ("reservations", {"startTime": "2024-01-01", "endTime": "2024-02-01"}),
    ],
)
def test_undocumented_query_is_rejected(stream: str, query: dict[str, str]) -> None:
    assert ask(stream, query)[0] == 400


@pytest.mark.parametrize(
    ("stream", "query", "expected"),
    [
        ("locations", {"ids": "1001,1002"}, 2),
        ("locations", {"enabled": "false"}, 22),
        ("locations", {"createdAtAfter": "2021-05-12T00:00:00Z"}, 5),
        ("locations", {"createdAtBefore": "2021-03-01T17:00:00Z"}, 1),
        ("employees", {"email": "e7@example.com"}, 1),
        ("flows", {"type": "VISITOR"}, 6),
        ("flows", {"locationIds": "1001"}, 4),
        ("entries", {"signedInAtAfter": "2024-03-14T12:00:00Z"}, 4),
        ("invites", {"hostEmail": "host@example.com", "ids": "i-1"}, 1),
        ("invites", {"inviteeEmail": "guest3@example.com"}, 1),
        ("invites", {"approvalStatus": "approved"}, 26),
        ("invites", {"expectedArrivalAtBefore": "2024-03-04T12:00:00Z"}, 2),
        ("work_schedules", {"userEmails": "e3@example.com"}, 1),
        ("reservations", {"floorIds": "8"}, 0),
        ("spaces", {"type": "ROOM"}, 20),
        ("spaces", {"type": "DESK,ROOM", "floorIds": "fl-0"}, 94),
    ],
)
def test_filter_selects_matching_rows(stream: str, query: dict[str, str], expected: int) -> None:
    assert ask(stream, query)[1]["meta"]["total"] == expected


def test_rows_changed_in_place_are_served_and_sorted() -> None:
    rows = entries(50)
    assert page("entries", rows=rows)[0]["id"] == "v-49"
    rows[3]["signedInAt"] = "2025-01-01T00:00:00.000Z"
    assert page("entries", rows=rows)[0]["id"] == "v-3"
    del rows[3]
    assert page("entries", rows=rows)[0]["id"] == "v-49"


# Parameters


@pytest.mark.parametrize("status", [400, 422])
def test_rejected_parameter_returns_error_that_names_it(status: int) -> None:
    quirks: dict[str, Any] = {"rejected": {"sort", "type=ROOM"}, "rejected_status": status}
    assert ask("entries", ASCENDING, **quirks) == (status, {"message": "Invalid parameter: sort"})
    assert ask("spaces", {"type": "ROOM"}, **quirks)[0] == status
    assert ask("spaces", {"type": "DESK"}, **quirks)[0] == 200


def test_per_page_above_accepted_maximum_is_rejected() -> None:
    assert ask("entries", {"perPage": "51"}, max_per_page_accepted=50)[0] == 400
    assert len(page("entries", {"perPage": "50"}, max_per_page_accepted=50)) == 50
    assert ask("spaces", max_per_page_accepted=50)[0] == 200


@pytest.mark.parametrize(
    ("ignored", "query", "first", "rows"),
    [
        ("sort", ASCENDING, "v-0", 30),
        ("order", ASCENDING, "v-319", 30),
        ("perPage", {"perPage": "7"}, "v-319", 30),
        ("page", {"page": "2"}, "v-319", 30),
        ("signedInAtAfter", {**ASCENDING, "signedInAtAfter": "2024-03-10T00:00:00Z"}, "v-0", 30),
    ],
)
def test_ignored_parameter_has_no_effect(
    ignored: str, query: dict[str, str], first: str, rows: int
) -> None:
    came = page("entries", query, ignored={ignored})
    assert (came[0]["id"], len(came)) == (first, rows)


def test_ignored_window_and_type_leave_no_row_out() -> None:
    query = {"startTime": "2020-01-01", "endTime": "2020-01-02"}
    ignored = {"startTime", "endTime", "type"}
    assert ask("reservations", query, ignored=ignored)[1]["meta"]["total"] == 160
    assert ask("spaces", {"type": "DESK"}, ignored=ignored)[1]["meta"]["total"] == 280


# Meta


@pytest.mark.parametrize(
    ("quirks", "expected"),
    [
        ({}, {"page": 2, "perPage": 100, "total": 320}),
        ({"meta": "relationships"}, {"relationships": []}),
        ({"meta": "total_only"}, {"total": 320}),
        ({"meta": "missing"}, None),
        ({"numbers_as_strings": True}, {"page": "2", "perPage": "100", "total": "320"}),
        ({"total": "page"}, {"page": 2, "perPage": 100, "total": 100}),
        ({"total": "pages"}, {"page": 2, "perPage": 100, "total": 4}),
        ({"total": "too_small"}, {"page": 2, "perPage": 100, "total": 160}),
        ({"total": "zero"}, {"page": 2, "perPage": 100, "total": 0}),
        ({"total": "negative"}, {"page": 2, "perPage": 100, "total": -1}),
        ({"total": "null"}, {"page": 2, "perPage": 100, "total": None}),
        ({"total": "renamed"}, {"page": 2, "perPage": 100, "totalCount": 320}),
        ({"clamp": 40}, {"page": 2, "perPage": 40, "total": 320}),
        ({"clamp": 40, "per_page_echoed": True}, {"page": 2, "perPage": 100, "total": 320}),
        (
            {"total": "page", "clamp": 40, "numbers_as_strings": True},
            {"page": "2", "perPage": "40", "total": "40"},
        ),
    ],
)
def test_meta_is_as_the_quirks_say(quirks: dict[str, Any], expected: Any) -> None:
    assert ask("entries", {"page": "2", "perPage": "100"}, **quirks)[1].get("meta") == expected


def test_total_may_be_capped_or_not_filtered() -> None:
    query = {"signedInAtAfter": "2024-03-01T09:00:00Z"}
    rows = entries(10_050, minutes=1)
    assert ask("entries", query, rows, total="capped")[1]["meta"]["total"] == 9_990
    assert ask("entries", {}, rows, total="capped")[1]["meta"]["total"] == 10_000
    assert ask("entries", query, rows, total="unfiltered")[1]["meta"]["total"] == 10_050


# Pages


@pytest.mark.parametrize(
    ("quirks", "size"),
    [
        ({"clamp": 25}, 25),
        ({"fixed_size": 40}, 40),
        ({"first_page": 0}, 100),
        ({"numeric_ids": True, "clamp": 10}, 10),
    ],
)
def test_pages_of_a_quiet_list_contain_each_row_once(quirks: dict[str, Any], size: int) -> None:
    first = quirks.get("first_page", 1)
    pages = [
        page("invites", {"page": str(number), "perPage": "100"}, **quirks)
        for number in range(first, first + 23)
    ]
    assert {len(rows) for rows in pages} <= {size, 230 % size, 0}
    assert len(set(ids(list(itertools.chain(*pages))))) == sum(map(len, pages)) == 230


def test_pages_numbered_from_zero_skip_rows_of_a_reader_that_begins_with_one() -> None:
    assert page("locations", {"page": "1"}, first_page=0)[0]["id"] == "1011"
    assert page("locations", first_page=0)[0]["id"] == "1001"


def test_single_response_contains_the_whole_list() -> None:
    status, body = ask("invites", {"page": "2", "perPage": "10"}, single_response=True)
    assert (status, len(body["data"])) == (200, 230)


def test_page_past_the_end_is_as_the_quirk_says() -> None:
    query = {"page": "4", "perPage": "100"}
    assert page("invites", query) == []
    assert ask("invites", query, past_end=404)[0] == 404
    assert ask("invites", query, past_end=400)[0] == 400
    assert len(page("invites", query, past_end="repeat")) == 30
    assert ask("invites", rows=[], past_end=404)[0] == 200


@pytest.mark.parametrize(
    ("stream", "quirks", "query", "status"),
    [
        ("invites", {}, {"page": "101"}, 400),
        ("work_schedules", {}, {"page": "101"}, 400),
        ("entries", {}, {"page": "101", "perPage": "100"}, 200),
        ("invites", {"max_rows": 0}, {"page": "101"}, 200),
        ("entries", {"max_rows": 200}, {"page": "2", "perPage": "100"}, 200),
        ("entries", {"max_rows": 200}, {"page": "3", "perPage": "100"}, 400),
        ("entries", {"max_pages": 3}, {"page": "3", "perPage": "1"}, 200),
        ("entries", {"max_pages": 3}, {"page": "4", "perPage": "1"}, 400),
    ],
)
def test_depth_is_limited_by_rows_or_pages(
    stream: str, quirks: dict[str, Any], query: dict[str, str], status: int
) -> None:
    assert ask(stream, query, **quirks)[0] == status


# Order


def test_grouped_order_sorts_each_group_only() -> None:
    ascending = page("entries", {**ASCENDING, "perPage": "100"}, order="grouped", clamp=100)
    assert {row["locationId"] for row in ascending} == {"1001"}
    assert ids(ascending)[:3] == ["v-0", "v-3", "v-6"]
    assert page("entries", DESCENDING, order="grouped")[0]["id"] == "v-318"
    reversed_groups = page("entries", DESCENDING, order="grouped", grouped_reverses=True)
    assert reversed_groups[0]["id"] == "v-317"


def test_descending_order_ignores_the_request() -> None:
    assert page("entries", ASCENDING, order="descending")[0]["id"] == "v-319"


def test_unstable_order_shuffles_only_rows_with_equal_keys() -> None:
    rows = entries(40) + [{**row, "id": f"t-{n}"} for n, row in enumerate(entries(60, days=0))]
    rng, quirks = random.Random(3), Quirks(unstable=True)  # noqa: S311
    answers = [
        respond(RESOURCES["entries"], rows, {**ASCENDING, "perPage": "100"}, quirks, rng)[1]["data"]
        for _ in range(2)
    ]
    assert ids(answers[0]) != ids(answers[1])
    assert ids(answers[0])[61:] == ids(answers[1])[61:] == [f"v-{n}" for n in range(1, 40)]
    assert ids(page("spaces", unstable=True)) != ids(page("spaces"))


# Values


@pytest.mark.parametrize("style", FORMATS)
def test_timestamp_format_means_the_same_time(style: Any) -> None:
    plain = page("locations")[0]["createdAt"]
    sent = page("locations", timestamps=style)[0]["createdAt"]
    (plain_time, sent_time) = parse_time(plain), parse_time(sent)
    assert plain_time is not None
    assert sent_time is not None
    assert (sent == plain) == (style == "iso_ms")
    assert 0 <= (plain_time - sent_time).total_seconds() < 1


@pytest.mark.parametrize(
    ("limit", "quirks", "expected"),
    [
        ("2024-03-14T14:00:00.185Z", {}, 2),
        ("2024-03-14T14:00:00.186Z", {}, 1),
        ("2024-03-14T14:00:00.185Z", {"inclusive": False}, 1),
        ("2024-03-14T14:00:00.999Z", {"whole_seconds": True}, 2),
        ("2024-03-14T14:00:00.000Z", {"whole_seconds": True, "inclusive": False}, 1),
        ("2024-03-14T14:00:00.185Z", {"timestamps": "epoch_seconds"}, 2),
    ],
)
def test_time_filter_compares_as_the_quirks_say(
    limit: str, quirks: dict[str, Any], expected: int
) -> None:
    assert len(page("entries", {"signedInAtAfter": limit}, **quirks)) == expected


def test_numeric_ids_are_numbers() -> None:
    row = page("invites", numeric_ids=True)[1]
    assert (row["id"], row["flowId"], row["locationId"]) == (1, 2, 1002)
    every = page("spaces", {"type": "ROOM,DESK"}, numeric_ids=True, single_response=True)
    assert len(set(ids(every))) == 280


@pytest.mark.parametrize(("window", "expected"), [("begins", 2), ("overlaps", 3), ("within", 1)])
def test_window_of_reservations_means_what_the_quirk_says(window: Any, expected: int) -> None:
    start = parse_time("2024-05-01T12:00:00Z")
    rows = reservations(10, start, hours=10)  # of nine hours each
    query = {"startTime": "2024-05-02T03:00:00Z", "endTime": "2024-05-02T20:00:00Z"}
    assert len(page("reservations", query, rows=rows, window=window)) == expected


# Changes


def test_changes_are_applied_between_requests_and_recorded() -> None:
    rows = entries(10)
    schedule = ChangeSchedule(
        [
            Change("entries", 1, "delete", 0),
            Change("entries", 1, "insert", 1.0),
            Change("entries", 2, "delete", 0.5),
            Change("invites", 1, "delete", 0),
        ]
    )
    schedule.after_request("entries", rows)
    assert ids(rows) == [*(f"v-{n}" for n in range(1, 10)), "new-900001"]
    schedule.after_request("entries", rows)
    assert ids(schedule.stable_rows(rows)) == [
        "v-1",
        "v-2",
        "v-3",
        "v-4",
        "v-5",
        *ids(entries(10)[7:]),
    ]
    schedule.after_request("entries", rows)
    assert len(rows) == 9


# Over HTTP


@pytest.fixture
def envoy() -> Iterator[tuple[Envoy, str]]:
    envoy = Envoy()
    with serve(envoy) as address:
        yield envoy, address


def get(served: tuple[Envoy, str], stream: str, **query: str) -> requests.Response:
    envoy, address = served
    headers = {"X-Api-Key": envoy.api_key}
    return requests.get(address + list_path(stream), query, headers=headers, timeout=10)


def test_pages_are_read_from_the_list_as_it_is_now(envoy: tuple[Envoy, str]) -> None:
    state, _ = envoy
    state.changes = ChangeSchedule([Change("work_schedules", 1, "delete", 0)])
    first = ids(get(envoy, "work_schedules").json()["data"])
    second = ids(get(envoy, "work_schedules", page="2").json()["data"])
    assert state.rows["work_schedules"][99]["id"] not in first + second
    assert len(state.stable_ids("work_schedules")) == 209


def test_quirks_may_concern_a_single_stream(envoy: tuple[Envoy, str]) -> None:
    envoy[0].resource_quirks["entries"] = Quirks(numeric_ids=True, clamp=5)
    assert ids(get(envoy, "entries").json()["data"]) == [319, 318, 317, 316, 315]
    assert "319" in envoy[0].stable_ids("entries")
    assert len(get(envoy, "invites").json()["data"]) == 100


def test_delayed_responses_change_places(envoy: tuple[Envoy, str]) -> None:
    envoy[0].response_delay = lambda request: 0.3 if request.query["page"] == "1" else 0.0
    arrived: list[str] = []

    def read(number: str) -> None:
        get(envoy, "invites", page=number)
        arrived.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrived == ["2", "1"]


def test_scripted_responses_come_before_the_real_one(envoy: tuple[Envoy, str]) -> None:
    envoy[0].script(list_path("flows"), status_in_body(429), ScriptedResponse(500))
    assert [get(envoy, "flows").status_code for _ in range(3)] == [200, 500, 200]
    assert len(envoy[0].requests_for("/v1/flows")) == 3


def test_rate_limit_answers_429_with_retry_after(envoy: tuple[Envoy, str]) -> None:
    envoy[0].limit = LeakyBucket(1, retry_after="7")
    assert get(envoy, "flows").status_code == 200
    refused = get(envoy, "flows")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (LeakyBucket, [True, True, False, True, True]),
        (FixedWindow, [True, True, True, True, False]),
        (SlidingWindow, [True, True, False, False, True]),
    ],
)
def test_rate_limits_differ_across_a_second(kind: type[RateLimit], allowed: list[bool]) -> None:
    times = iter([100.6, 100.9, 101.0, 101.2, 101.7])
    limit = kind(2, clock=lambda: next(times))
    assert [limit.allows() for _ in range(5)] == allowed


# By hand


def sandbox(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_command_runs_with_quirks_and_credentials() -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    run = sandbox("--quirk", "clamp=25", sys.executable, "-c", code)
    assert run.returncode == 0, run.stderr
    variables = json.loads(run.stdout)
    names = {"CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD", "REFRESH_TOKEN"}
    assert {f"SANDBOX_{name}" for name in names} | {"TAP_ENVOY_API_KEY"} <= variables.keys()


@pytest.mark.parametrize("quirk", ["clamps=25", "clamp=many", "total=wrong"])
def test_unknown_quirk_is_reported(quirk: str) -> None:
    run = sandbox("--quirk", quirk)
    assert run.returncode == 2
    assert quirk.partition("=")[0] in run.stderr


def test_quirks_are_parsed_by_type() -> None:
    parsed = Quirks.parse(
        ["rejected=sort,type=ROOM", "past_end=404", "unstable=True", "max_rows=0", "total=null"]
    )
    assert parsed == Quirks(
        rejected={"sort", "type=ROOM"}, past_end=404, unstable=True, max_rows=0, total="null"
    )
    assert "past_end=empty|repeat|404|400" in Quirks.describe()


def test_printed_variables_can_be_pasted_into_a_shell() -> None:
    envoy = Envoy()
    text = instructions(environment(envoy, "http://127.0.0.1:1"), oauth_credentials(envoy))
    words = shlex.split(text.replace("# ", ""))
    assert f"TAP_ENVOY_PASSWORD={envoy.password}" in words
    assert f"TAP_ENVOY_API_KEY={envoy.api_key}" in words
