"""Authentication: Client API key, and OAuth password and refresh grants."""

from __future__ import annotations

import logging
import math
import threading
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.exceptions import (
    REQUEST_ERRORS,
    EnvoyError,
    ResponseLostError,
    RunAbortedError,
    TransientError,
    connection_error,
    decode_json,
    excerpt,
    is_retryable,
)
from tap_envoy.http import parse_retry_after
from tap_envoy.token_cache import CachedToken, NullTokenCache

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import requests

    from tap_envoy.http import EnvoySession, RetryPolicy
    from tap_envoy.token_cache import TokenCache

ACCESS_TOKEN_LIFETIME = 24 * 3600.0
"""Seconds (Envoy guide for private apps), where a token response does not say."""

REFRESH_TOKEN_LIFETIME = 30 * 24 * 3600.0
"""Seconds (Envoy guide for private apps), where a token response does not say."""

EXPIRY_MARGIN = 300.0
"""Seconds before its end at which an access token is renewed, or a tenth of its lifetime."""

MAX_COMPANY_ID = 20
"""Characters of a company's id; a longer text may be a token."""

MAX_RESENDS = 3
"""How often a request is sent again after its access token was rejected."""

REFUSAL_STATUSES = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""What the token endpoint returns for wrong credentials: 401 in clients, the rest inferred."""

ADVICE = {
    ("", "invalid_client"): "check `client_id` and `client_secret`",
    ("", "unauthorized_client"): "check `client_id` and `client_secret`",
    ("", "invalid_scope"): (
        "requested scopes: {scopes}; add the missing ones to the integration in Envoy's Dev "
        "Dashboard, or set `scopes`"
    ),
    ("", "mfa_required"): (
        "the API user must be able to sign in without multi-factor authentication"
    ),
    ("password", "invalid_grant"): (
        "check `username` and `password`; the API user must be able to sign in with a password, "
        "without single sign-on"
    ),
    ("refresh", "invalid_grant"): "check `refresh_token`",
    ("password", ""): "check `username`, `password`, `client_id`, `client_secret` and `scopes`",
    ("refresh", ""): "check `client_id`, `client_secret` and `refresh_token`",
}
"""What to do, by grant and by OAuth's name of the reason; empty for any other."""

WEB_PAGE = "the response is a web page, perhaps of a proxy, a firewall or a captive portal"

REFRESH_ADVICE = (
    "To replace the refresh token, get a new one by a password grant (README, “Getting "
    "credentials”) and set `refresh_token`, or set `username` and `password`."
)


