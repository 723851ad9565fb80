"""The files that a run is given: `--config`, `--state` and `--catalog`, read and checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError
from singer_sdk.singerlib import Catalog, Schema
from singer_sdk.singerlib.catalog import (
    REPLICATION_FULL_TABLE,
    REPLICATION_INCREMENTAL,
    Metadata,
    StreamMetadata,
)

from tap_envoy.exceptions import EnvoyError, list_names, printable
from tap_envoy.records import format_timestamp, normalize_timestamp, to_boolean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from singer_sdk import Stream
    from singer_sdk.singerlib import CatalogEntry

MAX_PATH = 300
"""Characters of a file's name that a message repeats."""

_TEXT = {"type": ["string", "null"]}
_NAMES = {"type": ["array", "null"], "items": {"type": "string"}}
_ROOT_METADATA = {
    "replication-key": _TEXT,
    "forced-replication-method": _TEXT,
    "table-key-properties": _NAMES,
}
CATALOG_SCHEMA: dict[str, Any] = {
    "required": ["streams"],
    "properties": {
        "streams": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tap_stream_id"],
                "properties": {
                    "tap_stream_id": {"type": "string"},
                    "stream": _TEXT,
                    "schema": {"$ref": Draft202012Validator.META_SCHEMA["$id"], "type": "object"},
                    "key_properties": _NAMES,
                    "replication_key": _TEXT,
                    "replication_method": _TEXT,
                    "metadata": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["breadcrumb", "metadata"],
                            "properties": {
                                "breadcrumb": _NAMES,
                                "metadata": {"type": "object", "properties": _ROOT_METADATA},
                            },
                        },
                    },
                },
            },
        }
    },
}
"""What the tap and the SDK rely on in a catalog (Singer specification, "Discovery mode")."""

_CatalogValidator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    # `Tap.catalog_dict` contains tuples.
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "array", lambda _, value: isinstance(value, (list, tuple))
    ),
)

NOT_A_CATALOG = "--catalog: the file is not a Singer catalog; create one with --discover."


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a `--config` file.

    Raises:
        EnvoyError: If it cannot be read, or is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return read_json_object("--config", file)
    except OSError as error:
        raise EnvoyError(f"--config: cannot read {path} ({error.strerror}).") from None


