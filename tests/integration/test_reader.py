"""The reading core with long lists, and with many random ones, without HTTP.

By hand, for a night: `READER_CASES=100000 uv run pytest -n 0 -rP tests/integration/test_reader.py`
reads as many random lists.
"""

import os
import random
import tracemalloc
from typing import Any

import pytest

from tests.random_cases import random_case, rows_of
from tests.sandbox import Quirks
from tests.unit.simulated_endpoint import (
    LongList,
    ShuffledPool,
    assert_complete,
    assert_nothing_lost,
    create_reader,
    simulate,
)

CASES = int(os.environ.get("READER_CASES", "150"))


# Random lists


@pytest.mark.parametrize("max_changes", [0, 6], ids=["quiet", "changing"])
def test_random_lists_that_can_be_read_are_read_completely(max_changes: int) -> None:
    complete = readable = 0
    for seed in range(CASES):
        case = random_case(random.Random(seed), max_changes=max_changes)  # noqa: S311
        outcome = simulate(**case.arguments, limit=3000)
        assert_nothing_lost(outcome)
        complete += not outcome.error
        readable += not outcome.error or not case.may_fail
    print(f"{complete} of {CASES} random lists were read completely, {readable} can be.")  # noqa: T201
    assert complete >= 0.98 * readable
    assert complete >= 0.9 * CASES


# Depth


@pytest.mark.parametrize(
    "quirks",
    [
        {},
        {"clamp": 50},
        {"fixed_size": 100},
        {"meta": "missing"},
        {"inclusive": False},
        {"whole_seconds": True},
        {"first_page": 0},
        {"max_rows": 0},
    ],
    ids=str,
)
def test_sorted_list_is_read_beyond_the_depth_limit(quirks: dict[str, Any]) -> None:
    entries = LongList(25_500, **quirks)
    pool: Any = ShuffledPool(8, random.Random(1))  # noqa: S311
    batches = list(create_reader("entries", entries.fetch).read(pool))
    ids = [row["id"] for batch in batches for row in batch.records]
    assert len(ids) == len(set(ids)) == 25_500
    assert batches[-1].bookmark == entries.time_of(25_499)


@pytest.mark.parametrize("stream", ["invites", "work_schedules"])
def test_list_is_read_beyond_the_documented_depth(stream: str) -> None:
    rows = rows_of(stream, 10_400, minutes=1)
    assert_complete(simulate(stream, rows, in_flight=8))


@pytest.mark.parametrize("stream", ["employees", "spaces"])
def test_list_without_a_time_filter_is_read_as_deep_as_envoy_allows(stream: str) -> None:
    rows = rows_of(stream, 10_300)
    assert_complete(simulate(stream, rows, in_flight=8))
    outcome = simulate(stream, rows, Quirks(max_rows=10_000), in_flight=8)
    assert outcome.error is not None
    assert "refused to return more than 10,000 rows" in outcome.error


@pytest.mark.parametrize(
    ("stream", "total"), [("flows", "honest"), ("flows", "null"), ("work_schedules", "honest")]
)
def test_list_as_long_as_the_depth_limit_is_read(stream: str, total: Any) -> None:
    rows, quirks = rows_of(stream, 10_000, minutes=1), Quirks(max_rows=10_000, total=total)
    assert_complete(simulate(stream, rows, quirks, in_flight=8))


# Costs


@pytest.mark.parametrize("count", [2_000, 9_999, 30_000, 100_000])
@pytest.mark.parametrize("meta", ["honest", "missing"])
def test_quiet_list_costs_few_requests_more_than_full_pages(count: int, meta: Any) -> None:
    entries = LongList(count, meta=meta)
    pool: Any = ShuffledPool(8, random.Random(1))  # noqa: S311
    for _ in create_reader("entries", entries.fetch).read(pool):
        assert pool.most_in_flight <= 8
    assert entries.requests <= 1.15 * count / 100 + (4 if meta == "honest" else 12)


def test_memory_does_not_grow_with_a_sorted_list() -> None:
    sizes = []
    pool: Any = ShuffledPool(8, random.Random(1))  # noqa: S311
    reader = create_reader("entries", LongList(60_000).fetch)
    tracemalloc.start()
    try:
        for number, _ in enumerate(reader.read(pool)):
            if number % 50 == 0:
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes[8:]) < 1.2 * max(sizes[:8])
