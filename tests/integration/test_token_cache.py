"""The token cache between runs, and between taps that run at the same time."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tests.conftest import Sandbox, read
from tests.runner import run_tap
from tests.sandbox import ScriptedResponse

TOKEN = "/oauth2/token"


@pytest.fixture
def cache(sandbox: Sandbox) -> Path:
    return sandbox.folder / "new" / "folder" / "tokens.json"


def read_once(sandbox: Sandbox, cache: Path, **credentials: Any) -> None:
    """Read locations with a new tap, as a run would."""
    rows = read(sandbox.tap(api_key=None, token_cache=str(cache), **credentials))
    assert len(rows) == 250


def grants(sandbox: Sandbox) -> list[str]:
    return [request.form["grant_type"] for request in sandbox.envoy.requests_for(TOKEN)]


def test_second_run_needs_no_token_request(sandbox: Sandbox, cache: Path) -> None:
    for _ in range(2):
        read_once(sandbox, cache, **sandbox.login)
    assert grants(sandbox) == ["password"]
    text = cache.read_text()
    for secret in (sandbox.envoy.client_secret, sandbox.envoy.password, sandbox.envoy.username):
        assert secret not in text


def test_rotated_refresh_token_is_used_by_the_next_run(sandbox: Sandbox, cache: Path) -> None:
    token = sandbox.envoy.new_refresh_token("locations.read")
    for _ in range(2):
        read_once(sandbox, cache, refresh_token=token, **sandbox.client)
        sandbox.envoy.revoke_access_tokens()
    sent = [request.form["refresh_token"] for request in sandbox.envoy.requests_for(TOKEN)]
    assert sent[0] == token
    assert sent[1] != token  # the sandbox accepts each of them once


def test_token_is_stored_before_it_is_used(sandbox: Sandbox, cache: Path) -> None:
    sandbox.envoy.script("/v1/locations", ScriptedResponse(404, b""))
    with pytest.raises(EnvoyError, match="HTTP 404"):
        read_once(sandbox, cache, **sandbox.login)
    (entry,) = json.loads(cache.read_text()).values()
    assert entry["access_token"] in sandbox.envoy.access_tokens


@pytest.mark.parametrize("changed", ["username", "client_id", "token_url"])
def test_token_is_not_used_with_other_credentials(
    sandbox: Sandbox, cache: Path, changed: str
) -> None:
    read_once(sandbox, cache, **sandbox.login)
    sandbox.envoy.requests.clear()
    value = f"{sandbox.address}/elsewhere" if changed == "token_url" else "somebody-else"
    with pytest.raises(RunAbortedError):
        read_once(sandbox, cache, **{**sandbox.login, changed: value})
    assert sandbox.envoy.requests_for("/v1/locations") == []


def test_another_configured_refresh_token_is_another_user(sandbox: Sandbox, cache: Path) -> None:
    for _ in range(2):
        token = sandbox.envoy.new_refresh_token("locations.read")
        read_once(sandbox, cache, refresh_token=token, **sandbox.client)
    assert grants(sandbox) == ["refresh_token", "refresh_token"]
    assert len(json.loads(cache.read_text())) == 2


def test_token_renewed_by_another_tap_is_taken_from_the_cache(
    sandbox: Sandbox, cache: Path
) -> None:
    config = {**sandbox.login, "token_cache": str(cache), "api_key": None}
    first, second = sandbox.tap(**config), sandbox.tap(**config)
    read(first)
    read(second)
    sandbox.envoy.revoke_access_tokens()
    read(first)  # spends the refresh token that both have
    assert len(read(second)) == 250
    assert grants(sandbox) == ["password", "refresh_token"]


def test_cache_that_cannot_be_written_aborts_the_run_before_a_token_is_spent(
    sandbox: Sandbox,
) -> None:
    blocker = sandbox.folder / "file"
    blocker.write_text("not a folder")
    token = sandbox.envoy.new_refresh_token("locations.read")
    for path in (blocker / "tokens.json", sandbox.folder):
        with pytest.raises(RunAbortedError, match="`token_cache`"):
            read_once(sandbox, path, refresh_token=token, **sandbox.client)
    assert sandbox.envoy.requests == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs procfs")
def test_cache_whose_lock_cannot_be_created_is_reported_at_once(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    with pytest.raises(RunAbortedError, match="`token_cache`"):
        read_once(sandbox, Path("/proc/tokens.json"), **sandbox.login)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("argument", ["--discover", "--about"])
def test_discovery_does_not_create_the_cache(sandbox: Sandbox, cache: Path, argument: str) -> None:
    option = sandbox.write_config(**sandbox.login, token_cache=str(cache))
    assert run_tap(*option, argument).code == 0
    assert not cache.parent.exists()