def read_json_object(option: str, file: IO[str]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        option: The command line option that names the file, such as `--state`.
        file: The open file.

    Raises:
        EnvoyError: If there is none; the text is not repeated.
    """
    name = printable(file.name, MAX_PATH)
    try:
        text = file.read()
        value = json.loads(text or "null")
    except json.JSONDecodeError as error:
        if not text.strip():
            raise EnvoyError(f"{option}: {name} is empty.") from None
        raise EnvoyError(
            f"{option}: {name}, line {error.lineno}, column {error.colno}: invalid JSON "
            f"({error.msg})."
        ) from None
    except UnicodeDecodeError:
        raise EnvoyError(f"{option}: {name} is not UTF-8 text.") from None
    except (RecursionError, ValueError):
        raise EnvoyError(f"{option}: {name} is not JSON that can be read.") from None
    if not isinstance(value, dict):
        problem = "does not contain a JSON object" if text else "is empty"
        raise EnvoyError(f"{option}: {name} {problem}.")
    return value


def unwrap_state(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bookmarks of a Singer state by stream; none for an empty object.

    Args:
        value: The state, a STATE message, or the output of `meltano state get`.

    Raises:
        EnvoyError: If it is anything else.
    """
    for wrapper in ("completed", "singer_state", "value"):
        if "bookmarks" not in value and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not value:
        return {}
    bookmarks = value.get("bookmarks")
    if not isinstance(bookmarks, dict):
        raise EnvoyError(
            "--state: the file has no `bookmarks` object; pass the last STATE message of a run, "
            "or the output of `meltano state get`."
        )
    for name, bookmark in bookmarks.items():
        if not isinstance(bookmark, dict):
            raise EnvoyError(f"--state: the bookmark of {printable(name)} is not an object.")
    return bookmarks


def check_bookmark(stream: Stream, bookmark: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """Return the bookmark of a stream as the tap writes it; empty if there is none.

    A time after `now` (from a wrong clock) becomes `now`, with a warning.

    Raises:
        EnvoyError: If it is not a time, or that of another property.
    """
    value, key = bookmark.get("replication_key_value"), stream.replication_key
    if value is None or key is None:
        return {}
    if bookmark.get("replication_key", key) != key:
        raise EnvoyError(
            f"--state: the bookmark of {stream.name} is not that of `{key}`; remove it to read the "
            "stream from its start."
        )
    time = normalize_timestamp(value) if isinstance(value, str) else None
    if time is None:
        raise EnvoyError(f"--state: the bookmark of {stream.name} is not a time.")
    if is_in_future(time, now):
        time = format_timestamp(now)
        stream.logger.warning(
            "--state: the bookmark of %s is in the future; using the present time. Rows may be "
            "missing from before: to read them, remove the bookmark.",
            stream.name,
        )
    return {"replication_key": key, "replication_key_value": time}


def is_in_future(time: str | None, now: datetime) -> bool:
    """Return whether an ISO 8601 time, in UTC unless it names a zone, is after `now`."""
    if time is None:
        return False
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > now


def parse_catalog(value: Mapping[str, Any]) -> Catalog:
    """Return a catalog.

    Raises:
        EnvoyError: If `value` does not have the structure of a Singer catalog, or what it selects
            is not clear.
    """
    try:
        _CatalogValidator(CATALOG_SCHEMA).validate(value)
        catalog = Catalog.from_dict(dict(value))
    except (AttributeError, RecursionError, TypeError, ValidationError, ValueError):
        raise EnvoyError(NOT_A_CATALOG) from None
    for name, entry in catalog.items():
        for metadata in entry.metadata.values():
            metadata.selected = _selected(metadata.selected, name)
            metadata.selected_by_default = _selected(metadata.selected_by_default, name)
    return catalog


def _selected(value: object, stream: str) -> bool | None:
    """Return `selected`, also from text: the SDK selects what is "false"."""
    selected = to_boolean(value)
    if selected is None and value is not None:
        raise EnvoyError(f"--catalog: `selected` of {printable(stream)} must be true or false.")
    return selected


def check_catalog(catalog: Catalog, streams: Mapping[str, Stream]) -> Iterator[str]:
    """Yield a warning for what is unknown; complete what a catalog may leave out, in place.

    Args:
        catalog: The input catalog.
        streams: The streams of the tap by name, as discovered.

    Raises:
        EnvoyError: If no stream is selected, or one cannot be read as its entry says.
    """
    known = {name: entry for name, entry in catalog.items() if name in streams}
    selected = {n: entry for n, entry in known.items() if entry.metadata.resolve_selection()[()]}
    if not selected:
        raise EnvoyError(
            "--catalog: no stream of this tap is selected; set `selected` to true in the metadata "
            "of at least one."
        )
    if others := catalog.keys() - known.keys():
        yield f"--catalog: ignoring unknown streams: {list_names(others)}."
    unknown = []
    for name, entry in selected.items():
        if entry.metadata:  # without a root, the SDK selects a stream, but none of its properties
            entry.metadata.setdefault((), StreamMetadata(selected=True))
        _check_replication(entry, streams[name])
        if unknown_keys := set(_key_properties(entry)) - streams[name].schema["properties"].keys():
            raise EnvoyError(
                f"--catalog: `key_properties` of {name} names unknown properties: "
                f"{list_names(unknown_keys)}."
            )
        properties = _properties(entry) - streams[name].schema["properties"].keys()
        unknown += [f"{name}.{property_name}" for property_name in properties]
    if unknown:
        yield f"--catalog: this version of the tap does not know: {list_names(unknown)}."
    for name, entry in known.items():
        _complete(entry, streams[name])


def _properties(entry: CatalogEntry) -> set[str]:
    """Return the names of all root properties that an entry mentions."""
    mentioned = {breadcrumb[1] for breadcrumb in entry.metadata if len(breadcrumb) > 1}
    return mentioned | (entry.schema.properties or {}).keys()


def _check_replication(entry: CatalogEntry, stream: Stream) -> None:
    root = entry.metadata.get(())
    method = entry.replication_method or getattr(root, "forced_replication_method", None)
    key = entry.replication_key or getattr(root, "replication_key", None)
    if method == REPLICATION_FULL_TABLE:
        entry.replication_key = None
        if isinstance(root, StreamMetadata):
            root.replication_key = None
        return
    if method not in {None, REPLICATION_INCREMENTAL}:
        raise EnvoyError(
            f"--catalog: `replication_method` of {stream.name} must be FULL_TABLE or INCREMENTAL."
        )
    if stream.replication_key is None and (method or key):
        raise EnvoyError(
            f"--catalog: {stream.name} cannot be read incrementally; set its `replication_method` "
            "to FULL_TABLE and remove its `replication_key`."
        )
    if key not in {None, stream.replication_key}:
        raise EnvoyError(
            f"--catalog: `replication_key` of {stream.name} must be `{stream.replication_key}`; "
            "or set `replication_method` to FULL_TABLE."
        )
    entry.replication_key = stream.replication_key


def _key_properties(entry: CatalogEntry) -> Sequence[str]:
    root = entry.metadata.get(())
    return entry.key_properties or getattr(root, "table_key_properties", None) or ()


def _complete(entry: CatalogEntry, stream: Stream) -> None:
    """Add the schema and the primary key that a short, hand-written entry leaves out."""
    if not entry.schema.properties:
        entry.schema = Schema.from_dict(stream.schema)
    properties = entry.schema.properties or {}
    keys = {*stream.primary_keys, stream.replication_key}
    for name, definition in stream.schema["properties"].items():
        given = properties.get(name)
        if name in keys if given is None else not (given.type or given.anyOf):
            properties[name] = Schema.from_dict(definition)
    if not _key_properties(entry):
        entry.key_properties = stream.primary_keys
    for name in keys | set(_key_properties(entry)):
        if metadata := entry.metadata.get(("properties", str(name))):
            metadata.inclusion = Metadata.InclusionType.AUTOMATIC  # a target needs it
    entry.stream = stream.name
