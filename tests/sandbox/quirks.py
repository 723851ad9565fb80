"""What the documentation leaves open, and how lists change while they are read."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

Row = dict[str, Any]

MetaKind = Literal["honest", "missing", "relationships", "total_only"]
TotalKind = Literal[
    "honest",
    "page",
    "pages",
    "too_small",
    "zero",
    "negative",
    "null",
    "capped",
    "unfiltered",
    "renamed",
]
TimestampFormat = Literal[
    "iso_ms",
    "space_utc",
    "seconds",
    "microseconds",
    "offset",
    "lower_case",
    "epoch_seconds",
    "epoch_milliseconds",
]


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How an Envoy differs from the documented one; the defaults are the documented one.

    Attributes:
        rejected: Parameters (`sort`) or single values (`type=ROOM`) answered with an error.
        rejected_status: The status of that error, 400 or 422.
        max_per_page_accepted: A larger `perPage` is answered with an error; 0: no limit.
        ignored: Parameters without effect. An ignored filter leaves no row out.
        meta: `missing`; only `relationships`; or only `total`.
        total: What `meta.total` contains: rows of this `page`; number of `pages`; half the rows
            (`too_small`); `capped` at 10,000; rows before filtering (`unfiltered`); `renamed` to
            `totalCount`.
        numbers_as_strings: Whether the numbers in `meta` are strings.
        per_page_echoed: Whether `meta.perPage` is what was asked for, not what is sent.
        clamp: Largest number of rows on a page; None: 100, or the documented default if larger.
        fixed_size: Rows of every page, whatever `perPage` is; 0: off.
        single_response: Whether every response contains the whole list.
        first_page: The number of the first page, 0 or 1.
        past_end: What a page after the last one is: empty, an error, or the last page again.
        max_rows: page × perPage must not exceed it; None: as documented; 0: no limit.
        max_pages: `page` must not exceed it; 0: no limit.
        order: `grouped` by location, each group sorted; or always `descending`.
        grouped_reverses: Whether `order=DESC` reverses the order of the groups too.
        unstable: Whether rows with equal sort keys (without a sort, all rows) are shuffled for
            every request.
        timestamps: The format of all timestamps.
        inclusive: Whether a time filter includes the time it names.
        whole_seconds: Whether time filters drop fractions of a second on both sides.
        numeric_ids: Whether ids are numbers.
        window: Which reservations a window contains: those that begin in it, overlap it, or lie
            within it.
    """

    rejected: AbstractSet[str] = frozenset()
    rejected_status: int = 400
    max_per_page_accepted: int = 0
    ignored: AbstractSet[str] = frozenset()
    meta: MetaKind = "honest"
    total: TotalKind = "honest"
    numbers_as_strings: bool = False
    per_page_echoed: bool = False
    clamp: int | None = None
    fixed_size: int = 0
    single_response: bool = False
    first_page: int = 1
    past_end: Literal["empty", "repeat", 404, 400] = "empty"
    max_rows: int | None = None
    max_pages: int = 0
    order: Literal["sorted", "grouped", "descending"] = "sorted"
    grouped_reverses: bool = False
    unstable: bool = False
    timestamps: TimestampFormat = "iso_ms"
    inclusive: bool = True
    whole_seconds: bool = False
    numeric_ids: bool = False
    window: Literal["begins", "overlaps", "within"] = "begins"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rejected", frozenset(self.rejected))
        object.__setattr__(self, "ignored", frozenset(self.ignored))

    @classmethod
    def parse(cls, assignments: Iterable[str]) -> "Quirks":
        """Return the quirks written as `NAME=VALUE`; sets are comma-separated.

        Raises:
            ValueError: If a name or a value is not known.
        """
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, _, text = assignment.partition("=")
            if name not in hints:
                raise ValueError(f"unknown quirk {name!r}; known: {', '.join(hints)}")
            values[name] = _parse_value(name, text, hints[name])
        return cls(**values)

    @classmethod
    def alternatives(cls, name: str) -> tuple[Any, ...]:
        """Return the values of a quirk other than what is documented."""
        values = get_args(get_type_hints(cls)[name])
        return tuple(value for value in values if value != getattr(cls, name))

    @classmethod
    def describe(cls) -> str:
        """Return one line for each quirk: its name and its values."""
        hints = get_type_hints(cls)
        return "\n".join(f"  {x.name}={_values(hints[x.name])}" for x in fields(cls))


def _parse_value(name: str, text: str, hint: Any) -> Any:
    if hint == AbstractSet[str]:
        return frozenset(text.split(","))
    choices = {str(choice): choice for choice in _choices(hint)}
    if choices and text not in choices:
        raise ValueError(f"{name}={text}: must be one of {', '.join(choices)}")
    if not choices and not text.isdecimal():
        raise ValueError(f"{name}={text}: must be a number")
    return choices[text] if choices else int(text)


def _choices(hint: Any) -> tuple[Any, ...]:
    if hint is bool:
        return (True, False)
    return () if int in get_args(hint) else get_args(hint)


def _values(hint: Any) -> str:
    if hint == AbstractSet[str]:
        return "NAME,NAME,…"
    return "|".join(map(str, _choices(hint))) or "NUMBER"


@dataclass(frozen=True)
class Change:
    """A row inserted or deleted between two requests.

    Attributes:
        resource: The stream's name, such as `work_schedules`.
        after_request: Applied after this many requests for the resource; 1: before the second.
        kind: What happens.
        position: Where in the stored rows: an index, or a fraction of the rows as a float.
        row: What to insert; None: a copy of the row at `position`, with a new id.
    """

    resource: str
    after_request: int
    kind: Literal["insert", "delete"]
    position: float
    row: Row | None = None


class ChangeSchedule:
    """Applies changes between requests and records which rows they concern."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._due: defaultdict[tuple[str, int], list[Change]] = defaultdict(list)
        for change in changes:
            self._due[change.resource, change.after_request].append(change)
        self._requests: Counter[str] = Counter()
        self._inserted: set[str] = set()

    def after_request(self, resource: str, rows: list[Row]) -> None:
        """Count a request for `resource` and apply the changes that are due to its `rows`."""
        self._requests[resource] += 1
        for change in self._due.pop((resource, self._requests[resource]), ()):
            if change.kind == "insert":
                self._insert(change, rows)
            elif rows:
                del rows[_index(change, len(rows) - 1)]

    def stable_rows(self, rows: list[Row]) -> list[Row]:
        """Return those of the present `rows` that existed from the start."""
        return [row for row in rows if row["id"] not in self._inserted]

    def _insert(self, change: Change, rows: list[Row]) -> None:
        row = change.row
        if row is None:
            if not rows:
                return
            new_id = f"new-{900_001 + len(self._inserted)}"
            row = {**rows[_index(change, len(rows) - 1)], "id": new_id}
        self._inserted.add(row["id"])
        rows.insert(_index(change, len(rows)), row)


def _index(change: Change, last: int) -> int:
    is_absolute = isinstance(change.position, int)
    return min(last, int(change.position if is_absolute else change.position * (last + 1)))
