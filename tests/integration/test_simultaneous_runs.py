"""Several runs at once, each a separate process, that share one token cache."""

import logging
import multiprocessing
import os
import random
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tap_envoy.auth import EnvoyAuthenticator
from tap_envoy.http import EnvoySession, RateLimiter, RetryPolicy
from tap_envoy.token_cache import CachedToken, TokenCache
from tests.unit.local_server import serve
from tests.unit.token_server import TokenServer

ROUNDS = int(os.environ.get("TEST_ROUNDS", "4"))
# Each run starts with the imports done.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def cache(path: Path, owner: str) -> TokenCache:
    return TokenCache(str(path), owner, logger=logging.getLogger("test"))


def run(url: str, path: Path, owner: str, day: int, password: str | None) -> None:
    """Do what a run does to sign in, on another day, in a separate process."""
    EnvoyAuthenticator(
        token_url=url,
        client_id="client",
        client_secret="client-secret",
        username=owner if password else None,
        password=password,
        refresh_token=None,
        session=EnvoySession(RateLimiter(1000)),
        timeout=10,
        retry_policy=RetryPolicy(max_time=0),
        token_cache=cache(path, owner),
        now=lambda: datetime(2024, 5, 17, tzinfo=UTC) + timedelta(days=day),
    ).sign_in()


def start(*arguments: Any) -> ForkServerProcess:
    process = PROCESSES.Process(target=run, args=arguments)
    process.start()
    return process


def finish(*processes: ForkServerProcess) -> list[int | None]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def refresh_token(path: Path, owner: str) -> str:
    tokens = cache(path, owner).load()
    assert tokens is not None
    assert tokens.refresh_token is not None
    return tokens.refresh_token


@pytest.mark.parametrize("runs", [["a", "a"], ["a", "a", "b"]], ids=["two", "three"])
def test_simultaneous_runs_spend_each_refresh_token_once(path: Path, runs: list[str]) -> None:
    server = TokenServer()
    server.max_delay = 0.25
    owners = sorted({*runs})
    with serve(server) as url:
        for owner in owners:
            cache(path, owner).store(CachedToken(refresh_token=server.new_refresh_token(owner)))
        for day in range(ROUNDS):
            processes = [start(url, path, owner, day, None) for owner in runs]
            assert finish(*processes) == [0] * len(runs)
            assert {refresh_token(path, owner) for owner in owners} == server.live
    assert server.reused == []
    assert len(server.received) == ROUNDS * len(owners)


def test_runs_that_are_killed_leave_a_cache_that_works(path: Path) -> None:
    server = TokenServer()
    server.max_delay = 0.25
    with serve(server) as url:
        cache(path, "b").store(CachedToken(refresh_token=server.new_refresh_token("b")))
        kept = refresh_token(path, "b")
        for day in range(ROUNDS):
            processes = [start(url, path, "a", day, "password") for _ in range(3)]
            for process in processes[:2]:
                time.sleep(random.uniform(0, 0.3))  # noqa: S311
                process.kill()
            assert finish(*processes)[2] == 0
            assert refresh_token(path, "a") in server.live
            assert refresh_token(path, "b") == kept
    assert {file.name for file in path.parent.iterdir()} <= {
        "tokens.json",
        "tokens.json.lock",
        "tokens.json.tmp",
    }
