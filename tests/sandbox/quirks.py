"""How a live Envoy may differ from the documented one, and how lists change while they are read."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints
from zlib import crc32

Row = dict[str, Any]
Meta = Literal["honest", "missing", "relationships", "everywhere", "unfiltered", "capped"]


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How an Envoy differs from the documented one; the defaults are the documented one.

    Attributes (in parentheses: how likely each is, or how it is known):
        rejected: Parameters (`sort`) or single values (`type=ROOM`) answered with an error
            (locations and companies 20 to 30 %, others 5 %).
        rejected_status: The status of that error, 400 or 422 (the same).
        ignored: Parameters or single values without effect (filters 10 to 15 %; `sort` of locations
            15 %, others 5 %; `page` of companies 10 %, others 2 %; `perPage` 5 %). An ignored
            filter leaves no row out.
        meta: `missing`, or only `relationships` (1 to 3 % of the lists that have a total);
            a total `everywhere` (unlikely); one that counts rows before they are filtered
            (`unfiltered`, not settled) or 10,000 at most (`capped`, as `max_rows`).
        clamp: Largest number of rows on a page; 0: 100, or the default if larger (5 %).
        fixed_size: Rows of every page, whatever `perPage` is; 0: off (5 %).
        single_response: Whether every response contains the whole list (as an ignored `page`).
        hidden: One row of so many is removed from its page, which is short then; 0: none (5 %).
        max_rows: page × perPage must not exceed it; 0: no limit; None: as documented for invites
            (10,000 rows: work schedules 50 %, entries 25 %).
        beyond_cap: What a page beyond that is: an error (documented), or empty (inferred).
        timestamps: ISO-8601 (documented), as in webhooks (the same), or with an offset (inferred).
        inclusive: Whether a filter includes the time it names (inferred).
        whole_seconds: Whether filters by time ignore fractions of a second (inferred).
        window: Which reservations a window contains: those that begin in it, overlap it, or lie
            within it (not settled).
    """

    rejected: AbstractSet[str] = frozenset()
    rejected_status: int = 400
    ignored: AbstractSet[str] = frozenset()
    meta: Meta = "honest"
    clamp: int = 0
    fixed_size: int = 0
    single_response: bool = False
    hidden: int = 0
    max_rows: int | None = None
    beyond_cap: Literal[400, "empty"] = 400
    timestamps: Literal["iso_ms", "space_utc", "offset"] = "iso_ms"
    inclusive: bool = True
    whole_seconds: bool = False
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
        hints, values = get_type_hints(cls), dict[str, Any]()
        for name, _, text in (assignment.partition("=") for assignment in assignments):
            if name not in hints:
                raise ValueError(f"unknown quirk {name!r}; known: {', '.join(hints)}")
            choices = {str(value): value for value in get_args(hints[name]) or (True, False)}
            if hints[name] == AbstractSet[str]:
                values[name] = text.split(",")
            elif text.isdecimal() and text not in choices:
                values[name] = int(text)
            elif text in choices:
                values[name] = choices[text]
            else:
                raise ValueError(f"{name}={text}: must be a number or one of {', '.join(choices)}")
        return cls(**values)

    def hides(self, row: Row) -> bool:
        """Return whether a row is never sent."""
        return self.hidden > 0 and crc32(row["id"].encode()) % self.hidden == 0


@dataclass(frozen=True)
class Change:
    """What happens to a row between two requests.

    Attributes:
        resource: The stream's name, such as `work_schedules`.
        after_request: Applied after this many requests for the resource; 1: before the second.
        kind: What happens. A row that is edited moves to the end if a list has no order (inferred).
        position: Where in the stored rows: an index, or a fraction of the rows as a float.
        row: What to insert; None: a copy of the row at `position`, with a new id.
    """

    resource: str
    after_request: int
    kind: Literal["insert", "delete", "edit"]
    position: float
    row: Row | None = None


class ChangeSchedule:
    """Applies changes between requests and records which rows were inserted."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._changes, self._requests, self._inserted = [*changes], Counter[str](), set[str]()

    def after_request(self, resource: str, rows: list[Row]) -> None:
        """Count a request for `resource` and apply the changes that are due to its `rows`."""
        self._requests[resource] += 1
        now = resource, self._requests[resource]
        for change in self._changes:
            if (change.resource, change.after_request) == now:
                self._apply(change, rows)

    def stable_rows(self, rows: list[Row]) -> list[Row]:
        """Return those of the present `rows` that existed from the start."""
        return [row for row in rows if row["id"] not in self._inserted]

    def _apply(self, change: Change, rows: list[Row]) -> None:
        is_index = isinstance(change.position, int)
        position = int(change.position if is_index else change.position * len(rows))
        if change.kind != "insert" and rows:
            changed = rows.pop(min(position, len(rows) - 1))
            rows += [changed] if change.kind == "edit" else []
        elif row := change.row or next(iter(rows[min(position, len(rows) - 1) :]), None):
            new_id = row["id"] if change.row else f"new-{900_001 + len(self._inserted)}"
            self._inserted.add(new_id)
            rows.insert(position, {**row, "id": new_id})
