import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.auth import EnvoyApiKeyAuthenticator, EnvoyAuthenticator, GrantRefusedError
from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.http import EnvoySession, RateLimiter, RetryPolicy
from tap_envoy.token_cache import CachedToken, TokenCache
from tests.unit.local_server import Received, Reply, serve, serve_socket, unused_port
from tests.unit.token_server import BASIC, TokenServer
from tests.unit.virtual_time import VirtualTime

START = datetime(2024, 5, 17, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class Setup:
    """A token server, and authenticators that use it."""

    def __init__(self, server: TokenServer, url: str, folder: Path) -> None:
        self.server = server
        self.url = f"{url}/oauth2/token"
        self.clock = Clock()
        self.time = VirtualTime()
        self.cache = folder / "tokens.json"

    def authenticator(self, **changes: Any) -> EnvoyAuthenticator:
        arguments: dict[str, Any] = {
            "token_url": self.url,
            "client_id": "client",
            "client_secret": "client-secret",
            "username": "user",
            "password": "password",
            "scopes": ("token.refresh", "locations.read"),
            "session": EnvoySession(RateLimiter(1000)),
            "timeout": 5,
            "retry_policy": RetryPolicy(clock=self.time, sleep=self.time.sleep),
            "now": self.clock,
        }
        return EnvoyAuthenticator(**{**arguments, **changes})

    def refreshing(self, **changes: Any) -> EnvoyAuthenticator:
        """Return one that has a refresh token but no password."""
        token = self.server.new_refresh_token()
        without = {"username": None, "password": None}
        return self.authenticator(**{"refresh_token": token, **without, **changes})

    def token_cache(self, *owner: str) -> TokenCache:
        return TokenCache(str(self.cache), *owner, logger=logging.getLogger("test"))


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


def authorize(authenticator: EnvoyAuthenticator) -> str:
    return str(authorized(authenticator).headers["Authorization"])


def authorized(authenticator: EnvoyAuthenticator) -> requests.PreparedRequest:
    request = requests.Request("GET", "http://127.0.0.1/v1/locations?page=1").prepare()
    return authenticator(request)


# Client API key


def test_api_key_is_sent_in_its_header() -> None:
    authenticator = EnvoyApiKeyAuthenticator("the-key")
    request = requests.Request("GET", "http://127.0.0.1/").prepare()
    headers = authenticator(request).headers
    assert headers["X-Api-Key"] == "the-key"
    assert "Authorization" not in headers
    assert authenticator.secrets == {"the-key"}
    assert authenticator.sign_in() == "Signing in with the Client API Key (`api_key`)."
    assert "`api_key`" in authenticator.advice
    assert authenticator.invalidate(request) is False


# Grants


def test_password_grant_is_sent_as_in_the_guide(setup: Setup) -> None:
    request = authorized(setup.authenticator())
    assert request.headers["Authorization"] == "Bearer access-refresh-user-1"
    assert request.url == "http://127.0.0.1/v1/locations?page=1"
    (grant,) = setup.server.received
    assert grant.path == "/oauth2/token"
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
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_password_arrives_unchanged(setup: Setup, password: str) -> None:
    setup.server.replies = [setup.server.issue("user")]
    authorize(setup.authenticator(password=password))
    assert setup.server.received[-1].form["password"] == password


def test_refresh_token_is_tried_before_the_password(setup: Setup) -> None:
    authorize(setup.authenticator(refresh_token=setup.server.new_refresh_token()))
    assert setup.server.grants == ["refresh_token"]


def test_dead_refresh_token_gives_way_to_the_password(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    authorize(setup.authenticator(refresh_token="long-dead"))
    assert setup.server.grants == ["refresh_token", "password"]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "refresh grant (HTTP 401): “invalid_grant, not valid”" in warning
    assert warning.endswith("Using the password grant instead.")


def test_each_grant_is_logged(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tap_envoy.auth")
    authorize(setup.authenticator(refresh_token="long-dead"))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.INFO] == [
        "Requesting an access token with the refresh grant.",
        "Requesting an access token with the password grant.",
    ]


def test_dead_refresh_token_alone_says_how_to_replace_it(setup: Setup) -> None:
    authenticator = setup.refreshing(refresh_token="long-dead")
    with pytest.raises(RunAbortedError, match=r"check `refresh_token`. To replace .*`password`\.$"):
        authorize(authenticator)
    assert setup.server.sent_refresh_tokens == ["long-dead"]


def test_failure_is_repeated_without_a_request(setup: Setup) -> None:
    authenticator = setup.authenticator(password="wrong")
    for _ in range(3):
        with pytest.raises(RunAbortedError, match="password grant"):
            authorize(authenticator)
    assert len(setup.server.received) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Signed in to company 10000."),
        ({"company_id": None}, "Signed in."),
        ({"company_id": 5}, "Signed in."),
        ({"company_id": "a b"}, "Signed in."),
        ({"company_id": "a" * 21}, "Signed in."),
    ],
)
def test_sign_in_names_the_company(setup: Setup, changes: dict[str, Any], sentence: str) -> None:
    setup.server.changes = changes
    assert setup.authenticator().sign_in() == sentence


