"""Compare the tap with other tools on one local server, each command as a whole process.

Tools take turns, and the best run of each counts, since other processes use the machine too.
Ratios are to the first tool. `import-sdk`, `version` and `discover` show how long a start takes.
"""

import argparse
import json
import subprocess

from tests.benchmarks.server import Server
from tests.benchmarks.tools import LOOP, TAP, TOOLS, WORK_DIR, Figures, Tool, measure

HEADER = (
    "| tool       | processor s | ratio | wall s | ratio | peak MiB "
    "| requests | 429 | responses/s |    rows |\n|---|---|---|---|---|---|---|---|---|---|"
)


def format_row(tool: Tool, run: Figures, base: Figures) -> str:
    return (
        f"| {tool.name:10} | {run.processor:11.2f} | {run.processor / base.processor:5.2f} "
        f"| {run.wall:6.2f} | {run.wall / base.wall:5.2f} | {run.memory:8.1f} "
        f"| {run.requests:8} | {run.refused:3} | {run.responses_per_second:11.2f} | {run.rows:7} |"
    )


def with_bookmark(tap: Tool) -> Tool:
    """Make the tap read entries, with a bookmark before all of them."""
    discover = [f"{tap.environment}/bin/tap-envoy", "--discover"]
    streams = json.loads(subprocess.check_output(discover))["streams"]
    entries = next(stream for stream in streams if stream["tap_stream_id"] == "entries")
    for entry in entries["metadata"]:
        entry["metadata"]["selected"] = True
    bookmark = {"replication_key": "signedInAt", "replication_key_value": "2019-06-01T00:00:00Z"}
    catalog, state = WORK_DIR / "catalog.json", WORK_DIR / "state.json"
    catalog.write_text(json.dumps({"streams": [entries]}))
    state.write_text(json.dumps({"bookmarks": {"entries": bookmark}}))
    return tap._replace(command=(*tap.command, f"--catalog={catalog}", f"--state={state}"))


def main() -> None:
    by_name = {tool.name: tool for tool in TOOLS}
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--tools", nargs="+", choices=by_name, default=list(by_name)[:5])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=int, default=0, help="milliseconds per response")
    parser.add_argument("--limited", action="store_true", help="rate limit, and default settings")
    parser.add_argument("--entries", action="store_true", help="with the loop and the tap")
    options = parser.parse_args()
    tools = [LOOP, TAP] if options.entries else [by_name[name] for name in options.tools]
    for tool in tools:
        tool.install()
    if options.entries:
        tools = [LOOP, with_bookmark(TAP)]
    settings = {"BENCHMARK_STREAM": "entries" if options.entries else "locations"}
    if not options.limited:
        settings["TAP_ENVOY_REQUESTS_PER_SECOND"] = "1000"
    server = Server()
    runs: dict[Tool, list[Figures]] = {tool: [] for tool in tools}
    for _ in range(options.rounds):
        for tool, figures in runs.items():
            server.reset(options.rows, options.latency / 1000, limited=options.limited)
            figures.append(measure(tool, server, settings))
    best = [min(figures, key=lambda run: run.processor) for figures in runs.values()]
    lines = [format_row(tool, run, best[0]) for tool, run in zip(tools, best, strict=True)]
    print(HEADER, *lines, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
