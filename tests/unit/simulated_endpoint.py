"""Reads a stream from the sandbox's resources within the test, without HTTP, threads or waiting."""

import math
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import MAX_DEPTH, Page
from tap_envoy.prefetch import PrefetchPool
from tap_envoy.reader import StreamReader
from tap_envoy.records import Record, format_timestamp
from tap_envoy.slices import TimeRange
from tap_envoy.streams import STREAMS
from tests.random_cases import Case
from tests.sandbox import RESOURCES, ChangeSchedule, respond
from tests.sandbox.data import START
from tests.sandbox.quirks import Meta

CLASSES = {vars(stream)["name"]: stream for stream in STREAMS}

T = TypeVar("T")


class ShuffledPool(PrefetchPool):
    """Runs calls in random order, as responses to parallel requests arrive."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.latency = 1.0  # as many pages as possible are requested ahead
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.rng = random.Random(seed)  # noqa: S311

    @override
    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = _Pending(self)
        self.waiting.append((future, function))
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
        requests: The query parameters of each request.
        wanted: The times (None without a replication key) by id of the rows that existed
            throughout, and lie in the range that was asked for.
    """

    rows: list[Record] = field(default_factory=list)
    bookmarks: list[tuple[int, str]] = field(default_factory=list)
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    wanted: dict[str, str | None] = field(default_factory=dict)


def simulate(case: Case) -> Outcome:
    """Read a stream."""
    stream, rows, changes = case.stream, [*case.rows], ChangeSchedule(case.changes)
    outcome = Outcome()

    def fetch(params: Mapping[str, Any]) -> Page:
        query = {name: str(value) for name, value in params.items()}
        outcome.requests.append(query)
        assert len(outcome.requests) < 20_000, "the read does not end"
        status, body = respond(RESOURCES[stream], rows, query, case.quirks)
        changes.after_request(stream, rows)
        if status != 200:
            raise RequestRejectedError(f"HTTP {status}.", status=status, detail=": “no”")
        body = msgspec.json.decode(msgspec.json.encode(body))
        return Page(body["data"], body.get("meta", {}).get("total"))

    now, bookmark = datetime.now(UTC), ""
    pool = ShuffledPool(case.seed)
    reader = create_reader(stream, fetch, pool, outcome.warnings.append, case.page_size)
    try:
        for batch in reader.read(TimeRange(case.start, now + timedelta(days=60))):
            outcome.rows += batch.records
            if batch.bookmark:
                bookmark = max(bookmark, min(batch.bookmark, format_timestamp(now)))
            outcome.bookmarks.append((len(outcome.rows), bookmark))
    except EnvoyError as error:
        outcome.error = str(error)
    key = str(CLASSES[stream].replication_key)
    first = format_timestamp(case.start) if case.start else ""
    has_rooms = not case.quirks.rejected & {"type", "type=ROOM"} or not outcome.warnings
    outcome.wanted = {
        row["id"]: row.get(key)
        for row in changes.stable_rows(rows)
        if (row.get(key) or first) >= first
        and not case.quirks.hides(row)
        and (has_rooms or row["id"][0] != "r")
    }
    return outcome


def assert_nothing_lost(outcome: Outcome) -> None:
    """Assert that rows are missing only where there is an error, and behind no bookmark."""
    ids = [row["id"] for row in outcome.rows]
    assert len(set(ids)) == len(ids)
    assert outcome.error.endswith(".") or outcome.wanted.keys() <= set(ids)
    for count, bookmark in outcome.bookmarks:
        behind = {key for key, time in outcome.wanted.items() if time and time < bookmark}
        assert behind <= set(ids[:count])


def assert_complete(outcome: Outcome) -> None:
    """Assert that every row was emitted, once."""
    assert not outcome.error
    assert_nothing_lost(outcome)


class LongList:
    """Entries, one a second, made when they are requested; counts the requests."""

    def __init__(self, count: int, meta: Meta = "honest") -> None:
        self.requests = 0
        self._count, self._meta = count, meta

    def fetch(self, params: Mapping[str, Any]) -> Page:
        """Return a page, as `entries` would."""
        self.requests += 1
        end = params["page"] * params["perPage"]
        assert end <= MAX_DEPTH
        first = math.ceil(self._seconds(params.get("signedInAtAfter"), 0))
        last = math.floor(self._seconds(params.get("signedInAtBefore"), self._count))
        numbers = range(max(first, 0), min(last + 1, self._count))
        rows = [
            {"id": f"v-{n}", "signedInAt": format_timestamp(START + timedelta(seconds=n))}
            for n in numbers[end - params["perPage"] : end]
        ]
        totals = {"honest": len(numbers), "unfiltered": self._count}
        return Page(rows, totals.get(self._meta))

    @staticmethod
    def _seconds(time: str | None, default: int) -> float:
        return (datetime.fromisoformat(time) - START).total_seconds() if time else default
