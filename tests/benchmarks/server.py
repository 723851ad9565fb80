"""An Envoy that is fast enough not to be what is measured: its pages are rendered beforehand.

`python -m tests.benchmarks.server ROWS LATENCY LIMIT` prints its port, and on a line on its
standard input prints what it counted: requests and refusals for being too fast. Not strict, as the
sandbox is; it knows `page`, `createdAtAfter` and `signedInAtAfter`, by which rows are in order.
"""

import asyncio
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from tests.sandbox.bucket import LeakyBucket
from tests.sandbox.data import entries, locations, moment

SIZE = 100
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
FILTERS = {"/v1/locations": "createdAtAfter", "/v1/entries": "signedInAtAfter"}


class Counts:
    def __init__(self) -> None:
        self.requests = self.refused = 0
        self.arrivals: list[float] = []


def template(path: str) -> list[bytes]:
    """Render the rows of a page once; only id and time change from page to page."""
    rows: list[dict[str, Any]] = locations(SIZE) if path == "/v1/locations" else entries(SIZE)
    for row in rows:
        row.pop("printerIds", None)
        row |= {"id": "@ID@", "createdAt": "@TIME@"}
        if "signedInAt" in row:
            row["signedInAt"] = "@TIME@"
    return [json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() for row in rows]


def render(rows: list[bytes], first: int, count: int, total: int, number: int) -> bytes:
    parts = []
    for n in range(first, min(first + SIZE, first + count)):
        time_of_row = moment(FIRST + timedelta(seconds=n)).encode()
        row = rows[n % SIZE].replace(b"@ID@", b"r%d" % n).replace(b"@TIME@", time_of_row)
        parts.append(row)
    more = b"true" if number * SIZE < total else b"false"  # one of the others asks for it
    meta = b'],"meta":{"page":%d,"perPage":%d,"total":%d,"more":%s}}' % (number, SIZE, total, more)
    return b'{"data":[' + b",".join(parts) + meta


async def serve(rows: int, latency: float, limit: float) -> None:
    templates = {path: template(path) for path in FILTERS}
    times = [moment(FIRST + timedelta(seconds=n)) for n in range(rows)]
    rendered: dict[tuple[str, int, int], bytes] = {}
    for path, lines in templates.items():
        for number in range(1, min(rows, 20_000) // SIZE + 1):
            rendered[path, 0, number] = render(lines, (number - 1) * SIZE, SIZE, rows, number)
    counts, bucket = Counts(), LeakyBucket(limit) if limit else None

    async def answer(target: str) -> tuple[int, bytes]:
        path, _, query = target.partition("?")
        counts.requests += 1
        counts.arrivals.append(time.monotonic())
        if bucket and not bucket.takes():
            counts.refused += 1
            return 429, b'{"message":"Too many requests"}'
        if latency:
            await asyncio.sleep(latency)
        asked = parse_qs(query)
        number = int(asked.get("page", ["1"])[0])
        after = asked.get(FILTERS[path], [""])[0]
        start = bisect_right(times, after) if after else 0
        key = path, start, number
        if key not in rendered:
            left = max(0, rows - start - (number - 1) * SIZE)
            first = start + (number - 1) * SIZE
            return 200, render(templates[path], first, left, rows - start, number)
        return 200, rendered[key]

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _talk(reader, writer, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        span = counts.arrivals[-1] - counts.arrivals[0] if counts.requests else 0.0
        print(json.dumps([counts.requests, counts.refused, span]), flush=True)  # noqa: T201
        counts = Counts()


async def _talk(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[str], Awaitable[tuple[int, bytes]]],
) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status, body = await answer(head.split(b" ", 2)[1].decode())
        reason = b"OK" if status == 200 else b"Too Many Requests"
        writer.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % (status, reason, len(body))
            + body
        )
        await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
