"""Runs the program as a user would, and reads what it printed."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """What a run of the tap left behind."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[dict[str, Any]]:
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

    @property
    def errors(self) -> list[str]:
        """The sentences that were logged as errors."""
        lines = self.err.splitlines()
        return [line.split(" | ", 3)[3] for line in lines if "| ERROR " in line]

    @property
    def warnings(self) -> list[str]:
        lines = self.err.splitlines()
        return [line.split(" | ", 3)[3] for line in lines if "| WARNING " in line]

    def failed_with(self, *parts: str) -> str:
        """Check that the run ended in one sentence that has these parts; returns it."""
        assert self.code != 0, self.err
        assert "Traceback" not in self.err
        (sentence,) = [line for line in self.errors if line != "Config validation failed"]
        for part in parts:
            assert part in sentence
        return sentence


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without settings of the tap, with `variables` added."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAP_ENVOY_")}
    return kept | {"TAP_ENVOY_LOGLEVEL": "DEBUG", "NO_COLOR": "1"} | variables


def run_tap(
    *arguments: str,
    hidden: Collection[str] = (),
    module: str = "tests.hasty",
    environment: Mapping[str, str] | None = None,
    cwd: Path = HERE,
) -> Run:
    """Run the tap at DEBUG, in a process of its own; nothing of `hidden` may show anywhere."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        order = {
            "arguments": arguments,
            "module": module,
            "environment": clean_environment(**(environment or {})),
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
        }
        forge = _forge()
        assert forge.stdin is not None
        assert forge.stdout is not None
        forge.stdin.write(json.dumps(order) + "\n")
        forge.stdin.flush()
        code = int(forge.stdout.readline())
        run = Run(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
    for secret in hidden:
        assert secret not in run.out + run.err
    return run


@cache
def _forge() -> subprocess.Popen[str]:
    """Start what makes processes of the tap; it ends with this process, by its closed pipe."""
    command = [sys.executable, "-m", "tests.forge"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=HERE, encoding="utf-8")


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    hidden: Collection[str] = (),
    cwd: Path = HERE,
) -> Run:
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd=cwd,
        encoding="utf-8",
        env=dict(environment),
        timeout=120,
    )
    for secret in hidden:
        assert secret not in done.stdout
        assert secret not in done.stderr
    return Run(done.returncode, done.stdout, done.stderr)
