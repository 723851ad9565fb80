import errno
import html
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import requests
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tap_envoy.exceptions import (
    MESSAGE_KEYS,
    REQUEST_ERRORS,
    NoConnectionError,
    ResponseLostError,
    ResponseTooLargeError,
    RunAbortedError,
    connection_error,
    decode_json,
    excerpt,
    is_retryable,
    redact,
)
from tests.unit.local_server import serve_socket, unused_port

SECRET = 'p&s"s/w<ö r+d'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        quote(SECRET),
        quote_plus(SECRET),
        quote_plus(SECRET).lower(),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
    ],
)
def test_redact_replaces_a_secret_in_every_encoding(form: str) -> None:
    assert redact(f"<{form}>", {SECRET}) == "<***>"


def test_redact_without_secrets_returns_the_text() -> None:
    assert redact("text", ["", ""]) == "text"


def test_redact_leaves_no_part_of_a_longer_secret() -> None:
    assert redact("abcdef", ["abc", "abcdef"]) == "***"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, False), (401, False), (404, False), (408, True), (429, True), (499, False), (500, True)],
)
def test_is_retryable_by_status(status: int, expected: bool) -> None:  # noqa: FBT001
    assert is_retryable(status) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": [1, "x", null]}', {"a": [1, "x", None]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "x\xffy"}', {"a": "x�y"}),
        (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
        (b'{"a": 1e400, "b": 1.5}', {"a": None, "b": 1.5}),
        (b'{"a": NaN, "b": ' + b"9" * 5000 + b"}", {"a": None, "b": None}),
        (b'{"a": "\\ud800!", "b": "\\ud83d\\ude00"}', {"a": "�!", "b": "😀"}),
        (b"<html>", None),
        (b"", None),
        (b'{"a":', None),
        (b"[" * 100_000, None),
        (b"\xff" + b"[" * 100_000, None),
    ],
)
def test_decode_json_decodes_what_can_be_decoded(body: bytes, expected: Any) -> None:
    assert decode_json(body) == expected


@given(st.binary() | st.text().map(lambda text: json.dumps([text]).encode()))
def test_decode_json_of_any_bytes_raises_nothing_and_can_be_encoded(body: bytes) -> None:
    json.dumps(decode_json(body), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "no", "detail": "no", "title": "bad"}, ": “no, bad”"),
        ({"error": "e", "error_description": "d", "other": "x"}, ": “e, d”"),
        ({"errors": [{"code": 17, "detail": "bad sort"}, {"detail": "x"}]}, ": “17, bad sort”"),
        ({"errors": ["bad sort"]}, ": “bad sort”"),
        ({"errors": []}, ""),
        ({"errors": {"detail": "x"}}, ""),
        ({"message": True, "detail": ["x"]}, ""),
        (["x"], ""),
        (None, ""),
        ("two\n lines\x1b", ": “two lines”"),
        ("x" * 200, f": “{'x' * 200}”"),
        ("x" * 201, f": “{'x' * 200}…”"),
        (f"{'x' * 195} a secret", f": “{'x' * 195} ***”"),
    ],
)
def test_excerpt_quotes_the_reason(body: Any, expected: str) -> None:
    assert excerpt(body, MESSAGE_KEYS, {"a secret"}) == expected


# Connection errors


def failure(url: str, timeout: float = 0.2) -> Exception:
    """Return the error for a request to `url`."""
    with requests.Session() as session:
        try:
            session.get(url, timeout=timeout)
        except REQUEST_ERRORS as error:
            return connection_error(error, where="Envoy (`api_url`)", timeout=timeout)
    raise AssertionError


def test_connection_refused_is_named_with_the_host() -> None:
    port = unused_port()
    error = failure(f"http://user:pass@127.0.0.1:{port}/")
    assert isinstance(error, NoConnectionError)
    assert str(error) == (
        f"Cannot connect to Envoy (`api_url`) at 127.0.0.1:{port}: connection refused; check the "
        "setting, the network and any firewall."
    )


