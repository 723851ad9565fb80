import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.auth import EnvoyApiKeyAuthenticator, EnvoyAuthenticator, GrantRefusedError
from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.session import EnvoySession
from tap_envoy.token_cache import Token, TokenCache
from tests.unit.clock import Clock
from tests.unit.local_server import Received, Reply, serve, serve_socket, unused_port
from tests.unit.token_server import BASIC, TokenServer

HOUR, DAY = 3600.0, 86400.0
SCOPES = ("token.refresh", "locations.read")

in_one_test = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Setup:
    """A token server, authenticators that use it, and the time that they see."""

    def __init__(self, server: TokenServer, url: str, folder: Path) -> None:
        self.server = server
        self.url = f"{url}/oauth2/token"
        self.now = 1_700_000_000.0
        self.clock = Clock()
        self.path = folder / "tokens.json"
        self.cached = {"token_cache": str(self.path)}

    def authenticator(self, scopes: tuple[str, ...] = SCOPES, **changes: Any) -> EnvoyAuthenticator:
        """Return an authenticator with a password, unless it has a refresh token."""
        session = EnvoySession(self.clock.limiter(1000), timeout=5)
        config = {"token_url": self.url, "client_id": "client", "client_secret": "client-secret"}
        if "refresh_token" not in changes:
            config |= {"username": "user", "password": "password"}
        return EnvoyAuthenticator(config | changes, scopes, session, now=lambda: self.now)

    def refreshing(self, **changes: Any) -> EnvoyAuthenticator:
        """Return an authenticator that has a refresh token and no password."""
        return self.authenticator(**{"refresh_token": self.server.new_refresh_token(), **changes})

    def cache(self) -> TokenCache:
        owner = (self.url, "client", "user")
        return TokenCache(str(self.path), *owner, logger=logging.getLogger("test"))

    def store(self, token: Token) -> None:
        cache = self.cache()
        with cache.locked():
            cache.store(token)

    def load(self) -> Token | None:
        cache = self.cache()
        with cache.locked():
            return cache.load()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[list[TokenServer], str]]:
    servers: list[TokenServer] = []

    def answer(request: Received) -> Reply | None:
        return servers[-1](request)

    with serve(answer) as url:
        yield servers, url


@pytest.fixture
def setup(shared: tuple[list[TokenServer], str], tmp_path: Path) -> Setup:
    servers, url = shared
    servers.append(TokenServer())
    return Setup(servers[-1], url, tmp_path)


def authorized(authenticator: EnvoyAuthenticator) -> requests.PreparedRequest:
    request = requests.Request("GET", "http://127.0.0.1/v1/locations?page=1").prepare()
    return authenticator(request)


def authorize(authenticator: EnvoyAuthenticator) -> str:
    return str(authorized(authenticator).headers["Authorization"])


def test_api_key_is_sent_in_its_header() -> None:
    authenticator = EnvoyApiKeyAuthenticator("the-key")
    request = authenticator(requests.Request("GET", "http://127.0.0.1/?a=1%2C2").prepare())
    assert request.headers["X-Api-Key"] == "the-key"
    assert request.url == "http://127.0.0.1/?a=1%2C2"
    assert authenticator.invalidate(request) is False


# Grants


def test_password_grant_is_sent_as_in_the_guide(setup: Setup) -> None:
    assert authorize(setup.authenticator()) == "Bearer access-refresh-user-1"
    (grant,) = setup.server.received
    assert grant.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert grant.headers["authorization"] == f"Basic {BASIC}"
    assert b"filename" not in grant.body
    assert grant.form == {
        "grant_type": "password",
        "username": "user",
        "password": "password",
        "scope": "token.refresh,locations.read",
    }


def test_refresh_grant_is_sent_as_in_the_guide(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert authorize(setup.refreshing()) == "Bearer access-refresh-user-2"
    (grant,) = setup.server.received
    assert grant.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in grant.headers
    assert grant.form == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-user-1",
        "client_id": "client",
        "client_secret": "client-secret",
    }


@given(password=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1))
@in_one_test
def test_password_of_any_characters_arrives_unchanged(setup: Setup, password: str) -> None:
    setup.server.replies = [setup.server.issue("user")]
    authorize(setup.authenticator(password=password))
    assert setup.server.received[-1].form["password"] == password


