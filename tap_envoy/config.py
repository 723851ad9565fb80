"""The settings: their schema, how they are read, and one sentence for each fault."""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dotenv import dotenv_values
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from singer_sdk import typing as th

from tap_envoy.exceptions import EnvoyError, RunAbortedError, list_names, printable

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterator, Mapping

API_URL = "https://api.envoy.com/v1"
TOKEN_URL = "https://api.envoy.com/oauth2/token"  # noqa: S105  # an address

CREDENTIAL_SETS = (
    ("api_key",),
    ("client_id", "client_secret", "username", "password"),
    ("client_id", "client_secret", "refresh_token"),
)
"""The settings of each authentication method. The first complete set is used."""

ENV_PREFIX = "TAP_ENVOY_"

ALIASES = {"client_api_key": "api_key", "email": "username"}
"""Envoy's names of settings."""

QUOTED = re.compile(r"""\s*(".*"|'.*'|`.*`|[“„].*”|\u2018.*\u2019)\s*""", re.DOTALL)
"""A value in quotation marks, which an environment file or an editor leaves around it."""

NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8."""


def _setting(name: str, kind: Any, title: str, description: str, **more: Any) -> th.Property[Any]:
    if isinstance(kind, str):  # one of `FORMATS`
        kind = th.CustomType({"type": "string", "format": kind})
    return th.Property(name, kind, title=title, description=description, **more)


CONFIG_SCHEMA = th.PropertiesList(
    _setting("api_key", "credential", "Client API Key",
        "Key of the integration, in Envoy's Dev Dashboard. If set, it alone is used.", secret=True),
    _setting("client_id", "credential", "Client ID",
        "Client ID of the integration, from Envoy's Dev Dashboard."),
    _setting("client_secret", "credential", "Client secret",
        "Client secret of the integration, from Envoy's Dev Dashboard.", secret=True),
    _setting("username", "text", "Username",
        "Email address of the API user, a Global Admin who signs in with a password."),
    _setting("password", "text", "Password", "Password of the API user.", secret=True),
    _setting("refresh_token", "credential", "Refresh token",
        "From an earlier sign-in. Used before, or instead of, the password.", secret=True),
    _setting("token_cache", "text", "Token cache",
        "Private file that stores tokens between runs. If unset, every run signs in."),
    _setting("scopes", th.ArrayType(th.StringType), "Scopes",
        "Requested with a password. If unset, `token.refresh` and those of the selected streams."),
    _setting("api_url", "url", "API URL",
        "Base URL of the API. Must be https, or http on loopback.", default=API_URL),
    _setting("token_url", "url", "Token URL",
        "URL that issues tokens. Must be https, or http on loopback.", default=TOKEN_URL),
    _setting("start_date", th.DateTimeType, "Start date",
        "Earliest date or date-time of incremental streams. If unset, all data is read."),
    _setting("lookback_days", th.IntegerType(minimum=0, maximum=3650), "Lookback days",
        "Days before the bookmark that are read again, for changes such as sign-outs.", default=7),
    _setting("lookahead_days", th.IntegerType(minimum=0, maximum=3650), "Lookahead days",
        "Days after today up to which reservations are read.", default=60),
    _setting("page_size", th.IntegerType(minimum=1, maximum=100), "Page size",
        "Rows per request, 1 to 100.", default=100),
    _setting("requests_per_second", th.NumberType, "Requests per second",
        "Rate limit of the whole run. Envoy allows 10 requests per second.",
        default=9.5, minimum=0.01, maximum=1000),  # NumberType takes whole limits only
    _setting("request_timeout", th.IntegerType(minimum=1, maximum=3600), "Request timeout",
        "Seconds to wait for a connection or for data before a retry.", default=60),
    _setting("user_agent", "header-value", "User agent",
        "User-Agent header. If unset, `tap-envoy/` and its version."),
    _setting("emit_activate_version_messages", th.BooleanType, "Emit ACTIVATE_VERSION messages",
        "After each complete full-table stream, so that targets can remove rows that are gone.",
        default=False),
    additional_properties=False,
).to_dict()  # fmt: skip


def read_json(option: str, path: str) -> dict[str, Any]:
    """Return the JSON object in the file that an option such as `--state` names.

    Raises:
        EnvoyError: If there is none; the text is not repeated.
    """
    name = printable(path, 300)
    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            value = json.load(file)
    except OSError as error:
        raise EnvoyError(f"{option}: cannot read {name} ({error.strerror}).") from None
    except (RecursionError, ValueError) as error:
        reason = error if isinstance(error, json.JSONDecodeError) else "not UTF-8, or too deep"
        raise EnvoyError(f"{option}: {name} is not valid JSON ({reason}).") from None
    if not isinstance(value, dict):
        raise EnvoyError(f"{option}: {name} does not contain a JSON object.")
    return value


def load_config(
    config: Mapping[str, Any], schema: Mapping[str, Any], logger: logging.Logger, *, parse_env: bool
) -> dict[str, Any]:
    """Return valid settings: those of files and, with `parse_env`, of `TAP_ENVOY_*` variables.

    Raises:
        RunAbortedError: If settings are not valid; one sentence for each fault.
    """
    known = schema["properties"]
    if parse_env:
        config = {**config, **from_environment(known, logger)}
    # Meltano passes unset variables as empty text, and numbers as text.
    settings = {name: value for name, value in config.items() if value not in (None, "")}
    for name in settings.keys() & known.keys():
        if isinstance(settings[name], str):
            settings[name] = _parse(settings[name], known[name]["type"])
    if errors := list(validate_config(settings, schema)):
        raise RunAbortedError(" ".join(errors))
    return settings


def from_environment(known: Collection[str], logger: logging.Logger) -> dict[str, str]:
    """Return the settings in `TAP_ENVOY_*` variables, also those of `.env` in this directory.

    Variables that resemble a setting are returned by their names, which `validate_config` reports.
    A warning names all others, which may be those of a Kubernetes service.
    """
    names = {f"{ENV_PREFIX}{name.upper()}": name for name in known}
    config, foreign = {}, []
    environment = {variable: text for variable, text in os.environ.items() if text}
    for variable, text in (_read_dotenv(logger) | environment).items():
        if variable in names:
            config[names[variable]] = text
        # The SDK reads a log level, and Meltano writes such as TAP_ENVOY__SELECT.
        elif re.match("TAP_ENVOY_(?!LOGLEVEL$|_)", variable):
            if _similar_setting(variable, known):
                config[variable] = text
            else:
                foreign.append(variable)
    if foreign:
        logger.warning("Ignoring variables that are not settings: %s.", list_names(foreign))
    return config


def _read_dotenv(logger: logging.Logger) -> dict[str, str]:
    """Return the variables of `.env` in this directory; it may be of another program."""
    path = Path(".env")
    try:
        text = path.read_text("utf-8-sig") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        logger.warning("Ignoring `.env`, which is not a readable file of UTF-8 text.")
        text = ""
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value}


def _parse(text: str, types: list[str]) -> Any:
    """Return `text` as a value of one of the types, or unchanged."""
    if "string" in types:
        return text
    try:
        return json.loads(text.lower() if "boolean" in types else text)
    except (ValueError, RecursionError):
        is_list = "array" in types and not QUOTED.fullmatch(text)
        return [part.strip() for part in text.split(",")] if is_list else text


def validate_config(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each fault in `config`; it never contains a value."""
    known = schema["properties"]
    meant = {name: _similar_setting(name, known) for name in config.keys() - known.keys()}
    for name, similar in sorted(meant.items()):
        advice = f"did you mean `{similar}`?" if similar else "remove it."
        yield f"Unknown setting `{printable(name)}`; {advice}"
    for name, definition in known.items():
        if name in config and (fault := _fault(name, config[name], definition)):
            yield f"Setting `{name}` {fault}."
    # A credential under a wrong name has been reported.
    yield from _missing_credentials({*config, *meant.values()})


