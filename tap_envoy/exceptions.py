"""Exceptions, connection errors in plain words, and what a message quotes of files and responses.

    EnvoyError                      a stream cannot be read
    ├── RunAbortedError             no further stream can be read
    │   └── CredentialsRejectedError    HTTP 401
    ├── GrantRefusedError           no token
    ├── ScopeMissingError           HTTP 403
    └── RequestRejectedError        HTTP 400, 404, 422
    TransientError                  the same request may succeed later
    ├── NoConnectionError           it was not sent
    └── ResponseLostError           it was sent, and may have had its effect

The text of each is one sentence or two: what happened, to what, and what to do.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from requests import exceptions as rq
from singer_sdk.exceptions import FatalAPIError, RetriableAPIError
from urllib3 import exceptions as u3

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_ERRORS = (requests.RequestException, u3.HTTPError, OSError, ValueError)
"""What sending a request can raise: `requests` does not wrap every error of urllib3."""

MAX_NAMES = 5
"""Names that a message lists; the rest are counted."""

EXCERPT_LIMIT = 200
"""Characters of a response that an error message may quote."""

MAX_CHAIN = 10
"""Errors of `requests`, urllib3 and the system that wrap each other."""

MESSAGE_KEYS = ("message", "error", "error_description", "detail", "title")
"""Where an error body may hold its message; the shape of v1's is not documented (inferred)."""


class EnvoyError(FatalAPIError):
    """Raised when a stream cannot be read."""


class RunAbortedError(EnvoyError):
    """Raised when no further stream can be read, e.g. rejected credentials or no connection."""


class CredentialsRejectedError(RunAbortedError):
    """Raised when Envoy rejects the API key or the access token of a request (HTTP 401)."""


