"""Every list of v1: whole, as its documentation has it, one list's failure not another's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tap_envoy.records import WITHHELD
from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene, read
from tests.sandbox import Answer
from tests.sandbox.data import moment
from tests.sandbox.lists import LISTINGS

STREAMS = [name.replace("-", "_") for name in LISTINGS]


def path(stream: str) -> str:
    return f"/v1/{stream.replace('_', '-')}"


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_every_stream_comes_whole_and_as_its_schema_says(scene: Scene) -> None:
    run = scene.run(*scene.select(*STREAMS), start_date="2023-12-31", **scene.login)
    assert run.code == 0, run.err
    schemas = {m["stream"]: m["schema"] for m in run.messages if m["type"] == "SCHEMA"}
    assert set(schemas) == set(STREAMS)
    for stream in STREAMS:
        rows = run.records(stream)
        assert sorted(ids(rows)) == sorted(ids(scene.envoy.rows[stream])), stream
        validator = Draft202012Validator(schemas[stream])
        for row in rows:
            validator.validate(row)


@pytest.mark.parametrize("stream", STREAMS)
def test_known_values_arrive_as_they_are(scene: Scene, stream: str) -> None:
    tap = scene.tap(start_date="2024-01-01")
    sent = {row["id"]: row for row in scene.envoy.rows[stream]}
    properties = tap.streams[stream].schema["properties"]
    for row in read(tap, stream):
        assert row.keys() <= properties.keys()
        for name, value in row.items():
            if isinstance(sent[row["id"]][name], str | int | float | None):
                assert value == sent[row["id"]][name]


QUERIES: dict[str, dict[str, str]] = {
    "locations": {"sort": "createdAt", "order": "ASC"},
    "companies": {},
    "employees": {"sort": "NAME", "order": "ASC"},
    "flows": {"sort": "CREATED_AT", "order": "ASC"},
    "entries": {
        "sort": "SIGNED_IN_AT",
        "order": "ASC",
        "signedInAtAfter": "2024-01-01T22:59:59.999Z",
    },
    "invites": {
        "sort": "CREATED_AT",
        "order": "ASC",
        "createdAtAfter": "2024-01-01T22:59:59.999Z",
    },
    "work_schedules": {"createdAtAfter": "2024-01-01T22:59:59.999Z"},
    "reservations": {
        "startTime": "2023-12-31T23:00:00.000Z",
        "endTime": "2024-01-29T23:00:00.001Z",
    },
    "spaces": {},
}


@pytest.mark.parametrize("stream", STREAMS)
def test_each_list_is_asked_as_documented(scene: Scene, stream: str) -> None:
    read(scene.tap(start_date="2024-01-02T00:00:00+01:00", page_size=100), stream)
    requests = scene.envoy.asked(path(stream))
    requests.sort(key=lambda request: request.query.get("startTime", ""))  # asked for ahead
    assert requests[0].query == {"page": "1", "perPage": "100", **QUERIES[stream]}
    if stream != "reservations":  # which has a window after the other
        assert {frozenset(r.query.items()) - {("page", r.query["page"])} for r in requests} == {
            frozenset({"perPage": "100", **QUERIES[stream]}.items())
        }


def test_without_a_start_all_there_is_is_read(scene: Scene) -> None:
    for stream in STREAMS:
        rows = read(scene.tap(), stream)
        assert sorted(ids(rows)) == sorted(ids(scene.envoy.rows[stream]))
    for stream, name in (("entries", "signedInAtAfter"), ("work_schedules", "createdAtAfter")):
        assert all(name not in request.query for request in scene.envoy.asked(path(stream)))


# What must not leave


def test_what_lets_others_act_is_left_out_without_a_word(scene: Scene) -> None:
    rows = scene.envoy.rows
    rows["work_schedules"][0]["reservations"] = [{"id": "d-1", "registrationURL": "https://x?t=1"}]
    run = scene.run(*scene.select("invites", "work_schedules"))
    assert run.code == 0
    assert len(run.records("invites")) == 230
    assert run.warnings == []
    for secret in ("invite-secret", "registration-secret", "nested-token", *WITHHELD):
        assert secret not in run.out + run.err


def test_personal_data_is_marked_as_such() -> None:
    streams = TapEnvoy(validate_config=False).streams
    marked = {
        f"{name}.{key}"
        for name, stream in streams.items()
        for key, definition in stream.schema["properties"].items()
        if definition["description"].endswith("Personal data.")
    }
    assert {"entries.fullName", "entries.email", "employees.name", "invites.invitee"} <= marked
    assert not any(name.startswith(("locations.", "flows.", "companies.")) for name in marked)


# Selection and scopes


def test_locations_alone_are_on_by_default(scene: Scene) -> None:
    run = scene.run(**scene.login)
    assert {m["stream"] for m in run.messages if m["type"] == "RECORD"} == {"locations"}
    assert scene.envoy.asked("/oauth2/token")[0].form["scope"] == "token.refresh,locations.read"


def test_a_login_asks_for_the_scopes_of_the_selection_and_no_more(scene: Scene) -> None:
    run = scene.run(*scene.select("invites", "spaces"), **scene.login)
    assert run.code == 0
    (login,) = scene.envoy.asked("/oauth2/token")
    assert login.form["scope"] == "token.refresh,employees.read,invites.read,spaces.read"


# One stream's failure is not the others'


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_stream_that_fails_is_named_and_the_others_are_read(scene: Scene, status: int) -> None:
    scene.envoy.script("/v1/employees", *[Answer(status, {"message": "this is why"})] * 4)
    run = scene.run(*scene.select("companies", "employees", "entries", "locations"))
    sentence = run.failed_with("employees: ", f"HTTP {status}", "this is why")
    assert ("`employees.read`" in sentence) == (status == 403)
    assert len(run.records("locations")) == 250
    assert len(run.records("entries")) == 320
    assert run.records("employees") == []
    last = run.err.splitlines()[-1]
    assert "Incomplete: employees." in last
    assert run.state["bookmarks"]["entries"]["replication_key_value"]


def test_a_failing_stream_keeps_the_bookmark_it_has_reached(scene: Scene) -> None:
    scene.envoy.script("/v1/entries", Answer(), Answer(), Answer(404, b""))
    run = scene.run(*scene.select("entries"))
    run.failed_with("entries: ", "HTTP 404")
    assert len(run.records("entries")) == 200
    assert run.state["bookmarks"]["entries"] == {
        "replication_key": "signedInAt",
        "replication_key_value": run.records("entries")[-1]["signedInAt"],
    }


def test_refused_credentials_end_the_run_and_are_tried_once(scene: Scene) -> None:
    run = scene.run(
        *scene.select(*STREAMS), **{**scene.login, "password": "not-the-right-one-here"}
    )
    run.failed_with("password grant", "HTTP 401")
    assert len(scene.envoy.requests) == 1
    assert f"Incomplete: {', '.join(sorted(STREAMS))}." in run.err


def test_without_a_connection_the_run_ends_and_others_do_not_wait_too(scene: Scene) -> None:
    run = scene.run(*scene.select(*STREAMS), api_url="http://127.0.0.1:9/v1")
    run.failed_with("companies: ", "no connection", "Gave up after 4 tries")


# Odd values


def test_odd_values_fit_the_schema_or_are_left_empty_with_one_warning(scene: Scene) -> None:
    row = scene.envoy.rows["locations"][0]
    row |= {
        "name": 7,
        "enabled": "true",
        "capacityLimit": "12",
        "scheduleAheadLimit": "1.5",
        "createdAt": "2024-05-17 16:39:44.1859+02:00",
        "updatedAt": "yesterday",
        "locale": ["de", "fr"],
        "address": {**row["address"], "latitude": "47.5", "city": None, "state": {"a": 1}},
    }
    scene.envoy.rows["locations"][1] |= {"address": "Main Street", "capacityLimit": 1.5}
    run = scene.run(*scene.select("locations"))
    rows = {row["id"]: row for row in run.records()}
    odd = rows[row["id"]]
    assert odd["name"] == "7"
    assert odd["enabled"] is True
    assert odd["capacityLimit"] == 12
    assert odd["scheduleAheadLimit"] == 1.5
    assert odd["createdAt"] == "2024-05-17T14:39:44.185Z"
    assert odd["updatedAt"] is None
    assert odd["locale"] == '["de","fr"]'
    assert odd["address"]["latitude"] == 47.5
    assert odd["address"]["state"] == '{"a":1}'
    assert rows["1002"]["address"] is None
    assert rows["1002"]["capacityLimit"] is None
    (warning,) = [line for line in run.warnings if "left empty" in line]
    assert "address, capacityLimit, updatedAt" in warning
    assert "yesterday" not in run.err
    assert "Main Street" not in run.err


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ("2024-05-17T14:39:44.185Z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T14:39:44Z", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17T14:39:44.185999Z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T14:39:44.185+00:00", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T07:39:44.185-07:00", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17 14:39:44", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17", "2024-05-17T00:00:00.000Z"),
        ("0001-01-01T00:00:00+14:00", None),
        (1715956784, None),
        ("", None),
    ],
)
def test_times_leave_in_one_format(scene: Scene, sent: Any, left: str | None) -> None:
    scene.envoy.rows["entries"][0]["signedOutAt"] = sent
    rows = {row["id"]: row for row in read(scene.tap(), "entries")}
    assert rows["v-0"]["signedOutAt"] == left


def test_a_window_begins_and_ends_where_it_should(scene: Scene) -> None:
    began = datetime.now(UTC)
    read(scene.tap(start_date="2026-01-01", lookahead_days=10), "reservations")
    windows = [request.query for request in scene.envoy.asked("/v1/reservations")]
    windows.sort(key=lambda window: window["startTime"])  # they are asked for ahead
    starts = [datetime.fromisoformat(window["startTime"]) for window in windows]
    ends = [datetime.fromisoformat(window["endTime"]) for window in windows]
    assert all(e - s <= timedelta(days=30) for s, e in zip(starts, ends, strict=True))
    assert all(s < e for s, e in zip(starts[1:], ends, strict=False))  # they overlap
    assert moment(began + timedelta(days=10)) <= windows[-1]["endTime"]
    assert ends[-1] < began + timedelta(days=10, minutes=1)
