"""What a run is given besides settings: state, catalog and stream maps."""

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from singer_sdk.exceptions import ConfigValidationError

from tap_envoy.exceptions import EnvoyError
from tap_envoy.inputs import read_json_object, read_settings
from tap_envoy.tap import TapEnvoy

CONFIG: dict[str, Any] = {"api_key": "not-used", "api_url": "http://127.0.0.1:9/v1"}
TIME = "2024-03-14T08:00:00.000Z"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def tap(**arguments: Any) -> TapEnvoy:
    config = {**CONFIG, **arguments.pop("config", {})}
    return TapEnvoy(config=config, **arguments)


def bookmark(value: Any = TIME, stream: str = "entries", key: str = "signedInAt") -> dict[str, Any]:
    return {
        "bookmarks": {stream: {"replication_key": key, "replication_key_value": value}},
    }


# State


@pytest.mark.parametrize(
    "state",
    [
        bookmark(),
        {"type": "STATE", "value": bookmark()},
        {"singer_state": bookmark()},
        {"completed": {"singer_state": bookmark()}, "partial": {}},
        bookmark("2024-03-14T10:00:00+02:00"),
        bookmark("2024-03-14T08:00:00.000000Z"),
        {**bookmark(), "currently_syncing": None},
        {"bookmarks": {"entries": {"replication_key_value": TIME, "progress_markers": 5}}},
    ],
    ids=repr,
)
def test_state_is_accepted_in_each_known_form(state: dict[str, Any]) -> None:
    assert tap(state=state).state == bookmark()


@pytest.mark.parametrize("state", [{}, {"bookmarks": {}}, {"singer_state": {}}])
def test_state_without_bookmarks_starts_from_the_beginning(state: dict[str, Any]) -> None:
    assert not tap(state=state).state.get("bookmarks")


@pytest.mark.parametrize(
    ("state", "part"),
    [
        ({"entries": TIME}, "--state: the file has no `bookmarks` object"),
        ({"bookmarks": None}, "--state: the file has no `bookmarks` object"),
        ({"bookmarks": []}, "--state: the file has no `bookmarks` object"),
        ({"value": 7}, "--state: the file has no `bookmarks` object"),
        ({"bookmarks": {"entries": 7}}, "the bookmark of entries is not an object"),
        (bookmark("next week"), "the bookmark of entries is not a time"),
        (bookmark(5), "the bookmark of entries is not a time"),
        (bookmark(["2024-01-01"]), "the bookmark of entries is not a time"),
        (bookmark(key="signedOutAt"), "the bookmark of entries is not that of `signedInAt`"),
    ],
    ids=repr,
)
def test_state_of_any_other_form_is_rejected(state: dict[str, Any], part: str) -> None:
    with pytest.raises(EnvoyError, match=part):
        tap(state=state)


def test_state_with_a_null_bookmark_starts_from_the_beginning() -> None:
    assert not tap(state=bookmark(None)).state


def test_state_of_a_full_table_stream_is_ignored() -> None:
    assert not tap(state=bookmark(stream="locations", key="createdAt")).state


def test_state_of_unknown_streams_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = bookmark()
    state["bookmarks"] |= {f"issue_{n}": {} for n in range(7)}
    assert tap(state=state).state == bookmark()
    (warning,) = warnings(caplog)
    assert warning == (
        "--state: ignoring bookmarks of unknown streams: "
        "issue_0, issue_1, issue_2, issue_3, issue_4 and 2 more."
    )


def test_a_bookmark_in_the_future_becomes_the_start_of_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    later = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    run = tap(state=bookmark(later))
    reached = run.state["bookmarks"]["entries"]["replication_key_value"]
    assert datetime.fromisoformat(reached) <= run.run_start
    assert run.run_start - datetime.fromisoformat(reached) < timedelta(seconds=1)
    (warning,) = warnings(caplog)
    assert "the bookmark of entries is in the future" in warning


@pytest.mark.parametrize("date", ["2999-01-01", "9999-12-31T23:59:59-14:00"])
def test_a_start_date_in_the_future_becomes_the_present(
    caplog: pytest.LogCaptureFixture, date: str
) -> None:
    run = tap(config={"start_date": date})
    assert datetime.fromisoformat(run.config["start_date"]) <= datetime.now(UTC)
    (warning,) = warnings(caplog)
    assert "`start_date` is in the future" in warning


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]


@given(state=st.dictionaries(st.sampled_from(["bookmarks", "value", "singer_state"]), JSON))
@settings(deadline=None, max_examples=50)
def test_any_state_makes_a_tap_or_one_sentence(state: dict[str, Any]) -> None:
    assert_tap_or_sentence(lambda: tap(state=state))


