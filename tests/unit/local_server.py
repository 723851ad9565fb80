"""A server on loopback that treats each connection as a function says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

Answer = Callable[[socket.socket], None]


@contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Call `answer` with each connection, in a thread; yield the base URL."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client has closed
                answer(self.request)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def send(data: bytes) -> Answer:
    """Return what answers a request with these bytes."""

    def answer(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(data)

    return answer


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
