"""Who we are: the Client API key, and access tokens by password and refresh grant."""

from __future__ import annotations

import math
import threading
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.errors import EnvoyError, RunEndedError
from tap_envoy.grants import GrantFailedError, TokenAddress
from tap_envoy.token_cache import TokenCache, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from tap_envoy.retry import Retry

ACCESS_TOKEN_LIFETIME = 24 * 3600.0
"""Seconds. Envoy guide for private apps."""

REFRESH_TOKEN_LIFETIME = 30 * 24 * 3600.0
"""Seconds. Envoy guide for private apps."""

LEEWAY = 300.0
"""Seconds before its end at which an access token is renewed, or a tenth of its lifetime."""

REFRESH_ADVICE = (
    "get a new one by a password grant (README, “Getting credentials”) and set `refresh_token`, "
    "or set `username` and `password`"
)


class ClientApiKey(APIKeyAuthenticator):
    """Puts the long-lived Client API Key on each request (Envoy guide for private apps)."""

    advice = "check `api_key` against the integration's page in Envoy's Dev Dashboard"

    def __init__(self, api_key: str) -> None:
        super().__init__(key="X-Api-Key", value=api_key, location="header")
        self.secrets = {api_key}

    def introduce(self) -> str:
        """Return a sentence that says who we are."""
        return "Signing in with the Client API Key (`api_key`)."

    def renew(self, _refused: requests.PreparedRequest) -> bool:
        """Tell whether a refused request may be sent again: a refused key stays refused."""
        return False


