"""Records are made to match their schema; timestamps have one format; secrets are removed."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from singer_sdk import typing as th

from tap_envoy.records import (
    MAX_NESTING,
    RecordConformer,
    drop_secrets,
    format_timestamp,
    normalize_timestamp,
)

SCHEMA = th.PropertiesList(
    th.Property("id", th.StringType, required=True),
    th.Property("flag", th.BooleanType),
    th.Property("count", th.IntegerType),
    th.Property("ratio", th.NumberType),
    th.Property("at", th.DateTimeType),
    th.Property("tags", th.ArrayType(th.StringType)),
    th.Property(
        "owner", th.ObjectType(th.Property("age", th.IntegerType), additional_properties=True)
    ),
    th.Property(
        "strict", th.ObjectType(th.Property("x", th.StringType), additional_properties=False)
    ),
    th.Property("parts", th.ArrayType(th.ObjectType(th.Property("size", th.NumberType)))),
).to_dict()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def conform(**record: Any) -> dict[str, Any]:
    return RecordConformer(SCHEMA).conform(record)


# Timestamps


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-17T14:39:44.185Z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17 14:39:44 UTC", "2024-05-17T14:39:44.000Z"),
        (" 2024-05-17 14:39:44UTC ", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17T14:39:44Z", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17t14:39:44.185z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T14:39:44.185999Z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T16:39:44.185+02:00", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T14:39:44.185", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17", "2024-05-17T00:00:00.000Z"),
        ("1715956784", "2024-05-17T14:39:44.000Z"),
        ("1715956784185", "2024-05-17T14:39:44.185Z"),
        (1715956784, "2024-05-17T14:39:44.000Z"),
        (1715956784.185, "2024-05-17T14:39:44.185Z"),
        (1715956784185, "2024-05-17T14:39:44.185Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.000Z"),
        (99_999_999_999, "5138-11-16T09:46:39.000Z"),
        (100_000_000_000, "1973-03-03T09:46:40.000Z"),
        (-100_000_000_000, "1966-10-31T14:13:20.000Z"),
        (True, None),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("2024-13-17T14:39:44.185Z", None),
        ("171595678", None),
        ("17159567841", None),
        ("0001-01-01T00:00:00+14:00", None),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
        ([2024], None),
    ],
)
def test_timestamp_is_normalized_or_none(value: Any, expected: str | None) -> None:
    assert normalize_timestamp(value) == expected


def test_canonical_timestamp_is_checked_not_only_matched() -> None:
    assert normalize_timestamp("2024-02-30T00:00:00.000Z") is None
    assert normalize_timestamp("٢٠٢٤-05-17T14:39:44.185Z") is None


@given(first=st.datetimes(timezones=st.timezones()), second=st.datetimes(timezones=st.timezones()))
def test_formatted_timestamps_compare_like_times(first: datetime, second: datetime) -> None:
    try:
        one, two = format_timestamp(first), format_timestamp(second)
    except OverflowError:
        return
    assert normalize_timestamp(one) == one
    if one < two:
        assert first < second


def test_timestamp_is_formatted_in_utc_and_cut() -> None:
    finer = datetime(2024, 5, 17, 16, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert format_timestamp(finer) == "2024-05-17T14:00:00.999Z"
    assert format_timestamp(datetime(2024, 5, 17, tzinfo=UTC)) == "2024-05-17T00:00:00.000Z"


def test_timestamp_without_a_zone_is_utc_wherever_the_tap_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        normalized = normalize_timestamp("2024-05-17 14:39:44")
    time.tzset()
    assert normalized == "2024-05-17T14:39:44.000Z"


# Conversion


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("id", "a", "a"),
        ("id", 7, "7"),
        ("id", True, "true"),
        ("id", 1.5, "1.5"),
        ("id", {"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ("flag", True, True),
        ("flag", "true", True),
        ("flag", "FALSE", False),
        ("flag", 1, True),
        ("flag", 0, False),
        ("flag", "1", True),
        ("flag", "0", False),
        ("flag", 2, None),
        ("flag", 1.0, None),
        ("flag", "yes", None),
        ("count", 12, 12),
        ("count", "12", 12),
        ("count", "-12", -12),
        ("count", 12.0, 12),
        ("count", 1.5, None),
        ("count", "1.5", None),
        ("count", True, None),
        ("count", "1" * 18, int("1" * 18)),
        ("count", "1" * 19, None),
        ("count", "١٢", None),
        ("ratio", 1, 1),
        ("ratio", 1.5, 1.5),
        ("ratio", "1.5", 1.5),
        ("ratio", "-1.5e2", -150.0),
        ("ratio", "12", 12),
        ("ratio", "1e999", None),
        ("ratio", "x", None),
        ("ratio", True, None),
        ("ratio", [1], None),
        ("tags", ["a", "b"], ["a", "b"]),
        ("tags", "a", ["a"]),
        ("tags", [1, None, "b"], ["1", "b"]),
        ("tags", [], []),
        ("owner", {"age": "7", "more": [1]}, {"age": 7, "more": [1]}),
        ("owner", "Ada", None),
        ("owner", [{}], None),
        ("strict", {"x": 1, "y": 2}, {"x": "1"}),
        ("parts", [{"size": "2"}, "no"], [{"size": 2}]),
        ("parts", {"size": 2.5}, [{"size": 2.5}]),
        ("at", "2024-05-17 14:39:44 UTC", "2024-05-17T14:39:44.000Z"),
        ("at", {}, None),
    ],
)
def test_value_is_converted_or_none(name: str, value: Any, expected: Any) -> None:
    conformer = RecordConformer(SCHEMA)
    result = conformer.conform({name: value})[name]
    assert result == expected
    assert type(result) is type(expected)
    assert conformer.mismatched_properties == ({name} if expected is None else set())


@pytest.mark.parametrize("name", SCHEMA["properties"])
def test_null_stays_null_and_is_no_mismatch(name: str) -> None:
    conformer = RecordConformer(SCHEMA)
    assert conformer.conform({name: None}) == {name: None}
    assert conformer.mismatched_properties == set()


def test_integer_of_a_number_stays_an_integer() -> None:
    assert type(conform(ratio="12")["ratio"]) is int
    assert type(conform(ratio="12.0")["ratio"]) is float


def test_record_is_changed_in_place() -> None:
    record = {"id": 1}
    assert RecordConformer(SCHEMA).conform(record) is record


def test_mismatches_inside_objects_are_reported() -> None:
    conformer = RecordConformer(SCHEMA)
    conformer.conform({"owner": {"age": "old"}})
    assert conformer.mismatched_properties == {"age"}


def test_unknown_properties_are_dropped_and_reported_unless_known() -> None:
    conformer = RecordConformer(SCHEMA, known={"seen"})
    assert conformer.conform({"id": "1", "seen": 1, "new": 2}) == {"id": "1"}
    assert conformer.unknown_properties == {"new"}


def test_open_schema_keeps_unknown_properties() -> None:
    conformer = RecordConformer({"properties": {}, "additionalProperties": True})
    assert conformer.conform({"new": 2}) == {"new": 2}
    assert conformer.unknown_properties == set()


def test_schema_without_types_takes_text() -> None:
    conformer = RecordConformer({"properties": {"x": {}, "y": {"type": ["array", "null"]}}})
    assert conformer.conform({"x": 1, "y": 2}) == {"x": "1", "y": ["2"]}


@given(
    st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), JSON).map(
        lambda record: {**record, "id": "1"}
    )
)
def test_any_record_matches_its_schema_afterwards(record: dict[str, Any]) -> None:
    Draft202012Validator(SCHEMA).validate(RecordConformer(SCHEMA).conform(record))
    assert json.loads(json.dumps(record)) == record


# Secrets


def test_secrets_are_dropped_at_any_depth() -> None:
    value = {"a": [{"secretToken": 1, "b": {"registrationURL": 2, "c": 3}}], "secretToken": 4}
    assert drop_secrets(value) == {"a": [{"b": {"c": 3}}]}
    assert "secretToken" in value


@pytest.mark.parametrize("value", [None, 1, "secretToken", [], {}])
def test_other_values_are_not_changed(value: Any) -> None:
    assert drop_secrets(value) == value


def nested(levels: int, *, in_objects: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if in_objects else [value]
    return value


@pytest.mark.parametrize("in_objects", [True, False])
def test_deep_nesting_is_an_error(*, in_objects: bool) -> None:
    deepest = nested(MAX_NESTING - 1, in_objects=in_objects)
    assert drop_secrets(deepest) == deepest
    assert MAX_NESTING == 100
    for value in ({"a": deepest}, [deepest]):
        with pytest.raises(ValueError, match=r"^nested too deeply$"):
            drop_secrets(value)
