"""Stream maps: a typing error is refused, and no value of a record leaves in a message."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


UNKNOWN = "`stream_maps`: unknown"


@pytest.mark.parametrize(
    ("maps", "sentence"),
    [
        ({"entrys": {"email": None}}, f"{UNKNOWN} stream: `entrys`; did you mean `entries`?"),
        ({"zebra": None}, f"{UNKNOWN} stream: `zebra`; correct or remove it."),
        ({"v": {"__source__": "entris"}}, f"{UNKNOWN} stream: `entris`; did you mean `entries`?"),
        (
            {"entries": {"fulName": None}},
            f"{UNKNOWN} property of entries: `fulName`; did you mean `fullName`?",
        ),
        (
            {"entries": {"fullname": "__NULL__"}},
            f"{UNKNOWN} property of entries: `fullname`; did you mean `fullName`?",
        ),
        ({"*": {"emali": None}}, f"{UNKNOWN} property of *: `emali`; did you mean `email`?"),
        (
            {"entries": {"full_name": "fullName"}},
            (
                f"{UNKNOWN} property of entries: `full_name`; did you mean `fullName`? "
                "To add a property of this name, map `fullName` too."
            ),
        ),
        (
            {"entries": {"fullName": "md5(fulName)"}},
            (
                f"{UNKNOWN} name in the expression of entries.fullName: `fulName`; "
                "did you mean `fullName`?"
            ),
        ),
        (
            {"entries": {"x": "md6(email)"}},
            f"{UNKNOWN} name in the expression of entries.x: `md6`; correct or remove it.",
        ),
        (
            {"entries": {"__flter__": "1"}},
            f"{UNKNOWN} property of entries: `__flter__`; correct or remove it.",
        ),
        (
            {"entries": {"fullName": "md5('hidden'"}},
            "`stream_maps`: the expression of entries.fullName is not valid.",
        ),
        (
            {"entries": {"fullName": "x = 1"}},
            "`stream_maps`: the expression of entries.fullName is not valid.",
        ),
        (
            {"entries": {"id": None}},
            "`stream_maps`: Removing key property 'id' is not permitted in 'entries' ",
        ),
        (
            {"entries": {"__alias__": "'hidden' / 0"}},
            "`stream_maps` or `flattening_max_key_length` is not valid (TypeError); check each",
        ),
    ],
    ids=repr,
)
def test_stream_maps_with_an_error_are_refused(maps: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EnvoyError, match=re.escape(sentence)) as caught:
        tap(maps)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_stream_maps_with_fake_need_faker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvoyError, match=r"entries\.x needs Faker; install `tap-envoy\[faker\]`"):
        tap({"entries": {"x": "fake.name()"}})


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


EXPRESSIONS = st.sampled_from(["fullName", "md5(email)", "__NULL__", "x =", "fullName.zebra"])


@given(
    maps=st.dictionaries(
        st.sampled_from(["entries", "*", "__else__", "entrys"]) | st.text(max_size=5),
        st.dictionaries(
            st.sampled_from(["email", "__filter__", "__alias__", "__source__"]) | st.text(),
            EXPRESSIONS | st.text() | st.none(),
            max_size=3,
        )
        | st.none(),
        max_size=2,
    )
)
@settings(deadline=None, max_examples=50)
def test_stream_maps_of_any_form_make_a_tap_or_one_sentence(maps: dict[str, Any]) -> None:
    sentence = "."
    try:
        tap(maps)
    except EnvoyError as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert "Unexpected" not in sentence
