"""Runs the program as a user would, and reads what it printed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """Exit code and output of a run."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The Singer messages."""
        return [json.loads(line) for line in self.out.splitlines()]

    def records(self, stream: str = "locations") -> list[dict[str, Any]]:
        return [
            message["record"]
            for message in self.messages
            if message["type"] == "RECORD" and message["stream"] == stream
        ]

    @property
    def state(self) -> dict[str, Any]:
        """The value of the last STATE message."""
        states = [message for message in self.messages if message["type"] == "STATE"]
        return dict(states[-1]["value"])

    def log(self, *levels: str) -> list[str]:
        """Return the messages in the log, of these levels or of all."""
        entries = [line.split(" | ", 3) for line in self.err.splitlines()]
        return [
            entry[3]
            for entry in entries
            if len(entry) > 3 and (entry[1].strip() in levels or not levels)
        ]

    @property
    def errors(self) -> list[str]:
        return self.log("ERROR")

    @property
    def warnings(self) -> list[str]:
        return self.log("WARNING")

    def without(self, hidden: Collection[str]) -> "Run":
        """Assert that none of these strings was printed; return the run."""
        for secret in hidden:
            assert secret not in self.out + self.err
        return self

    def assert_failed(self, *parts: str) -> str:
        """Assert that the run failed, and that its last error contains these parts; return it."""
        assert self.code != 0, self.out[-1000:]
        assert "Traceback" not in self.err
        assert self.errors, self.err[-1000:]
        for part in parts:
            assert part in self.errors[-1]
        return self.errors[-1]


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without settings of the tap, with `variables` added."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAP_ENVOY_")}
    return kept | {"TAP_ENVOY_LOGLEVEL": "DEBUG", "NO_COLOR": "1"} | variables


def run_tap(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    stdout: Path | None = None,
    interact: Callable[[int], None] = lambda _process_id: None,
) -> Run:
    """Run the tap at DEBUG in a separate process.

    It writes to `stdout` if given, e.g. a named pipe, and `interact` is called with its process id.
    """
    with TemporaryDirectory() as folder:
        out, err = stdout or Path(folder, "out"), Path(folder, "err")
        order = {
            "arguments": arguments,
            "environment": clean_environment(**(environment or {})),
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
        }
        server = _fork_server()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(order), file=server.stdin, flush=True)
        process_id = int(server.stdout.readline())
        try:
            interact(process_id)
        except BaseException:
            os.kill(process_id, signal.SIGKILL)  # else the server would wait for it forever
            raise
        finally:
            code = int(server.stdout.readline())
        text = "" if stdout else out.read_text(encoding="utf-8")
        return Run(code, text, err.read_text(encoding="utf-8"))


@cache
def _fork_server() -> subprocess.Popen[str]:
    """Start the fork server; it ends with this process, which closes its standard input."""
    command = [sys.executable, "-m", "tests.fork_server"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, encoding="utf-8")


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path = ROOT,
) -> Run:
    """Run a command."""
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd=cwd,
        encoding="utf-8",
        env=dict(environment),
        timeout=120,
    )
    return Run(done.returncode, done.stdout, done.stderr)
