"""Exceptions, redaction of secrets, and what a message quotes of files and responses."""

from __future__ import annotations

import errno
import html
import json
import math
import os
import re
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlsplit

import msgspec
import requests
from requests.utils import get_environ_proxies, select_proxy
from singer_sdk.exceptions import FatalAPIError, RetriableAPIError
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_ERRORS = (requests.RequestException, HTTPError, OSError, ValueError)
"""What sending a request can raise: `requests` does not wrap every error of urllib3."""

MAX_NAMES = 5
"""Unknown names that a message lists; the rest are counted."""

EXCERPT_LIMIT = 200
"""Characters of a response that an error message may quote."""

MESSAGE_KEYS = ("message", "error", "error_description", "detail", "title")
"""Where an error body may hold its message; the shape of v1's is not documented (inferred)."""


class EnvoyError(FatalAPIError):
    """Raised when a stream cannot be read; its text is one sentence with what to do about it."""


class RunAbortedError(EnvoyError):
    """Raised when no further stream can be read, e.g. rejected credentials or no connection."""


class CredentialsRejectedError(RunAbortedError):
    """Raised when Envoy rejects the API key or the access token of a request (HTTP 401)."""


class ScopeMissingError(EnvoyError):
    """Raised when Envoy forbids a list (HTTP 403)."""


