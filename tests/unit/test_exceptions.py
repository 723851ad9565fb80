"""What messages quote of responses, and what is raised for a request without a response."""

import os
import re
import socket
import ssl
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from singer_sdk.exceptions import SyncError

from tap_envoy.exceptions import (
    EnvoyError,
    NoConnectionError,
    RunAbortedError,
    TransientError,
    decode_json,
    excerpt,
)
from tap_envoy.session import EnvoySession, RateLimiter
from tests.unit.local_server import Answer, send, serve, unused_port

TLS_FILES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'\xef\xbb\xbf{"a": [1, "x", null]}', {"a": [1, "x", None]}),
        (b'{"a": "x\xffy"}', {"a": "x�y"}),
        (b'{"a\\u0000": ["\\u0000x", "\\\\u0000"]}', {"a": ["x", "\\u0000"]}),
        (b'{"a": "\\ud800!", "b": "\\ud83d\\ude00"}', {"a": "�!", "b": "😀"}),
        (b"<html>", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_decode_json_decodes_what_can_be_decoded(body: bytes, expected: Any) -> None:
    response = requests.Response()
    response._content = body  # noqa: SLF001  # as `requests` sets it
    assert decode_json(response) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "no", "detail": "no", "title": "bad"}, ": “no, bad”"),
        ({"error": "e", "error_description": "d", "other": "x"}, ": “e, d”"),
        ({"errors": [{"code": 17, "detail": "bad sort"}, {"detail": "x"}]}, ": “17, bad sort”"),
        ({"errors": [], "message": True, "detail": ["x"], "title": {"email": "x"}}, ""),
        ({"error": {"code": "17", "message": "bad sort"}}, ": “17, bad sort”"),
        (None, ""),
        ({"message": "two\n lines\x1b"}, ": “two lines”"),
        ({"message": "x" * 201}, f": “{'x' * 200}…”"),
        ({"message": f"{'x' * 195} a  secret"}, f": “{'x' * 195} ***”"),
    ],
)
def test_excerpt_quotes_known_fields_without_secrets(body: Any, expected: str) -> None:
    assert excerpt(body, {"a  secret", ""}) == expected


# Connection errors


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in TLS_FILES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def assert_fails(url: str, kind: type[SyncError], part: str, timeout: float = 0.2) -> str:
    """Assert what a request to `url` raises; return the text."""
    with (
        EnvoySession(RateLimiter(1000), timeout=timeout) as session,
        pytest.raises(SyncError, match=re.escape(part)) as raised,
    ):
        session.get(url)
    assert type(raised.value) is kind
    return str(raised.value)


OK = b"HTTP/1.1 200 OK\r\n"


def stall(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def reset(client: socket.socket) -> None:
    client.recv(65536)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


CLOSED = "was closed before the response was complete"
UNREADABLE = "cannot be read; check any proxy"


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (send(b""), TransientError, CLOSED),
        (reset, TransientError, CLOSED),
        (send(OK + b"Content-Length: 9\r\n\r\nx"), TransientError, CLOSED),
        (send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nx"), TransientError, CLOSED),
        (stall, TransientError, "in time; if this persists, raise `request_timeout`"),
        (send(b"SSH-2.0-OpenSSH\r\n"), EnvoyError, UNREADABLE),
        (send(OK + b"X: x\r\n" * 101), EnvoyError, "(got more than 100 headers); check any"),
        (send(OK + b"Content-Encoding: gzip\r\n\r\n{}"), EnvoyError, UNREADABLE),
    ],
)
def test_response_that_cannot_be_used_is_named(
    answer: Answer, kind: type[SyncError], part: str
) -> None:
    with serve(answer) as url:
        text = assert_fails(url, kind, part)
    assert f"Envoy (`api_url`) at {url.removeprefix('http://')}" in text


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (send(b""), NoConnectionError, "(unexpected eof while reading); check the setting"),
        (reset, NoConnectionError, "(Connection reset by peer); check the setting"),
        (stall, NoConnectionError, "(timed out); check the setting"),
        (send(b"HTTP/1.1 400 No\r\n\r\n"), RunAbortedError, "); check the setting, this machine"),
    ],
)
def test_handshake_that_fails_is_no_lost_response(
    answer: Answer, kind: type[SyncError], part: str
) -> None:
    with serve(answer) as url:
        assert_fails(url.replace("http", "https"), kind, part)


