"""An Envoy for each test, and the tap pointed at it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tap_envoy.tap import TapEnvoy
from tests.hasty import RETRY
from tests.program import Run, run_tap
from tests.sandbox import Envoy, serve
from tests.sandbox.server import Stage


@dataclass(frozen=True)
class Scene:
    """An Envoy that is being served, and ways to read it with the tap."""

    envoy: Envoy
    address: str
    folder: Path

    @property
    def addresses(self) -> dict[str, Any]:
        return {
            "api_url": f"{self.address}/v1",
            "token_url": f"{self.address}/oauth2/token",
            "requests_per_second": 1000,  # the pace has tests of its own
        }

    @property
    def client(self) -> dict[str, Any]:
        envoy = self.envoy
        return {"client_id": envoy.client_id, "client_secret": envoy.client_secret}

    @property
    def login(self) -> dict[str, Any]:
        return {
            **self.client,
            "username": self.envoy.username,
            "password": self.envoy.password,
        }

    def run(self, *arguments: str, environment: dict[str, str] | None = None, **config: Any) -> Run:
        """Run the tap with these settings, by its API key unless they have another way in."""
        ways = config.keys() & {"api_key", "client_id"}
        settings = self.addresses | ({} if ways else {"api_key": self.envoy.api_key}) | config
        path = self.folder / "config.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        given = {value for value in config.values() if isinstance(value, str) and len(value) > 20}
        hidden = {value for value in given if not value.startswith(("http", "/"))}
        run = run_tap("--config", str(path), *arguments, environment=environment)
        for secret in self.envoy.secrets | hidden:  # those, too, that the run was issued
            assert secret not in run.out + run.err
        return run

    def select(self, *names: str) -> tuple[str, str]:
        """Write a catalogue that selects these streams; returns the option that names it."""
        catalog = TapEnvoy(validate_config=False).catalog_dict
        for stream in catalog["streams"]:
            (root,) = [entry for entry in stream["metadata"] if not entry["breadcrumb"]]
            root["metadata"]["selected"] = stream["tap_stream_id"] in names
        path = self.folder / "catalog.json"
        path.write_text(json.dumps(catalog), encoding="utf-8")
        return "--catalog", str(path)

    def remember(self, state: dict[str, Any]) -> tuple[str, str]:
        """Write a state; returns the option that names it."""
        path = self.folder / "state.json"
        path.write_text(json.dumps(state), encoding="utf-8")
        return "--state", str(path)

    def tap(self, state: Any = None, **config: Any) -> TapEnvoy:
        """Make a tap in this process, for what needs no process of its own."""
        settings = {**self.addresses, "api_key": self.envoy.api_key, **config}
        return TapEnvoy(config=settings, state=state)


def read(tap: TapEnvoy, stream: str = "locations") -> list[dict[str, Any]]:
    """Read a stream of a tap in this process, over HTTP."""
    return [dict(row) for row in tap.streams[stream].get_records(None) if isinstance(row, dict)]


@pytest.fixture(scope="session")
def stage() -> Iterator[tuple[Stage, str]]:
    stage = Stage(Envoy())
    with serve(stage) as address:
        yield stage, address


@pytest.fixture
def scene(stage: tuple[Stage, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(TapEnvoy, "retry", RETRY)
    place, address = stage
    place.envoy = Envoy()
    return Scene(place.envoy, address, tmp_path)
