"""`python -m tests.benchmarks`: this tap beside others, on one server, in one run.

Prints a table of ratios to the hand-written loop. Each contender runs in an environment of its own,
made once in `.benchmarks/`. Rows are counted and must be equal, so no figure is for less work.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLACE = ROOT / ".benchmarks"
ROUNDS = 5
"""All contenders take turns so often, and the best run of each counts: the machine is shared."""
FAST = {"TAP_ENVOY_REQUESTS_PER_SECOND": "1000"}


@dataclass(frozen=True)
class Contender:
    """Something that reads locations.

    Attributes:
        packages: What its environment has.
        command: What is run there, by the environment's Python or from its programs.
        mark: What each line of its output that is a row has in it; None if it says `rows N`.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    mark: bytes | None = b'"RECORD"'


MSDK = PLACE / "msdk.json"
CONTENDERS = (
    Contender("hand-written loop", ("requests",), ("python", str(HERE / "loop.py"))),
    Contender("tap-envoy", (str(ROOT),), ("tap-envoy", "--config=ENV")),
    Contender("SDK template", ("singer-sdk~=0.54.9",), ("python", str(HERE / "template.py"))),
    Contender(
        "tap-rest-api-msdk",
        ("tap-rest-api-msdk", "setuptools<81"),
        ("tap-rest-api-msdk", "--config", str(MSDK)),
    ),
    Contender(
        "dlt rest_api", ("dlt[filesystem]",), ("python", str(HERE / "with_dlt.py")), mark=None
    ),
    Contender("Airbyte CDK", ("airbyte-cdk",), ("python", str(HERE / "with_airbyte.py"))),
)


@dataclass(frozen=True)
class Figures:
    """What a run took."""

    rows: int
    cpu: float
    wall: float
    memory: float
    requests: int
    refused: int
    span: float


