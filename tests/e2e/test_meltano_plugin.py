"""The plugin definition, added to a new Meltano project without MeltanoHub."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.runner import ROOT, Run, clean_environment, run
from tests.sandbox import Envoy, serve
from tests.sandbox.server import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

MELTANO = Path(sys.executable).with_name("meltano")
DEFINITION = ROOT / "tap_envoy/meltano_plugin.yml"
TARGET = {"name": "target-jsonl", "namespace": "target_jsonl", "pip_url": "target-jsonl"}


@dataclass(frozen=True)
class Project:
    folder: Path

    def meltano(self, *arguments: str, **variables: str) -> Run:
        # Nothing listens on port 9: a look-up in MeltanoHub would fail.
        offline = {"MELTANO_HUB_URL": "http://127.0.0.1:9", "VIRTUAL_ENV": ""}
        return run(
            [str(MELTANO), *arguments],
            environment=clean_environment(**offline, **variables),
            cwd=self.folder,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a new project with the tap, from this checkout, and a target."""
    folder = tmp_path_factory.mktemp("meltano")
    created = Project(folder).meltano("init", "project", "--no-usage-stats")
    assert created.code == 0, created.err
    project = Project(folder / "project")
    definition = yaml.safe_load(DEFINITION.read_text(encoding="utf-8")) | {"pip_url": str(ROOT)}
    for plugin in (definition, TARGET):
        path = folder / f"{plugin['name']}.yml"
        path.write_text(yaml.safe_dump(plugin), encoding="utf-8")
        added = project.meltano("add", plugin["name"], "--from-ref", str(path))
        assert added.code == 0, added.err
    return project


@pytest.fixture
def envoy() -> Envoy:
    return Envoy()


@pytest.fixture
def variables(envoy: Envoy) -> Iterator[dict[str, str]]:
    with serve(envoy) as address:
        yield environment(envoy, address) | {"TAP_ENVOY_REQUESTS_PER_SECOND": "99.5"}


def test_meltano_plugin_selected_stream_reaches_the_target(
    project: Project, envoy: Envoy, variables: dict[str, str]
) -> None:
    assert project.meltano("select", "tap-envoy", "locations", "*").code == 0
    done = project.meltano("run", "tap-envoy", "target-jsonl", **variables)
    assert done.code == 0, done.err
    (path,) = project.folder.glob("locations*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in envoy.rows["locations"]]
    assert {request.path for request in envoy.requests} == {"/v1/locations"}
    for secret in envoy.secrets:
        assert secret not in done.out + done.err


def test_meltano_plugin_password_is_not_written_to_the_project_file(project: Project) -> None:
    dotenv = project.folder / ".env"
    done = project.meltano("config", "set", "tap-envoy", "password", "so-secret")
    try:
        assert done.code == 0, done.err
        assert "so-secret" not in done.out + done.err
        assert "so-secret" not in (project.folder / "meltano.yml").read_text(encoding="utf-8")
        assert dotenv.read_text(encoding="utf-8") == "TAP_ENVOY_PASSWORD='so-secret'\n"
    finally:
        dotenv.unlink(missing_ok=True)


def test_meltano_plugin_config_test_without_credentials_shows_the_cause(project: Project) -> None:
    done = project.meltano("config", "test", "tap-envoy")
    assert done.code != 0
    assert "No credentials: set `api_key`" in done.out + done.err
    assert "Config validation failed" not in done.out + done.err


def test_meltano_plugin_config_test_with_credentials_succeeds(
    project: Project, variables: dict[str, str]
) -> None:
    done = project.meltano("config", "test", "tap-envoy", **variables)
    assert done.code == 0, done.err
    assert "Plugin configuration is valid" in done.out
