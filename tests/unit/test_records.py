"""Timestamps, conversion, what remains for `additionalFields`, secrets."""

import time
from copy import deepcopy
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
        "any": {},
        "owner": {"type": ["object", "null"], "properties": {"age": {"type": "integer"}}},
        "parts": {"type": ["array", "null"], "items": PARTS},
        "additionalFields": {"type": ["object", "null"], "additionalProperties": True},
    }
}


# Timestamps


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-17T14:39:44.185Z", "2024-05-17T14:39:44.185Z"),
        (" 2024-05-17 14:39:44UTC ", "2024-05-17T14:39:44.000Z"),
        ("2024-05-17t14:39:44.185z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T14:39:44.185999Z", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17T16:39:44.185+02:00", "2024-05-17T14:39:44.185Z"),
        ("2024-05-17", "2024-05-17T00:00:00.000Z"),
        ("", None),
        ("yesterday", None),
        ("2024-02-30T00:00:00.000Z", None),
        ("٢٠٢٤-05-17T14:39:44.185Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, None),
        (1715956784, None),
        ([2024], None),
    ],
)
def test_timestamp_is_normalized_or_none(value: Any, expected: str | None) -> None:
    assert normalize_timestamp(value) == expected


def test_timestamp_without_a_zone_is_utc_wherever_the_tap_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        normalized = normalize_timestamp("2024-05-17 14:39:44")
    time.tzset()
    assert normalized == "2024-05-17T14:39:44.000Z"


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
        ("whole", {"a": {"b": 1}}, {"a": {"b": 1}}),
        ("either", 1, 1),
        ("any", [1], [1]),
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
        ("count", True),
        ("count", "12"),
        ("ratio", "1.5"),
        ("ratio", False),
        ("ratio", [1]),
        ("whole", "text"),
        ("owner", "Ada"),
        ("owner", [{}]),
        ("at", 1715956784),
        ("at", {}),
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


def test_null_stays_null_and_is_no_mismatch() -> None:
    conformer = RecordConformer(SCHEMA)
    nulls = dict.fromkeys(SCHEMA["properties"].keys() - {"additionalFields"})
    assert conformer.conform(nulls.copy()) == {**nulls, "additionalFields": None}
    assert conformer.mismatched_properties == set()


# What is not emitted


@pytest.mark.parametrize(
    ("levels", "without_place", "with_city"),
    [
        (0, {}, {"city": "x"}),
        (1, {"place": None}, {"city": "x"}),
        (2, {"place": {"geo": None, "city": None}}, {"geo": None, "city": "x"}),
        (3, {"place": {"geo": {"lat": None}, "city": None}}, {"geo": {"lat": None}, "city": "x"}),
    ],
)
def test_missing_properties_become_null_in_levels_that_are_mapped_or_flattened(
    levels: int, without_place: Any, with_city: Any
) -> None:
    geo = {"type": ["object", "null"], "properties": {"lat": {"type": ["number", "null"]}}}
    place = {"type": ["object", "null"], "properties": {"geo": geo, "city": {"type": "string"}}}
    conformer = RecordConformer({"properties": {"place": place}}, complete_levels=levels)
    assert conformer.conform({}) == without_place
    assert conformer.conform({"place": {"city": "x"}}) == {"place": with_city}
    places = {"properties": {"places": {"type": "array", "items": place}}}
    row = {"places": [{"city": "x"}]}
    assert RecordConformer(places, complete_levels=levels).conform(deepcopy(row)) == row


def test_secret_that_a_catalog_declares_is_removed() -> None:
    schema = {"properties": {"id": {}, "secretToken": {"type": "string"}}}
    assert RecordConformer(schema).conform({"id": "1", "secretToken": "x"}) == {"id": "1"}
