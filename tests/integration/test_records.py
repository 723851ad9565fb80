"""Random rows, selections and flattening: every record matches its SCHEMA, and nothing is lost."""

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tap_envoy.records import format_timestamp
from tap_envoy.tap import TapEnvoy
from tests.sandbox import Envoy
from tests.sandbox.server import Stage

Path = tuple[str, ...]

ENTRIES = TapEnvoy(validate_config=False).catalog_dict["streams"]
PATHS = {
    entry["tap_stream_id"]: [tuple(part["breadcrumb"][1::2]) for part in entry["metadata"]]
    for entry in ENTRIES
}
"""The paths of all properties of a stream; the empty one is that of the stream."""

ENVOY = Envoy()
NOW = datetime.now(UTC)
REST = ("additionalFields",)
SECRETS = ("secretToken", "registrationURL", "WiFiPassword", "api_token", "sec\0ret")
NUMBERS = st.integers(1000, 99_999)
TIMES = NUMBERS.map(lambda n: format_timestamp(NOW + timedelta(milliseconds=n)))
SCALARS = st.one_of(
    NUMBERS,
    NUMBERS.map(str),
    NUMBERS.map(lambda n: n + 0.5),
    NUMBERS.map(lambda n: f"te\0xt {n}"),
    TIMES,
    st.sampled_from([True, None]),
)


class Case(NamedTuple):
    """A stream's catalog entry and rows, and how it is read."""

    entry: dict[str, Any]
    rows: list[dict[str, Any]]
    deselected: set[Path]
    separator: str | None  # None: without flattening
    depth: int

    @property
    def name(self) -> str:
        return str(self.entry["tap_stream_id"])

    def read(self, address: str) -> list[dict[str, Any]]:
        """Run the tap in this process; return its messages."""
        metadata = [
            {**part, "metadata": part["metadata"] | {"selected": path not in self.deselected}}
            for part, path in zip(self.entry["metadata"], PATHS[self.name], strict=True)
        ]
        config = {
            "api_key": ENVOY.api_key,
            "api_url": f"{address}/v1",
            "flattening_enabled": self.separator is not None,
            "flattening_max_depth": self.depth,
            "flattening_separator": self.separator,
            "start_date": (NOW - timedelta(days=3)).isoformat(),
            "lookahead_days": 1,
            "requests_per_second": 1000,
        }
        out = io.TextIOWrapper(io.BytesIO())
        with redirect_stdout(out):
            catalog = {"streams": [{**self.entry, "metadata": metadata}]}
            assert TapEnvoy(config=config, catalog=catalog).run() == 0
        return [json.loads(line) for line in out.buffer.getvalue().splitlines()]

    def expected(self, row: dict[str, Any]) -> set[tuple[Path, str]]:
        """Return the scalars of a row that must come out, each with the names that lead to it."""
        # In place of an object, anything may be what is deselected of it.
        objects = {path[0] for path in self.deselected if len(path) > 1}
        kept = {x: y for x, y in row.items() if x not in objects or isinstance(y, dict)}
        return {
            (path, value)
            for path, value in leaves(kept)
            if not {path[:1], path[:2]} & self.deselected and not {*path} & {"secret", *SECRETS}
        }

    def found(self, record: dict[str, Any]) -> set[tuple[Path, str]]:
        """Return the scalars of a record, without the `additionalFields` before their path."""
        columns = {(self.separator or "").join(path): path for path in PATHS[self.name]}
        nested = ((columns.get(p[0], p[:1]) + p[1:], value) for p, value in leaves(record))
        return {(p[1:] if p[:1] == REST else p, value) for p, value in nested}


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the numbers and texts of a value, also of JSON in a text, each with its path."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        value = json.loads(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name.replace("\0", "")))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif value not in (None, True, "true"):
        yield path, str(value).replace("\0", "")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    entry = draw(st.sampled_from(ENTRIES))
    key = entry.get("replication_key", "createdAt")
    declared = [path for path in PATHS[entry["tap_stream_id"]] if path]
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    other_names = st.sampled_from([*SECRETS, "n\0ew"]) | st.text(letters, max_size=2)
    names = st.sampled_from([path[-1] for path in declared]) | other_names
    values = st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
        max_leaves=5,
    )
    columns = st.sampled_from([path[0] for path in declared]) | other_names
    row = st.dictionaries(columns, values, min_size=3, max_size=6)
    rows = [
        {**one, "id": f"row {number}", "createdAt": draw(TIMES), key: draw(TIMES)}
        for number, one in enumerate(draw(st.lists(row, min_size=2, max_size=3)))
    ]
    optional = sorted({*declared} - {("id",), (key,)})
    deselected = draw(st.sets(st.sampled_from(optional), max_size=4))
    separator = draw(st.sampled_from([None, "__", ".", "-:-"]))
    return Case(entry, rows, deselected, separator, draw(st.integers(1, 2)))


@settings(max_examples=50)
@given(case=cases())
def test_random_rows_match_their_schema_and_come_out_complete(
    stage: tuple[Stage, str], case: Case
) -> None:
    stage[0].envoy = ENVOY
    ENVOY.rows[case.name] = case.rows
    messages = case.read(stage[1])
    (schema,) = [m["schema"] for m in messages if m["type"] == "SCHEMA"]
    validator = Draft202012Validator(schema)
    records = {m["record"]["id"]: m["record"] for m in messages if m["type"] == "RECORD"}
    assert len(records) == len(case.rows)
    for row in case.rows:
        record, expected = records[row["id"]], case.expected(row)
        validator.validate(record)
        assert record.keys() <= schema["properties"].keys()
        assert case.separator is None or record.keys() == schema["properties"].keys()
        found = case.found(record)
        assert not found - expected
        assert REST in case.deselected or not expected - found
