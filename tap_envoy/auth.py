"""Authentication: Client API key, and OAuth password and refresh grants."""

from __future__ import annotations

import logging
import re
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.exceptions import (
    REQUEST_ERRORS,
    EnvoyError,
    GrantRefusedError,
    NoConnectionError,
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

LIFETIME = 24 * 3600.0
"""Seconds for which an access token is valid if Envoy does not say (guide for private apps)."""

EXPIRY_MARGIN = 300.0
"""Seconds before its end at which an access token is renewed, or a tenth of its lifetime."""

ENDPOINT = "the token endpoint (`token_url`)"

ADVICE = {
    "invalid_client": "check `client_id` and `client_secret`",
    "password invalid_grant": (
        "check `username` and `password` (no quotes around it); the API user must be able to sign "
        "in with a password, without single sign-on"
    ),
    "password invalid_scope": (
        "requested scopes: {scopes}; add the missing ones to the integration in Envoy's Dev "
        "Dashboard, or set `scopes`"
    ),
    "password": "check `client_id`, `client_secret`, `username` and `password`",
    "refresh invalid_grant": "check `refresh_token`",
    "refresh": "check `client_id`, `client_secret` and `refresh_token`",
}
"""What to do after a rejected grant, by OAuth's error code (RFC 6749, 5.2) and by the grant."""

HOW_TO_REPLACE = (
    "To replace the refresh token, get a new one by a password grant (README, “Getting "
    "credentials”) and set `refresh_token`, or set `username` and `password`."
)


class EnvoyApiKeyAuthenticator(APIKeyAuthenticator):
    """Adds the long-lived Client API Key to each request (Envoy guide for private apps)."""

    advice = "check `api_key` against the integration's page in Envoy's Dev Dashboard"
    scope_advice = ""

    def __init__(self, api_key: str) -> None:
        super().__init__(key="X-Api-Key", value=api_key)
        self.secrets = {api_key}

    def sign_in(self) -> str:
        """Return a sentence that names the authentication method."""
        return "Signing in with the Client API Key (`api_key`)."

    def covers(self, _scopes: Iterable[str]) -> bool:
        """Return True: a key has all scopes of its integration."""
        return True

    def invalidate(self, _request: requests.PreparedRequest, *, resends: int = 0) -> bool:  # noqa: ARG002
        """Return False: a rejected key stays rejected."""
        return False


class EnvoyAuthenticator(OAuthAuthenticator):
    """OAuth authenticator shared by all streams; renews early and stores rotated refresh tokens.

    Safe to use from several threads. Settings without a password have a refresh token.

    Attributes:
        secrets: What no message may contain; grows with each new token.
        advice: What to do if Envoy rejects a new access token.
        scope_advice: What else to do if it lacks a scope.
    """

    advice = (
        "check that the API user is a Global Admin and that the integration is ready to be "
        "displayed"
    )
    scope_advice = (
        " (and to `scopes`, if set; a refresh token keeps the scopes that it was granted with), "
        "and check that the API user is a Global Admin"
    )

    def __init__(
        self,
        config: Mapping[str, Any],
        scopes: Iterable[str],
        session: EnvoySession,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._scopes = tuple(scopes)
        super().__init__(
            auth_endpoint=config["token_url"],
            oauth_scopes=",".join(self._scopes),  # Envoy's guide; spaces in OAuth 2.0 itself
            client_id=config["client_id"],
            client_secret=config["client_secret"],
        )
        self.logger = logging.getLogger(__name__)
        self._username = config.get("username", "")
        self._password = config.get("password", "") if self._username else ""
        self._configured_refresh_token = config.get("refresh_token", "")
        self._basic = b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        secrets = {self._basic, config["client_secret"], self._password}
        self.secrets = (secrets | {self._configured_refresh_token}) - {""}
        self._envoy_session = session
        self._now = now
        # A thread that no signal interrupts, and which Python awaits at exit: a stopped run stores
        # a token that may replace a single-use one. All other threads wait for it.
        self._executor = ThreadPoolExecutor(1)
        self._token = Token()
        self._rejected: set[str] = set()
        self._failure: RunAbortedError | None = None
        self._cache: TokenCache | None = None
        if path := config.get("token_cache"):
            # Without a username, the refresh token identifies the user.
            user = self._username or self._configured_refresh_token
            owner = (self.auth_endpoint, config["client_id"], user)
            self._cache = TokenCache(path, *owner, logger=self.logger)
        elif not self._password:
            self.logger.warning(
                "Without `token_cache` the next run cannot sign in: Envoy replaces a refresh token "
                "when it is used, and the new one is not stored."
            )

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add a valid access token to `request`, after getting one if necessary.

        Raises:
            RunAbortedError: If no token can be obtained; the same in all later calls.
        """
        if not self.is_token_valid():
            self.sign_in()
        request.headers["Authorization"] = self._authorization
        return request

    def sign_in(self) -> str:
        """Get a valid access token, once for all threads; return a sentence about it.

        Raises:
            RunAbortedError: If no token can be obtained; the same in all later calls.
        """
        self._executor.submit(self._sign_in).result()
        return "Signed in."

    def _sign_in(self) -> None:
        if not self._failure and not self.is_token_valid():
            try:
                self.update_access_token()
            except EnvoyError as error:
                self._failure = RunAbortedError(str(error))
        if self._failure:
            raise self._failure

    def covers(self, scopes: Iterable[str]) -> bool:
        """Return whether a token has these scopes, as far as that is known."""
        return not self._password or set(scopes) <= set(self._scopes)

    def invalidate(self, request: requests.PreparedRequest, *, resends: int = 0) -> bool:
        """Return whether to send a request again whose access token was rejected: once.

        The token is not used again, unless it replaced another one in this request.
        """
        if not resends:
            self._rejected.add(request.headers["Authorization"])
        return not resends

    @property
    def _authorization(self) -> str:
        return f"Bearer {self._token.access_token}"

    @override
    def is_token_valid(self) -> bool:
        """Return whether the access token need not be renewed yet."""
        return self._authorization not in self._rejected and self._now() < self._token.renew_at

    @override
    def update_access_token(self) -> None:
        """Use the cached token, else the refresh grant, else the password grant.

        Raises:
            EnvoyError: If no token can be obtained; its text names the settings to check.
        """
        with self._cache.locked() if self._cache else nullcontext():  # other runs wait for it
            if self._cache:
                cached = self._cache.load()
                if cached and set(self._scopes) <= set(cached.scopes or self._scopes):
                    self._use(cached)
                if self.is_token_valid():
                    return
                self._cache.ensure_writable()  # before a single-use token is spent
            refusal = None
            newest_first = (self._token.refresh_token, self._configured_refresh_token)
            for refresh_token in dict.fromkeys(filter(None, newest_first)):
                try:
                    response = self._refresh_grant(refresh_token)
                except GrantRefusedError as error:
                    refusal = error
                else:
                    self._store(response, refresh_token)
                    return
            if not self._password:
                raise GrantRefusedError(f"{refusal} {HOW_TO_REPLACE}")
            if refusal:
                self.logger.warning("%s Using the password grant instead.", refusal)
            self._store(self._password_grant())

    def _store(self, response: Mapping[str, Any], refresh_token: str = "") -> None:
        """Use the tokens of a response, and put them into the cache."""
        lifetime, newest = response.get("expires_in"), response.get("refresh_token")
        seconds = lifetime if isinstance(lifetime, int | float) and lifetime > 0 else LIFETIME
        token = Token(
            access_token=response["access_token"],
            renew_at=self._now() + seconds - min(EXPIRY_MARGIN, seconds / 10),
            refresh_token=newest if newest and isinstance(newest, str) else refresh_token,
            scopes=self._scopes if self._password else (),
        )
        if self._cache:
            self._cache.store(token)
        self._configured_refresh_token = ""
        self._use(token)

    def _use(self, token: Token) -> None:
        # A new set: other threads may be reading the old one.
        self.secrets = self.secrets | {token.access_token, token.refresh_token} - {""}
        self._token = token

    # Grants, with exactly the fields and headers of Envoy's guide for private apps

    def _password_grant(self) -> dict[str, Any]:
        form = {"grant_type": "password", "scope": self.oauth_scopes or ""}
        form |= {"username": self._username, "password": self._password}
        return self._request("password", form, {"Authorization": f"Basic {self._basic}"})

    def _refresh_grant(self, refresh_token: str) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        form |= {"client_id": self.client_id or "", "client_secret": self.client_secret or ""}
        return self._request("refresh", form, {})

    def _request(self, grant: str, form: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        """Return the response to a grant, with retries.

        Raises:
            GrantRefusedError: If it was rejected, or must not be sent again.
            EnvoyError: If there is no token for another reason.
        """
        self.logger.info("Requesting an access token with the %s grant.", grant)
        response = self._envoy_session.retry(partial(self._send, grant, form, headers), self.logger)
        payload, status = decode_json(response), response.status_code
        payload = payload if isinstance(payload, dict) else {}
        if status in {400, 401, 403} and payload:  # only 401 was seen (inferred)
            code = str(payload.get("error", ""))
            advice = ADVICE.get(f"{grant} {code}") or ADVICE.get(code) or ADVICE[grant]
            raise GrantRefusedError(
                f"Envoy rejected the {grant} grant (HTTP {status})"
                f"{excerpt(payload, self.secrets)}; {advice.format(scopes=self.oauth_scopes)}."
            )
        token = payload.get("access_token")
        if response.ok and isinstance(token, str) and re.fullmatch("[!-~]+", token):
            return payload
        is_redirect = "Location" in response.headers
        what = f"a redirect to {redirect_host(response)}" if is_redirect else "no access token"
        raise EnvoyError(
            f"{ENDPOINT.capitalize()} returned {what} (HTTP {status}); check that setting, and "
            "for a proxy or captive portal in between."
        )

    def _send(self, grant: str, form: dict[str, str], headers: dict[str, str]) -> requests.Response:
        """Send a grant once; raise `TransientError` if it may be sent again."""
        url, timeout = self.auth_endpoint, self._envoy_session.timeout
        fields = {name: (None, value) for name, value in form.items()}  # multipart/form-data
        try:
            with self._envoy_session.fresh() as session:
                response = session.post(url, files=fields, headers=headers, timeout=timeout)
        except REQUEST_ERRORS as error:
            problem = connection_error(error, url, ENDPOINT)
            was_sent = not isinstance(problem, NoConnectionError | RunAbortedError)
            if grant == "refresh" and was_sent:
                # Refresh tokens are taken as single-use (inferred): this one may be spent.
                raise GrantRefusedError(f"{problem} The refresh token may be used up.") from None
            raise problem from None
        if is_retryable(response.status_code):
            raise TransientError(
                f"{ENDPOINT.capitalize()} returned HTTP {response.status_code}.",
                status=response.status_code,
                retry_after=parse_retry_after(response),
            )
        return response


Authenticator = EnvoyApiKeyAuthenticator | EnvoyAuthenticator


def create_authenticator(
    config: Mapping[str, Any], needed_scopes: Iterable[str], session: EnvoySession
) -> Authenticator:
    """Return an authenticator for the first complete set of credentials; it has not signed in.

    A password grant asks for `needed_scopes` unless the setting `scopes` says otherwise.
    """
    if api_key := config.get("api_key"):
        return EnvoyApiKeyAuthenticator(api_key)
    # `token.refresh` grants refresh tokens.
    scopes = config.get("scopes") or ["token.refresh", *sorted(set(needed_scopes))]
    return EnvoyAuthenticator(config, scopes, session)
