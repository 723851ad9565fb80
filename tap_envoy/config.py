"""The settings: their schema, how they are read from the environment, and their validation."""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import json
import logging
import math
import re
import unicodedata
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dotenv import find_dotenv, load_dotenv
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError, best_match
from singer_sdk import typing as th
from singer_sdk.exceptions import ConfigValidationError

from tap_envoy.exceptions import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from collections.abc import Set as AbstractSet

API_URL = "https://api.envoy.com/v1"
TOKEN_URL = "https://api.envoy.com/oauth2/token"  # noqa: S105  # an address

CREDENTIAL_SETS = (
    ("api_key",),
    ("client_id", "client_secret", "username", "password"),
    ("client_id", "client_secret", "refresh_token"),
)
"""The settings of each authentication method. The first complete set is used."""

ENV_PREFIX = "TAP_ENVOY_"

# Read by the SDK. Meltano adds variables with a second underscore, such as TAP_ENVOY__SELECT.
_OTHER_VARIABLES = {"TAP_ENVOY_LOGLEVEL"}

_ALIASES = {
    "authurl": "token_url",
    "clientapikey": "api_key",
    "email": "username",
    "ratelimit": "requests_per_second",
    "token": "api_key",
}
"""Names used elsewhere for a setting, without separators, where spelling alone misleads."""


class Credential(th.StringType):
    """A key, secret or token: ASCII without spaces, as RFC 6749 and HTTP headers need it."""

    string_format = "credential"


class HeaderValue(th.StringType):
    """The value of an HTTP header."""

    string_format = "header-value"


class SafeUrl(th.StringType):
    """A URL that credentials can be sent to."""

    string_format = "safe-url"


class Scope(th.StringType):
    """One OAuth scope."""

    string_format = "scope"


class SingleLine(th.StringType):
    """Text without line breaks and other control characters."""

    string_format = "single-line"


CONFIG_SCHEMA = th.PropertiesList(
    th.Property(
        "api_key",
        Credential,
        title="Client API Key",
        description=(
            "Client API Key of the integration, from the Envoy Dev Dashboard. If set, the other "
            "credentials are not used."
        ),
        secret=True,
    ),
    th.Property(
        "client_id",
        Credential,
        title="Client ID",
        description="Client ID of the integration, from the Envoy Dev Dashboard.",
    ),
    th.Property(
        "client_secret",
        Credential,
        title="Client secret",
        description="Client secret of the integration, from the Envoy Dev Dashboard.",
        secret=True,
    ),
    th.Property(
        "username",
        SingleLine,
        title="Username",
        description="Email address of the API user, a Global Admin who signs in with a password.",
    ),
    th.Property(
        "password",
        SingleLine,
        title="Password",
        description="Password of the API user.",
        secret=True,
    ),
    th.Property(
        "refresh_token",
        Credential,
        title="Refresh token",
        description=(
            "Refresh token from an earlier sign-in. Replaces the username and password, or is "
            "tried before them."
        ),
        secret=True,
    ),
    th.Property(
        "token_cache",
        SingleLine,
        title="Token cache",
        description=(
            "File that stores tokens between runs, readable by its owner only. If unset, every "
            "run signs in."
        ),
    ),
    th.Property(
        "scopes",
        th.ArrayType(Scope),
        title="Scopes",
        description=(
            "OAuth scopes requested with the password grant. If unset: `token.refresh` and the "
            "scopes of the selected streams."
        ),
    ),
    th.Property(
        "api_url",
        SafeUrl,
        title="API URL",
        description="Base URL of the Envoy API, version 1. Must be https, or http on loopback.",
        default=API_URL,
    ),
    th.Property(
        "token_url",
        SafeUrl,
        title="Token URL",
        description="URL that issues access tokens. Must be https, or http on loopback.",
        default=TOKEN_URL,
    ),
    th.Property(
        "start_date",
        th.DateTimeType,
        title="Start date",
        description=(
            "Earliest date or date-time to read in incremental streams. If unset, all data is "
            "read. Full-table streams ignore it."
        ),
    ),
    th.Property(
        "lookback_days",
        th.IntegerType(minimum=0, maximum=3650),
        title="Lookback days",
        description=(
            "Days before the bookmark from which incremental streams are read again, to pick up "
            "later changes such as sign-outs."
        ),
        default=7,
    ),
    th.Property(
        "lookahead_days",
        th.IntegerType(minimum=0, maximum=3650),
        title="Lookahead days",
        description="Days after today up to which reservations are read.",
        default=60,
    ),
    th.Property(
        "page_size",
        th.IntegerType(minimum=1, maximum=100),
        title="Page size",
        description="Rows per request, 1 to 100.",
        default=100,
    ),
    th.Property(
        "requests_per_second",
        th.NumberType,
        title="Requests per second",
        description="Rate limit, applied across all streams. Envoy allows 10 requests per second.",
        default=9.5,
        minimum=0.01,  # NumberType takes whole limits only
        maximum=1000,
    ),
    th.Property(
        "request_timeout",
        th.IntegerType(minimum=1, maximum=3600),
        title="Request timeout",
        description="Seconds to wait for a connection or for data before a request is retried.",
        default=60,
    ),
    th.Property(
        "user_agent",
        HeaderValue,
        title="User agent",
        description="User-Agent header of each request. If unset: `tap-envoy/` and its version.",
    ),
    th.Property(
        "emit_activate_version_messages",
        th.BooleanType,
        title="Emit ACTIVATE_VERSION messages",
        description=(
            "Send an ACTIVATE_VERSION message after each complete full-table stream, so that "
            "targets can delete rows that no longer exist in Envoy."
        ),
        default=False,
    ),
    additional_properties=False,
).to_dict()


