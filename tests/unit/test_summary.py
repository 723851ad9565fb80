"""Progress and summary lines."""

import logging

import pytest

from tap_envoy.summary import StreamProgress, log_summary

LOGGER = logging.getLogger("test")
LOGGER.setLevel(logging.INFO)


@pytest.mark.parametrize(
    ("total", "line"),
    [
        (96_000, "entries: 24,000 of 96,000 rows so far, 800 per second."),
        (None, "entries: 24,000 rows so far, 800 per second."),
    ],
)
def test_progress_is_logged_each_half_minute(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    total: int | None,
    line: str,
) -> None:
    now = 100.0
    monkeypatch.setattr("tap_envoy.summary.time.monotonic", lambda: now)
    progress = StreamProgress("entries", LOGGER)
    progress.begin()
    for _ in range(5):
        now += 10
        progress.count_rows(8000, total)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((1250, 13, 0), "1,250 rows in 0.0 s (13 requests), bookmark 2024-03-14."),
        ((1, 1, 1), "1 row in 0.0 s (1 request, 1 retry), bookmark 2024-03-14."),
        ((0, 3, 2), "incomplete, 0 rows in 0.0 s (3 requests, 2 retries), bookmark 2024-03-14."),
    ],
)
def test_stream_summary_shows_rows_requests_and_bookmark(
    caplog: pytest.LogCaptureFixture, numbers: tuple[int, int, int], line: str
) -> None:
    progress = StreamProgress("entries", LOGGER, *numbers, is_complete=numbers[0] > 0)
    progress.begin()
    progress.log_summary("2024-03-14")
    assert caplog.messages == [f"entries: {line}"]


DONE = StreamProgress("a", LOGGER, rows=600, requests=1, is_complete=True)
HALF = StreamProgress("b", LOGGER, rows=5, requests=1, error="No.")
LOST = StreamProgress("c", LOGGER)
STOPPED, AGAIN = {"stopped_by": "TERM"}, "Run again to continue."


@pytest.mark.parametrize(
    ("streams", "outcome", "lines"),
    [
        ([DONE, DONE], {}, ["INFO Done: 1,200 rows from 2 streams in 12.3 s (2 requests)."]),
        ([DONE, HALF, LOST], {}, ["ERROR Failed: b, c (2 of 3 streams): No."]),
        ([DONE, LOST], {"cause": "Gone."}, ["ERROR Failed: c (1 of 2 streams): Gone."]),
        ([DONE], {"cause": "Disk full."}, ["ERROR Failed: Disk full."]),
        ([HALF], {"cause": "Gone."}, ["ERROR Gone.", "ERROR Failed: b (1 of 1 stream): No."]),
        ([DONE], STOPPED, [f"WARNING Stopped by TERM; incomplete: no stream. {AGAIN}"]),
        (
            [DONE, HALF],
            STOPPED,
            [f"WARNING Stopped by TERM; incomplete: b (1 of 2 streams). {AGAIN} First error: No."],
        ),
    ],
)
def test_run_summary_ends_with_first_cause(
    caplog: pytest.LogCaptureFixture,
    streams: list[StreamProgress],
    outcome: dict[str, str],
    lines: list[str],
) -> None:
    log_summary(streams, LOGGER, 12.34, **outcome)
    assert [f"{entry.levelname} {entry.getMessage()}" for entry in caplog.records] == lines
