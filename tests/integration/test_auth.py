"""Authentication in whole reads: what is sent, and what happens when it is rejected."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tests.conftest import Sandbox, read
from tests.sandbox import ScriptedResponse, serve

TOKEN = "/oauth2/token"
LIST = "/v1/locations"


@pytest.fixture(autouse=True)
def _no_secret_is_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for secret in sandbox.envoy.secrets:
        assert secret not in caplog.text


def read_with(sandbox: Sandbox, **credentials: Any) -> list[dict[str, Any]]:
    """Read locations with these credentials, without the API key."""
    return read(sandbox.tap(**{"api_key": None, **credentials}))


def grants(sandbox: Sandbox) -> list[str]:
    return [request.form["grant_type"] for request in sandbox.envoy.requests_for(TOKEN)]


# Methods


def test_api_key_is_sent_in_its_header_and_no_token_is_requested(sandbox: Sandbox) -> None:
    assert len(read(sandbox.tap())) == 250
    assert grants(sandbox) == []
    for request in sandbox.envoy.requests_for(LIST):
        assert request.headers["x-api-key"] == sandbox.envoy.api_key
        assert "authorization" not in request.headers


def test_api_key_is_used_before_other_credentials(sandbox: Sandbox) -> None:
    assert len(read(sandbox.tap(**sandbox.login))) == 250
    assert grants(sandbox) == []


def test_password_grant_requests_the_scopes_of_the_selection(sandbox: Sandbox) -> None:
    assert len(read_with(sandbox, **sandbox.login)) == 250
    (login,) = sandbox.envoy.requests_for(TOKEN)
    assert login.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert login.headers["authorization"].startswith("Basic ")
    assert login.form == {
        "grant_type": "password",
        "username": sandbox.envoy.username,
        "password": sandbox.envoy.password,
        "scope": "token.refresh,locations.read",
    }
    for request in sandbox.envoy.requests_for(LIST):
        assert request.headers["authorization"].removeprefix("Bearer ") in sandbox.envoy.issued
        assert "x-api-key" not in request.headers


def test_refresh_grant_is_used_before_the_password(sandbox: Sandbox) -> None:
    token = sandbox.envoy.new_refresh_token("locations.read")
    assert len(read_with(sandbox, refresh_token=token, **sandbox.login)) == 250
    (refresh,) = sandbox.envoy.requests_for(TOKEN)
    assert "authorization" not in refresh.headers
    assert refresh.form == {"grant_type": "refresh_token", "refresh_token": token, **sandbox.client}


def test_scopes_setting_replaces_the_scopes_of_the_selection(sandbox: Sandbox) -> None:
    assert len(read_with(sandbox, scopes=["locations.read"], **sandbox.login)) == 250
    assert sandbox.envoy.requests_for(TOKEN)[0].form["scope"] == "locations.read"


# Rejected credentials


def test_rejected_api_key_is_sent_once(sandbox: Sandbox) -> None:
    with pytest.raises(RunAbortedError, match=r"HTTP 401.*check `api_key`"):
        read(sandbox.tap(api_key="not-the-key-of-this-company"))
    assert len(sandbox.envoy.requests_for(LIST)) == 1


def test_rejected_password_is_sent_once(sandbox: Sandbox) -> None:
    with pytest.raises(RunAbortedError, match="invalid_grant"):
        read_with(sandbox, **{**sandbox.login, "password": "not-the-right-one-at-all"})
    assert len(sandbox.envoy.requests) == 1


def test_secrets_in_an_error_body_are_redacted(sandbox: Sandbox) -> None:
    echo = f"<p>{sandbox.envoy.password}</p>"
    sandbox.envoy.script(LIST, ScriptedResponse(405, echo.encode()))
    with pytest.raises(EnvoyError, match=r"<p>\*\*\*</p>"):
        read_with(sandbox, **sandbox.login)


@pytest.mark.parametrize(
    "rejection",
    [
        ScriptedResponse(401, {"message": "expired"}),
        ScriptedResponse(200, {"status": 401}),
        ScriptedResponse(200, {"status": "401"}),
    ],
)
def test_token_revoked_during_the_run_is_replaced_and_no_row_is_lost(
    sandbox: Sandbox, rejection: ScriptedResponse
) -> None:
    sandbox.envoy.script(LIST, ScriptedResponse(), rejection)
    rows = read_with(sandbox, **sandbox.login)
    assert [row["id"] for row in rows] == [r["id"] for r in sandbox.envoy.rows["locations"]]
    assert grants(sandbox) == ["password", "refresh_token"]


def test_new_token_that_is_rejected_too_aborts_the_run(sandbox: Sandbox) -> None:
    sandbox.envoy.script(LIST, *[ScriptedResponse(401, {"message": "go away"})] * 9)
    with pytest.raises(RunAbortedError, match=r"HTTP 401.*go away.*Global Admin"):
        read_with(sandbox, **sandbox.login)
    assert len(sandbox.envoy.requests_for(TOKEN)) == 2
    assert len(sandbox.envoy.requests_for(LIST)) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        ScriptedResponse(403, {"message": "no"}),
        ScriptedResponse(200, {"status": 403, "message": "no"}),
    ],
)
def test_missing_scope_of_the_integration_is_named(
    sandbox: Sandbox, refusal: ScriptedResponse
) -> None:
    sandbox.envoy.script(LIST, refusal)
    with pytest.raises(EnvoyError, match=r"HTTP 403.*no.*`locations.read`.*Dev Dashboard"):
        read(sandbox.tap())
    assert len(sandbox.envoy.requests_for(LIST)) == 1


def test_missing_scope_of_the_token_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(EnvoyError, match=r"`locations.read`.*`scopes`"):
        read_with(sandbox, scopes=["token.refresh"], **sandbox.login)


# The way to Envoy


def test_netrc_is_not_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = sandbox.folder / ".netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(sandbox.folder))
    monkeypatch.setenv("NETRC", str(netrc))
    token = sandbox.envoy.new_refresh_token("locations.read")
    read_with(sandbox, refresh_token=token, **sandbox.client)
    read(sandbox.tap())
    for request in sandbox.envoy.requests:
        assert not request.headers.get("authorization", "").startswith("Basic")


@pytest.mark.parametrize("address", ["https://a..b/v1", "https://" + "x" * 70 + ".example/v1"])
def test_invalid_host_aborts_the_run_without_retries(sandbox: Sandbox, address: str) -> None:
    with pytest.raises(RunAbortedError, match="`api_url`") as caught:
        read(sandbox.tap(api_url=address))
    assert "Gave up" not in str(caught.value)


def test_ca_bundle_of_the_environment_is_used(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    bundle, certificate = sandbox.folder / "ca.pem", sandbox.folder / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with serve(sandbox.envoy, certificate) as address:
        urls = {"api_url": f"{address}/v1", "token_url": address + TOKEN}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        tap = sandbox.tap(**{"api_key": None, **sandbox.login, **urls})
        assert len(read(tap)) == 250
        tap.api.session.close()
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(RunAbortedError, match=r"certificate.*`api_url`.*REQUESTS_CA_BUNDLE"):
            read(sandbox.tap(**urls))
