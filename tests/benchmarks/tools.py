"""The tools that are compared, each in an environment with nothing else in it."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.server import ROW_MARK, Server

HERE = Path(__file__).parent
WORK_DIR = HERE.parent.parent / ".benchmarks"
UV = ("uv", "--quiet")
# The peak memory of a process includes that of its parent at the start, so a small one starts it.
STARTER = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
wall = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, file=sys.stderr)
"""


class Tool(NamedTuple):
    """A command that reads a stream and writes its rows to stdout."""

    name: str
    package: str
    command: tuple[str, ...]

    @property
    def environment(self) -> Path:
        return WORK_DIR / Path(self.package).name

    def install(self) -> None:
        """Install what is not there yet; this project is installed each time."""
        options = ("--compile-bytecode", "--reinstall-package=tap-envoy", "--python")
        install = ("pip", "install", *options, self.environment, self.package)
        for command in (("venv", "--allow-existing", self.environment), install):
            subprocess.run([*UV, *command], check=True)


LOOP = Tool("loop", "requests", ("python", str(HERE / "handwritten_loop.py")))
TAP = Tool("tap", str(WORK_DIR.parent), ("tap-envoy", "--config=ENV"))
TOOLS = (
    LOOP,
    TAP,
    Tool("template", "singer-sdk~=0.54.9", ("python", str(HERE / "sdk_template.py"))),
    Tool("dlt", "dlt[filesystem]", ("python", str(HERE / "dlt_pipeline.py"))),
    Tool("airbyte", "airbyte-cdk", ("python", str(HERE / "airbyte_source.py"))),
    Tool("import-sdk", TAP.package, ("python", "-c", "import singer_sdk")),
    Tool("version", TAP.package, ("tap-envoy", "--version")),
    Tool("discover", TAP.package, ("tap-envoy", "--discover")),
)


class Figures(NamedTuple):
    """What a run cost: seconds, MiB at most, what the server received, rows in the output."""

    processor: float
    wall: float
    memory: float
    requests: int
    refused: int
    responses_per_second: float
    rows: int


def measure(tool: Tool, server: Server, settings: dict[str, str]) -> Figures:
    """Run a tool to its end, with nothing of the user's environment; raise if it fails."""
    variables = {"HOME": str(WORK_DIR), "LANG": "C.UTF-8", "RUNTIME__DLTHUB_TELEMETRY": "false"}
    variables |= {"TAP_ENVOY_API_KEY": "key", "TAP_ENVOY_API_URL": server.api_url} | settings
    program = f"{tool.environment}/bin/{tool.command[0]}"
    command = [sys.executable, "-c", STARTER, program, *tool.command[1:]]
    stdout, stderr = WORK_DIR / "stdout", WORK_DIR / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        status = subprocess.call(command, stdout=out, stderr=err, cwd=WORK_DIR, env=variables)
    messages = stderr.read_text()
    if status:
        raise RuntimeError(f"{tool.name} failed: {messages[-2000:]}")
    processor, wall, memory = map(float, messages.splitlines()[-1].split())
    requests, refused = server.requests, server.refused
    rate = (requests - refused) / ((server.last_response - server.first_request) or 1)
    with stdout.open("rb") as lines:
        rows = sum(ROW_MARK in line for line in lines)
    return Figures(processor, wall, memory, requests, refused, rate, rows)
