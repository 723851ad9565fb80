"""The settings: what there is to set, and the checks that end a bad start with a sentence."""

from __future__ import annotations

import difflib
import ipaddress
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from singer_sdk import typing as th

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API_URL = "https://api.envoy.com/v1"
TOKEN_URL = "https://api.envoy.com/oauth2/token"  # noqa: S105  # an address

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


def _setting(name: str, kind: Any, title: str, description: str, **more: Any) -> th.Property[Any]:
    return th.Property(name, kind, title=title, description=description, **more)


SCHEMA = th.PropertiesList(
    _setting(
        "api_key",
        th.StringType,
        "Client API Key",
        "The Client API Key of your integration, from Envoy's Dev Dashboard. The simplest way in; "
        "wins over the others when set.",
        secret=True,
    ),
    _setting(
        "client_id",
        th.StringType,
        "Client ID",
        "The client id of your integration, from Envoy's Dev Dashboard.",
    ),
    _setting(
        "client_secret",
        th.StringType,
        "Client secret",
        "The client secret of your integration, from Envoy's Dev Dashboard.",
        secret=True,
    ),
    _setting(
        "username",
        th.StringType,
        "API user",
        "The e-mail address of the API user (a Global Admin).",
    ),
    _setting(
        "password",
        th.StringType,
        "API user's password",
        "The password of the API user.",
        secret=True,
    ),
    _setting(
        "refresh_token",
        th.StringType,
        "Refresh token",
        "A refresh token from an earlier login, instead of the API user, or tried before it.",
        secret=True,
    ),
    _setting(
        "token_cache",
        th.StringType,
        "Token cache",
        "A file in which tokens outlive a run, made for you alone. Unset: each run logs in.",
    ),
    _setting(
        "scopes",
        th.ArrayType(th.StringType),
        "Scopes",
        "Scopes to ask for with the password grant. Unset: `token.refresh` and what the selected "
        "streams need.",
    ),
    _setting(
        "api_url",
        th.StringType,
        "API address",
        "Address of Envoy's v1 API; https, or http on loopback.",
        default=API_URL,
    ),
    _setting(
        "token_url",
        th.StringType,
        "Token address",
        "Address that issues access tokens; https, or http on loopback.",
        default=TOKEN_URL,
    ),
    _setting(
        "start_date",
        th.DateTimeType,
        "Start date",
        "Date or date-time of the earliest data to read in incremental streams. Unset: all there "
        "is. The other streams are always read whole.",
    ),
    _setting(
        "lookback_days",
        th.IntegerType,
        "Days to look back",
        "How many days incremental streams read back behind their bookmark, for what changes "
        "after a row is made, such as a sign-out; 0 to 3650.",
        default=7,
    ),
    _setting(
        "lookahead_days",
        th.IntegerType,
        "Days to look ahead",
        "How many days ahead reservations are read; 0 to 3650.",
        default=60,
    ),
    _setting(
        "page_size",
        th.IntegerType,
        "Page size",
        "Rows to ask for in one request, 1 to 100.",
        default=100,
    ),
    _setting(
        "requests_per_second",
        th.IntegerType,
        "Requests a second",
        "How many requests leave each second, evenly, 1 to 1000; Envoy allows 10.",
        default=8,
    ),
    _setting(
        "request_timeout",
        th.IntegerType,
        "Request timeout",
        "Seconds to wait for a connection, and for an answer, before trying again; 1 to 3600.",
        default=60,
    ),
    _setting(
        "user_agent",
        th.StringType,
        "User agent",
        "How the tap names itself to Envoy. Unset: `tap-envoy/` and its version.",
    ),
    _setting(
        "emit_activate_version_messages",
        th.BooleanType,
        "Emit ACTIVATE_VERSION",
        "End each full read with an ACTIVATE_VERSION message, so that a target which knows it "
        "removes rows that are gone from Envoy.",
        default=False,
    ),
    additional_properties=False,
).to_dict()


def from_environment(schema: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings found in `environ` as `TAP_ENVOY_<NAME>`, empty ones left out.

    A value that is not what the schema says stays as it is, for `problems` to name.
    """
    found: dict[str, Any] = {}
    for name, definition in schema["properties"].items():
        text = environ.get(f"TAP_ENVOY_{name.upper()}", "")
        if text:
            found[name] = _parse(text, definition.get("type", []))
    return found


def _parse(text: str, types: list[str]) -> Any:
    if "string" in types:
        return text
    if "boolean" in types and text.lower() in {"1", "yes", "on", "0", "no", "off"}:
        return text.lower() in {"1", "yes", "on"}
    try:
        return json.loads(text.lower() if "boolean" in types else text)
    except ValueError:
        if "array" in types:
            return [part.strip() for part in text.split(",")]
        return text


def without_empty(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` without what is unset: an unset variable in meltano.yml becomes `""`."""
    return {name: value for name, value in config.items() if value is not None and value != ""}


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