def assert_tap_or_sentence(create: Callable[[], TapEnvoy]) -> None:
    sentences = []
    try:
        assert create().selected_streams
    except EnvoyError as error:
        sentences = [str(error)]
    except ConfigValidationError as error:
        sentences = error.errors
    for sentence in sentences:
        assert_sentence(sentence)


def assert_sentence(text: str) -> None:
    assert text.endswith((".", "?"))
    assert text.isprintable()


# Files


def json_file(text: str, name: str = "state.json") -> StringIO:
    file = StringIO(text)
    file.name = name
    return file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "state.json is empty."),
        (" \n", "state.json is empty."),
        (
            '{"bookmarks": {\n  "secret" 1}}',
            "state.json, line 2, column 12: invalid JSON (Expecting ':' delimiter).",
        ),
        ("[1]", "state.json does not contain a JSON object."),
        ("null", "state.json does not contain a JSON object."),
        ("[" * 100_000, "state.json is not JSON that can be read."),
        (f'{{"a": {"9" * 5000}}}', "state.json is not JSON that can be read."),
    ],
    ids=range(7),
)
def test_a_file_that_is_not_a_json_object_is_described(text: str, problem: str) -> None:
    with pytest.raises(EnvoyError) as caught:
        read_json_object("--state", json_file(text))
    assert str(caught.value) == f"--state: {problem}"


class NamedBytes(BytesIO):
    name = "state.json"


@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_any_bytes_make_an_object_or_one_sentence(content: bytes) -> None:
    file = TextIOWrapper(NamedBytes(content), encoding="utf-8-sig")
    try:
        assert isinstance(read_json_object("--state", file), dict)
    except EnvoyError as error:
        sentence = str(error)
    else:
        sentence = "."
    assert_sentence(sentence)


@pytest.mark.parametrize("depth", [500, 5000, 200_000])
@pytest.mark.parametrize("name", ["catalog", "state", "stream_maps"])
def test_deep_nesting_makes_one_sentence(name: str, depth: int) -> None:
    deep: Any = []
    for _ in range(depth):
        deep = [deep]
    values = {
        "catalog": {"catalog": {"streams": [{"tap_stream_id": "entries", "schema": deep}]}},
        "state": {"state": bookmark(deep)},
        "stream_maps": {"config": {"stream_maps": {"entries": {"email": deep}}}},
    }
    with pytest.raises((EnvoyError, ConfigValidationError)):
        tap(**values[name])


def test_a_settings_file_that_is_not_utf8_is_described(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"password": "\xff"}')
    with pytest.raises(EnvoyError, match=r"--config: .*config\.json is not UTF-8 text\."):
        read_settings(path)


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"page_size": 5}', encoding="utf-8-sig")
    assert read_settings(path) == {"page_size": 5}


def test_a_settings_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvoyError, match=r"cannot read .*gone\.json \(No such file"):
        read_settings(tmp_path / "gone.json")


# Catalog


def discovered() -> dict[str, Any]:
    return TapEnvoy(validate_config=False).catalog_dict


def catalog(*selected: str, **changes: Any) -> dict[str, Any]:
    """Return a catalog with these streams selected, and these keys of their entries changed."""
    value = discovered()
    for stream in value["streams"]:
        is_selected = stream["tap_stream_id"] in selected
        (root,) = [entry for entry in stream["metadata"] if not entry["breadcrumb"]]
        root["metadata"]["selected"] = is_selected
        if is_selected:
            stream.update(deepcopy(changes))
    return value


def test_a_discovered_catalog_is_accepted_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tap(catalog=catalog("entries", "flows"))
    assert [stream.name for stream in run.selected_streams] == ["entries", "flows"]
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"streams": None},
        {"streams": [5]},
        {"streams": [{}]},
        {"streams": [{"tap_stream_id": ["entries"]}]},
        {"streams": [{"tap_stream_id": "entries", "schema": 5}]},
        {"streams": [{"tap_stream_id": "entries", "schema": {"type": 5}}]},
        {"streams": [{"tap_stream_id": "entries", "schema": {"properties": {"id": True}}}]},
        {"streams": [{"tap_stream_id": "entries", "metadata": {"a": 1}}]},
        {"streams": [{"tap_stream_id": "entries", "metadata": [{"breadcrumb": []}]}]},
        {"streams": [{"tap_stream_id": "entries", "metadata": [{"breadcrumb": [{}]}]}]},
    ],
    ids=repr,
)
def test_a_malformed_catalog_is_rejected(value: dict[str, Any]) -> None:
    with pytest.raises(EnvoyError, match="--catalog: the file is not a Singer catalog"):
        tap(catalog=value)


