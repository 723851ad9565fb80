"""Responses that end a stream, and what a log shows of them."""

import json
import logging
import socket
from typing import Any

import pytest

from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tests.conftest import Sandbox, read
from tests.sandbox import RESOURCES, ScriptedResponse
from tests.unit.local_server import Reply, serve

LIST = "/v1/locations"
TOKEN = "/oauth2/token"


@pytest.mark.parametrize(
    "body",
    [
        {"data": None},
        {"data": {"id": "1"}},
        {},
        [],
        {"data": [1]},
        {"data": [{"id": "1"}, {"name": "x"}]},
    ],
)
def test_success_without_rows_is_an_error_and_never_an_empty_list(
    sandbox: Sandbox, body: Any
) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, body))
    with pytest.raises(EnvoyError, match="Envoy returned a r"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"error": "no access"},
        {"errors": [{"title": "no access"}]},
        {"status": "error", "message": "no access"},
        {"status": "Unauthorized", "detail": "no access"},
        {"success": False, "message": "no access"},
        {"ok": False, "message": "no access"},
    ],
)
def test_empty_list_with_an_error_is_not_an_empty_list(
    sandbox: Sandbox, error: dict[str, Any]
) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, {"data": [], **error}))
    with pytest.raises(EnvoyError, match="with an error: “no access”"):
        read(sandbox.tap())


@pytest.mark.parametrize("error", [{"status": "401 Unauthorized"}, {"statusCode": 401}])
def test_empty_list_with_a_status_is_that_error(sandbox: Sandbox, error: dict[str, Any]) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, {"data": [], **error}))
    with pytest.raises(RunAbortedError, match=r"rejected the credentials \(HTTP 401\)"):
        read(sandbox.tap())


@pytest.mark.parametrize(
    "more",
    [{"status": "ok"}, {"status": 200, "code": 0}, {"status": "degraded"}, {"error": False}],
)
@pytest.mark.parametrize("rows", [[], [{"id": "1"}]])
def test_harmless_status_beside_a_list_is_ignored(
    sandbox: Sandbox, rows: list[Any], more: dict[str, Any]
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(200, {"data": rows, **more})] * 9)
    assert [row["id"] for row in read(sandbox.tap())] == [row["id"] for row in rows]


def test_status_203_of_a_proxy_is_a_list(sandbox: Sandbox) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(203, {"data": [{"id": "1"}]})] * 9)
    assert [row["id"] for row in read(sandbox.tap())] == ["1"]


@pytest.mark.parametrize("status", [202, 206, 226])
def test_status_of_an_incomplete_list_ends_the_stream(sandbox: Sandbox, status: int) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(status, {"data": [{"id": "1"}]}))
    with pytest.raises(EnvoyError, match=f"HTTP {status} instead of a complete list"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


@pytest.mark.parametrize("status", [101, 304])
def test_status_without_a_list_is_not_a_redirect(sandbox: Sandbox, status: int) -> None:
    with (
        serve(lambda _request: Reply(status)) as address,
        pytest.raises(EnvoyError, match=f"HTTP {status} instead of a complete list"),
    ):
        read(sandbox.tap(api_url=address))


def test_rows_before_an_unexpected_response_are_emitted(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(), ScriptedResponse(200, {"data": None}))
    rows = list(sandbox.tap().streams["locations"].get_records(None))
    assert len(rows) == 100
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert error.startswith("locations: Envoy returned a response without a list of rows (`data`)")


@pytest.mark.parametrize("status", [404, 405, 410, 418])
def test_status_that_no_retry_changes_ends_the_stream_at_once(
    sandbox: Sandbox, status: int
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(status, {"message": "this is why"})] * 9)
    with pytest.raises(EnvoyError, match=f"HTTP {status}.*“this is why”"):
        read(sandbox.tap())
    # After 404, page 0 is tried: it may be the first one.
    assert len(sandbox.envoy.requests_for(LIST)) == (2 if status == 404 else 1)


@pytest.mark.parametrize("status", [400, 422])
def test_request_that_is_rejected_in_every_form_ends_the_stream_with_its_reason(
    sandbox: Sandbox, status: int
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(status, {"message": "this is why"})] * 99)
    with pytest.raises(EnvoyError, match=f"HTTP {status}.*“this is why”"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) < 30
    assert sandbox.envoy.requests_for(LIST)[-1].query == {}  # as in the guide


