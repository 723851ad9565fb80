"""Who we are: the Client API key, and access tokens by password and refresh grant."""

from __future__ import annotations

import math
import threading
from base64 import b64encode
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.errors import (
    REQUEST_ERRORS,
    EnvoyError,
    LostAnswerError,
    RunEndedError,
    TransientError,
    decoded,
    out_of_reach,
    quote,
)

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

    def renew(self, _refused: requests.PreparedRequest) -> bool:
        """Tell whether a refused request may be sent again: a refused key stays refused."""
        return False


class GrantFailedError(EnvoyError):
    """A grant was refused, or its answer was lost: sending it again is no use."""


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
        self._session = session
        self._timeout = timeout
        self._retry = retry
        self._now = now
        self._lock = threading.Lock()
        self._renew_at = 0.0
        self._shut: RunEndedError | None = None
        self.refresh_token = refresh_token
        # A refresh token from the settings does not tell its age: it is tried.
        self._refresh_until = math.inf
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

    def renew(self, refused: requests.PreparedRequest) -> bool:
        """Drop the token that `refused` carried, unless another thread has done so already."""
        with self._lock:
            if refused.headers.get("Authorization") == f"Bearer {self.access_token}":
                self._renew_at = 0.0
        return True

    @override
    def is_token_valid(self) -> bool:
        """Tell whether the access token lasts beyond the leeway."""
        return self._now().timestamp() < self._renew_at

    @override
    def update_access_token(self) -> None:
        """Get an access token by the refresh grant where possible, else by the password grant.

        Raises:
            EnvoyError: If no token is to be had; its text says which settings to look at.
        """
        if self.refresh_token and self._now().timestamp() < self._refresh_until:
            try:
                self._keep(self._grant("refresh"))
            except GrantFailedError as error:
                self.refresh_token = None
                if not self._password:
                    raise EnvoyError(
                        f"{error} The refresh token cannot be used again: {REFRESH_ADVICE}."
                    ) from None
                self.logger.warning("%s Logging in with the password instead.", error)
            else:
                return
        if not self._password:
            raise EnvoyError(f"The refresh token is past its 30 days: {REFRESH_ADVICE}.")
        self._keep(self._grant("password"))

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
        """Ask for a token, patiently; a few times only, for the run cannot begin without.

        Args:
            grant: "password" or "refresh".

        Returns:
            The answer, which has an `access_token` that is a string.

        Raises:
            GrantFailedError: If the grant is not to be sent again.
            EnvoyError: If the token address does not answer as documented, or not at all.
        """
        self.logger.info("Getting an access token by the %s grant.", grant)
        return self._retry.call(lambda: self._ask(grant), self.logger)

    def _ask(self, grant: str) -> dict[str, Any]:
        headers = {}
        form = self.refresh_request_body
        if grant == "password":
            headers["Authorization"] = f"Basic {self._basic}"
            form = self.oauth_request_body
        try:
            response = self._session.post(
                self.auth_endpoint,
                headers=headers,
                # As multipart/form-data, which is how the guide has it; no file names.
                files={name: (None, value) for name, value in form.items()},
                auth=_as_it_is,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except REQUEST_ERRORS as error:
            problem = out_of_reach(
                error, where="the token address (`token_url`)", timeout=self._timeout
            )
            if grant == "refresh" and isinstance(problem, LostAnswerError):
                # Refresh tokens are taken as rotating: this one may be spent. (inferred)
                raise GrantFailedError(str(problem)) from None
            raise problem from None
        return self._judge(grant, response)

    def _judge(self, grant: str, response: requests.Response) -> dict[str, Any]:
        status = response.status_code
        payload = decoded(response)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TransientError(f"The token address answered HTTP {status}.")
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            # A body that is not a JSON object is not shown: it may repeat what it was sent.
            body = payload if isinstance(payload, dict) else None
            said = quote(body, ("error", "error_description"), self.secrets)
            settings = "`client_id`, `client_secret` and `refresh_token`"
            if grant == "password":
                settings = "`username`, `password`, `client_id`, `client_secret` and `scopes`"
            raise GrantFailedError(
                f"Envoy refused the {grant} grant (HTTP {status}){said}; check {settings}."
            )
        if status != HTTPStatus.OK:
            raise EnvoyError(
                f"The token address answered HTTP {status}, which is no token; check `token_url`."
            )
        token = payload.get("access_token") if isinstance(payload, dict) else None
        if not isinstance(token, str) or not (token and token.isascii() and token.isprintable()):
            raise EnvoyError(
                "The token address answered without an access token; check `token_url`."
            )
        return cast("dict[str, Any]", payload)

    def _keep(self, answer: Mapping[str, Any]) -> None:
        """Take over the tokens of an answer; the refresh token is only replaced, never lost."""
        now = self._now()
        lifetime = _seconds(answer.get("expires_in"), ACCESS_TOKEN_LIFETIME)
        self.access_token = answer["access_token"]
        self.expires_in = int(lifetime)
        self.last_refreshed = now
        self._renew_at = now.timestamp() + lifetime - min(LEEWAY, lifetime / 10)
        refresh_token = answer.get("refresh_token")
        if isinstance(refresh_token, str) and refresh_token:
            self.refresh_token = refresh_token
            self._refresh_until = now.timestamp() + _seconds(
                answer.get("refresh_token_expires_in"), REFRESH_TOKEN_LIFETIME
            )
        self.secrets |= {self.access_token or "", self.refresh_token or ""}


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the request alone; given as `auth`, it keeps `requests` from reading .netrc."""
    return request


def _seconds(value: Any, documented: float) -> float:
    """Return a lifetime in seconds; the documented one if it is missing, null or odd."""
    try:
        seconds = documented if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return documented
    return seconds if 0 < seconds < math.inf else documented
