"""Authentication: Client API key, and OAuth password and refresh grants."""

from __future__ import annotations

import logging
import math
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.exceptions import (
    REQUEST_ERRORS,
    EnvoyError,
    GrantRefusedError,
    ResponseLostError,
    ResponseUnreadableError,
    RunAbortedError,
    TransientError,
    connection_error,
    decode_json,
    excerpt,
    is_retryable,
    redirect_host,
)
from tap_envoy.session import parse_retry_after
from tap_envoy.token_cache import Token, TokenCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import requests

    from tap_envoy.session import EnvoySession

ACCESS_TOKEN_LIFETIME = 24 * 3600.0
REFRESH_TOKEN_LIFETIME = 30 * ACCESS_TOKEN_LIFETIME
"""Seconds (Envoy guide for private apps), where a token response does not say."""

EXPIRY_MARGIN = 300.0
"""Seconds before its end at which an access token is renewed, or a tenth of its lifetime."""

MAX_RESENDS = 3
"""How often a request is sent again after its access token was rejected."""

REFUSALS = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""What the token endpoint returns for wrong credentials: 401 in clients, the rest inferred."""

ADVICE = {
    "invalid_client": "check `client_id` and `client_secret`",
    "unauthorized_client": "check `client_id` and `client_secret`",
    "invalid_scope": (
        "requested scopes: {scopes}; add the missing ones to the integration in Envoy's Dev "
        "Dashboard, or set `scopes`"
    ),
    "mfa_required": "the API user must be able to sign in without multi-factor authentication",
    "password": (
        "check `username` and `password`, and `client_id` and `client_secret`; the API user must "
        "be able to sign in with a password, without single sign-on"
    ),
    "refresh": "check `refresh_token`, and `client_id` and `client_secret`",
}
"""What to do, by OAuth's code for the reason, else by the grant."""

HOW_TO_REPLACE = (
    "To replace the refresh token, get a new one by a password grant (README, “Getting "
    "credentials”) and set `refresh_token`, or set `username` and `password`."
)


