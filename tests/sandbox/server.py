"""Serves a sandbox on a free port of the loopback interface."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.sandbox.app import Envoy


class Stage:
    """An app whose `envoy` can be replaced while it is being served at one address."""

    def __init__(self, envoy: Envoy) -> None:
        self.envoy = envoy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.envoy.app(scope, receive, send)


async def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until the server is to exit; close connections that are still open then."""
    await server.serve([listener])
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


@contextmanager
def serve(envoy: Envoy | Stage, certificate: Path | None = None) -> Iterator[str]:
    """Serve `envoy` within the context; yields its address, such as http://127.0.0.1:4000.

    Args:
        envoy: What to serve.
        certificate: A PEM file with a certificate and its key, to serve https.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each response takes 40 ms
    config = uvicorn.Config(
        envoy.app if isinstance(envoy, Envoy) else envoy,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(_run(server, listener),), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        scheme = "https" if certificate else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def connections(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield incoming connections until the listener is closed or shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        yield connection


def environment(envoy: Envoy, address: str) -> dict[str, str]:
    """Return the environment variables with which the tap reads `envoy` by its API key."""
    return {
        "TAP_ENVOY_API_KEY": envoy.api_key,
        "TAP_ENVOY_API_URL": f"{address}/v1",
        "TAP_ENVOY_TOKEN_URL": f"{address}/oauth2/token",
    }


def oauth_credentials(envoy: Envoy) -> dict[str, str]:
    """Return the credentials of the password and refresh grants, by the name of their setting."""
    scopes = envoy.integration_scopes - {"token.refresh"}
    return {
        "CLIENT_ID": envoy.client_id,
        "CLIENT_SECRET": envoy.client_secret,
        "USERNAME": envoy.username,
        "PASSWORD": envoy.password,
        "REFRESH_TOKEN": envoy.new_refresh_token(*scopes),
    }
