"""Locations: every row, once, in order; and what ends a run that cannot have them."""

import math
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tap_envoy.errors import EnvoyError
from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene, read
from tests.sandbox import Answer
from tests.sandbox.data import locations

LIST = "/v1/locations"


def test_every_location_comes_whole_and_in_order(scene: Scene) -> None:
    run = scene.run()
    assert run.code == 0
    expected = [
        {key: value for key, value in row.items() if key != "printerIds"}
        for row in scene.envoy.rows["locations"]
    ]
    assert run.records() == expected
    assert [request.query for request in scene.envoy.asked(LIST)] == [
        {"page": str(page), "perPage": "100", "sort": "createdAt", "order": "ASC"}
        for page in (1, 2, 3)
    ]


def test_the_tap_names_itself_to_envoy(scene: Scene) -> None:
    scene.run()
    assert scene.envoy.requests[0].headers["user-agent"] == f"tap-envoy/{TapEnvoy.plugin_version}"
    scene.run(user_agent="acme-warehouse (data@acme.example)")
    agent = scene.envoy.requests[-1].headers["user-agent"]
    assert agent == "acme-warehouse (data@acme.example)"


def test_unlisted_keys_are_named_once_and_nested_ones_pass(scene: Scene) -> None:
    scene.envoy.rows["locations"][3]["zebra"] = 1
    run = scene.run()
    (warning,) = [line for line in run.warnings if "printerIds" in line]
    assert "printerIds, zebra" in warning
    assert not any({"printerIds", "zebra"} & row.keys() for row in run.records())
    assert any("plusCode" in (row["address"] or {}) for row in run.records())


def test_two_runs_of_the_same_list_write_the_same_records(scene: Scene) -> None:
    first, second = scene.run(), scene.run()
    assert first.records() == second.records()


# Pages

META = {
    "all": ("page", "perPage", "total"),
    "total": ("total",),
    "size": ("page", "perPage"),
    "relationships": ("relationships",),
    "none": None,
}


@pytest.mark.parametrize("meta", META)
@pytest.mark.parametrize("clamp", [100, 30])
@pytest.mark.parametrize("count", [0, 1, 29, 30, 31, 60, 99, 100, 101, 200, 250])
def test_each_page_is_asked_for_once_and_none_too_many(
    scene: Scene, count: int, clamp: int, meta: str
) -> None:
    envoy = scene.envoy
    envoy.rows["locations"] = locations(count)
    envoy.largest_page = clamp
    envoy.meta_keys = META[meta]
    assert [row["id"] for row in read(scene.tap())] == [
        row["id"] for row in envoy.rows["locations"]
    ]
    full, rest = divmod(count, clamp)
    needed = max(1, full + bool(rest))
    if meta in {"all", "total"}:
        allowed = needed
    elif meta == "size" or clamp == 100:
        # A full last page cannot be told from another one before the next is seen.
        allowed = max(1, full + 1)
    else:
        allowed = needed + 1
    if meta not in {"all", "total", "size"} and 0 < count < 100:
        # Nothing tells whether a short first page is all there is or all that fits.
        allowed = needed + 1
    assert len(envoy.asked(LIST)) <= allowed


@pytest.mark.parametrize("total", [True, "250", -1, 2.5, None])
def test_a_total_that_is_no_number_is_not_relied_on(scene: Scene, total: Any) -> None:
    rows = scene.envoy.rows["locations"]
    pages = [rows[:100], rows[100:200], rows[200:]]
    scene.envoy.script(LIST, *[Answer(200, {"data": p, "meta": {"total": total}}) for p in pages])
    assert len(read(scene.tap())) == 250


@pytest.mark.parametrize("size", [1, 7, 99])
def test_the_page_size_is_the_one_that_was_set(scene: Scene, size: int) -> None:
    scene.envoy.rows["locations"] = locations(20)
    assert len(read(scene.tap(page_size=size))) == 20
    assert {request.query["perPage"] for request in scene.envoy.asked(LIST)} == {str(size)}
    assert len(scene.envoy.asked(LIST)) == math.ceil(20 / size)


def test_the_same_page_again_is_an_error(scene: Scene) -> None:
    scene.envoy.ignores_page = True
    scene.run().failed_with("locations", "page 1 again as page 2")
    assert len(scene.envoy.asked(LIST)) == 2


def test_a_list_that_ends_before_its_total_is_an_error(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(), Answer(200, {"data": [], "meta": {"total": 250}}))
    scene.run().failed_with("announced 250 rows", "page 2 is empty after 100")


# Answers that are not what they should be


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"data": None}, "without a list of rows"),
        ({"data": {"id": "1"}}, "without a list of rows"),
        ({"data": "rows"}, "without a list of rows"),
        ({}, "without a list of rows"),
        ([], "without a list of rows"),
        (7, "without a list of rows"),
        ({"data": [1]}, "no row"),
        ({"data": [{"id": "1"}, None]}, "no row"),
        ({"data": [{"id": "1"}, {"name": "x"}]}, "without `id` on page 2"),
        ({"data": [{"id": None}]}, "without `id` on page 2"),
        ({"data": [{"id": ""}]}, "without `id` on page 2"),
        ({"data": [{"id": 7}]}, "without `id` on page 2"),
    ],
)
def test_an_odd_success_is_an_error_and_never_an_empty_list(
    scene: Scene, body: Any, part: str
) -> None:
    scene.envoy.script(LIST, Answer(), Answer(200, body))
    run = scene.run()
    run.failed_with("locations", "page 2", part)
    assert len(run.records()) == 100
    assert len(scene.envoy.asked(LIST)) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
