"""The lists of v1 without HTTP, so that a test can make thousands of requests in its process.

Of the documented parameters there are those that the tap uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.quirks import Quirks, Row
from tests.sandbox.timestamps import format_time, parse_time

DEPTH, MAX_PER_PAGE, MAX_WINDOW = 10_000, 100, timedelta(days=30)


class QueryRejectedError(Exception):
    """A query that Envoy answers with an error: a message, and a status if it is not 400."""


@dataclass(frozen=True, eq=False)
class Resource:
    """A list of v1, as documented.

    Attributes:
        scopes: The scopes that a request needs, comma-separated.
        filters: Its parameters beside those of order and pages.
        sort: The value of `sort`, the property that it means, and the order if the query has no
            sort (None: the stored one).
        per_page: Rows of a page if the query has no `perPage`.
        has_total: Whether `meta` has the number of rows, and echoes `page` and `perPage`.
        max_rows: What page × perPage must not exceed; 0: no limit.
    """

    scopes: str
    filters: tuple[str, ...] = ()
    sort: tuple[str, str, str | None] | None = None
    per_page: int = 100
    has_total: bool = True
    max_rows: int = 0

    @property
    def parameters(self) -> set[str]:
        """The names of all parameters that the list accepts."""
        return {"page", "perPage", *self.filters} | ({"sort", "order"} if self.sort else set())


CREATED = ("createdAtAfter", "createdAtBefore")
SIGNED_IN = ("signedInAtAfter", "signedInAtBefore")
WINDOW = ("startTime", "endTime")
BY_CREATION, BY_SIGN_IN = ("CREATED_AT", "createdAt", None), ("SIGNED_IN_AT", "signedInAt", "DESC")

RESOURCES = {
    "locations": Resource("locations.read", (), ("createdAt", "createdAt", None), 10),
    "companies": Resource("companies.read", has_total=False),
    "employees": Resource("employees.read,locations.read", (), ("NAME", "name", "ASC"), 10),
    "flows": Resource("flows.read", (), BY_CREATION, 10),
    "entries": Resource("entries.read", SIGNED_IN, BY_SIGN_IN, 30),
    "invites": Resource("invites.read,employees.read", CREATED, BY_CREATION, max_rows=DEPTH),
    "work_schedules": Resource("work-schedules.read,employees.read", CREATED),
    "reservations": Resource("reservations.read,spaces.read", WINDOW, has_total=False),
    "spaces": Resource("spaces.read", ("type",), per_page=250, has_total=False),
    "desks": Resource("spaces.read", has_total=False),
}
"""The lists by the name of their stream."""


def respond(
    resource: Resource, rows: list[Row], query: Mapping[str, str], quirks: Quirks
) -> tuple[int, dict[str, Any]]:
    """Return the status and body for a request for a list, which has these `rows` now."""
    try:
        effective = _accepted(resource, query, quirks)
        selected = _sort(resource, _filter(resource, rows, effective, quirks), effective)
        number, size, part = _page(resource, len(selected), effective, quirks)
    except QueryRejectedError as error:
        message, status = (*error.args, 400)[:2]
        return status, {"message": message}
    sent = [_render(row, quirks) for row in selected[part] if not quirks.hides(row)]
    if quirks.meta == "missing":
        return 200, {"data": sent}
    if quirks.meta == "relationships" or not (resource.has_total or quirks.meta == "everywhere"):
        return 200, {"data": sent, "meta": {"relationships": []}}
    totals = {"unfiltered": len(rows), "capped": min(len(selected), DEPTH)}
    meta = {"page": number, "perPage": size, "total": totals.get(quirks.meta, len(selected))}
    return 200, {"data": sent, "meta": meta}


def _accepted(resource: Resource, query: Mapping[str, str], quirks: Quirks) -> dict[str, str]:
    accepted = {}
    for name, value in query.items():
        if not quirks.rejected.isdisjoint({name, f"{name}={value}"}):
            raise QueryRejectedError(f"Invalid parameter: {name}", quirks.rejected_status)
        if name not in resource.parameters:
            raise QueryRejectedError(f"Unknown parameter: {name}")
        if quirks.ignored.isdisjoint({name, f"{name}={value}"}):
            accepted[name] = value
    return accepted


def _page(
    resource: Resource, count: int, query: Mapping[str, str], quirks: Quirks
) -> tuple[int, int, slice]:
    """Return the number of a page, its size, and which of the `count` rows it contains."""
    texts = query.get("page", "1"), query.get("perPage", str(resource.per_page))
    if not all(text.isdecimal() and int(text) for text in texts):
        raise QueryRejectedError("page and perPage must be positive numbers")
    number, asked = map(int, texts)
    cap = resource.max_rows if quirks.max_rows is None else quirks.max_rows
    if 0 < cap < number * (quirks.fixed_size or asked) and quirks.beyond_cap != "empty":
        raise QueryRejectedError(f"page * perPage must not exceed {cap}")
    size = quirks.fixed_size or min(asked, quirks.clamp or max(MAX_PER_PAGE, resource.per_page))
    start = (number - 1) * size
    if quirks.single_response:
        return number, size, slice(count)
    return number, size, slice(start, min(start + size, cap or count))


def _filter(
    resource: Resource, rows: list[Row], query: Mapping[str, str], quirks: Quirks
) -> list[Row]:
    if resource.filters == WINDOW:
        is_ignored = not quirks.ignored.isdisjoint(WINDOW)
        return rows if is_ignored else _filter_by_window(rows, query, quirks)
    if "type" in resource.filters and "type" not in quirks.ignored:
        types = query.get("type", "DESK").split(",")
        return [r for r in rows if ("ROOM" if r["id"].startswith("r-") else "DESK") in types]
    for name in query.keys() & {*resource.filters}:
        key = name.removesuffix("After").removesuffix("Before")
        limit = format_time(_time(query, name))
        step = 1 if name.endswith("After") else -1
        rows = [r for r in rows if r.get(key) and _follows(quirks, *(r[key], limit)[::step])]
    return rows


def _filter_by_window(rows: list[Row], query: Mapping[str, str], quirks: Quirks) -> list[Row]:
    now = datetime.now(UTC)
    first = _time(query, "startTime", now - timedelta(days=14))
    last = _time(query, "endTime", now + timedelta(days=14))
    if not timedelta() <= last - first <= MAX_WINDOW:
        raise QueryRejectedError("startTime and endTime must be at most 30 days apart")
    start, end = format_time(first), format_time(last)
    return [row for row in rows if _is_in_window(row, start, end, quirks)]


def _is_in_window(row: Row, start: str, end: str, quirks: Quirks) -> bool:
    begins = row.get("startTime")
    if begins is None:
        return True
    ends = row.get("endTime") or begins
    last = ends if quirks.window == "within" else begins
    first = ends if quirks.window == "overlaps" else begins
    return _follows(quirks, first, start) and _follows(quirks, end, last)


def _time(query: Mapping[str, str], name: str, default: datetime | None = None) -> datetime:
    time = parse_time(query[name]) if name in query else default
    if time is None:
        raise QueryRejectedError(f"{name} is not a time")
    return time


def _follows(quirks: Quirks, later: str, earlier: str) -> bool:
    if quirks.whole_seconds:
        later, earlier = later[:19], earlier[:19]
    return later > earlier or (quirks.inclusive and later == earlier)


def _sort(resource: Resource, rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """Return the rows in the order of a query; rows without the sort key come last."""
    value, key, default = resource.sort or (None, "", None)
    order = query.get("order", default or "ASC")
    if order not in {"ASC", "DESC"} or query.get("sort", value) != value:
        raise QueryRejectedError("Unknown sort or order")
    if "sort" not in query and default is None:
        return rows
    known = [row for row in rows if row.get(key) is not None]
    known.sort(key=lambda row: str(row[key]), reverse=order == "DESC")
    return known + [row for row in rows if row.get(key) is None]


def _render(row: Row, quirks: Quirks) -> Row:
    if quirks.timestamps == "iso_ms":
        return row.copy()
    texts = {k: v for k, v in row.items() if k.endswith(("At", "Time")) and isinstance(v, str)}
    times = {key: parse_time(text) for key, text in texts.items()}
    return row | {key: format_time(t, quirks.timestamps) for key, t in times.items() if t}
