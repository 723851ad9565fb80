"""What messages quote of responses, and what is raised for a request without a response."""

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
    is_retryable,
    redirect,
)
from tap_envoy.session import EnvoySession, RateLimiter
from tests.unit.local_server import Answer, send, serve, unused_port

TLS_FILES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE")
NOW, DAY = datetime.now(UTC), timedelta(days=1)


def test_statuses_that_may_pass_are_retryable() -> None:
    statuses = (400, 401, 404, 408, 429, 499, 500, 503)
    assert [status for status in statuses if is_retryable(status)] == [408, 429, 500, 503]


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
        (["x"], ""),
        (None, ""),
        ({"message": "two\n lines\x1b"}, ": “two lines”"),
        ({"message": "x" * 201}, f": “{'x' * 200}…”"),
        ({"message": f"{'x' * 195} a secret"}, f": “{'x' * 195} ***”"),
    ],
)
def test_excerpt_quotes_known_fields_without_secrets(body: Any, expected: str) -> None:
    assert excerpt(body, {"a secret", ""}) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://user:hidden@sso.test:8080/hidden?hidden", " (a redirect to sso.test:8080)"),
        ("//sso.test/hidden", " (a redirect to sso.test)"),
        ("/hidden", " (a redirect to another page)"),
        ("http://[bad", " (a redirect to [bad)"),
    ],
)
def test_redirect_names_the_host_alone(location: str, expected: str) -> None:
    answer = send(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())
    with serve(answer) as url, EnvoySession(RateLimiter(1000)) as session:
        assert redirect(session.get(url)) == expected


# Connection errors


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = ("http", "https", "all", "no")
    proxies = [f(f"{scheme}_proxy") for scheme in schemes for f in (str.lower, str.upper)]
    for name in (*TLS_FILES, *proxies):
        monkeypatch.delenv(name, raising=False)


def failure(url: str, timeout: float = 0.2) -> SyncError:
    """Return the error for a request to `url`."""
    with (
        EnvoySession(RateLimiter(1000), timeout=timeout) as session,
        pytest.raises(SyncError) as raised,
    ):
        session.get(url)
    return raised.value


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
HEADERS = b"".join(b"X-%d: x\r\n" % n for n in range(101))


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (send(b""), TransientError, CLOSED),
        (reset, TransientError, CLOSED),
        (send(OK + b"Content-Length: 9\r\n\r\nx"), TransientError, CLOSED),
        (send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nx"), TransientError, CLOSED),
        (stall, TransientError, "in time; if this persists, raise `request_timeout`"),
        (send(b"SSH-2.0-OpenSSH\r\n"), EnvoyError, UNREADABLE),
        (send(OK + HEADERS), EnvoyError, "(got more than 100 headers); check any"),
        (send(OK + b"Content-Encoding: gzip\r\n\r\n{}"), EnvoyError, UNREADABLE),
    ],
)
def test_response_that_cannot_be_used_is_named(
    answer: Answer, kind: type[SyncError], part: str
) -> None:
    with serve(answer) as url:
        error = failure(url)
    assert type(error) is kind
    assert f"Envoy (`api_url`) at {url.removeprefix('http://')}" in str(error)
    assert part in str(error)


def test_connection_that_is_refused_is_named_with_the_host() -> None:
    port = unused_port()
    error = failure(f"http://127.0.0.1:{port}/v1")
    assert type(error) is NoConnectionError
    assert str(error) == (
        f"Cannot connect to Envoy (`api_url`) at 127.0.0.1:{port} (Connection refused); check the "
        "setting, network, proxy and firewall."
    )


def test_invalid_host_aborts_the_run() -> None:
    error = failure("https://a..b/")
    assert type(error) is RunAbortedError
    assert str(error) == "Invalid URL or proxy: Envoy (`api_url`) at a..b; correct it."


# TLS


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (send(b""), NoConnectionError, "(unexpected eof while reading)"),
        (reset, NoConnectionError, "(Connection reset by peer)"),
        (stall, NoConnectionError, "(timed out)"),
        (send(b"HTTP/1.1 400 No\r\n\r\n"), RunAbortedError, "No TLS connection"),
    ],
)
def test_handshake_that_fails_is_no_lost_response(
    answer: Answer, kind: type[SyncError], part: str
) -> None:
    with serve(answer) as url:
        error = failure(url.replace("http", "https"))
    assert type(error) is kind
    assert part in str(error)
    assert "REQUESTS_CA_BUNDLE" not in str(error)


CA = trustme.CA()


def tls_failure(certificate: trustme.LeafCert) -> SyncError:
    """Return the error for a request to a server with this certificate that sends no response."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.recv(65536)

    with serve(answer) as url:
        return failure(url.replace("http://127.0.0.1", "https://localhost"), timeout=5)


@pytest.fixture
def _ca_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


CERTIFICATES = {
    "certificate has expired); check the setting, this machine's clock": CA.issue_cert(
        "localhost", not_before=NOW - 2 * DAY, not_after=NOW - DAY
    ),
    "certificate is not yet valid); check the setting, this machine's clock": CA.issue_cert(
        "localhost", not_before=NOW + DAY, not_after=NOW + 2 * DAY
    ),
    "certificate is not valid for 'localhost'); check the setting": CA.issue_cert("example.org"),
    "unable to get local issuer certificate); if a proxy inspects TLS, set REQUESTS_CA_BUNDLE": (
        trustme.CA().issue_cert("localhost")
    ),
}


@pytest.mark.usefixtures("_ca_file")
@pytest.mark.parametrize("part", CERTIFICATES)
def test_certificate_that_is_rejected_is_named_with_advice(part: str) -> None:
    error = tls_failure(CERTIFICATES[part])
    assert type(error) is RunAbortedError
    assert str(error).startswith("No TLS connection to Envoy (`api_url`) at localhost:")
    assert part in str(error)
    assert ("CA_BUNDLE" in str(error)) == ("CA_BUNDLE" in part)


@pytest.mark.usefixtures("_ca_file")
def test_tls_connection_that_closes_after_the_request_is_a_lost_response() -> None:
    error = tls_failure(CA.issue_cert("localhost"))
    assert type(error) is TransientError
    assert CLOSED in str(error)


@pytest.mark.parametrize(
    ("variable", "name"), [*((x, "missing/file") for x in TLS_FILES), (TLS_FILES[0], "empty.pem")]
)
def test_tls_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, name: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv(variable, str(tmp_path / name))
    with serve(stall) as url:
        error = failure(url.replace("http", "https"))
    assert type(error) is RunAbortedError
    assert variable in str(error)


# Proxies

API = "https://api.example/v1"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_that_refuses_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://other.example")
    monkeypatch.setenv(variable, f"http://user:proxy-password@127.0.0.1:{unused_port()}")
    error = failure(API)
    assert type(error) is NoConnectionError
    assert str(error) == (
        f"Cannot connect to Envoy (`api_url`) at api.example through the proxy in {variable} "
        "(Connection refused); check the setting, network, proxy and firewall."
    )


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
        error = failure(API)
    assert type(error) is kind
    assert f"at api.example through the proxy in HTTPS_PROXY{reason}" in str(error)


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
    error = failure(API)
    assert type(error) is RunAbortedError
    assert part in str(error)
    assert "proxy-password" not in str(error)


def test_proxy_is_not_blamed_where_no_proxy_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    error = failure(f"http://127.0.0.1:{unused_port()}/")
    assert "HTTP_PROXY" not in str(error)