class EnvoyApiKeyAuthenticator(APIKeyAuthenticator):
    """Adds the long-lived Client API Key to each request (Envoy guide for private apps)."""

    advice = "check `api_key` against the integration's page in Envoy's Dev Dashboard"
    scope_advice = ""

    def __init__(self, api_key: str) -> None:
        super().__init__(key="X-Api-Key", value=api_key, location="header")
        self.secrets = {api_key}

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key to the headers; the SDK would also parse and rebuild the URL."""
        request.headers.update(self.auth_headers)
        return request

    def sign_in(self) -> str:
        """Return a sentence that names the authentication method."""
        return "Signing in with the Client API Key (`api_key`)."

    def invalidate(self, _request: requests.PreparedRequest, *, resends: int = 0) -> bool:  # noqa: ARG002
        """Return False: a rejected key stays rejected."""
        return False


class EnvoyAuthenticator(OAuthAuthenticator):
    """OAuth authenticator shared by all streams; renews early and stores rotated refresh tokens.

    Safe to use from several threads.

    Attributes:
        secrets: What no message may contain; grows with each new token.
        company_id: The company of the newest token response, or None.
        advice: What to do if Envoy rejects a new access token.
        scope_advice: Where a scope is needed besides the integration.
    """

    advice = (
        "check that the API user is a Global Admin and that the integration is ready to be "
        "displayed"
    )
    scope_advice = (
        " (and to `scopes`, if set; a refresh token keeps the scopes that it was granted with), "
        "and check that the API user is a Global Admin"
    )

    def __init__(  # noqa: PLR0913  # the settings of Envoy's guide
        self,
        *,
        token_url: str,
        client_id: str,
        client_secret: str,
        username: str | None = None,
        password: str | None = None,
        refresh_token: str | None = None,
        scopes: tuple[str, ...] = (),
        session: EnvoySession,
        token_cache: TokenCache | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        # Envoy guide: scopes are separated by commas, although OAuth 2.0 itself uses spaces.
        super().__init__(
            auth_endpoint=token_url,
            oauth_scopes=",".join(scopes),
            client_id=client_id,
            client_secret=client_secret,
        )
        self.logger = logging.getLogger(__name__)
        self._username = username
        self._password = password
        self._scopes = scopes
        self._envoy_session = session
        self._cache = token_cache
        self._now = now
        self._lock = threading.Lock()
        self._token = Token()
        self._configured_refresh_token = refresh_token
        self._rejected: str | None = None
        self._failure: str | None = None
        self.company_id: str | None = None
        self._basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self.secrets = {x for x in (client_secret, password, refresh_token, self._basic) if x}

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add a valid access token to `request`, after getting one if necessary.

        Raises:
            RunAbortedError: If no token can be obtained; the same in all later calls.
        """
        if not self.is_token_valid():
            _in_thread(self._renew)
        if self._failure:
            raise RunAbortedError(self._failure)
        request.headers["Authorization"] = f"Bearer {self._token.access_token}"
        return request

    def _renew(self) -> None:
        with self._lock:
            if not self._failure and not self.is_token_valid():
                try:
                    self.update_access_token()
                except EnvoyError as error:
                    self._failure = str(error)

    def sign_in(self) -> str:
        """Get a valid access token, as `update_access_token` does; return a sentence about it."""
        _in_thread(self._sign_in)
        return f"Signed in to company {self.company_id}." if self.company_id else "Signed in."

    def _sign_in(self) -> None:
        with self._lock:
            self.update_access_token()

    def invalidate(self, request: requests.PreparedRequest, *, resends: int = 0) -> bool:
        """Stop using the access token that was rejected with `request`.

        Returns whether to send it again, after `resends` times: not with a token that replaced a
        rejected one.
        """
        with self._lock:
            if request.headers["Authorization"] != f"Bearer {self._token.access_token}":
                return resends < MAX_RESENDS  # another thread has renewed it
            if not resends:
                self._rejected = self._token.access_token
            return not resends

    @override
    def is_token_valid(self) -> bool:
        """Return whether the access token need not be renewed yet."""
        token = self._token
        return token.access_token != self._rejected and token.is_valid(self._now())

    @override
    def update_access_token(self) -> None:
        """Use the cached token, else the refresh grant, else the password grant.

        Raises:
            EnvoyError: If no token can be obtained; its text names the settings to check.
        """
        cache = self._cache
        with cache.locked() if cache else nullcontext():  # other runs wait, and then use its token
            if cache and (token := cache.load()) and self._covers(token):
                self._use(token)
                if self.is_token_valid():
                    return
            if cache:
                cache.ensure_writable()  # before a single-use token is spent
            refusal = None
            for refresh_token in self._refresh_tokens():
                try:
                    self._store(self._request("refresh", refresh_token), refresh_token)
                except GrantRefusedError as error:
                    refusal = error
                else:
                    return
            if not self._password:
                refusal = refusal or GrantRefusedError("The refresh token has expired.")
                raise GrantRefusedError(f"{refusal} {HOW_TO_REPLACE}", code=refusal.code)
            if refusal:
                self.logger.warning("%s Using the password grant instead.", refusal)
            self._store(self._request("password"))

    def _covers(self, token: Token) -> bool:
        """Return whether a cached token has the scopes of this run, or no other can be had."""
        return not self._password or set(self._scopes) <= set(token.scopes or self._scopes)

    def _refresh_tokens(self) -> list[str]:
        """Return the refresh tokens to try: the newest, then, once, the configured one."""
        newest = self._token.refresh_token if self._token.can_refresh(self._now()) else None
        configured, self._configured_refresh_token = self._configured_refresh_token, None
        return list(dict.fromkeys(token for token in (newest, configured) if token))

    def _store(self, response: Mapping[str, Any], refresh_token: str | None = None) -> None:
        """Use the tokens of a response, and put them into the cache."""
        now = self._now()
        lifetime = _seconds(response.get("expires_in"), ACCESS_TOKEN_LIFETIME)
        newest, refresh_until = response.get("refresh_token"), self._token.refresh_until
        if isinstance(newest, str) and newest:
            refresh_token = newest
            refresh_until = now + _seconds(
                response.get("refresh_token_expires_in"), REFRESH_TOKEN_LIFETIME
            )
        token = Token(
            access_token=response["access_token"],
            renew_at=now + lifetime - min(EXPIRY_MARGIN, lifetime / 10),
            refresh_token=refresh_token,
            refresh_until=refresh_until,
            scopes=self._scopes if self._password else None,
        )
        self._use(token)
        if self._cache:
            self._cache.store(token)
        company = response.get("company_id")
        self.company_id = company if isinstance(company, str) and company.isdecimal() else None

    def _use(self, token: Token) -> None:
        # A new set: other threads may be reading the old one.
        self.secrets = self.secrets | {x for x in (token.access_token, token.refresh_token) if x}
        self._token = token

    def _request(self, grant: str, refresh_token: str = "") -> dict[str, Any]:
        """Return the response to a "password" or "refresh" grant, with retries."""
        self.logger.info("Requesting an access token with the %s grant.", grant)
        # The fields and headers of Envoy's guide for private apps: exactly these.
        if grant == "password":
            headers = {"Authorization": f"Basic {self._basic}"}
            form = {"username": self._username or "", "password": self._password or ""}
            form |= {"grant_type": "password", "scope": self.oauth_scopes or ""}
        else:
            headers = {}
            form = {"client_id": self.client_id or "", "client_secret": self.client_secret or ""}
            form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
        response = self._envoy_session.retry(partial(self._send, grant, headers, form), self.logger)
        payload = decode_json(response)
        if response.status_code in REFUSALS:
            raise self._refusal(grant, response.status_code, payload)
        token = payload.get("access_token") if isinstance(payload, dict) else None
        is_token = isinstance(token, str) and token.isascii() and token.isprintable()
        if not (response.ok and is_token and token):
            raise EnvoyError(f"{self._endpoint} {_description(response)}; check `token_url`.")
        return cast("dict[str, Any]", payload)

    def _send(
        self, grant: str, headers: Mapping[str, str], form: Mapping[str, str]
    ) -> requests.Response:
        """Send a grant once; raise `TransientError` if it may be sent again."""
        try:
            # On a new connection: the server may have closed one that has idled.
            with self._envoy_session.fresh() as session:
                response = session.post(
                    self.auth_endpoint,
                    headers=headers,
                    # Without file names, `files` makes the multipart/form-data of Envoy's guide.
                    files={name: (None, value) for name, value in form.items()},
                    auth=lambda request: request,  # keeps `requests` from reading .netrc
                    timeout=self._envoy_session.timeout,
                    allow_redirects=False,
                )
        except REQUEST_ERRORS as error:
            problem = connection_error(
                error,
                self.auth_endpoint,
                where="the token endpoint (`token_url`)",
                timeout=self._envoy_session.timeout,
            )
            lost = ResponseLostError | ResponseUnreadableError
            if grant == "refresh" and isinstance(problem, lost):
                # Refresh tokens are taken as single-use (inferred): this one may be spent.
                raise GrantRefusedError(f"{problem} The refresh token may be used up.") from None
            raise problem from None
        if is_retryable(response.status_code):
            raise TransientError(
                f"{self._endpoint} returned HTTP {response.status_code}.",
                status=response.status_code,
                retry_after=parse_retry_after(response),
            )
        return response

    def _refusal(self, grant: str, status: int, payload: Any) -> GrantRefusedError:
        """Return the error for a grant that Envoy rejected, with advice on the reason."""
        code = payload.get("error") if isinstance(payload, dict) else None
        code = code if isinstance(code, str) else ""
        advice = ADVICE.get(code, ADVICE[grant]).format(scopes=self.oauth_scopes)
        reason = excerpt(payload, self.secrets)
        return GrantRefusedError(
            f"Envoy rejected the {grant} grant (HTTP {status}){reason}; {advice}.", code=code
        )

    @property
    def _endpoint(self) -> str:
        return f"The token endpoint at {urlsplit(self.auth_endpoint).netloc}"


