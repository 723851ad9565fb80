"""Progress and summary lines."""

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from tap_envoy.progress import RunSummary, StreamProgress, log_summary

LOGGER = logging.getLogger("test")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def progress(clock: Clock, name: str = "entries") -> StreamProgress:
    return StreamProgress(name, LOGGER, interval=30, clock=clock)


def test_progress_lines_show_rows_rate_share_and_time_left(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    stream = progress(clock)
    for _ in range(6):
        clock.now += 10
        stream.count_rows(8000, 96_000)
    assert log.messages == [
        "entries: 24,000 rows so far, 800 per second; 25% of 96,000, about 90 s left.",
        "entries: 48,000 rows so far, 800 per second; 50% of 96,000, about 60 s left.",
    ]


def test_progress_lines_without_a_total_show_no_share(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    stream = progress(clock)
    clock.now += 30
    stream.count_rows(60, None)
    assert log.messages == ["entries: 60 rows so far, 2 per second."]


def test_progress_lines_never_show_more_than_all(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    stream = progress(clock)
    clock.now += 30
    stream.count_rows(60, 50)
    assert log.messages == ["entries: 60 rows so far, 2 per second; 100% of 50, about 0 s left."]


@dataclass(frozen=True)
class Case:
    line: str
    rows: int = 0
    requests: int = 1
    retries: int = 0
    bookmark: str | None = None
    complete: bool = True


@pytest.mark.parametrize(
    "case",
    [
        Case("entries: 250 rows in 0.3 s (3 requests).", rows=250, requests=3),
        Case("entries: 1 row in 0.3 s (1 request).", rows=1),
        Case("entries: 0 rows in 0.3 s (1 request)."),
        Case("entries: 0 rows in 0.3 s (1,234 requests, 1 retry).", requests=1234, retries=1),
        Case("entries: 9 rows in 0.3 s (1 request), bookmark B.", rows=9, bookmark="B"),
        Case("entries: incomplete, 9 rows in 0.3 s (1 request).", rows=9, complete=False),
    ],
)
def test_the_summary_of_a_stream_shows_rows_duration_and_requests(
    clock: Clock, log: pytest.LogCaptureFixture, case: Case
) -> None:
    stream = progress(clock)
    for number in range(case.requests):
        stream.count_request(retried=number < case.retries)
    stream.count_rows(case.rows, None)
    clock.now += 0.3
    stream.log_summary(case.bookmark, complete=case.complete)
    assert log.messages == [case.line]


def test_the_summary_of_a_stream_is_logged_once_with_its_own_duration(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    stream = progress(clock)
    clock.now += 2
    stream.log_summary(None, complete=True)
    clock.now += 60  # other streams
    stream.log_summary(None, complete=True)
    assert log.messages == ["entries: 0 rows in 2.0 s (0 requests)."]


def test_summaries_carry_fields_for_structured_logs(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    stream = progress(clock)
    stream.count_request(retried=False)
    clock.now += 1.5
    stream.count_rows(7, None)
    stream.log_summary("2024-03-14", complete=True)
    log_summary(RunSummary([stream], [], [], seconds=2.0), LOGGER)
    first, last = (vars(entry) for entry in log.records)
    expected: dict[str, Any] = {"stream": "entries", "rows": 7, "requests": 1, "seconds": 1.5}
    assert {**expected, "bookmark": "2024-03-14"}.items() <= first.items()
    assert {"rows": 7, "requests": 1, "seconds": 2.0}.items() <= last.items()


def run_summary(clock: Clock, *streams: str, rows: int = 0, **outcome: Any) -> RunSummary:
    started = [progress(clock, stream) for stream in streams]
    for stream in started:
        stream.count_rows(rows, None)
        stream.count_request(retried=False)
    return RunSummary(
        started,
        **{"incomplete": [], "not_started": [], "seconds": 12.34, **outcome},
    )


@pytest.mark.parametrize(
    ("streams", "outcome", "line"),
    [
        (["a"], {"rows": 1}, "Done: 1 row from 1 stream in 12.3 s (1 request)."),
        (["a", "b"], {"rows": 600}, "Done: 1,200 rows from 2 streams in 12.3 s (2 requests)."),
        (
            ["a", "b"],
            {"rows": 5, "incomplete": ["b"]},
            "Failed: b (1 of 2 streams). Rows already sent are kept.",
        ),
        (["a"], {"incomplete": ["a"]}, "Failed: a (1 of 1 stream)."),
        (
            ["a", "b"],
            {"rows": 5, "incomplete": ["b"], "not_started": ["c", "d"]},
            "Failed: b (1 of 4 streams). Not started: c, d. Rows already sent are kept.",
        ),
        ([], {"not_started": ["a", "b"]}, "Not started: a, b."),
        (
            ["a"],
            {"rows": 5, "incomplete": ["a"], "stopped_by": "SIGTERM"},
            (
                "Stopped by SIGTERM. Incomplete: a (1 of 1 stream). "
                "Run again to continue from the last STATE message."
            ),
        ),
    ],
)
def test_the_summary_of_a_run_names_what_is_missing(
    clock: Clock,
    log: pytest.LogCaptureFixture,
    streams: list[str],
    outcome: dict[str, Any],
    line: str,
) -> None:
    log_summary(run_summary(clock, *streams, **outcome), LOGGER)
    assert log.messages == [line]
    assert log.records[0].levelname == ("INFO" if line.startswith("Done") else "WARNING")