class GrantRefusedError(EnvoyError):
    """Raised when a grant was rejected, or its response was lost: it must not be sent again.

    Attributes:
        code: OAuth's name of the reason, such as `invalid_scope`, or an empty string.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class EnvoyApiKeyAuthenticator(APIKeyAuthenticator):
    """Adds the long-lived Client API Key to each request (Envoy guide for private apps)."""

    advice = "check `api_key` against the integration's page in Envoy's Dev Dashboard"

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

    Thread-safe. Durations are in seconds, times in UTC.

    Attributes:
        secrets: What no message may contain; grows with each new token.
        advice: What to do if Envoy rejects a new access token.
        company_id: The company of the token response, or None.
    """

    advice = (
        "check that the API user is a Global Admin and that the integration is ready to be "
        "displayed"
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
        timeout: float,
        retry_policy: RetryPolicy,
        token_cache: TokenCache | NullTokenCache | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(
            auth_endpoint=token_url,
            # Envoy guide: separated by commas, although OAuth 2.0 itself uses spaces.
            oauth_scopes=",".join(scopes),
            client_id=client_id,
            client_secret=client_secret,
        )
        self.logger = logging.getLogger(__name__)
        self._endpoint = TokenEndpoint(token_url, session, timeout)
        self._username = username
        self._password = password
        self._scopes = scopes
        self._retry_policy = retry_policy
        self._cache = token_cache or NullTokenCache()
        self._now = now
        self._lock = threading.Lock()
        self._renew_at = 0.0
        self._refresh_until: float | None = None
        self._configured_refresh_token = refresh_token
        self._rejected_token: str | None = None
        self._failure: RunAbortedError | None = None
        self._basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self.company_id: str | None = None
        self.secrets: set[str] = set()
        self._add_secrets(client_secret, password, refresh_token, self._basic)

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add a valid access token to `request`, after getting one if necessary.

        Raises:
            RunAbortedError: If no token can be obtained; the same in all later calls.
        """
        with self._lock:
            if self._failure:
                raise RunAbortedError(str(self._failure))
            if not self.is_token_valid():
                try:
                    self.update_access_token()
                except EnvoyError as error:
                    self._failure = RunAbortedError(str(error))
                    raise self._failure from error
            request.headers["Authorization"] = f"Bearer {self.access_token}"
        return request

    def sign_in(self) -> str:
        """Get a valid access token; return a sentence that names the company.

        Raises:
            GrantRefusedError: If the grants were rejected.
            EnvoyError: If no token can be obtained for another reason.
        """
        with self._lock:
            self.update_access_token()
        return f"Signed in to company {self.company_id}." if self.company_id else "Signed in."

    def invalidate(self, request: requests.PreparedRequest, *, resends: int = 0) -> bool:
        """Stop using the access token that was rejected with `request`.

        Args:
            request: The rejected request.
            resends: How often it was sent again already.

        Returns:
            Whether to send it again: at most three times, and not if its token is the one that
            replaced a rejected one and is still in use.
        """
        with self._lock:
            token = self.access_token
            if request.headers.get("Authorization") != f"Bearer {token}":
                return resends < MAX_RESENDS  # another thread has renewed it
            if resends:
                return False
            self._renew_at = 0.0
            self._rejected_token = token
            return True

    @override
    def is_token_valid(self) -> bool:
        """Return whether the access token need not be renewed yet."""
        return self._timestamp < self._renew_at

    @property
    def _timestamp(self) -> float:
        """The present time in seconds since 1970."""
        return self._now().timestamp()

    @override
    def update_access_token(self) -> None:
        """Use the cached token, else the refresh grant, else the password grant.

        Raises:
            EnvoyError: If no token can be obtained; its text names the settings to check.
        """
        with self._cache.locked():  # other runs wait here, and then use what this one stored
            if self._use_cached():
                return
            self._cache.ensure_writable()  # before a single-use token is spent
            refusal = None
            for token in self._refresh_tokens():
                self.refresh_token = token
                try:
                    self._store(self._request_token("refresh"))
                except GrantRefusedError as error:
                    refusal, self.refresh_token = error, None
                else:
                    return
            if not self._password:
                reason = refusal or GrantRefusedError("The refresh token has expired.")
                raise GrantRefusedError(f"{reason} {REFRESH_ADVICE}", code=reason.code)
            if refusal:
                self.logger.warning("%s Using the password grant instead.", refusal)
            self._store(self._request_token("password"))

    def _refresh_tokens(self) -> list[str]:
        """Return the refresh tokens to try: the newest, then, once, the configured one."""
        is_expired = self._refresh_until is not None and self._timestamp >= self._refresh_until
        newest = None if is_expired else self.refresh_token
        configured, self._configured_refresh_token = self._configured_refresh_token, None
        return list(dict.fromkeys(token for token in (newest, configured) if token))

    def _use_cached(self) -> bool:
        """Load tokens from the cache; return whether the access token is still valid."""
        cached = self._cache.load()
        if cached is None:
            return False
        if self._password and not set(self._scopes) <= set(cached.scopes or self._scopes):
            return False  # granted for fewer scopes than this run needs
        self._add_secrets(cached.access_token, cached.refresh_token)
        if cached.refresh_token:
            self.refresh_token = cached.refresh_token
            self._refresh_until = cached.refresh_until
        if cached.access_token and cached.access_token != self._rejected_token:
            self.access_token = cached.access_token
            self._renew_at = cached.renew_at
        return self.is_token_valid()

    def _add_secrets(self, *tokens: str | None) -> None:
        """Add to `secrets`; in a new set, because other threads may be reading the old one."""
        self.secrets = self.secrets | {token for token in tokens if token}

    @property
    @override
    def oauth_request_body(self) -> dict[str, str]:
        """The form of the password grant (Envoy guide for private apps): exactly these fields."""
        return {
            "grant_type": "password",
            "username": self._username or "",
            "password": self._password or "",
            "scope": self.oauth_scopes or "",
        }

    @property
    def refresh_request_body(self) -> dict[str, str]:
        """The form of the refresh grant (Envoy guide for private apps): exactly these fields."""
        return {
            "grant_type": "refresh_token",
            "refresh_token": self.refresh_token or "",
            "client_id": self.client_id or "",
            "client_secret": self.client_secret or "",
        }

    def _request_token(self, grant: str) -> dict[str, Any]:
        """Return the response to a "password" or "refresh" grant."""
        self.logger.info("Requesting an access token with the %s grant.", grant)
        form, headers = self.refresh_request_body, {}
        if grant == "password":
            form, headers = self.oauth_request_body, {"Authorization": f"Basic {self._basic}"}
        retry = self._retry_policy.decorator(self.logger, self._endpoint.session.rate_limiter)
        return retry(self._endpoint.request)(Grant(grant, form, headers), self.secrets)

    def _store(self, response: Mapping[str, Any]) -> None:
        """Use the tokens of a response, once they are in the cache."""
        now = self._now()
        lifetime = _seconds(response.get("expires_in"), ACCESS_TOKEN_LIFETIME)
        company = response.get("company_id")
        is_id = isinstance(company, str) and company.isalnum() and len(company) <= MAX_COMPANY_ID
        self.company_id = company if is_id else None
        refresh_token = response.get("refresh_token")
        if isinstance(refresh_token, str) and refresh_token:
            self.refresh_token = refresh_token
            self._refresh_until = now.timestamp() + _seconds(
                response.get("refresh_token_expires_in"), REFRESH_TOKEN_LIFETIME
            )
        self._add_secrets(response["access_token"], self.refresh_token)
        renew_at = now.timestamp() + lifetime - min(EXPIRY_MARGIN, lifetime / 10)
        self._cache.store(
            CachedToken(
                response["access_token"],
                renew_at,
                self.refresh_token,
                self._refresh_until,
                self._scopes if self._password else None,
            )
        )
        self.access_token = response["access_token"]
        self.expires_in = int(lifetime)
        self.last_refreshed = now
        self._renew_at = renew_at


def _seconds(value: Any, documented: float) -> float:
    """Return a lifetime in seconds, or the documented one if it is missing or invalid."""
    try:
        seconds = documented if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return documented
    return seconds if 0 < seconds < math.inf else documented


@dataclass(frozen=True, slots=True)
class Grant:
    """A request for a token.

    Attributes:
        name: "password" or "refresh".
        form: Its fields.
        headers: Its headers.
    """

    name: str
    form: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Requests to the token endpoint.

    Attributes:
        url: Its URL (`token_url`).
        session: Sends the requests.
        timeout: Read timeout in seconds.
    """

    url: str
    session: EnvoySession
    timeout: float

    def request(self, grant: Grant, secrets: Collection[str]) -> dict[str, Any]:
        """Send a grant once; return the decoded response, whose `access_token` is a string.

        Args:
            grant: What to send.
            secrets: Strings to redact.

        Raises:
            GrantRefusedError: If the grant must not be sent again.
            TransientError: If it may succeed later.
            EnvoyError: If the response is not as documented.
        """
        try:
            response = self.session.post(
                self.url,
                headers=grant.headers,
                # Without file names, `files` makes the multipart/form-data of Envoy's guide.
                files={name: (None, value) for name, value in grant.form.items()},
                auth=_unchanged,
                timeout=self.timeout,
                allow_redirects=False,
            )
        except REQUEST_ERRORS as error:
            problem = connection_error(
                error, where="the token endpoint (`token_url`)", timeout=self.timeout
            )
            if grant.name == "refresh" and isinstance(problem, ResponseLostError):
                # Refresh tokens are taken as single-use (inferred): this one may be spent.
                raise GrantRefusedError(f"{problem} The refresh token may be used up.") from None
            raise problem from None
        return self._validate(grant, response, secrets)

    def _validate(
        self, grant: Grant, response: requests.Response, secrets: Collection[str]
    ) -> dict[str, Any]:
        """Return the decoded response if it has a token, else raise."""
        status, payload = response.status_code, decode_json(response)
        if is_retryable(status):
            raise TransientError(
                f"{self._name} returned HTTP {status}.",
                retry_after=parse_retry_after(response),
                status=status,
            )
        if status in REFUSAL_STATUSES:
            raise _refusal(grant, response, payload, secrets)
        token = payload.get("access_token") if isinstance(payload, dict) else None
        is_token = isinstance(token, str) and token.isascii() and token.isprintable()
        if not (response.ok and token and is_token):
            raise EnvoyError(f"{self._name} {_description(response)}; check `token_url`.")
        return cast("dict[str, Any]", payload)

    @property
    def _name(self) -> str:
        return f"The token endpoint at {urlsplit(self.url).netloc}"


def _refusal(
    grant: Grant, response: requests.Response, payload: Any, secrets: Collection[str]
) -> GrantRefusedError:
    """Return the error for a grant that Envoy rejected, with advice on the reason."""
    # A body that is not a JSON object is not quoted: it may repeat what it was sent.
    body = payload if isinstance(payload, dict) else {}
    code = body["error"] if isinstance(body.get("error"), str) else ""
    advice = ADVICE.get((grant.name, code)) or ADVICE.get(("", code)) or ADVICE[grant.name, ""]
    if _is_web_page(response):
        advice = f"{WEB_PAGE}; {advice}"
    reason = excerpt(body, ("error", "error_description"), secrets)
    return GrantRefusedError(
        f"Envoy rejected the {grant.name} grant (HTTP {response.status_code}){reason}; "
        f"{advice.format(scopes=grant.form.get('scope', 'see `scopes`'))}.",
        code=code,
    )


def _description(response: requests.Response) -> str:
    """Return what came instead of a token."""
    status = response.status_code
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return (
            f"redirects to another page (HTTP {status}) instead of returning a token, perhaps for "
            "single sign-on or a captive portal"
        )
    if _is_web_page(response):
        return f"returned HTTP {status} without a token: {WEB_PAGE}"
    if response.ok:
        return f"returned HTTP {status} without an access token"
    return f"returned HTTP {status} instead of a token"


def _is_web_page(response: requests.Response) -> bool:
    return response.content.lstrip()[:1] == b"<"


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request; passed as `auth`, it keeps `requests` from reading .netrc."""
    return request