def test_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    error = failure("http://nowhere.example/")
    assert isinstance(error, NoConnectionError)
    assert "host name of Envoy (`api_url`) at nowhere.example cannot be resolved" in str(error)


def test_unreachable_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", fail)
    error = failure("http://127.0.0.1/")
    assert isinstance(error, NoConnectionError)
    assert "127.0.0.1: network or host unreachable" in str(error)


def test_connect_timeout_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", fail)
    error = failure("http://127.0.0.1/")
    assert isinstance(error, NoConnectionError)
    assert "Cannot connect to Envoy (`api_url`) at 127.0.0.1 within 0.2 s" in str(error)


def test_response_that_does_not_come_is_lost() -> None:
    with serve_socket(lambda _: time.sleep(1)) as url:
        error = failure(url)
    assert isinstance(error, ResponseLostError)
    assert "in time (`request_timeout` is 0.2 s)" in str(error)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
    ],
)
def test_response_that_breaks_off_is_lost(sent: bytes) -> None:
    with serve_socket(lambda connection: connection.sendall(sent)) as url:
        error = failure(url)
    assert isinstance(error, ResponseLostError)
    assert "closed before the response was complete" in str(error)


def test_body_that_stops_is_lost_in_time() -> None:
    def stall(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        connection.recv(1)

    with serve_socket(stall) as url:
        error = failure(url)
    assert isinstance(error, ResponseLostError)
    assert "No complete response" in str(error)


def test_too_large_response_is_lost() -> None:
    error = connection_error(ResponseTooLargeError(), where="Envoy", timeout=1)
    assert isinstance(error, ResponseLostError)
    assert str(error) == "The response of Envoy is too large."


@pytest.mark.parametrize("url", ["https://a..b/", "nothing", "http://[bad/", "https://" + "x" * 70])
def test_invalid_url_aborts_the_run(url: str) -> None:
    error = failure(url)
    assert isinstance(error, RunAbortedError)
    assert "Invalid URL or proxy for Envoy (`api_url`)" in str(error)


def test_missing_ca_file_aborts_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    error = failure("https://127.0.0.1:9/")
    assert isinstance(error, RunAbortedError)
    assert "The CA file /no/such/file.pem does not exist" in str(error)


def test_ca_file_without_a_certificate_aborts_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("nothing")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with serve_socket(lambda _: None) as url:
        error = failure(url.replace("http", "https"))
    assert isinstance(error, RunAbortedError)
    assert "REQUESTS_CA_BUNDLE" in str(error)


def test_untrusted_certificate_aborts_the_run() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def handshake() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        threading.Thread(target=handshake, daemon=True).start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=5)
    assert isinstance(error, RunAbortedError)
    assert "certificate of Envoy (`api_url`) at 127.0.0.1" in str(error)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


def test_plain_http_on_a_tls_port_aborts_the_run() -> None:
    with serve_socket(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as url:
        error = failure(url.replace("http", "https"))
    assert isinstance(error, RunAbortedError)


def test_tls_handshake_that_breaks_off_may_be_retried() -> None:
    with serve_socket(lambda _: None) as url:
        error = failure(url.replace("http", "https"))
    assert isinstance(error, ResponseLostError)


def test_absent_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = unused_port()
    monkeypatch.setenv("https_proxy", f"http://user:proxy-password@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    error = failure("https://api.envoy.com/v1")
    assert isinstance(error, NoConnectionError)
    assert f"The proxy 127.0.0.1:{port} did not connect" in str(error)
    assert "at api.envoy.com: connection refused; check HTTPS_PROXY" in str(error)
    assert "proxy-password" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "part"),
    [
        (407, RunAbortedError, "requires authentication"),
        (502, NoConnectionError, "did not connect"),
    ],
)
def test_proxy_that_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception], part: str
) -> None:
    reply = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    with serve_socket(lambda connection: connection.sendall(reply)) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        error = failure("https://api.envoy.com/v1")
    assert type(error) is kind
    assert part in str(error)