def test_each_grant_has_a_connection_of_its_own(setup: Setup) -> None:
    authenticator = setup.authenticator()
    authorize(authenticator)
    setup.now += DAY
    authorize(authenticator)
    assert len({grant.port for grant in setup.server.received}) == 2


def test_dead_refresh_token_gives_way_to_the_password(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    login = {"username": "user", "password": "password"}
    authorize(setup.authenticator(refresh_token="long-dead", **login))
    first, warning, last = caplog.messages
    assert first == "Requesting an access token with the refresh grant."
    assert warning == (
        "Envoy rejected the refresh grant (HTTP 401): “invalid_grant, not valid”; check "
        "`refresh_token`. Using the password grant instead."
    )
    assert last == "Requesting an access token with the password grant."


def test_failure_is_repeated_without_a_request(setup: Setup) -> None:
    authenticator = setup.authenticator(password="wrong")
    with pytest.raises(GrantRefusedError, match="password grant"):
        authenticator.sign_in()
    for _ in range(2):
        with pytest.raises(RunAbortedError, match="password grant"):
            authorize(authenticator)
    assert len(setup.server.received) == 1


@pytest.mark.parametrize(("company", "end"), [("10000", " to company 10000."), (None, ".")])
def test_sign_in_names_the_company(setup: Setup, company: str | None, end: str) -> None:
    setup.server.changes = {"company_id": company}
    assert setup.authenticator().sign_in() == f"Signed in{end}"


# Responses without a token

CLIENT = "check `client_id` and `client_secret`."
REPLACE = " To replace the refresh token, get a new one by a password grant"


@pytest.mark.parametrize(
    ("grant", "code", "status", "advice"),
    [
        ("password", "invalid_client", 400, CLIENT),
        ("refresh", "unauthorized_client", 403, CLIENT + REPLACE),
        ("password", "invalid_grant", 401, "check `username` and `password`; the API user must"),
        ("refresh", "invalid_grant", 401, f"check `refresh_token`.{REPLACE}"),
        ("password", "invalid_scope", 400, "requested scopes: token.refresh,locations.read; add"),
        ("password", "", 401, "check `client_id`, `client_secret`, `username` and `password`."),
        ("refresh", "other", 400, "check `client_id`, `client_secret` and `refresh_token`."),
    ],
)
def test_refused_grant_says_what_to_check(
    setup: Setup, grant: str, code: str, status: int, advice: str
) -> None:
    body = {"error": code, "error_description": "Some reason", "x": "hidden"}
    setup.server.replies = [Reply(status, body)]
    authenticator = setup.authenticator() if grant == "password" else setup.refreshing()
    quoted = ", ".join(filter(None, [code, "Some reason"]))
    text = f"Envoy rejected the {grant} grant (HTTP {status}): “{quoted}”; {advice}"
    with pytest.raises(GrantRefusedError, match=f"^{re.escape(text)}") as raised:
        authenticator.sign_in()
    assert raised.value.code == (code if grant == "password" else "invalid_grant")
    assert len(setup.server.received) == 1


def test_refusal_that_repeats_secrets_is_redacted(setup: Setup) -> None:
    setup.server.replies = [Reply(401, {"error": 5, "message": f"bad client-secret, {BASIC}"})]
    with pytest.raises(GrantRefusedError, match=r"“bad \*\*\*, \*\*\*, 5”"):
        setup.authenticator().sign_in()


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(204), "no access token (HTTP 204)"),
        (Reply(404, {"access_token": "hidden"}), "no access token (HTTP 404)"),
        (Reply(403, b" <html>hidden</html>"), "a web page (HTTP 403)"),
        (
            Reply(302, b"<a>", {"Location": "http://x.test/hidden"}),
            "a redirect to x.test (HTTP 302)",
        ),
    ],
)
def test_response_without_a_token_is_described(setup: Setup, reply: Reply, what: str) -> None:
    setup.server.replies = [reply]
    text = (
        f"The token endpoint (`token_url`) returned {what}; check that setting, and for a proxy or "
        "captive portal in between."
    )
    with pytest.raises(EnvoyError, match=f"^{re.escape(text)}$"):
        setup.authenticator().sign_in()
    assert len(setup.server.received) == 1


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
FIELDS = {"access_token": ODD | st.just("good"), "expires_in": ODD, "refresh_token": ODD}