class Server:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def counts(self) -> tuple[int, int, float]:
        """Return requests, refusals and the seconds from first to last, since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        requests, refused, span = json.loads(self._line())
        return requests, refused, span


@contextmanager
def serving(rows: int, latency: float, limit: float = 0) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.benchmarks.server", str(rows), str(latency), str(limit)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield Server(process)
        process.terminate()


def environment_of(contender: Contender) -> Path:
    """Return the folder of a contender's programs, made if need be."""
    folder = PLACE / contender.name.replace(" ", "-")
    if not (folder / "ready").exists():
        uv = ["uv", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", str(folder)], check=True)
        python = str(folder / "bin" / "python")
        install = [*uv, "pip", "install", "--compile-bytecode", "--python", python]
        subprocess.run([*install, *contender.packages], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def measure(contender: Contender, server: Server, **variables: str) -> Figures:
    """Run a contender against a server; what it writes goes to a file and is counted."""
    address = f"http://127.0.0.1:{server.port}/v1"
    MSDK.write_text(json.dumps(msdk_settings(address)))
    variables = {"TAP_ENVOY_API_KEY": "key", "TAP_ENVOY_API_URL": address, **variables}
    program, *arguments = contender.command
    command = [str(environment_of(contender) / program), *arguments]
    out, err = PLACE / "out", PLACE / "err"
    server.counts()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env={**os.environ, **variables}, cwd=PLACE
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{contender.name} failed: {err.read_text()[-2000:]}")
    with out.open("rb") as lines:
        if contender.mark is None:
            rows = int(out.read_text().rsplit("rows ", 1)[1])
        else:
            rows = sum(contender.mark in line for line in lines)
    cpu = usage.ru_utime + usage.ru_stime
    return Figures(rows, cpu, wall, usage.ru_maxrss / 1024, *server.counts())


def msdk_settings(address: str) -> dict[str, object]:
    """Return what tap-rest-api-msdk needs to read the same list."""
    return {
        "api_url": address,
        "pagination_request_style": "page_number_paginator",
        "pagination_response_style": "page",
        "pagination_initial_offset": 1,
        "pagination_page_size": 100,
        "pagination_limit_per_page_param": "perPage",
        "next_page_token_path": "$.meta.more",
        "streams": [
            {
                "name": "locations",
                "path": "/locations",
                "primary_keys": ["id"],
                "records_path": "$.data[*]",
                "num_inference_records": 50,
            }
        ],
    }


def least(runs: list[Figures]) -> Figures:
    """Return the run that was disturbed the least."""
    return min(runs, key=lambda figures: figures.cpu)


def compare(rows: int, latency: float) -> None:
    """Print a table of all contenders for one size and latency."""
    say(f"\n{rows:,} locations, {latency * 1000:.0f} ms an answer, no limit\n")
    say(f"| {'contender':17} | processor | wall  | peak MiB | requests | 429 | rows |")
    say("|---|---|---|---|---|---|---|")
    runs: dict[Contender, list[Figures]] = {contender: [] for contender in CONTENDERS}
    with serving(rows, latency) as server:
        for _ in range(ROUNDS):
            for contender, figures in list(runs.items()):
                try:
                    figures.append(measure(contender, server, **FAST))
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    say(f"| {contender.name:17} | did not run: {str(error)[-300:]!r} |")
                    del runs[contender]
    base = least(runs[CONTENDERS[0]])
    for contender, figures in runs.items():
        best = least(figures)
        counts = sorted({run.rows for run in figures})
        equal = "equal" if counts == [rows] else f"{counts}: NOT EQUAL"
        cpu, wall = best.cpu / base.cpu, best.wall / base.wall
        say(
            f"| {contender.name:17} | {cpu:9.2f} | {wall:5.2f} "
            f"| {best.memory:8.1f} | {best.requests:8} | {best.refused:3} | {equal} |"
        )
    say(f"\n1.00 is {base.cpu:.2f} s of processor time and {base.wall:.2f} s in all.")


def limit_of_the_server() -> None:
    """Print what the server gives to a client that does not even look at the pages."""
    with serving(100_000, 0) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        began = time.perf_counter()
        for page in range(1, 1001):
            connection.request("GET", f"/v1/locations?page={page}&perPage=100")
            connection.getresponse().read()
        rate = 1000 / (time.perf_counter() - began)
    say(f"\nThe server's own limit: {rate:,.0f} pages a second, {rate * 100:,.0f} rows.")


def entries() -> None:
    """Print what entries with a bookmark take, beside the hand-written loop."""
    loop, tap = CONTENDERS[:2]
    program = (str(environment_of(tap) / "tap-envoy"),)
    discovered = subprocess.run([*program, "--discover"], capture_output=True, check=True)
    catalog = json.loads(discovered.stdout)
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            if not entry["breadcrumb"]:
                entry["metadata"]["selected"] = stream["tap_stream_id"] == "entries"
    key = {"replication_key": "signedInAt", "replication_key_value": "2019-06-01T00:00:00.000Z"}
    given = {"catalog": catalog, "state": {"bookmarks": {"entries": key}}}
    options = []
    for name, value in given.items():
        (PLACE / f"{name}.json").write_text(json.dumps(value))
        options += [f"--{name}", str(PLACE / f"{name}.json")]
    tap = replace(tap, command=(*tap.command, *options))
    with serving(100_000, 0) as server:
        pairs = [
            (measure(loop, server, BENCHMARK_STREAM="entries"), measure(tap, server, **FAST))
            for _ in range(ROUNDS)
        ]
    assert all(run.rows == base.rows for base, run in pairs), pairs
    base, run = (least(list(runs)) for runs in zip(*pairs, strict=True))
    say(
        f"\n100,000 entries with a bookmark: {run.cpu / base.cpu:.2f} of the loop's processor time."
    )


def pace() -> None:
    """Print how near the tap comes to its pace, with the default settings and 300 ms."""
    with serving(6000, 0.3, 10) as server:
        run = measure(CONTENDERS[1], server)
    rate = (run.requests - 1) / run.span
    say(
        f"\nPace: {run.requests} requests in {run.span:.2f} s are {rate:.2f} a second, "
        f"{rate / 8:.1%} of the 8 that are set; {run.refused} answers of 429 from a server that "
        "enforces 10."
    )


def start() -> None:
    """Print how long the tap takes to start, beside what importing the SDK takes."""
    tap = CONTENDERS[1]
    commands = {
        "import singer_sdk": ("python", "-c", "import singer_sdk"),
        "--version": ("tap-envoy", "--version"),
        "--discover": ("tap-envoy", "--discover"),
        "a run of one page": tap.command,
    }
    walls: dict[str, float] = {}
    with serving(100, 0) as server:
        for _ in range(2 * ROUNDS):
            for name, command in commands.items():
                wall = measure(replace(tap, command=command), server, **FAST).wall
                walls[name] = min(wall, walls.get(name, wall))
    base = walls["import singer_sdk"]
    ratios = ", ".join(f"{name} {wall / base:.2f}" for name, wall in walls.items())
    say(f"\nStart: {ratios}; 1.00 is {base:.2f} s.")


def growth() -> None:
    """Print how cost grows with rows."""
    say(f"\n| {'rows':>9} | processor s | peak MiB | requests |\n|---|---|---|---|")
    for rows in (1_000, 10_000, 100_000, 1_000_000):
        with serving(rows, 0) as server:
            run = measure(CONTENDERS[1], server, **FAST)
        assert run.rows == rows, run
        say(f"| {rows:9,} | {run.cpu:11.2f} | {run.memory:8.1f} | {run.requests:8} |")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    compare(100_000, 0)
    compare(5_000, 0.05)
    compare(2_000, 0.3)
    limit_of_the_server()
    entries()
    pace()
    start()
    growth()


if __name__ == "__main__":
    main()