def test_server_error_for_page_0_is_not_retried(sandbox: Sandbox) -> None:
    sandbox.envoy.rows["locations"] = []
    # An empty first page might be the second one of a server that counts from 0.
    sandbox.envoy.script(LIST, ScriptedResponse(), ScriptedResponse(500, {"message": "page"}))
    assert read(sandbox.tap()) == []
    assert [r.query["page"] for r in sandbox.envoy.requests_for(LIST)] == ["1", "0"]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirect_is_not_followed(sandbox: Sandbox, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.01)
        target = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1/locations"
        sandbox.envoy.script(LIST, ScriptedResponse(status, b"", {"Location": target}))
        with pytest.raises(EnvoyError, match=rf"redirect \(HTTP {status}\).*check `api_url`"):
            read(sandbox.tap())
        with pytest.raises(TimeoutError):
            elsewhere.accept()


# One stream's failure


@pytest.mark.parametrize("status", [403, 500])
def test_failed_stream_is_named_and_the_others_are_read(sandbox: Sandbox, status: int) -> None:
    sandbox.envoy.script("/v1/employees", *[ScriptedResponse(status, {"message": "why"})] * 99)
    catalog = sandbox.write_catalog("companies", "employees", "entries", "locations")
    run = sandbox.run_tap(*catalog)
    sentence = run.assert_failed("employees: ", f"HTTP {status}", "why")
    assert ("`employees.read`" in sentence) == (status == 403)
    assert len(run.records("locations")) == 250
    assert len(run.records("entries")) == 320
    assert run.records("employees") == []
    assert run.log()[-1].startswith("Failed: employees (1 of 4 streams).")
    assert run.state["bookmarks"]["entries"]["replication_key_value"]


def test_aborted_run_starts_no_further_stream(sandbox: Sandbox) -> None:
    config = {**sandbox.login, "password": "not-the-right-one-here"}
    run = sandbox.run_tap(*sandbox.write_catalog(*RESOURCES), **config)
    run.assert_failed("password grant", "HTTP 401")
    assert len(sandbox.envoy.requests) == 1
    assert run.log()[-1] == f"Not started: {', '.join(sorted(RESOURCES))}."


# What is never shown


@pytest.mark.parametrize(
    ("path", "response"),
    [
        (LIST, ScriptedResponse(401, {"message": "no"})),
        (LIST, ScriptedResponse(403, {"message": "no"})),
        (LIST, ScriptedResponse(500, {"message": "no"})),
        (LIST, ScriptedResponse(200, {"access_token": "x", "data": None})),
        (TOKEN, ScriptedResponse(401, {"error": "no"})),
        (TOKEN, ScriptedResponse(503, b"")),
        (TOKEN, ScriptedResponse(200, {"access_token": 5, "refresh_token": "hidden-token"})),
        (TOKEN, ScriptedResponse(302, b"", {"Location": "https://evil.example/?t=hidden-token"})),
    ],
)
def test_secrets_are_not_shown_whatever_the_response(
    sandbox: Sandbox, path: str, response: ScriptedResponse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox.envoy.script(path, *[response] * 99)
    tap = sandbox.tap(api_key=None, **sandbox.login)
    with pytest.raises(RunAbortedError if path == TOKEN else EnvoyError) as caught:
        read(tap)
    shown = f"{caught.value}{caplog.text}{json.dumps(tap.state)}"
    for secret in sandbox.envoy.secrets | {"hidden-token"}:
        assert secret not in shown


def test_records_are_not_shown_in_a_log(sandbox: Sandbox) -> None:
    broken = {"data": [{"id": "v-1", "fullName": "Grace Secretive"}, {"fullName": "Alan Hidden"}]}
    sandbox.envoy.script("/v1/entries", ScriptedResponse(200, broken))
    sandbox.envoy.script("/v1/employees", ScriptedResponse(200, {"data": "Edsger Private"}))
    sandbox.envoy.script("/v1/invites", *[ScriptedResponse(200, broken)] * 2)
    run = sandbox.run_tap(*sandbox.write_catalog(*RESOURCES), start_date="2024-01-01")
    assert run.code == 1
    assert len(run.errors) == 3
    names = ("Grace", "Alan", "Edsger", "Ada Example", "visitor1@", "host@example.com", "ACME")
    for name in names:
        assert name not in run.err
