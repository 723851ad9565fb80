"""Runs the program as a user would, and reads what it printed."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    """Run the tap at DEBUG; nothing of `hidden` may show anywhere."""
    return run(
        [sys.executable, "-m", module, *arguments],
        hidden=hidden,
        environment=clean_environment(PYTHONPATH=str(HERE), **(environment or {})),
        cwd=cwd,
    )


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
