"""Responses that end a stream or a run, and what a log shows of them."""

import gzip
import logging
import re
import socket
from typing import Any

import pytest

from tap_envoy.exceptions import CredentialsRejectedError, EnvoyError
from tests.conftest import Sandbox, read
from tests.sandbox import ScriptedResponse

LIST = "/v1/locations"


@pytest.mark.parametrize(
    "body",
    [
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
        {"data": [], "status": "401 Unauthorized", "message": "why"},
        {"error": {"status": 401, "message": "why"}},
        {"errors": [{"status": "401", "detail": "why"}]},
    ],
)
def test_api_key_rejected_with_http_200_ends_the_run(sandbox: Sandbox, body: Any) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(200, body))
    with pytest.raises(CredentialsRejectedError, match=r"\(HTTP 401: “.*why”\); check `api_key`"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


def test_number_as_an_id_becomes_text(sandbox: Sandbox) -> None:
    body = {"status": 200, "data": [{"id": 7}], "meta": {"total": 1}}
    sandbox.envoy.script(LIST, *[ScriptedResponse(200, body)] * 9)
    assert [row["id"] for row in read(sandbox.tap())] == ["7"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_body_that_stays_incomplete_ends_the_stream(sandbox: Sandbox, encoding: str) -> None:
    body = gzip.compress(b'{"data": []}')[:-12] if encoding == "gzip" else b'{"data": '
    page = ScriptedResponse(200, body, {"Content-Encoding": encoding})
    sandbox.envoy.script(LIST, *[page] * 999)
    with pytest.raises(EnvoyError, match=r"incomplete; check `api_url`.*Gave up after"):
        read(sandbox.tap())


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (206, "^Envoy returned HTTP 206: “why” instead of a list of rows; check `api_url`"),
        (404, r"^Envoy rejected the request for /locations \(HTTP 404: “why”\); check `api_url`"),
        (405, "^Envoy returned HTTP 405: “why” instead of a list of rows; check `api_url`"),
    ],
)
def test_status_that_no_retry_changes_ends_the_stream_at_once(
    sandbox: Sandbox, status: int, text: str
) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(status, {"message": "why"})] * 9)
    with pytest.raises(EnvoyError, match=text):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://user:hidden@HOST/v1/locations?hidden", "HOST"),
        ("//HOST/v1/locations", "HOST"),
        ("/elsewhere", "another page"),
        ("http://[bad", "[bad"),
    ],
)
def test_redirect_is_named_and_not_followed(sandbox: Sandbox, location: str, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.01)
        host = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        headers = {"Location": location.replace("HOST", host)}
        sandbox.envoy.script(LIST, ScriptedResponse(302, b"", headers))
        text = f"HTTP 302 (a redirect to {target.replace('HOST', host)}) instead of a list of rows"
        with pytest.raises(EnvoyError, match=re.escape(text)):
            read(sandbox.tap())
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_missing_scope_is_named_with_advice_for_the_credentials(sandbox: Sandbox) -> None:
    sandbox.envoy.script("/v1/invites", *[ScriptedResponse(403, {"message": "why"})] * 2)
    text = r"HTTP 403: “why”.*`invites.read` and `employees.read` to the integration in Envoy's Dev"
    login = {"api_key": None, **sandbox.login}
    for settings, advice in (({}, r"\.$"), (login, " .* a refresh token keeps the scopes")):
        with pytest.raises(EnvoyError, match=f"{text} Dashboard{advice}"):
            read(sandbox.tap(**settings), "invites")


def test_records_are_not_shown_in_a_log(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    broken = {"data": [{"id": "v-1", "fullName": "Grace Secretive"}, {"fullName": "Alan Hidden"}]}
    sandbox.envoy.script("/v1/entries", ScriptedResponse(200, broken))
    sandbox.envoy.script("/v1/employees", ScriptedResponse(200, {"data": "Edsger Private"}))
    for stream in sandbox.tap(start_date="2024-03-01").envoy_streams:
        list(stream.get_records(None))
    assert "entries: Envoy returned a row without" in caplog.text
    assert "employees: Envoy returned no list of rows" in caplog.text
    for name in ("Grace", "Alan", "Edsger", "Ada Example", "visitor1@", "host@example.com"):
        assert name not in caplog.text
