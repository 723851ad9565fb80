"""Exceptions, connection errors in plain words, and what a message quotes of files and responses.

    EnvoyError                          a stream cannot be read
    ├── RunAbortedError                 no further stream can be read
    │   └── CredentialsRejectedError    HTTP 401
    ├── GrantRefusedError               no token
    ├── ScopeMissingError               HTTP 403
    └── RequestRejectedError            HTTP 400, 404, 422
    TransientError                      the same request may succeed later
    └── NoConnectionError               it was not sent

The text of each is one sentence or two: what happened, to what, and what to do.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import traceback
from contextlib import suppress
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import requests
from requests import exceptions as rq
from requests.utils import get_environ_proxies
from singer_sdk.exceptions import FatalAPIError, RetriableAPIError
from urllib3 import exceptions as u3

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_ERRORS = (requests.RequestException, u3.HTTPError, OSError, ValueError)
"""What sending a request can raise: `requests` does not wrap every error of urllib3."""

MAX_NAMES = 20
"""Names that a message lists; the rest are counted."""

EXCERPT_LIMIT = 200
"""Characters of a response that an error message may quote."""

ESCAPED = re.compile(rb"(\\\\)|\\u0000")
"""An escaped backslash, in the group, or an escaped U+0000 in JSON."""

MESSAGE_KEYS = ("code", "message", "error", "error_description", "detail", "title")
"""Where an error body may hold its message; the shape of v1's is not documented (inferred)."""


class EnvoyError(FatalAPIError):
    """Raised when a stream cannot be read."""


class RunAbortedError(EnvoyError):
    """Raised when no further stream can be read, e.g. rejected credentials or no connection."""


class CredentialsRejectedError(RunAbortedError):
    """Raised when Envoy rejects the API key or the access token of a request (HTTP 401)."""


class GrantRefusedError(EnvoyError):
    """Raised when a grant must not be sent again."""


class ScopeMissingError(EnvoyError):
    """Raised when Envoy forbids a list (HTTP 403)."""


