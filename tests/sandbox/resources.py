"""The lists of v1: parameters, filters, order and pages, without HTTP.

`respond` is what the served sandbox uses too, so that a test can run thousands of requests in
its own process.
"""

import operator
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.pages import DEPTH, Page, QueryRejectedError, describe_pages
from tests.sandbox.quirks import Quirks, Row
from tests.sandbox.timestamps import parse_time, reformat

MAX_WINDOW = timedelta(days=30)
WINDOW_PARAMETERS = {"startTime", "endTime"}
CACHED_SELECTIONS = 32


# Filters


@dataclass(frozen=True)
class Filter:
    """A filter of a list.

    Attributes:
        field: The property that it looks at.
        matches: Whether a value of that property passes, given the parameter.
    """

    field: str
    matches: Callable[[Any, str, Quirks], bool]


def is_at_or_after(value: Any, limit: str, quirks: Quirks) -> bool:
    return _follows(parse_time(value), parse_time(limit), quirks)


def is_at_or_before(value: Any, limit: str, quirks: Quirks) -> bool:
    return _follows(parse_time(limit), parse_time(value), quirks)


def _follows(later: datetime | None, earlier: datetime | None, quirks: Quirks) -> bool:
    if later is None or earlier is None:
        return False
    if quirks.whole_seconds:
        later, earlier = later.replace(microsecond=0), earlier.replace(microsecond=0)
    return later > earlier or (quirks.inclusive and later == earlier)


def is_one_of(value: Any, wanted: str, quirks: Quirks) -> bool:  # noqa: ARG001
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text in wanted.split(",")


def has_email(value: Any, wanted: str, quirks: Quirks) -> bool:
    return isinstance(value, Mapping) and is_one_of(value.get("email"), wanted, quirks)


def has_status(value: Any, wanted: str, quirks: Quirks) -> bool:
    status = value.get("status") if isinstance(value, Mapping) else value
    return is_one_of(status, wanted, quirks)


def has_floor(value: Any, wanted: str, quirks: Quirks) -> bool:
    return isinstance(value, Mapping) and is_one_of(value.get("floorId"), wanted, quirks)


def is_space_type(space_id: Any, wanted: str, quirks: Quirks) -> bool:
    return is_one_of("ROOM" if str(space_id).startswith("r-") else "DESK", wanted, quirks)


def is_in_window(row: Row, start: datetime, end: datetime, quirks: Quirks) -> bool:
    begins = parse_time(row.get("startTime"))
    if begins is None:
        return True
    ends = parse_time(row.get("endTime")) or begins
    if quirks.window == "overlaps":
        return _follows(end, begins, quirks) and _follows(ends, start, quirks)
    last = ends if quirks.window == "within" else begins
    return _follows(begins, start, quirks) and _follows(end, last, quirks)


# The lists


@dataclass(frozen=True, eq=False)
class Resource:
    """A list of v1, as documented.

    Attributes:
        scopes: The scopes that a request needs, all of them.
        sorts: The values of `sort`, and the property that each means.
        filters: The other parameters, except for those of pages and windows.
        defaults: Filters that apply if the query has none of this name.
        per_page: Rows of a page if the query has no `perPage`.
        default_sort: The order if the query has no `sort`; None: the stored order.
        default_order: ASC or DESC, if the query has no `order`.
        group_by: The property whose groups the quirk `order=grouped` makes.
        is_windowed: Whether `startTime` and `endTime` make a window of at most 30 days.
        max_rows: What page × perPage must not exceed; 0: no limit.
    """

    scopes: frozenset[str]
    sorts: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    per_page: int = 100
    default_sort: str | None = None
    default_order: str = "ASC"
    group_by: str = "locationId"
    is_windowed: bool = False
    max_rows: int = 0

    @property
    def parameters(self) -> set[str]:
        """The names of all parameters that the list accepts."""
        window = WINDOW_PARAMETERS if self.is_windowed else set()
        order = {"sort", "order"} if self.sorts else set()
        return {"page", "perPage", *self.filters} | order | window


