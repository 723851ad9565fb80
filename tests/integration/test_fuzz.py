"""Whatever a tap receives, a run ends with rows or with sentences that show no value of it."""

import io
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import EnvoyError
from tap_envoy.http import RetryPolicy
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox
from tests.sandbox import ScriptedResponse
from tests.sandbox.server import connections

fuzzed = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PRIVATE = "Grace-Secretive"
"""A value that must not appear in a log, wherever it comes from."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: The exit code.
        rows: The records written.
        errors: Errors in the log.
        log: The whole log.
    """

    code: int
    rows: list[dict[str, Any]]
    errors: list[str]
    log: str


def run(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    *,
    state: bytes | None = None,
    catalog: bytes | None = None,
    parse_env: bool = False,
    **config: Any,
) -> Outcome:
    """Run the tap in this process, as its command line does.

    Asserts that it writes JSON and logs sentences, that it does not fail without a reason, and
    that no secret is logged.
    """
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    values = {**sandbox.addresses, "api_key": sandbox.envoy.api_key, **config}
    out, code = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(written(sandbox.folder / name, content))
            for name, content in (("state", state), ("catalog", catalog))
            if content is not None
        }
        stack.enter_context(redirect_stdout(out))
        try:
            TapEnvoy.invoke(config=SimpleNamespace(config=values, parse_env=parse_env), **files)
        except EnvoyError as error:
            logging.getLogger("tap-envoy").error("%s", error)  # noqa: TRY400  # as `main` does
            code = 1
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    out.flush()
    messages = [json.loads(line) for line in out.buffer.getvalue().splitlines()]
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert (code == 0) == (not errors)
    for sentence in errors:
        assert sentence.endswith((".", "?"))
        assert sentence.isprintable()
    assert "Traceback" not in caplog.text
    for secret in sandbox.envoy.secrets:
        assert secret not in caplog.text
    rows = [message["record"] for message in messages if message["type"] == "RECORD"]
    return Outcome(code, rows, errors, caplog.text)


def written(path: Path, content: bytes) -> Any:
    """Return a file with this content, opened as the command line does."""
    path.write_bytes(content)
    return path.open(encoding="utf-8-sig")


# What may come

NAMES = ("data", "meta", "id", "status", "total", "errors", "secretToken", "registrationURL")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(PRIVATE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)
JSON = VALUES.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


def nested(inner: bytes, opening: bytes, depth: int) -> bytes:
    closing = b"".join(
        b"]" if char == ord("[") else b"}" for char in reversed(opening) if char in b"[{"
    )
    return opening * depth + inner + closing * depth


DEEP = st.builds(
    nested,
    JSON,
    st.sampled_from([b"[", b'{"data":', b'{"a":[', b'{"secretToken":']),
    st.sampled_from([1, 50, 101, 400, 1000, 5000, 100_000]),
)
ANY_JSON = JSON | DEEP
BODIES = st.binary() | ANY_JSON


def embedded(*templates: str) -> st.SearchStrategy[bytes]:
    """Return documents in which `@` is replaced by any JSON."""
    texts = st.sampled_from([template.encode() for template in templates])
    return st.builds(lambda text, value: text.replace(b"@", value), texts, ANY_JSON | st.binary())


PAGES = embedded(
    '{"data": @}',
    '{"data": [@]}',
    '{"data": [{"id": @, "name": "Grace-Secretive"}]}',
    '{"data": [{"id": "1", "name": @, "address": @, "capacityLimit": @, "createdAt": @}]}',
    '{"data": [{"id": "1", "secretToken": "x", "other": @}], "meta": @}',
    '{"data": [], "meta": {"total": @}}',
    '{"status": @, "message": @}',
)
TOKENS = embedded(
    '{"access_token": @}',
    '{"access_token": "a", "expires_in": @, "refresh_token": @, "company_id": @}',
    '{"error": @, "error_description": @}',
)
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 418, 422, 429, 500, 503])


# Endpoints


@given(status=STATUSES, body=BODIES | PAGES)
@fuzzed
def test_any_list_response_yields_rows_or_sentences(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, status: int, body: bytes
) -> None:
    sandbox.envoy.script("/v1/locations", ScriptedResponse(status, body))
    outcome = run(sandbox, caplog)
    is_page = status in {200, 201} and b'"data"' in body
    assert outcome.code != 0 or len(outcome.rows) >= 250 or is_page
    if status < 300:
        assert PRIVATE not in outcome.log  # error bodies are quoted, records are not


