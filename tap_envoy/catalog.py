"""Catalogs and states: only what would be read wrongly is refused, the rest is the SDK's matter."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, SchemaError
from singer_sdk.singerlib import Catalog, CatalogEntry, Metadata, MetadataMapping, Schema
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE, REPLICATION_INCREMENTAL

from tap_envoy.exceptions import EnvoyError, list_names, printable
from tap_envoy.records import format_timestamp, normalize_timestamp

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

    from singer_sdk import Stream

CLOCK_TOLERANCE = timedelta(days=1)
"""How far a bookmark may be in the future, where clocks differ."""

RESET = "reset the state (`meltano state clear`, or the file of --state) to read all again"


def parse_catalog(
    value: Mapping[str, Any], streams: Mapping[str, Stream], logger: logging.Logger
) -> Catalog:
    """Return the selected entries of a catalog, each with all that the SDK needs.

    Raises:
        EnvoyError: If `value` is not a catalog, selects no stream, or cannot be followed.
    """
    try:
        names = [entry["tap_stream_id"] for entry in value["streams"]]
        entries = [
            _parse_entry(streams[name], deepcopy(entry), logger)
            for name, entry in zip(names, value["streams"], strict=True)
            if name in streams
        ]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise EnvoyError(
            "--catalog: the file is not a Singer catalog; create one with --discover."
        ) from None
    catalog = Catalog((entry.tap_stream_id, entry) for entry in entries if entry)
    if others := set(names) - streams.keys():
        raise EnvoyError(
            f"--catalog: unknown streams: {list_names(others)}; this tap has {list_names(streams)}."
        )
    if not catalog:
        raise EnvoyError("--catalog: no stream is selected; set `selected` of one to true.")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise EnvoyError(f"--catalog: more than one entry of {list_names(repeated)}; keep one.")
    return catalog


def _parse_entry(
    stream: Stream, entry: Mapping[str, Any], logger: logging.Logger
) -> CatalogEntry | None:
    """Return the entry of a selected stream, with what short, hand-written ones leave out."""
    name, own, schema = stream.name, stream.schema["properties"], entry.get("schema") or {}
    properties = schema["properties"] = schema.get("properties") or own
    metadata = MetadataMapping.from_iterable(entry.get("metadata") or [])
    for breadcrumb, place in [((), entry), *_subschemas(schema)]:
        marks = {metadata[breadcrumb].selected, place.get("selected")} - {None}
        if marks not in (set(), {True}, {False}):
            where = printable(".".join([name, *breadcrumb[1::2]]))
            raise EnvoyError(
                f"--catalog: `selected` of {where} must be true or false, and the same in its "
                "entry, metadata and schema."
            )
        metadata[breadcrumb].selected = next(iter(marks), None)
    if not metadata.resolve_selection()[()]:
        return None
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = printable(error.json_path, 200)
        raise EnvoyError(f"--catalog: the schema of {name} is not valid at {where}.") from None
    keys = entry.get("key_properties") or metadata.root.table_key_properties or stream.primary_keys
    for key in {*keys, stream.replication_key} - {None}:
        if "string" not in properties.get(key, {}).get("type", own[key]["type"]):
            raise EnvoyError(f"--catalog: `{key}` of {name} must be a string; correct its schema.")
        properties[key] = own[key]
        metadata["properties", key].inclusion = Metadata.InclusionType.AUTOMATIC
    method, metadata.root.replication_key = _replication(stream, entry, logger)
    schema = Schema.from_dict(schema)
    return CatalogEntry(name, metadata, schema, name, keys, replication_method=method)


def _subschemas(
    schema: dict[str, Any], breadcrumb: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield a schema and those of its properties; Envoy may leave out each of these."""
    options = [x for x in schema.get("anyOf") or () if x != {"type": "null"}]
    if len(options) == 1:  # flattening would drop the column
        schema |= options[0]
        del schema["anyOf"]
    if breadcrumb and (types := schema.get("type")):
        types = types if isinstance(types, list) else [types]
        schema["type"] = [*(x for x in types if x != "null"), "null"]
    schema.pop("required", None)
    yield breadcrumb, schema
    for name, inner in (schema.get("properties") or {}).items():
        yield from _subschemas(inner, (*breadcrumb, "properties", name))


def _replication(
    stream: Stream, entry: Mapping[str, Any], logger: logging.Logger
) -> tuple[str | None, str | None]:
    """Return the replication method and key of an entry; the metadata's method wins."""
    own = stream.replication_key
    items: list[Any] = entry.get("metadata") or []
    root: Any = next((item["metadata"] for item in items if not item["breadcrumb"]), {})
    methods = root.get("replication-method"), entry.get("replication_method")
    method = methods[0] or methods[1]
    if all(methods) and methods[0] != methods[1]:
        text = "--catalog: %s has two replication methods; using that of its metadata."
        logger.warning(text, stream.name)
    if method == REPLICATION_FULL_TABLE:
        return method, None
    keys = {root.get("replication-key"), entry.get("replication_key")}
    if method not in {None, own and REPLICATION_INCREMENTAL} or not keys <= {None, own}:
        allowed = f" or INCREMENTAL by `{own}`" if own else ""
        raise EnvoyError(
            f"--catalog: {stream.name} can be read FULL_TABLE{allowed}; correct its "
            "`replication-method` and `replication-key`."
        )
    return method, own


def unwrap_state(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bookmarks of a state, a STATE message, or the output of `meltano state get`.

    Raises:
        EnvoyError: If it is anything else.
    """
    for wrapper in ("completed", "singer_state", "value"):
        if "bookmarks" not in value and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    bookmarks = value.get("bookmarks", None if value else {})
    if not isinstance(bookmarks, dict):
        raise EnvoyError(
            "--state: the file has no `bookmarks`; pass the last STATE message of a run, or the "
            "output of `meltano state get`."
        )
    return without_markers(bookmarks)


def without_markers(bookmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Return bookmarks without the SDK's markers of a run under way.

    What is no object remains a value, which `check_bookmark` refuses.
    """
    names = ("replication_key", "replication_key_value")
    return {
        stream: {name: value[name] for name in names if name in value}
        if isinstance(value, dict)
        else {"replication_key_value": value}
        for stream, value in bookmarks.items()
    }


def check_bookmark(state: Mapping[str, Any], key: str | None, now: datetime) -> str | None:
    """Return the bookmark of a stream's state as the tap writes it, not after `now`, or None.

    Raises:
        EnvoyError: If it is not a time, more than a day in the future, or of another property.
    """
    value = state.get("replication_key_value")
    if value is None:
        return None
    if state.get("replication_key", key) != key:
        raise EnvoyError(f"The bookmark in the state is not one of `{key}`; {RESET}.")
    time = normalize_timestamp(value)
    if time is None:
        raise EnvoyError(f"The bookmark in the state is not a time; {RESET}.")
    if time > format_timestamp(now + CLOCK_TOLERANCE):
        raise EnvoyError(
            f"The bookmark in the state is in the future; check this machine's clock, or {RESET}."
        )
    return min(time, format_timestamp(now))
