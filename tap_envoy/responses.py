"""What a response of a list endpoint contains: a page, or the reason why there is none."""

from __future__ import annotations

import re
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
    redirect,
)
from tap_envoy.pagination import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    import requests

    from tap_envoy.auth import Authenticator

REPORT = "report this to the maintainers of the tap"

PROXY = "check `api_url`, and for a proxy or captive portal in between"

ERROR_STATUS = re.compile(r"\s*([45]\d\d)\b", re.ASCII)
"""An HTTP error in a body: `401`, or `"401 Unauthorized"`."""


def read_page(
    response: requests.Response, path: str, scopes: Sequence[str], authenticator: Authenticator
) -> Page:
    """Return the page in a response to `path`; an unexpected one is never an empty list.

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
        raise TransientError(f"Envoy returned {quoted}.", response)
    match status:
        case HTTPStatus.OK if payload is not None:
            return _parse_page(payload, reason)
        case HTTPStatus.OK:
            raise TransientError(f"Envoy returned a body that is not JSON, or incomplete; {PROXY}.")
        case HTTPStatus.UNAUTHORIZED:
            raise CredentialsRejectedError(
                f"Envoy rejected the credentials ({quoted}); {authenticator.advice}."
            )
        case HTTPStatus.FORBIDDEN:
            needed = " and ".join(f"`{scope}`" for scope in scopes)
            raise ScopeMissingError(
                f"Envoy denied access ({quoted}); add the scope {needed} to the integration in "
                f"Envoy's Dev Dashboard{authenticator.scope_advice}."
            )
        case HTTPStatus.BAD_REQUEST | HTTPStatus.NOT_FOUND | HTTPStatus.UNPROCESSABLE_ENTITY:
            advice = "check `api_url`" if status == HTTPStatus.NOT_FOUND else REPORT
            text = f"Envoy rejected the request for {path} ({quoted}); {advice}."
            raise RequestRejectedError(text, status=status, detail=reason)
    quoted += redirect(response)
    raise EnvoyError(f"Envoy returned {quoted} instead of a list of rows; {PROXY}.")


def _status_in_body(payload: Any) -> int | None:
    """Return the HTTP error that a response with HTTP 200 carries in its body, if it does.

    A rejected API key was seen as `{"status": 401}`, perhaps one level down.
    """
    matches = (ERROR_STATUS.match(str(x.get("status"))) for x in error_objects(payload))
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
    return Page(data, total if type(total) is int else None)