@given(
    status=st.sampled_from([200, 200, 400, 404]),
    body=st.binary() | ODD | st.fixed_dictionaries({}, optional={**FIELDS, "error": ODD}),
)
@in_one_test
def test_response_of_any_content_is_a_token_or_an_error(
    setup: Setup, status: int, body: Any
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    setup.server.replies = [Reply(status, content)]
    setup.server.received.clear()
    authenticator = setup.authenticator()
    token = body.get("access_token") if isinstance(body, dict) else None
    if status == 200 and isinstance(token, str) and re.fullmatch("[!-~]+", token):
        assert authorize(authenticator) == f"Bearer {token}"
    else:
        with pytest.raises(RunAbortedError, match=f"HTTP {status}"):
            authorize(authenticator)
    assert len(setup.server.received) == 1


# Retries


@pytest.mark.parametrize(
    ("grant", "status"), [("password", 408), ("refresh", 429), ("refresh", 503)]
)
def test_token_endpoint_that_is_down_is_asked_again(setup: Setup, grant: str, status: int) -> None:
    setup.server.replies = [Reply(status, b"busy", {"Retry-After": "77"}), Reply(status, b"busy")]
    authenticator = setup.authenticator() if grant == "password" else setup.refreshing()
    assert authorize(authenticator).startswith("Bearer access-")
    assert len(setup.server.received) == 3
    assert max(setup.clock.slept) == 77


def test_password_grant_whose_response_is_lost_is_sent_again(setup: Setup) -> None:
    setup.server.replies = [None]
    authorize(setup.authenticator())
    assert setup.server.grants == ["password", "password"]


def test_refresh_grant_whose_response_is_lost_is_not_sent_again(setup: Setup) -> None:
    setup.server.replies = [None]
    with pytest.raises(GrantRefusedError, match=f" The refresh token may be used up.{REPLACE}"):
        setup.refreshing().sign_in()
    assert len(setup.server.received) == 1


def test_refresh_grant_that_was_not_sent_is_sent_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_socket(lambda _: None) as url:
        handshake_fails = url.replace("http:", "https:")
        for address in (f"http://127.0.0.1:{unused_port()}/", handshake_fails):
            with pytest.raises(EnvoyError, match="Gave up after") as raised:
                setup.refreshing(token_url=address).sign_in()
            assert "used up" not in str(raised.value)
        assert sum(setup.clock.slept) > 600
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/missing/ca.pem")
        with pytest.raises(EnvoyError, match=r"/missing/ca.pem") as raised:
            setup.refreshing(token_url=handshake_fails).sign_in()
        assert "used up" not in str(raised.value)


# Renewal


@pytest.mark.parametrize(
    ("lifetime", "used"),
    [
        (86400, DAY - 300),
        (7200.0, 2 * HOUR - 300),
        (100, 90),
        *[(odd, DAY - 300) for odd in (None, 0, -5, "soon", [])],
        (10**400, 365 * DAY - 300),
    ],
)
def test_access_token_is_renewed_before_it_ends(setup: Setup, lifetime: Any, used: float) -> None:
    setup.server.changes = {"expires_in": lifetime}
    authenticator = setup.authenticator()
    first = authorize(authenticator)
    setup.now += used - 1
    assert authorize(authenticator) == first
    setup.now += 2
    assert authorize(authenticator) != first
    assert setup.server.grants == ["password", "refresh_token"]


def test_each_renewal_uses_the_newest_refresh_token(setup: Setup) -> None:
    authenticator = setup.refreshing()
    for _ in range(3):
        authorize(authenticator)
        setup.now += DAY
    assert setup.server.sent_refresh_tokens == [f"refresh-user-{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("absent", [None, "", 5])
def test_response_without_a_refresh_token_keeps_the_old_one(setup: Setup, absent: Any) -> None:
    setup.server.changes = {"refresh_token": absent}
    authenticator = setup.refreshing()
    authorize(authenticator)
    setup.now += DAY
    with pytest.raises(EnvoyError, match="To replace the refresh token"):
        authorize(authenticator)
    assert setup.server.sent_refresh_tokens == ["refresh-user-1", "refresh-user-1"]


def test_secrets_grow_with_each_token(setup: Setup) -> None:
    authenticator = setup.refreshing()
    assert authenticator.secrets == {"client-secret", BASIC, "refresh-user-1"}
    authorize(authenticator)
    assert authenticator.secrets >= {"access-refresh-user-2", "refresh-user-2"}


def test_rejected_token_is_replaced_once_for_a_request(setup: Setup) -> None:
    authenticator = setup.authenticator()
    rejected = authorized(authenticator)
    assert authenticator.invalidate(rejected)
    replacement = authorized(authenticator)
    assert authenticator.invalidate(rejected)  # another thread, with the older token
    assert not authenticator.invalidate(replacement, resends=1)
    assert authorize(authenticator) == replacement.headers["Authorization"]
    assert setup.server.grants == ["password", "refresh_token"]


def test_threads_share_one_sign_in_and_one_renewal(setup: Setup) -> None:
    authenticator = setup.authenticator()
    setup.server.max_delay = 0.05

    def work(action: Any) -> None:
        threads = [threading.Thread(target=action) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work(lambda: authorize(authenticator))
    rejected = authorized(authenticator)
    work(lambda: (authenticator.invalidate(rejected), authorize(authenticator)))
    assert setup.server.grants == ["password", "refresh_token"]


# Token cache


def test_cached_token_needs_no_request_until_its_renewal(setup: Setup) -> None:
    first = authorize(setup.authenticator(**setup.cached))
    setup.now += DAY - 301
    second = setup.authenticator(**setup.cached)
    assert authorize(second) == first
    assert second.secrets >= {"access-refresh-user-1", "refresh-user-1"}
    setup.now += 2
    assert authorize(setup.authenticator(**setup.cached)) == "Bearer access-refresh-user-2"
    assert authorize(second) == "Bearer access-refresh-user-2"
    assert setup.server.grants == ["password", "refresh_token"]


def test_cached_refresh_token_is_tried_however_old_it_is(setup: Setup) -> None:
    authorize(setup.authenticator(**setup.cached))
    setup.now += 31 * DAY
    authorize(setup.authenticator(**setup.cached))
    assert setup.server.grants == ["password", "refresh_token"]


def test_refused_cached_refresh_token_gives_way_to_the_configured_one(setup: Setup) -> None:
    setup.store(Token(refresh_token="dead"))
    token = setup.server.new_refresh_token()
    authorize(setup.authenticator(refresh_token=token, username="user", **setup.cached))
    assert setup.server.sent_refresh_tokens == ["dead", token]
    stored = setup.load()
    assert stored
    assert {stored.refresh_token} == setup.server.live


def test_cached_token_with_too_few_scopes_is_not_used(setup: Setup) -> None:
    wider = (*SCOPES, "spaces.read")
    for scopes in (SCOPES, wider, ("spaces.read",)):
        authorize(setup.authenticator(scopes, **setup.cached))
    assert setup.server.grants == ["password", "password"]


def test_cached_token_of_unknown_scopes_is_used(setup: Setup) -> None:
    authorize(setup.refreshing(username="user", **setup.cached))
    authorize(setup.authenticator(**setup.cached))
    assert len(setup.server.received) == 1


def test_rejected_token_is_not_taken_from_the_cache_again(setup: Setup) -> None:
    one, other = (setup.authenticator(**setup.cached) for _ in range(2))
    rejected = authorized(one)
    authorize(other)
    assert one.invalidate(rejected)
    renewed = authorize(one)
    assert other.invalidate(rejected)
    assert authorize(other) == renewed
    assert setup.server.grants == ["password", "refresh_token"]


def test_unwritable_cache_ends_the_run_before_a_token_is_spent(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = setup.refreshing(**setup.cached)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunAbortedError, match="No space left on device"):
        authorize(authenticator)
    assert setup.server.received == []


def test_token_that_cannot_be_stored_is_not_used(setup: Setup) -> None:
    def block() -> Reply:
        setup.path.unlink()
        setup.path.mkdir()
        return setup.server.issue("user")

    setup.server.replies = [block]
    authenticator = setup.refreshing(**setup.cached)
    for _ in range(2):
        with pytest.raises(RunAbortedError, match="cannot be used"):
            authorize(authenticator)


def test_refresh_token_without_a_cache_is_warned_about(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.refreshing()
    assert "Without `token_cache` the next run cannot sign in" in caplog.text
    caplog.clear()
    setup.authenticator()
    assert caplog.text == ""
