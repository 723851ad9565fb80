"""Reads a stream from the sandbox's resources within the test, without HTTP or threads."""

import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tap_envoy.client import REJECTIONS, parse_page
from tap_envoy.exceptions import EnvoyError, RequestRejectedError
from tap_envoy.pagination import Page
from tap_envoy.reader import StreamReader
from tap_envoy.records import RecordConformer, format_timestamp
from tap_envoy.slices import TimeRange
from tap_envoy.streams import STREAMS
from tests.sandbox import RESOURCES, Change, ChangeSchedule, Quirks, respond

CLASSES = {stream.name: stream for stream in STREAMS}
Row = dict[str, Any]


class ShuffledPool:
    """Runs jobs in random order, as responses to parallel requests arrive."""

    def __init__(self, max_in_flight: int, rng: random.Random) -> None:
        self.max_in_flight = max_in_flight
        self._rng = rng
        self._waiting: list[tuple[Future[Page], Callable[[], Page]]] = []

    def submit(self, job: Callable[[], Page]) -> Future[Page]:
        future: Future[Page] = Future()
        self._waiting.append((future, job))
        return future

    def result(self, future: Future[Page], poll: Callable[[], None]) -> Page:
        poll()
        while not future.done():
            other, job = self._waiting.pop(self._rng.randrange(len(self._waiting)))
            try:
                other.set_result(job())
            except EnvoyError as error:
                other.set_exception(error)
        return future.result()


@dataclass
class Outcome:
    """What a read came to."""

    rows: list[Row] = field(default_factory=list)
    bookmark: str | None = None
    bookmarks: list[tuple[int, str | None]] = field(default_factory=list)
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    stable: list[Row] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    @property
    def missing(self) -> set[str]:
        return {str(row["id"]) for row in self.stable} - set(self.ids)


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
    seed: int = 0,
    limit: int = 20_000,
) -> Outcome:
    """Read a stream; `limit` is the number of requests that it must not exceed."""
    quirks = quirks or Quirks()
    present = [dict(row) for row in rows]
    schedule = ChangeSchedule(changes)
    rng = random.Random(seed)  # noqa: S311
    outcome = Outcome()
    cls = CLASSES[stream]
    conformer = RecordConformer(cls.schema)

    def fetch(params: dict[str, Any], _is_probe: bool) -> Page:  # noqa: FBT001
        query = {name: str(value) for name, value in params.items()}
        outcome.requests.append(query)
        assert len(outcome.requests) <= limit, "the read does not end"
        status, body = respond(RESOURCES[stream], present, query, quirks, rng)
        schedule.after_request(stream, present)
        if status in REJECTIONS:
            raise RequestRejectedError(f"HTTP {status}.", status=status, detail=": “no”")
        assert status == 200
        page = parse_page(json.loads(json.dumps(body)))
        for record in page.records:
            conformer.conform(record)
        return page

    now = datetime.now(UTC)
    reader = StreamReader(
        cls.endpoint(page_size),
        TimeRange(start, now, now + timedelta(days=60)),
        fetch,
        wants_bookmark=is_incremental and isinstance(cls.replication_key, str),
        poll=lambda: None,
        warn=outcome.warnings.append,
    )
    pool: Any = ShuffledPool(in_flight, rng)
    try:
        for batch in reader.read(pool):
            if batch.resets_bookmark:
                outcome.bookmark = None
            outcome.rows += batch.records
            if batch.bookmark:
                bookmark = min(batch.bookmark, format_timestamp(now))
                outcome.bookmark = max(outcome.bookmark or "", bookmark)
            outcome.bookmarks.append((len(outcome.rows), outcome.bookmark))
    except EnvoyError as error:
        outcome.error = str(error)
    outcome.stable = schedule.stable_rows(present)
    return outcome