def test_sign_in_raises_a_refused_grant_with_its_code(setup: Setup) -> None:
    setup.server.replies = [Reply(401, {"error": "invalid_scope"})]
    with pytest.raises(GrantRefusedError) as raised:
        setup.authenticator().sign_in()
    assert raised.value.code == "invalid_scope"
    with pytest.raises(GrantRefusedError) as raised:
        setup.refreshing(refresh_token="dead").sign_in()
    assert raised.value.code == "invalid_grant"


# Refusals


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    ("grant", "code", "advice"),
    [
        ("password", "invalid_client", "; check `client_id` and `client_secret`."),
        ("refresh", "invalid_client", "; check `client_id` and `client_secret`. To"),
        ("password", "unauthorized_client", "; check `client_id` and `client_secret`."),
        ("password", "invalid_grant", "; check `username` and `password`; the API user must"),
        ("refresh", "invalid_grant", "; check `refresh_token`. To replace"),
        (
            "password",
            "invalid_scope",
            "; requested scopes: token.refresh,locations.read; add the missing ones to the",
        ),
        ("refresh", "invalid_scope", "; requested scopes: see `scopes`; add"),
        ("password", "mfa_required", "without multi-factor authentication."),
        ("refresh", "mfa_required", "without multi-factor authentication. To"),
        (
            "password",
            "other",
            "; check `username`, `password`, `client_id`, `client_secret` and `scopes`.",
        ),
        ("refresh", "other", "; check `client_id`, `client_secret` and `refresh_token`. To"),
    ],
)
def test_refused_grant_says_what_to_check(
    setup: Setup, status: int, grant: str, code: str, advice: str
) -> None:
    body = {"error": code, "error_description": "Some reason", "x": "hidden"}
    setup.server.replies = [Reply(status, body)]
    authenticator = setup.authenticator() if grant == "password" else setup.refreshing()
    with pytest.raises(GrantRefusedError) as raised:
        authenticator.sign_in()
    text = str(raised.value)
    assert text.startswith(
        f"Envoy rejected the {grant} grant (HTTP {status}): “{code}, Some reason”; "
    )
    assert advice in text
    assert raised.value.code == code
    assert len(setup.server.received) == 1


def test_refusal_that_repeats_secrets_is_redacted(setup: Setup) -> None:
    echo = f"bad password, client-secret, {BASIC}"
    setup.server.replies = [Reply(401, {"error": 5, "error_description": echo})]
    with pytest.raises(
        GrantRefusedError, match=r"“5, bad \*\*\*, \*\*\*, \*\*\*”; check `username`"
    ) as raised:
        setup.authenticator().sign_in()
    assert raised.value.code == ""


@pytest.mark.parametrize("body", [b"hidden", b"", b"[" * 100_000, b"\xff\xfe", b'["hidden"]'])
def test_refusal_that_is_no_object_is_not_quoted(setup: Setup, body: bytes) -> None:
    setup.server.replies = [Reply(401, body)]
    with pytest.raises(GrantRefusedError, match=r"password grant \(HTTP 401\); check `username`"):
        setup.authenticator().sign_in()


