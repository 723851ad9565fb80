"""`tap-envoy --test`."""

import time
from typing import Any

import pytest

from tests.conftest import Sandbox
from tests.sandbox import RESOURCES, ScriptedResponse, list_path

TOKEN = "/oauth2/token"
COUNT = len(RESOURCES)


def test_connection_test_without_catalog_requests_each_stream_once(sandbox: Sandbox) -> None:
    del sandbox.envoy.rows["flows"][1:]
    run = sandbox.run_tap("--test", *sandbox.write_state({}))
    assert run.code == 0, run.err
    first, *lines, last = run.out.splitlines()
    assert first == "Signing in with the Client API Key (`api_key`)."
    assert "ok         locations: 250 rows" in lines
    assert "ok         flows (not selected)" in lines
    assert len(lines) == len(sandbox.envoy.requests) == COUNT
    assert last == f"{COUNT} of {COUNT} streams can be read."


def test_connection_test_with_catalog_requests_only_selected_streams(sandbox: Sandbox) -> None:
    del sandbox.envoy.rows["invites"][1:]
    catalog = sandbox.write_catalog("invites", "locations")
    run = sandbox.run_tap(*catalog, "--test", **sandbox.login)
    assert run.code == 0
    assert run.out.splitlines() == [
        "Signed in.",
        "ok         invites: 1 row",
        "ok         locations: 250 rows",
        "2 of 2 streams can be read.",
    ]
    paths = sorted(request.path for request in sandbox.envoy.requests)
    assert paths == [TOKEN, "/v1/invites", "/v1/locations"]


def test_connection_test_missing_scope_fails_if_stream_is_selected(sandbox: Sandbox) -> None:
    sandbox.envoy.integration_scopes -= {"invites.read"}
    run = sandbox.run_tap("--test")
    assert run.code == 0
    assert "forbidden  invites (not selected)" in run.out.splitlines()
    run = sandbox.run_tap("--test", *sandbox.write_catalog("invites", "flows"))
    assert run.code == 1
    ok, forbidden, last = run.out.splitlines()[1:]
    assert forbidden.startswith("forbidden  invites: ")
    assert "`invites.read`" in forbidden
    assert (ok, last) == ("ok         flows: 12 rows", "1 of 2 streams can be read.")


def test_connection_test_with_password_tests_what_its_scopes_cover(sandbox: Sandbox) -> None:
    sandbox.envoy.integration_scopes -= {"invites.read"}
    run = sandbox.run_tap("--test", **sandbox.login)
    assert run.code == 0
    assert "ok         locations: 250 rows" in run.out.splitlines()
    assert "not tested invites (not selected)" in run.out.splitlines()
    assert run.out.splitlines()[-1] == (
        f"1 of {COUNT} streams can be read; {COUNT - 1} not tested."
    )
    catalog = sandbox.write_catalog("locations", "invites")
    run = sandbox.run_tap("--test", *catalog, **sandbox.login, scopes=["locations.read"])
    assert run.code == 1
    assert "not tested invites: `scopes` lacks a scope that it needs; add it." in run.out
    assert run.out.splitlines()[-1] == "1 of 2 streams can be read; 1 not tested."


def test_connection_test_failed_stream_is_reported_without_retries(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/locations", ScriptedResponse(500, {"message": "oops"}))
    run = sandbox.run_tap("--test", *sandbox.write_catalog("locations", "flows"))
    assert run.code == 1
    assert "ok         flows: 12 rows" in run.out.splitlines()
    (line,) = [line for line in run.out.splitlines() if line.startswith("failed     locations: ")]
    assert "HTTP 500" in line
    assert len(sandbox.envoy.requests) == 2
    assert run.out.splitlines()[-1] == "1 of 2 streams can be read."


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"api_key": "not-the-key-of-this-integration"}, "`api_key`"),
        ({"client_id": "none", "client_secret": "x", "username": "x", "password": "x"}, "HTTP 401"),
        ({"api_url": "http://127.0.0.1:9/v1"}, "`api_url`"),
    ],
    ids=["key", "password", "server"],
)
def test_connection_test_without_access_is_one_sentence(
    sandbox: Sandbox, config: dict[str, Any], part: str
) -> None:
    run = sandbox.run_tap("--test", **config)
    assert run.code == 1
    line, last = run.out.splitlines()
    assert line.startswith("failed     ")
    assert part in line
    assert last == f"0 of {COUNT} streams can be read."
    assert len(sandbox.envoy.requests_for(TOKEN)) <= 1  # wrong passwords can lock a user out


def test_connection_test_without_responses_ends_soon(sandbox: Sandbox) -> None:
    for resource in RESOURCES:
        sandbox.envoy.script(list_path(resource), ScriptedResponse(delay=30))
    start = time.monotonic()
    run = sandbox.run_tap("--test", request_timeout=1)
    assert time.monotonic() - start < 15  # waits of a second, eight at the same time
    assert run.code == 1
    assert run.out.splitlines()[-1] == f"0 of {COUNT} streams can be read."


def test_schema_test_writes_schemas_and_requests_nothing(sandbox: Sandbox) -> None:
    run = sandbox.run_tap("--test=schema")
    assert run.code == 0
    assert [message["type"] for message in run.messages] == ["SCHEMA"] * COUNT
    assert sandbox.run_tap("--test=locations").code == 2
    sandbox.run_tap("--test=schema", page_size=0).assert_failed("`page_size`")
    assert sandbox.envoy.requests == []
