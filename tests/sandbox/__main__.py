"""`python -m tests.sandbox COMMAND…`: runs COMMAND with TAP_ENVOY_* pointing at a sandbox.

With no COMMAND it stays up, says what to set, and ends with Ctrl-C.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.sandbox.envoy import Envoy
from tests.sandbox.server import environment, serve


def main(command: list[str]) -> int:
    envoy = Envoy()
    started = time.time() - 1  # file systems may keep whole seconds
    with serve(envoy) as address:
        variables = environment(envoy, address)
        say(f"an Envoy with {len(envoy.rows['locations'])} locations at {address}")
        if not command:
            for name, value in variables.items():
                print(f"export {name}={value}")  # noqa: T201
            sys.stdout.flush()
            with suppress(KeyboardInterrupt):
                signal.pause()
            return 0
        code = subprocess.call(command, env={**os.environ, **variables})
        say(f"asked {len(envoy.requests)} times; the command ended with exit code {code}")
    for path in sorted(Path("output").glob("*")):
        if path.stat().st_mtime >= started:
            rows = f" ({len(path.read_text().splitlines())} rows)" * (path.suffix == ".jsonl")
            say(f"new in output/: {path}{rows}")
    return code


def say(text: str) -> None:
    print(f"sandbox: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
