"""A private file that stores tokens between runs."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from filelock import FileLock, Timeout

from tap_envoy.exceptions import RunAbortedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

LOCK_TIMEOUT = 900.0
"""Seconds to wait for another run that holds the lock: longer than its requests and retries."""

SPARE_BYTES = 16_384
"""Free space that must be left before a token is requested: more than its entry needs."""


@dataclass(frozen=True, slots=True)
class CachedToken:
    """The tokens of a token response.

    Attributes:
        access_token: The access token, or None.
        renew_at: When to renew it, in seconds since 1970.
        refresh_token: The refresh token, or None.
        refresh_until: When the refresh token expires, in seconds since 1970, or None if unknown.
        scopes: The requested scopes, or None if unknown.
    """

    access_token: str | None = None
    renew_at: float = 0.0
    refresh_token: str | None = None
    refresh_until: float | None = None
    scopes: tuple[str, ...] | None = None


class TokenCache:
    """Stores tokens in a file that only its owner can read, under a digest of who they are for.

    Several runs may share the file, for the same credentials or for different ones. All methods
    but `locked` are called while the lock is held.
    """

    def __init__(
        self,
        path: str,
        *owner: str,
        logger: logging.Logger,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        """Create a cache; the file is not touched yet.

        Args:
            path: The file; `~` is the home directory.
            owner: What a token is valid for: token URL, client and user.
            logger: Receives a warning if the file is damaged.
            lock_timeout: Seconds to wait for the lock.

        Raises:
            RunAbortedError: If there is no such home directory.
        """
        try:
            self._path = Path(path).expanduser()
        except RuntimeError:
            raise RunAbortedError(
                f"The home directory in `token_cache` ({path}) is unknown; set an absolute path."
            ) from None
        self._key = hashlib.sha256("\0".join(owner).encode()).hexdigest()
        self._logger = logger
        self._lock_timeout = lock_timeout

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from reading and writing the cache while the context lasts.

        Raises:
            RunAbortedError: If the file cannot be locked, or another run holds the lock too long.
        """
        with self._reporting_errors():
            self._refuse_special_file()
            for folder in reversed(self._path.parents):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(f"{self._path}.lock", mode=0o600)
            # If it cannot be created, `filelock` may wait for it instead of raising.
            Path(lock.lock_file).touch(mode=0o600)
            try:
                lock.acquire(timeout=self._lock_timeout)
            except Timeout:
                raise RunAbortedError(
                    f"Another run has locked the token cache {self._path} for more than "
                    f"{self._lock_timeout:g} s; end that run, or set another `token_cache`."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def load(self) -> CachedToken | None:
        """Return the stored tokens, or None; a damaged entry counts as none."""
        try:
            tokens = msgspec.convert(self._entries().get(self._key), CachedToken | None)
        except msgspec.ValidationError:
            return None
        texts = [tokens.access_token, tokens.refresh_token] if tokens else []
        is_sound = all(text is None or (text.isascii() and text.isprintable()) for text in texts)
        return tokens if is_sound else None

    def store(self, tokens: CachedToken) -> None:
        """Store tokens in place of the owner's older ones; keep those of other owners.

        Raises:
            RunAbortedError: If the file cannot be written.
        """
        content = msgspec.json.encode({**self._entries(), self._key: tokens})
        with self._reporting_errors(), self._temporary(content) as temporary:
            temporary.replace(self._path)

    def ensure_writable(self) -> None:
        """Check that tokens can be stored, before a single-use refresh token is spent.

        Raises:
            RunAbortedError: If they cannot.
        """
        with self._reporting_errors(), self._temporary(bytes(SPARE_BYTES)):
            pass

    def _entries(self) -> dict[str, Any]:
        """Return the tokens of all owners."""
        entries = None
        try:
            entries = msgspec.json.decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, ValueError, RecursionError):
            pass
        if not isinstance(entries, dict):
            self._logger.warning("The token cache %s is damaged; replacing it.", self._path)
            return {}
        return entries

    def _refuse_special_file(self) -> None:
        """Raise if the path is not that of a file: a device has no end, and would be replaced."""
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if self._path.exists() and not self._path.is_file():
            raise OSError(errno.EINVAL, "Not a regular file")

    @contextmanager
    def _temporary(self, content: bytes) -> Iterator[Path]:
        """Write a private file next to the cache, closed, and removed after the context."""
        self._refuse_special_file()
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        temporary.unlink(missing_ok=True)  # from a run that was killed
        temporary.touch(mode=0o600, exist_ok=False)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunAbortedError(
                f"The token cache {self._path} cannot be written ({error.strerror}); set "
                "`token_cache` to a file in a directory that the tap may write to."
            ) from None


class NullTokenCache:
    """Stores nothing: every run signs in."""

    def locked(self) -> AbstractContextManager[None]:
        """Return a context without a lock."""
        return nullcontext()

    def load(self) -> CachedToken | None:
        """Return None."""
        return None

    def store(self, tokens: CachedToken) -> None:
        """Do nothing."""

    def ensure_writable(self) -> None:
        """Do nothing."""
