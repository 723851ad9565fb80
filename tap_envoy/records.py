"""A row as its schema says: unlisted keys and secrets left out, types and times as declared."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

Mend = Callable[[Any], Any]
"""Makes a value fit; None where there is no way."""

WITHHELD = ("secretToken", "registrationURL")
"""Keys, at any depth, that let their holder act on someone's behalf: they never leave the tap."""


def utc(moment: datetime) -> str:
    """Write a time in the one format that leaves the tap, such as 2024-05-17T14:39:44.185Z.

    Times in one format and zone compare as texts, as bookmarks do. Envoy's own have milliseconds;
    finer ones are cut, which reads a bookmark's row again rather than missing one.
    """
    plain = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{plain.isoformat(timespec='milliseconds')}Z"


def canonical_time(value: Any) -> str | None:
    """Return a time in that format, whatever ISO-8601 it came in; None if it is none."""
    try:
        moment = datetime.fromisoformat(value)
        # As Envoy writes it, which is how it stays.
        if len(value) == 24 and value[10] == "T" and value[19] == "." and value[23] == "Z":  # noqa: PLR2004
            return str(value)
        return utc(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (OverflowError, TypeError, ValueError):
        return None


def without_secrets(value: Any) -> Any:
    """Return decoded JSON without the keys that are withheld."""
    if isinstance(value, dict):
        return {k: without_secrets(inner) for k, inner in value.items() if k not in WITHHELD}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return value


class Shape:
    """Makes rows match a JSON schema, in place.

    Attributes:
        unlisted: Root keys that rows had and the schema lacks.
        odd: Names of properties whose value was of a kind that the schema has no place for.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        listed: Container[str] = (),
        odd: set[str] | None = None,
    ) -> None:
        """Compile a schema.

        Args:
            schema: The schema of an object.
            listed: Root keys that are no surprise, although `schema` may lack them.
            odd: Where the names of odd properties are gathered.
        """
        self.unlisted: set[str] = set()
        self.odd: set[str] = set() if odd is None else odd
        self._is_open = bool(schema.get("additionalProperties"))
        self._listed = listed
        self._fits = {name: self._fit(inner) for name, inner in schema["properties"].items()}

    def fit(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make `row` match; returns it."""
        fits = self._fits
        strange = []
        for name, value in row.items():
            fit = fits.get(name)
            if fit is None:
                strange.append(name)
            elif type(value) not in fit[0]:
                row[name] = mended = fit[1](value)
                if mended is None:
                    self.odd.add(name)
        if strange and not self._is_open:
            for name in strange:
                del row[name]
            self.unlisted.update(name for name in strange if name not in self._listed)
        return row

    def _fit(self, definition: Mapping[str, Any]) -> tuple[frozenset[type], Mend]:
        """Return the types that pass as they are, and what is done with all others."""
        types = definition.get("type", [])
        if "object" in types:
            inner = Shape({"properties": {}, **definition}, odd=self.odd)
            return frozenset({type(None)}), partial(_object, inner)
        if "array" in types:
            return frozenset({type(None)}), partial(_array, *self._fit(definition["items"]))
        if definition.get("format") == "date-time":
            return frozenset({type(None)}), canonical_time
        return next((fit for kind, fit in PLAIN.items() if kind in types), PLAIN["string"])


def _object(inner: Shape, value: Any) -> Any:
    return inner.fit(value) if isinstance(value, dict) else None


def _array(items: frozenset[type], mend: Mend, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    values = [item if type(item) in items else mend(item) for item in values]
    return [item for item in values if item is not None]


def _boolean(value: Any) -> Any:
    known = {"true": True, "1": True, "false": False, "0": False}
    return known.get(str(value).lower())


def _integer(value: Any) -> Any:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _number(value: Any) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


PLAIN: dict[str, tuple[frozenset[type], Mend]] = {
    "boolean": (frozenset({type(None), bool}), _boolean),
    "integer": (frozenset({type(None), int}), _integer),
    "number": (frozenset({type(None), int, float}), _number),
    "string": (frozenset({type(None), str}), _text),
}
"""For each plain type of JSON schema, the types that pass, and what is done with all others."""