def test_what_waiting_does_not_help_ends_at_once(scene: Scene, status: int) -> None:
    scene.envoy.script(LIST, Answer(status, {"message": "this is why"}))
    scene.run().failed_with("locations", f"HTTP {status}", "this is why")
    assert len(scene.envoy.asked(LIST)) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(scene: Scene, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.01)
        target = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1/locations"
        scene.envoy.script(LIST, Answer(status, b"", {"Location": target}))
        scene.run().failed_with("redirect", f"HTTP {status}", "check `api_url`")
        with pytest.raises(TimeoutError):
            elsewhere.accept()


@pytest.mark.parametrize(
    "refusal", [Answer(403, {"message": "no"}), Answer(200, {"status": 403, "message": "no"})]
)
def test_a_missing_scope_is_named(scene: Scene, refusal: Answer) -> None:
    scene.envoy.script(LIST, refusal)
    scene.run().failed_with("`locations.read`", "Dev Dashboard", "HTTP 403", "no")
    assert len(scene.envoy.asked(LIST)) == 1


def test_a_scope_that_the_token_lacks_is_named(scene: Scene) -> None:
    run = scene.run(scopes=["token.refresh"], **scene.login)
    run.failed_with("`locations.read`", "`scopes`")


def test_what_an_error_says_is_cut_short_and_kept_on_one_line(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(400, b"<h1>bad\n\x1b[31mgateway\x00</h1>" + b"x" * 5000))
    sentence = scene.run().failed_with("<h1>bad [31mgateway</h1>xxx")
    assert len(sentence) < 400


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        *[Answer(status, b"busy") for status in (408, 429, 500, 502, 503, 504)],
        Answer(200, b"<html>We will be right back</html>"),
        Answer(200, b'{"data": [{"id": "100'),
        Answer(200, b"[" * 100_000),
        Answer(200, b""),
        Answer(cut=True),
        Answer(delay=2),
    ],
    ids=repr,
)
def test_a_fault_that_passes_costs_no_row(scene: Scene, fault: Answer) -> None:
    scene.envoy.script(LIST, Answer(), fault, fault if fault.delay == 0 else Answer())
    run = scene.run(request_timeout=1)
    assert run.code == 0, run.errors
    assert [row["id"] for row in run.records()] == [r["id"] for r in scene.envoy.rows["locations"]]


def test_an_outage_that_does_not_pass_is_given_up(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(), *[Answer(503, {"message": "down"})] * 9)
    run = scene.run()
    run.failed_with("locations", "HTTP 503", "down", "Gave up after 4 tries")
    assert len(run.records()) == 100


def test_an_envoy_that_nobody_serves_is_named(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    scene.run(api_url=address).failed_with("no connection", "`api_url`")


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("9999", 300, 300),
        (timedelta(seconds=200), 60, 200),
        (timedelta(days=-9), 0, 0),
        ("soon", 0.001, 2),
        ("-5", 0.001, 2),
    ],
)
def test_a_wait_that_envoy_asks_for_is_kept(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    header: str | timedelta,
    low: float,
    high: float,
) -> None:
    if isinstance(header, timedelta):
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    waits: list[float] = []
    monkeypatch.setattr(TapEnvoy, "retry", replace(TapEnvoy.retry, sleep=waits.append))
    scene.envoy.script(LIST, Answer(429, b"slow down", {"Retry-After": header}))
    assert len(read(scene.tap())) == 250
    (wait,) = waits
    assert low <= wait <= high


def test_the_last_error_is_the_one_that_is_told(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(500, b"first"), Answer(404, {"message": "second"}))
    with pytest.raises(EnvoyError, match="second"):
        read(scene.tap())


# Removed locations


def test_rows_are_activated_after_the_last_of_them(scene: Scene) -> None:
    run = scene.run(emit_activate_version_messages=True)
    messages = [message for message in run.messages if message["type"] != "STATE"]
    assert [m["type"] for m in messages] == ["SCHEMA", *["RECORD"] * 250, "ACTIVATE_VERSION"]
    assert {m["version"] for m in messages[1:]} == {messages[-1]["version"]}


def test_a_read_that_fails_activates_nothing(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(), Answer(404, b""))
    run = scene.run(emit_activate_version_messages=True)
    assert run.code == 1
    assert "ACTIVATE_VERSION" not in {message["type"] for message in run.messages}


def test_without_the_setting_no_version_is_sent(scene: Scene) -> None:
    types = {message["type"] for message in scene.run().messages}
    assert types == {"SCHEMA", "RECORD", "STATE"}
