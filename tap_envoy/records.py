"""Records made to match their schema; what it does not declare is kept in `additionalFields`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
    try:
        if CANONICAL_TIMESTAMP.fullmatch(value) and datetime.fromisoformat(value):
            return str(value)
        text = value.strip().upper().removesuffix("UTC").rstrip()
        return format_timestamp(_with_zone(datetime.fromisoformat(text)))
    except (OverflowError, TypeError, ValueError):
        return None


def parse_time(text: str) -> datetime:
    """Return an ISO-8601 time, in UTC if it names no zone, clamped to `TIME_BOUNDS`."""
    return min(max(_with_zone(datetime.fromisoformat(text)), TIME_BOUNDS[0]), TIME_BOUNDS[1])


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def without_secrets(value: Any) -> Any:
    """Return decoded JSON without the properties that `SECRET_NAME` matches."""
    if isinstance(value, dict):
        names = [name for name in value if not SECRET_NAME.search(name)]
        return {name: without_secrets(value[name]) for name in names}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


class RecordConformer:
    """Makes records match a JSON schema, in place.

    Attributes:
        unknown_properties: Paths of the properties that records had and no schema declares.
        mismatched_properties: Paths of the properties with a value that could not be converted.
        keeps_rest: Whether both are kept in `additionalFields`: it may be deselected.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        declared: Sequence[Schema] = (),
        complete_levels: int = 0,
    ) -> None:
        """Compile a schema.

        Args:
            schema: The schema of what is selected.
            declared: Schemas before the selection. What they have and `schema` lacks is removed.
            complete_levels: Levels of objects that get all properties, and are not null, so that
                they can be mapped or flattened; the record is the first.
        """
        self.unknown_properties: set[str] = set()
        self.mismatched_properties: set[str] = set()
        self._complete_levels = complete_levels
        self.keeps_rest = ADDITIONAL_FIELDS in schema["properties"]
        self._root = self._compile_object(schema, declared, "")
        self._root.fields.pop(ADDITIONAL_FIELDS, None)  # if Envoy sends it, it is undeclared

    def conform(self, record: Record) -> Record:
        """Make `record` match the schema, and return it."""
        rest = self._root.split(record)
        if self.keeps_rest:
            record[ADDITIONAL_FIELDS] = rest or None
        return record

    def _compile_object(self, schema: Schema, declared: Sequence[Schema], path: str) -> _Object:
        declaring = [x["properties"] for x in declared if "properties" in x]
        fields = {
            name: self._compile(inner, [x[name] for x in declaring if name in x], f"{path}{name}")
            for name, inner in schema["properties"].items()
            if not SECRET_NAME.search(name)
        }
        is_complete = path.count(".") < self._complete_levels and "[]" not in path
        return _Object(
            fields,
            deselected=set().union(*declaring) - fields.keys(),
            # Flattening would make columns of what is not declared.
            is_open=not is_complete and bool(path and schema.get("additionalProperties")),
            is_complete=is_complete,
            report=lambda name: self.unknown_properties.add(f"{path}{name}"),
        )

    def _compile(self, schema: Schema, declared: Sequence[Schema], path: str) -> _Field:
        kind = _type_of(schema)
        report = partial(self.mismatched_properties.add, path)
        if kind == "object" and "properties" in schema:
            inner = self._compile_object(schema, declared, f"{path}.")
            return _Field(frozenset(), partial(_to_object, inner, report))
        if kind == "array":
            items = self._compile(schema.get("items", {}), [], f"{path}[]")
            return _Field(PLAIN_NULL, partial(_to_array, items))
        plain, convert = SCALARS.get(kind, (PLAIN_NULL, without_secrets))
        return _Field(plain, partial(_to_scalar, convert, report))


class _Field(NamedTuple):
    """A property of a schema: `convert` returns the column's value, and what does not fit."""

    plain: frozenset[type]  # need no conversion
    convert: Callable[[Any], tuple[Any, Any]]


class _Object(NamedTuple):
    """An object of a schema, with its selected properties."""

    fields: dict[str, _Field]
    deselected: set[str]  # are declared
    is_open: bool  # may have other properties
    is_complete: bool  # has all properties, and is not null
    report: Callable[[str], None]  # receives the names of undeclared properties

    def split(self, value: Record) -> Record:
        """Make an object match, in place, and return what does not fit, under its names."""
        fields, rest, others = self.fields, {}, []
        if self.is_complete:
            for name in fields:
                value.setdefault(name)
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                others.append(name)
            elif type(inner) not in field.plain:
                value[name], left = field.convert(inner)
                if left is not None:
                    rest[name] = left
        for name in others:
            inner = value.pop(name)
            if name in self.deselected or SECRET_NAME.search(name):
                continue
            if self.is_open:
                value[name] = without_secrets(inner)
            else:
                rest[name] = without_secrets(inner)
                self.report(name)
        return rest


def _type_of(schema: Schema) -> str:
    """Return the one type beside null, `date-time` for such text, or nothing."""
    types = schema.get("type", [])
    types = {types} if isinstance(types, str) else set(types) - {"null"}
    kind = types.pop() if len(types) == 1 else ""
    return "date-time" if kind == "string" and schema.get("format") == "date-time" else kind


def _to_object(inner: _Object, report: Callable[[], None], value: Any) -> tuple[Record | None, Any]:
    if isinstance(value, dict):
        return value, inner.split(value) or None
    if value is not None:
        report()
    empty: Record | None = None
    if inner.is_complete:
        inner.split(empty := {})
    # What does not fit may contain what is deselected.
    return empty, None if inner.deselected else without_secrets(value)


def _to_array(item: _Field, value: Any) -> tuple[list[Any], list[Any] | None]:
    values = value if isinstance(value, list) else [value]
    pairs = [(v, None) if type(v) in item.plain else item.convert(v) for v in values]
    rest = [left for _, left in pairs if left is not None]
    return [fitting for fitting, _ in pairs if fitting is not None], rest or None


def _to_scalar(
    convert: Callable[[Any], Any], report: Callable[[], None], value: Any
) -> tuple[Any, Any]:
    if (converted := convert(value)) is None and value is not None:
        report()
        return None, without_secrets(value)
    return converted, None


def _to_string(value: Any) -> str:
    return msgspec.json.encode(without_secrets(value)).decode()


PLAIN_NULL = frozenset({type(None)})

SCALARS: dict[str, tuple[frozenset[type], Callable[[Any], Any]]] = {
    "boolean": (PLAIN_NULL | {bool}, lambda _: None),
    "date-time": (PLAIN_NULL, normalize_timestamp),
    "integer": (PLAIN_NULL | {int}, lambda _: None),
    "number": (PLAIN_NULL | {int, float}, lambda _: None),
    "object": (PLAIN_NULL, lambda value: without_secrets(value) if type(value) is dict else None),
    "string": (PLAIN_NULL | {str}, _to_string),
}
"""For each type of JSON Schema, the types that need no conversion, and the converter.

An object is one without `properties`, which is passed on whole.
"""
