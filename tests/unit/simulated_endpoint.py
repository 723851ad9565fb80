"""Reads a stream from the sandbox's resources within the test, without HTTP or threads."""

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from tap_envoy.client import REJECTIONS, parse_page
from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import Page
from tap_envoy.reader import StreamReader
from tap_envoy.records import RecordConformer, format_timestamp
from tap_envoy.slices import TimeRange
from tap_envoy.streams import STREAMS
from tests.sandbox import RESOURCES, Change, ChangeSchedule, Quirks, respond
from tests.sandbox.pages import Page as SandboxPage
from tests.sandbox.pages import QueryRejectedError
from tests.sandbox.resources import emitted_id

CLASSES = {vars(stream)["name"]: stream for stream in STREAMS}
Row = dict[str, Any]


class ShuffledPool:
    """Runs jobs in random order, as responses to parallel requests arrive.

    After `slow_jobs` of them it allows one at a time, as where responses become fast.
    """

    def __init__(
        self, max_in_flight: int, rng: random.Random, *, slow_jobs: float = math.inf
    ) -> None:
        self.max_in_flight = max_in_flight
        self._slow_jobs = slow_jobs
        self.most_in_flight = 0
        self._rng = rng
        self._waiting: list[tuple[Future[Page], Callable[[], Page]]] = []

    def submit(self, job: Callable[[], Page]) -> Future[Page]:
        future: Future[Page] = Future()
        self._waiting.append((future, job))
        self._slow_jobs -= 1
        if self._slow_jobs <= 0:
            self.max_in_flight = 1
        self.most_in_flight = max(self.most_in_flight, len(self._waiting))
        return future

    def result(self, future: Future[Page]) -> Page:
        while not future.done():
            other, job = self._waiting.pop(self._rng.randrange(len(self._waiting)))
            try:
                other.set_result(job())
            except EnvoyError as error:
                other.set_exception(error)
        return future.result()


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

    rows: list[Row] = field(default_factory=list)
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
        passed, emitted, done, last = set[str](), set[str](), 0, None
        ids = self.ids
        for count, bookmark in self.bookmarks:
            emitted.update(ids[done:count])
            done = count
            if bookmark and bookmark != last:
                passed |= {
                    key
                    for key, time in self.wanted.items()
                    if time and time < bookmark and key not in emitted
                }
            last = bookmark
        return passed


def simulate(
    stream: str,
    rows: Sequence[Row],
    quirks: Quirks | None = None,
    *,
    changes: Sequence[Change] = (),
    page_size: int = 100,
    start: datetime | None = None,
    is_incremental: bool = True,
    in_flight: int = 1,
    slow_jobs: float = math.inf,
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
        is_incremental: Whether there are bookmarks.
        in_flight: Requests under way at once.
        slow_jobs: Requests after which it is one at a time.
        seed: Of what is random: the order of responses, and of rows in an unstable order.
        limit: Requests that it must not exceed.
        stop_after: Batches after which the read is interrupted.
    """
    quirks = quirks or Quirks()
    present = [dict(row) for row in rows]
    schedule = ChangeSchedule(changes)
    rng = random.Random(seed)  # noqa: S311
    outcome = Outcome()
    cls = CLASSES[stream]
    conformer = RecordConformer(vars(cls)["schema"])

    def fetch(params: dict[str, Any], _is_probe: bool) -> Page:  # noqa: FBT001
        query = {name: str(value) for name, value in params.items()}
        outcome.requests.append(query)
        assert len(outcome.requests) <= limit, "the read does not end"
        status, body = respond(RESOURCES[stream], present, query, quirks, rng)
        schedule.after_request(stream, present)
        if status in REJECTIONS:
            raise RequestRejectedError(f"HTTP {status}.", status=status, detail=": “no”")
        assert status == 200
        page = parse_page(msgspec.json.decode(msgspec.json.encode(body)))
        for record in page.records:
            conformer.conform(record)
        return page

    now = datetime.now(UTC)
    reader = create_reader(
        stream,
        fetch,
        page_size=page_size,
        start=start,
        is_incremental=is_incremental,
        warn=outcome.warnings.append,
    )
    pool: Any = ShuffledPool(in_flight, rng, slow_jobs=slow_jobs)
    bookmark = None
    try:
        for batch in islice(reader.read(pool), stop_after):
            if batch.resets_bookmark:
                bookmark = None
            outcome.rows += batch.records
            if batch.bookmark:
                bookmark = max(bookmark or "", min(batch.bookmark, format_timestamp(now)))
            outcome.bookmarks.append((len(outcome.rows), bookmark))
    except EnvoyError as error:
        outcome.error = str(error)
    outcome.most_in_flight = pool.most_in_flight
    key = cls.replication_key if isinstance(cls.replication_key, str) else ""
    first = format_timestamp(start) if start else ""
    outcome.wanted = {
        emitted_id(row, quirks): row.get(key)
        for row in schedule.stable_rows(present)
        if not key or (row[key] or first) >= first
    }
    return outcome


def assert_nothing_lost(outcome: Outcome) -> None:
    """Assert that rows are missing only where there is an error, and behind no bookmark."""
    assert outcome.error or not outcome.missing
    assert not outcome.passed_by_bookmark
    assert outcome.error is None or outcome.error.endswith(".")


def assert_complete(outcome: Outcome) -> None:
    assert outcome.error is None
    assert not outcome.missing
    assert not outcome.passed_by_bookmark
    assert len(set(outcome.ids)) == len(outcome.ids)


def create_reader(
    stream: str,
    fetch: Callable[[dict[str, Any], bool], Page],
    *,
    page_size: int = 100,
    start: datetime | None = None,
    is_incremental: bool = True,
    warn: Callable[[str], None] = lambda _: None,
) -> StreamReader:
    """Return the reader of a stream, as the tap creates it."""
    cls, now = CLASSES[stream], datetime.now(UTC)
    return StreamReader(
        cls.endpoint(page_size),
        TimeRange(start, now, now + timedelta(days=60)),
        fetch,
        wants_bookmark=is_incremental and isinstance(cls.replication_key, str),
        warn=warn,
    )


class LongList:
    """Entries of three locations, one a second, made when they are requested; too many to hold."""

    def __init__(self, count: int, **quirks: Any) -> None:
        self.requests = 0
        self._count = count
        self._quirks = Quirks(**{"max_rows": 10_000, **quirks})

    def fetch(self, params: dict[str, Any], _is_probe: bool) -> Page:  # noqa: FBT001
        self.requests += 1
        query = {name: str(value) for name, value in params.items()}
        try:
            page = SandboxPage.parse(query, 30, 0, self._quirks)
            first = self._first(query.get("signedInAtAfter"))
            part = page.part(self._count - first, self._quirks)
        except QueryRejectedError as error:
            message = f"HTTP {error.status}."
            raise RequestRejectedError(message, status=error.status, detail="") from None
        numbers = range(first, self._count)
        if query.get("order") == "DESC":
            numbers = numbers[::-1]
        has_total = self._quirks.meta == "honest"
        rows = [
            {"id": f"v-{n}", "signedInAt": self.time_of(n), "locationId": f"100{n % 3}"}
            for n in numbers[part]
        ]
        return Page(rows, len(numbers) if has_total else None)

    @staticmethod
    def time_of(number: int) -> str:
        return format_timestamp(FIRST + timedelta(seconds=number))

    def _first(self, after: str | None) -> int:
        if after is None:
            return 0
        passed = (datetime.fromisoformat(after) - FIRST).total_seconds()
        return min(self._count, max(0, math.ceil(passed)))


FIRST = datetime(2020, 1, 1, tzinfo=UTC)
