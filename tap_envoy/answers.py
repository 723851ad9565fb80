"""What an answer of a list means: a page, or an error that says what to do about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from urllib3 import Retry as RetryAfter
from urllib3.exceptions import InvalidHeader

from tap_envoy.errors import (
    EnvoyError,
    RunEndedError,
    ScopeMissingError,
    TransientError,
    may_pass,
)
from tap_envoy.pages import Page

if TYPE_CHECKING:
    from collections.abc import Iterable

    import requests


def refusal_of(
    status: int, response: requests.Response, said: str, *, scopes: Iterable[str], advice: str
) -> EnvoyError | TransientError:
    """Tell what a status other than 2xx means, and what to do about it."""
    if may_pass(status):
        return TransientError(f"Envoy answered HTTP {status}{said}.", wait=_wait(response))
    if status == HTTPStatus.UNAUTHORIZED:
        return RunEndedError(f"Envoy refused the credentials (HTTP {status}){said}; {advice}.")
    if status == HTTPStatus.FORBIDDEN:
        names = " and ".join(f"`{scope}`" for scope in scopes)
        return ScopeMissingError(
            f"Envoy refused the list (HTTP {status}){said}; give the integration the scope "
            f"{names} in Envoy's Dev Dashboard, and name it in `scopes` if you set that."
        )
    if status == HTTPStatus.NOT_FOUND:
        return EnvoyError(f"Envoy has no such list (HTTP {status}){said}; check `api_url`.")
    if status < HTTPStatus.BAD_REQUEST:
        return EnvoyError(
            f"Envoy answered with a redirect (HTTP {status}), which is not followed, so that "
            "credentials go nowhere else; check `api_url`."
        )
    return EnvoyError(f"Envoy refused the request (HTTP {status}){said}.")


def status_of(response: requests.Response, payload: Any) -> int:
    """Return the status of an answer: a refusal may come as 200 with the status in the body."""
    said = _number(payload.get("status")) if response.ok and isinstance(payload, dict) else None
    refused = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return said if said is not None and said in refused else response.status_code


def page_of(payload: Any, number: int) -> Page:
    """Check a successful answer and return it as a page; what is odd is never an empty list."""
    if payload is None:
        raise TransientError(f"Envoy answered page {number} with something that is not JSON.")
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list):
        raise EnvoyError(f"Envoy answered page {number} without a list of rows (`data`).")
    for record in data:
        if not isinstance(record, dict):
            raise EnvoyError(f"Envoy sent something on page {number} that is no row.")
        if not isinstance(record.get("id"), str) or not record["id"]:
            raise EnvoyError(f"Envoy sent a row without `id` on page {number}.")
    meta = payload.get("meta")
    if not isinstance(meta, dict):
        meta = {}
    return Page(data, _number(meta.get("total")), _number(meta.get("perPage")) or None)


def _number(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_number else None


def _wait(response: requests.Response) -> float | None:
    """Return the seconds of a `Retry-After`, which may also be a date; None without one."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        return RetryAfter().parse_retry_after(header)
    except (InvalidHeader, OverflowError, ValueError):
        return None