IDS = {"ids": Filter("id", is_one_of)}
LOCATION_IDS = {"locationIds": Filter("locationId", is_one_of)}
CREATED_AT = {
    "createdAtAfter": Filter("createdAt", is_at_or_after),
    "createdAtBefore": Filter("createdAt", is_at_or_before),
}
EXPECTED_ARRIVAL_AT = {
    "expectedArrivalAtAfter": Filter("expectedArrivalAt", is_at_or_after),
    "expectedArrivalAtBefore": Filter("expectedArrivalAt", is_at_or_before),
}

RESOURCES = {
    "locations": Resource(
        frozenset({"locations.read"}),
        sorts={"createdAt": "createdAt", "updatedAt": "updatedAt"},
        filters={**IDS, **CREATED_AT, "enabled": Filter("enabled", is_one_of)},
        per_page=10,
        group_by="timezone",
    ),
    "companies": Resource(frozenset({"companies.read"})),
    "employees": Resource(
        frozenset({"employees.read", "locations.read"}),
        sorts={"NAME": "name", "EMAIL": "email"},
        filters={**IDS, "name": Filter("name", is_one_of), "email": Filter("email", is_one_of)},
        per_page=10,
        default_sort="NAME",
        group_by="locationIds",
    ),
    "flows": Resource(
        frozenset({"flows.read"}),
        sorts={"NAME": "name", "CREATED_AT": "createdAt"},
        filters={
            **IDS,
            **LOCATION_IDS,
            "enabled": Filter("enabled", is_one_of),
            "name": Filter("name", is_one_of),
            "type": Filter("type", is_one_of),
        },
        per_page=10,
    ),
    "entries": Resource(
        frozenset({"entries.read"}),
        sorts={"SIGNED_IN_AT": "signedInAt"},
        filters={"signedInAtAfter": Filter("signedInAt", is_at_or_after)},
        per_page=30,
        default_sort="SIGNED_IN_AT",
        default_order="DESC",
    ),
    "invites": Resource(
        frozenset({"invites.read", "employees.read"}),
        sorts={"CREATED_AT": "createdAt", "EXPECTED_ARRIVAL_AT": "expectedArrivalAt"},
        filters={
            **IDS,
            **LOCATION_IDS,
            **CREATED_AT,
            **EXPECTED_ARRIVAL_AT,
            "hostEmail": Filter("host", has_email),
            "inviteeEmail": Filter("invitee", has_email),
            "type": Filter("type", is_one_of),
            "approvalStatus": Filter("approvalStatus", has_status),
        },
        max_rows=DEPTH,
    ),
    "work_schedules": Resource(
        frozenset({"work-schedules.read", "employees.read"}),
        filters={
            **LOCATION_IDS,
            **CREATED_AT,
            **EXPECTED_ARRIVAL_AT,
            "userEmails": Filter("scheduledFor", has_email),
        },
        max_rows=DEPTH,
    ),
    "reservations": Resource(
        frozenset({"reservations.read", "spaces.read"}),
        filters={
            "status": Filter("status", is_one_of),
            "floorIds": Filter("space", has_floor),
            "neighborhoodIds": Filter("neighborhoodId", is_one_of),
            "emails": Filter("reservedBy", has_email),
        },
        is_windowed=True,
    ),
    "spaces": Resource(
        frozenset({"spaces.read"}),
        filters={
            **LOCATION_IDS,
            "type": Filter("id", is_space_type),
            "floorIds": Filter("floorId", is_one_of),
        },
        defaults={"type": "DESK"},
        per_page=250,
    ),
}
"""The lists by the name of their stream."""


# Responses


