"""A list API fast enough not to be what is measured: two streams, with rows a second apart."""

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil, floor
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

FIRST_TIME = datetime(2020, 1, 1, tzinfo=UTC)
PER_SECOND = 10
ROW_MARK = b"example.com"  # occurs in every row, whichever tool writes it
TIME = "%(time)b"
PLACE = {"line1": "1 Bahnhofstrasse", "line2": None, "city": "Zürich", "latitude": 47.3769}
LOCATION: dict[str, Any] = {"id": "%(number)d", "name": "Zürich “Mitte”", "enabled": True}
LOCATION |= {"companyId": "10000", "locale": "en", "timezone": "Europe/Zurich", "address": PLACE}
LOCATION |= {"logoUrl": "https://example.com/1.png", "capacityLimit": 5, "scheduleAheadLimit": 1.5}
LOCATION |= {"createdAt": TIME, "updatedAt": TIME}
ENTRY: dict[str, Any] = {"id": "%(number)d", "fullName": "例 太郎", "email": "visitor@example.com"}
ENTRY |= {"flowId": "f-1", "isDelivery": False, "agreementsStatus": "signed", "locationId": "1001"}
ENTRY |= {"customFields": [{"field": "Company", "value": "ACME „GmbH“"}], "signedInVia": "kiosk"}
ENTRY |= {"signedOutAt": None, "signedOutVia": None, "signedInAt": TIME, "createdAt": TIME}
STREAMS = {
    "/v1/locations": (json.dumps(LOCATION, ensure_ascii=False).encode(), "createdAt", "ASC"),
    "/v1/entries": (json.dumps(ENTRY, ensure_ascii=False).encode(), "signedInAt", "DESC"),
}


class Server:
    """Responds after a latency and counts; runs in a thread until the process ends."""

    def __init__(self) -> None:
        loop = asyncio.new_event_loop()
        listener = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.api_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        Thread(target=loop.run_forever, daemon=True).start()

    def reset(self, rows: int, latency: float, *, limited: bool) -> None:
        """Set how many rows a stream has; if limited, refuse more than 10 requests per second."""
        self._rows, self._latency, self._limited = rows, latency, limited
        self._served = deque([0.0] * PER_SECOND, maxlen=PER_SECOND)
        self.requests = self.refused = 0
        self.first_request = self.last_response = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = await self._respond(head.split(b" ", 2)[1].decode())
                self.last_response = time.monotonic()
                length = b"\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(b"HTTP/1.1 " + status + length + body)
        writer.close()

    async def _respond(self, target: str) -> tuple[bytes, bytes]:
        now = time.monotonic()
        self.requests += 1
        self.first_request = self.first_request or now
        if self._limited and now - self._served[0] < 1:
            self.refused += 1
            return b"429 Too Many Requests", b'{"message":"Too many requests"}'
        self._served.append(now)
        await asyncio.sleep(self._latency)
        return b"200 OK\r\ncontent-type: application/json", render_page(target, self._rows)


def render_page(target: str, count: int) -> bytes:
    """Return the page of `count` rows that a request's path and query select."""
    path, _, query = target.partition("?")
    _, time_field, order = STREAMS[path]
    params = {"page": "1", "perPage": "30", "order": order} | dict(parse_qsl(query))
    first, last = 0, count - 1
    if after := params.get(f"{time_field}After"):
        first = max(first, ceil(_seconds(after)))
    if before := params.get(f"{time_field}Before"):
        last = min(last, floor(_seconds(before)))
    numbers = range(first, last + 1)[:: -1 if params["order"] == "DESC" else 1]
    page, size = int(params["page"]), int(params["perPage"])
    rows = [render_row(path, number) for number in numbers[(page - 1) * size : page * size]]
    meta = b'{"page":%d,"perPage":%d,"total":%d}' % (page, size, len(numbers))
    return b'{"data":[%b],"meta":%b}' % (b",".join(rows), meta)


def _seconds(time: str) -> float:
    return (datetime.fromisoformat(time) - FIRST_TIME).total_seconds()


@lru_cache(maxsize=200_000)
def render_row(path: str, number: int) -> bytes:
    time = (FIRST_TIME + timedelta(seconds=number)).isoformat(timespec="milliseconds")
    values = {b"number": number, b"time": time.replace("+00:00", "Z").encode()}
    return STREAMS[path][0] % values