class EnvoyAuthenticator(OAuthAuthenticator):
    """Keeps one access token for a run: logs in once, renews early, follows each rotation.

    Safe to use from several threads. All times are in seconds, all moments in UTC.
    """

    advice = (
        "check that the API user is a Global Admin and that the integration is ready to be "
        "displayed"
    )

    def __init__(  # noqa: PLR0913  # one for each thing that Envoy's guide asks for
        self,
        *,
        token_url: str,
        client_id: str,
        client_secret: str,
        username: str | None,
        password: str | None,
        refresh_token: str | None,
        scopes: tuple[str, ...],
        session: requests.Session,
        timeout: float,
        retry: Retry,
        token_cache: TokenCache | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(
            auth_endpoint=token_url,
            # Envoy guide: comma-separated, although OAuth 2.0 itself has spaces.
            oauth_scopes=",".join(scopes),
            client_id=client_id,
            client_secret=client_secret,
        )
        self._username = username
        self._password = password
        self._address = TokenAddress(token_url, session, timeout)
        self._retry = retry
        self._cache = token_cache
        self._scopes = scopes
        self._now = now
        self._lock = threading.Lock()
        self._renew_at = 0.0
        self._refused: str | None = None
        self._shut: RunEndedError | None = None
        self.company_id: str | None = None
        self.refresh_token = refresh_token
        # A refresh token from the settings does not tell its age: it is tried.
        self._refresh_until: float | None = None
        self._basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self.secrets = {client_secret, password or "", refresh_token or "", self._basic}

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put a valid access token on `request`, getting one first if need be.

        Raises:
            RunEndedError: If no token is to be had; said again to whoever asks next.
        """
        with self._lock:
            if self._shut:
                raise RunEndedError(str(self._shut))
            if not self.is_token_valid():
                try:
                    self.update_access_token()
                except EnvoyError as error:
                    self._shut = RunEndedError(str(error))
                    raise self._shut from error
            request.headers["Authorization"] = f"Bearer {self.access_token}"
        return request

    def introduce(self) -> str:
        """Log in, and return a sentence that says who we are.

        Raises:
            EnvoyError: If no token is to be had.
        """
        with self._lock:
            self.update_access_token()
        return f"Signed in to company {self.company_id}." if self.company_id else "Signed in."

    def renew(self, refused: requests.PreparedRequest) -> bool:
        """Drop the token that `refused` carried, unless another thread has done so already."""
        with self._lock:
            if refused.headers.get("Authorization") == f"Bearer {self.access_token}":
                self._renew_at = 0.0
                self._refused = self.access_token
        return True

    @override
    def is_token_valid(self) -> bool:
        """Tell whether the access token lasts beyond the leeway."""
        return self._now().timestamp() < self._renew_at

    @override
    def update_access_token(self) -> None:
        """Get an access token from the cache, by the refresh grant, or by the password grant.

        Raises:
            EnvoyError: If no token is to be had; its text says which settings to look at.
        """
        if self._recall():
            return
        if self._cache:
            self._cache.check()
        refusal: GrantFailedError | None = None
        tried = set()
        while (token := self._usable_refresh_token) and token not in tried:
            tried.add(token)
            try:
                self._keep(self._grant("refresh"))
            except GrantFailedError as error:
                refusal, self.refresh_token = error, None
                # Another run may have used the token, and left a newer one.
                if self._recall():
                    return
            else:
                return
        self._log_in(refusal)

    def _log_in(self, refusal: GrantFailedError | None) -> None:
        """Get an access token by the password grant, after the refresh grant was of no use."""
        if self._password:
            if refusal:
                self.logger.warning("%s Logging in with the password instead.", refusal)
            self._keep(self._grant("password"))
        elif refusal:
            raise EnvoyError(f"{refusal} The refresh token cannot be used again: {REFRESH_ADVICE}.")
        else:
            raise EnvoyError(f"The refresh token is past its 30 days: {REFRESH_ADVICE}.")

    @property
    def _usable_refresh_token(self) -> str | None:
        until = self._refresh_until
        is_over = until is not None and self._now().timestamp() >= until
        return None if is_over else self.refresh_token

    def _recall(self) -> bool:
        """Take over what the cache has; returns whether that is an access token to go on with."""
        tokens = self._cache.read() if self._cache else None
        if tokens is None:
            return False
        if self._password and not set(self._scopes) <= set(tokens.scopes or self._scopes):
            return False  # they were granted for less than is wanted now
        self._hide(tokens.access_token, tokens.refresh_token)
        if tokens.refresh_token:
            self.refresh_token = tokens.refresh_token
            self._refresh_until = tokens.refresh_until
        if tokens.access_token and tokens.access_token != self._refused:
            self.access_token = tokens.access_token
            self._renew_at = tokens.renew_at
        return self.is_token_valid()

    def _hide(self, *tokens: str | None) -> None:
        """Add secrets that no error may show; in a new set, for threads may be reading the old."""
        self.secrets = self.secrets | {token or "" for token in tokens}

    @property
    @override
    def oauth_request_body(self) -> dict[str, str]:
        """The form of the password grant (Envoy guide for private apps): these fields, no more."""
        return {
            "grant_type": "password",
            "username": self._username or "",
            "password": self._password or "",
            "scope": self.oauth_scopes or "",
        }

    @property
    def refresh_request_body(self) -> dict[str, str]:
        """The form of the refresh grant (Envoy guide for private apps): these fields, no more."""
        return {
            "grant_type": "refresh_token",
            "refresh_token": self.refresh_token or "",
            "client_id": self.client_id or "",
            "client_secret": self.client_secret or "",
        }

    def _grant(self, grant: str) -> dict[str, Any]:
        """Ask for a token, patiently; a few times only, for the run cannot begin without."""
        self.logger.info("Getting an access token by the %s grant.", grant)
        form, headers = self.refresh_request_body, {}
        if grant == "password":
            form, headers = self.oauth_request_body, {"Authorization": f"Basic {self._basic}"}
        return self._retry.call(
            lambda: self._address.ask(grant, form, headers, self.secrets), self.logger
        )

    def _keep(self, answer: Mapping[str, Any]) -> None:
        """Take over the tokens of an answer; the refresh token is only replaced, never lost.

        Raises:
            RunEndedError: If they cannot be kept in the cache; then they are not used either.
        """
        now = self._now()
        lifetime = _seconds(answer.get("expires_in"), ACCESS_TOKEN_LIFETIME)
        self.access_token = answer["access_token"]
        self.expires_in = int(lifetime)
        self.last_refreshed = now
        self._renew_at = now.timestamp() + lifetime - min(LEEWAY, lifetime / 10)
        company = answer.get("company_id")
        self.company_id = company if isinstance(company, str) and company.isalnum() else None
        refresh_token = answer.get("refresh_token")
        if isinstance(refresh_token, str) and refresh_token:
            self.refresh_token = refresh_token
            self._refresh_until = now.timestamp() + _seconds(
                answer.get("refresh_token_expires_in"), REFRESH_TOKEN_LIFETIME
            )
        self._hide(self.access_token, self.refresh_token)
        if self._cache:
            self._cache.write(
                Tokens(
                    self.access_token,
                    self._renew_at,
                    self.refresh_token,
                    self._refresh_until,
                    self._scopes if self._password else None,
                )
            )


def _seconds(value: Any, documented: float) -> float:
    """Return a lifetime in seconds; the documented one if it is missing, null or odd."""
    try:
        seconds = documented if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return documented
    return seconds if 0 < seconds < math.inf else documented
