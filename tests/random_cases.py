"""Random Envoys and lists that change, for property tests of the reading core."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from tests.sandbox import RESOURCES, Change, Quirks, data
from tests.sandbox.quirks import Meta, Row
from tests.sandbox.timestamps import format_time

WINDOWS = {
    stream: set(RESOURCES[stream].filters) for stream in ("entries", "invites", "work_schedules")
}
"""The filters that divide a list as far as its depth takes."""

TRUE_TOTALS = {"honest", "everywhere", "capped"}
UNLIMITED, FEW = 10**9, 3  # rows; no server limits a response to so few
ROW_COUNTS = (0, 1, 2, 3, 10, 30, 60, 99, 100, 101, 130, 250, 250, 400)


@dataclass(frozen=True)
class Case:
    """A list to read, and the Envoy that serves it.

    Attributes:
        stream: Its name.
        rows: The rows that it has at first.
        quirks: How the endpoint serves them.
        changes: What happens to them between the requests.
        page_size: Rows to ask for.
        start: The earliest time to read.
        seed: Of the order of responses.
    """

    stream: str
    rows: list[Row] = field(repr=False)
    quirks: Quirks = field(default_factory=Quirks)
    changes: Sequence[Change] = ()
    page_size: int = 100
    start: datetime | None = None
    seed: int = 0

    @property
    def may_fail(self) -> bool:
        """Whether rows may be beyond reach, or a single response does not show that it is all."""
        quirks, resource = self.quirks, RESOURCES[self.stream]
        lost = (quirks.rejected | quirks.ignored) & resource.parameters
        size = resource.per_page if "perPage" in lost else self.page_size
        size = quirks.fixed_size or min(size, quirks.clamp or size)
        has_total = resource.has_total or quirks.meta == "everywhere"
        is_told = has_total and quirks.meta in TRUE_TOTALS and not quirks.hidden
        is_single = quirks.single_response or "page" in lost
        reach = size if "page" in lost else quirks.max_rows or UNLIMITED
        if not is_told and not is_single:  # a page after the end may be beyond the cap
            reach -= 2 * size
        count = len(self.rows) + sum(change.kind == "insert" for change in self.changes)
        windows = WINDOWS.get(self.stream, lost)
        return bool(
            (self.stream == "reservations" and lost & {"startTime", "endTime"})
            or (count >= reach and (windows & lost or self.stream not in WINDOWS))
            or (count > FEW and not is_told and is_single)
        )


def random_case(rng: random.Random, max_quirks: int) -> Case:
    """Return a stream of some rows, quirks that combine, and changes between the requests."""
    stream = rng.choice(sorted(RESOURCES))
    starts: tuple[datetime | None, ...] = (None,)
    if stream in {"entries", "invites", "work_schedules"}:
        starts = (None, *(data.START + timedelta(minutes=minutes) for minutes in (30, 6000)))
    if stream == "reservations":  # hundreds of windows, where there is no start
        starts = (None, *(datetime.now(UTC) - timedelta(days=days) for days in (20, 50, 70)))
    quirks = random_quirks(rng, stream, max_quirks)
    kinds: Any = ("insert", "delete", "edit")
    changes = [
        Change(stream, rng.randint(1, 12), rng.choice(kinds), rng.random())
        for _ in range(rng.randint(0, 12))
    ]
    return Case(
        stream,
        rows_of(stream, rng.choice(ROW_COUNTS), minutes=rng.choice((30, 60))),
        quirks,
        changes,
        page_size=rng.choice((100, 100, 50, 20, 20 if quirks.hidden else 7)),  # no hidden pages
        start=rng.choice(starts),
        seed=rng.randint(0, 999),
    )


def random_quirks(rng: random.Random, stream: str, maximum: int) -> Quirks:
    parameters = sorted(RESOURCES[stream].parameters)
    names = set(rng.sample(sorted(CHOICES), rng.randint(0, maximum)))
    if "hidden" in names:  # where rows are out of reach too, there may be no trace of either
        names -= {"rejected", "ignored", "single_response", "max_rows"}
    names -= {"max_rows"} if stream == "reservations" else {"window"}
    quirks = {name: rng.choice(CHOICES[name]) for name in sorted(names)}
    for name in sorted(names & {"rejected", "ignored"}):
        quirks[name] = set(rng.sample(parameters, min(len(parameters), quirks[name])))
    return Quirks(**quirks)


CHOICES: dict[str, tuple[Any, ...]] = {
    "rejected": (1, 1, 2, 3),  # so many parameters
    "rejected_status": (422,),
    "ignored": (1, 1, 2),
    "meta": get_args(Meta)[1:],
    "clamp": (10, 20, 25, 50),
    "fixed_size": (10, 25, 50, 100),
    "single_response": (True,),
    "hidden": (10, 30),
    "max_rows": (100, 200, 1000),
    "timestamps": ("space_utc", "offset"),
    "inclusive": (False,),
    "whole_seconds": (True,),
    "window": ("overlaps", "within"),
}
"""The values of each quirk but `beyond_cap`, which is about 10,000 rows."""


def rows_of(stream: str, count: int, minutes: float = 60) -> list[Row]:
    """Return `count` rows of a stream, so far apart; seven different names where names sort."""
    rows: list[Row]
    if stream in {"entries", "invites", "work_schedules"}:
        rows = getattr(data, stream)(count, minutes=minutes)
        return rows
    if stream == "reservations":
        rows = data.reservations(count, datetime.now(UTC) - timedelta(days=40), minutes=240)
        for number, row in enumerate(rows):  # of up to five days
            begin = datetime.fromisoformat(row["startTime"])
            row["endTime"] = format_time(begin + timedelta(hours=9 + 24 * (number % 5)))
        return rows
    if stream in {"companies", "employees", "flows"}:
        row = data.all_rows()[stream][0]
        numbers = range(min(count, 3) if stream == "companies" else count)
        return [{**row, "id": f"{stream[0]}-{n}", "name": f"Name {n % 7}"} for n in numbers]
    if stream == "spaces":
        return data.spaces(count, count // 4)
    return data.locations(count) if stream == "locations" else data.desks(count)
