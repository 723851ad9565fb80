"""What each list of v1 takes, and how it answers: as strict as the documentation."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
DEPTH = 10_000
LONGEST_WINDOW = timedelta(days=30)


class RefusedError(Exception):
    """The list refuses the query."""


@dataclass(frozen=True)
class Listing:
    """A list of v1.

    Attributes:
        scopes: All of them are needed.
        sorts: What `sort` may say, and the key that is meant.
        after: Filters that leave out what is earlier, and the key that is meant.
        before: Filters that leave out what is later.
        equals: Filters that ask for one of several values, comma-joined.
        size: Rows of a page, if `perPage` is not said.
        sort: The order, if `sort` is not said.
        descending: Whether `order` is DESC, if it is not said.
        window: Whether `startTime` and `endTime` make a window of at most 30 days.
    """

    scopes: frozenset[str]
    sorts: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    equals: Mapping[str, str] = field(default_factory=dict)
    size: int = 100
    sort: str | None = None
    descending: bool = False
    window: bool = False

    @property
    def parameters(self) -> set[str]:
        window = {"startTime", "endTime"} if self.window else set()
        order = {"sort", "order"} if self.sorts else set()
        filters = {*self.after, *self.before, *self.equals}
        return {"page", "perPage"} | order | filters | window


CREATED = {"createdAtAfter": "createdAt"}, {"createdAtBefore": "createdAt"}
EXPECTED = (
    {"expectedArrivalAtAfter": "expectedArrivalAt"},
    {"expectedArrivalAtBefore": "expectedArrivalAt"},
)

LISTINGS = {
    "locations": Listing(
        frozenset({"locations.read"}),
        sorts={"createdAt": "createdAt", "updatedAt": "updatedAt"},
        after=CREATED[0],
        before=CREATED[1],
        equals={"ids": "id", "enabled": "enabled"},
        size=10,
    ),
    "companies": Listing(frozenset({"companies.read"})),
    "employees": Listing(
        frozenset({"employees.read", "locations.read"}),
        sorts={"NAME": "name", "EMAIL": "email"},
        equals={"ids": "id", "name": "name", "email": "email"},
        size=10,
    ),
    "flows": Listing(
        frozenset({"flows.read"}),
        sorts={"NAME": "name", "CREATED_AT": "createdAt"},
        equals={"ids": "id", "enabled": "enabled", "name": "name", "type": "type"},
        size=10,
    ),
    "entries": Listing(
        frozenset({"entries.read"}),
        sorts={"SIGNED_IN_AT": "signedInAt"},
        after={"signedInAtAfter": "signedInAt"},
        sort="SIGNED_IN_AT",
        descending=True,
        size=30,
    ),
    "invites": Listing(
        frozenset({"invites.read", "employees.read"}),
        sorts={"CREATED_AT": "createdAt", "EXPECTED_ARRIVAL_AT": "expectedArrivalAt"},
        after={**CREATED[0], **EXPECTED[0]},
        before={**CREATED[1], **EXPECTED[1]},
        equals={"ids": "id", "locationIds": "locationId", "type": "type"},
    ),
    "work-schedules": Listing(
        frozenset({"work-schedules.read", "employees.read"}),
        after={**CREATED[0], **EXPECTED[0]},
        before={**CREATED[1], **EXPECTED[1]},
        equals={"locationIds": "locationId"},
    ),
    "reservations": Listing(frozenset({"reservations.read", "spaces.read"}), window=True),
    "spaces": Listing(
        frozenset({"spaces.read"}),
        equals={"locationIds": "locationId", "floorIds": "floorId"},
        size=250,
    ),
}


@dataclass
class Habits:
    """What the documentation leaves open, for a test to turn.

    Attributes:
        inclusive: Whether a filter includes the time it names.
        window: What a window of reservations has: what "begins" in it, "overlaps" it, or lies
            "within" it.
        depth: What page × perPage must not exceed.
    """

    inclusive: bool = True
    window: str = "begins"
    depth: int = DEPTH


def select(listing: Listing, rows: list[Row], query: dict[str, str], habits: Habits) -> list[Row]:
    """Return the rows that a query asks for, in its order.

    Raises:
        RefusedError: If the list does not take such a query.
    """
    if unknown := query.keys() - listing.parameters:
        raise RefusedError(f"unknown parameter {unknown.pop()}")
    if listing.window:
        rows = _window(rows, query, habits.window)
    for name, value in query.items():
        if key := listing.after.get(name):
            rows = _compared(rows, key, operator.gt, _time(value), habits)
        elif key := listing.before.get(name):
            rows = _compared(rows, key, operator.lt, _time(value), habits)
        elif key := listing.equals.get(name):
            rows = [row for row in rows if str(row.get(key)) in value.split(",")]
    return _sorted(listing, rows, query)


def _compared(
    rows: list[Row],
    key: str,
    passes: Callable[[datetime, datetime], bool],
    limit: datetime,
    habits: Habits,
) -> list[Row]:
    return [
        row
        for row in rows
        if row.get(key) is not None
        and (passes(t := _time(row[key]), limit) or (habits.inclusive and t == limit))
    ]


def _window(rows: list[Row], query: dict[str, str], habit: str) -> list[Row]:
    now = datetime.now(UTC)
    start = _time(query["startTime"]) if "startTime" in query else now - timedelta(days=14)
    end = _time(query["endTime"]) if "endTime" in query else now + timedelta(days=14)
    if end - start > LONGEST_WINDOW or end < start:
        raise RefusedError("startTime and endTime are at most 30 days apart")

    def is_in(row: Row) -> bool:
        if row.get("startTime") is None:
            return True
        begins, ends = _time(row["startTime"]), _time(row.get("endTime") or row["startTime"])
        if habit == "overlaps":
            return begins <= end and ends >= start
        if habit == "within":
            return start <= begins and ends <= end
        return start <= begins <= end

    return [row for row in rows if is_in(row)]


def _sorted(listing: Listing, rows: list[Row], query: dict[str, str]) -> list[Row]:
    sort = query.get("sort", listing.sort)
    if sort is None:
        return rows
    if sort not in listing.sorts:
        raise RefusedError("unknown sort")
    order = query.get("order", "DESC" if listing.descending else "ASC")
    if order not in {"ASC", "DESC"}:
        raise RefusedError("unknown order")
    key = listing.sorts[sort]
    known = sorted(
        (row for row in rows if row.get(key) is not None),
        key=lambda row: str(row[key]),
        reverse=order == "DESC",
    )
    return known + [row for row in rows if row.get(key) is None]


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedError(f"{text} is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
