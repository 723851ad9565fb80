"""Records made to match their schema; what it does not declare is kept in `additionalFields`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

Record = dict[str, Any]

Schema = Mapping[str, Any]

ADDITIONAL_FIELDS = "additionalFields"
"""The column for what the schema does not declare, or what cannot be converted to its type."""

SECRET_NAME = re.compile("registrationURL|secret|token|password", re.IGNORECASE)
"""Names of properties, at any depth, whose holder can act on someone's behalf: always removed."""

SUSPECTS = (
    *(b"registrationurl", b"secret", b"token", b"password"),
    *(b"\\u0000", b"\\u004", b"\\u005", b"\\u006", b"\\u007"),  # also letters as escapes
)
"""What a body contains, in lower case, if it may contain such a name or U+0000."""

NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,15})?([eE][+-]?\d{1,3})?", re.ASCII)
CANONICAL_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


TIME_BOUNDS = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC))
"""Clamp times to this range so that date arithmetic cannot overflow."""


def format_timestamp(time: datetime) -> str:
    """Return a time as the tap emits it: UTC with milliseconds, such as 2024-05-17T14:39:44.185Z.

    Texts of this one format compare like the times. Finer times are cut, so that a row at a
    bookmark is read again and not missed.
    """
    plain = time.astimezone(UTC).replace(tzinfo=None)
    return f"{plain.isoformat(timespec='milliseconds')}Z"


