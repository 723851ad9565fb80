"""Tokens that outlive a run: kept for their owner alone, and never spent in vain."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Scene, read
from tests.program import run_tap
from tests.sandbox import Answer

TOKEN = "/oauth2/token"


def grants(scene: Scene) -> list[str]:
    return [request.form["grant_type"] for request in scene.envoy.asked(TOKEN)]


@pytest.fixture
def cache(scene: Scene) -> Path:
    return scene.folder / "new" / "folder" / "tokens.json"


def entry(cache: Path) -> dict[str, Any]:
    (value,) = json.loads(cache.read_text()).values()
    return dict(value)


def test_a_second_run_needs_no_token_request(scene: Scene, cache: Path) -> None:
    for _ in range(2):
        run = scene.run(token_cache=str(cache), **scene.login)
        assert run.code == 0
        assert len(run.records()) == 250
    assert grants(scene) == ["password"]


def test_the_file_and_its_folders_are_for_their_owner_alone(scene: Scene, cache: Path) -> None:
    old = os.umask(0)
    try:
        scene.run(token_cache=str(cache), **scene.login)
    finally:
        os.umask(old)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    for folder in (cache.parent, cache.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in cache.parent.iterdir()] == ["tokens.json"]
    text = cache.read_text()
    for secret in (scene.envoy.client_secret, scene.envoy.password, scene.envoy.username):
        assert secret not in text


def test_a_rotated_refresh_token_replaces_the_one_of_the_settings(
    scene: Scene, cache: Path
) -> None:
    token = scene.envoy.new_refresh_token("locations.read")
    config = {**scene.client, "refresh_token": token, "token_cache": str(cache)}
    assert scene.run(**config).code == 0
    scene.envoy.revoke()
    assert scene.run(**config).code == 0
    sent = [request.form["refresh_token"] for request in scene.envoy.asked(TOKEN)]
    assert sent[0] == token
    assert sent[1] != token  # the sandbox takes each of them once


def test_a_new_token_is_written_before_it_is_used(scene: Scene, cache: Path) -> None:
    scene.envoy.script("/v1/locations", Answer(404, b""))
    assert scene.run(token_cache=str(cache), **scene.login).code == 1
    assert entry(cache)["access_token"] in scene.envoy.access_tokens


@pytest.mark.parametrize("changed", ["username", "client_id", "token_url"])
def test_changed_credentials_never_meet_anothers_token(
    scene: Scene, cache: Path, changed: str
) -> None:
    scene.run(token_cache=str(cache), **scene.login)
    before = len(scene.envoy.requests)
    value = f"{scene.address}/elsewhere" if changed == "token_url" else "somebody-else"
    run = scene.run(token_cache=str(cache), **{**scene.login, changed: value})
    assert run.code == 1
    assert len(scene.envoy.requests[before:]) <= 1  # a login that is refused, and no list
    assert "/v1/locations" not in {r.path for r in scene.envoy.requests[before:]}


def test_another_refresh_token_in_the_settings_is_another_user(scene: Scene, cache: Path) -> None:
    for _ in range(2):
        token = scene.envoy.new_refresh_token("locations.read")
        run = scene.run(refresh_token=token, token_cache=str(cache), **scene.client)
        assert run.code == 0
    assert grants(scene) == ["refresh_token", "refresh_token"]
    assert len(json.loads(cache.read_text())) == 2


def test_a_token_with_too_few_scopes_is_not_used(scene: Scene, cache: Path) -> None:
    scene.run(token_cache=str(cache), **scene.login)
    run = scene.run(*scene.select("spaces"), token_cache=str(cache), **scene.login)
    assert run.code == 0, run.errors
    assert grants(scene) == ["password", "password"]


@pytest.mark.parametrize(
    "content", [b"", b"{torn", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}', b"null"]
)
def test_a_damaged_file_is_replaced(scene: Scene, cache: Path, content: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    run = scene.run(token_cache=str(cache), **scene.login)
    assert run.code == 0
    assert ("is made anew" in run.err) == (content != b'{"a": 1}')
    assert scene.run(token_cache=str(cache), **scene.login).code == 0
    assert grants(scene) == ["password"]


def test_a_file_that_cannot_be_written_ends_the_run_before_a_token_is_spent(scene: Scene) -> None:
    blocker = scene.folder / "file"
    blocker.write_text("not a folder")
    token = scene.envoy.new_refresh_token("locations.read")
    for path in (blocker / "tokens.json", scene.folder):
        run = scene.run(refresh_token=token, token_cache=str(path), **scene.client)
        run.failed_with("cannot be written", "`token_cache`")
    assert scene.envoy.requests == []


def test_a_token_that_another_run_has_renewed_is_taken_over(scene: Scene, cache: Path) -> None:
    config = {**scene.login, "token_cache": str(cache), "api_key": None}
    one, other = scene.tap(**config), scene.tap(**config)
    read(one)
    read(other)
    scene.envoy.revoke()
    read(one)  # renews, and so spends the refresh token that both have
    assert grants(scene) == ["password", "refresh_token"]
    read(other)
    assert grants(scene) == ["password", "refresh_token"]


def test_a_refused_refresh_looks_at_the_file_once_more(scene: Scene, cache: Path) -> None:
    token = scene.envoy.new_refresh_token("locations.read")
    config = {**scene.client, "refresh_token": token, "token_cache": str(cache), "api_key": None}
    tap = scene.tap(**config)
    read(tap)
    spent = entry(cache)["refresh_token"]
    newer = scene.envoy.new_refresh_token("locations.read")
    scene.envoy.revoke()
    scene.envoy.refresh_tokens.pop(spent)

    def rotate(*_: object) -> None:
        value = json.loads(cache.read_text())
        for tokens in value.values():
            tokens["refresh_token"] = newer
        cache.write_text(json.dumps(value))

    scene.envoy.before_token = rotate  # as another run would, while this one asks
    assert len(read(tap)) == 250
    assert [r.form["refresh_token"] for r in scene.envoy.asked(TOKEN)] == [token, spent, newer]


def test_without_a_way_back_a_dead_token_is_told(scene: Scene, cache: Path) -> None:
    token = scene.envoy.new_refresh_token("locations.read")
    config = {**scene.client, "refresh_token": token, "token_cache": str(cache)}
    assert scene.run(**config).code == 0
    scene.envoy.revoke()
    scene.envoy.refresh_tokens.clear()
    scene.run(**config).failed_with("refresh grant", "get a new one")
    assert len(scene.envoy.asked(TOKEN)) == 2


def test_discovery_never_touches_it(scene: Scene, cache: Path) -> None:
    config = {**scene.addresses, **scene.login, "token_cache": str(cache)}
    (scene.folder / "config.json").write_text(json.dumps(config))
    for argument in ("--discover", "--about"):
        assert run_tap("--config", str(scene.folder / "config.json"), argument).code == 0
    assert not cache.parent.exists()


@given(
    content=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(
                ["access_token", "renew_at", "refresh_token", "refresh_until", "scopes"]
            ),
            inner,
        ),
        max_leaves=6,
    )
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_file_holds_the_run_goes_on(scene: Scene, content: Any) -> None:
    cache = scene.folder / "tokens.json"
    cache.unlink(missing_ok=True)
    config = {**scene.login, "token_cache": str(cache), "api_key": None}
    if not isinstance(content, bytes):
        read(scene.tap(**config))
        (key,) = json.loads(cache.read_text())
        content = json.dumps({key: content}).encode("utf-8", "surrogatepass")
    cache.write_bytes(content)
    assert len(read(scene.tap(**config))) == 250