@given(status=STATUSES, body=BODIES | TOKENS)
@fuzzed
def test_any_token_response_yields_rows_or_sentences(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, status: int, body: bytes
) -> None:
    sandbox.envoy.script("/oauth2/token", ScriptedResponse(status, body))
    outcome = run(sandbox, caplog, api_key=None, **sandbox.login)
    assert len(outcome.rows) == (0 if outcome.code else 250)


class Wire:
    """A server that answers every request with the same bytes, and closes the connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.raw = b""
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener

    def serve(self) -> None:
        for connection in connections(self._listener):
            with connection, suppress(OSError):  # the client may leave first
                connection.recv(65536)
                connection.sendall(self.raw)
                connection.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Iterator[Wire]:  # noqa: ARG001
    monkeypatch.setattr(TapEnvoy, "retry_policy", RetryPolicy(max_time=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener)
        threading.Thread(target=wire.serve, daemon=True).start()
        yield wire
        listener.shutdown(socket.SHUT_RDWR)


@given(raw=st.binary(max_size=300) | st.binary(max_size=200).map(b"HTTP/1.1 200 OK\r\n".__add__))
@example(raw=b"HTTP/1.1 200 OK\r\nGrace-Secretive\r\nContent-Length: 2\r\n\r\n")
@settings(fuzzed, max_examples=30)
def test_any_bytes_instead_of_http_yield_one_sentence(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, wire: Wire, raw: bytes
) -> None:
    wire.raw = raw
    outcome = run(sandbox, caplog, api_url=f"{wire.address}/v1", request_timeout=5)
    assert len(outcome.errors) == 1
    assert outcome.rows == []


# Files


def entries_entry() -> dict[str, Any]:
    """Return the catalog entry of entries, selected."""
    catalog = json.loads(json.dumps(TapEnvoy(validate_config=False).catalog_dict))
    (entry,) = [item for item in catalog["streams"] if item["tap_stream_id"] == "entries"]
    (root,) = [item for item in entry["metadata"] if not item["breadcrumb"]]
    root["metadata"]["selected"] = True
    return dict(entry)


ENTRY = entries_entry()
ENTRIES = json.dumps({"streams": [ENTRY]}).encode()

STATES = embedded(
    '{"bookmarks": @}',
    '{"bookmarks": {"entries": @}}',
    '{"bookmarks": {"entries": {"replication_key_value": @}}}',
    '{"bookmarks": {"entries": {"replication_key": @, "replication_key_value": "2024-03-10"}}}',
    '{"type": "STATE", "value": @}',
    '{"singer_state": {"bookmarks": {"flows": @}}}',
)


@given(state=BODIES | STATES)
@settings(fuzzed, max_examples=100)
def test_any_state_yields_a_run_or_one_sentence(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, state: bytes
) -> None:
    outcome = run(sandbox, caplog, state=state, catalog=ENTRIES)
    assert len(outcome.errors) <= 1
    assert PRIVATE not in outcome.log
    if "bookmark" not in outcome.log:  # without one that was used or ignored
        assert len(outcome.rows) in {0, 320}


CATALOGS = embedded(
    '{"streams": @}',
    '{"streams": [{"tap_stream_id": @}]}',
    '{"streams": [{"tap_stream_id": "entries", "metadata": [{"breadcrumb": @, "metadata": @}]}]}',
)
PROPERTIES = st.sampled_from(["id", "fullName", "signedInAt", "zebra"])


def with_metadata(name: str, value: Any) -> dict[str, Any]:
    item = {"breadcrumb": ["properties", name], "metadata": value}
    return {**ENTRY, "metadata": [*ENTRY["metadata"], item]}


def with_property(name: str, definition: Any) -> dict[str, Any]:
    properties = {**ENTRY["schema"]["properties"], name: definition}
    return {**ENTRY, "schema": {**ENTRY["schema"], "properties": properties}}


CHANGED_ENTRIES = (
    st.builds(lambda name, value: {**ENTRY, name: value}, st.sampled_from([*ENTRY, "new"]), VALUES)
    | st.builds(with_metadata, PROPERTIES, VALUES)
    | st.builds(with_property, PROPERTIES, VALUES)
)
CHANGED_CATALOGS = st.lists(CHANGED_ENTRIES | VALUES, min_size=1, max_size=2).map(
    lambda entries: json.dumps({"streams": entries}).encode()
)


@given(catalog=BODIES | CATALOGS | CHANGED_CATALOGS)
@settings(fuzzed, max_examples=100)
def test_any_catalog_yields_rows_or_one_sentence(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, catalog: bytes
) -> None:
    outcome = run(sandbox, caplog, catalog=catalog)
    assert len(outcome.errors) <= 1
    assert len(outcome.rows) == (0 if outcome.code else 320)


ENTRY_NAMES = ("access_token", "renew_at", "refresh_token", "refresh_until", "scopes", "expires_at")


@given(
    content=BODIES
    | st.dictionaries(st.sampled_from(ENTRY_NAMES), VALUES).map(lambda x: json.dumps(x).encode())
)
@fuzzed
def test_any_token_cache_yields_rows(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    cache = sandbox.folder / "tokens.json"
    cache.unlink(missing_ok=True)
    config = {**sandbox.login, "token_cache": str(cache), "api_key": None}
    if content.startswith(b"{") and b"_" in content:  # an entry
        assert run(sandbox, caplog, **config).code == 0
        (owner,) = json.loads(cache.read_text())
        content = b'{"%s": %s}' % (owner.encode(), content)
    cache.write_bytes(content)
    assert len(run(sandbox, caplog, **config).rows) == 250


SETTINGS = ("PAGE_SIZE", "SCOPES", "START_DATE", "STREAM_MAPS", "TOKEN_CACHE_", "USERNAME")
LINES = st.builds(
    lambda name, value: f"TAP_ENVOY_{name}=".encode() + value,
    st.sampled_from(SETTINGS),
    ANY_JSON.filter(lambda value: len(value) < 2000) | st.binary(),
)


@given(lines=st.lists(LINES | st.binary(), max_size=3))
@fuzzed
def test_any_dotenv_file_yields_rows_or_sentences(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, lines: list[bytes]
) -> None:
    (sandbox.folder / ".env").write_bytes(b"\n".join(lines))
    before, folder = dict(os.environ), Path.cwd()
    os.chdir(sandbox.folder)
    try:
        outcome = run(sandbox, caplog, parse_env=True)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
    assert PRIVATE not in outcome.log
    assert outcome.code or outcome.rows


# Stream maps

EXPRESSIONS = st.sampled_from(
    [
        "fullName",
        "md5(email)",
        "record['fullName']",
        "_['zebra']",
        "self.zebra",
        "fullName / 0",
        "fullName > 5",
        "int(fullName)",
        "[x for x in fullName]",
        "config['stream_map_config']",
        "{'a': {fullName}}",
        "'9' * 9999999",
        "10 ** 10 ** 10",
        "float('inf')",
        "json.loads(fullName)",
        "datetime.datetime.now()",
        "datetime.date.fromisoformat(fullName)",
        "__NULL__",
        PRIVATE,
    ]
)
MAPS = st.dictionaries(
    st.sampled_from(["fullName", "email", "id", "new", "__filter__", "__alias__", "__else__"])
    | st.text(),
    EXPRESSIONS | st.none() | st.text() | VALUES,
    max_size=3,
)


@given(
    maps=st.dictionaries(
        st.sampled_from(["entries", "*", "__else__"]) | st.text(), MAPS | VALUES, max_size=2
    )
)
@settings(fuzzed, max_examples=100)
def test_any_stream_maps_yield_a_run_or_sentences(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, maps: dict[str, Any]
) -> None:
    rows = [{**row, "fullName": PRIVATE} for row in sandbox.envoy.rows["entries"][:5]]
    sandbox.envoy.rows["entries"] = rows
    outcome = run(sandbox, caplog, catalog=ENTRIES, stream_maps=maps)
    if PRIVATE not in json.dumps(maps):
        assert PRIVATE not in outcome.log
    assert "@example.com" not in outcome.log
