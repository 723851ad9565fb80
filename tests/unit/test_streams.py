"""The declarations of the streams."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tap_envoy.client import EnvoyStream
from tap_envoy.tap import TapEnvoy
from tests.sandbox import RESOURCES

STREAMS = {stream.name: stream for stream in TapEnvoy(validate_config=False).envoy_streams}


def properties(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the properties of a schema at any depth."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner
        yield from properties(inner, f"{path}{name}.")
        yield from properties(inner.get("items", {}), f"{path}{name}[].")


def test_streams_are_those_of_the_sandbox() -> None:
    scopes = {name: ",".join(stream.scopes) for name, stream in STREAMS.items()}
    assert scopes == {name: resource.scopes for name, resource in RESOURCES.items()}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_stream_is_declared_completely(stream: EnvoyStream) -> None:
    assert stream.primary_keys == ("id",)
    assert stream.replication_key in {None, stream.slicer.time_field}
    *others, last = declared = dict(properties(stream.schema))
    assert last == "additionalFields"
    assert "id" in others
    for name, schema in declared.items():
        assert schema["description"].endswith("."), name
        is_record = "properties" in schema
        assert schema.get("additionalProperties", not is_record) is not is_record, name


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_description_of_a_stream_is_one_line_and_names_personal_data(stream: EnvoyStream) -> None:
    description = str(type(stream).__doc__)
    assert "\n" not in description
    has_personal_data = any(
        schema["description"].endswith(" Personal data.") for _, schema in properties(stream.schema)
    )
    assert description.endswith(" Personal data.") == has_personal_data
