"""Checks of the setting `stream_maps`, so that a typing error does not let data through.

The SDK ignores the map of an unknown stream, ignores the removal of an unknown property, adds a
misspelled property beside the original, and logs the record when an expression fails.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import logging
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import (
    MAPPER_ALIAS_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_SOURCE_OPTION,
    NULL_STRING,
    CustomStreamMap,
)

from tap_envoy.exceptions import EnvoyError, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from singer_sdk.mapper import PluginMapper

OPTIONS = {
    MAPPER_ALIAS_OPTION,
    MAPPER_ELSE_OPTION,
    MAPPER_FILTER_OPTION,
    MAPPER_KEY_PROPERTIES_OPTION,
    MAPPER_SOURCE_OPTION,
}
"""What the map of a stream may contain besides properties."""

RECORD_NAMES = {"_", "record"}
FUNCTIONS = {"bool", "datetime", "float", "int", "json", "md5", "rand", "randint", "sha256", "str"}
VARIABLES = {"__original_stream_name__", "__stream_name__", "config", "fake", "self"}
EXPRESSION_NAMES = RECORD_NAMES | FUNCTIONS | VARIABLES
"""What an expression may refer to besides properties (`singer_sdk.mapper.CustomStreamMap`)."""

SIMILARITY = 0.8
"""Ratio of `difflib` from which a new property is taken for a misspelled one."""


def check_stream_maps(
    maps: Mapping[str, Mapping[str, Any] | str | None], streams: Mapping[str, Collection[str]]
) -> None:
    """Check that stream maps refer to nothing that does not exist.

    Args:
        maps: The setting `stream_maps`, of which the settings' schema has checked all types.
        streams: The names of the properties of each stream.

    Raises:
        EnvoyError: If they do.
    """
    for name, definition in maps.items():
        if name == MAPPER_ELSE_OPTION:
            continue
        if isinstance(definition, str) or definition is None:
            _properties(name, streams)
            continue
        source = definition.get(MAPPER_SOURCE_OPTION, name)
        _check_map(printable(name), definition, _properties(source, streams))


def guard_expressions(mapper: PluginMapper) -> None:
    """Keep values of records out of errors and logs when expressions are evaluated."""
    # At DEBUG the SDK logs what a filter returns, which may be a value of the record.
    logging.getLogger("singer_sdk.mapper").setLevel(logging.INFO)
    for stream, stream_maps in mapper.stream_maps.items():
        expressions = [
            item
            for pattern, definition in mapper.stream_maps_dict.items()
            if isinstance(definition, dict)
            and fnmatch.fnmatch(stream, definition.get(MAPPER_SOURCE_OPTION, pattern))
            for item in definition.items()
        ]
        for stream_map in stream_maps:
            if isinstance(stream_map, CustomStreamMap):
                stream_map.expr_evaluator = GuardedEvaluator(stream_map.expr_evaluator, expressions)


class GuardedEvaluator:
    """Evaluates expressions of a stream map; an error names the property, and shows no value.

    Attributes:
        names: What an expression may refer to: the record's values and more.
    """

    def __init__(self, evaluator: Any, expressions: Iterable[tuple[str, Any]]) -> None:
        """Wrap an evaluator.

        Args:
            evaluator: The SDK's, a `simpleeval.EvalWithCompoundTypes`.
            expressions: Properties and their expressions.
        """
        self.names: dict[str, Any] = {}
        self._evaluator = evaluator
        self._expressions = list(expressions)

    def eval(self, expr: str, previously_parsed: ast.AST | None = None) -> Any:
        """Return the value of an expression.

        Raises:
            EnvoyError: If there is none.
        """
        self._evaluator.names = self.names
        try:
            return self._evaluator.eval(expr, previously_parsed=previously_parsed)
        except Exception as error:  # noqa: BLE001  # an expression can raise anything
            raise EnvoyError(
                f"The stream map of `{self._property(expr)}` failed on a record "
                f"({type(error).__name__}); make the expression accept null and missing values."
            ) from None

    def _property(self, expr: str) -> str:
        """Return the first property with this expression and, in it, this value of `self`."""
        record = self.names.get("record", {})
        candidates = [name for name, other in self._expressions if other == expr]
        same = [x for x in candidates if x in record and record[x] is self.names.get("self")]
        return printable(next(iter(same or candidates), "?"))


def _properties(source: Any, streams: Mapping[str, Collection[str]]) -> set[str]:
    """Return the properties of the streams that a map applies to."""
    matches = [name for name in streams if fnmatch.fnmatch(name, str(source))]
    if not matches:
        raise EnvoyError(f"`stream_maps`: there is no stream {_suggest(source, streams)}")
    return {name for stream in matches for name in streams[stream]}


def _check_map(stream: str, definition: Mapping[str, Any], properties: set[str]) -> None:
    """Check the map of one stream."""
    for name, value in definition.items():
        is_removed = value in (None, NULL_STRING)
        if name not in OPTIONS and name.startswith("__"):
            raise EnvoyError(f"`stream_maps`: {stream} has no option {_suggest(name, OPTIONS)}")
        if name not in OPTIONS and name not in properties:
            if is_removed:
                raise EnvoyError(
                    f"`stream_maps`: {stream} has no property {_suggest(name, properties)}"
                )
            if MAPPER_ELSE_OPTION not in definition:
                _check_is_new(stream, name, properties - definition.keys())
        if not is_removed and name not in OPTIONS - {MAPPER_FILTER_OPTION}:
            _check_expression(value, f"{stream}.{printable(name)}", properties)


def _check_is_new(stream: str, name: str, unmapped: set[str]) -> None:
    """Refuse to add a property that looks like a misspelled one, which would stay as it is.

    With the similar one in the map too, or `__else__`, nothing is left by mistake.
    """
    if similar := _most_similar(name, unmapped, cutoff=SIMILARITY):
        raise EnvoyError(
            f"`stream_maps`: {stream} has no property `{printable(name)}`; did you mean "
            f"`{similar}`? To add a property of this name, map `{similar}` too."
        )


def _check_expression(text: str, where: str, properties: set[str]) -> None:
    """Refuse an expression that is not one, or refers to what does not exist."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        raise EnvoyError(f"`stream_maps`: the expression of {where} is not valid.") from None
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    used = {name.id for name in names} - bound - EXPRESSION_NAMES
    for node in nodes:
        match node:
            case ast.Subscript(ast.Name(name), ast.Constant(str(key))) if name in RECORD_NAMES:
                used.add(key)
    if unknown := sorted(used - properties):
        suggestion = _suggest(unknown[0], properties | FUNCTIONS)
        raise EnvoyError(f"`stream_maps`: the expression of {where} refers to unknown {suggestion}")


def _suggest(name: object, known: Iterable[str]) -> str:
    """Return a quoted name and the end of a sentence, with the most similar known name."""
    similar = _most_similar(str(name), known, cutoff=0.6)
    return f"`{printable(name)}`{f'; did you mean `{similar}`?' if similar else '.'}"


def _most_similar(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """Return the known name that is most similar, apart from case and separators."""
    plain = {_plain(other): other for other in sorted(known)}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()
