"""Stream maps: a typing error is refused, results fit the schema, no value is in a message."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tap_envoy.exceptions import EnvoyError
from tap_envoy.tap import TapEnvoy

RECORD = {"id": "1", "fullName": "Grace Secretive", "email": "g@x.example", "isDelivery": False}


def transform(maps: Any) -> dict[str, Any]:
    """Return what becomes of a row, unless it is left out; it matches its schema."""
    tap = TapEnvoy(config={"api_key": "not-used", "stream_maps": maps})
    stream_map = tap.mapper.stream_maps["entries"][-1]
    mapped = stream_map.transform({**RECORD, "host": None, "size": [1.5]}) or RECORD
    Draft202012Validator(stream_map.transformed_schema).validate(mapped)
    return mapped


@pytest.mark.parametrize(
    "maps",
    [
        {"__else__": None},
        {"entries": "__NULL__"},
        {"entries": {"email": "__NULL__", "flowId": None, "nameHash": "md5(fullName)"}},
        {"entries": {"full_name": "fullName", "fullName": None}},
        {"entries": {"name": "fullName", "id": "id", "__else__": None}},
        {"entries": {"__alias__": "visitors", "__filter__": "email != 'a@b'"}},
        {"entries": {"first": "record['fullName'].split(' ')[0]", "email": "fake.email()"}},
        {"visitors": {"__source__": "entries", "fullName": None}},
        {"*": {"email": None}},
    ],
    ids=repr,
)
def test_stream_maps_that_can_be_meant_are_accepted(maps: dict[str, Any]) -> None:
    assert transform(maps)


@pytest.mark.parametrize(
    ("maps", "sentence"),
    [
        ({"entrys": {"email": None}}, "unknown stream: `entrys`; did you mean `entries`?"),
        ({"zebra": None}, "unknown stream: `zebra`; correct or remove it."),
        ({"v": {"__source__": "entris"}}, "unknown stream: `entris`; did you mean `entries`?"),
        ({"*": {"emali": "__NULL__"}}, "unknown property of *: `emali`; did you mean `email`?"),
        (
            {"entries": {"full_name": "fullName"}},
            "unknown property of entries: `full_name`; did you mean `fullName`? To add a property",
        ),
        ({"entries": {"__flter__": "1"}}, "unknown property of entries: `__flter__`; correct or"),
        ({"entries": {"x": "md5('1'"}}, "Failed to parse expression md5('1'."),
        ({"entries": {"id": None}}, "Removing key property 'id' is not permitted in 'entries' "),
    ],
    ids=repr,
)
def test_stream_maps_that_are_not_valid_are_refused(maps: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EnvoyError, match=f"^`stream_maps`: {re.escape(sentence)}"):
        transform(maps)


def test_stream_map_alias_that_fails_is_refused_without_its_text() -> None:
    sentence = "`stream_maps`, `__alias__` or flattening is not valid (TypeError)."
    with pytest.raises(EnvoyError, match=f"^{re.escape(sentence)}$"):
        transform({"entries": {"__alias__": "'hidden' / 0"}})


@pytest.mark.parametrize(
    ("name", "expression", "expected"),
    [
        ("x", "size[0]", "1.5"),  # the SDK declares a string
        ("x", "size", "[1.5]"),
        ("x", "isDelivery or host is None", "true"),
        ("x", "datetime.date(2024, 5, 17)", "2024-05-17"),
        ("x", "float(size[0])", 1.5),
        ("x", "host", None),
        ("isDelivery", "isDelivery is False", True),
        ("signedInAt", '"2024-05-17"', "2024-05-17T00:00:00.000Z"),
        ("customFields", "[{'field': 'a'}]", [{"field": "a"}]),
    ],
)
def test_stream_map_result_becomes_the_type_of_its_property(
    name: str, expression: str, expected: Any
) -> None:
    assert transform({"entries": {name: expression}})[name] == expected


# Fails where the SDK no longer evaluates expressions by the private `CustomStreamMap._eval`.
@pytest.mark.parametrize(
    ("maps", "where", "reason"),
    [
        ({"email": "md5(self)", "fullName": "self.x"}, "fullName", " (AttributeDoesNotExist); ch"),
        ({"__filter__": "fullName > 5"}, "__filter__", " (TypeError); check its names"),
        ({"isDelivery": "fullName"}, "isDelivery", ": convert its result to the property's type"),
    ],
)
def test_stream_map_that_fails_names_the_property_and_no_value(
    maps: dict[str, Any], where: str, reason: str
) -> None:
    sentence = f"The stream map of `{where}` failed on a record{reason}"
    with pytest.raises(EnvoyError, match=re.escape(sentence)) as caught:
        transform({"visitors": {"__source__": "entries", **maps}})
    assert "Grace" not in str(caught.value)


def test_stream_map_values_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert transform({"entries": {"__filter__": "fullName", "email": "md5(email)"}})
    assert "Grace" not in caplog.text
