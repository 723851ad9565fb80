"""`python -m tests.benchmarks [SECTION ...]`: the tap beside other tools, on one server.

Prints one table or sentence for each section, all of them by default. Tools take turns, and the
best run of each counts, since other processes use the machine too. Rows are counted, and must be
equal, so that no figure is for less work.
"""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.benchmarks.measurement import FAST, Figures, Run, best, measure, serve
from tests.benchmarks.server import LIMITS, PER_SECOND
from tests.benchmarks.tools import LOOP, TAP, TOOLS, WORK_DIR, Tool, install

ROUNDS = 5


def compare_tools() -> None:
    """All tools at three latencies."""
    _compare(TOOLS, rows=100_000, latency=0, rounds=3)
    _compare(TOOLS, rows=5_000, latency=0.05, rounds=2)
    _compare(TOOLS, rows=2_000, latency=0.3, rounds=2)


def processor_time() -> None:
    """The tap beside the loop, at 0 ms and with many requests under way."""
    _compare((LOOP, TAP), rows=100_000, latency=0, rounds=ROUNDS)
    _compare((LOOP, TAP), rows=100_000, latency=0.05, rounds=2)


def _compare(tools: tuple[Tool, ...], *, rows: int, latency: float, rounds: int) -> None:
    """Print a table of ratios to the loop, with the rate limit lifted."""
    say(f"\n{rows:,} locations, {latency * 1000:.0f} ms per response, no rate limit\n")
    say(f"| {'tool':17} | processor |  wall | peak MiB | requests | 429 | rows |")
    say("|---|---|---|---|---|---|---|")
    runs: dict[Tool, list[Figures]] = {tool: [] for tool in tools}
    with serve(rows, latency) as server:
        for _ in range(rounds):
            for tool, figures in list(runs.items()):
                try:
                    figures.append(measure(tool, server, **FAST))
                except RuntimeError as error:
                    say(f"| {tool.name:17} | failed: {str(error)[-300:]!r} |")
                    del runs[tool]
    base = best(runs[LOOP])
    for tool, figures in runs.items():
        run = best(figures)
        processor, wall = run.processor / base.processor, run.wall / base.wall
        counts = {run.rows for run in figures}
        equal = "equal" if counts == {rows} else f"NOT EQUAL: {counts}"
        say(
            f"| {tool.name:17} | {processor:9.2f} | {wall:5.2f} | {run.memory:8.1f} "
            f"| {run.traffic.requests:8} | {run.traffic.refused:3} | {equal} |"
        )
    say(f"\n1.00 is {base.processor:.2f} s of processor time and {base.wall:.2f} s in all.")


def server_limit() -> None:
    """How much the server could deliver to a client that ignores what it gets."""
    pages = 2_000
    with serve(100_000) as server:
        connection = http.client.HTTPConnection(urlsplit(server.api_url).netloc)
        start = time.perf_counter()
        for page in range(1, pages + 1):
            connection.request("GET", f"/v1/locations?page={page % 1000 + 1}&perPage=100")
            connection.getresponse().read()
        rate = pages / (time.perf_counter() - start)
    say(f"\nServer: {rate:,.0f} pages per second, {rate * 100:,.0f} rows.")


def entries() -> None:
    """Entries with a bookmark, beside the loop."""
    tap = TAP.with_command(*TAP.command, *_entries_options())
    with serve(100_000) as server:
        loops, taps = [], []
        for _ in range(ROUNDS):
            loops.append(measure(LOOP, server, BENCHMARK_STREAM="entries"))
            taps.append(measure(tap, server, **FAST))
    assert {run.rows for run in (*loops, *taps)} == {100_000}, (loops, taps)
    base, run = best(loops), best(taps)
    say(
        f"\n100,000 entries with a bookmark: {run.processor / base.processor:.2f} of the loop's "
        f"processor time, {run.traffic.requests} requests, {run.memory:.1f} MiB."
    )


def _entries_options() -> list[str]:
    """Write a catalog that selects entries, and a state; return the options that name them."""
    discover = [str(TAP.bin_dir / "tap-envoy"), "--discover"]
    catalog = json.loads(subprocess.run(discover, capture_output=True, check=True).stdout)
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            if not entry["breadcrumb"]:
                entry["metadata"]["selected"] = stream["tap_stream_id"] == "entries"
    bookmark = {
        "replication_key": "signedInAt",
        "replication_key_value": "2019-06-01T00:00:00.000Z",
    }
    options = []
    for name, content in {
        "catalog": catalog,
        "state": {"bookmarks": {"entries": bookmark}},
    }.items():
        path = WORK_DIR / f"{name}.json"
        path.write_text(json.dumps(content))
        options += [f"--{name}", str(path)]
    return options


