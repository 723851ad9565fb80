"""Run a command against a sandbox, or serve one until Ctrl-C."""

import argparse
import inspect
import os
import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.sandbox.app import Envoy
from tests.sandbox.quirks import Quirks
from tests.sandbox.server import environment, oauth_credentials, serve


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    envoy = Envoy(options.quirks)
    started = time.time() - 1  # some file systems store whole seconds
    with serve(envoy) as address:
        say(f"an Envoy with {len(envoy.rows['locations'])} locations at {address}")
        variables, oauth = environment(envoy, address), oauth_credentials(envoy)
        if not options.command:
            settings = variables | {f"TAP_ENVOY_{name}": value for name, value in oauth.items()}
            lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
            lines.append("# The API key is used first. For OAuth: unset TAP_ENVOY_API_KEY")
            print(*lines, sep="\n", flush=True)  # noqa: T201
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            return 0
        variables |= {f"SANDBOX_{name}": value for name, value in oauth.items()}
        code = subprocess.call(options.command, env={**os.environ, **variables})
        say(f"{len(envoy.requests)} requests; the command ended with exit code {code}")
    for path in sorted(Path("output").glob("*.jsonl")):
        if path.stat().st_mtime >= started:
            say(f"new: {path} ({len(path.read_text(encoding='utf-8').splitlines())} rows)")
    return code


def parse(arguments: list[str]) -> argparse.Namespace:
    description = """Run COMMAND with TAP_ENVOY_* set to a sandbox, and SANDBOX_* to its OAuth
credentials. Without COMMAND, serve the sandbox until Ctrl-C."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "sandbox", None, description, inspect.getdoc(Quirks), formatter_class=raw
    )
    parser.add_argument("--quirk", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND...")
    options = parser.parse_args(arguments)
    try:
        options.quirks = Quirks.parse(options.quirk)
    except ValueError as error:
        parser.error(str(error))
    return options


def say(text: str) -> None:
    print(f"sandbox: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
