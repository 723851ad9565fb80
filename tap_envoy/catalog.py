"""Catalogs and states: only what would be read wrongly is refused, the rest is the SDK's matter."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import Catalog, Schema
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE, REPLICATION_INCREMENTAL, Metadata

from tap_envoy.exceptions import EnvoyError, list_names, printable
from tap_envoy.records import format_timestamp, normalize_timestamp

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

    from singer_sdk import Stream
    from singer_sdk.singerlib import CatalogEntry

CLOCK_TOLERANCE = timedelta(days=1)
"""How far a bookmark may be in the future, where clocks differ."""

RESET = "reset the state (`meltano state clear`, or the file of --state) to read all again"


def parse_catalog(value: Mapping[str, Any], logger: logging.Logger) -> Catalog:
    """Return a catalog; log a warning where two places in it disagree.

    Raises:
        EnvoyError: If `value` is none, or does not say clearly what it selects.
    """
    try:
        streams = deepcopy(value["streams"])
        # Without metadata, streams are selected one by one, or all are.
        places = [place for x in streams for place in (x, x.get("schema") or {})]
        default = not any(place.get("selected") for place in places)
        streams = [_with_metadata(stream, logger, default=default) for stream in streams]
        return Catalog.from_dict({"streams": streams})
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise EnvoyError(
            "--catalog: the file is not a Singer catalog; create one with --discover."
        ) from None


def _with_metadata(
    stream: Mapping[str, Any], logger: logging.Logger, *, default: bool
) -> dict[str, Any]:
    """Return an entry whose metadata has what other tools write elsewhere, or by other names."""
    stream_name = printable(stream["tap_stream_id"])
    schema = stream.get("schema") or {}
    metadata: dict[tuple[str, ...], dict[str, Any]] = {
        tuple(x["breadcrumb"]): {k: v for k, v in x["metadata"].items() if v is not None}
        for x in stream.get("metadata") or ()
    }
    places = [((), stream), *_subschemas(schema)]
    for place in [*metadata.values(), *(place for _, place in places)]:
        for key in ("selected", "selected-by-default"):
            if place.get(key) not in (None, True, False):
                raise EnvoyError(f"--catalog: `{key}` of {stream_name} must be true or false.")
    for breadcrumb, place in places:
        if (is_selected := place.get("selected")) is not None:
            found = metadata.setdefault(breadcrumb, {})
            if found.setdefault("selected", is_selected) != is_selected:
                found["selected"] = False
                name = printable(".".join([stream_name, *breadcrumb[1::2]]))
                logger.warning(
                    "--catalog: %s is both selected and deselected; leaving it out.", name
                )
    # Without a root, the SDK selects a stream, but none of its properties.
    root = metadata.setdefault((), {"selected": default})
    replication = {}
    for key in ("replication-method", "replication-key"):
        name = key.replace("-", "_")
        if len({root.get(key), stream.get(name)} - {None}) > 1:
            text = "--catalog: the entry of %s and its metadata disagree on `%s`; using the latter."
            logger.warning(text, stream_name, key)
        replication[name] = root.get(key, stream.get(name))
    items = [{"breadcrumb": list(x), "metadata": y} for x, y in metadata.items()]
    return {**stream, "schema": schema, "metadata": items, **replication}


def _subschemas(
    schema: dict[str, Any], breadcrumb: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield a schema and those of its properties, with null as a type instead of in `anyOf`."""
    options = [x for x in schema.get("anyOf") or () if x != {"type": "null"}]
    if len(options) == 1 and "type" in options[0]:  # flattening would drop the column
        types = options[0]["type"]
        schema |= options[0] | {"type": [*([types] if isinstance(types, str) else types), "null"]}
        del schema["anyOf"]
    yield breadcrumb, schema
    for name, inner in (schema.get("properties") or {}).items():
        yield from _subschemas(inner, (*breadcrumb, "properties", name))


def check_catalog(catalog: Catalog, streams: Mapping[str, Stream]) -> Iterator[str]:
    """Yield a warning for streams other than `streams`; complete the entries of these in place.

    Raises:
        EnvoyError: If no stream is selected, or one cannot be read as its entry says.
    """
    known = {name: entry for name, entry in catalog.items() if name in streams}
    selected = [entry for entry in known.values() if entry.metadata.resolve_selection()[()]]
    if not selected:
        raise EnvoyError(
            "--catalog: no stream of this tap is selected; set `selected` to true in the metadata "
            "of at least one."
        )
    if others := catalog.keys() - known.keys():
        yield f"--catalog: ignoring unknown streams: {list_names(others)}."
    for entry in selected:
        _set_replication(entry, streams[entry.tap_stream_id])
    for name, entry in known.items():
        _complete(entry, streams[name])


def _set_replication(entry: CatalogEntry, stream: Stream) -> None:
    root, key = entry.metadata.root, stream.replication_key
    method = entry.replication_method or root.forced_replication_method
    if method == REPLICATION_FULL_TABLE:
        entry.replication_key = root.replication_key = None
        return
    is_possible = method in {None, REPLICATION_INCREMENTAL} if key else method is None
    if not is_possible or entry.replication_key not in {None, key}:
        allowed = f" or INCREMENTAL by `{key}`" if key else ""
        raise EnvoyError(
            f"--catalog: {stream.name} can be read FULL_TABLE{allowed}; correct its "
            "`replication-method` and `replication-key`."
        )
    entry.replication_key = key


def _complete(entry: CatalogEntry, stream: Stream) -> None:
    """Add the schema and the primary key that a short, hand-written entry leaves out."""
    own = Schema.from_dict(stream.schema).properties or {}
    properties = entry.schema.properties = entry.schema.properties or own
    keys = entry.key_properties or entry.metadata.root.table_key_properties or stream.primary_keys
    if unknown := set(keys) - own.keys():
        names = list_names(unknown)
        raise EnvoyError(f"--catalog: `key_properties` of {stream.name} are unknown: {names}.")
    for name in {*keys, *stream.primary_keys, *filter(None, [stream.replication_key])}:
        if name not in properties or not properties[name].type:
            properties[name] = own[name]
        metadata = entry.metadata.setdefault(("properties", name), Metadata())
        metadata.inclusion = Metadata.InclusionType.AUTOMATIC  # a target needs it
    entry.key_properties, entry.stream = keys, stream.name


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
