"""What a decoded response means."""

from typing import Any

import pytest

from tap_envoy.client import parse_page, status_in_body
from tap_envoy.exceptions import EnvoyError


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"data": None}, "without a list of rows"),
        ({"data": {"id": "1"}}, "without a list of rows"),
        ({"data": "rows"}, "without a list of rows"),
        ({}, "without a list of rows"),
        ([], "without a list of rows"),
        (7, "without a list of rows"),
        ({"data": [1]}, "a row that is not an object"),
        ({"data": [{"id": "1"}, None]}, "a row that is not an object"),
        ({"data": [{"id": "1"}, {"name": "x"}]}, "a row without an `id`"),
        ({"data": [{"id": None}]}, "a row without an `id`"),
        ({"data": [{"id": ""}]}, "a row without an `id`"),
        ({"data": [{"id": True}]}, "a row without an `id`"),
        ({"data": [{"id": 1.5}]}, "a row without an `id`"),
    ],
)
def test_page_of_an_unexpected_body_is_an_error(payload: Any, reason: str) -> None:
    with pytest.raises(EnvoyError, match=reason):
        parse_page(payload)


def test_page_with_numeric_ids_has_text() -> None:
    assert parse_page({"data": [{"id": 7}]}).records == [{"id": "7"}]


NOT_COUNTS: list[Any] = [True, -1, 2.5, None, "-1", "²", "9" * 10, [], {}]


@pytest.mark.parametrize(
    ("meta", "total"),
    [
        ({"total": 250}, 250),
        ({"total": "250"}, 250),
        ({"total": 0}, 0),
        *[({"total": value}, None) for value in NOT_COUNTS],
        ({"totalCount": 250}, None),
        ([], None),
        (None, None),
    ],
)
def test_total_is_a_count_or_unknown(meta: Any, total: int | None) -> None:
    assert parse_page({"data": [], "meta": meta}).total == total


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"status": 401}, 401),
        ({"status": "429"}, 429),
        ({"status": 500, "data": []}, 500),
        ({"status": 401.0}, 401),
        ({"status": "401 Unauthorized", "data": []}, 401),
        ({"status": "503: try again"}, 503),
        ({"statusCode": 403, "data": []}, 403),
        ({"status": "error", "code": "429"}, 429),
        *[({"status": value}, None) for value in (200, 204, 299, 600, 0, "ok", None, True, 4010)],
        *[({"status": value}, None) for value in ("200 OK", "4010", "500th", "error 401", [401])],
        ([401], None),
        (None, None),
    ],
)
def test_status_in_the_body_counts_if_it_is_an_error(payload: Any, status: int | None) -> None:
    assert status_in_body(payload) == status
