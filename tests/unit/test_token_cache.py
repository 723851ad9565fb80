import errno
import fcntl
import json
import logging
import os
import re
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tap_envoy.exceptions import RunAbortedError
from tap_envoy.token_cache import Token, TokenCache

TOKEN = Token("access", 1.5, "refresh", ("a", "b"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def store(path: Path | str, *owner: str, token: Token = TOKEN) -> None:
    """Do what a run does that gets a token."""
    cache = TokenCache(str(path), *owner)
    with cache.locked():
        cache.ensure_writable()
        cache.store(token)


def load(path: Path, *owner: str) -> Token | None:
    cache = TokenCache(str(path), *owner)
    with cache.locked():
        return cache.load()


def test_stored_tokens_are_loaded_by_their_owner_only(path: Path) -> None:
    owners = [("a", "b"), ("ab",), ("a", "c"), ("b", "a")]
    for owner in owners:
        assert load(path, *owner) is None
        store(path, *owner, token=Token(" ".join(owner).replace(" ", "-")))
    for owner in owners:
        assert load(path, *owner) == Token("-".join(owner))
    assert not {"a", "b", "ab"} & json.loads(path.read_text()).keys()


def test_path_is_logged_as_an_absolute_one(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tap_envoy")
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    for name in ("tokens.json", "~/tokens.json"):
        store(name)
    assert caplog.messages == [f"Using the token cache {path}."] * 2


def test_files_and_new_folders_are_private(tmp_path: Path) -> None:
    (tmp_path / "old.json").touch(0o644)
    folder = tmp_path / "new" / "folder"
    for path in (folder / "tokens.json", tmp_path / "old.json"):
        store(path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_linked_file_is_written_in_place_beside_its_lock(path: Path, tmp_path: Path) -> None:
    """A container runtime can mount a file, which cannot be replaced then."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "real.json").touch()
    inode = (volume / "real.json").stat().st_ino
    path.symlink_to(volume / "real.json")
    for token in (Token("long" * 100), TOKEN):
        store(path, token=token)
        assert load(path) == token
        assert b" " not in path.read_bytes()
    assert path.is_symlink()
    assert path.stat().st_ino == inode
    assert {file.name for file in volume.iterdir()} == {"real.json", "real.json.lock"}


def test_file_is_valid_before_its_end_is_cut_off(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store(path, token=Token("long" * 100))
    monkeypatch.setattr(os, "fsync", stop)
    cache = TokenCache(str(path))
    with pytest.raises(RunAbortedError, match="Input/output error"), cache.locked():
        cache.store(TOKEN)
    assert load(path) == TOKEN  # and the lock was released


def test_file_keeps_its_tokens_where_the_disk_is_full(path: Path) -> None:
    store(path)
    cache = TokenCache(str(path))
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard_limit))
    try:
        with pytest.raises(RunAbortedError, match="File too large"), cache.locked():
            cache.ensure_writable()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard_limit))
    assert load(path) == TOKEN


@pytest.mark.parametrize("content", [b"{torn", b"[]", b"\xff\xfe"])
def test_damaged_file_is_replaced_with_one_warning(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    store(path)
    assert caplog.messages == [f"The token cache {path} is damaged; replacing it."]
    assert load(path) == TOKEN


@pytest.mark.parametrize("entry", [5, {"access_token": 5}])
def test_damaged_entry_counts_as_none(path: Path, entry: Any) -> None:
    store(path)
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: entry, "other": 1}))
    assert load(path) is None
    store(path)
    assert load(path) == TOKEN
    assert json.loads(path.read_text())["other"] == 1


# What can fail


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/tokens.json", "File exists"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("/proc/tokens.json", "No such file or directory"),
    ],
)
def test_path_that_cannot_be_used_is_reported(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / place
    text = f"The token cache {path} cannot be used ({reason}); set `token_cache` to a file in a dir"
    with pytest.raises(RunAbortedError, match=re.escape(text)):
        store(path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_named(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    text = f"({os.strerror(code)}); set `token_cache` to a file on a local disk: this file system"
    with pytest.raises(RunAbortedError, match=re.escape(text)):
        store(path)


def test_wait_for_another_run_is_logged_and_ends(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tap_envoy")
    monkeypatch.setattr("tap_envoy.token_cache.QUIET_WAIT", 0.05)
    monkeypatch.setattr("tap_envoy.token_cache.LOCK_TIMEOUT", 0.05)
    text = f"The token cache {path} is locked by another run; end that run, or set another"
    with (
        TokenCache(str(path)).locked(),
        ThreadPoolExecutor(1) as other_run,
        pytest.raises(RunAbortedError, match=text),
    ):
        other_run.submit(store, path).result()
    assert caplog.messages[-1] == f"Waiting for another run that has locked {path}."