def test_refusal_by_a_web_page_is_named(setup: Setup) -> None:
    setup.server.replies = [Reply(403, b" <html>hidden</html>")]
    with pytest.raises(
        GrantRefusedError, match=r"HTTP 403\); the response is a web page.*firewall"
    ):
        setup.authenticator().sign_in()


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (Reply(200, b"[" * 100_000), "returned HTTP 200 without an access token"),
        (Reply(200, b"\n<html>hidden</html>"), "without a token: the response is a web page"),
        (Reply(200, b"[1]"), "without an access token"),
        (Reply(200, {"token": "hidden"}), "without an access token"),
        (Reply(200, {"access_token": "two\nlines"}), "without an access token"),
        (Reply(200, {"access_token": "hidden-é"}), "without an access token"),
        (Reply(200, {"access_token": ""}), "without an access token"),
        (Reply(200, {"access_token": None}), "without an access token"),
        (Reply(204), "returned HTTP 204 without an access token"),
        (Reply(404, {"access_token": "hidden"}), "returned HTTP 404 instead of a token"),
        (Reply(404, b"<html>"), "returned HTTP 404 without a token: the response is a web page"),
        (
            Reply(302, b"<a>", {"Location": "http://127.0.0.1:9/hidden"}),
            "redirects to another page (HTTP 302) instead of",
        ),
        (Reply(300, b""), "redirects to another page (HTTP 300)"),
        (Reply(399, b""), "redirects to another page (HTTP 399)"),
    ],
)
def test_response_without_a_token_is_named(setup: Setup, reply: Reply, part: str) -> None:
    setup.server.replies = [reply]
    with pytest.raises(EnvoyError) as raised:
        setup.authenticator().sign_in()
    assert not isinstance(raised.value, GrantRefusedError)
    host = setup.url.split("/")[2]
    assert str(raised.value).startswith(f"The token endpoint at {host} re")
    assert part in str(raised.value)
    assert str(raised.value).endswith("; check `token_url`.")
    assert "hidden" not in str(raised.value)
    assert len(setup.server.received) == 1


def test_redirect_of_the_token_endpoint_is_explained(setup: Setup) -> None:
    setup.server.replies = [Reply(307, b"", {"Location": "http://127.0.0.1:9/hidden"})]
    with pytest.raises(EnvoyError, match="token, perhaps for single sign-on or a captive portal; "):
        setup.authenticator().sign_in()


def test_token_with_invalid_bytes_elsewhere_is_accepted(setup: Setup) -> None:
    setup.server.replies = [
        Reply(200, b'\xef\xbb\xbf{"access_token": "good", "x": "\xff", "y": NaN}')
    ]
    assert authorize(setup.authenticator()) == "Bearer good"


# Retries


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize("grant", ["password", "refresh"])
def test_token_endpoint_that_is_down_is_retried(setup: Setup, status: int, grant: str) -> None:
    setup.server.replies = [Reply(status, b"busy"), Reply(status, b"busy")]
    authenticator = setup.authenticator() if grant == "password" else setup.refreshing()
    assert authorize(authenticator).startswith("Bearer access-")
    assert len(setup.server.received) == 3


def test_token_endpoint_that_stays_down_is_given_up(setup: Setup) -> None:
    setup.server.replies = [Reply(503, b"busy")] * 50
    with pytest.raises(
        EnvoyError, match=r"endpoint at .* returned HTTP 503. Gave up after 3\d\d s"
    ):
        setup.authenticator().sign_in()


def test_retry_after_of_the_token_endpoint_pauses_all_requests(setup: Setup) -> None:
    setup.server.replies = [Reply(429, b"", {"Retry-After": "77"})]
    limiter = RateLimiter(1000, clock=setup.time, sleep=setup.time.sleep)
    setup.authenticator(session=EnvoySession(limiter)).sign_in()
    assert setup.time.slept[0] == 77
    assert setup.time.now >= 177
    assert limiter.rate < 1000


def test_other_requests_wait_for_the_retry_after_of_the_token_endpoint(setup: Setup) -> None:
    setup.server.replies = [Reply(429, b"", {"Retry-After": "77"})]
    limiter = RateLimiter(1000, clock=setup.time, sleep=setup.time.sleep)
    policy = RetryPolicy(clock=setup.time, sleep=lambda _: None)  # the limiter alone waits
    setup.authenticator(session=EnvoySession(limiter), retry_policy=policy).sign_in()
    assert setup.time.now >= 177


