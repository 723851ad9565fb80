"""The declarations of the streams."""

from tap_envoy.client import EnvoyStream
from tap_envoy.slices import SortedSlicer, WindowSlicer
from tap_envoy.tap import TapEnvoy
from tests.sandbox import RESOURCES

STREAMS = TapEnvoy(validate_config=False).streams


def test_streams_are_those_of_the_sandbox() -> None:
    assert set(STREAMS) == set(RESOURCES)
    for name, stream in STREAMS.items():
        assert isinstance(stream, EnvoyStream)
        assert set(stream.scopes) == RESOURCES[name].scopes
        assert stream.primary_keys == ("id",)


def test_replication_keys_are_those_that_slices_are_cut_by() -> None:
    keys = {
        "entries": "signedInAt",
        "invites": "createdAt",
        "work_schedules": "createdAt",
        "reservations": "startTime",
    }
    assert {n: s.replication_key for n, s in STREAMS.items() if s.replication_key} == keys
    for name, key in keys.items():
        stream = STREAMS[name]
        assert isinstance(stream, EnvoyStream)
        assert isinstance(stream.slicer, SortedSlicer | WindowSlicer)
        assert stream.slicer.time_field == key


def test_locations_alone_are_selected_by_default() -> None:
    assert [name for name, stream in STREAMS.items() if stream.selected] == ["locations"]


def test_properties_with_personal_data_are_marked() -> None:
    marked = {
        f"{name}.{key}"
        for name, stream in STREAMS.items()
        for key, definition in stream.schema["properties"].items()
        if definition["description"].endswith("Personal data.")
    }
    assert {"entries.fullName", "entries.email", "employees.name", "invites.invitee"} <= marked
    assert not any(name.startswith(("locations.", "flows.", "companies.")) for name in marked)
