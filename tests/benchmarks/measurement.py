"""Runs of tools against the local server, and what they cost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.benchmarks.server import Traffic
from tests.benchmarks.tools import MSDK_CONFIG, ROOT, WORK_DIR, Tool, msdk_config

FAST = {"TAP_ENVOY_REQUESTS_PER_SECOND": "1000"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""Without the variable that makes the loop write each row with a separate system call."""


@dataclass(frozen=True)
class Figures:
    """What a run cost.

    Attributes:
        rows: Rows in the output.
        processor: Seconds of processor time.
        wall: Seconds from start to end.
        memory: MiB at most.
        traffic: What the server saw since it was last asked.
    """

    rows: int
    processor: float
    wall: float
    memory: float
    traffic: Traffic

    @property
    def responses_per_second(self) -> float:
        """Responses with rows, from the first request to the last response."""
        traffic = self.traffic
        return (traffic.requests - traffic.refused) / (
            traffic.last_response - traffic.first_request
        )


class ServerProcess:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.api_url = f"http://127.0.0.1:{int(self._read_line())}/v1"

    def take_traffic(self) -> Traffic:
        """Return what the server has seen since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Traffic(**json.loads(self._read_line()))

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serve(rows: int, latency: float = 0, limit: str = "none") -> Iterator[ServerProcess]:
    command = [sys.executable, "-m", "tests.benchmarks.server", str(rows), str(latency), limit]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.terminate()


class Run:
    """A running tool. Its output goes to a file, in which the rows are counted."""

    def __init__(self, tool: Tool, server: ServerProcess, label: str = "", **env: str) -> None:
        self._tool = tool
        self._server = server
        self._out = WORK_DIR / f"stdout{label}"
        self._err = WORK_DIR / f"stderr{label}"
        MSDK_CONFIG.write_text(json.dumps(msdk_config(server.api_url)))
        program, *arguments = tool.command
        with self._out.open("wb") as stdout, self._err.open("wb") as stderr:
            self._start = time.perf_counter()
            self._process = subprocess.Popen(
                [str(tool.bin_dir / program), *arguments],
                stdout=stdout,
                stderr=stderr,
                cwd=WORK_DIR,
                env=ENVIRONMENT
                | {"TAP_ENVOY_API_KEY": "key", "TAP_ENVOY_API_URL": server.api_url}
                | env,
            )

    def finish(self) -> Figures:
        """Wait for the end; raise if the tool failed."""
        _, status, usage = os.wait4(self._process.pid, 0)
        wall = time.perf_counter() - self._start
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise RuntimeError(f"{self._tool.name} failed: {self._err.read_text()[-2000:]}")
        processor = usage.ru_utime + usage.ru_stime
        memory = usage.ru_maxrss / 1024
        return Figures(self._count_rows(), processor, wall, memory, self._server.take_traffic())

    def _count_rows(self) -> int:
        mark = self._tool.row_mark
        if mark is None:
            return int(self._out.read_text().rsplit("rows ", 1)[1])
        with self._out.open("rb") as lines:
            return sum(mark in line for line in lines)


def measure(tool: Tool, server: ServerProcess, **env: str) -> Figures:
    """Run a tool to its end."""
    server.take_traffic()
    return Run(tool, server, **env).finish()


def best(runs: list[Figures]) -> Figures:
    """Return the run that other processes disturbed least."""
    return min(runs, key=lambda figures: figures.processor)