def rate_limits() -> None:
    """Default settings against servers that enforce the limit, over 90 full pages."""
    rows = 9_000
    say(f"\n{rows:,} locations with default settings; the server allows {PER_SECOND} per second\n")
    say("| limiter        | latency | responses/s | rows/s | wall s | requests | 429 |")
    say("|---|---|---|---|---|---|---|")
    for limit in LIMITS:
        for latency in (0.15, 0.3, 0.6):
            with serve(rows, latency, limit) as server:
                run = measure(TAP, server)
            assert run.rows == rows, run
            traffic = run.traffic
            say(
                f"| {limit:14} | {latency * 1000:4.0f} ms | {run.responses_per_second:11.2f} "
                f"| {rows / run.wall:6.0f} | {run.wall:6.1f} "
                f"| {traffic.requests:8} | {traffic.refused:3} |"
            )


def shared_limit() -> None:
    """Two runs at once that share one limit."""
    rows = 5_000
    for limit in list(LIMITS)[1:]:
        with serve(rows, 0.15, limit) as server:
            server.take_traffic()
            runs = [Run(TAP, server, label=str(number)) for number in range(2)]
            first, last = (run.finish() for run in runs)
        assert first.rows == last.rows == rows, (first, last)
        requests = first.traffic.requests + last.traffic.requests
        refused = first.traffic.refused + last.traffic.refused
        wall = max(first.wall, last.wall)
        say(
            f"\nTwo runs of {rows:,} locations sharing one {limit}: all rows in {wall:.1f} s, "
            f"{(requests - refused) / wall:.2f} responses per second, {refused} times 429."
        )


def start_up() -> None:
    """How long the tap takes to start, beside importing the SDK."""
    commands = {
        "import singer_sdk": ("python", "-c", "import singer_sdk"),
        "--version": ("tap-envoy", "--version"),
        "--discover": ("tap-envoy", "--discover"),
        "a run of one page": TAP.command,
    }
    walls: dict[str, float] = {}
    with serve(100) as server:
        for _ in range(3 * ROUNDS):
            for name, command in commands.items():
                wall = measure(TAP.with_command(*command), server, **FAST).wall
                walls[name] = min(wall, walls.get(name, wall))
    base = walls["import singer_sdk"]
    ratios = ", ".join(f"{name} {wall / base:.2f}" for name, wall in walls.items())
    say(f"\nStart: {ratios}; 1.00 is {base:.2f} s.")


def growth() -> None:
    """How cost grows with rows."""
    say(f"\n| {'rows':>9} | processor s | peak MiB | requests |\n|---|---|---|---|")
    for rows in (1_000, 10_000, 100_000, 1_000_000):
        with serve(rows) as server:
            run = measure(TAP, server, **FAST)
        assert run.rows == rows, run
        say(f"| {rows:9,} | {run.processor:11.2f} | {run.memory:8.1f} | {run.traffic.requests:8} |")


def requests_per_page() -> None:
    """Requests of a run for lists of several lengths, and for the pages that hold rows."""
    say(f"\n| {'rows':>7} | full pages | requests | ratio |\n|---|---|---|---|")
    for rows in (99, 100, 101, 250, 1_000, 2_550, 10_000, 25_000, 100_000):
        with serve(rows) as server:
            run = measure(TAP, server, **FAST)
        assert run.rows == rows, run
        pages = -(-rows // 100)
        requests = run.traffic.requests
        say(f"| {rows:7,} | {pages:10,} | {requests:8,} | {requests / pages:5.2f} |")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


SECTIONS: dict[str, Callable[[], None]] = {
    "tools": compare_tools,
    "processor": processor_time,
    "server": server_limit,
    "entries": entries,
    "limits": rate_limits,
    "shared": shared_limit,
    "start": start_up,
    "growth": growth,
    "requests": requests_per_page,
}


def main() -> None:
    WORK_DIR.mkdir(exist_ok=True)
    for tool in TOOLS:
        install(tool)
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
