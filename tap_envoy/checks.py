"""The checks of the settings, which end a bad start with a sentence."""

from __future__ import annotations

import difflib
import ipaddress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tap_envoy.settings import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WAYS_IN = (
    ("api_key",),
    ("client_id", "client_secret", "username", "password"),
    ("client_id", "client_secret", "refresh_token"),
)
"""The complete sets of credentials, in the order in which one is chosen."""

RANGES = {
    "lookback_days": (0, 3650),
    "lookahead_days": (0, 3650),
    "page_size": (1, 100),
    "requests_per_second": (1, 1000),
    "request_timeout": (1, 3600),
}
"""Lowest and highest value of each integer setting."""


def problems(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with `config`; never a secret's value.

    Args:
        config: The settings as given, without empty ones.
        schema: The JSON schema of all settings, those of the SDK included.
    """
    known = schema["properties"]
    for name in config.keys() - known.keys():
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean `{close[0]}`" if close else ""
        yield f"There is no setting `{_printable(name)}`{hint}."
    for name in SCHEMA["properties"]:
        if name in config:
            problem = _problem(name, config[name], SCHEMA["properties"][name]["type"])
            if problem:
                yield f"The setting `{name}` {problem}."
    yield from _missing_credentials(config)


def _problem(name: str, value: Any, types: list[str]) -> str | None:
    """Return what the setting `name` must be, if `value` is not that."""
    if "integer" in types:
        low, high = RANGES[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = whole and low <= value <= high
        return None if fits else f"must be a whole number from {low} to {high}"
    if "boolean" in types:
        return None if isinstance(value, bool) else "must be true or false"
    if "array" in types:
        fits = isinstance(value, list) and all(map(_is_scope, value))
        return None if fits else "must be a list of scopes such as `locations.read`"
    return _text_problem(name, value)


def _text_problem(name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be text; put it in quotes"
    if not value.isprintable():
        return "holds a line break or another character that cannot be seen"
    if name in {"api_url", "token_url"} and not _is_safe_address(value):
        return "must be an https address, or an http one on loopback"
    if name == "start_date" and not _is_date(value):
        return "must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z"
    if name in {"api_key", "user_agent"} and not value.isascii():
        return "is sent in a header and must be plain ASCII"
    return None


def _missing_credentials(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence if no way in is complete, about the way that is nearest to it."""
    if any(all(name in config for name in way) for way in WAYS_IN):
        return
    begun = [way for way in WAYS_IN if any(name in config for name in way)]
    if not begun:
        yield (
            "No credentials: set `api_key`, or `client_id`, `client_secret`, `username` and "
            "`password`, or `client_id`, `client_secret` and `refresh_token`."
        )
        return
    gaps = [[f"`{name}`" for name in way if name not in config] for way in begun]
    fewest = min(map(len, gaps))
    choices = [" and ".join(gap) for gap in gaps if len(gap) == fewest]
    yield f"The credentials are not complete: also set {', or '.join(choices)}."


def _is_scope(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value != "" and "," not in value


def _is_safe_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.username or parts.password or parts.query or parts.fragment or " " in value:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _loops(host)))


def _loops(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_date(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _printable(name: str) -> str:
    return "".join(filter(str.isprintable, name))[:50]
