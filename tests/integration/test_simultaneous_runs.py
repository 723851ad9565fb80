"""Several runs at once, each a separate process, that share one token cache."""

import multiprocessing
import os
import random
import time
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

from tap_envoy.auth import EnvoyAuthenticator
from tap_envoy.session import EnvoySession, RateLimiter
from tap_envoy.token_cache import Token, TokenCache
from tests.conftest import Sandbox
from tests.sandbox import ScriptedResponse

DAY = 86400.0
ROUNDS = int(os.environ.get("TEST_ROUNDS", "3"))
# Each run starts with the imports done.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def run(config: dict[str, Any], day: int) -> None:
    """Do what a run does to sign in, on another day, in a separate process."""
    session = EnvoySession(RateLimiter(1000))
    EnvoyAuthenticator(config, ["token.refresh"], session, now=lambda: day * DAY).sign_in()


def start(config: dict[str, Any], day: int) -> ForkServerProcess:
    process = PROCESSES.Process(target=run, args=(config, day))
    process.start()
    return process


def finish(*processes: ForkServerProcess) -> list[int | None]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def cached(config: dict[str, Any]) -> Token:
    owner = (config["token_url"], config["client_id"], config["username"])
    cache = TokenCache(config["token_cache"], *owner)
    with cache.locked():
        return cache.load() or Token()


@pytest.fixture
def config(sandbox: Sandbox) -> dict[str, Any]:
    delays = [random.uniform(0, 0.25) for _ in range(9 * ROUNDS)]  # noqa: S311
    sandbox.envoy.script("/oauth2/token", *[ScriptedResponse(delay=delay) for delay in delays])
    cache = {"token_cache": str(sandbox.folder / "tokens.json")}
    return sandbox.addresses | sandbox.login | cache


def test_simultaneous_runs_spend_each_refresh_token_once(
    sandbox: Sandbox, config: dict[str, Any]
) -> None:
    del config["password"]
    a, b = (
        config | {"username": name, "refresh_token": sandbox.envoy.new_refresh_token()}
        for name in "ab"
    )
    for day in range(ROUNDS):
        assert finish(*[start(user, day) for user in (a, a, b)]) == [0, 0, 0]
        # The sandbox accepts each token once.
        assert {cached(x).refresh_token for x in (a, b)} == {*sandbox.envoy.refresh_tokens}
    assert len(sandbox.envoy.requests) == 2 * ROUNDS


def test_runs_that_are_killed_leave_a_cache_that_works(
    sandbox: Sandbox, config: dict[str, Any]
) -> None:
    other = config | {"username": "b", "refresh_token": sandbox.envoy.new_refresh_token()}
    del other["password"]
    assert finish(start(other, 0)) == [0]
    kept = cached(other)
    for day in range(ROUNDS):
        processes = [start(config, day) for _ in range(3)]
        for process in processes[:2]:
            time.sleep(random.uniform(0, 0.3))  # noqa: S311
            process.kill()
        assert finish(*processes)[2] == 0
        assert cached(config).refresh_token in sandbox.envoy.refresh_tokens
        assert cached(other) == kept
