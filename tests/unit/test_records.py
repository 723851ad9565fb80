"""Timestamps, conversion, what remains for `additionalFields`, secrets."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.records import RecordConformer, format_timestamp, normalize_timestamp

NUMBER = {"type": ["number", "null"]}
PARTS = {"type": "object", "properties": {"size": NUMBER}, "additionalProperties": True}
SCHEMA: dict[str, Any] = {
    "properties": {
        "id": {"type": "string"},
        "flag": {"type": ["boolean", "null"]},
        "count": {"type": ["null", "integer"]},
        "ratio": NUMBER,
        "at": {"type": ["string", "null"], "format": "date-time"},
        "tags": {"type": ["array", "null"], "items": {"type": "string"}},
        "list": {"type": ["array", "null"]},
        "whole": {"type": ["object", "null"]},
        "either": {"type": ["string", "integer", "null"]},
        "owner": {"type": ["object", "null"], "properties": {"age": {"type": "integer"}}},
        "parts": {"type": ["array", "null"], "items": PARTS},
        "additionalFields": {"type": ["object", "null"], "additionalProperties": True},
    }
}


# Timestamps


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_tokyo")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-17T14:39:44.185Z", "2024-05-17T14:39:44.185Z"),
        (" 2024-05-17 14:39:44UTC ", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17t14:39:44.185999z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T16:39:44.185+02:00", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17", "2024-05-17T00:00:00.000Z"),
        ("", None),
        ("yesterday", None),
        ("2024-02-30T00:00:00.000Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, None),
        (1715956784, None),
    ],
)
def test_timestamp_is_normalized_or_none(value: Any, expected: str | None) -> None:
    assert normalize_timestamp(value) == expected


ZONES = st.sampled_from([UTC, *(timezone(timedelta(hours=hours)) for hours in (14, -12))])
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001


@given(first=TIMES, second=TIMES)
def test_formatted_timestamps_compare_like_times(first: datetime, second: datetime) -> None:
    one, two = format_timestamp(first), format_timestamp(second)
    assert normalize_timestamp(one) == one
    if one < two:
        assert first < second


# Conversion


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("id", 7, "7"),
        ("id", True, "true"),
        ("id", {"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ("tags", "a", ["a"]),
        ("tags", [1, None, "b"], ["1", "b"]),
        ("list", {"a": 1}, [{"a": 1}]),
        ("whole", {"a": {"b": 1}, "token": 7}, {"a": {"b": 1}}),
        ("either", 1, 1),
        ("parts", {"size": 2.5, "more": 1}, [{"size": 2.5, "more": 1}]),
        ("at", "2024-05-17 14:39:44 UTC", "2024-05-17T14:39:44.000Z"),
    ],
)
def test_value_of_another_type_is_converted(name: str, value: Any, expected: Any) -> None:
    conformer = RecordConformer(SCHEMA)
    record = {name: value}
    assert conformer.conform(record) is record
    assert record == {name: expected, "additionalFields": None}
    assert type(record[name]) is type(expected)
    assert conformer.mismatched_properties == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flag", 1),
        ("flag", "true"),
        ("count", 1.5),
        ("count", "12"),
        ("ratio", False),
        ("whole", "text"),
        ("owner", "Ada"),
        ("owner", [{}]),
        ("at", 1715956784),
    ],
)
def test_value_that_cannot_be_converted_is_null_and_kept_in_additional_fields(
    name: str, value: Any
) -> None:
    conformer = RecordConformer(SCHEMA)
    assert conformer.conform({name: value}) == {name: None, "additionalFields": {name: value}}
    assert conformer.mismatched_properties == {name}
    assert conformer.unknown_properties == set()


def test_items_that_do_not_fit_are_kept_in_additional_fields() -> None:
    conformer = RecordConformer(SCHEMA)
    record = conformer.conform({"parts": [{"size": "big", "id": 1}, "no", {"size": 1}]})
    assert record["parts"] == [{"size": None, "id": 1}, {"size": 1}]
    assert record["additionalFields"] == {"parts": [{"size": "big"}, "no"]}
    assert conformer.mismatched_properties == {"parts[]", "parts[].size"}


def test_value_in_place_of_an_object_with_deselected_properties_is_dropped() -> None:
    selected = {**SCHEMA["properties"], "owner": {"type": "object", "properties": {}}}
    conformer = RecordConformer({"properties": selected}, declared=[SCHEMA])
    assert conformer.conform({"owner": "Ada"}) == {"owner": None, "additionalFields": None}


def test_flattened_object_has_no_other_properties() -> None:
    place = {"type": "object", "properties": {"city": {}}, "additionalProperties": True}
    schema = {"properties": {"place": place, "additionalFields": {}}}
    conformer = RecordConformer(schema, complete_levels=2)
    record = conformer.conform({"place": {"city": "x", "plus": 1}})
    assert record == {"place": {"city": "x"}, "additionalFields": {"place": {"plus": 1}}}


def test_null_stays_null_and_secrets_are_removed() -> None:
    conformer = RecordConformer({"properties": {**SCHEMA["properties"], "token": {}}})
    nulls = dict.fromkeys(SCHEMA["properties"].keys() - {"additionalFields"})
    assert conformer.conform({**nulls, "token": "x"}) == {**nulls, "additionalFields": None}
    assert conformer.mismatched_properties == set()
