"""Every stream: all of its rows, requested as documented, and emitted as its schema says."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tap_envoy.client import EnvoyStream
from tap_envoy.records import SECRET_NAME
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read
from tests.runner import Run
from tests.sandbox import RESOURCES, list_path

Catalog = dict[str, dict[str, Any]]

STREAMS = {stream.name: stream for stream in TapEnvoy(validate_config=False).envoy_streams}


def edit_catalog(sandbox: Sandbox, edit: Callable[[Catalog, Catalog], None]) -> tuple[str, str]:
    """Write a catalog that selects locations, with their schema and metadata edited."""
    option, path = sandbox.write_catalog("locations")
    catalog = json.loads(Path(path).read_text())
    (entry,) = [x for x in catalog["streams"] if x["tap_stream_id"] == "locations"]
    metadata = {".".join(x["breadcrumb"][1::2]): x["metadata"] for x in entry["metadata"]}
    edit(entry["schema"]["properties"], metadata)
    Path(path).write_text(json.dumps(catalog))
    return option, path


def validated(run: Run, stream: str = "locations") -> list[dict[str, Any]]:
    """Return the records of a stream, which match its SCHEMA message."""
    schemas = {m["stream"]: m["schema"] for m in run.messages if m["type"] == "SCHEMA"}
    validator = Draft202012Validator(schemas[stream])
    records = run.records(stream)
    for record in records:
        validator.validate(record)
        assert record.keys() <= schemas[stream]["properties"].keys()
    return records


# Reading


def test_streams_are_read_completely_without_secrets(sandbox: Sandbox) -> None:
    catalog = sandbox.write_catalog(*RESOURCES)
    run = sandbox.run_tap(*catalog, start_date="2023-12-31", **sandbox.login)
    assert run.code == 0, run.err
    assert "Secret" not in run.out
    assert run.warnings == []
    for stream in RESOURCES:
        sent = {row["id"]: row for row in sandbox.envoy.rows[stream]}
        records = validated(run, stream)
        assert sorted(record["id"] for record in records) == sorted(sent)
        for record in records:
            row = sent[record["id"]]
            rest = record.pop("additionalFields") or {}
            for name, value in row.items():
                if SECRET_NAME.search(name):
                    assert name not in record | rest
                elif isinstance(value, str | int | float | None):
                    assert (record | rest)[name] == value


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_first_request_has_the_declared_parameters(sandbox: Sandbox, stream: EnvoyStream) -> None:
    read(sandbox.tap(start_date="2024-01-02T00:00:00+01:00"), stream.name)
    first, *_ = sandbox.envoy.requests_for(list_path(stream.name))
    expected = {"page": "1", "perPage": "100", **stream.sort_params}
    if start_param := stream.slicer.start_param:
        expected[start_param] = "2024-01-01T22:59:58.000Z"
    if stream.slicer.max_window:
        expected[stream.slicer.end_param or ""] = "2024-01-31T22:59:58.000Z"
    assert first.query == expected


def test_user_agent_names_the_tap_or_is_a_setting(sandbox: Sandbox) -> None:
    for setting in {}, {"user_agent": "acme-warehouse (data@acme.example)"}:
        read(sandbox.tap(**setting))
        agent = setting.get("user_agent", f"tap-envoy/{TapEnvoy.plugin_version}")
        assert sandbox.envoy.requests[-1].headers["user-agent"] == agent


def test_scopes_are_those_of_the_selected_streams(sandbox: Sandbox) -> None:
    for catalog, scopes in (
        ((), "locations.read"),
        (sandbox.write_catalog("invites", "spaces"), "employees.read,invites.read,spaces.read"),
    ):
        assert sandbox.run_tap(*catalog, **sandbox.login).code == 0
        *_, login = sandbox.envoy.requests_for("/oauth2/token")
        assert login.form["scope"] == f"token.refresh,{scopes}"


# What is not declared, does not fit, or is not selected

ROW = {
    "id": 7,
    "name": '\\u0000 "B\0x',
    "capacityLimit": 12,
    "updatedAt": "yesterday",
    "address": {"line1": "x", "plusCode": "8FVC", "latitude": 12.5},
    "printerIds": ["p-1"],
}


def test_what_the_schema_does_not_hold_is_kept_and_logged_once(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.envoy.rows["locations"] = [{**ROW, "id": str(number)} for number in range(3)]
    caplog.set_level(logging.INFO, "tap-envoy")
    assert read(sandbox.tap())[2] == {
        "id": "2",
        "name": '\\u0000 "Bx',
        "capacityLimit": 12,
        "updatedAt": None,
        "address": {"line1": "x", "latitude": 12.5},
        "additionalFields": {
            "updatedAt": "yesterday",
            "address": {"plusCode": "8FVC"},
            "printerIds": ["p-1"],
        },
    }
    lines = {r.getMessage(): r.levelname for r in caplog.records if ", kept" in r.getMessage()}
    undeclared = "undeclared fields, kept in `additionalFields`: address.plusCode, printerIds."
    mismatched = "set values of an unexpected type to null, kept in `additionalFields`: updatedAt."
    assert lines == {f"locations: {undeclared}": "INFO", f"locations: {mismatched}": "WARNING"}
    assert "locations: removed U+0000 from: name." in caplog.messages
    assert "yesterday" not in caplog.text


def test_one_nested_property_is_selected_alone(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["locations"] = [ROW, {"id": "8", "address": None}]

    def select(_: Catalog, metadata: Catalog) -> None:
        for name, entry in metadata.items():
            if name.startswith("address.") or name == "name":
                entry["selected"] = name == "address.latitude"

    first, second = validated(sandbox.run_tap(*edit_catalog(sandbox, select)))
    assert first["address"] == {"latitude": 12.5}
    assert "name" not in first
    rest = {"updatedAt": "yesterday", "address": {"plusCode": "8FVC"}, "printerIds": ["p-1"]}
    assert first["additionalFields"] == rest
    assert second == {"id": "8", "address": None, "additionalFields": None}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_schema_of_a_catalog_is_followed(sandbox: Sandbox, depth: int) -> None:
    number: dict[str, Any] = {"anyOf": [{"type": "null"}, {"type": "number"}]}
    text = {"type": "string", "format": "date-time"}
    geo = {"type": ["object", "null"], "properties": {"lat": number}}

    def edit(schema: Catalog, _: Catalog) -> None:
        schema["capacityLimit"] = number
        schema["createdAt"] = {"anyOf": [text, {"type": "null"}]}
        schema["name"] = {"type": ["object", "null"]}
        schema["timezone"] = {"type": ["array", "null"]}
        schema["address"]["properties"]["geo"] = geo

    row = {"id": "1", "capacityLimit": 7.5, "createdAt": "2024-05-17", "name": {"a": {"b": 1}}}
    sandbox.envoy.rows["locations"] = [{**row, "timezone": [1, {}], "address": None}]
    settings: dict[str, Any] = {"flattening_enabled": bool(depth), "flattening_max_depth": depth}
    run = sandbox.run_tap(*edit_catalog(sandbox, edit), **settings)
    (record,) = validated(run)
    assert record["capacityLimit"] == 7.5
    assert record["createdAt"] == "2024-05-17T00:00:00.000Z"
    assert record["name"] == ('{"a":{"b":1}}' if depth else {"a": {"b": 1}})
    assert record["timezone"] == ("[1,{}]" if depth else [1, {}])
    nested = ("address", "address__geo", "address__geo__lat")[depth]
    assert record[nested] is None
    assert len([name for name in record if name.startswith("address")]) == (9 if depth else 1)


def test_stream_map_of_a_property_that_rows_lack_maps_null(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["invites"] = [{"id": "1"}, {"id": "2", "invitee": {"name": "Ada"}}]
    maps = {"invites": {"guest": "sha256(invitee['name']) if invitee else None"}}
    run = sandbox.run_tap(*sandbox.write_catalog("invites"), stream_maps=maps)
    assert run.code == 0
    assert [bool(row["guest"]) for row in run.records("invites")] == [False, True]