@pytest.mark.parametrize(
    "value",
    [
        {"streams": []},
        {"streams": [{"tap_stream_id": "issues"}]},
        {
            "streams": [
                {
                    "tap_stream_id": "entries",
                    "metadata": [{"breadcrumb": [], "metadata": {"selected": False}}],
                }
            ]
        },
    ],
    ids=["empty", "of another tap", "deselected"],
)
def test_a_catalog_that_selects_nothing_is_rejected(value: dict[str, Any]) -> None:
    with pytest.raises(EnvoyError, match="--catalog: no stream of this tap is selected"):
        tap(catalog=value)


@pytest.mark.parametrize(
    ("value", "is_selected"),
    [("true", True), ("True", True), (1, True), ("false", False), ("FALSE", False), ("0", False)],
)
@pytest.mark.parametrize("name", ["selected", "selected-by-default"])
def test_a_catalog_may_contain_booleans_as_text(name: str, value: Any, is_selected: bool) -> None:  # noqa: FBT001
    entry = {
        "tap_stream_id": "entries",
        "metadata": [
            {"breadcrumb": [], "metadata": {"selected": "true"}},
            {"breadcrumb": ["properties", "fullName"], "metadata": {name: value}},
        ],
    }
    (stream,) = tap(catalog={"streams": [entry]}).selected_streams
    assert stream.mask["properties", "fullName"] == is_selected


@pytest.mark.parametrize("value", ["no", "", 2, [], {}], ids=repr)
def test_a_catalog_whose_selection_is_unclear_is_rejected(value: Any) -> None:
    root = {"breadcrumb": [], "metadata": {"selected": value}}
    with pytest.raises(EnvoyError, match="--catalog: `selected` of entries must be true or false"):
        tap(catalog={"streams": [{"tap_stream_id": "entries", "metadata": [root]}]})


def test_a_catalog_with_unknown_streams_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    value = catalog("entries")
    value["streams"].append({"tap_stream_id": "issues"})
    tap(catalog=value)
    assert warnings(caplog) == ["--catalog: ignoring unknown streams: issues."]


def test_a_catalog_with_unknown_properties_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    value = catalog("entries", "flows")
    for stream in value["streams"]:
        if stream["tap_stream_id"] in {"entries", "flows"}:
            stream["schema"]["properties"]["zebra"] = {"type": ["string", "null"]}
            stream["metadata"].append({"breadcrumb": ["properties", "yak"], "metadata": {}})
    tap(catalog=value)
    (warning,) = warnings(caplog)
    assert warning.endswith("does not know: entries.yak, entries.zebra, flows.yak, flows.zebra.")


def test_a_short_catalog_is_completed() -> None:
    run = tap(catalog={"streams": [{"tap_stream_id": "entries"}]})
    (stream,) = run.selected_streams
    assert stream.replication_key == "signedInAt"
    assert stream.primary_keys == ("id",)
    assert "fullName" in stream.effective_schema["properties"]


def test_a_catalog_without_metadata_of_the_stream_selects_properties() -> None:
    metadata = [
        {"breadcrumb": ["properties", name], "metadata": {"selected": is_selected}}
        for name, is_selected in (("id", False), ("fullName", True), ("email", False))
    ]
    run = tap(catalog={"streams": [{"tap_stream_id": "entries", "metadata": metadata}]})
    (stream,) = run.selected_streams
    mask = {name: stream.mask["properties", name] for name in ("id", "fullName", "email")}
    assert mask == {"id": True, "fullName": True, "email": False}


@pytest.mark.parametrize("definition", [None, {}, {"description": "no type"}], ids=repr)
def test_a_catalog_whose_key_has_no_type_is_completed(definition: Any) -> None:
    properties = {"fullName": {"type": ["string"]}}
    if definition is not None:
        properties |= {"id": definition, "signedInAt": definition}
    root = {"breadcrumb": [], "metadata": {"selected": True}}
    entry = {"tap_stream_id": "entries", "schema": {"properties": properties}, "metadata": [root]}
    stream = tap(catalog={"streams": [entry]}).streams["entries"]
    assert stream.is_timestamp_replication_key
    schema = stream.effective_schema["properties"]
    assert schema.keys() == {"id", "fullName", "signedInAt"}
    assert schema["fullName"] == {"type": ["string"]}


