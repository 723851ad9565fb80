"""A list API that is fast enough not to be what is measured: its rows are rendered beforehand.

`python -m tests.benchmarks.server ROWS LATENCY LIMIT` serves `/v1/locations` and `/v1/entries` and
prints its port. It reads `page`, `perPage`, `order`, `createdAtAfter` and `signedInAtAfter`;
`meta.total` counts the rows that the filter selects. For each line on standard input it prints the
requests since the last one, as `Traffic`. LIMIT is one of `LIMITS`.
"""

import asyncio
import json
import sys
import time
from bisect import bisect_left
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from typing_extensions import override

from tests.sandbox.data import entries, locations
from tests.sandbox.rate_limits import FixedWindow, LeakyBucket, RateLimit, SlidingWindow
from tests.sandbox.timestamps import format_time

PER_SECOND = 10
LIMITS: dict[str, type[RateLimit] | None] = {
    "none": None,
    "leaky bucket": LeakyBucket,
    "fixed window": FixedWindow,
    "sliding window": SlidingWindow,
}
FIRST_TIME = datetime(2020, 1, 1, tzinfo=UTC)
DISTINCT_ROWS = 100
RENDERED_ROWS = 100_000
"""Rows beyond these are rendered when they are requested, to save memory."""


@dataclass
class Traffic:
    """What the server has seen.

    Attributes:
        requests: Requests, including those that were refused.
        refused: Responses with HTTP 429.
        first_request: When the first request came, in seconds.
        last_response: When the last response was sent, in seconds.
    """

    requests: int = 0
    refused: int = 0
    first_request: float = 0.0
    last_response: float = 0.0


class Resource:
    """A list whose rows are a second apart."""

    def __init__(
        self, rows: list[dict[str, Any]], count: int, order: str, filter_name: str
    ) -> None:
        self.default_order = order
        self.filter_name = filter_name
        self._templates = [_template(row) for row in rows]
        self._times = [_time(number) for number in range(count)]
        self._rows = [self._render(number) for number in range(min(count, RENDERED_ROWS))]

    def respond(self, query: str) -> bytes:
        params = {name: values[0] for name, values in parse_qs(query).items()}
        page, per_page = int(params.get("page", 1)), int(params.get("perPage", 100))
        start = bisect_left(self._times, params.get(self.filter_name, ""))
        count = len(self._times)
        total = count - start
        first, last = (page - 1) * per_page, min(page * per_page, total)
        if params.get("order", self.default_order) == "DESC":
            numbers = range(count - 1 - first, count - 1 - last, -1)
            rows = [self._row(number) for number in numbers]
        elif start + last <= RENDERED_ROWS:
            rows = self._rows[start + first : start + last]
        else:
            rows = [self._row(number) for number in range(start + first, start + last)]
        more = b"true" if last < total else b"false"  # tap-rest-api-msdk asks for it
        meta = b'],"meta":{"page":%d,"perPage":%d,"total":%d,"more":%s}}'
        return b'{"data":[' + b",".join(rows) + meta % (page, per_page, total, more)

    def _row(self, number: int) -> bytes:
        return self._rows[number] if number < RENDERED_ROWS else self._render(number)

    def _render(self, number: int) -> bytes:
        row = self._templates[number % len(self._templates)]
        return row.replace(b"@ID@", b"r%d" % number).replace(
            b"@TIME@", self._times[number].encode()
        )


def _template(row: dict[str, Any]) -> bytes:
    row.pop("printerIds", None)
    row |= {"id": "@ID@", "createdAt": "@TIME@"}
    if "signedInAt" in row:
        row["signedInAt"] = "@TIME@"
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def _time(number: int) -> str:
    return format_time(FIRST_TIME + timedelta(seconds=number))


class Server:
    """Responds to requests after a latency, and counts them."""

    def __init__(self, rows: int, latency: float, limit: RateLimit | None) -> None:
        self.traffic = Traffic()
        self._rows = rows
        self._latency = latency
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._resource = cache(self._create_resource)
        self._resource("/v1/locations")

    def _create_resource(self, path: str) -> Resource:
        if path == "/v1/locations":
            return Resource(locations(DISTINCT_ROWS), self._rows, "ASC", "createdAtAfter")
        return Resource(entries(DISTINCT_ROWS), self._rows, "DESC", "signedInAtAfter")

    def handle(self, target: str, transport: asyncio.Transport) -> None:
        traffic = self.traffic
        traffic.requests += 1
        traffic.first_request = traffic.first_request or time.monotonic()
        if self._limit and not self._limit.allows():
            traffic.refused += 1
            self._send(transport, b"429 Too Many Requests", b'{"message":"Too many requests"}')
            return
        path, _, query = target.partition("?")
        body = self._resource(path).respond(query)
        if self._latency:
            self._loop.call_later(self._latency, self._send, transport, b"200 OK", body)
        else:
            self._send(transport, b"200 OK", body)

    def _send(self, transport: asyncio.Transport, status: bytes, body: bytes) -> None:
        self.traffic.last_response = time.monotonic()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        transport.write(head % (status, len(body)) + body)


class Connection(asyncio.Protocol):
    """Passes the requests of one connection to the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._server.handle(head.split(b" ", 2)[1].decode(), self._transport)


async def serve(rows: int, latency: float, limit: RateLimit | None) -> None:
    loop = asyncio.get_running_loop()
    server = Server(rows, latency, limit)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    while await loop.run_in_executor(None, sys.stdin.readline):
        traffic, server.traffic = server.traffic, Traffic()
        print(json.dumps(asdict(traffic)), flush=True)  # noqa: T201


def main() -> None:
    rows, latency, limit = int(sys.argv[1]), float(sys.argv[2]), LIMITS[sys.argv[3]]
    asyncio.run(serve(rows, latency, limit(PER_SECOND) if limit else None))


if __name__ == "__main__":
    main()
