"""The settings: what there is to set, and how it is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from singer_sdk import typing as th

if TYPE_CHECKING:
    from collections.abc import Mapping

API_URL = "https://api.envoy.com/v1"
TOKEN_URL = "https://api.envoy.com/oauth2/token"  # noqa: S105  # an address


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
