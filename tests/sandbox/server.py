"""Serves a sandbox on a free port of the loopback interface."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """Serve within the context, by https if there is a `certificate` with key; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each response takes 40 ms
    app = envoy.app if isinstance(envoy, Envoy) else envoy
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    config.ssl_certfile = certificate
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
        thread.join(timeout=5)  # a connection that its client has left may keep it alive
        listener.close()


def connections(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield incoming connections until the listener is closed or shut down."""
    with suppress(OSError):
        while True:
            yield listener.accept()[0]


def environment(envoy: Envoy, address: str) -> dict[str, str]:
    """Return the environment variables with which the tap reads `envoy` by its API key."""
    urls = {"API_URL": f"{address}/v1", "TOKEN_URL": f"{address}/oauth2/token"}
    settings = {"API_KEY": envoy.api_key, **urls}
    return {f"TAP_ENVOY_{name}": value for name, value in settings.items()}


def oauth_credentials(envoy: Envoy) -> dict[str, str]:
    """Return the credentials of the password and refresh grants, by the name of their setting."""
    client = {"CLIENT_ID": envoy.client_id, "CLIENT_SECRET": envoy.client_secret}
    user = {"USERNAME": envoy.username, "PASSWORD": envoy.password}
    return {**client, **user, "REFRESH_TOKEN": envoy.new_refresh_token(*envoy.integration_scopes)}
