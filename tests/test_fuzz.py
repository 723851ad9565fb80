"""Whatever either address answers: rows or a sentence, never a crash or an empty success."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.errors import EnvoyError
from tests.conftest import Scene
from tests.sandbox import Answer
from tests.sandbox.server import connections

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "meta", "id", "status", "total", "access_token", "expires_in"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 418, 429, 500, 503])
fuzzed = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(scene: Scene, **config: Any) -> int | None:
    """Return how many rows came, or None if a sentence did."""
    sentence = "."
    rows = None
    try:
        rows = sum(1 for _ in scene.tap(**config).streams["locations"].get_records(None))
    except EnvoyError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return rows


@given(status=STATUSES, body=BODIES)
@fuzzed
def test_any_answer_to_a_list_is_rows_or_a_sentence(scene: Scene, status: int, body: bytes) -> None:
    scene.envoy.script("/v1/locations", Answer(status, body))
    rows = read(scene)
    is_page = status in {200, 201} and body.startswith(b"{") and b'"data"' in body
    assert rows in {None, 250} or is_page


@given(status=STATUSES, body=BODIES)
@fuzzed
def test_any_answer_to_a_login_is_rows_or_a_sentence(
    scene: Scene, status: int, body: bytes
) -> None:
    scene.envoy.script("/oauth2/token", Answer(status, body))
    rows = read(scene, api_key=None, **scene.login)
    assert rows in {None, 250}


@given(raw=st.binary(max_size=300) | st.binary(max_size=200).map(b"HTTP/1.1 200 OK\r\n".__add__))
@fuzzed
def test_any_bytes_on_the_wire_are_a_sentence(scene: Scene, wire: "Wire", raw: bytes) -> None:
    wire.raw = raw
    assert read(scene, api_url=f"{wire.address}/v1", request_timeout=5) is None


class Wire:
    """A server that answers every request with the same bytes, and hangs up."""

    def __init__(self, listener: socket.socket) -> None:
        self.raw = b""
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener

    def serve(self) -> None:
        for connection in connections(self._listener):
            with connection:
                connection.recv(65536)
                connection.sendall(self.raw)
                connection.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener)
        threading.Thread(target=wire.serve, daemon=True).start()
        yield wire
        listener.shutdown(socket.SHUT_RDWR)
