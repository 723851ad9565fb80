"""Every stream: all of its rows, requested as documented, and what a selection means."""

import logging
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tap_envoy.records import SECRET_PROPERTIES
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read
from tests.sandbox import RESOURCES, Quirks, ScriptedResponse, list_path
from tests.sandbox.data import locations

STREAMS = tuple(RESOURCES)
LIST = "/v1/locations"


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_streams_are_read_completely_and_match_their_schemas(sandbox: Sandbox) -> None:
    catalog = sandbox.write_catalog(*STREAMS)
    run = sandbox.run_tap(*catalog, start_date="2023-12-31", **sandbox.login)
    assert run.code == 0, run.err
    schemas = {m["stream"]: m["schema"] for m in run.messages if m["type"] == "SCHEMA"}
    assert set(schemas) == set(STREAMS)
    for stream in STREAMS:
        rows = run.records(stream)
        assert sorted(ids(rows)) == sorted(ids(sandbox.envoy.rows[stream])), stream
        validator = Draft202012Validator(schemas[stream])
        for row in rows:
            validator.validate(row)


@pytest.mark.parametrize("stream", STREAMS)
def test_known_values_are_emitted_unchanged(sandbox: Sandbox, stream: str) -> None:
    tap = sandbox.tap(start_date="2024-01-01")
    sent = {row["id"]: row for row in sandbox.envoy.rows[stream]}
    properties = tap.streams[stream].schema["properties"]
    for row in read(tap, stream):
        assert row.keys() <= properties.keys()
        for name, value in row.items():
            if isinstance(sent[row["id"]][name], str | int | float | None):
                assert value == sent[row["id"]][name]


def test_locations_are_emitted_in_order_without_unknown_fields(sandbox: Sandbox) -> None:
    expected = [
        {key: value for key, value in row.items() if key != "printerIds"}
        for row in sandbox.envoy.rows["locations"]
    ]
    assert read(sandbox.tap()) == expected == read(sandbox.tap())


FILTERS: dict[str, dict[str, str]] = {
    "locations": {"sort": "createdAt", "order": "ASC"},
    "companies": {},
    "employees": {"sort": "NAME", "order": "ASC"},
    "flows": {"sort": "CREATED_AT", "order": "ASC"},
    "entries": {
        "sort": "SIGNED_IN_AT",
        "order": "ASC",
        "signedInAtAfter": "2024-01-01T22:59:58.000Z",
    },
    "invites": {
        "sort": "CREATED_AT",
        "order": "ASC",
        "createdAtAfter": "2024-01-01T22:59:58.000Z",
    },
    "work_schedules": {"createdAtAfter": "2024-01-01T22:59:58.000Z"},
    "spaces": {"type": "DESK"},
}


@pytest.mark.parametrize("stream", FILTERS)
def test_requests_have_the_documented_parameters(sandbox: Sandbox, stream: str) -> None:
    read(sandbox.tap(start_date="2024-01-02T00:00:00+01:00", page_size=100), stream)
    first, *others = sandbox.envoy.requests_for(list_path(stream))
    assert first.query == {"page": "1", "perPage": "100", **FILTERS[stream]}
    for request in others:
        assert 0 < int(request.query["perPage"]) <= 100
        assert request.query.keys() == first.query.keys()


def test_reading_without_a_start_has_no_filter_by_time(sandbox: Sandbox) -> None:
    tap = sandbox.tap()
    for stream in STREAMS:
        assert sorted(ids(read(tap, stream))) == sorted(ids(sandbox.envoy.rows[stream]))
    for stream, name in (("entries", "signedInAtAfter"), ("work_schedules", "createdAtAfter")):
        for request in sandbox.envoy.requests_for(list_path(stream)):
            assert name not in request.query


@pytest.mark.parametrize(
    ("count", "quirks", "most_requests"),
    [
        (0, Quirks(), 2),
        (1, Quirks(meta="missing"), 5),  # it may be the last row of pages counted from 0
        (100, Quirks(), 2),
        (101, Quirks(meta="relationships"), 4),
        (250, Quirks(clamp=30), 12),
        (1000, Quirks(meta="total_only"), 13),
    ],
)
def test_pages_of_a_quiet_list_need_few_requests(
    sandbox: Sandbox, count: int, quirks: Quirks, most_requests: int
) -> None:
    sandbox.envoy.rows["locations"] = locations(count)
    sandbox.envoy.quirks = quirks
    assert ids(read(sandbox.tap())) == ids(sandbox.envoy.rows["locations"])
    assert len(sandbox.envoy.requests_for(LIST)) <= most_requests


@pytest.mark.parametrize("size", [1, 7, 99])
def test_page_size_is_never_exceeded(sandbox: Sandbox, size: int) -> None:
    sandbox.envoy.rows["locations"] = locations(20)
    assert len(read(sandbox.tap(page_size=size))) == 20
    assert max(int(r.query["perPage"]) for r in sandbox.envoy.requests_for(LIST)) == size