def respond(
    resource: Resource,
    rows: list[Row],
    query: Mapping[str, str],
    quirks: Quirks,
    rng: random.Random,
) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of the response to a request for a list.

    Args:
        resource: The list.
        rows: All of its rows as they are now; not changed.
        query: The parameters of the request.
        quirks: How this Envoy differs from the documented one.
        rng: Shuffles rows where the order is not stable.
    """
    try:
        effective = _accepted_parameters(resource, query, quirks)
        page = Page.parse(effective, resource.per_page, resource.max_rows, quirks)
        selection = _select(resource, rows, effective, quirks)
        part = page.part(len(selection.selected), quirks)
    except QueryRejectedError as error:
        return error.status, {"message": str(error)}
    sent = selection.shuffle(part, rng) if quirks.unstable else selection.selected[part]
    body: dict[str, Any] = {"data": _render(sent, quirks)}
    if quirks.meta != "missing":
        selected = len(selection.selected)
        counts = {"sent": len(sent), "selected": selected, "existing": len(rows)}
        body["meta"] = describe_pages(page, query.get("perPage"), quirks, **counts)
    return 200, body


def _accepted_parameters(
    resource: Resource, query: Mapping[str, str], quirks: Quirks
) -> dict[str, str]:
    for name, value in query.items():
        if not quirks.rejected.isdisjoint({name, f"{name}={value}"}):
            raise QueryRejectedError(f"Invalid parameter: {name}", quirks.rejected_status)
        if name not in resource.parameters:
            raise QueryRejectedError(f"Unknown parameter: {name}")
    return {name: value for name, value in query.items() if name not in quirks.ignored}


@dataclass(frozen=True)
class _Selection:
    """The filtered and sorted rows of a list, valid until one of its rows changes."""

    source: list[Row]
    rows: list[Row]  # of the source, at that time
    values: list[list[Any]]  # that filters and order depend on
    selected: list[Row]
    sort_keys: list[tuple[Any, ...]]  # of the selected rows, if the order is unstable

    def is_current(self, source: list[Row], values: list[list[Any]]) -> bool:
        return self.source is source and self.rows == source and self.values == values

    def shuffle(self, part: slice, rng: random.Random) -> list[Row]:
        """Return a part of the list in which rows with equal sort keys have changed places."""
        keys, rows = self.sort_keys, list[Row]()
        start, stop, _ = part.indices(len(keys))
        first = start
        while 0 < first < stop and keys[first - 1] == keys[start]:
            first -= 1
        while start < stop:
            last = start
            while last < len(keys) and keys[last] == keys[start]:
                last += 1
            rows += rng.sample(self.selected[first:last], min(stop, last) - start)
            start = first = last
        return rows


_selections: OrderedDict[Any, _Selection] = OrderedDict()


def _select(
    resource: Resource, rows: list[Row], query: Mapping[str, str], quirks: Quirks
) -> _Selection:
    """Filter and sort, or return the cached result if no row has changed."""
    parameters = {k: v for k, v in query.items() if k not in {"page", "perPage"}}
    key = id(rows), resource, frozenset(parameters.items()), quirks
    order = _order_fields(resource, parameters, quirks)
    values = [[row.get(name) for row in rows] for name in order | _filter_fields(resource, query)]
    cached = _selections.get(key)
    if cached is None or not cached.is_current(rows, values):
        selected = filter_rows(resource, rows, parameters, quirks)
        selected = sort_rows(resource, selected, parameters, quirks)
        sort_keys = [tuple(map(row.get, order)) for row in selected if quirks.unstable]
        _selections[key] = cached = _Selection(rows, list(rows), values, selected, sort_keys)
        if len(_selections) > CACHED_SELECTIONS:
            _selections.popitem(last=False)
    return cached


def _order_fields(resource: Resource, query: Mapping[str, str], quirks: Quirks) -> set[str]:
    sort = query.get("sort", resource.default_sort)
    names = {resource.sorts[sort]} if sort and sort in resource.sorts else set()
    return names | ({resource.group_by} if quirks.order == "grouped" else set())


def _filter_fields(resource: Resource, query: Mapping[str, str]) -> set[str]:
    names = {resource.filters[name].field for name in query if name in resource.filters}
    return names | (WINDOW_PARAMETERS if resource.is_windowed else set())


def filter_rows(
    resource: Resource, rows: list[Row], query: Mapping[str, str], quirks: Quirks
) -> list[Row]:
    """Return the rows that pass all filters of a query.

    Raises:
        QueryRejectedError: If a filter has a value that Envoy does not accept.
    """
    defaults = {k: v for k, v in resource.defaults.items() if k not in quirks.ignored}
    filters = {**defaults, **query}
    for name, value in filters.items():
        if name.endswith(("After", "Before", "Time")) and parse_time(value) is None:
            raise QueryRejectedError(f"{name} is not a time")
        if matching := resource.filters.get(name):
            key, matches = matching.field, matching.matches
            rows = [row for row in rows if matches(row.get(key), value, quirks)]
    if resource.is_windowed and quirks.ignored.isdisjoint(WINDOW_PARAMETERS):
        start, end = _window(query)
        rows = [row for row in rows if is_in_window(row, start, end, quirks)]
    return rows


def _window(query: Mapping[str, str]) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    start = parse_time(query.get("startTime")) or now - timedelta(days=14)
    end = parse_time(query.get("endTime")) or now + timedelta(days=14)
    if not timedelta() <= end - start <= MAX_WINDOW:
        raise QueryRejectedError("startTime and endTime must be at most 30 days apart")
    return start, end


def sort_rows(
    resource: Resource, rows: list[Row], query: Mapping[str, str], quirks: Quirks
) -> list[Row]:
    """Return the rows in the order of a query; rows without the sort key come last.

    Raises:
        QueryRejectedError: If `sort` or `order` has a value that Envoy does not accept.
    """
    sort = query.get("sort", resource.default_sort)
    order = query.get("order", resource.default_order)
    if sort is not None and sort not in resource.sorts:
        raise QueryRejectedError("Unknown sort")
    if order not in {"ASC", "DESC"}:
        raise QueryRejectedError("Unknown order")
    if sort is not None:
        is_descending = order == "DESC" or quirks.order == "descending"
        rows = _sort_by(resource.sorts[sort], rows, reverse=is_descending)
    if quirks.order == "grouped":
        reverse = quirks.grouped_reverses and order == "DESC"
        rows = sorted(rows, key=lambda row: str(row.get(resource.group_by)), reverse=reverse)
    return rows


def _sort_by(name: str, rows: list[Row], *, reverse: bool) -> list[Row]:
    to_key: Callable[[Any], Any] = parse_time if name.endswith("At") else str
    keyed = [(None if row.get(name) is None else to_key(row[name]), row) for row in rows]
    known = [pair for pair in keyed if pair[0] is not None]
    known.sort(key=operator.itemgetter(0), reverse=reverse)
    return [row for _, row in known] + [row for key, row in keyed if key is None]


def _render(rows: list[Row], quirks: Quirks) -> list[Row]:
    if quirks.timestamps == "iso_ms" and not quirks.numeric_ids:
        return [row.copy() for row in rows]
    return [{key: _render_value(key, row[key], quirks) for key in row} for row in rows]


def _render_value(key: str, value: Any, quirks: Quirks) -> Any:
    if not isinstance(value, str):
        return value
    if quirks.timestamps != "iso_ms" and key.endswith(("At", "Time")):
        return reformat(value, quirks.timestamps)
    if quirks.numeric_ids and (key == "id" or key.endswith("Id")):
        return numeric_id(value)
    return value


def numeric_id(text: str) -> int | str:
    """Return the digits of an id as a number, or the id itself if it has none."""
    digits = "".join(filter(str.isdigit, text))
    return int(digits) if digits else text


def emitted_id(row: Row, quirks: Quirks) -> str:
    """Return the id of a row as the tap emits it."""
    return str(numeric_id(row["id"]) if quirks.numeric_ids else row["id"])
