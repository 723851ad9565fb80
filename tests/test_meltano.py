"""`meltano run`, end to end, in a project like this one, into real targets."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.program import HERE, Run, clean_environment, run
from tests.sandbox import Envoy, serve
from tests.sandbox.server import environment

MELTANO = Path(sys.executable).with_name("meltano")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("meltano.yml", "pyproject.toml", "README.md"):
        shutil.copy(HERE / name, folder)
    shutil.copytree(HERE / "tap_envoy", folder / "tap_envoy")
    return folder


@pytest.fixture(scope="module")
def envoy() -> Envoy:
    return Envoy()


@pytest.fixture(scope="module")
def meltano_run(project: Path, envoy: Envoy) -> Run:
    """Run the project as it stands, into both of its loaders."""
    (project / "output").mkdir()
    with serve(envoy) as address:
        variables = environment(envoy, address) | {"VIRTUAL_ENV": ""}
        done = run(
            [str(MELTANO), "run", "tap-envoy", "target-jsonl", "tap-envoy", "target-duckdb"],
            environment=clean_environment(**variables, MELTANO_CLI_LOG_LEVEL="debug"),
            cwd=project,
            hidden=envoy.secrets,
        )
    assert done.code == 0, done.err
    return done


def expected(envoy: Envoy) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "printerIds"}
        for row in envoy.rows["locations"]
    ]


@pytest.mark.usefixtures("meltano_run")
def test_target_jsonl_has_every_location(project: Path, envoy: Envoy) -> None:
    (path,) = (project / "output").glob("locations*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == expected(envoy)
    for secret in envoy.secrets:
        assert secret not in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("meltano_run")
def test_target_duckdb_has_every_location(project: Path, envoy: Envoy) -> None:
    with duckdb.connect(project / "output" / "warehouse.duckdb", read_only=True) as database:
        table = database.sql(
            "SELECT id, name, enabled, capacitylimit, address FROM envoy.locations"
        )
        rows = {row[0]: row[1:] for row in table.fetchall()}
    assert len(rows) == 250
    for location in expected(envoy):
        name, enabled, limit, address = rows[location["id"]]
        assert name == location["name"]
        assert enabled == location["enabled"]
        assert limit == location.get("capacityLimit")
        assert json.loads(address or "null") == location["address"]


def test_meltano_selects_locations_alone(meltano_run: Run, envoy: Envoy) -> None:
    assert {request.path for request in envoy.requests} == {"/v1/locations"}
    assert "Run completed" in meltano_run.err + meltano_run.out


@pytest.mark.usefixtures("meltano_run")
def test_all_nine_streams_come_whole_into_a_warehouse(project: Path, envoy: Envoy) -> None:
    with serve(envoy) as address:
        variables = environment(envoy, address) | {
            "VIRTUAL_ENV": "",
            "TAP_ENVOY__SELECT": '["*.*"]',
            "TAP_ENVOY_START_DATE": "2024-01-01",
            "TAP_ENVOY_REQUESTS_PER_SECOND": "100",
            "TARGET_DUCKDB_PATH": "output/all.duckdb",
        }
        done = run(
            [str(MELTANO), "run", "tap-envoy", "target-duckdb"],
            environment=clean_environment(**variables),
            cwd=project,
            hidden=envoy.secrets,
        )
    assert done.code == 0, done.err
    with duckdb.connect(project / "output" / "all.duckdb", read_only=True) as database:
        for stream, rows in envoy.rows.items():
            table = database.sql(f"SELECT count(*), count(DISTINCT id) FROM envoy.{stream}")  # noqa: S608
            assert table.fetchall() == [(len(rows), len(rows))], stream