def test_user_agent_is_that_of_the_tap_or_of_the_settings(sandbox: Sandbox) -> None:
    read(sandbox.tap())
    agent = sandbox.envoy.requests[-1].headers["user-agent"]
    assert agent == f"tap-envoy/{TapEnvoy.plugin_version}"
    read(sandbox.tap(user_agent="acme-warehouse (data@acme.example)"))
    agent = sandbox.envoy.requests[-1].headers["user-agent"]
    assert agent == "acme-warehouse (data@acme.example)"


# What is dropped or converted


def test_secret_properties_are_dropped_without_a_warning(sandbox: Sandbox) -> None:
    nested = [{"id": "d-1", "registrationURL": "https://x?t=1"}]
    sandbox.envoy.rows["work_schedules"][0]["reservations"] = nested
    run = sandbox.run_tap(*sandbox.write_catalog("invites", "work_schedules"))
    assert run.code == 0
    assert len(run.records("invites")) == 230
    assert run.warnings == []
    for secret in ("invite-secret", "registration-secret", "nested-token", *SECRET_PROPERTIES):
        assert secret not in run.out + run.err


def test_secret_property_with_an_escaped_name_is_dropped(sandbox: Sandbox) -> None:
    subscriptions = rb'[{"\u0073ecretToken": "x", "a": "b"}]'
    body = b'{"data": [{"id": "1", "subscriptions": %b}], "meta": {"total": 1}}' % subscriptions
    sandbox.envoy.script("/v1/companies", ScriptedResponse(200, body))
    (row,) = read(sandbox.tap(), "companies")
    assert row["subscriptions"] == [{"a": "b"}]


def test_secret_property_beside_deep_nesting_fails_the_stream_alone(sandbox: Sandbox) -> None:
    body = b'{"data": [{"id": "1", "secretToken": "x", "notes": %b}]}' % (b"[" * 150 + b"]" * 150)
    sandbox.envoy.script("/v1/invites", ScriptedResponse(200, body))
    run = sandbox.run_tap(*sandbox.write_catalog("invites", "locations"))
    run.assert_failed("invites: Envoy returned a row that is nested too deeply")
    assert len(run.records()) == 250


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_unknown_fields_are_named_once(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.envoy.rows["locations"][3]["zebra"] = 1
    rows = read(sandbox.tap())
    assert warnings(caplog) == ["locations: dropped unknown fields: printerIds, zebra."]
    assert not any({"printerIds", "zebra"} & row.keys() for row in rows)
    assert any("plusCode" in (row["address"] or {}) for row in rows)


def test_unknown_fields_are_logged_in_a_short_printable_line(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"id": "1", "\x1b[31m\n|": 1, "x" * 1000: 1} | {f"yak{i:02}": 1 for i in range(99)}
    sandbox.envoy.rows["locations"] = [row]
    read(sandbox.tap())
    (warning,) = warnings(caplog)
    assert warning.startswith(f"locations: dropped unknown fields: [31m|, {'x' * 50}, yak00, ")
    assert warning.endswith(", yak17 and 81 more.")


def test_values_of_another_type_are_converted_or_null_with_one_warning(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = sandbox.envoy.rows["locations"][:2]
    first |= {
        "name": 7,
        "enabled": "true",
        "capacityLimit": "12",
        "scheduleAheadLimit": "1.5",
        "updatedAt": "yesterday",
        "address": {**first["address"], "latitude": "47.5", "city": None, "state": {"a": 1}},
    }
    second |= {"address": "Main Street", "capacityLimit": 1.5}
    rows = {row["id"]: row for row in read(sandbox.tap())}
    converted = rows[first["id"]]
    assert converted["name"] == "7"
    assert converted["enabled"] is True
    assert converted["capacityLimit"] == 12
    assert converted["scheduleAheadLimit"] == 1.5
    assert converted["updatedAt"] is None
    assert converted["address"]["latitude"] == 47.5
    assert converted["address"]["state"] == '{"a":1}'
    assert rows[second["id"]]["address"] is None
    assert rows[second["id"]]["capacityLimit"] is None
    (warning,) = [line for line in warnings(caplog) if "unexpected type" in line]
    assert "address, capacityLimit, updatedAt" in warning
    assert "yesterday" not in caplog.text
    assert "Main Street" not in caplog.text


# Selection


def test_locations_alone_are_read_by_default(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(**sandbox.login)
    assert {m["stream"] for m in run.messages if m["type"] == "RECORD"} == {"locations"}
    (login,) = sandbox.envoy.requests_for("/oauth2/token")
    assert login.form["scope"] == "token.refresh,locations.read"


def test_scopes_are_those_of_the_selected_streams(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(*sandbox.write_catalog("invites", "spaces"), **sandbox.login)
    assert run.code == 0
    (login,) = sandbox.envoy.requests_for("/oauth2/token")
    assert login.form["scope"] == "token.refresh,employees.read,invites.read,spaces.read"
