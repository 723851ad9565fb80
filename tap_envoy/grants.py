"""The token address: a grant sent as Envoy's guide has it, and its answer judged."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from tap_envoy.errors import (
    REQUEST_ERRORS,
    EnvoyError,
    LostAnswerError,
    TransientError,
    decoded,
    may_pass,
    out_of_reach,
    quote,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import requests

SETTINGS = {
    "password": "`username`, `password`, `client_id`, `client_secret` and `scopes`",
    "refresh": "`client_id`, `client_secret` and `refresh_token`",
}
"""What a person looks at when a grant is refused."""


class GrantFailedError(EnvoyError):
    """A grant was refused, or its answer was lost: sending it again is no use."""


@dataclass(frozen=True, slots=True)
class TokenAddress:
    """Where access tokens come from.

    Attributes:
        url: The address.
        session: What requests are made with.
        timeout: Seconds to wait for an answer.
    """

    url: str
    session: requests.Session
    timeout: float

    def ask(
        self,
        grant: str,
        form: Mapping[str, str],
        headers: Mapping[str, str],
        secrets: Collection[str],
    ) -> dict[str, Any]:
        """Send a grant once.

        Args:
            grant: "password" or "refresh".
            form: Its fields.
            headers: Its headers.
            secrets: Strings that no error may show.

        Returns:
            The answer, which has an `access_token` that is a string.

        Raises:
            GrantFailedError: If the grant is not to be sent again.
            TransientError: If it may be.
            EnvoyError: If the address does not answer as documented.
        """
        try:
            response = self.session.post(
                self.url,
                headers=headers,
                # As multipart/form-data, which is how the guide has it; no file names.
                files={name: (None, value) for name, value in form.items()},
                auth=_as_it_is,
                timeout=self.timeout,
                allow_redirects=False,
            )
        except REQUEST_ERRORS as error:
            problem = out_of_reach(
                error, where="the token address (`token_url`)", timeout=self.timeout
            )
            if grant == "refresh" and isinstance(problem, LostAnswerError):
                # Refresh tokens are taken as rotating: this one may be spent. (inferred)
                raise GrantFailedError(str(problem)) from None
            raise problem from None
        return _judge(grant, response, secrets)


def _judge(grant: str, response: requests.Response, secrets: Collection[str]) -> dict[str, Any]:
    status = response.status_code
    payload = decoded(response)
    if may_pass(status):
        raise TransientError(f"The token address answered HTTP {status}.")
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        # A body that is not a JSON object is not shown: it may repeat what it was sent.
        body = payload if isinstance(payload, dict) else None
        said = quote(body, ("error", "error_description"), secrets)
        raise GrantFailedError(
            f"Envoy refused the {grant} grant (HTTP {status}){said}; check {SETTINGS[grant]}."
        )
    if status != HTTPStatus.OK:
        raise EnvoyError(
            f"The token address answered HTTP {status}, which is no token; check `token_url`."
        )
    token = payload.get("access_token") if isinstance(payload, dict) else None
    if not isinstance(token, str) or not (token and token.isascii() and token.isprintable()):
        raise EnvoyError("The token address answered without an access token; check `token_url`.")
    return cast("dict[str, Any]", payload)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the request alone; given as `auth`, it keeps `requests` from reading .netrc."""
    return request