def test_connection_that_is_refused_is_named_with_the_host_and_no_unused_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    port = unused_port()
    text = (
        f"Cannot connect to Envoy (`api_url`) at 127.0.0.1:{port} (Connection refused); check the "
        "setting, network, proxy and firewall."
    )
    assert assert_fails(f"http://127.0.0.1:{port}/v1", NoConnectionError, text) == text


# TLS

CA = trustme.CA()


def issue(host: str = "localhost", ca: trustme.CA = CA, days: int = 0) -> trustme.LeafCert:
    """Return a certificate that is valid for a day around now, or around some days later."""
    start = datetime.now(UTC) + timedelta(days - 0.5)
    return ca.issue_cert(host, not_before=start, not_after=start + timedelta(1))


@pytest.mark.parametrize(
    ("certificate", "kind", "part"),
    [
        (issue(days=-2), RunAbortedError, "(certificate has expired); check the setting, this mac"),
        (issue(days=2), RunAbortedError, "(certificate is not yet valid); check the setting, this"),
        (issue("example.org"), RunAbortedError, "is not valid for 'localhost'); check the setting"),
        (issue(ca=trustme.CA()), RunAbortedError, "issuer certificate); if a proxy inspects TLS,"),
        (issue(), TransientError, CLOSED),
    ],
)
def test_certificate_is_rejected_with_a_reason_and_advice(
    certificate: trustme.LeafCert,
    kind: type[SyncError],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as connection:
            connection.recv(65536)

    with serve(answer) as url:
        address = url.replace("http://127.0.0.1", "https://localhost")
        text = assert_fails(address, kind, part, timeout=5)
    assert "to Envoy (`api_url`) at localhost:" in text
    assert ("CA_BUNDLE" in text) == ("inspects" in part)


@pytest.mark.parametrize(
    ("variable", "name"), [*((x, "missing/file") for x in TLS_FILES), (TLS_FILES[0], "empty.pem")]
)
def test_tls_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, name: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv(variable, str(tmp_path / name))
    with serve(stall) as url:
        assert_fails(url.replace("http", "https"), RunAbortedError, variable)


# Proxies

API = "https://api.example/v1"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_that_refuses_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://other.example")
    monkeypatch.setenv(variable, f"http://user:proxy-password@127.0.0.1:{unused_port()}")
    text = (
        f"Cannot connect to Envoy (`api_url`) at api.example through the proxy in {variable} "
        "(Connection refused); check the setting, network, proxy and firewall."
    )
    assert assert_fails(API, NoConnectionError, text) == text


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", RunAbortedError, " (HTTP 407); check"),
        (b"HTTP/1.1 502 No\r\n\r\n", NoConnectionError, " (HTTP 502); check"),
        (b"", NoConnectionError, ""),
    ],
)
def test_proxy_that_opens_no_tunnel_is_named(
    monkeypatch: pytest.MonkeyPatch, reply: bytes, kind: type[SyncError], reason: str
) -> None:
    with serve(send(reply)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert_fails(API, kind, f"at api.example through the proxy in HTTPS_PROXY{reason}")


@pytest.mark.parametrize(
    ("proxy", "part"),
    [
        ("socks5://user:proxy-password@127.0.0.1:9", "The SOCKS proxy in ALL_PROXY needs the"),
        ("ftp://user:proxy-password@127.0.0.1:9", "through the proxy in ALL_PROXY; correct it"),
        ("http://user:proxy-password@[bad", "through the proxy in ALL_PROXY; correct it"),
    ],
)
def test_proxy_that_cannot_be_used_aborts_the_run(
    monkeypatch: pytest.MonkeyPatch, proxy: str, part: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "proxy-password" not in assert_fails(API, RunAbortedError, part)
