"""What can go wrong, told in one sentence for the person who runs the tap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from singer_sdk.exceptions import FatalAPIError, RetriableAPIError
from urllib3.exceptions import NewConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterable

QUOTE_LIMIT = 200
"""Characters of somebody else's text that an error may repeat."""

MESSAGE_KEYS = ("message", "error", "error_description", "detail", "title")
"""Where an error body may hold its message; the shape of v1's is not documented."""


class EnvoyError(FatalAPIError):
    """Asking again is no use. Its text is one sentence: what is wrong and what to do."""


class TransientError(RetriableAPIError):
    """Asking again may help.

    Attributes:
        wait: Seconds that the server asked to be left alone, or None.
    """

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class LostAnswerError(TransientError):
    """The request was sent, its answer never arrived: it may have had its effect."""


def conceal(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every one of `secrets` blotted out, the longest first."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def quote(payload: Any, secrets: Iterable[str]) -> str:
    """Return what an error body says, short, on one line and without secrets.

    Args:
        payload: The decoded body, or its text where it is not JSON.
        secrets: Strings that must not be seen.

    Returns:
        The text behind a colon and a space, or nothing if the body says nothing.
    """
    if isinstance(payload, dict):
        found = [payload[key] for key in MESSAGE_KEYS if isinstance(payload.get(key), str)]
        text = ", ".join(dict.fromkeys(found))
    else:
        text = payload if isinstance(payload, str) else ""
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
        return EnvoyError(
            f"The certificate of {where} was not accepted; if a proxy of yours opens TLS, let "
            "REQUESTS_CA_BUNDLE name its CA bundle."
        )
    if isinstance(error, exceptions.InvalidURL):
        return EnvoyError(f"The setting for {where} is not an address that can be asked.")
    if isinstance(error, exceptions.ProxyError):
        text = f"The proxy on the way to {where} did not let it through; check HTTPS_PROXY."
        return TransientError(text)
    if isinstance(error, exceptions.ConnectTimeout) or _was_not_sent(error):
        return TransientError(f"There is no connection to {where}.")
    if isinstance(error, exceptions.Timeout):
        return LostAnswerError(f"There was no answer from {where} within {timeout} seconds.")
    return LostAnswerError(f"The connection to {where} broke before the answer was complete.")


def _was_not_sent(error: Exception) -> bool:
    """Tell whether a connection never came about, so that nothing can have been sent."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError)