Authenticator = EnvoyApiKeyAuthenticator | EnvoyAuthenticator


def create_authenticator(
    config: Mapping[str, Any],
    needed_scopes: Iterable[str],
    session: EnvoySession,
    logger: logging.Logger,
) -> Authenticator:
    """Return an authenticator for the first complete set of credentials; it has not signed in.

    Args:
        config: The settings.
        needed_scopes: The scopes to ask for unless `scopes` is set.
        session: Sends the grants.
        logger: Receives lines about the token cache.
    """
    if api_key := config.get("api_key"):
        return EnvoyApiKeyAuthenticator(api_key)
    has_password = bool(config.get("username") and config.get("password"))
    cache = None
    if path := config.get("token_cache"):
        # Without a username, the refresh token identifies the user.
        user = config.get("username") or config.get("refresh_token", "")
        cache = TokenCache(path, config["token_url"], config["client_id"], user, logger=logger)
    elif not has_password:
        logger.warning(
            "Without `token_cache` the next run cannot sign in: Envoy replaces a refresh token "
            "when it is used, and the new one is not stored."
        )
    return EnvoyAuthenticator(
        token_url=config["token_url"],
        client_id=config["client_id"],
        client_secret=config["client_secret"],
        username=config["username"] if has_password else None,
        password=config["password"] if has_password else None,
        refresh_token=config.get("refresh_token"),
        # `token.refresh` grants refresh tokens.
        scopes=tuple(config.get("scopes") or ("token.refresh", *sorted(set(needed_scopes)))),
        session=session,
        token_cache=cache,
    )


def _in_thread(function: Callable[[], None]) -> None:
    """Call `function` in a thread that no signal interrupts, and which Python awaits at exit.

    So a stopped run stores a token that may replace a single-use one.
    """
    executor = ThreadPoolExecutor(1)
    try:
        executor.submit(function).result()
    finally:
        executor.shutdown(wait=False)


def _seconds(value: Any, documented: float) -> float:
    """Return a lifetime in seconds, or the documented one if it is missing or invalid."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < math.inf else documented


def _description(response: requests.Response) -> str:
    """Return what came instead of a token."""
    status = f"HTTP {response.status_code}"
    if "Location" in response.headers:
        where = redirect_host(response)
        return f"redirects to {where} ({status}), perhaps for single sign-on or a captive portal"
    if response.content.lstrip()[:1] == b"<":
        return f"returned a web page ({status}), perhaps of a proxy, a firewall or a captive portal"
    return f"returned {status} without an access token"
