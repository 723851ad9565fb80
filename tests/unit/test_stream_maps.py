"""Stream maps: a typing error is refused, and no value of a record leaves in a message."""

import re
from typing import Any

import pytest
from singer_sdk.mapper import StreamMap

from tap_envoy.exceptions import EnvoyError
from tap_envoy.tap import TapEnvoy

RECORD = {"id": "1", "fullName": "Grace Secretive", "email": "g@x.example", "host": None}


def tap(maps: Any, **config: Any) -> TapEnvoy:
    return TapEnvoy(config={"api_key": "not-used", "stream_maps": maps, **config})


def map_of_entries(maps: Any) -> StreamMap:
    return tap(maps).mapper.stream_maps["entries"][-1]


@pytest.mark.parametrize(
    "maps",
    [
        {},
        {"__else__": None},
        {"entries": "__NULL__"},
        {"entries": {"fullName": "md5(fullName)", "email": "__NULL__", "flowId": None}},
        {"entries": {"nameHash": "md5(fullName) if fullName else None"}},
        {"entries": {"full_name": "fullName", "fullName": None}},
        {"entries": {"name": "fullName", "id": "id", "__else__": None}},
        {"entries": {"__alias__": "visitors", "__filter__": "email != 'a@b'"}},
        {"entries": {"first": "record['fullName'].split(' ')[0]"}},
        {"entries": {"hosts": "[x for x in _['customFields']]"}},
        {"entries": {"fullName": "fake.name()"}},
        {"visitors": {"__source__": "entries", "fullName": None}},
        {"*": {"email": None}},
        {"entries": {"__filter__": None, "__key_properties__": None}},
        {"entries": {"key": "config['salt'] + str(id)"}},
    ],
    ids=repr,
)
def test_stream_maps_that_can_be_meant_are_accepted(maps: dict[str, Any]) -> None:
    assert tap(maps)


@pytest.mark.parametrize(
    ("maps", "what", "name", "advice"),
    [
        ({"entrys": {"email": None}}, "stream", "entrys", "did you mean `entries`?"),
        ({"zebra": None}, "stream", "zebra", "correct or remove it."),
        ({"v": {"__source__": "entris"}}, "stream", "entris", "did you mean `entries`?"),
        ({"entries": {"fulName": None}}, "property of entries", "fulName", "did you mean `fullN"),
        ({"entries": {"fullname": "1"}}, "property of entries", "fullname", "did you mean `fullN"),
        ({"*": {"emali": "__NULL__"}}, "property of *", "emali", "did you mean `email`?"),
        (
            {"entries": {"full_name": "fullName"}},
            "property of entries",
            "full_name",
            "did you mean `fullName`? To add a property of this name, map `fullName` too.",
        ),
        ({"entries": {"__flter__": "1"}}, "property of entries", "__flter__", "correct or remove"),
    ],
    ids=repr,
)
def test_stream_maps_with_an_unknown_name_are_refused(
    maps: dict[str, Any], what: str, name: str, advice: str
) -> None:
    sentence = f"`stream_maps`: unknown {what}: `{name}`; {advice}"
    with pytest.raises(EnvoyError, match=f"^{re.escape(sentence)}"):
        tap(maps)


@pytest.mark.parametrize(
    ("maps", "sentence"),
    [
        ({"entries": {"x": "md5('1'"}}, "Failed to parse expression md5('1'."),
        ({"entries": {"id": None}}, "Removing key property 'id' is not permitted in 'entries' "),
        ({"entries": {"__alias__": "'hidden' / 0"}}, "is not valid (TypeError); check each `__al"),
    ],
    ids=repr,
)
def test_stream_maps_that_are_not_valid_are_refused_without_values(
    maps: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EnvoyError, match=f"^`stream_maps`.*{re.escape(sentence)}") as caught:
        tap(maps)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_flattening_to_too_short_names_is_refused() -> None:
    flattening = {"flattening_enabled": True, "flattening_max_depth": 3}
    with pytest.raises(EnvoyError, match=r"`flattening_max_key_length` is not valid"):
        tap({}, **flattening, flattening_max_key_length=1)


# Fails where the SDK no longer evaluates expressions by the private `CustomStreamMap._eval`.
@pytest.mark.parametrize(
    ("maps", "where"),
    [
        ({"entries": {"email": "md5(self)", "fullName": "self.zebra"}}, "fullName"),
        ({"entries": {"email": "md5(self)", "host": "md5(self)"}}, "host"),
        ({"entries": {"__filter__": "fullName > 5"}}, "__filter__"),
        ({"entries": {"fullName": "md5(fulName)"}}, "fullName"),
        ({"visitors": {"__source__": "entries", "x": "fullName / 0"}}, "x"),
    ],
)
def test_stream_map_that_fails_names_the_property_and_no_value(
    maps: dict[str, Any], where: str
) -> None:
    stream_map = map_of_entries(maps)
    with pytest.raises(EnvoyError, match=f"The stream map of `{where}` failed on a r") as caught:
        stream_map.transform(dict(RECORD))
    assert caught.value.__suppress_context__
    assert "Grace" not in str(caught.value)


def test_stream_map_values_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    stream_map = map_of_entries({"entries": {"__filter__": "fullName", "email": "md5(email)"}})
    mapped = stream_map.transform(dict(RECORD))
    assert mapped is not None
    assert mapped["email"] != RECORD["email"]
    assert "Grace" not in caplog.text