class RequestRejectedError(EnvoyError):
    """Raised when Envoy rejects a list request (HTTP 400, 404 or 422); `detail` quotes why."""

    def __init__(self, message: str, *, status: int, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class TransientError(RetriableAPIError):
    """Raised when the same request may succeed later; `response` is its response, if any."""


class NoConnectionError(TransientError):
    """Raised when a request was not sent."""


def is_retryable(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed later."""
    return status in {408, 429, *range(500, 600)}


def decode_json(response: requests.Response) -> Any:
    """Return the decoded JSON body of a response, or None if it is not JSON.

    A byte that is not UTF-8 and half a surrogate pair become U+FFFD. U+0000, which PostgreSQL
    refuses, is removed.
    """
    content = response.content
    if b"\\u0000" in content:
        content = ESCAPED.sub(rb"\1", content)
    with suppress(ValueError, RecursionError):
        return msgspec.json.decode(content)
    with suppress(ValueError, RecursionError):
        value = json.loads(content.decode("utf-8-sig", "replace"))
        text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
        return json.loads(text.decode("utf-16", "replace"))
    return None


def list_names(names: Iterable[Any]) -> str:
    """Return names from a file or a response in one line."""
    texts = sorted({printable(name) for name in names})
    more = f" and {len(texts) - MAX_NAMES} more" if len(texts) > MAX_NAMES else ""
    return f"{', '.join(texts[:MAX_NAMES])}{more}"


def printable(text: object, length: int = 50) -> str:
    """Return what a file or a response contains so that it is safe to log: one short line."""
    return "".join(filter(str.isprintable, str(text)))[:length]


def error_objects(body: Any) -> list[dict[str, Any]]:
    """Return the objects of a decoded body that may describe an error (inferred)."""
    body = body if isinstance(body, dict) else {}
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return [x for x in (body, body.get("error"), first) if isinstance(x, dict)]


def excerpt(body: Any, secrets: Iterable[str]) -> str:
    """Return why a decoded body reports an error, as `: “…”`, or an empty string.

    Only known fields are quoted, up to a limit and without `secrets`.
    """
    found = [x.get(key) for x in error_objects(body) for key in MESSAGE_KEYS]
    texts = [str(value) for value in found if type(value) in {str, int}]  # a bool says nothing
    text = ", ".join(dict.fromkeys(filter(None, texts)))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")  # before anything is cut, so that no half remains
    text = " ".join(text.split())
    shown = printable(text, EXCERPT_LIMIT)
    return f": “{shown}{'…' if len(text) > EXCERPT_LIMIT else ''}”" if shown else ""


NO_TLS = "No TLS connection to {place}{reason}; "
NOT_CONNECTED = "Cannot connect to {place}{reason}; check the setting, network, proxy and firewall."
CLOSED = "The connection to {place} was closed before the response was complete."

CONNECTION_ERRORS: tuple[tuple[Any, str, type[EnvoyError | TransientError], str], ...] = (
    (ssl.SSLError, "issuer|self.signed|verify the first", RunAbortedError, (
        f"{NO_TLS}if a proxy inspects TLS, set REQUESTS_CA_BUNDLE to its CA file."
    )),
    (rq.ProxyError, "failed: 4", RunAbortedError, NOT_CONNECTED),
    (rq.InvalidSchema, "SOCKS", RunAbortedError, (
        "The SOCKS proxy in {proxy} needs the package PySocks; install it, or unset {proxy}."
    )),
    ((u3.LocationValueError, rq.InvalidURL, rq.InvalidSchema), "", RunAbortedError, (
        "Invalid URL or proxy: {place}; correct it."
    )),
    ((rq.ProxyError, u3.NewConnectionError), "", NoConnectionError, NOT_CONNECTED),
    (OSError, "PEM|NO_CERT|suitable TLS|No such file|directory|denied", RunAbortedError, (
        "A file for TLS cannot be used{reason}; check the files that REQUESTS_CA_BUNDLE, "
        "CURL_CA_BUNDLE and SSLKEYLOGFILE name."
    )),
    (ssl.SSLError, "connecting(?!.*EOF)", RunAbortedError, (
        f"{NO_TLS}check the setting, this machine's clock and any proxy in between."
    )),
    (Exception, "connecting", NoConnectionError, NOT_CONNECTED),
    ((IncompleteRead, RemoteDisconnected), "", TransientError, CLOSED),
    ((HTTPException, u3.InvalidHeader, u3.DecodeError), "", EnvoyError, (
        "The response of {place} cannot be read{reason}; check any proxy in between."
    )),
    ((rq.Timeout, u3.ReadTimeoutError), "", TransientError, (
        "No complete response from {place} in time; if this persists, raise `request_timeout`."
    )),
    (Exception, "", TransientError, CLOSED),
)  # fmt: skip
"""What is raised, by the first row with a type that occurs, and a pattern that is found in the text
of the innermost error, after "connecting: " if nothing was sent.
"""


def connection_error(error: Exception, url: str, where: str) -> EnvoyError | TransientError:
    """Return the error to raise for one of `REQUEST_ERRORS`, whose text may hold a password.

    `where` names what was requested, and its setting, such as "Envoy (`api_url`)".
    """
    chain: list[BaseException] = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    frames = (frame for inner in chain for frame, _ in traceback.walk_tb(inner.__traceback__))
    # urllib3 sends a request after `connect`.
    is_connecting = any(frame.f_code.co_name == "connect" for frame in frames)
    searched = f"{'connecting: ' if is_connecting else ''}{chain[-1]}"
    kind, text = next(
        (kind, text)
        for types, pattern, kind, text in CONNECTION_ERRORS
        if any(isinstance(e, types) for e in chain) and re.search(pattern, searched)
    )
    reason, proxy = _reason(chain[-1]), _proxy(url)
    place = f"{where} at {urlsplit(url).netloc.rpartition('@')[2]}"
    if proxy:
        place += f" through the proxy in {proxy}"
    return kind(text.format(place=place, proxy=proxy, reason=f" ({reason})" if reason else ""))


def _reason(cause: BaseException) -> str:
    """Return why a connection failed, in the words of OpenSSL, the system or the proxy."""
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or "").replace("_", " ").lower()
        return getattr(cause, "verify_message", reason).strip(".")
    if match := re.search(r"failed: (\d{3})|(^got more than .*)", str(cause)):
        return f"HTTP {match[1]}" if match[1] else match[2]
    return "timed out" if isinstance(cause, TimeoutError) else getattr(cause, "strerror", "") or ""


def _proxy(url: str) -> str:
    """Return the variable with the proxy that `requests` uses for a URL, if it uses one."""
    proxies = get_environ_proxies(url)  # none where NO_PROXY names the host
    scheme = next((x for x in (urlsplit(url).scheme, "all") if x in proxies), None)
    names = [f"{scheme}_proxy", f"{scheme}_PROXY".upper()] if scheme else []
    return next(filter(os.environ.get, names), "the system settings" if names else "")


def redirect(response: requests.Response) -> str:
    """Return the host that a response redirects to, as ` (a redirect to …)`, or an empty string."""
    if not response.is_redirect:
        return ""
    match = re.match(r"(?:\w+:)?//(?:[^/?#]*@)?([^/?#]+)", response.headers["Location"])
    return f" (a redirect to {printable(match[1]) if match else 'another page'})"


def describe(error: BaseException) -> str:
    """Return the text of an `EnvoyError`; else the place in the tap, as the text may be private."""
    if isinstance(error, EnvoyError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((x for x in reversed(frames) if "tap_envoy" in x.filename), frames[-1])
    where = f"{type(error).__name__} at {Path(frame.filename).name}, line {frame.lineno}"
    return f"Unexpected error ({where}); report this to the maintainers of the tap."