class RequestRejectedError(EnvoyError):
    """Raised when Envoy rejects a list request, perhaps for one of its parameters.

    Attributes:
        status: The HTTP status: 400, 404 or 422.
        detail: The quoted reason, such as `: “unknown sort”`, or an empty string.
    """

    def __init__(self, message: str, *, status: int, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class TransientError(RetriableAPIError):
    """Raised when the same request may succeed later.

    Attributes:
        retry_after: Seconds that the server asked to wait, or None.
        status: The HTTP status, or None if there was no response.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class NoConnectionError(TransientError):
    """Raised when a request was not sent."""


class ResponseLostError(TransientError):
    """Raised when a request was sent and its response was lost: it may have had its effect."""


class ResponseTooLargeError(requests.RequestException):
    """Raised when a response exceeds the size limit."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Redact `secrets` in `text`, including URL-, HTML- and JSON-encoded forms."""
    forms = {
        form
        for secret in filter(None, secrets)
        for form in (
            secret,
            html.escape(secret),
            html.escape(secret, quote=False),
            quote_plus(secret),
            quote(secret),
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
        )
    }
    if not forms:
        return text
    # The longest first, so that no form leaves a part of a longer one behind.
    pattern = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return re.sub(pattern, "***", text, flags=re.IGNORECASE)


def is_retryable(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed later."""
    transient = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
    return status in transient or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def decode_json(body: requests.Response | bytes) -> Any:
    """Return the decoded JSON body of a response, or None if it is not JSON.

    Bytes that are not UTF-8 and lone surrogates become U+FFFD; NaN and numbers too large for a
    float become None.
    """
    content = body if isinstance(body, bytes) else body.content
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        value = json.loads(
            content.decode("utf-8-sig", "replace"),
            parse_constant=lambda _name: None,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
        text = json.dumps(value, ensure_ascii=False)
        # UTF-16 is where surrogates belong: pairs survive, lone ones are replaced.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parse_float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _parse_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return None


def list_names(names: Iterable[Any], *, limit: int = MAX_NAMES) -> str:
    """Return names from a file or a response in one line; those beyond `limit` are counted."""
    texts = sorted({printable(name) for name in names})
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return f"{', '.join(texts[:limit])}{more}"


def printable(text: object, length: int = 50) -> str:
    """Return what a file or a response contains so that it is safe to log: one short line."""
    return "".join(filter(str.isprintable, str(text)))[:length]


def excerpt(body: Any, keys: Iterable[str], secrets: Iterable[str]) -> str:
    """Return the reason that an error response gives, on one line, bounded and redacted.

    Args:
        body: The decoded body, or a text to quote as it is; other types give no reason.
        keys: Properties of a decoded body, and of the first object in its `errors` (JSON:API),
            that may hold the reason.
        secrets: Strings to redact.

    Returns:
        The text in quotation marks after a colon and a space, or an empty string.
    """
    text = body if isinstance(body, str) else ", ".join(_reasons(body, keys))
    # Redacted before it is cut, so that no half of a secret remains.
    text = " ".join(redact(text, secrets).split())
    text = printable(text, EXCERPT_LIMIT + 1)
    if len(text) > EXCERPT_LIMIT:
        text = f"{text[:EXCERPT_LIMIT]}…"
    return f": “{text}”" if text else ""


def _reasons(body: Any, keys: Iterable[str]) -> list[str]:
    if not isinstance(body, dict):
        return []
    found = [body.get(key) for key in keys]
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if isinstance(first, dict):
        found += [first.get(key) for key in ("code", *keys)]
    else:
        found.append(first)
    texts = [str(value) for value in found if type(value) in {str, int}]  # a bool says nothing
    return list(dict.fromkeys(filter(None, texts)))


def connection_error(
    error: Exception, *, where: str, timeout: float
) -> EnvoyError | TransientError:
    """Return the error to raise for a request that got no response.

    The text of `error` itself is not repeated: it may hold the password of a proxy.

    Args:
        error: What `requests` raised, one of `REQUEST_ERRORS`.
        where: What was requested, with its setting, such as "Envoy (`api_url`)"; the host is
            added to it.
        timeout: The read timeout in seconds.
    """
    url = getattr(getattr(error, "request", None), "url", None) or ""
    host = _host(url)
    place = f"{where} at {host}" if host else where
    return (
        _configuration_error(error, place)
        or _no_connection(error, place, url, timeout)
        or _lost_response(error, place, timeout)
    )


def _configuration_error(error: Exception, place: str) -> RunAbortedError | None:
    """Return an error for what no retry can change."""
    if isinstance(error, requests.exceptions.SSLError) and not _is_caused_by(
        error, ssl.SSLEOFError
    ):
        return RunAbortedError(
            f"The TLS certificate of {place} was not accepted{_ssl_reason(error)}; if a proxy "
            "inspects TLS, set REQUESTS_CA_BUNDLE to its CA file."
        )
    if isinstance(error, requests.exceptions.ProxyError) and "failed: 407" in str(error):
        return RunAbortedError(
            f"The proxy for {place} requires authentication (HTTP 407); set its user and password "
            "in HTTPS_PROXY."
        )
    if type(error) is OSError and error.errno is None:  # how `requests` reports a missing bundle
        path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
        return RunAbortedError(
            f"The CA file {path} does not exist; correct or unset REQUESTS_CA_BUNDLE "
            "(or CURL_CA_BUNDLE)."
        )
    if isinstance(error, ValueError) and not _is_caused_by(error, InvalidHeader):
        return RunAbortedError(
            f"Invalid URL or proxy for {place}; check the setting and HTTPS_PROXY."
        )
    return None


def _no_connection(
    error: Exception, place: str, url: str, timeout: float
) -> NoConnectionError | None:
    """Return an error for a request that was not sent, or None if it may have been sent."""
    if isinstance(error, requests.exceptions.ProxyError):
        proxy = _host(select_proxy(url, get_environ_proxies(url)) or "")
        return NoConnectionError(
            f"The proxy {proxy} did not connect to {place}{_socket_reason(error)}; check "
            "HTTPS_PROXY."
        )
    if _is_caused_by(error, NameResolutionError):
        return NoConnectionError(
            f"The host name of {place} cannot be resolved; check the setting, the network and DNS."
        )
    if _is_caused_by(error, NewConnectionError):
        return NoConnectionError(
            f"Cannot connect to {place}{_socket_reason(error)}; check the setting, the network "
            "and any firewall."
        )
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return NoConnectionError(
            f"Cannot connect to {place} within {timeout:g} s; check the network and any firewall."
        )
    return None


def _lost_response(error: Exception, place: str, timeout: float) -> ResponseLostError:
    if isinstance(error, ResponseTooLargeError):
        return ResponseLostError(f"The response of {place} is too large.")
    if isinstance(error, requests.exceptions.Timeout) or _is_caused_by(error, ReadTimeoutError):
        return ResponseLostError(
            f"No complete response from {place} in time (`request_timeout` is {timeout:g} s)."
        )
    return ResponseLostError(
        f"The connection to {place} was closed before the response was complete."
    )


def _host(url: str) -> str:
    """Return the host and port of a URL, without its user and password."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and all errors that it wraps, in the ways of urllib3 and `requests`."""
    found: list[BaseException] = []
    pending: list[Any] = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            wrapped = (getattr(current, name, None) for name in ("reason", "original_error"))
            pending += [*current.args, *wrapped, current.__cause__]
    return found


def _is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _ssl_reason(error: Exception) -> str:
    """Return OpenSSL's name for a TLS failure, in brackets."""
    causes = [cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)]
    return next((f" ({cause.reason})" for cause in causes if cause.reason), "")


def _socket_reason(error: Exception) -> str:
    """Return why a connection failed, after a colon and a space."""
    numbers = {cause.errno for cause in _causes(error) if isinstance(cause, OSError)}
    if _is_caused_by(error, NameResolutionError):
        return ": its host name cannot be resolved"
    if errno.ECONNREFUSED in numbers:
        return ": connection refused"
    if numbers & {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return ": network or host unreachable"
    return ""
