"""What can go wrong, told in one sentence for the person who runs the tap."""

from __future__ import annotations

import html
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as url_quote
from urllib.parse import quote_plus

import msgspec
import requests
from singer_sdk.exceptions import FatalAPIError, RetriableAPIError
from urllib3.exceptions import HTTPError, NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_ERRORS = (requests.RequestException, HTTPError, OSError, ValueError)
"""What sending a request can raise: not every error of urllib3 comes wrapped in one of requests."""

QUOTE_LIMIT = 200
"""Characters of somebody else's text that an error may repeat."""

MESSAGE_KEYS = ("message", "error", "error_description", "detail", "title")
"""Where an error body may hold its message; the shape of v1's is not documented."""


class EnvoyError(FatalAPIError):
    """Asking again is no use. Its text is one sentence: what is wrong and what to do."""


class RunEndedError(EnvoyError):
    """There is no use in asking for other lists either: the way in, or the way there, is shut."""


class ScopeMissingError(EnvoyError):
    """Envoy forbids a list to who we are."""


class TransientError(RetriableAPIError):
    """Asking again may help.

    Attributes:
        wait: Seconds that the server asked to be left alone, or None.
    """

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NoConnectionError(TransientError):
    """The request was not sent at all."""


class LostAnswerError(TransientError):
    """The request was sent, its answer never arrived: it may have had its effect."""


def conceal(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with all `secrets` blotted out, also as URLs, HTML and JSON spell them."""
    spellings = {
        spelling
        for secret in filter(None, secrets)
        for spelling in (
            secret,
            html.escape(secret),
            quote_plus(secret),
            url_quote(secret),
            json.dumps(secret)[1:-1],
        )
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text


def may_pass(status: int) -> bool:
    """Tell whether waiting helps after an answer of this status."""
    patient = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
    return status in patient or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def decoded(response: requests.Response) -> Any:
    """Return the JSON body of an answer, or None where it is not JSON."""
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, RecursionError):
        return None


def quote(body: Any, keys: Iterable[str], secrets: Iterable[str]) -> str:
    """Return what a refusal says, short, on one line and without secrets.

    Args:
        body: The decoded body, or a text to be quoted as it is; anything else says nothing.
        keys: Where a decoded body may say why.
        secrets: Strings that must not be seen.

    Returns:
        The text behind a colon and a space, or nothing if the body says nothing.
    """
    text = body if isinstance(body, str) else ""
    if isinstance(body, dict):
        found = [body[key] for key in keys if isinstance(body.get(key), str)]
        text = ", ".join(dict.fromkeys(found))
    # Blotted out before it is cut, so that no secret survives by half.
    text = " ".join(conceal(text, secrets).split())
    text = "".join(filter(str.isprintable, text))
    if len(text) > QUOTE_LIMIT:
        text = f"{text[:QUOTE_LIMIT]}…"
    return f": “{text}”" if text else ""


def out_of_reach(error: Exception, *, where: str, timeout: float) -> EnvoyError | TransientError:
    """Turn a failure to get an answer into an error that says what to do about it.

    The text of `error` itself is not repeated: it may hold a proxy's password.

    Args:
        error: What `requests` raised.
        where: The address as the user knows it, such as "the token address".
        timeout: The seconds that were waited.
    """
    exceptions = requests.exceptions
    if isinstance(error, exceptions.SSLError):
        return RunEndedError(
            f"The certificate of {where} was not accepted; if a proxy of yours opens TLS, let "
            "REQUESTS_CA_BUNDLE name its CA bundle."
        )
    if isinstance(error, ValueError) and not isinstance(error, exceptions.InvalidHeader):
        return RunEndedError(f"There is no way to ask {where}; check that setting and HTTPS_PROXY.")
    if isinstance(error, exceptions.ProxyError):
        text = f"The proxy on the way to {where} did not let it through; check HTTPS_PROXY."
        return NoConnectionError(text)
    if isinstance(error, exceptions.ConnectTimeout) or _was_not_sent(error):
        return NoConnectionError(f"There is no connection to {where}.")
    if isinstance(error, exceptions.Timeout):
        return LostAnswerError(f"There was no answer from {where} within {timeout} seconds.")
    return LostAnswerError(f"The connection to {where} broke before the answer was complete.")


def _was_not_sent(error: Exception) -> bool:
    """Tell whether a connection never came about, so that nothing can have been sent."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError)
