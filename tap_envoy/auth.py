"""Authentication: Client API key, and OAuth password and refresh grants."""

from __future__ import annotations

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from singer_sdk.authenticators import APIKeyAuthenticator, OAuthAuthenticator
from typing_extensions import override

from tap_envoy.exceptions import (
    EnvoyError,
    GrantRefusedError,
    NoConnectionError,
    RunAbortedError,
    TransientError,
    decode_json,
    excerpt,
    is_retryable,
    redirect,
)
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

    def invalidate(self, _request: requests.PreparedRequest) -> bool:
        """Return False: a rejected key stays rejected."""
        return False


class EnvoyAuthenticator(OAuthAuthenticator):
    """OAuth authenticator shared by all streams; renews early and stores rotated refresh tokens.

    Safe to use from several threads. Settings without a password have a refresh token.
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
        self._client = {name: config[name] for name in ("client_id", "client_secret")}
        super().__init__(
            auth_endpoint=config["token_url"],
            oauth_scopes=",".join(self._scopes),  # Envoy's guide; spaces in OAuth 2.0 itself
            **self._client,
        )
        self.logger = logging.getLogger(__name__)
        self._username = config.get("username", "")
        self._password = config.get("password", "") if self._username else ""
        self._configured_refresh_token = config.get("refresh_token", "")
        self._envoy_session = session
        self._now = now
        self.secrets = {config["client_secret"], self._password, self._configured_refresh_token}
        # A thread that no signal interrupts, and which Python awaits at exit: a stopped run stores
        # a token that may replace a single-use one. All other threads wait for it.
        self._executor = ThreadPoolExecutor(1)
        self._token = Token()
        self._rejected: set[str] = set()
        self._failure: RunAbortedError | None = None
        self._cache = self._create_cache(config.get("token_cache"))

    def _create_cache(self, path: str | None) -> TokenCache | None:
        if path:
            # Without a username, the refresh token identifies the user.
            user = self._username or self._configured_refresh_token
            return TokenCache(path, self.auth_endpoint, self._client["client_id"], user)
        if not self._password:
            self.logger.warning(
                "Without `token_cache` the next run cannot sign in: Envoy replaces a refresh token "
                "when it is used, and the new one is not stored."
            )
        return None

    @override
    def authenticate_request(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add a valid access token to `request`, after getting one if necessary."""
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

    def invalidate(self, request: requests.PreparedRequest) -> bool:
        """Return True: a request whose access token was rejected is sent again with another one."""
        self._rejected.add(request.headers["Authorization"])
        return True

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
        if not self._cache:
            self._renew()
            return
        with self._cache.locked():  # other runs wait for it
            cached = self._cache.load()
            if cached and set(self._scopes) <= set(cached.scopes or self._scopes):
                self._use(cached)
            if not self.is_token_valid():
                self._cache.ensure_writable()  # before a single-use token is spent
                self._renew()

    def _renew(self) -> None:
        """Get a token by grants with exactly the fields and headers of Envoy's guide."""
        refusal = None
        newest_first = (self._token.refresh_token, self._configured_refresh_token)
        for refresh_token in dict.fromkeys(filter(None, newest_first)):
            form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **self._client}
            try:
                response = self._request("refresh", form)
            except GrantRefusedError as error:
                refusal = error
            else:
                self._store(response, refresh_token)
                return
        if not self._password:
            raise GrantRefusedError(f"{refusal} {HOW_TO_REPLACE}")
        if refusal:
            self.logger.warning("%s Using the password grant instead.", refusal)
        form = {"grant_type": "password", "scope": self.oauth_scopes or ""}
        form |= {"username": self._username, "password": self._password}
        client = tuple(value.encode() for value in self._client.values())  # HTTP Basic
        self._store(self._request("password", form, auth=client))

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
        # No message may contain these. A new set, as other threads may be reading the old one.
        self.secrets = self.secrets | {token.access_token, token.refresh_token}
        self._token = token

    def _request(self, grant: str, form: dict[str, str], **options: Any) -> dict[str, Any]:
        """Return the response to a grant, with retries.

        Raises:
            GrantRefusedError: If it was rejected, or must not be sent again.
            EnvoyError: If there is no token for another reason.
        """
        self.logger.info("Requesting an access token with the %s grant.", grant)
        send = partial(self._send, grant, form, **options)
        response = self._envoy_session.retry(send, self.logger)
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
        raise EnvoyError(
            f"{ENDPOINT.capitalize()} returned HTTP {status}{redirect(response)} instead of an "
            "access token; check that setting, and for a proxy or captive portal in between."
        )

    def _send(self, grant: str, form: dict[str, str], **options: Any) -> requests.Response:
        """Send a grant once; raise `TransientError` if it may be sent again."""
        fields = {name: (None, value) for name, value in form.items()}  # multipart/form-data
        try:
            with self._envoy_session.fresh() as session:
                response = session.request(
                    "POST", self.auth_endpoint, where=ENDPOINT, files=fields, **options
                )
        except (NoConnectionError, RunAbortedError):  # it was not sent
            raise
        except (TransientError, EnvoyError) as error:
            if grant == "password":
                raise
            # Refresh tokens are taken as single-use (inferred): this one may be spent.
            raise GrantRefusedError(f"{error} The refresh token may be used up.") from None
        if is_retryable(response.status_code):
            status = response.status_code
            raise TransientError(f"{ENDPOINT.capitalize()} returned HTTP {status}.", response)
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
