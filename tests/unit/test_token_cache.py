import errno
import fcntl
import json
import logging
import os
import resource
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tap_envoy.exceptions import RunAbortedError
from tap_envoy.token_cache import Token, TokenCache

LOGGER = logging.getLogger("test")
TOKEN = Token("access", 1.5, "refresh", ("a", "b"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def cache(path: Path | str, *owner: str) -> TokenCache:
    return TokenCache(str(path), *(owner or ("owner",)), logger=LOGGER)


def store(path: Path | str, *owner: str, token: Token = TOKEN) -> None:
    """Do what a run does that gets a token."""
    tokens = cache(path, *owner)
    with tokens.locked():
        tokens.ensure_writable()
        tokens.store(token)


def load(path: Path, *owner: str) -> Token | None:
    tokens = cache(path, *owner)
    with tokens.locked():
        return tokens.load()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_stored_tokens_are_loaded_by_their_owner_only(path: Path) -> None:
    owners = [("a", "b"), ("ab",), ("a", "c"), ("b", "a")]
    for owner in owners:
        assert load(path, *owner) is None
        store(path, *owner, token=Token(" ".join(owner).replace(" ", "-")))
    for owner in owners:
        assert load(path, *owner) == Token("-".join(owner))
    assert not {"a", "b", "ab"} & json.loads(path.read_text()).keys()


def test_path_is_logged_when_a_run_begins_to_use_it(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(path.parent)
    store("tokens.json")
    assert caplog.messages == [f"Using the token cache {path}."]


def test_home_directory_is_expanded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    store("~/tokens.json")
    assert load(path) == TOKEN


def test_files_and_new_folders_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "tokens.json"
    old = os.umask(0)
    try:
        store(path)
    finally:
        os.umask(old)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"tokens.json": 0o600, "tokens.json.lock": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_temporary_file_of_another_program_is_replaced(path: Path) -> None:
    path.with_name("tokens.json.tmp").symlink_to(path.with_name("elsewhere"))
    store(path)
    assert load(path) == TOKEN
    assert names(path.parent) == {"tokens.json", "tokens.json.lock"}


def test_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    path.symlink_to(volume / "real.json")
    store(path)
    assert path.is_symlink()
    assert names(volume) == {"real.json", "real.json.lock"}
    assert names(tmp_path) == {"volume", "tokens.json"}
    assert load(path) == TOKEN


def refuse_to_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse to replace files, as it does where one is a mount point."""

    def replace(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("os.replace", replace)


def test_mounted_file_is_written_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    inode = path.stat().st_ino
    refuse_to_replace(monkeypatch)
    for token in (Token("long" * 100), TOKEN):
        store(path, token=token)
        assert load(path) == token
        assert b" " not in path.read_bytes()
    assert path.stat().st_ino == inode
    assert names(path.parent) == {"tokens.json", "tokens.json.lock"}


def test_mounted_file_is_valid_before_its_end_is_cut_off(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store(path, token=Token("long" * 100))
    refuse_to_replace(monkeypatch)
    monkeypatch.setattr(os, "fsync", stop)
    tokens = cache(path)
    with pytest.raises(RunAbortedError, match="Input/output error"), tokens.locked():
        tokens.store(TOKEN)
    assert load(path) == TOKEN


def test_mounted_file_keeps_its_tokens_where_the_disk_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(path)
    refuse_to_replace(monkeypatch)
    tokens, room = cache(path), path.stat().st_size + 1000
    with (
        pytest.raises(RunAbortedError, match="File too large"),
        tokens.locked(),
        limited_size(room),
    ):
        tokens.ensure_writable()
    assert load(path) == TOKEN


@contextmanager
def limited_size(size: int) -> Iterator[None]:
    """Let files grow to this size only."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("content", [b"{torn", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_damaged_file_is_replaced_with_one_warning(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    store(path)
    assert caplog.messages == [f"The token cache {path} is damaged; replacing it."]
    assert load(path) == TOKEN


@pytest.mark.parametrize("entry", [5, [], {"access_token": 5}, {"scopes": "a"}, {"renew_at": "1"}])
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
def test_path_that_cannot_be_used_is_reported_at_once(
    tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / place
    start = time.monotonic()
    with pytest.raises(RunAbortedError) as raised:
        store(path)
    assert str(raised.value) == (
        f"The token cache {path} cannot be used ({reason}); set `token_cache` to a file in a "
        "directory that the tap may write to."
    )
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_named_at_once(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunAbortedError) as raised:
        store(path)
    assert str(raised.value) == (
        f"The token cache {path} cannot be used ({os.strerror(code)}); set `token_cache` to a file "
        "on a local disk: this file system does not support locks."
    )


def test_wait_for_another_run_is_logged_and_ends(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("tap_envoy.token_cache.QUIET_WAIT", 0.1)
    monkeypatch.setattr("tap_envoy.token_cache.LOCK_TIMEOUT", 0.2)
    with cache(path).locked():
        errors: list[str] = []

        def wait() -> None:
            try:
                store(path)
            except RunAbortedError as error:
                errors.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    (error,) = errors
    assert error == (
        f"The token cache {path} is locked by another run; end that run, or set another "
        "`token_cache`."
    )
    assert caplog.messages[-1] == f"Waiting for another run that has locked {path}."


def test_lock_is_released_after_an_error(path: Path) -> None:
    with suppress(ZeroDivisionError), cache(path).locked():
        raise ZeroDivisionError
    store(path)