def test_token_endpoint_that_nobody_serves_is_named(setup: Setup) -> None:
    port = unused_port()
    authenticator = setup.authenticator(token_url=f"http://127.0.0.1:{port}/oauth2/token")
    match = rf"Cannot connect to the token endpoint \(`token_url`\) at 127.0.0.1:{port}.*Gave up"
    with pytest.raises(RunAbortedError, match=match):
        authenticator.sign_in()


def test_token_endpoint_without_a_response_is_given_up_in_time(setup: Setup) -> None:
    policy = RetryPolicy(max_time=0)
    with (
        serve_socket(lambda _: time.sleep(0.5)) as url,
        pytest.raises(EnvoyError, match=r"in time \(`request_timeout` is 0.1 s\)"),
    ):
        setup.authenticator(token_url=url, timeout=0.1, retry_policy=policy).sign_in()


def test_password_grant_whose_response_is_lost_is_sent_again(setup: Setup) -> None:
    setup.server.replies = [None]
    authorize(setup.authenticator())
    assert setup.server.grants == ["password", "password"]


def test_refresh_grant_whose_response_is_lost_is_not_sent_again(setup: Setup) -> None:
    setup.server.replies = [None]
    authorize(setup.authenticator(refresh_token=setup.server.new_refresh_token()))
    assert setup.server.grants == ["refresh_token", "password"]


def test_lost_refresh_grant_without_a_password_says_what_to_do(setup: Setup) -> None:
    setup.server.replies = [None]
    with pytest.raises(GrantRefusedError, match=r"complete. The refresh token may be used up. To "):
        setup.refreshing().sign_in()
    assert len(setup.server.received) == 1


def test_refresh_grant_that_was_not_sent_is_sent_again(setup: Setup) -> None:
    port = unused_port()
    authenticator = setup.refreshing(token_url=f"http://127.0.0.1:{port}/")
    with pytest.raises(RunAbortedError, match="Gave up"):
        authenticator.sign_in()
    assert len(setup.time.slept) > 5


# Expiry


@pytest.mark.parametrize(
    ("lifetime", "margin"),
    [(86400, 300), ("86400", 300), (7200.0, 300), (3000, 300), (2999, 299.9), (100, 10), (1, 0.1)],
)
def test_access_token_is_renewed_before_it_ends(setup: Setup, lifetime: Any, margin: float) -> None:
    setup.server.changes = {"expires_in": lifetime}
    authenticator = setup.authenticator()
    first = authorize(authenticator)
    assert authenticator.expires_in == int(float(lifetime))
    assert authenticator.last_refreshed == START
    setup.clock.advance(seconds=float(lifetime) - margin - 0.01)
    assert authorize(authenticator) == first
    setup.clock.advance(seconds=0.02)
    assert authorize(authenticator) != first
    assert setup.server.grants == ["password", "refresh_token"]


@pytest.mark.parametrize("odd", [None, 0, -5, "soon", True, [], {}, "NaN", "inf", 10**400])
def test_invalid_lifetime_means_the_documented_day(setup: Setup, odd: Any) -> None:
    setup.server.changes = {"expires_in": odd}
    authenticator = setup.authenticator()
    first = authorize(authenticator)
    assert authenticator.expires_in == 86400
    setup.clock.advance(seconds=86400 - 301)
    assert authorize(authenticator) == first
    setup.clock.advance(seconds=2)
    assert authorize(authenticator) != first