class GrantRefusedError(EnvoyError):
    """Raised when a grant was rejected, or its response was lost: it must not be sent again.

    Attributes:
        code: OAuth's name of the reason, such as `invalid_scope`, or an empty string.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


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
        status: The HTTP status, or None if there was no response.
        retry_after: Seconds that the server asked to wait, or None.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NoConnectionError(TransientError):
    """Raised when a request was not sent."""


class ResponseLostError(TransientError):
    """Raised when a request was sent without a usable response: it may have had its effect."""


def is_retryable(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed later."""
    transient = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
    return status in transient or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def decode_json(response: requests.Response) -> Any:
    """Return the decoded JSON body of a response, or None if it is not JSON.

    A byte that is not UTF-8 and half a surrogate pair become U+FFFD.
    """
    try:
        return msgspec.json.decode(response.content)
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(response.content.decode("utf-8-sig", "replace"))
        text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
        return json.loads(text.decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return None


def list_names(names: Iterable[Any], *, limit: int = MAX_NAMES) -> str:
    """Return names from a file or a response in one line; those beyond `limit` are counted."""
    texts = sorted({printable(name) for name in names})
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return f"{', '.join(texts[:limit])}{more}"


def printable(text: object, length: int = 50) -> str:
    """Return what a file or a response contains so that it is safe to log: one short line."""
    return "".join(filter(str.isprintable, str(text)))[:length]


def excerpt(body: Any, secrets: Iterable[str]) -> str:
    """Return the reason that an error response gives, on one line, bounded, without secrets.

    Args:
        body: The decoded body; nothing is quoted of one that is not an object.
        secrets: Strings to redact.

    Returns:
        Text in quotation marks after a colon and a space, or an empty string.
    """
    body = body if isinstance(body, dict) else {}
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    found = [body.get(key) for key in MESSAGE_KEYS]
    found += (
        [first.get(key) for key in ("code", *MESSAGE_KEYS)] if isinstance(first, dict) else [first]
    )
    texts = [str(value) for value in found if type(value) in {str, int}]  # a bool says nothing
    text = " ".join(", ".join(dict.fromkeys(filter(None, texts))).split())
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")  # before it is cut, so that no half remains
    text = printable(text, EXCERPT_LIMIT + 1)
    if len(text) > EXCERPT_LIMIT:
        text = f"{text[:EXCERPT_LIMIT]}…"
    return f": “{text}”" if text else ""


CLOSED = "The connection to {place} was closed before the response was complete."

CONNECTION_ERRORS: tuple[tuple[Any, type[EnvoyError | TransientError], str], ...] = (
    (ssl.SSLEOFError, ResponseLostError, CLOSED),
    (ssl.SSLError, RunAbortedError, (
        "No TLS connection to {place}{reason}; check the setting. If a proxy inspects TLS, set "
        "REQUESTS_CA_BUNDLE to its CA file."
    )),
    (rq.InvalidSchema, RunAbortedError, (
        "The SOCKS proxy in {proxy} needs the package PySocks; install it, or unset {proxy}."
    )),
    (rq.ProxyError, NoConnectionError, (
        "The proxy in {proxy} did not connect to {place}{reason}; check it, also its user and "
        "password."
    )),
    (u3.NameResolutionError, NoConnectionError, (
        "The host name of {place} cannot be resolved; check the setting, the network and DNS."
    )),
    ((u3.NewConnectionError, rq.ConnectTimeout), NoConnectionError, (
        "Cannot connect to {place}{reason}; check the setting, the network and any firewall."
    )),
    ((RemoteDisconnected, IncompleteRead), ResponseLostError, CLOSED),
    ((HTTPException, rq.InvalidHeader, u3.DecodeError), ResponseLostError, (
        "The response of {place} cannot be read{reason}; check any proxy in between."
    )),
    ((rq.Timeout, u3.ReadTimeoutError), ResponseLostError, (
        "No complete response from {place} in time (`request_timeout` is {timeout:g} s)."
    )),
    (ValueError, RunAbortedError, (
        "Invalid URL or proxy for {place}; check the setting and {proxy}."
    )),
    (Exception, ResponseLostError, CLOSED),
)  # fmt: skip
"""What is raised, by the first row with a type of the error, or of one that it wraps."""


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
    chain: list[BaseException] = [error]
    while len(chain) < MAX_CHAIN and (inner := _wrapped(chain[-1])):
        chain.append(inner)
    if variable := _unreadable_file(chain[-1]):
        path = os.environ[variable]
        return RunAbortedError(
            f"{variable}: the file {path} cannot be opened; correct or unset it."
        )
    url = urlsplit(getattr(getattr(error, "request", None), "url", None) or "")
    host = url.netloc.rpartition("@")[2]
    names = [f"{scheme}_proxy" for scheme in (url.scheme or "https", "all")]
    variables = [v for name in names for v in (name, name.upper()) if os.environ.get(v)]
    reason = _reason(chain[-1])
    kind, text = next(
        (kind, text)
        for types, kind, text in CONNECTION_ERRORS
        if any(isinstance(e, types) for e in chain)
    )
    text = text.format(
        place=f"{where} at {host}" if host else where,
        reason=f" ({reason})" if reason else "",
        timeout=timeout,
        proxy=next(iter(variables), "HTTPS_PROXY"),
    )
    return RunAbortedError(text) if reason == "HTTP 407" else kind(text)


def _unreadable_file(cause: BaseException) -> str | None:
    """Return the variable that names a file for TLS which cannot be opened."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE"):
        path = os.environ.get(variable)
        if path and isinstance(cause, OSError) and path in str(cause):
            return variable
    return None


def _wrapped(error: BaseException) -> BaseException | None:
    """Return the error that an error of `requests` or urllib3 wraps."""
    candidates = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((x for x in candidates if isinstance(x, BaseException) and x is not error), None)


def _reason(cause: BaseException) -> str:
    """Return why a connection failed, in the words of OpenSSL, the system or the proxy."""
    if isinstance(cause, ssl.SSLError):
        return str(getattr(cause, "verify_message", "") or cause.reason or "").strip(".")
    if match := re.search(r"failed: (\d{3})", str(cause)):
        return f"HTTP {match[1]}"
    if isinstance(cause, HTTPException) and cause.args:
        return printable(cause.args[0])
    return str(cause.strerror or "") if isinstance(cause, OSError) else ""


def redirect_host(response: requests.Response) -> str:
    """Return the host that a response redirects to, without the rest of its URL."""
    try:
        url = urlsplit(urljoin(response.url, response.headers["Location"]))
    except (KeyError, ValueError):
        return "another page"
    return printable(url.netloc.rpartition("@")[2])