@pytest.mark.parametrize(
    ("stream", "changes", "part"),
    [
        ("entries", {"replication_key": "signedOutAt"}, "entries must be `signedInAt`"),
        ("entries", {"key_properties": ["id", "zebra"]}, "entries names unknown properties: zebra"),
        ("entries", {"replication_method": "LOG_BASED"}, "must be FULL_TABLE or INCREMENTAL"),
        ("locations", {"replication_method": "INCREMENTAL"}, "cannot be read incrementally"),
        (
            "locations",
            {"replication_key": "createdAt", "replication_method": None},
            "cannot be read incrementally",
        ),
    ],
)
def test_a_catalog_with_another_key_or_replication_is_rejected(
    stream: str, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(EnvoyError, match=f"--catalog: .*{part}"):
        tap(catalog=catalog(stream, **changes))


def test_a_catalog_may_ask_for_the_whole_stream_and_keeps_its_bookmark() -> None:
    value = catalog("entries", replication_method="FULL_TABLE", replication_key="signedOutAt")
    run = tap(catalog=value, state=bookmark())
    assert run.streams["entries"].replication_method == "FULL_TABLE"
    assert run.state == bookmark()


def test_a_catalog_may_name_a_replication_key_for_the_whole_stream() -> None:
    value = catalog("locations", replication_method="FULL_TABLE", replication_key="zebra")
    assert tap(catalog=value).streams["locations"].replication_method == "FULL_TABLE"


def test_a_catalog_cannot_deselect_the_keys() -> None:
    names = ("id", "signedInAt", "flowId", "email")
    metadata = [{"breadcrumb": [], "metadata": {"selected": True}}] + [
        {"breadcrumb": ["properties", name], "metadata": {"selected": False}} for name in names
    ]
    entry = {"tap_stream_id": "entries", "key_properties": ["flowId"], "metadata": metadata}
    (stream,) = tap(catalog={"streams": [entry]}).selected_streams
    assert [stream.mask["properties", name] for name in names] == [True, True, True, False]


@given(
    entry=st.dictionaries(
        st.sampled_from(
            ["tap_stream_id", "schema", "metadata", "key_properties", "replication_key"]
        ),
        JSON | st.just("entries"),
    )
)
@settings(deadline=None, max_examples=50)
def test_any_catalog_makes_a_tap_or_one_sentence(entry: Any) -> None:
    assert_tap_or_sentence(lambda: tap(catalog={"streams": [entry]}))


# Stream maps


@pytest.mark.parametrize(
    "maps",
    [
        {},
        {"__else__": None},
        {"entries": None},
        {"entries": "__NULL__"},
        {"entries": {"fullName": None}},
        {"entries": {"fullName": "md5(fullName)", "email": "__NULL__"}},
        {"entries": {"nameHash": "md5(fullName) if fullName else None"}},
        {"entries": {"full_name": "fullName", "fullName": None}},
        {"entries": {"name": "fullName", "id": "id", "__else__": None}},
        {"entries": {"__alias__": "visitors", "__filter__": "email != 'a@b'"}},
        {"entries": {"first": "record['fullName'].split(' ')[0]"}},
        {"entries": {"hosts": "[x for x in _['customFields']]"}},
        {"visitors": {"__source__": "entries", "fullName": None}},
        {"*": {"email": None}},
        {"entries": {"__filter__": None, "__key_properties__": None}},
        {"entries": {"key": "id", "__key_properties__": ["key"]}},
        {"entries": {"key": "config['salt'] + str(id)"}},
    ],
    ids=repr,
)
def test_a_stream_map_that_can_be_meant_is_accepted(maps: dict[str, Any]) -> None:
    assert tap(config={"stream_maps": maps})


@pytest.mark.parametrize(
    ("maps", "part"),
    [
        ({"entrys": {"fullName": None}}, "no stream `entrys`; did you mean `entries`?"),
        ({"zebra": None}, "there is no stream `zebra`."),
        ({"entr*s_": {"fullName": None}}, "there is no stream `entr*s_`"),
        ({"v": {"__source__": "entry"}}, "no stream `entry`; did you mean `entries`?"),
        ({"entries": {"fulName": None}}, "no property `fulName`; did you mean `fullName`?"),
        ({"entries": {"fullname": "__NULL__"}}, "`fullname`; did you mean `fullName`?"),
        ({"entries": {"zebra": None}}, "entries has no property `zebra`."),
        ({"*": {"emali": None}}, "* has no property `emali`; did you mean `email`?"),
        ({"entries": {"fullname": "md5(fullName)"}}, "`fullname`; did you mean `fullName`?"),
        ({"entries": {"full_name": "fullName"}}, "map `fullName` too."),
        ({"entries": {"fullName": "md5(fulName)"}}, "unknown `fulName`; did you mean `fullName`?"),
        ({"entries": {"x": "record['emial']"}}, "unknown `emial`; did you mean `email`?"),
        ({"entries": {"x": "md6(email)"}}, "unknown `md6`; did you mean `md5`?"),
        ({"entries": {"__flter__": "1"}}, "no option `__flter__`; did you mean `__filter__`?"),
        ({"entries": {"fullName": "md5("}}, "expression of entries.fullName is not valid"),
        ({"entries": {"fullName": ""}}, "expression of entries.fullName is not valid"),
        ({"entries": {"fullName": "x = 1"}}, "expression of entries.fullName is not valid"),
        ({"entries": {"fullName": "a\0"}}, "expression of entries.fullName is not valid"),
        ({"entries": {"id": None}}, "Removing key property 'id' is not permitted"),
        ({"entries": {"__key_properties__": ["x"]}}, "Property 'x' was not detected"),
        ({"entries": {"__key_properties__": 5}}, "`stream_maps`"),
        ({"entries": {"__else__": "x"}}, "`stream_maps`"),
        ({"entries": "other"}, "`stream_maps`"),
        ({"__else__": "x"}, "`stream_maps`"),
        ({"v": {"__source__": None}}, "there is no stream `None`."),
        ({"entries": {"__alias__": None}}, "an `__alias__` is not valid"),
        ({"entries": {"__alias__": "1 / 0"}}, "an `__alias__` is not valid (ZeroDivisionError)"),
        ({"entries": {"__alias__": "'a\\rb'", "id": None}}, "is not permitted in 'ab'"),
    ],
    ids=repr,
)
def test_a_stream_map_with_a_typing_error_is_rejected(maps: dict[str, Any], part: str) -> None:
    with pytest.raises((EnvoyError, ConfigValidationError)) as caught:
        tap(config={"stream_maps": maps})
    texts = getattr(caught.value, "errors", None) or [str(caught.value)]
    assert part in " ".join(texts)
    assert all(text.isprintable() for text in texts)


def test_flattening_to_keys_without_a_letter_is_rejected() -> None:
    flattening = {"flattening_enabled": True, "flattening_max_depth": 3}
    with pytest.raises(EnvoyError, match=r"`flattening_max_key_length`.* is not valid"):
        tap(config={**flattening, "flattening_max_key_length": 1})


@pytest.mark.parametrize(
    ("maps", "where"),
    [
        ({"entries": {"email": "md5(self)", "fullName": "self.zebra"}}, "fullName"),
        ({"entries": {"email": "md5(self)", "host": "md5(self)"}}, "host"),
        ({"entries": {"__filter__": "fullName > 5"}}, "__filter__"),
        ({"visitors": {"__source__": "entries", "x": "fullName / 0"}}, "x"),
    ],
)
def test_a_stream_map_that_fails_names_the_property_and_no_value(
    maps: dict[str, Any], where: str
) -> None:
    stream_map = tap(config={"stream_maps": maps}).mapper.stream_maps["entries"][-1]
    with pytest.raises(EnvoyError) as caught:
        stream_map.transform({"id": "1", "fullName": "Grace", "email": "g@x", "host": None})
    assert f"The stream map of `{where}` failed on a record" in str(caught.value)
    assert "Grace" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_filter_does_not_log_what_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    maps = {"entries": {"__filter__": "fullName"}}
    (stream_map,) = tap(config={"stream_maps": maps}).mapper.stream_maps["entries"]
    assert stream_map.transform({"id": "1", "fullName": "Grace Secretive"})
    assert "Grace" not in caplog.text


@given(
    maps=st.dictionaries(
        st.sampled_from(["entries", "__else__", "*"]) | st.text(),
        st.dictionaries(st.sampled_from(["fullName", "__filter__"]) | st.text(), JSON) | JSON,
    )
)
@settings(deadline=None, max_examples=50)
def test_any_stream_maps_make_a_tap_or_sentences(maps: dict[str, Any]) -> None:
    assert_tap_or_sentence(lambda: tap(config={"stream_maps": maps}))


def test_stream_maps_of_the_caller_are_not_changed() -> None:
    maps = {"__else__": None, "entries": {"email": None}}
    before = json.dumps(maps)
    tap(config={"stream_maps": maps})
    assert json.dumps(maps) == before
