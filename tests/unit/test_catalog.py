"""Catalogs of several tools, and states, of a tap that requests nothing."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tap_envoy.catalog import RESET, check_bookmark, unwrap_state
from tap_envoy.exceptions import EnvoyError
from tap_envoy.records import format_timestamp
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox

NOW = datetime(2024, 5, 17, 8, tzinfo=UTC)
TIME = "2024-03-14T08:00:00.000Z"


def tap(*entries: Any) -> TapEnvoy:
    return TapEnvoy(config={"api_key": "not-used"}, catalog={"streams": list(entries)})


def entry(name: str = "entries", *, root: Any = None, **more: Any) -> dict[str, Any]:
    """Return the entry of a stream, selected by its metadata unless `root` says otherwise."""
    metadata: list[Any] = [
        {"breadcrumb": [], "metadata": {"selected": True} if root is None else root}
    ]
    return {"tap_stream_id": name, "metadata": metadata, **more}


def selected(*entries: Any) -> list[str]:
    return [stream.name for stream in tap(*entries).selected_streams]


def of_property(name: str, **metadata: Any) -> dict[str, Any]:
    return {"breadcrumb": ["properties", *name.split(".")], "metadata": metadata}


# Selection


@pytest.mark.parametrize(
    "deselected",
    [
        {"tap_stream_id": "entries", "selected": False},
        {"tap_stream_id": "entries", "schema": {"selected": False, "properties": {}}},
        {"tap_stream_id": "entries", "selected": False, "metadata": []},
        {"tap_stream_id": "entries", "selected": False, "metadata": [of_property("email")]},
        entry(root={"selected": False}),
        entry(root={"selected": None}, selected=False),
        entry(root={"selected-by-default": False}),
        entry(root={"selected": True, "inclusion": "unsupported"}),
    ],
    ids=repr,
)
def test_catalog_explicit_no_counts_wherever_it_stands(
    caplog: pytest.LogCaptureFixture, deselected: dict[str, Any]
) -> None:
    assert selected(entry("flows"), deselected) == ["flows"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    "contradictory",
    [
        entry(selected=False),
        entry(root={"selected": False}, selected=True),
        entry(schema={"selected": False}),
    ],
    ids=repr,
)
def test_catalog_that_says_yes_and_no_means_no_with_a_warning(
    caplog: pytest.LogCaptureFixture, contradictory: dict[str, Any]
) -> None:
    assert selected(entry("flows"), contradictory) == ["flows"]
    text = "--catalog: entries is both selected and deselected; leaving it out."
    assert caplog.messages == [text]


@pytest.mark.parametrize(
    "chosen",
    [
        {"tap_stream_id": "entries"},  # the shortest
        {"tap_stream_id": "entries", "selected": True},
        {"tap_stream_id": "entries", "schema": {"selected": True}},
        entry(root={"selected-by-default": True}),
        entry(root={"selected-by-default": False}, selected=True),
        entry(root={"selected": True}, stream="visitors", stream_alias="visitors"),
        {"tap_stream_id": "entries", "metadata": [of_property("email", selected=True)]},
    ],
    ids=repr,
)
def test_catalog_entry_of_any_form_is_selected_and_complete(
    caplog: pytest.LogCaptureFixture, chosen: dict[str, Any]
) -> None:
    (stream,) = tap(chosen).selected_streams
    assert (stream.name, stream.replication_key) == ("entries", "signedInAt")
    assert stream.primary_keys == ("id",)
    assert {"id", "signedInAt", "email"} <= stream.effective_schema["properties"].keys()
    assert caplog.messages == []


@pytest.mark.parametrize("key", ["selected", "selected-by-default"])
@pytest.mark.parametrize("value", ["true", "no", "", 2, [], {}], ids=repr)
def test_catalog_selection_that_is_no_boolean_is_refused(key: str, value: Any) -> None:
    sentence = f"--catalog: `{key}` of entries must be true or false."
    with pytest.raises(EnvoyError, match=re.escape(sentence)):
        tap(entry(root={key: value}))


def test_catalog_properties_are_selected_by_metadata_or_schema() -> None:
    text = {"type": ["string", "null"]}
    inner = {"id": text, "url": {**text, "selected": False}}
    properties = {
        "fullName": {**text, "selected": False},
        "email": text,
        "host": text,
        "photo": {"type": ["object", "null"], "properties": inner},
    }
    metadata = [*entry()["metadata"], of_property("host", selected=False)]
    (stream,) = tap(
        entry(metadata=metadata, schema={"type": "object", "properties": properties})
    ).selected_streams
    mask = {name: stream.mask["properties", name] for name in properties}
    assert mask == {"fullName": False, "email": True, "host": False, "photo": True}
    assert stream.mask["properties", "photo", "properties", "id"]
    assert not stream.mask["properties", "photo", "properties", "url"]


def test_catalog_cannot_deselect_keys() -> None:
    names = ("id", "signedInAt", "flowId", "email")
    metadata = [*entry()["metadata"], *(of_property(name, selected=False) for name in names)]
    (stream,) = tap(entry(metadata=metadata, key_properties=["flowId"])).selected_streams
    assert [stream.mask["properties", name] for name in names] == [True, True, True, False]


def test_catalog_keys_without_a_type_get_it() -> None:
    (stream,) = tap(entry(schema={"properties": {"id": {}, "email": {}}})).selected_streams
    assert stream.is_timestamp_replication_key
    assert stream.effective_schema["properties"]["id"]["type"] == ["string"]


def test_catalog_without_metadata_selects_what_is_marked() -> None:
    unmarked = {"tap_stream_id": "entries"}
    assert selected(unmarked, {"tap_stream_id": "flows", "selected": True}) == ["flows"]
    assert selected(unmarked, {"tap_stream_id": "flows", "schema": {"selected": True}}) == ["flows"]
    assert selected(unmarked, {"tap_stream_id": "flows"}) == ["entries", "flows"]


# Replication


@pytest.mark.parametrize(
    ("changed", "method"),
    [
        (entry(replication_method="FULL_TABLE"), "FULL_TABLE"),
        (entry(root={"selected": True, "replication-method": "FULL_TABLE"}), "FULL_TABLE"),
        (entry(root={"selected": True, "forced-replication-method": "FULL_TABLE"}), "FULL_TABLE"),
        (entry(root={"selected": True, "replication-method": "INCREMENTAL"}), "INCREMENTAL"),
        (entry(replication_method="FULL_TABLE", replication_key="email"), "FULL_TABLE"),
        (entry("locations", replication_method="FULL_TABLE"), "FULL_TABLE"),
        (entry(replication_key="signedInAt"), "INCREMENTAL"),
    ],
    ids=repr,
)
def test_catalog_replication_is_followed_wherever_it_stands(
    caplog: pytest.LogCaptureFixture, changed: dict[str, Any], method: str
) -> None:
    (stream,) = tap(changed).selected_streams
    assert stream.replication_method == method
    assert stream.replication_key == ("signedInAt" if method == "INCREMENTAL" else None)
    assert caplog.messages == []


def test_catalog_replication_of_the_metadata_wins_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = {"selected": True, "replication-method": "FULL_TABLE"}
    (stream,) = tap(entry(root=root, replication_method="INCREMENTAL")).selected_streams
    assert stream.replication_method == "FULL_TABLE"
    (warning,) = caplog.messages
    assert warning == (
        "--catalog: the entry of entries and its metadata disagree on `replication-method`; "
        "using the latter."
    )


ENTRIES = "--catalog: entries can be read FULL_TABLE or INCREMENTAL by `signedInAt`; correct"
LOCATIONS = "--catalog: locations can be read FULL_TABLE; correct its `replication-method` and"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (entry(replication_key="signedOutAt"), ENTRIES),
        (entry(root={"selected": True, "replication-key": "signedOutAt"}), ENTRIES),
        (entry(root={"selected": True, "replication-method": "LOG_BASED"}), ENTRIES),
        (entry(replication_method="incremental"), ENTRIES),
        (entry("locations", replication_method="INCREMENTAL"), LOCATIONS),
        (entry("locations", replication_key="createdAt"), LOCATIONS),
        (entry(key_properties=["id", "zebra"]), "`key_properties` of entries are unknown: zebra."),
        ({"tap_stream_id": "issues"}, "no stream of this tap is selected; set `selected` to true"),
        (entry(root={"selected": False}), "no stream of this tap is selected; set `selected`"),
    ],
    ids=repr,
)
def test_catalog_that_would_be_read_wrongly_is_refused(
    changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(EnvoyError, match=re.escape(sentence)):
        tap(changed)


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {"tap_stream_id": ["entries"]},
        {"tap_stream_id": "entries", "schema": 5},
        {"tap_stream_id": "entries", "schema": {"properties": {"id": True}}},
        {"tap_stream_id": "entries", "metadata": {"a": 1}},
        {"tap_stream_id": "entries", "metadata": [{"breadcrumb": []}]},
    ],
    ids=repr,
)
def test_catalog_of_another_form_is_refused(value: Any) -> None:
    sentence = "--catalog: the file is not a Singer catalog; create one with --discover."
    with pytest.raises(EnvoyError, match=re.escape(sentence)):
        tap(value)


# State

BOOKMARKS = {"entries": {"replication_key": "signedInAt", "replication_key_value": TIME}}


@pytest.mark.parametrize(
    "state",
    [
        {"bookmarks": BOOKMARKS},
        {"type": "STATE", "value": {"bookmarks": BOOKMARKS}},
        {"singer_state": {"bookmarks": BOOKMARKS}},
        {"completed": {"singer_state": {"bookmarks": BOOKMARKS}}, "partial": {}},
        {"bookmarks": BOOKMARKS, "currently_syncing": None},
        {"bookmarks": {"entries": BOOKMARKS["entries"] | {"partitions": 3, "progress_markers": 1}}},
    ],
    ids=repr,
)
def test_state_of_each_tool_is_unwrapped(state: dict[str, Any]) -> None:
    assert unwrap_state(state) == BOOKMARKS


@pytest.mark.parametrize("state", [{}, {"bookmarks": {}}, {"singer_state": {}}])
def test_state_without_bookmarks_is_empty(state: dict[str, Any]) -> None:
    assert unwrap_state(state) == {}


@pytest.mark.parametrize("state", [{"entries": TIME}, {"bookmarks": None}, {"value": 7}])
def test_state_of_another_form_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(EnvoyError, match="--state: the file has no `bookmarks`; pass the last"):
        unwrap_state(state)


@pytest.mark.parametrize(
    ("value", "bookmark"),
    [
        (None, None),
        (TIME, TIME),
        ("2024-03-14T10:00:00+02:00", TIME),
        ("2024-03-14 08:00:00 UTC", TIME),
        (NOW + timedelta(hours=23), format_timestamp(NOW)),
    ],
)
def test_bookmark_is_a_time_until_now(value: Any, bookmark: str | None) -> None:
    value = value.isoformat() if isinstance(value, datetime) else value
    assert check_bookmark({"replication_key_value": value}, "signedInAt", NOW) == bookmark


def test_bookmark_that_cannot_be_used_fails_its_stream_alone(sandbox: Sandbox) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    bookmarks = {
        "entries": {"replication_key_value": "next week"},
        "invites": {"replication_key": "zebra", "replication_key_value": TIME},
        "reservations": {"replication_key_value": tomorrow},
        "work_schedules": 7,
    }
    run = sandbox.run_tap(
        *sandbox.write_catalog("locations", *bookmarks),
        *sandbox.write_state({"bookmarks": bookmarks}),
    )
    assert run.code == 1
    start = "The bookmark in the state is"
    assert run.errors[:4] == [
        f"entries: {start} not a time; {RESET}.",
        f"invites: {start} not one of `createdAt`; {RESET}.",
        f"reservations: {start} in the future; check this machine's clock, or {RESET}.",
        f"work_schedules: {start} not a time; {RESET}.",
    ]
    assert len(run.records("locations")) == 250
