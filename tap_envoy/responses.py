"""What a response of a list endpoint contains: a page, or the reason why there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tap_envoy.exceptions import (
    CredentialsRejectedError,
    EnvoyError,
    RequestRejectedError,
    ScopeMissingError,
    TransientError,
    decode_json,
    error_objects,
    excerpt,
    is_retryable,
    redirect_host,
)
from tap_envoy.pagination import Page
from tap_envoy.records import without_nul
from tap_envoy.session import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    import requests

    from tap_envoy.auth import Authenticator

REPORT = "report this to the maintainers of the tap"

PROXY = "check `api_url`, and for a proxy or captive portal in between"

REJECTED = "Envoy rejected the request for {path} ({status}); "

REFUSALS: dict[int, tuple[type[EnvoyError], str]] = {
    400: (RequestRejectedError, f"{REJECTED}{REPORT}."),
    401: (CredentialsRejectedError, "Envoy rejected the credentials ({status}); {advice}."),
    403: (ScopeMissingError, (
        "Envoy denied access ({status}); add the scope {scopes} to the integration in Envoy's Dev "
        "Dashboard{scope_advice}."
    )),
    404: (RequestRejectedError, f"{REJECTED}check `api_url`."),
    422: (RequestRejectedError, f"{REJECTED}{REPORT}."),
    2: (EnvoyError, f"Envoy returned {{status}} instead of a complete list; {PROXY}."),
    3: (EnvoyError, (
        "Envoy returned a redirect to {host} ({status}), which is not followed, so that "
        f"credentials reach no other host; {PROXY}."
    )),
    4: (EnvoyError, f"{REJECTED}{REPORT}."),
}  # fmt: skip
"""The error for an HTTP status, or for all others with its first digit."""

ERROR_STATUS = re.compile(r"\s*([3-5]\d\d)\b", re.ASCII)
"""An HTTP error in a body: `401`, or `"401 Unauthorized"`."""


def read_page(
    response: requests.Response,
    path: str,
    scopes: Sequence[str],
    authenticator: Authenticator,
    cleaned: set[str],
) -> Page:
    """Return the page in a response to `path`; an unexpected one is never an empty list.

    Paths of properties from which U+0000 was removed are added to `cleaned`.

    Raises:
        TransientError: If the request may succeed later.
        EnvoyError: If it was refused, or the body is not `{"data": [objects with an id]}`.
    """
    payload, status = decode_json(response), response.status_code
    if status == HTTPStatus.OK:
        status = _status_in_body(payload) or status
    reason = excerpt(payload, authenticator.secrets)
    quoted = f"HTTP {status}{reason}"
    if is_retryable(status):
        retry_after = parse_retry_after(response)
        raise TransientError(f"Envoy returned {quoted}.", status=status, retry_after=retry_after)
    if status != HTTPStatus.OK:
        kind, text = REFUSALS.get(status) or REFUSALS[max(2, status // 100)]
        message = text.format(
            status=quoted,
            path=path,
            host=redirect_host(response),
            scopes=" and ".join(f"`{scope}`" for scope in scopes),
            advice=authenticator.advice,
            scope_advice=authenticator.scope_advice,
        )
        is_rejected = kind is RequestRejectedError
        raise kind(message, **({"status": status, "detail": reason} if is_rejected else {}))
    if payload is None:
        raise TransientError(f"Envoy returned a body that is not JSON; {PROXY}.")
    page = _parse_page(payload, reason)
    if b"\\u0000" in response.content:
        return replace(page, records=without_nul(page.records, cleaned))
    return page


def _status_in_body(payload: Any) -> int | None:
    """Return the HTTP error that a response with HTTP 200 carries in its body, if it does.

    A rejected API key was seen as `{"status": 401}`, perhaps one level down.
    """
    names = ("status", "statusCode", "code")
    values = [x.get(name) for x in error_objects(payload) for name in names]
    matches = (ERROR_STATUS.match(str(value)) for value in values)
    return next((int(match[1]) for match in matches if match), None)


def _parse_page(payload: Any, reason: str) -> Page:
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list) or (not data and (payload.get("error") or payload.get("errors"))):
        raise EnvoyError(f"Envoy returned no list of rows (`data`){reason}; {PROXY}.")
    for record in data:
        key = record.get("id") if isinstance(record, dict) else None
        if type(key) is int:
            record["id"] = str(key)
        elif not isinstance(key, str) or not key:
            raise EnvoyError(f"Envoy returned a row without an `id`; {REPORT}.")
    meta = payload.get("meta")
    total = meta.get("total") if isinstance(meta, dict) else None
    return Page(data, total if type(total) is int and total >= 0 else None)