def from_environment(schema: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that `environ` contains as `TAP_ENVOY_<NAME>`.

    Text is parsed according to the setting's type; a value that cannot be parsed is returned as
    text. An unknown variable is returned under its full name. `validate_config` reports both.

    Args:
        schema: JSON schema of all settings, including those of the SDK.
        environ: Environment variables. Empty ones count as unset.
    """
    names = {f"{ENV_PREFIX}{name.upper()}": name for name in schema["properties"]}
    config: dict[str, Any] = {}
    for variable, text in environ.items():
        if not text or not variable.startswith(ENV_PREFIX):
            continue
        if name := names.get(variable):
            config[name] = _parse(text, schema["properties"][name].get("type", []))
        elif variable not in _OTHER_VARIABLES and not variable.startswith(f"{ENV_PREFIX}_"):
            config[variable] = text
    return config


def load_dotenv_file() -> None:
    """Add the variables of the nearest `.env` file, in this folder or above, to the environment.

    Variables that are already set keep their values.

    Raises:
        ConfigValidationError: If the file cannot be read, with the reason.
    """
    path = ".env"

    def name_file(record: logging.LogRecord) -> bool:
        record.msg, record.args = f"{path}: {record.getMessage()}", ()
        return True

    logger = logging.getLogger("dotenv.main")
    logger.addFilter(name_file)
    try:
        path = find_dotenv(usecwd=True)
        if path:
            load_dotenv(path, encoding="utf-8-sig")  # without the mark that some editors add
    except UnicodeDecodeError:
        reason = "is not encoded in UTF-8; save it as UTF-8"
    except ValueError:
        reason = "contains a character or name that environment variables cannot have; remove it"
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check that it exists and is readable"
    else:
        return
    finally:
        logger.removeFilter(name_file)
    raise ConfigValidationError("Invalid .env file", errors=[f"The file {path} {reason}."])


def drop_unset(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` without null and empty values, such as unset variables in `meltano.yml`."""
    return {name: value for name, value in config.items() if value is not None and value != ""}


def parse_numbers(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with the values of `number` settings as `int` or `float`.

    Meltano passes them as text, and the SDK reads them from files as `Decimal`.
    """
    numbers = {
        n for n, definition in schema["properties"].items() if "number" in definition["type"]
    }
    return {
        name: _parse(str(value), ["number"])
        if name in numbers and isinstance(value, str | Decimal)
        else value
        for name, value in config.items()
    }


def validate_config(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each fault in `config`; it never contains a value.

    Args:
        config: The settings without unset ones, see `drop_unset`.
        schema: JSON schema of all settings, including those of the SDK.
    """
    known = schema["properties"]
    similar = {name: _most_similar(name, known) for name in config if name not in known}
    for name, setting in similar.items():
        yield _describe_unknown(name, setting)
    for name, definition in known.items():
        if name in config:
            validator = _Validator(definition, format_checker=_FORMATS)
            if error := best_match(validator.iter_errors(config[name])):
                yield f"Setting `{name}` {_requirement(error, definition)}."
    if _needs_faker(config) and not importlib.util.find_spec("faker"):
        yield "Stream maps with `fake` need the package Faker: install `tap-envoy[faker]`."
    # A credential under a wrong name has been reported.
    yield from _missing_credentials(config.keys() | similar.values())


def _parse(text: str, types: list[str]) -> Any:
    """Return `text` as a value of one of the types, or unchanged."""
    if "string" in types:
        return text
    if "boolean" in types and text.lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        return text.lower() in {"1", "true", "yes", "on"}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [part.strip() for part in text.split(",")] if "array" in types else text


def _requirement(error: ValidationError, definition: Mapping[str, Any]) -> str:
    """Return what the setting must be, from the schema alone: `error.message` quotes the value."""
    if error.validator == "format":
        return str(error.cause)
    (kind,) = set(definition["type"]) - {"null"}
    match kind:
        case "string":
            return "must be a string; put it in quotes"
        case "array":
            return "must be a list of strings"
        case "object":
            path = ".".join(map(str, error.absolute_path))
            return f"is not valid at `{printable(path)}`" if path else "must be an object"
        case "boolean":
            text = "must be true or false"
        case _:
            text = "must be an integer" if kind == "integer" else "must be a number"
            if "maximum" in definition:
                text += f" from {definition['minimum']} to {definition['maximum']}"
    quoted = isinstance(error.instance, str) and not isinstance(_parse(error.instance, [kind]), str)
    return f"{text}, without quotes" if quoted else text


def _most_similar(name: str, known: Collection[str]) -> str | None:
    """Return the setting that an unknown name probably means."""
    squeezed = re.sub("[^a-z]", "", name.removeprefix(ENV_PREFIX).lower())
    names = {setting.replace("_", ""): setting for setting in known} | _ALIASES
    similar = difflib.get_close_matches(squeezed, names, n=1)
    return names[similar[0]] if similar else None


def _describe_unknown(name: str, similar: str | None) -> str:
    """Return a sentence about a name that is no setting."""
    shown = printable(name)
    if name.removeprefix(ENV_PREFIX).lower() == "batch_config":
        return f"Setting `{shown}` is not available: BATCH is not supported."
    if similar is None:
        return f"Unknown setting `{shown}`; remove it."
    variable = f"{ENV_PREFIX}{similar.upper()}"
    hint = variable if name.startswith(ENV_PREFIX) and name != variable else similar
    return f"Unknown setting `{shown}`; did you mean `{hint}`?"


def _missing_credentials(given: AbstractSet[str | None]) -> Iterator[str]:
    """Yield one sentence if no set of credentials is complete, about the nearest ones."""
    missing = [[name for name in names if name not in given] for names in CREDENTIAL_SETS]
    if [] in missing:
        return
    sizes = map(len, CREDENTIAL_SETS)
    begun = [names for names, size in zip(missing, sizes, strict=True) if len(names) < size]
    if begun:
        fewest = min(map(len, begun))
        nearest = [names for names in begun if len(names) == fewest]
        yield f"Incomplete credentials: also set {_alternatives(nearest)}."
    else:
        yield f"No credentials: set {_alternatives(missing)}."


def _alternatives(choices: list[list[str]]) -> str:
    quoted = [[f"`{name}`" for name in names] for names in choices]
    return ", or ".join(re.sub("(.*), ", r"\1 and ", ", ".join(names)) for names in quoted)


def _needs_faker(config: Mapping[str, Any]) -> bool:
    maps = config.get("stream_maps")
    streams = maps.values() if isinstance(maps, dict) else ()
    texts = [text for stream in streams if isinstance(stream, dict) for text in stream.values()]
    return "faker_config" in config or any(
        isinstance(text, str) and re.search(r"\bfake\.", text) for text in texts
    )


def _is_integer(_: Any, value: object) -> bool:
    """Return whether `value` is an int; JSON Schema also accepts 5.0."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: object) -> bool:
    """Return whether `value` is a finite number; Python reads NaN and Infinity from JSON."""
    is_decimal = isinstance(value, float | Decimal) and math.isfinite(value)
    return is_decimal or _is_integer(checker, value)


def _check_any_of(validator: Any, schemas: list[Any], *args: Any) -> Iterator[ValidationError]:
    """Check `anyOf`, without the bare "null" in the SDK's schema of `__else__` in stream maps."""
    schemas = [schema for schema in schemas if isinstance(schema, dict)]
    yield from Draft202012Validator.VALIDATORS["anyOf"](validator, schemas, *args)


_Validator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"anyOf": _check_any_of},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)

