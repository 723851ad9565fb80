import json
import logging
import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.exceptions import RunAbortedError
from tap_envoy.token_cache import (
    LOCK_TIMEOUT,
    SPARE_BYTES,
    CachedToken,
    NullTokenCache,
    TokenCache,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER = logging.getLogger("test")
TOKENS = CachedToken("access", 1.5, "refresh", 2.5, ("a", "b"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "tokens.json"


def cache(path: Path, *owner: str, **options: float) -> TokenCache:
    return TokenCache(str(path), *(owner or ("owner",)), logger=LOGGER, **options)


def store(path: Path, *owner: str, tokens: CachedToken = TOKENS) -> None:
    with cache(path, *owner).locked():
        cache(path, *owner).store(tokens)


def test_stored_tokens_are_loaded(path: Path) -> None:
    with cache(path).locked():
        assert cache(path).load() is None
    for tokens in (TOKENS, CachedToken(), CachedToken(access_token="other")):
        store(path, tokens=tokens)
        assert cache(path).load() == tokens


def test_empty_token_is_valid_for_no_time() -> None:
    assert CachedToken() == CachedToken(None, 0.0, None, None, None)


def test_owners_have_entries_of_their_own(path: Path) -> None:
    owners = [("a", "b"), ("ab",), ("a", "c"), ("b", "a")]
    for number, owner in enumerate(owners):
        store(path, *owner, tokens=CachedToken(str(number)))
    for number, owner in enumerate(owners):
        assert cache(path, *owner).load() == CachedToken(str(number))
    names = json.loads(path.read_text())
    assert len(names) == 4
    assert all(len(name) == 64 and int(name, 16) for name in names)


def test_entries_of_other_versions_are_kept(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"other": {"x": [1]}}')
    store(path)
    assert json.loads(path.read_text())["other"] == {"x": [1]}


def test_special_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunAbortedError, match=r"\(Not a regular file\)"), cache(pipe).locked():
        pass
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_unknown_home_directory_is_reported() -> None:
    with pytest.raises(RunAbortedError, match=r"^The home directory in `token_cache` "):
        cache(Path("~no-such-user/tokens.json"))


def test_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store(Path("~/tokens.json"))
    assert (tmp_path / "tokens.json").exists()


def test_files_and_new_folders_are_private(path: Path) -> None:
    old = os.umask(0)
    try:
        path.parent.parent.mkdir(mode=0o755)
        store(path)
    finally:
        os.umask(old)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {
        "tokens.json": 0o600,
        "tokens.json.lock": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o755


def test_temporary_file_of_a_killed_run_is_replaced(path: Path) -> None:
    store(path)
    (path.parent / "tokens.json.tmp").write_text("left over")
    store(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "tokens.json",
        "tokens.json.lock",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"{torn", b"[]", b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000, b"null"]
)
def test_damaged_file_is_replaced_with_a_warning(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert cache(path).load() is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"The token cache {path} is damaged; replacing it."
    store(path)
    caplog.clear()
    assert cache(path).load() == TOKENS
    assert caplog.records == []


def test_missing_file_is_no_damage(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cache(path).load() is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        [],
        {"renew_at": "soon"},
        {"access_token": 5},
        {"access_token": "two\nlines"},
        {"access_token": "é"},
        {"access_token": "a", "refresh_token": "two\nlines"},
        {"refresh_token": "é"},
        {"scopes": [5]},
    ],
)
def test_damaged_entry_is_no_entry(path: Path, entry: Any) -> None:
    store(path)
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: entry}))
    assert cache(path).load() is None


@given(
    content=st.binary()
    | st.dictionaries(
        st.sampled_from(["access_token", "renew_at", "refresh_token", "refresh_until", "scopes"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_content_is_loaded_or_replaced(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "tokens.json"
    path.unlink(missing_ok=True)
    store(path)
    if not isinstance(content, bytes):
        (key,) = json.loads(path.read_text())
        content = json.dumps({key: content}).encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    cache(path).load()
    store(path)
    assert cache(path).load() == TOKENS


@pytest.mark.parametrize("method", ["locked", "store", "ensure_writable"])
def test_file_that_cannot_be_written_is_named(tmp_path: Path, method: str) -> None:
    path = tmp_path / "folder"
    if method == "locked":
        path.write_text("a file")
        path = path / "tokens.json"
    else:
        path.mkdir()
    use: dict[str, Callable[[], object]] = {
        "locked": lambda: cache(path).locked().__enter__(),
        "store": lambda: cache(path).store(TOKENS),
        "ensure_writable": lambda: cache(path).ensure_writable(),
    }
    with pytest.raises(RunAbortedError) as raised:
        use[method]()
    assert f"The token cache {path} cannot be written (" in str(raised.value)
    assert "); set `token_cache` to" in str(raised.value)
    assert "None" not in str(raised.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_ensure_writable_needs_free_space(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    monkeypatch.setattr(Path, "touch", lambda *_, **__: None)
    path.with_name("tokens.json.tmp").symlink_to("/dev/full")
    with pytest.raises(RunAbortedError, match="No space left on device"):
        cache(path).ensure_writable()
    assert SPARE_BYTES == 16_384


def test_ensure_writable_changes_nothing(path: Path) -> None:
    store(path)
    before = path.read_bytes()
    cache(path).ensure_writable()
    assert path.read_bytes() == before
    assert not path.with_name("tokens.json.tmp").exists()


def test_lock_is_released_after_an_error(path: Path) -> None:
    with suppress(ZeroDivisionError), cache(path).locked():
        raise ZeroDivisionError
    with cache(path, lock_timeout=0).locked():
        pass


def test_lock_that_is_held_too_long_is_an_error(path: Path) -> None:
    errors: list[str] = []

    def wait() -> None:
        try:
            cache(path, lock_timeout=0.1).locked().__enter__()
        except RunAbortedError as error:
            errors.append(str(error))

    with cache(path).locked():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    (error,) = errors
    assert error == (
        f"Another run has locked the token cache {path} for more than 0.1 s; end that run, or set "
        "another `token_cache`."
    )
    assert LOCK_TIMEOUT == 900


def test_lock_excludes_other_threads(path: Path) -> None:
    def add() -> None:
        for _ in range(5):
            with cache(path).locked():
                tokens = cache(path).load() or CachedToken()
                time.sleep(0.001)
                cache(path).store(CachedToken(renew_at=tokens.renew_at + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache(path).load() == CachedToken(renew_at=20)


def test_null_cache_stores_nothing() -> None:
    null = NullTokenCache()
    with null.locked():
        null.ensure_writable()
        null.store(TOKENS)
        assert null.load() is None