def normalize_timestamp(value: Any) -> str | None:
    """Return ISO-8601 text in that format, or None if it is none.

    The text is in UTC if it names no zone, and may end with ` UTC`, as in Envoy's webhooks.
    """
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value.strip().upper().removesuffix("UTC").rstrip())
        if CANONICAL_TIMESTAMP.fullmatch(value):
            return value
        return format_timestamp(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (OverflowError, ValueError):
        return None


def parse_time(text: str) -> datetime:
    """Return an ISO-8601 time, in UTC where it has no zone, clamped to `TIME_BOUNDS`."""
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return min(max(time, TIME_BOUNDS[0]), TIME_BOUNDS[1])


def needs_cleaning(body: bytes) -> bool:
    """Return whether a JSON text may contain what `clean` removes."""
    lowered = body.lower()
    return any(word in lowered for word in SUSPECTS)


def clean(value: Any) -> Any:
    """Return decoded JSON without secrets, and without U+0000, which PostgreSQL refuses."""
    if isinstance(value, dict):
        named = ((name.replace("\0", ""), inner) for name, inner in value.items())
        return {name: clean(inner) for name, inner in named if not SECRET_NAME.search(name)}
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    return value.replace("\0", "") if isinstance(value, str) else value


class RecordConformer:
    """Makes records match a JSON schema, in place; safe to use from several threads.

    Attributes:
        unknown_properties: Paths of the properties that records had and no schema declares.
        mismatched_properties: Paths of the properties with a value that could not be converted.
        hidden: Names of the `kept` properties that are not selected.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        declared: Sequence[Schema] = (),
        kept: Collection[str] = (),
        flattened: bool = False,
    ) -> None:
        """Compile a schema.

        Args:
            schema: The schema of what is selected.
            declared: Schemas before the selection. What they have and `schema` lacks is removed.
            kept: Root properties that are kept until `finish`, whether selected or not.
            flattened: Whether records will be flattened, which needs an object in place of null.
        """
        self.unknown_properties: set[str] = set()
        self.mismatched_properties: set[str] = set()
        self._flattened = flattened
        properties = {
            name: x["properties"][name]
            for x in declared
            for name in kept
            if name in x["properties"]
        }
        self.hidden = properties.keys() - schema["properties"].keys()
        self._keeps_rest = ADDITIONAL_FIELDS in schema["properties"]
        schema = {"properties": properties | schema["properties"]}
        self._root = self._compile_object(schema, declared, "")
        self._root.fields.pop(ADDITIONAL_FIELDS, None)

    def conform(self, record: Record) -> Record:
        """Make `record` match the schema, and return it."""
        rest = self._root.split(record)
        for name in self.hidden:
            rest.pop(name, None)
        if self._keeps_rest:
            record[ADDITIONAL_FIELDS] = rest or None
        return record

    def finish(self, record: Record) -> Record:
        """Remove what was kept of a conformed record, and return it."""
        for name in self.hidden:
            record.pop(name, None)
        return record

    def _compile_object(self, schema: Schema, declared: Sequence[Schema], path: str) -> _Object:
        properties = schema.get("properties", {})
        outer = [other.get("properties", {}) for other in declared]
        return _Object(
            fields={
                name: self._compile(
                    inner, [names[name] for names in outer if name in names], f"{path}{name}"
                )
                for name, inner in properties.items()
            },
            deselected={name for names in outer for name in names} - properties.keys(),
            is_open=bool(path) and bool(schema.get("additionalProperties")),
            path=path,
            unknown=self.unknown_properties,
        )

    def _compile(self, schema: Schema, declared: Sequence[Schema], path: str) -> _Field:
        options = [o for o in schema.get("anyOf", [schema]) if o.get("type") not in NULL_TYPES]
        (schema, *others) = options or [{}]
        types = schema.get("type", [])
        kinds = {types} if isinstance(types, str) else set(types) - {"null"}
        kind = "" if others or len(kinds) != 1 else kinds.pop()
        mismatch = partial(self.mismatched_properties.add, path)
        if kind == "object" and "properties" in schema:
            inner = self._compile_object(schema, declared, f"{path}.")
            # Flattening makes no columns of what is in an array.
            empty = inner.empty if self._flattened and "[]" not in path else None
            return _Field(frozenset(), partial(_to_object, inner, empty, mismatch))
        if kind == "array":
            items = self._compile(schema.get("items", {}), [], f"{path}[]")
            return _Field(frozenset({type(None)}), partial(_to_array, items))
        if schema.get("format") == "date-time" and kind == "string":
            kind = "date-time"
        if kind not in SCALARS:
            return _Field(frozenset(), lambda value: (value, None))
        plain, convert = SCALARS[kind]
        return _Field(plain, partial(_to_scalar, convert, mismatch))


class _Field(NamedTuple):
    """A property of a schema: `convert` returns the column's value, and what does not fit."""

    plain: frozenset[type]  # need no conversion
    convert: Callable[[Any], tuple[Any, Any]]


class _Object(NamedTuple):
    """An object of a schema, with its selected properties."""

    fields: dict[str, _Field]
    deselected: set[str]  # are declared
    is_open: bool  # may have other properties
    path: str  # with a dot at its end; empty for the record
    unknown: set[str]  # receives paths of what is not declared

    def split(self, value: Record) -> Record:
        """Make an object match, in place, and return what does not fit, under its names."""
        fields, rest, others = self.fields, {}, []
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                others.append(name)
            elif type(inner) not in field.plain:
                value[name], left = field.convert(inner)
                if left is not None:
                    rest[name] = left
        for name in others:
            if name in self.deselected:
                del value[name]
            elif not self.is_open:
                rest[name] = value.pop(name)
                self.unknown.add(f"{self.path}{name}")
        return rest

    def empty(self) -> Record:
        """Return the object with all properties null."""
        value: Record = dict.fromkeys(self.fields)
        self.split(value)
        return value


def _to_object(
    inner: _Object, empty: Callable[[], Record] | None, mismatch: Callable[[], None], value: Any
) -> tuple[Any, Any]:
    if isinstance(value, dict):
        return value, inner.split(value) or None
    if value is not None:
        mismatch()
    # What does not fit may contain what is deselected.
    return empty() if empty else None, None if inner.deselected else value


def _to_array(item: _Field, value: Any) -> tuple[list[Any], list[Any] | None]:
    values = value if isinstance(value, list) else [value]
    pairs = [(v, None) if type(v) in item.plain else item.convert(v) for v in values]
    rest = [left for _, left in pairs if left is not None]
    return [fitting for fitting, _ in pairs if fitting is not None], rest or None


def _to_scalar(
    convert: Callable[[Any], Any], mismatch: Callable[[], None], value: Any
) -> tuple[Any, Any]:
    if (converted := convert(value)) is None and value is not None:
        mismatch()
        return None, value
    return converted, None


def to_boolean(value: Any) -> bool | None:
    """Return a boolean, also from text or a number, or None if it is none."""
    text = str(value).lower() if isinstance(value, str | int) else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(text)


def _to_number(value: Any) -> int | float | None:
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return None
    number = int(value) if value.lstrip("-").isdecimal() else float(value)
    return number if math.isfinite(number) else None


def _to_integer(value: Any) -> int | None:
    number = value if isinstance(value, float) else _to_number(value)
    return int(number) if number is not None and number == int(number) else None


def _to_string(value: Any) -> str:
    return msgspec.json.encode(value).decode()


NULL_TYPES = ("null", ["null"])

SCALARS: dict[str, tuple[frozenset[type], Callable[[Any], Any]]] = {
    "boolean": (frozenset({type(None), bool}), to_boolean),
    "date-time": (frozenset({type(None)}), normalize_timestamp),
    "integer": (frozenset({type(None), int}), _to_integer),
    "number": (frozenset({type(None), int, float}), _to_number),
    "object": (frozenset({type(None), dict}), lambda _: None),
    "string": (frozenset({type(None), str}), _to_string),
}
"""For each type of JSON Schema, the types that need no conversion, and the converter.

An object is one without `properties`, which is passed on whole.
"""
