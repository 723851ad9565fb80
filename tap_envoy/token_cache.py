"""A file in which tokens outlive a run."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec

from tap_envoy.errors import RunEndedError

if TYPE_CHECKING:
    import logging


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token answer gave.

    Attributes:
        access_token: The access token, or None.
        renew_at: When to renew it, in seconds since 1970.
        refresh_token: The refresh token, or None.
        refresh_until: When that ends, in seconds since 1970, if its age is known.
        scopes: What was asked for, if that is known.
    """

    access_token: str | None = None
    renew_at: float = 0.0
    refresh_token: str | None = None
    refresh_until: float | None = None
    scopes: tuple[str, ...] | None = None


class TokenCache:
    """Keeps the tokens of whom they were granted to, in a file that others cannot read.

    Several taps may share the file: each keeps its own entry, under a digest of its owner.
    """

    def __init__(self, path: str, *owner: str, logger: logging.Logger) -> None:
        """Name the file; it is not touched yet.

        Args:
            path: The file; `~` is the home folder.
            owner: What must be the same for tokens to be used again: address, client, user.
            logger: Where a damaged file is told of.
        """
        self._path = Path(path).expanduser()
        self._key = hashlib.sha256("\0".join(owner).encode()).hexdigest()
        self._logger = logger

    def read(self) -> Tokens | None:
        """Return the tokens that were kept, or None; a file that makes no sense counts as empty."""
        try:
            tokens = msgspec.convert(self._entries().get(self._key), Tokens | None)
        except msgspec.ValidationError:
            return None
        texts = [tokens.access_token, tokens.refresh_token] if tokens else []
        is_sound = all(text is None or (text.isascii() and text.isprintable()) for text in texts)
        return tokens if is_sound else None

    def write(self, tokens: Tokens) -> None:
        """Keep tokens, in place of the owner's older ones.

        Raises:
            RunEndedError: If the file cannot be written.
        """
        entries = {**self._entries(), self._key: tokens}
        self._replace(msgspec.json.encode(entries), keep=True)

    def check(self) -> None:
        """Make sure that tokens to come can be kept, before an old one is spent for them.

        Raises:
            RunEndedError: If not.
        """
        self._replace(bytes(16_384), keep=False)

    def _entries(self) -> dict[str, Any]:
        try:
            entries = msgspec.json.decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, RecursionError):
            entries = None
        if not isinstance(entries, dict):
            self._logger.warning("The token cache %s cannot be read and is made anew.", self._path)
            return {}
        return entries

    def _replace(self, content: bytes, *, keep: bool) -> None:
        """Write a file beside ours, for its owner alone, and put it in our file's place."""
        try:
            for folder in reversed(self._path.parents):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
                beside = Path(file.name)
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    if keep:
                        beside.replace(self._path)
                finally:
                    beside.unlink(missing_ok=True)
        except OSError as error:
            raise RunEndedError(
                f"The token cache {self._path} cannot be written ({error.strerror}); let "
                "`token_cache` name a file in a folder that the tap may write to."
            ) from None
