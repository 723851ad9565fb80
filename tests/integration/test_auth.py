"""Authentication: what is sent, when, and what happens when it is rejected."""

import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tap_envoy.auth import EnvoyAuthenticator
from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.session import EnvoySession, RetryPolicy
from tests.conftest import Sandbox, read
from tests.sandbox import ScriptedResponse
from tests.unit.clock import Clock
from tests.unit.local_server import send, serve, unused_port

TOKEN, LIST = "/oauth2/token", "/v1/locations"
DAY = 86400.0
SCOPES = ["token.refresh", "locations.read"]
REPLACE = " To replace the refresh token, get a new one by a password grant"


class Setup:
    """Authenticators of one sandbox, and the time that they see."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.envoy = sandbox.envoy
        self.now = 1_700_000_000.0
        self.clock = Clock()
        self.retry_policy = RetryPolicy()
        self.path = sandbox.folder / "new" / "tokens.json"
        self.cached = {"token_cache": str(self.path)}

    def authenticator(self, *scopes: str, **changes: Any) -> EnvoyAuthenticator:
        """Return an authenticator with a password, unless it has a refresh token."""
        login = self.sandbox.client if "refresh_token" in changes else self.sandbox.login
        session = EnvoySession(self.clock.limiter(1000), retry_policy=self.retry_policy)
        config = self.sandbox.addresses | login | changes
        return EnvoyAuthenticator(config, scopes or SCOPES, session, now=lambda: self.now)

    def refreshing(self, **changes: Any) -> EnvoyAuthenticator:
        """Return an authenticator with a refresh token and no password."""
        return self.authenticator(refresh_token=self.envoy.new_refresh_token(*SCOPES), **changes)

    def with_grant(self, name: str) -> EnvoyAuthenticator:
        return self.authenticator() if name == "password" else self.refreshing()

    def respond(self, status: int = 200, body: Any = None, **headers: str) -> None:
        self.envoy.script(TOKEN, ScriptedResponse(status, body, headers))

    def rows(self, **credentials: Any) -> list[dict[str, Any]]:
        """Read locations with a new tap, as a run would, without the API key."""
        return read(self.sandbox.tap(api_key=None, **credentials))

    @property
    def forms(self) -> list[dict[str, str]]:
        return [request.form for request in self.envoy.requests_for(TOKEN)]

    @property
    def grants(self) -> list[str]:
        return [form["grant_type"] for form in self.forms]


@pytest.fixture
def setup(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[Setup]:
    with caplog.at_level(logging.DEBUG):
        yield Setup(sandbox)
    for secret in sandbox.envoy.secrets:
        assert secret not in caplog.text


def authorized(authenticator: EnvoyAuthenticator) -> requests.PreparedRequest:
    return authenticator(requests.Request("GET", "http://127.0.0.1/").prepare())


def authorize(authenticator: EnvoyAuthenticator) -> str:
    """Return the access token of a request."""
    return authorized(authenticator).headers["Authorization"].removeprefix("Bearer ")


# Methods; the sandbox accepts only what is in the guide


def test_api_key_is_sent_in_its_header_before_other_credentials(setup: Setup) -> None:
    assert len(read(setup.sandbox.tap(**setup.sandbox.login))) == 250
    assert setup.forms == []
    for request in setup.envoy.requests_for(LIST):
        assert request.headers["x-api-key"] == setup.envoy.api_key
        assert "authorization" not in request.headers


def test_password_grant_asks_for_the_scopes_of_the_selection(setup: Setup) -> None:
    assert len(setup.rows(**setup.sandbox.login)) == 250
    (form,) = setup.forms
    assert form["grant_type"] == "password"
    assert form["scope"] == "token.refresh,locations.read"


def test_scopes_setting_replaces_the_scopes_of_the_selection(setup: Setup) -> None:
    with pytest.raises(EnvoyError, match=r"`locations.read` to .* \(and to `scopes`, if set"):
        setup.rows(scopes=["token.refresh"], **setup.sandbox.login)
    assert setup.forms[0]["scope"] == "token.refresh"


def test_refresh_grant_comes_before_a_password_and_ignores_netrc(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = setup.sandbox.folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    token = setup.envoy.new_refresh_token("locations.read")
    assert len(setup.rows(refresh_token=token, **setup.sandbox.login)) == 250
    assert setup.grants == ["refresh_token"]


# Rejected credentials


def test_failure_is_repeated_without_a_request(setup: Setup) -> None:
    authenticator = setup.authenticator(password="wrong")
    for _ in range(2):
        with pytest.raises(RunAbortedError, match="password grant"):
            authorize(authenticator)
    assert len(setup.envoy.requests) == 1


@pytest.mark.parametrize(
    ("grant", "code", "status", "advice"),
    [
        ("password", "invalid_client", 400, "check `client_id` and `client_secret`."),
        ("refresh", "invalid_client", 403, f"check `client_id` and `client_secret`.{REPLACE}"),
        ("password", "invalid_grant", 401, "check `username` and `password` (no quotes"),
        ("refresh", "invalid_grant", 401, f"check `refresh_token`.{REPLACE}"),
        ("password", "invalid_scope", 400, "requested scopes: token.refresh,locations.read; add"),
        ("password", "", 401, "check `client_id`, `client_secret`, `username` and `password`."),
        ("refresh", "other", 400, "check `client_id`, `client_secret` and `refresh_token`."),
    ],
)
def test_refused_grant_says_what_to_check(
    setup: Setup, grant: str, code: str, status: int, advice: str
) -> None:
    reason = f"Wrong {setup.envoy.client_secret}"
    setup.respond(status, {"error": code, "error_description": reason, "x": "hidden"})
    quoted = ", ".join(filter(None, [code, "Wrong ***"]))
    text = f"Envoy rejected the {grant} grant (HTTP {status}): “{quoted}”; {advice}"
    with pytest.raises(RunAbortedError, match=f"^{re.escape(text)}"):
        setup.with_grant(grant).sign_in()
    assert len(setup.envoy.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "headers", "what"),
    [
        (404, {"access_token": "hidden"}, {}, "404"),
        (403, b" <html>hidden</html>", {}, "403"),
        (200, {"access_token": None}, {}, "200"),
        (200, ["hidden"], {}, "200"),
        (302, b"<a>", {"Location": "http://x.test/hidden"}, "302 (a redirect to x.test)"),
    ],
)
def test_response_without_a_token_is_described(
    setup: Setup, status: int, body: Any, headers: dict[str, str], what: str
) -> None:
    setup.respond(status, body, **headers)
    text = (
        f"The token endpoint (`token_url`) returned HTTP {what} instead of an access token; check "
        "that setting, and for a proxy or captive portal in between."
    )
    with pytest.raises(EnvoyError, match=f"^{re.escape(text)}$"):
        setup.authenticator().sign_in()
    assert len(setup.envoy.requests) == 1


# Retries of grants


@pytest.mark.parametrize(
    ("grant", "status"), [("password", 408), ("refresh", 429), ("refresh", 503)]
)
def test_token_endpoint_that_is_down_is_asked_again(setup: Setup, grant: str, status: int) -> None:
    setup.respond(status, b"busy", **{"Retry-After": "77"})
    setup.respond(status, b"busy")
    assert authorize(setup.with_grant(grant)) in setup.envoy.access_tokens
    assert len(setup.envoy.requests) == 3
    assert max(setup.clock.slept) == 77


def test_password_grant_whose_response_is_lost_is_sent_again(setup: Setup) -> None:
    setup.envoy.script(TOKEN, ScriptedResponse(cut=True))
    authorize(setup.authenticator())
    assert setup.grants == ["password", "password"]


def test_refresh_grant_whose_response_is_lost_is_not_sent_again(setup: Setup) -> None:
    setup.envoy.script(TOKEN, ScriptedResponse(cut=True))
    with pytest.raises(RunAbortedError, match=f" The refresh token may be used up.{REPLACE}"):
        setup.refreshing().sign_in()
    assert len(setup.envoy.requests) == 1


def test_refresh_grant_that_was_not_sent_is_not_called_used_up(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.retry_policy = RetryPolicy(max_time=0)
    with serve(send(b"")) as url:
        no_tls = url.replace("http:", "https:")
        for address, part in ((f"http://127.0.0.1:{unused_port()}", "refused"), (no_tls, "eof")):
            with pytest.raises(EnvoyError, match=rf"{part}.* firewall\.$"):
                setup.refreshing(token_url=address).sign_in()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/missing/ca.pem")
        with pytest.raises(EnvoyError, match=r"REQUESTS_CA_BUNDLE.* name\.$"):
            setup.refreshing(token_url=no_tls).sign_in()


# Renewal


@pytest.mark.parametrize(
    ("lifetime", "used"),
    [(86400, DAY - 300), (7200.0, 6900), (100, 90), (None, DAY - 300), ("soon", DAY - 300)],
)
def test_access_token_is_renewed_before_it_ends(setup: Setup, lifetime: Any, used: float) -> None:
    setup.respond(200, {"access_token": "first", "expires_in": lifetime})
    authenticator = setup.authenticator()
    authorize(authenticator)
    setup.now += used - 1
    assert authorize(authenticator) == "first"
    setup.now += 2
    assert authorize(authenticator) in setup.envoy.access_tokens


def test_each_renewal_uses_the_newest_refresh_token_and_a_new_connection(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = setup.refreshing()
    for _ in range(3):
        authorize(authenticator)
        setup.now += DAY
    assert setup.grants == ["refresh_token"] * 3
    assert caplog.text.count("Starting new HTTP connection") == 3
    assert "Without `token_cache` the next run cannot sign in" in caplog.text
    assert len(setup.envoy.refresh_tokens) == 1  # the sandbox accepts each of them once
    assert authenticator.secrets >= {setup.envoy.client_secret, *setup.envoy.access_tokens}


def test_configured_refresh_token_is_sent_once_and_gives_way_to_the_password(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    token = setup.envoy.new_refresh_token(*SCOPES)
    authenticator = setup.authenticator(refresh_token=token, **setup.sandbox.login)
    authorize(authenticator)
    setup.envoy.refresh_tokens.clear()
    setup.now += DAY
    authorize(authenticator)
    assert setup.grants == ["refresh_token", "refresh_token", "password"]
    assert (
        "Envoy rejected the refresh grant (HTTP 401): “invalid_grant”; check `refresh_token`. "
        "Using the password grant instead."
    ) in caplog.messages


def test_response_without_a_refresh_token_keeps_the_old_one(setup: Setup) -> None:
    setup.respond(200, {"access_token": "a", "refresh_token": None})
    authenticator = setup.refreshing()
    for _ in range(2):
        authorize(authenticator)
        setup.now += DAY
    assert setup.forms[0] == setup.forms[1]


@pytest.mark.parametrize(
    "rejection",
    [ScriptedResponse(401, {"message": "expired"}), ScriptedResponse(200, {"status": "401"})],
)
def test_token_revoked_during_the_run_is_replaced_and_no_row_is_lost(
    setup: Setup, rejection: ScriptedResponse
) -> None:
    setup.envoy.script(LIST, ScriptedResponse(), rejection)
    rows = setup.rows(**setup.sandbox.login)
    assert {row["id"] for row in rows} == setup.envoy.stable_ids("locations")
    assert setup.grants == ["password", "refresh_token"]


def test_new_token_that_is_rejected_too_aborts_the_run(setup: Setup) -> None:
    setup.envoy.script(LIST, *[ScriptedResponse(401, {"message": "go away"})] * 9)
    with pytest.raises(RunAbortedError, match=r"HTTP 401.*go away.*Global Admin"):
        setup.rows(**setup.sandbox.login)
    assert len(setup.forms) == len(setup.envoy.requests_for(LIST)) == 2


def test_threads_share_one_sign_in_and_one_renewal(setup: Setup) -> None:
    authenticator = setup.authenticator()
    setup.envoy.script(TOKEN, *[ScriptedResponse(delay=0.05)] * 2)
    with ThreadPoolExecutor(8) as pool:
        rejected, *_ = pool.map(authorized, [authenticator] * 8)
        assert all(pool.map(authenticator.invalidate, [rejected] * 8))
        (renewed,) = set(pool.map(authorize, [authenticator] * 8))
    authenticator.invalidate(rejected)  # by a thread that is late
    assert authorize(authenticator) == renewed
    assert setup.grants == ["password", "refresh_token"]


# Token cache


def test_cached_token_needs_no_request_until_its_renewal(setup: Setup) -> None:
    first = authorize(setup.authenticator(**setup.cached))
    setup.now += DAY - 301
    second = setup.authenticator(**setup.cached)
    assert authorize(second) == first
    setup.now += 31 * DAY  # the refresh token is tried however old it is
    renewed = authorize(setup.authenticator(**setup.cached))
    assert renewed != first
    assert authorize(second) == renewed
    assert setup.grants == ["password", "refresh_token"]
    for secret in (setup.envoy.client_secret, setup.envoy.password, setup.envoy.username):
        assert secret not in setup.path.read_text()


def test_refused_cached_refresh_token_gives_way_to_the_configured_one(setup: Setup) -> None:
    user = {"username": setup.envoy.username, **setup.cached}
    authorize(setup.refreshing(**user))
    setup.envoy.refresh_tokens.clear()
    setup.now += DAY
    authorize(setup.refreshing(**user))
    assert setup.grants == ["refresh_token"] * 3
    (entry,) = json.loads(setup.path.read_text()).values()
    assert entry["refresh_token"] in setup.envoy.refresh_tokens


@pytest.mark.parametrize("changed", ["username", "client_id", "token_url", "refresh_token"])
def test_cached_token_is_not_used_with_other_credentials(setup: Setup, changed: str) -> None:
    first = setup.cached | ({"refresh_token": "dead"} if changed == "refresh_token" else {})
    setup.respond(200, {"access_token": "a"})
    authorize(setup.authenticator(**first))
    value = f"{setup.sandbox.address}/elsewhere" if changed == "token_url" else "somebody-else"
    with pytest.raises(RunAbortedError):
        authorize(setup.authenticator(**first | {changed: value}))


def test_cached_token_is_used_unless_it_is_known_to_lack_a_scope(setup: Setup) -> None:
    authorize(setup.refreshing(username=setup.envoy.username, **setup.cached))
    authorize(setup.authenticator(*SCOPES, "spaces.read", **setup.cached))  # may have it
    assert setup.grants == ["refresh_token"]
    setup.path.unlink()
    for scopes in (SCOPES, [*SCOPES, "spaces.read"], ["spaces.read"]):
        authorize(setup.authenticator(*scopes, **setup.cached))
    assert setup.grants == ["refresh_token", "password", "password"]


def test_rejected_token_is_not_taken_from_the_cache_again(setup: Setup) -> None:
    one, other = (setup.authenticator(**setup.cached) for _ in range(2))
    rejected = authorized(one)
    authorize(other)
    assert one.invalidate(rejected)
    renewed = authorize(one)
    assert other.invalidate(rejected)
    assert authorize(other) == renewed
    assert setup.grants == ["password", "refresh_token"]


@pytest.mark.parametrize("writes", [0, 1])
def test_cache_that_cannot_be_written_ends_the_run(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    written: list[int] = []

    def fsync(file: int) -> None:
        written.append(file)
        if len(written) > writes:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    authenticator = setup.refreshing(**setup.cached)
    for _ in range(2):
        with pytest.raises(RunAbortedError, match="No space left on device"):
            authorize(authenticator)
    assert len(setup.forms) == writes  # no token is spent in vain, and none used unless stored
