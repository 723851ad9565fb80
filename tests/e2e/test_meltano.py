"""The README's Meltano project: three runs of `meltano run`, into real targets."""

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
from tests.readme import block
from tests.runner import ROOT, Run, clean_environment, run
from tests.sandbox import Envoy, serve
from tests.sandbox.server import environment

MELTANO = Path(sys.executable).with_name("meltano")

# Nothing listens on port 9: a look-up in MeltanoHub would fail.
OFFLINE = {"MELTANO_HUB_URL": "http://127.0.0.1:9", "VIRTUAL_ENV": ""}

LOADER = {
    "name": "target-jsonl",
    "namespace": "target_jsonl",
    "pip_url": "target-jsonl",
    "settings": [{"name": "destination_path"}],
    "config": {"destination_path": "output"},
}

MAX_LINES = 8


@dataclass(frozen=True)
class Project:
    """A Meltano project, and the Envoy that it reads."""

    folder: Path
    envoy: Envoy
    variables: dict[str, str]

    def meltano(self, *arguments: str) -> Run:
        return run(
            [str(MELTANO), *arguments],
            environment=clean_environment(**OFFLINE, **self.variables, TAP_ENVOY_LOGLEVEL="INFO"),
            cwd=self.folder,
            hidden=self.envoy.secrets,
        )

    def rows(self, stream: str) -> list[dict[str, Any]]:
        """Return what is in the target's files of a stream, which are removed."""
        rows = []
        for path in sorted((self.folder / "output").glob(f"{stream}*.jsonl")):
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            path.unlink()
        return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project with the README's blocks, and a target that needs no server."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "output").mkdir()
    plugins = yaml.safe_load(block("With Meltano", "yaml"))["plugins"]
    (tap,) = plugins["extractors"]
    tap["pip_url"] = f"-e {ROOT}"  # `uv` would install a wheel that it built earlier
    tap["config"]["start_date"] = "2024-01-01"
    tap["config"] |= yaml.safe_load(block("Personal data", "yaml"))
    tap["select"] += ["invites.*"]
    envoy = Envoy()
    with serve(envoy) as address:
        tap["config"]["api_url"] = f"{address}/v1"
        _write_project(folder, tap)
        yield Project(folder, envoy, environment(envoy, address))


def _write_project(folder: Path, tap: dict[str, Any]) -> None:
    definition = {
        "default_environment": "dev",
        "environments": [{"name": "dev"}],
        "send_anonymous_usage_stats": False,
        "plugins": {"extractors": [tap], "loaders": [LOADER]},
    }
    (folder / "meltano.yml").write_text(yaml.safe_dump(definition), encoding="utf-8")


def test_readme_block_and_recipes_when_run_twice_bring_hashed_rows_and_continue(
    project: Project,
) -> None:
    first = project.meltano("run", "tap-envoy", "target-jsonl")
    assert first.code == 0, first.err
    assert len(project.rows("locations")) == 250
    entries, invites = project.rows("entries"), project.rows("invites")
    assert [row["id"] for row in entries] == [row["id"] for row in project.envoy.rows["entries"]]
    assert len(invites) == len(project.envoy.rows["invites"])
    removed = {"fullName", "customFields", "additionalFields", "invitee", "host", "notes"}
    assert not removed & {name for row in entries + invites for name in row}
    hashes = [row["email"] for row in entries] + [row["inviteeEmail"] for row in invites]
    given = list(filter(None, hashes))
    assert len(given) > 100
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in given)

    last = project.envoy.rows["entries"][-1]
    project.envoy.rows["entries"].append({**last, "id": "v-new"})
    project.envoy.requests.clear()
    second = project.meltano("run", "tap-envoy", "target-jsonl")
    assert second.code == 0, second.err
    rows = project.rows("entries")
    assert len(rows) < len(entries)
    assert rows[-1]["id"] == "v-new"
    since = datetime.fromisoformat(last["signedInAt"]) - timedelta(days=7) - OVERLAP
    (request, *_) = project.envoy.requests_for("/v1/entries")
    assert request.query["signedInAtAfter"] == format_timestamp(since)


def test_meltano_invoke_test_shows_which_selected_stream_is_forbidden(project: Project) -> None:
    project.envoy.integration_scopes = project.envoy.integration_scopes - {"invites.read"}
    done = project.meltano("invoke", "tap-envoy", "--test")
    assert done.code != 0
    assert "forbidden  invites" in done.out
    assert "2 of 3 streams can be read." in done.out


def test_demo_command_of_the_readme_writes_locations_without_a_warning(tmp_path: Path) -> None:
    """What it runs: the project's own `meltano.yml`, against the sandbox."""
    text = (ROOT / "meltano.yml").read_text(encoding="utf-8")
    assert "pip_url: -e ." in text
    project = text.replace("pip_url: -e .", f"pip_url: -e {ROOT}")
    (tmp_path / "meltano.yml").write_text(project, encoding="utf-8")
    (tmp_path / "output").mkdir()
    envoy = Envoy()
    with serve(envoy) as address:
        demo = Project(tmp_path, envoy, environment(envoy, address))
        done = demo.meltano("run", "tap-envoy", "target-jsonl")
    assert done.code == 0, done.err
    assert [row["id"] for row in demo.rows("locations")] == [
        row["id"] for row in envoy.rows["locations"]
    ]
    assert {request.path for request in envoy.requests} == {"/v1/locations"}
    lines = [line for line in done.err.splitlines() if "] tap-envoy" in line]
    own = [line for line in lines if "METRIC" not in line]
    assert not [line for line in own if "[info " not in line]
    assert 0 < len(own) <= MAX_LINES, own
