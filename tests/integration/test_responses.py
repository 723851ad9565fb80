"""Responses that end a stream or a run, and what a log shows of them."""

import gzip
import json
import logging
import socket
from typing import Any

import pytest

from tap_envoy.exceptions import CredentialsRejectedError, EnvoyError, RunAbortedError
from tests.conftest import Sandbox, read
from tests.sandbox import RESOURCES, ScriptedResponse

LIST = "/v1/locations"
TOKEN = "/oauth2/token"


@pytest.mark.parametrize(
    "body",
    [
        {"data": None},
        {"data": {"id": "1"}},
        {"data": [1]},
        {"data": [{"id": "1"}, {"name": "x"}]},
        {"data": [{"id": ""}]},
        {"data": [], "errors": [{"title": "no access"}]},
        [],
    ],
)
def test_success_without_rows_is_an_error_and_never_an_empty_list(
    sandbox: Sandbox, body: Any
) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, body))
    with pytest.raises(EnvoyError, match=r"Envoy returned (no list of rows|a row without an `id`)"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"status": 401, "message": "why"},
        {"data": [], "status": "401 Unauthorized", "message": "why"},
        {"error": {"status": 401, "message": "why"}},
        {"errors": [{"status": "401", "detail": "why"}]},
    ],
)
def test_api_key_rejected_with_http_200_ends_the_run(sandbox: Sandbox, body: Any) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, body))
    with pytest.raises(CredentialsRejectedError, match=r"\(HTTP 401: “.*why”\); check `api_key`"):
        read(sandbox.tap())


@pytest.mark.parametrize("more", [{"status": "ok"}, {"status": 200}, {"error": False}])
def test_harmless_status_beside_rows_is_ignored(sandbox: Sandbox, more: dict[str, Any]) -> None:
    body = {"data": [{"id": 7}], "meta": {"total": 1}, **more}
    sandbox.envoy.script(LIST, *[ScriptedResponse(200, body)] * 9)
    assert [row["id"] for row in read(sandbox.tap())] == ["7"]  # a number becomes text


@pytest.mark.parametrize("body", [b"<html>", gzip.compress(b'{"data": []}')[:-12]])
def test_body_that_stays_incomplete_or_no_json_ends_the_stream(
    sandbox: Sandbox, body: bytes
) -> None:
    page = ScriptedResponse(200, body, {"Content-Encoding": "gzip"} if b"<" not in body else {})
    sandbox.envoy.script(LIST, *[page] * 999)
    with pytest.raises(EnvoyError, match=r"incomplete; check `api_url`.*Gave up after"):
        read(sandbox.tap())


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (206, "Envoy returned HTTP 206: “this is why” instead of a list of rows; check `api_url`"),
        (404, "Envoy rejected the request for /locations (HTTP 404: “this is why”); check `api_u"),
        (405, "Envoy returned HTTP 405: “this is why” instead of a list of rows; check `api_url`"),
    ],
)
def test_status_that_no_retry_changes_ends_the_stream_at_once(
    sandbox: Sandbox, status: int, text: str
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(status, {"message": "this is why"})] * 9)
    with pytest.raises(EnvoyError) as caught:
        read(sandbox.tap())
    assert text in str(caught.value)
    assert len(sandbox.envoy.requests_for(LIST)) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_request_that_is_rejected_in_every_form_ends_the_stream_with_its_reason(
    sandbox: Sandbox, status: int
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(status, {"message": "this is why"})] * 99)
    with pytest.raises(EnvoyError, match=f"HTTP {status}: “this is why”"):
        read(sandbox.tap())
    assert sandbox.envoy.requests_for(LIST)[-1].query == {}  # as in the guide


def test_redirect_is_named_and_not_followed(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.01)
        host = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        location = {"Location": f"http://{host}/v1/locations"}
        sandbox.envoy.script(LIST, ScriptedResponse(302, b"", location))
        with pytest.raises(EnvoyError, match=rf"HTTP 302 \(a redirect to {host}\) instead"):
            read(sandbox.tap())
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_missing_scope_is_named_with_advice_for_the_credentials(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/invites", *[ScriptedResponse(403, {"message": "why"})] * 2)
    texts = []
    for settings in ({}, {"api_key": None, **sandbox.login}):
        with pytest.raises(EnvoyError, match=r"HTTP 403: “why”.*`invites.read` and `em") as caught:
            read(sandbox.tap(**settings), "invites")
        texts.append(str(caught.value))
    assert "refresh token" not in texts[0]
    assert "API user" not in texts[0]
    assert "a refresh token keeps the scopes" in texts[1]


# What is never shown


@pytest.mark.parametrize(
    ("path", "response"),
    [
        (LIST, ScriptedResponse(500, {"message": "no"})),
        (LIST, ScriptedResponse(200, {"access_token": "hidden-token", "data": None})),
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
    run = sandbox.run_tap(*sandbox.write_catalog(*RESOURCES), start_date="2026-10-01")
    run.assert_failed("Failed: employees, entries (2 of ")
    for name in ("Grace", "Alan", "Edsger", "Ada Example", "visitor1@", "host@example.com"):
        assert name not in run.err
