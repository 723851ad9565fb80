"""The README's Meltano project, into PostgreSQL, and the demo."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tap_envoy.records import format_timestamp
from tap_envoy.slices import OVERLAP
from tests.e2e.conftest import Postgres
from tests.readme import block
from tests.runner import ROOT, Run, clean_environment, run
from tests.sandbox import Envoy, serve
from tests.sandbox.server import environment

MELTANO = Path(sys.executable).with_name("meltano")

ENVIRONMENT = {
    "MELTANO_HUB_URL": "http://127.0.0.1:9",  # nothing listens there: a look-up would fail
    "PYTHONDONTWRITEBYTECODE": "",  # else each start of Meltano compiles it
    "TAP_ENVOY_LOGLEVEL": "INFO",
    "VIRTUAL_ENV": "",
}

MAX_LINES = 8


@dataclass(frozen=True)
class Project:
    """A Meltano project, and the Envoy that it reads."""

    folder: Path
    envoy: Envoy
    variables: dict[str, str]

    def define(self, definition: dict[str, Any]) -> None:
        """Write `meltano.yml`; a plugin that it shares with the last one stays installed."""
        (tap,) = definition["plugins"]["extractors"]
        tap["pip_url"] = f"-e {ROOT}"  # `uv` would install a wheel that it built earlier
        path = self.folder / "meltano.yml"
        path.write_text(yaml.safe_dump(definition), encoding="utf-8")

    def meltano(self, *arguments: str) -> Run:
        """Run Meltano, whose code is not measured."""
        variables = clean_environment(**ENVIRONMENT, **self.variables).items()
        done = run(
            [str(MELTANO), *arguments],
            environment={name: x for name, x in variables if not name.startswith("COVERAGE")},
            cwd=self.folder,
        )
        return done.without(self.envoy.secrets)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Project]:
    envoy = Envoy()
    with serve(envoy) as address:
        variables = environment(envoy, address) | {"TARGET_POSTGRES_SQLALCHEMY_URL": postgres.url}
        yield Project(tmp_path_factory.mktemp("project"), envoy, variables)


def readme_project() -> dict[str, Any]:
    """Return the README's blocks, with the recipes against personal data."""
    text = "\n".join(block(heading, "yaml") for heading in ("With Meltano", "In PostgreSQL"))
    project: dict[str, Any] = yaml.safe_load(text)
    (tap,) = project["plugins"]["extractors"]
    tap["config"] |= yaml.safe_load(block("Personal data", "yaml"))
    tap["select"] += ["invites.*"]
    return project | {
        "default_environment": "dev",
        "environments": [{"name": "dev"}],
        "send_anonymous_usage_stats": False,
    }


def test_readme_project_when_run_twice_brings_hashed_rows_to_postgresql_and_continues(
    project: Project, postgres: Postgres
) -> None:
    project.define(readme_project())
    first = project.meltano("run", "tap-envoy", "target-postgres")
    assert first.code == 0, first.err
    result = postgres.server.psql(block("In PostgreSQL", "sql"))
    assert [line.rstrip() for line in result.splitlines()[:5]] == [
        line.rstrip() for line in block("In PostgreSQL", "text").splitlines()
    ]
    entries, invites = (postgres.query(f"TABLE envoy.{name}") for name in ("entries", "invites"))
    assert len(entries) == len(project.envoy.rows["entries"])
    assert len(invites) == len(project.envoy.rows["invites"])
    removed = {"fullName", "customFields", "additionalFields", "invitee", "host", "notes"}
    assert not removed & (entries[0].keys() | invites[0].keys())
    hashes = [row["email"] for row in entries] + [row["inviteeEmail"] for row in invites]
    given = list(filter(None, hashes))
    assert len(given) > 100
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in given)

    last = project.envoy.rows["entries"][-1]
    project.envoy.rows["entries"].append({**last, "id": "v-new"})
    project.envoy.requests.clear()
    second = project.meltano("run", "tap-envoy", "target-postgres")
    assert second.code == 0, second.err
    (counts,) = postgres.query("SELECT count(*) n, count(DISTINCT id) d FROM envoy.entries")
    assert counts == {"n": len(entries) + 1, "d": len(entries) + 1}
    since = datetime.fromisoformat(last["signedInAt"]) - timedelta(days=7) - OVERLAP
    (request, *_) = project.envoy.requests_for("/v1/entries")
    assert request.query["signedInAtAfter"] == format_timestamp(since)


def test_meltano_invoke_test_shows_which_selected_stream_is_forbidden(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.define(readme_project())
    scopes = project.envoy.integration_scopes - {"invites.read"}
    monkeypatch.setattr(project.envoy, "integration_scopes", scopes)
    done = project.meltano("invoke", "tap-envoy", "--test")
    assert done.code != 0
    assert "forbidden  invites" in done.out
    assert "2 of 3 streams can be read." in done.out


def test_demo_command_of_the_readme_writes_locations_without_a_warning(project: Project) -> None:
    """What it runs: the `meltano.yml` of this repository, against the sandbox."""
    project.define(yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8")))
    project.envoy.requests.clear()
    done = project.meltano("run", "tap-envoy", "target-jsonl")
    assert done.code == 0, done.err
    (path,) = (project.folder / "output").glob("locations*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in project.envoy.rows["locations"]]
    assert {request.path for request in project.envoy.requests} == {"/v1/locations"}
    lines = [line for line in done.err.splitlines() if "] tap-envoy" in line]
    own = [line for line in lines if "METRIC" not in line]
    assert not [line for line in own if "[info " not in line]
    assert 0 < len(own) <= MAX_LINES, own
