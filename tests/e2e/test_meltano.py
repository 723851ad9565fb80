"""`meltano run`, in a copy of this project, into real targets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pytest

from tap_envoy.records import format_timestamp
from tap_envoy.slices import OVERLAP
from tests.runner import ROOT, Run, clean_environment, run
from tests.sandbox import Envoy, serve
from tests.sandbox.data import entries
from tests.sandbox.server import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

MELTANO = Path(sys.executable).with_name("meltano")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("meltano.yml", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tap_envoy", folder / "tap_envoy")
    return folder


@pytest.fixture(scope="module")
def envoy() -> Envoy:
    return Envoy()


@pytest.fixture(scope="module")
def meltano_run(project: Path, envoy: Envoy) -> Run:
    """Run the project with its own settings."""
    (project / "output").mkdir()
    with serve(envoy) as address:
        variables = environment(envoy, address) | {"VIRTUAL_ENV": ""}
        done = run(
            [str(MELTANO), "run", "tap-envoy", "target-jsonl"],
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
def test_target_jsonl_receives_every_location(project: Path, envoy: Envoy) -> None:
    (path,) = (project / "output").glob("locations*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == expected(envoy)
    for secret in envoy.secrets:
        assert secret not in path.read_text(encoding="utf-8")


def test_meltano_selects_locations_alone_by_default(meltano_run: Run, envoy: Envoy) -> None:
    assert {request.path for request in envoy.requests} == {"/v1/locations"}
    assert "Run completed" in meltano_run.err + meltano_run.out


@pytest.mark.usefixtures("meltano_run")
def test_target_duckdb_receives_all_streams(project: Path, envoy: Envoy) -> None:
    with serve(envoy) as address:
        variables = environment(envoy, address) | {
            "VIRTUAL_ENV": "",
            "TAP_ENVOY__SELECT": '["*.*"]',
            "TAP_ENVOY_START_DATE": "2024-01-01",
            "TAP_ENVOY_REQUESTS_PER_SECOND": "100",
        }
        done = run(
            [str(MELTANO), "run", "tap-envoy", "target-duckdb"],
            environment=clean_environment(**variables),
            cwd=project,
            hidden=envoy.secrets,
        )
    assert done.code == 0, done.err
    columns = "id, name, enabled, capacitylimit, address"
    with duckdb.connect(project / "output" / "warehouse.duckdb", read_only=True) as database:
        for stream, rows in envoy.rows.items():
            table = database.sql(f"SELECT count(*), count(DISTINCT id) FROM envoy.{stream}")  # noqa: S608
            assert table.fetchall() == [(len(rows), len(rows))], stream
        found = database.sql(f"SELECT {columns} FROM envoy.locations").fetchall()  # noqa: S608
    stored = {row[0]: row[1:] for row in found}
    for location in expected(envoy):
        name, enabled, limit, address = stored[location["id"]]
        assert name == location["name"]
        assert enabled == location["enabled"]
        assert limit == location.get("capacityLimit")
        assert json.loads(address or "null") == location["address"]


# State


@pytest.fixture
def meltano(project: Path, meltano_run: Run) -> Iterator[Meltano]:
    """Return a project in which all plugins are installed, with a new Envoy."""
    assert meltano_run.code == 0
    envoy = Envoy()
    with serve(envoy) as address:
        variables = environment(envoy, address) | {
            "VIRTUAL_ENV": "",
            "TAP_ENVOY__SELECT": '["entries.*"]',
            "TAP_ENVOY_REQUESTS_PER_SECOND": "100",
        }
        yield Meltano(project, envoy, clean_environment(**variables))


@dataclass(frozen=True)
class Meltano:
    project: Path
    envoy: Envoy
    environment: dict[str, str]

    def __call__(self, *arguments: str, **variables: str) -> Run:
        environment = {k: v for k, v in (self.environment | variables).items() if v}
        return run([str(MELTANO), *arguments], environment=environment, cwd=self.project)

    def rows(self) -> list[dict[str, Any]]:
        """Return what is in the files of entries, which are removed."""
        rows = []
        for path in sorted((self.project / "output").glob("entries*.jsonl")):
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            path.unlink()
        return rows


RUN = ("run", "--state-id-suffix")


def test_meltano_keeps_state_between_runs(meltano: Meltano) -> None:
    assert meltano(*RUN, "kept", "tap-envoy", "target-jsonl").code == 0
    assert len(meltano.rows()) == 320
    last = meltano.envoy.rows["entries"][-1]
    meltano.envoy.rows["entries"].append({**last, "id": "v-new"})
    meltano.envoy.requests.clear()
    assert meltano(*RUN, "kept", "tap-envoy", "target-jsonl").code == 0
    rows = meltano.rows()
    assert len(rows) == 7 * 24 + 2
    assert rows[-1]["id"] == "v-new"
    since = datetime.fromisoformat(last["signedInAt"]) - timedelta(days=7) - OVERLAP
    assert meltano.envoy.requests[0].query["signedInAtAfter"] == format_timestamp(since)
    # Meltano passes the catalog of the last run.
    done = meltano("invoke", "tap-envoy", "--test")
    assert done.code == 0, done.err
    assert "ok         entries: 321 rows" in done.out
    assert "1 of 1 stream can be read." in done.out


def test_meltano_resumes_an_interrupted_run(meltano: Meltano) -> None:
    meltano.envoy.rows["entries"] = entries(9000)
    command = [str(MELTANO), *RUN, "broken", "tap-envoy", "target-jsonl"]
    slow = meltano.environment | {"TAP_ENVOY_REQUESTS_PER_SECOND": "10"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=slow, cwd=meltano.project, stdout=pipe, stderr=pipe
    ) as process:
        deadline = time.monotonic() + 60
        while len(meltano.envoy.requests) < 30:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        (tap,) = [child for child in children if "bin/tap-envoy" in " ".join(child.cmdline())]
        tap.terminate()
        process.communicate(timeout=60)
    assert process.returncode != 0
    came = {row["id"] for row in meltano.rows()}
    assert 1000 < len(came) < 9000
    done = meltano(*RUN, "broken", "tap-envoy", "target-jsonl")
    assert done.code == 0, done.err
    again = meltano.rows()
    assert came | {row["id"] for row in again} == {r["id"] for r in meltano.envoy.rows["entries"]}
    assert len(again) < 9000 - len(came) + 500
