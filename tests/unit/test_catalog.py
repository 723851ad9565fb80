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
from tests.sandbox import RESOURCES

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
        {"tap_stream_id": "entries"},
        {"tap_stream_id": "entries", "selected": False},
        {"tap_stream_id": "entries", "schema": {"selected": False, "properties": {}}},
        {"tap_stream_id": "entries", "metadata": [of_property("email", selected=True)]},
        entry(root={"selected": None}, selected=False),
        entry(root={"selected-by-default": False}),
    ],
    ids=repr,
)
def test_catalog_deselects_what_is_not_marked(deselected: dict[str, Any]) -> None:
    assert selected(entry("flows"), deselected) == ["flows"]


@pytest.mark.parametrize(
    "chosen",
    [
        {"tap_stream_id": "entries", "selected": True},  # the shortest
        {"tap_stream_id": "entries", "schema": {"selected": True}},  # as older tools write it
        entry(root={"selected-by-default": True}),
        entry(root={"selected-by-default": False}, selected=True),
        entry(root={"selected": True}, stream="visitors", stream_alias="visitors"),
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


def test_catalog_properties_are_selected_by_metadata_or_schema() -> None:
    text = {"type": ["string", "null"]}
    off = {**text, "selected": False}
    photo = {"type": ["object", "null"], "properties": {"id": text, "url": off}}
    schema = {"properties": {"fullName": off, "email": text, "host": text, "photo": photo}}
    metadata = [*entry()["metadata"], of_property("host", selected=False)]
    (stream,) = tap(entry(metadata=metadata, schema=schema)).selected_streams
    chosen = {".".join(path[1::2]) for path, is_selected in stream.mask.items() if is_selected}
    assert chosen == {"", "id", "signedInAt", "email", "photo", "photo.id"}


def test_catalog_keys_are_selected_and_have_a_type() -> None:
    names = ("signedInAt", "flowId", "email")
    metadata = [*entry()["metadata"], *(of_property(name, selected=False) for name in names)]
    changed = entry(
        metadata=metadata,
        schema={"required": ["email"], "properties": {"flowId": {}, "email": {"type": "string"}}},
        key_properties=["flowId"],
    )
    (stream,) = tap(changed).selected_streams
    assert [stream.mask["properties", name] for name in names] == [True, True, False]
    assert stream.effective_schema["properties"]["flowId"]["type"] == ["string", "null"]
    assert stream.effective_schema["properties"]["email"]["type"] == ["string", "null"]
    assert "required" not in stream.effective_schema


# Replication


@pytest.mark.parametrize(
    ("changed", "method"),
    [
        (entry(replication_method="FULL_TABLE", replication_key="email"), "FULL_TABLE"),
        (entry(root={"selected": True, "replication-method": "FULL_TABLE"}), "FULL_TABLE"),
        (entry(root={"selected": True, "replication-method": "INCREMENTAL"}), "INCREMENTAL"),
        (entry("locations", replication_method="FULL_TABLE"), "FULL_TABLE"),
        (entry(replication_key="signedInAt"), "INCREMENTAL"),
    ],
    ids=repr,
)
def test_catalog_replication_is_followed_wherever_it_is(
    caplog: pytest.LogCaptureFixture, changed: dict[str, Any], method: str
) -> None:
    (stream,) = tap(changed).selected_streams
    assert stream.replication_method == method
    assert stream.replication_key == ("signedInAt" if method == "INCREMENTAL" else None)
    assert caplog.messages == []


def test_catalog_replication_method_of_the_metadata_wins_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = {"selected": True, "replication-method": "FULL_TABLE"}
    (stream,) = tap(entry(root=root, replication_method="INCREMENTAL")).selected_streams
    assert stream.replication_method == "FULL_TABLE"
    sentence = "--catalog: entries has two replication methods; using that of its metadata."
    assert caplog.messages == [sentence]


# What is refused

ENTRIES = "entries can be read FULL_TABLE or INCREMENTAL by `signedInAt`; correct its `repl"
LOCATIONS = "locations can be read FULL_TABLE; correct its `replication-method` and `repl"
SELECTED = "must be true or false, and the same in its entry, metadata and schema."
INCREMENTAL = {"replication_method": "INCREMENTAL", "replication_key": "updatedAt"}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([entry(root={"selected": "true"})], f"`selected` of entries {SELECTED}"),
        ([entry(selected=False)], f"`selected` of entries {SELECTED}"),
        ([entry(schema={"selected": False})], f"`selected` of entries {SELECTED}"),
        (
            [{**entry(), "metadata": [*entry()["metadata"], of_property("email", selected="no")]}],
            f"`selected` of entries.email {SELECTED}",
        ),
        ([entry(replication_key="signedOutAt")], ENTRIES),
        ([entry(root={"selected": True, "replication-key": "signedOutAt"})], ENTRIES),
        ([entry(root={"selected": True, "replication-method": "LOG_BASED"})], ENTRIES),
        ([entry("locations", **INCREMENTAL)], LOCATIONS),
        ([entry("locations", replication_key="createdAt")], LOCATIONS),
        (
            [entry(schema={"properties": {"email": {"type": "strng"}}})],
            "the schema of entries is not valid at $.properties.email.type.",
        ),
        (
            [entry(schema={"properties": {"id": {"type": "integer"}}})],
            "`id` of entries must be a string; correct its schema.",
        ),
        ([entry(), entry("flows"), entry()], "more than one entry of entries; keep one."),
        (
            [entry(), {"tap_stream_id": "entrys"}],
            f"unknown streams: entrys; this tap has {', '.join(sorted(RESOURCES))}.",
        ),
        ([], "no stream is selected; set `selected` of one to true."),
        *(
            ([other], "the file is not a Singer catalog; create one with --discover.")
            for other in (
                5,
                {},
                {"tap_stream_id": ["entries"]},
                entry(schema={"properties": {"id": True}}),
                entry(key_properties=["zebra"]),
                {"tap_stream_id": "entries", "metadata": {"a": 1}},
                {"tap_stream_id": "entries", "metadata": [{"breadcrumb": []}]},
            )
        ),
    ],
    ids=repr,
)
def test_catalog_that_cannot_be_followed_is_refused(entries: list[Any], sentence: str) -> None:
    with pytest.raises(EnvoyError, match=f"^--catalog: {re.escape(sentence)}"):
        tap(*entries)


# State

BOOKMARKS = {"entries": {"replication_key": "signedInAt", "replication_key_value": TIME}}


@pytest.mark.parametrize(
    ("state", "bookmarks"),
    [
        ({}, {}),
        ({"bookmarks": {}}, {}),
        ({"singer_state": {}}, {}),
        ({"type": "STATE", "value": {"bookmarks": BOOKMARKS}}, BOOKMARKS),
        ({"completed": {"singer_state": {"bookmarks": BOOKMARKS}}, "partial": {}}, BOOKMARKS),
        ({"bookmarks": {"entries": BOOKMARKS["entries"] | {"partitions": 3}}}, BOOKMARKS),
    ],
    ids=repr,
)
def test_state_of_each_tool_is_unwrapped(state: dict[str, Any], bookmarks: dict[str, Any]) -> None:
    assert unwrap_state(state) == bookmarks


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