def test_each_renewal_uses_the_newest_refresh_token(setup: Setup) -> None:
    authenticator = setup.refreshing()
    for _ in range(4):
        authorize(authenticator)
        setup.clock.advance(days=1)
    assert setup.server.sent_refresh_tokens == [f"refresh-user-{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("absent", [None, "", 5])
def test_response_without_a_refresh_token_keeps_the_old_one(setup: Setup, absent: Any) -> None:
    authenticator = setup.refreshing()
    setup.server.changes = {"refresh_token": absent}
    authorize(authenticator)
    assert authenticator.refresh_token == "refresh-user-1"
    setup.clock.advance(days=1)
    with pytest.raises(EnvoyError, match="To replace the refresh token"):
        authorize(authenticator)
    assert setup.server.sent_refresh_tokens == ["refresh-user-1", "refresh-user-1"]


@pytest.mark.parametrize(
    ("given", "seconds"), [(2592000, 2592000), (None, 2592000), ("200000", 200000)]
)
def test_expired_refresh_token_is_not_sent(setup: Setup, given: Any, seconds: float) -> None:
    setup.server.changes = {"refresh_token_expires_in": given}
    for late, grant in [(-1, "refresh_token"), (0, "password")]:
        authenticator = setup.authenticator()
        authorize(authenticator)
        setup.clock.advance(seconds=seconds + late)
        authorize(authenticator)
        assert setup.server.grants[-1] == grant


def test_expired_refresh_token_without_a_password_says_so(setup: Setup) -> None:
    authenticator = setup.refreshing()
    authorize(authenticator)
    setup.clock.advance(days=31)
    with pytest.raises(
        GrantRefusedError, match=r"^The refresh token has expired. To replace"
    ) as raised:
        authenticator.sign_in()
    assert raised.value.code == ""
    assert len(setup.server.received) == 1


def test_each_new_token_is_a_secret(setup: Setup) -> None:
    authenticator = setup.authenticator()
    assert authenticator.secrets == {"client-secret", "password", BASIC}
    before = authenticator.secrets
    authorize(authenticator)
    assert authenticator.secrets - before == {"access-refresh-user-1", "refresh-user-1"}
    assert setup.authenticator(refresh_token="r").secrets >= {"r"}


# Rejected access tokens


def test_rejected_token_is_replaced(setup: Setup) -> None:
    authenticator = setup.authenticator()
    request = authorized(authenticator)
    assert authenticator.invalidate(request)
    assert authorize(authenticator) != request.headers["Authorization"]
    assert setup.server.grants == ["password", "refresh_token"]


def test_token_that_replaced_a_rejected_one_is_not_replaced_for_the_same_request(
    setup: Setup,
) -> None:
    authenticator = setup.authenticator()
    assert authenticator.invalidate(authorized(authenticator))
    replacement = authorized(authenticator)
    assert not authenticator.invalidate(replacement, resends=1)
    assert authorize(authenticator) == replacement.headers["Authorization"]
    assert authenticator.invalidate(replacement)
    assert authorize(authenticator) != replacement.headers["Authorization"]


def test_request_with_an_older_token_is_sent_again_at_most_three_times(setup: Setup) -> None:
    authenticator = setup.authenticator()
    first = authorized(authenticator)
    assert authenticator.invalidate(first)
    assert authenticator.invalidate(first)  # before it was replaced
    second = authorized(authenticator)
    assert [authenticator.invalidate(first, resends=n) for n in range(5)] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert authorize(authenticator) == second.headers["Authorization"]
    assert len(setup.server.received) == 2


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


def test_cached_token_needs_no_request(setup: Setup) -> None:
    first = setup.authenticator(token_cache=setup.token_cache("a"))
    second = setup.authenticator(token_cache=setup.token_cache("a"))
    assert authorize(first) == authorize(second)
    assert len(setup.server.received) == 1
    assert second.secrets >= {"access-refresh-user-1", "refresh-user-1"}
    setup.clock.advance(seconds=86400 - 301)
    assert authorize(setup.authenticator(token_cache=setup.token_cache("a"))) == authorize(first)
    setup.clock.advance(seconds=2)
    third = setup.authenticator(token_cache=setup.token_cache("a"))
    assert authorize(third) == "Bearer access-refresh-user-2"
    assert setup.server.grants == ["password", "refresh_token"]
    authorize(second)
    assert len(setup.server.received) == 2


def test_cached_entry_has_the_expected_content(setup: Setup) -> None:
    cache = setup.token_cache("a")
    authorize(setup.authenticator(token_cache=cache))
    start = START.timestamp()
    scopes = ("token.refresh", "locations.read")
    assert cache.load() == CachedToken(
        "access-refresh-user-1", start + 86400 - 300, "refresh-user-1", start + 2592000, scopes
    )
    authorize(setup.refreshing(token_cache=setup.token_cache("b")))
    entry = setup.token_cache("b").load()
    assert entry is not None
    assert entry.scopes is None


def test_cached_refresh_token_expires(setup: Setup) -> None:
    authorize(setup.authenticator(token_cache=setup.token_cache("a")))
    setup.clock.advance(days=30)
    authorize(setup.authenticator(token_cache=setup.token_cache("a")))
    assert setup.server.grants == ["password", "password"]


def test_rotated_refresh_token_is_used_before_the_configured_one(setup: Setup) -> None:
    token = setup.server.new_refresh_token()
    for _ in range(2):
        authorize(setup.refreshing(refresh_token=token, token_cache=setup.token_cache("a")))
        setup.clock.advance(days=1)
    assert setup.server.sent_refresh_tokens == ["refresh-user-1", "refresh-user-3"]
    assert setup.server.reused == []


def test_refused_cached_refresh_token_gives_way_to_the_configured_one(setup: Setup) -> None:
    setup.token_cache("a").store(CachedToken(refresh_token="dead"))
    token = setup.server.new_refresh_token()
    cache = setup.token_cache("a")
    authorize(setup.refreshing(refresh_token=token, token_cache=cache))
    assert setup.server.sent_refresh_tokens == ["dead", token]
    entry = cache.load()
    assert entry is not None
    assert entry.refresh_token in setup.server.live - {"refresh-user-2"}


def test_configured_refresh_token_is_tried_once(setup: Setup) -> None:
    authenticator = setup.authenticator(refresh_token="dead")
    authorize(authenticator)
    setup.clock.advance(days=1)
    setup.server.live.clear()
    authorize(authenticator)
    assert setup.server.sent_refresh_tokens == ["dead", "refresh-user-1"]
    assert setup.server.grants == ["refresh_token", "password", "refresh_token", "password"]


def test_cached_token_with_too_few_scopes_is_not_used(setup: Setup) -> None:
    authorize(setup.authenticator(token_cache=setup.token_cache("a")))
    wider = ("token.refresh", "locations.read", "spaces.read")
    authorize(setup.authenticator(token_cache=setup.token_cache("a"), scopes=wider))
    narrower = ("spaces.read",)
    authorize(setup.authenticator(token_cache=setup.token_cache("a"), scopes=narrower))
    assert setup.server.grants == ["password", "password"]


def test_cached_token_of_unknown_scopes_is_used(setup: Setup) -> None:
    authorize(setup.refreshing(token_cache=setup.token_cache("a")))
    authorize(setup.authenticator(token_cache=setup.token_cache("a")))
    authorize(setup.refreshing(token_cache=setup.token_cache("a")))
    assert len(setup.server.received) == 1


def test_rejected_token_is_not_taken_from_the_cache_again(setup: Setup) -> None:
    one = setup.authenticator(token_cache=setup.token_cache("a"))
    other = setup.authenticator(token_cache=setup.token_cache("a"))
    rejected = authorized(one)
    authorize(other)
    assert one.invalidate(rejected)
    renewed = authorize(one)
    assert renewed == "Bearer access-refresh-user-2"
    assert other.invalidate(rejected)
    assert authorize(other) == renewed
    assert setup.server.grants == ["password", "refresh_token"]


def test_unwritable_cache_ends_the_run_before_a_token_is_spent(setup: Setup) -> None:
    setup.cache.mkdir()
    authenticator = setup.refreshing(token_cache=setup.token_cache("a"))
    with pytest.raises(RunAbortedError, match="cannot be written"):
        authorize(authenticator)
    assert setup.server.received == []


def test_token_that_cannot_be_stored_is_not_used(setup: Setup) -> None:
    def block(_request: object) -> Reply:
        setup.cache.mkdir()
        return setup.server.issue("user")

    setup.server.replies = [block]
    authenticator = setup.refreshing(token_cache=setup.token_cache("a"))
    with pytest.raises(RunAbortedError, match="cannot be written"):
        authorize(authenticator)
    assert authenticator.access_token is None
