"""Every stream into real targets: CSV files with flattening, and a PostgreSQL server."""

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Sandbox
from tests.e2e.conftest import Postgres
from tests.sandbox import RESOURCES

UV_RUN = ("uv", "tool", "run", "--from")


def shorten(sandbox: Sandbox) -> dict[str, list[dict[str, Any]]]:
    """Leave up to six rows of each stream, since targets are slow; return them."""
    for rows in sandbox.envoy.rows.values():
        del rows[3:-3]
    return sandbox.envoy.rows


def load(target: str, config: dict[str, Any], folder: Path, messages: str) -> None:
    """Pipe messages into a target, which `uv` installs by itself."""
    path = folder / "target.json"
    path.write_text(json.dumps(config))
    program = target.removeprefix("meltanolabs-")
    done = subprocess.run(
        [*UV_RUN, target, program, "--config", str(path)],
        input=messages,
        capture_output=True,
        encoding="utf-8",
        env={k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "PYTHONDONT"))},
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_csv_files_receive_every_row_of_every_stream_with_flattening(sandbox: Sandbox) -> None:
    row = {"id": "first", "address": None, "printerIds": ["7"], "name": "B\0x, “y”\n2"}
    rows = shorten(sandbox)
    rows["locations"].insert(0, row)
    run = sandbox.run_tap(
        *sandbox.write_catalog(*RESOURCES),
        start_date="2024-01-01",
        flattening_enabled=True,
        flattening_max_depth=1,
    )
    assert run.code == 0, run.err
    load("meltanolabs-target-csv", {"output_path": str(sandbox.folder)}, sandbox.folder, run.out)
    for stream, sent in rows.items():
        (path,) = sandbox.folder.glob(f"{stream}*.csv")
        with path.open(encoding="utf-8", newline="") as file:
            loaded = {row["id"]: row for row in csv.DictReader(file)}
        assert loaded.keys() == {row["id"] for row in sent}, stream
        if stream == "locations":
            assert loaded["first"]["name"] == "Bx, “y”\n2"
            assert json.loads(loaded["first"]["additionalFields"]) == {"printerIds": ["7"]}
            assert loaded["first"]["address__city"] == ""
            assert loaded[sent[1]["id"]]["address__city"] == sent[1]["address"]["city"]
        elif stream == "invites":
            assert loaded[sent[0]["id"]]["invitee__email"] == sent[0]["invitee"]["email"]


def test_postgresql_receives_every_row_and_loses_what_is_deleted(
    sandbox: Sandbox, postgres: Postgres
) -> None:
    target = "meltanolabs-target-postgres"
    config = {"sqlalchemy_url": postgres.url, "default_target_schema": "tap", "hard_delete": True}
    settings: dict[str, Any] = {"start_date": "2024-01-01", "emit_activate_version_messages": True}
    rows = shorten(sandbox)
    rows["entries"][0] |= {"fullName": "Ada\0 Example", "badge": {"n\0o": 7}}
    first = sandbox.run_tap(*sandbox.write_catalog(*RESOURCES), **settings)
    assert first.code == 0, first.err
    load(target, config, sandbox.folder, first.out)
    for stream in RESOURCES:
        (counts,) = postgres.query(f"SELECT count(*) n, count(DISTINCT id) d FROM tap.{stream}")  # noqa: S608
        assert counts == {"n": len(rows[stream]), "d": len(rows[stream])}, stream
    columns = "\"fullName\" AS name, \"additionalFields\"->'badge'->>'no' AS badge"
    badge = "\"additionalFields\" ? 'badge'"
    found = postgres.query(f"SELECT {columns} FROM tap.entries WHERE {badge}")  # noqa: S608
    assert found == [{"name": "Ada Example", "badge": "7"}]

    del rows["locations"][3]
    second = sandbox.run_tap(**settings)
    load(target, config, sandbox.folder, second.out)
    ids = [row["id"] for row in postgres.query("SELECT id FROM tap.locations")]
    assert sorted(ids) == sorted(row["id"] for row in rows["locations"])
