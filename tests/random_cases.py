"""Random Envoys and lists that change, for property tests of the reading core."""

import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.sandbox import RESOURCES, Change, Quirks, data
from tests.sandbox.quirks import Row
from tests.sandbox.timestamps import format_time

NEEDED_FILTERS = {"reservations": {"startTime", "endTime"}, "spaces": {"type"}}
"""Filters without which Envoy returns only some rows, so that a stream cannot do without."""

SORTED = {
    "locations": "createdAtAfter",
    "entries": "signedInAtAfter",
    "invites": "createdAtAfter",
}
"""The streams that are sorted by time, and the filter that each has for it."""

UNLIMITED = 10**9

START_DATES = (data.START + timedelta(minutes=30), data.START + timedelta(minutes=6000))

ROW_COUNTS = (0, 1, 2, 3, 10, 30, 60, 99, 100, 101, 130, 250, 250, 400)


@dataclass(frozen=True)
class Case:
    """A list to read, and the Envoy that serves it."""

    stream: str
    rows: list[Row]
    quirks: Quirks
    changes: tuple[Change, ...] = ()
    page_size: int = 100
    start: datetime | None = None
    in_flight: int = 1
    seed: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `simulate`."""
        return vars(self)

    @property
    def description(self) -> str:
        """The case in one line, without the rows."""
        default = Quirks()
        quirks = {k: v for k, v in vars(self.quirks).items() if v != getattr(default, k)}
        return (
            f"{self.stream}, {len(self.rows)} rows by {self.page_size} from {self.start}, "
            f"{self.in_flight} in flight, seed {self.seed}, {quirks}, {self.changes}"
        )

    @property
    def may_fail(self) -> bool:
        """Whether no reader can be sure to have all rows.

        It cannot where rows beyond the first page, or beyond a cap, are out of reach and no
        filter by time reaches them, where a needed filter is not accepted, or where rows without
        an order change places.
        """
        quirks, names, count = self.quirks, RESOURCES[self.stream].parameters, len(self.rows)
        lost = (quirks.rejected | quirks.ignored) & names
        has_total = quirks.meta in {"honest", "total_only"} and quirks.total in {"honest", "capped"}
        return bool(
            lost & NEEDED_FILTERS.get(self.stream, set())
            or (("page" in lost or count >= self._cap(lost)) and not self._can_slice(lost))
            or quirks.unstable
            or (quirks.single_response and not has_total)
        )

    def _cap(self, lost: AbstractSet[str]) -> int:
        """Return how many rows can be sure to be read in one slice."""
        quirks = self.quirks
        limits = quirks.clamp, quirks.fixed_size, quirks.max_per_page_accepted
        default = RESOURCES[self.stream].per_page
        per_page = min(default if "perPage" in lost else self.page_size, *filter(None, limits), 250)
        if per_page > (quirks.max_rows or UNLIMITED):
            return 0
        return min(quirks.max_rows or UNLIMITED, quirks.max_pages * per_page or UNLIMITED)

    def _can_slice(self, lost: AbstractSet[str]) -> bool:
        """Return whether the time filter works, and the order where that is needed."""
        if self.stream in SORTED:
            return not lost & {"sort", "order", SORTED[self.stream]} and (
                self.quirks.order == "sorted"
            )
        windowed = {"createdAtAfter", "createdAtBefore", "startTime", "endTime"}
        return self.stream in {"work_schedules", "reservations"} and not lost & windowed


def random_case(rng: random.Random, *, max_quirks: int = 4, max_changes: int = 6) -> Case:
    """Return a stream of some rows, quirks that combine, and changes between the requests."""
    stream = rng.choice(sorted(RESOURCES))
    starts: tuple[datetime | None, ...] = (None,)
    if stream in {"entries", "invites", "work_schedules"}:
        starts = (None, None, *START_DATES)
    if stream == "reservations":  # hundreds of windows, where there is no start
        starts = (None, *(datetime.now(UTC) - timedelta(days=days) for days in (20, 50, 70)))
    return Case(
        stream,
        random_rows(rng, stream),
        random_quirks(rng, stream, max_quirks),
        tuple(random_change(rng, stream) for _ in range(rng.randint(0, max_changes))),
        page_size=rng.choice((100, 100, 50, 20, 7)),
        start=rng.choice(starts),
        in_flight=rng.choice((1, 3, 8)),
        seed=rng.randint(0, 999),
    )


def random_change(rng: random.Random, stream: str) -> Change:
    kind = rng.choice(("insert", "delete"))
    return Change(stream, rng.randint(1, 12), kind, rng.random())  # type: ignore[arg-type]


def random_rows(rng: random.Random, stream: str) -> list[Row]:
    return rows_of(stream, rng.choice(ROW_COUNTS), minutes=rng.choice((1, 60)))


def rows_of(stream: str, count: int, minutes: float = 60) -> list[Row]:
    """Return `count` rows of a stream, so far apart."""
    makers: dict[str, Callable[[], list[Row]]] = {
        "locations": lambda: data.locations(count),
        "companies": lambda: numbered("companies", min(count, 3)),
        "employees": lambda: numbered("employees", count),
        "flows": lambda: numbered("flows", count),
        "entries": lambda: data.entries(count, minutes=minutes),
        "invites": lambda: data.invites(count, minutes=minutes),
        "work_schedules": lambda: data.work_schedules(count, minutes=minutes),
        "reservations": lambda: reservations(count, minutes=240),
        "spaces": lambda: data.desks(count) + data.rooms(count // 4),
    }
    return makers[stream]()


def numbered(stream: str, count: int) -> list[Row]:
    """Return `count` rows like the first of the sandbox, with seven different names."""
    row = first_row(stream)
    return [
        {**row, "id": f"{stream[0]}-{number}", "name": f"Name {number % 7}"}
        | data.created_fields(data.START, hours=number)
        for number in range(count)
    ]


@cache
def first_row(stream: str) -> Row:
    return data.all_rows()[stream][0]


def reservations(count: int, minutes: float) -> list[Row]:
    """Return `count` reservations of up to five days, from 40 days ago on."""
    first = datetime.now(UTC) - timedelta(days=40)
    rows = data.reservations(count, first, minutes=minutes)
    for number, row in enumerate(rows):
        begin = datetime.fromisoformat(row["startTime"])
        row["endTime"] = format_time(begin + timedelta(hours=9 + 24 * (number % 5)))
    return rows


def random_quirks(rng: random.Random, stream: str, maximum: int) -> Quirks:
    parameters = sorted(RESOURCES[stream].parameters)
    values: dict[str, Callable[[], Any]] = {
        "rejected": lambda: set(rng.sample(parameters, min(len(parameters), rng.randint(1, 3)))),
        "rejected_status": lambda: 422,
        "max_per_page_accepted": lambda: rng.choice((50, 25, 10)),
        "ignored": lambda: set(rng.sample(parameters, min(len(parameters), rng.randint(1, 2)))),
    }
    names = rng.sample(sorted({*values, *CHOICES}), rng.randint(0, maximum))
    return Quirks(
        **{name: values[name]() if name in values else rng.choice(CHOICES[name]) for name in names}
    )


CHOICES: dict[str, tuple[Any, ...]] = {
    "meta": Quirks.alternatives("meta"),
    "total": Quirks.alternatives("total"),
    "numbers_as_strings": (True,),
    "per_page_echoed": (True,),
    "clamp": (10, 25, 40, 50),
    "fixed_size": (10, 25, 40, 50),
    "single_response": (True,),
    "first_page": (0,),
    "past_end": Quirks.alternatives("past_end"),
    "max_rows": (100, 200, 1000),
    "max_pages": (5, 20),
    "order": Quirks.alternatives("order"),
    "grouped_reverses": (True,),
    "unstable": (True,),
    "timestamps": Quirks.alternatives("timestamps"),
    "inclusive": (False,),
    "whole_seconds": (True,),
    "numeric_ids": (True,),
    "window": Quirks.alternatives("window"),
}
"""The values of each quirk that is not about the parameters of a stream."""