_FORMATS = FormatChecker(formats=())


class _FormatError(ValueError):
    """Says what is wrong with a text, without quoting it."""


@_FORMATS.checks("single-line", raises=_FormatError)
def _check_single_line(value: object) -> bool:
    if isinstance(value, str) and {"Cc", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, value)):
        raise _FormatError("contains a line break or another control character; remove it")
    return True


@_FORMATS.checks("header-value", raises=_FormatError)
def _check_header_value(value: object) -> bool:
    if isinstance(value, str) and not _is_header_value(value):
        raise _FormatError(
            "must be printable ASCII without spaces around it, because it is sent in an HTTP header"
        )
    return True


def _is_header_value(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


@_FORMATS.checks("credential", raises=_FormatError)
def _check_credential(value: object) -> bool:
    if not isinstance(value, str):
        return True
    bare = value.strip()
    if bare != bare.strip("\"'`\u2018\u2019\u201c\u201d"):
        raise _FormatError("is enclosed in quotes; remove them")
    if bare.lower().startswith("bearer "):
        raise _FormatError("starts with `Bearer`; remove that word")
    if any(map(str.isspace, value)):
        raise _FormatError("contains spaces or line breaks; remove them")
    if not _is_header_value(value):
        raise _FormatError("contains characters other than printable ASCII; copy it again")
    return True


@_FORMATS.checks("scope", raises=_FormatError)
def _check_scope(value: object) -> bool:
    if isinstance(value, str) and not re.fullmatch(r"[!-+\--~]+", value):  # no comma, no space
        raise _FormatError("must be a list of scopes such as `locations.read`")
    return True


@_FORMATS.checks("date-time", raises=_FormatError)
def _check_date_time(value: object) -> bool:
    try:
        return not isinstance(value, str) or bool(datetime.fromisoformat(value))
    except ValueError:
        raise _FormatError("must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z") from None


@_FORMATS.checks("safe-url", raises=_FormatError)
def _check_safe_url(value: object) -> bool:
    if isinstance(value, str) and not _is_safe_url(value):
        raise _FormatError(
            "must be an https URL, or http on loopback, without user name, query and fragment"
        )
    return True


def _is_safe_url(value: str) -> bool:
    if not value.isprintable() or set(" @?#\\") & set(value):
        return False
    try:
        url = urlsplit(value)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return False
    return bool(host) and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
