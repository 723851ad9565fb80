"""Runs the tap in separate processes, without the second that its imports take.

It imports what the tap imports, then forks for each line of JSON on its standard input: a process
with its own arguments, environment, folder and files, which runs the tap as `python -m` does. It
replies with the process id, then with the exit code, or minus the number of the signal.

Children of `multiprocessing`'s forkserver leave by `os._exit`: what happens while the interpreter
shuts down, when threads may still log, would not be tested, and coverage would lose their data.
"""

import json
import os
import runpy
import sys
from typing import Any

import tap_envoy.tap  # noqa: F401  # what takes the second


def main() -> None:
    while line := sys.stdin.readline():
        order: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            run_program(order)
            return
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def run_program(order: dict[str, Any]) -> None:
    """Run the program; ends with SystemExit, or returns if the program does."""
    opened = [os.open(os.devnull, os.O_RDONLY)]
    opened += [
        os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")
    ]
    for descriptor, file in enumerate(opened):
        os.dup2(file, descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8:strict").partition(":")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]
    os.chdir(order["cwd"])
    sys.argv[1:] = order["arguments"]
    runpy.run_module("tests.fast_tap", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
