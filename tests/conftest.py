"""An Envoy for each test, and the tap pointed at it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tap_envoy.tap import TapEnvoy
from tests.fast_tap import RETRY_POLICY
from tests.runner import Run, run_tap
from tests.sandbox import Envoy, serve
from tests.sandbox.server import Stage

# The same examples in each run; `--hypothesis-profile random` takes others. On a busy machine the
# first examples may take long to generate.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("random"), derandomize=True)
settings.load_profile("fixed")


@dataclass(frozen=True)
class Sandbox:
    """An Envoy that is being served, and ways to read it with the tap."""

    envoy: Envoy
    address: str
    folder: Path

    @property
    def addresses(self) -> dict[str, Any]:
        return {
            "api_url": f"{self.address}/v1",
            "token_url": f"{self.address}/oauth2/token",
            "requests_per_second": 1000,  # the rate limit is tested separately
        }

    @property
    def client(self) -> dict[str, Any]:
        envoy = self.envoy
        return {"client_id": envoy.client_id, "client_secret": envoy.client_secret}

    @property
    def login(self) -> dict[str, Any]:
        user = {"username": self.envoy.username, "password": self.envoy.password}
        return self.client | user

    def write_config(self, **config: Any) -> tuple[str, str]:
        """Write settings, with an API key unless they have a client id; return the option."""
        credentials = config.keys() & {"api_key", "client_id"}
        key = {} if credentials else {"api_key": self.envoy.api_key}
        return "--config", self._write("config.json", self.addresses | key | config)

    def run_tap(
        self, *arguments: str, environment: dict[str, str] | None = None, **config: Any
    ) -> Run:
        """Run the tap with these settings, see `write_config`; assert that no secret is printed."""
        run = run_tap(*self.write_config(**config), *arguments, environment=environment)
        given = {value for value in config.values() if isinstance(value, str) and len(value) > 20}
        hidden = {value for value in given if not value.startswith(("http", "/"))}
        return run.without(self.envoy.secrets | hidden)  # including those issued during the run

    def write_catalog(self, *names: str) -> tuple[str, str]:
        """Write a catalog that selects these streams; return the option."""
        return "--catalog", self._write("catalog.json", catalog(*names))

    def write_state(self, state: Any) -> tuple[str, str]:
        """Write a state; return the option."""
        return "--state", self._write("state.json", state)

    def tap(self, state: Any = None, **config: Any) -> TapEnvoy:
        """Return a tap in this process, for what needs no separate process."""
        settings = {**self.addresses, "api_key": self.envoy.api_key, **config}
        return TapEnvoy(config=settings, state=state)

    def _write(self, name: str, value: Any) -> str:
        path = self.folder / name
        path.write_text(json.dumps(value), encoding="utf-8")
        return str(path)


def catalog(*selected: str) -> dict[str, Any]:
    """Return a catalog that selects these streams."""
    catalog = TapEnvoy(validate_config=False).catalog_dict
    for stream in catalog["streams"]:
        (root,) = [entry for entry in stream["metadata"] if not entry["breadcrumb"]]
        root["metadata"]["selected"] = stream["tap_stream_id"] in selected
    return catalog


def read(tap: TapEnvoy, stream: str = "locations") -> list[dict[str, Any]]:
    """Read a stream of a tap in this process, over HTTP."""
    tap.streams[stream].selected = True
    return [dict(row) for row in tap.streams[stream].request_records(None)]  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def stage() -> Iterator[tuple[Stage, str]]:
    stage = Stage(Envoy())
    with serve(stage) as address:
        yield stage, address


@pytest.fixture
def sandbox(stage: tuple[Stage, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(TapEnvoy, "retry_policy", RETRY_POLICY)
    place, address = stage
    place.envoy = Envoy()
    return Sandbox(place.envoy, address, tmp_path)
