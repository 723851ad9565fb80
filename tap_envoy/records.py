"""Records made to match their schema: types, timestamps, unknown properties, secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

Record = dict[str, Any]

Converter = Callable[[Any], Any]
"""Converts a value to the schema's type, or returns None."""

SECRET_PROPERTIES = ("secretToken", "registrationURL")
"""Properties, at any depth, whose holder can act on someone's behalf; they are always removed."""

MAX_NESTING = 100
"""Levels of nested JSON in a record."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_MILLISECONDS = 100_000_000_000
"""Numbers from here on are milliseconds since 1970, smaller ones seconds."""


def format_timestamp(time: datetime) -> str:
    """Return a time as the tap emits it: UTC with milliseconds, such as 2024-05-17T14:39:44.185Z.

    Texts of this one format compare like the times. Finer times are cut, so that a row at a
    bookmark is read again and not missed.
    """
    plain = time.astimezone(UTC).replace(tzinfo=None)
    return f"{plain.isoformat(timespec='milliseconds')}Z"


def normalize_timestamp(value: Any) -> str | None:
    """Return a timestamp in that format, or None if it cannot be read.

    Args:
        value: ISO-8601 text, also with a space, ` UTC` or lower-case letters, in UTC if it has no
            zone; or a number of seconds or milliseconds since 1970 (envoy-api: inferred).
    """
    try:
        if isinstance(value, str):
            # As Envoy writes it, which is how it stays.
            if CANONICAL.fullmatch(value):
                datetime.fromisoformat(value)
                return value
            return format_timestamp(_parse_text(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return format_timestamp(_from_epoch(value))
    except (OverflowError, ValueError):
        pass
    return None


CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


def _parse_text(text: str) -> datetime:
    if text.isdecimal() and len(text) in {10, 13}:
        return _from_epoch(int(text))
    time = datetime.fromisoformat(text.strip().upper().removesuffix("UTC").rstrip())
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _from_epoch(number: float) -> datetime:
    if abs(number) < FIRST_MILLISECONDS:
        return EPOCH + timedelta(seconds=number)
    return EPOCH + timedelta(milliseconds=number)


def drop_secrets(value: Any) -> Any:
    """Return decoded JSON without secret properties.

    Raises:
        ValueError: If it is nested too deeply.
    """
    return _drop_secrets(value, MAX_NESTING)


def _drop_secrets(value: Any, depth: int) -> Any:
    if not depth:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {
            name: _drop_secrets(inner, depth - 1)
            for name, inner in value.items()
            if name not in SECRET_PROPERTIES
        }
    if isinstance(value, list):
        return [_drop_secrets(inner, depth - 1) for inner in value]
    return value


class RecordConformer:
    """Makes records match a JSON schema, in place.

    Attributes:
        unknown_properties: Names of root properties that records had and the schema lacks.
        mismatched_properties: Names of properties with a value that could not be converted.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        known: Container[str] = (),
        mismatched: set[str] | None = None,
    ) -> None:
        """Compile a schema.

        Args:
            schema: The schema of an object.
            known: Root properties that are not reported as unknown, although `schema` lacks them.
            mismatched: The set that collects the names of mismatched properties.
        """
        self.unknown_properties: set[str] = set()
        self.mismatched_properties: set[str] = set() if mismatched is None else mismatched
        self._is_open = bool(schema.get("additionalProperties"))
        self._known = known
        self._converters = {
            name: self._converter(inner) for name, inner in schema["properties"].items()
        }

    def conform(self, record: dict[str, Any]) -> dict[str, Any]:
        """Make `record` match the schema, and return it."""
        converters = self._converters
        unknown = []
        for name, value in record.items():
            converter = converters.get(name)
            if converter is None:
                unknown.append(name)
            elif type(value) not in converter[0]:
                record[name] = converted = converter[1](value)
                if converted is None:
                    self.mismatched_properties.add(name)
        if unknown and not self._is_open:
            for name in unknown:
                del record[name]
            self.unknown_properties.update(name for name in unknown if name not in self._known)
        return record

    def _converter(self, definition: Mapping[str, Any]) -> tuple[frozenset[type], Converter]:
        """Return the types that need no conversion, and the converter for all others."""
        types = definition.get("type", [])
        if "object" in types:
            inner = RecordConformer(
                {"properties": {}, **definition}, mismatched=self.mismatched_properties
            )
            return frozenset({type(None)}), partial(_to_object, inner)
        if "array" in types:
            items = self._converter(definition.get("items", {}))
            return frozenset({type(None)}), partial(_to_array, *items)
        if definition.get("format") == "date-time":
            return frozenset({type(None)}), normalize_timestamp
        return next((plain for name, plain in PLAIN.items() if name in types), PLAIN["string"])


def _to_object(inner: RecordConformer, value: Any) -> Any:
    return inner.conform(value) if isinstance(value, dict) else None


def _to_array(items: frozenset[type], convert: Converter, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    values = [item if type(item) in items else convert(item) for item in values]
    return [item for item in values if item is not None]


def to_boolean(value: Any) -> bool | None:
    """Return a boolean, also from text or a number, or None if it is none."""
    text = str(value).lower() if isinstance(value, str | int) else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(text)


def _to_integer(value: Any) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and INTEGER.fullmatch(value):
        return int(value)
    return None


def _to_number(value: Any) -> int | float | None:
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return None
    if INTEGER.fullmatch(value):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,15})?([eE][+-]?\d{1,3})?", re.ASCII)


def _to_string(value: Any) -> str:
    return msgspec.json.encode(value).decode()


PLAIN: dict[str, tuple[frozenset[type], Converter]] = {
    "boolean": (frozenset({type(None), bool}), to_boolean),
    "integer": (frozenset({type(None), int}), _to_integer),
    "number": (frozenset({type(None), int, float}), _to_number),
    "string": (frozenset({type(None), str}), _to_string),
}
"""For each plain type of JSON Schema, the types that need no conversion, and the converter."""
