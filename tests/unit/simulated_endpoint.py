"""Reads a stream from the sandbox's resources within the test, without HTTP, threads or waiting."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import Page
from tap_envoy.prefetch import MAX_IN_FLIGHT, PrefetchPool
from tap_envoy.reader import StreamReader
from tap_envoy.records import Record, format_timestamp
from tap_envoy.slices import TimeRange
from tap_envoy.streams import STREAMS
from tests.sandbox import RESOURCES, Change, ChangeSchedule, Quirks, respond
from tests.sandbox.data import START

CLASSES = {vars(stream)["name"]: stream for stream in STREAMS}

S = TypeVar("S")
T = TypeVar("T")


class ShuffledPool(PrefetchPool):
    """Runs calls in random order, as responses to parallel requests arrive."""

    def __init__(self, max_in_flight: int = MAX_IN_FLIGHT, seed: int = 0) -> None:
        super().__init__()
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.most_in_flight = 0
        self.rng = random.Random(seed)  # noqa: S311
        self._max_in_flight = max_in_flight

    @override
    def ahead(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        limit: Callable[[], int] = lambda: MAX_IN_FLIGHT,
    ) -> Iterator[tuple[S, T]]:
        return super().ahead(function, items, lambda: min(limit(), self._max_in_flight))

    @override
    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = _Pending(self)
        self.waiting.append((future, function))
        in_flight = sum(not other.cancelled() for other, _ in self.waiting)
        self.most_in_flight = max(self.most_in_flight, in_flight)
        return future


class _Pending(Future[T]):
    """The result of a call that is made, after others, when it is asked for."""

    def __init__(self, pool: ShuffledPool) -> None:
        super().__init__()
        self._pool = pool

    @override
    def result(self, timeout: float | None = None) -> T:
        while not self.done():
            waiting = self._pool.waiting
            future, function = waiting.pop(self._pool.rng.randrange(len(waiting)))
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except EnvoyError as error:
                    future.set_exception(error)
        return super().result(timeout)


def create_reader(
    stream: str,
    fetch: Callable[[Mapping[str, Any]], Page],
    pool: PrefetchPool,
    warn: Callable[[str], None] = lambda _: None,
    page_size: int = 100,
) -> StreamReader:
    """Return the reader of a stream, with another way to get a page."""
    cls = CLASSES[stream]
    return StreamReader(cls.slicer, cls.sort_params, page_size, fetch, pool, warn)


@dataclass
class Outcome:
    """What a read came to.

    Attributes:
        rows: The rows that were emitted.
        bookmarks: After each batch, how many rows were emitted, and the bookmark.
        error: The message of the error that ended it.
        warnings: What the reader warned of.
        requests: The query parameters of each request.
        wanted: The times (None without a replication key) by id of the rows that existed
            throughout, and lie in the range that was asked for.
        most_in_flight: The most requests that were under way at once.
    """

    rows: list[Record] = field(default_factory=list)
    bookmarks: list[tuple[int, str | None]] = field(default_factory=list)
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    wanted: dict[str, str | None] = field(default_factory=dict)
    most_in_flight: int = 0

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    @property
    def missing(self) -> set[str]:
        return self.wanted.keys() - set(self.ids)

    @property
    def bookmark(self) -> str | None:
        return self.bookmarks[-1][1] if self.bookmarks else None

    @property
    def passed_by_bookmark(self) -> set[str]:
        """The ids of rows that some bookmark passed before they were emitted."""
        passed, ids, emitted, done = set[str](), self.ids, set[str](), 0
        for count, bookmark in self.bookmarks:
            emitted.update(ids[done:count])
            done = count
            if bookmark:
                late = {key for key, time in self.wanted.items() if time and time < bookmark}
                passed |= late - emitted
        return passed


def simulate(
    stream: str,
    rows: Sequence[Record],
    quirks: Quirks | None = None,
    *,
    changes: Sequence[Change] = (),
    page_size: int = 100,
    start: datetime | None = None,
    in_flight: int = 1,
    seed: int = 0,
    limit: int = 20_000,
    stop_after: int | None = None,
) -> Outcome:
    """Read a stream.

    Args:
        stream: Its name.
        rows: The rows that it has at first.
        quirks: How the endpoint serves them.
        changes: What happens to them between the requests.
        page_size: Rows to ask for.
        start: The earliest time to read.
        in_flight: Requests under way at once.
        seed: Of the order of responses.
        limit: Requests that it must not exceed.
        stop_after: Batches after which the read is interrupted.
    """
    quirks, present, schedule = quirks or Quirks(), list(rows), ChangeSchedule(changes)
    outcome = Outcome()

    def fetch(params: Mapping[str, Any]) -> Page:
        query = {name: str(value) for name, value in params.items()}
        outcome.requests.append(query)
        assert len(outcome.requests) <= limit, "the read does not end"
        status, body = respond(RESOURCES[stream], present, query, quirks)
        schedule.after_request(stream, present)
        if status != 200:
            raise RequestRejectedError(f"HTTP {status}.", status=status, detail=": “no”")
        body = msgspec.json.decode(msgspec.json.encode(body))
        return Page(body["data"], body.get("meta", {}).get("total"))

    now, bookmark = datetime.now(UTC), None
    pool = ShuffledPool(in_flight, seed)
    reader = create_reader(stream, fetch, pool, outcome.warnings.append, page_size)
    try:
        batches = reader.read(TimeRange(start, now + timedelta(days=60)))
        for batch in islice(batches, stop_after):
            outcome.rows += batch.records
            if batch.bookmark:
                bookmark = max(bookmark or "", min(batch.bookmark, format_timestamp(now)))
            outcome.bookmarks.append((len(outcome.rows), bookmark))
    except EnvoyError as error:
        outcome.error = str(error)
    outcome.most_in_flight = pool.most_in_flight
    key = str(CLASSES[stream].replication_key)
    first = format_timestamp(start) if start else ""
    has_rooms = not quirks.rejected & {"type", "type=ROOM"} or not outcome.warnings
    outcome.wanted = {
        row["id"]: row.get(key)
        for row in schedule.stable_rows(present)
        if (row.get(key) or first) >= first
        and not quirks.hides(row)
        and (has_rooms or row["id"][0] != "r")
    }
    return outcome


def assert_nothing_lost(outcome: Outcome) -> None:
    """Assert that rows are missing only where there is an error, and behind no bookmark."""
    assert outcome.error or not outcome.missing
    assert not outcome.passed_by_bookmark
    assert len(set(outcome.ids)) == len(outcome.ids)
    assert outcome.error is None or outcome.error.endswith(".")


def assert_complete(outcome: Outcome) -> None:
    """Assert that every row was emitted, once."""
    assert outcome.error is None
    assert_nothing_lost(outcome)


class LongList:
    """Entries, one a second, made when they are requested; too many to hold."""

    def __init__(self, count: int, max_rows: int = 10_000, *, has_total: bool = True) -> None:
        self.requests = 0
        self.deepest = 0
        self._count, self._max_rows, self._has_total = count, max_rows, has_total

    def fetch(self, params: Mapping[str, Any]) -> Page:
        """Return a page, as `entries` would.

        Raises:
            RequestRejectedError: If it is too deep.
        """
        self.requests += 1
        number, size = params["page"], params["perPage"]
        self.deepest = max(self.deepest, number * size)
        if number * size > self._max_rows:
            raise RequestRejectedError("HTTP 400.", status=400, detail="")
        first = math.ceil(self._seconds(params.get("signedInAtAfter"), 0))
        last = math.floor(self._seconds(params.get("signedInAtBefore"), self._count - 1))
        numbers = range(max(first, 0), min(last + 1, self._count))
        rows = [
            {"id": f"v-{n}", "signedInAt": self.time_of(n)}
            for n in numbers[(number - 1) * size : number * size]
        ]
        return Page(rows, len(numbers) if self._has_total else None)

    @staticmethod
    def time_of(number: int) -> str:
        """Return the time of an entry."""
        return format_timestamp(START + timedelta(seconds=number))

    @staticmethod
    def _seconds(time: str | None, default: int) -> float:
        return (datetime.fromisoformat(time) - START).total_seconds() if time else default
