"""Checks of the setting `stream_maps`, so that a typing error does not let data through.

The SDK ignores the map of an unknown stream and the removal of an unknown property, adds a
misspelled property beside the original, and logs the record when an expression fails.
"""

from __future__ import annotations

import fnmatch
import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from singer_sdk.exceptions import MapExpressionError, StreamMapConfigError
from singer_sdk.mapper import CustomStreamMap
from singer_sdk.singerlib import Catalog

from tap_envoy.config import most_similar
from tap_envoy.exceptions import EnvoyError, printable
from tap_envoy.records import ADDITIONAL_FIELDS, RecordConformer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from singer_sdk import Stream
    from singer_sdk.mapper import PluginMapper

OPTIONS = {"__alias__", "__else__", "__key_properties__", "__source__"}
"""What the map of a stream may contain besides properties and a filter."""


def check_stream_maps(
    maps: Mapping[str, Mapping[str, Any] | str | None], streams: Mapping[str, Collection[str]]
) -> None:
    """Check that stream maps refer to nothing but `streams` and their properties.

    Raises:
        EnvoyError: If they do; their types have been checked by the settings' schema.
    """
    for name, definition in maps.items():
        if name == "__else__":
            continue
        options = definition if isinstance(definition, dict) else {}
        source = str(options.get("__source__", name))
        matches = [stream for stream in streams if fnmatch.fnmatch(stream, source)]
        if not matches:
            raise _unknown("stream", source, streams)
        properties = {name for stream in matches for name in streams[stream]}
        for target, value in options.items():
            if target not in OPTIONS:
                _check_property(printable(name), target, value, properties, options)


def _check_property(
    stream: str, name: str, value: str | None, properties: set[str], options: Mapping[str, Any]
) -> None:
    is_removed = value in (None, "__NULL__")
    similar = most_similar(name, properties - options.keys())
    # With `__else__`, or the similar property in the map too, nothing is left by mistake.
    is_misspelled = similar and "__else__" not in options
    is_known = name in properties or name == "__filter__"
    if not is_known and (is_removed or is_misspelled or name.startswith("__")):
        can_be_meant = similar and not is_removed
        hint = f" To add a property of this name, map `{similar}` too." if can_be_meant else ""
        raise EnvoyError(f"{_unknown(f'property of {stream}', name, properties)}{hint}")


def _unknown(what: str, name: str, known: Collection[str]) -> EnvoyError:
    similar = most_similar(name, known)
    hint = f"did you mean `{similar}`?" if similar else "correct or remove it."
    return EnvoyError(f"`stream_maps`: unknown {what}: `{printable(name)}`; {hint}")


def register_streams(mapper: PluginMapper, streams: Iterable[Stream], catalog: Catalog) -> None:
    """Register all streams for stream maps, which the SDK refuses to apply to a deselected one.

    It would apply them to what is selected of its schema, where the primary key is missing.

    Raises:
        EnvoyError: If a stream map is not valid.
    """
    selected = {n: x for n, x in catalog.items() if x.metadata.resolve_selection()[()]}
    try:
        for stream in streams:
            mapper.register_raw_stream_schema(stream.name, stream.schema, stream.primary_keys)
        mapper.register_raw_streams_from_catalog(Catalog(selected))
    except (MapExpressionError, StreamMapConfigError) as error:
        raise EnvoyError(f"`stream_maps`: {printable(error, 300)}") from None
    except Exception as error:  # noqa: BLE001  # `__alias__` may be an expression
        name = type(error).__name__
        raise EnvoyError(
            f"`stream_maps`, `__alias__` or flattening is not valid ({name})."
        ) from None
    # At DEBUG the SDK logs what a filter returns, which may be a value of the record.
    logging.getLogger("singer_sdk.mapper").setLevel(logging.INFO)
    for stream_map in itertools.chain.from_iterable(mapper.stream_maps.values()):
        if isinstance(stream_map, CustomStreamMap):
            # The SDK declares most results as strings, and does not convert them.
            columns = {
                name: RecordConformer({"properties": {"value": schema, ADDITIONAL_FIELDS: {}}})
                for name, schema in stream_map.transformed_schema["properties"].items()
            }
            # Private, but the only place that knows the property: its own errors quote the record.
            stream_map._eval = partial(_evaluate, stream_map._eval, columns)  # type: ignore[method-assign]  # noqa: SLF001


def _evaluate(
    evaluate: Callable[..., Any], columns: Mapping[str, RecordConformer], *args: Any, **kwargs: Any
) -> Any:
    """Return the value of an expression as its column's type; keep values out of errors."""
    name = kwargs["property_name"] or "__filter__"
    failed = f"The stream map of `{printable(name)}` failed on a record"
    try:
        value = evaluate(*args, **kwargs)
        if name not in columns:  # the filter, or an object that is flattened
            return value
        converted = columns[name].conform({"value": msgspec.to_builtins(value)})
    except Exception as error:  # noqa: BLE001  # an expression can raise anything
        raise EnvoyError(
            f"{failed} ({type(error.__cause__ or error).__name__}); check its names (`fake` needs "
            "the extra `faker`), and that it accepts null."
        ) from None
    if converted[ADDITIONAL_FIELDS]:
        raise EnvoyError(f"{failed}: convert its result to the property's type, or rename it.")
    return converted["value"]
