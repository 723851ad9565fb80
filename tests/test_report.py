"""What people read: the answer of --test, progress, waits, and the last lines of a run."""

import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tap_envoy.report import Tally
from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene, read
from tests.sandbox import Answer
from tests.sandbox.data import entries
from tests.test_lists import STREAMS

# --test


def test_the_connection_test_reads_like_an_answer(scene: Scene) -> None:
    run = scene.run("--test")
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0] == "Signing in with the Client API Key (`api_key`)."
    assert "ok         locations: 250 rows" in lines
    assert "ok         entries: 320 rows" in lines
    assert "ok         reservations: can be read" in lines
    assert lines[-1] == "9 of 9 streams can be read."
    assert len(lines) == 11
    assert [r.query["perPage"] for r in scene.envoy.requests] == ["1"] * 9


def test_the_connection_test_says_who_we_are(scene: Scene) -> None:
    run = scene.run("--test", **scene.login)
    assert run.code == 0
    assert run.out.startswith("Signed in to company 10000.\n")
    assert len(scene.envoy.asked("/oauth2/token")) == 1


@pytest.mark.parametrize("first", ["catalog", "test"])
def test_with_a_catalogue_the_selected_streams_are_tested(scene: Scene, first: str) -> None:
    catalog = scene.select("invites", "spaces")
    arguments = [*catalog, "--test"] if first == "catalog" else ["--test", *catalog]
    run = scene.run(*arguments)
    assert run.code == 0
    assert {r.path for r in scene.envoy.requests} == {"/v1/invites", "/v1/spaces"}
    assert run.out.splitlines()[-1] == "2 of 2 streams can be read."


def test_a_scope_to_add_is_named_and_fails_only_what_is_selected(scene: Scene) -> None:
    scene.envoy.integration_scopes -= {"invites.read"}
    for config in ({}, scene.login):
        run = scene.run("--test", **config)
        assert run.code == 0  # locations alone are selected
        (line,) = [line for line in run.out.splitlines() if "invites: " in line]
        assert line.startswith("forbidden  invites: ")
        assert "`invites.read`" in line
    assert scene.run("--test", *scene.select("invites", "locations")).code == 1


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (
            Answer(500, {"message": "oops"}),
            "failed     locations: Envoy answered HTTP 500: “oops”",
        ),
        (Answer(200, b"<html>"), "failed     locations: Envoy answered page 1 with something"),
        (Answer(404, b""), "failed     locations: Envoy has no such list"),
        (Answer(200, {"status": 401}), "failed     locations: Envoy refused the credentials"),
    ],
)
def test_what_fails_is_told_with_its_reason(scene: Scene, answer: Answer, part: str) -> None:
    scene.envoy.script("/v1/locations", answer)
    run = scene.run("--test", *scene.select("locations"))
    assert run.code == 1
    assert part in run.out
    assert len(scene.envoy.requests) == 1  # it does not sit through an outage


def test_a_refused_login_is_told_in_a_line(scene: Scene) -> None:
    wrong = {**scene.login, "password": "not-the-right-one-at-all"}
    run = scene.run("--test", *scene.select("locations"), **wrong)
    assert run.code == 1
    (line,) = run.out.splitlines()
    assert line.startswith("failed     Envoy refused the password grant (HTTP 401)")
    assert len(scene.envoy.requests) == 1


def test_an_envoy_that_does_not_answer_is_soon_told(scene: Scene) -> None:
    for stream in STREAMS:
        path = f"/v1/{stream.replace('_', '-')}"
        scene.envoy.script(path, Answer(delay=30))
    began = time.monotonic()
    run = scene.run("--test", request_timeout=1)
    assert time.monotonic() - began < 15  # nine waits, of a second each, at once
    assert run.code == 1
    assert run.out.count("no answer") == 9


# Progress and last lines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_tells_rows_speed_share_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    tally = Tally("entries", logging.getLogger("t"), interval=30, clock=clock)
    for _ in range(6):
        clock.now += 10
        tally.count_rows(8000, 96_000)
    assert caplog.messages == [
        "entries: 24,000 rows so far, 800 a second; 25% of 96,000 done, about 90 s left.",
        "entries: 48,000 rows so far, 800 a second; 50% of 96,000 done, about 60 s left.",
    ]
    tally.count_request(again=False)
    tally.count_request(again=True)
    assert tally.sum_up("2024-01-01", complete=True) == (
        "entries: read, 48,000 rows, 2 requests, 1 of them retries, 60.0 s, bookmark 2024-01-01."
    )


def test_where_the_total_is_not_known_none_is_made_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Tally("entries", logging.getLogger("t"), interval=0).count_rows(10, None)
    assert re.fullmatch(r"entries: 10 rows so far, [\d,]+ a second\.", caplog.messages[0])


def test_progress_over_a_cut_counts_all_there_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(TapEnvoy, "progress_interval", 0)
    scene.envoy.rows["entries"] = entries(12_000, minutes=1)
    read(scene.tap(), "entries")
    shares = [re.search(r"(\d+)% of 12,00[01] done", line) for line in caplog.messages]
    found = [int(share[1]) for share in shares if share]
    assert found == sorted(found)
    assert found[0] == 1
    assert found[-1] == 100


def test_the_last_lines_tell_what_each_stream_and_the_run_came_to(scene: Scene) -> None:
    scene.envoy.script("/v1/entries", Answer(), Answer(503, b""))
    scene.envoy.script("/v1/flows", Answer(404, b""))
    run = scene.run(*scene.select("entries", "flows", "locations"))
    *_, first, second, third, last = [line.split(" | ", 3)[3] for line in run.err.splitlines()]
    newest = scene.envoy.rows["entries"][-1]["signedInAt"]
    assert re.sub(r"[\d.]+ s\b", "0 s", first) == (
        f"entries: read, 320 rows, 5 requests, 1 of them retries, 0 s, bookmark {newest}."
    )
    assert second.startswith("flows: INCOMPLETE, 0 rows, 1 requests, 0 of them retries")
    assert third.startswith("locations: read, 250 rows, 3 requests")
    assert last == (
        "Incomplete: flows. 570 rows in 9 requests from 2 of 3 streams; what came is kept, "
        "run again."
    )
    good = scene.run()
    assert good.err.splitlines()[-1].endswith("Done: 250 rows in 3 requests from 1 of 1 streams.")


def test_each_request_shows_at_debug(scene: Scene) -> None:
    run = scene.run()
    lines = [line for line in run.err.splitlines() if "GET /locations" in line]
    assert len(lines) == 3
    assert all("HTTP 200" in line for line in lines)


def test_structured_logging_still_works(scene: Scene, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"structured": {"()": "singer_sdk.logging.StructuredFormatter"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": str(tmp_path / "log.jsonl"),
                "formatter": "structured",
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    (tmp_path / "logging.yaml").write_text(yaml.safe_dump(config))
    where = {"SINGER_SDK_LOG_CONFIG": str(tmp_path / "logging.yaml")}
    assert scene.run(environment=where).code == 0
    log = (tmp_path / "log.jsonl").read_text()
    assert '"metric_info"' in log or '"point"' in log
    assert "Done: 250 rows" in log