def _similar_setting(name: str, known: Collection[str]) -> str | None:
    """Return the setting that an unknown name, also of a variable, probably means."""
    similar = most_similar(name.removeprefix(ENV_PREFIX), [*known, *ALIASES])
    return ALIASES.get(similar, similar) if similar else None


def most_similar(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most similar, apart from case and separators."""
    name, *others = (re.sub(r"\W|_", "", x).lower() for x in (name, *known))
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.75)
    return [*known][others.index(close[0])] if close else None


def _fault(name: str, value: Any, definition: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value, from the schema alone: jsonschema's own text quotes it."""
    text = value if isinstance(value, str) else ""
    if NOT_UTF8.search(text):
        return "is not encoded in UTF-8; check the encoding of the variable or file"
    if QUOTED.fullmatch(text) and name != "password":
        return "is enclosed in quotes; remove them"
    validator = Draft202012Validator(definition, format_checker=_FORMAT_CHECKER)
    try:
        error = best_match(validator.iter_errors(value))
    except AttributeError:  # the SDK's schema of `__else__` is not valid
        return "must have `__NULL__` as `__else__`, or none"
    if error is None or error.validator == "format":
        return FORMATS[error.validator_value][1] if error else None
    (kind,) = set(definition["type"]) - {"null"}
    if kind == "object" and error.absolute_path:
        return f"is not valid at `{printable('.'.join(map(str, error.absolute_path)))}`"
    limits = " from {minimum} to {maximum}".format(**definition) if "maximum" in definition else ""
    return f"must be {'an' if kind[0] in 'aio' else 'a'} {kind}{limits}"


def _missing_credentials(given: Collection[str | None]) -> Iterator[str]:
    """Yield one sentence if no set of credentials is complete, about the nearest ones."""
    missing = {names: [x for x in names if x not in given] for names in CREDENTIAL_SETS}
    if not all(missing.values()):
        return
    begun = [left for names, left in missing.items() if len(left) < len(names)]
    fewest = min(map(len, begun), default=0)
    nearest = [left for left in begun if len(left) == fewest] or missing.values()
    choices = ", or ".join(" and ".join(f"`{name}`" for name in left) for left in nearest)
    yield f"{'Incomplete credentials: also' if begun else 'No credentials:'} set {choices}."


FORMATS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "credential": (re.compile("[!-~]+").fullmatch,  # RFC 6749
        "contains spaces, line breaks or characters other than ASCII; copy it again"),
    "date-time": (datetime.fromisoformat,
        "must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z"),
    "header-value": (re.compile("[!-~]([ -~]*[!-~])?").fullmatch,
        "must be printable ASCII without spaces around it, because it is sent in an HTTP header"),
    "text": (re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+").fullmatch,
        "contains a line break or another control character; remove it"),
    "url": (re.compile(
        r"(?!.*[\s@?#\\])(https://[^/\[\]]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/.*)?"
        ).fullmatch,
        "must be an https URL, or http on loopback, without user name, query and fragment"),
}  # fmt: skip
"""Formats of text: what is true of a text that has it, and what to say of others."""

_FORMAT_CHECKER = FormatChecker(formats=())
for _name, (_has_format, _) in FORMATS.items():
    _FORMAT_CHECKER.checks(_name, raises=(TypeError, ValueError))(_has_format)
