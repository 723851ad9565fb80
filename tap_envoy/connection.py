"""`tap-envoy --test`: which streams can be read with the given settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tap_envoy.exceptions import (
    EnvoyError,
    GrantRefusedError,
    RunAbortedError,
    ScopeMissingError,
)
from tap_envoy.prefetch import PrefetchPool
from tap_envoy.summary import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_envoy.client import EnvoyStream


class Verdict(NamedTuple):
    """Whether a stream can be read: `ok`, `forbidden`, `failed` or `not tested`, and a text."""

    stream: EnvoyStream
    status: str
    text: str = ""

    def __str__(self) -> str:
        """Return a line; the text about a stream that is not selected would distract."""
        name, text = self.stream.name, self.text
        return f"{self.status:<10} {name}{text if self.stream.selected else ' (not selected)'}"


def run_connection_test(
    streams: Sequence[EnvoyStream], sign_in: Callable[[Sequence[EnvoyStream]], str]
) -> tuple[list[str], bool]:
    """Sign in, and request each stream once.

    Args:
        streams: The streams to test.
        sign_in: Signs in with the scopes of some streams; returns a sentence about it.

    Returns:
        Lines to print, and whether all selected streams can be read.
    """
    verdicts: list[Verdict] = []
    try:
        sentence, tested = _sign_in(streams, sign_in)
        with PrefetchPool() as pool:
            verdicts = [verdict for _, verdict in pool.ahead(partial(_test, tested), streams)]
        lines = [sentence, *map(str, verdicts)]
    except EnvoyError as error:  # the same for all streams
        lines = [f"{'failed':<10} {error}"]
    good = [verdict.stream for verdict in verdicts if verdict.status == "ok"]
    lines.append(f"{len(good)} of {count(len(streams), 'stream')} can be read.")
    return lines, all(stream in good for stream in streams if stream.selected)


def _sign_in(
    streams: Sequence[EnvoyStream], sign_in: Callable[[Sequence[EnvoyStream]], str]
) -> tuple[str, Sequence[EnvoyStream]]:
    """Return a sentence, and the streams for which there are scopes."""
    selected = [stream for stream in streams if stream.selected]
    try:
        return sign_in(streams), streams
    except GrantRefusedError as error:
        # Perhaps of a stream that is not selected. A wrong password must not be repeated: it may
        # lock the user out.
        if error.code != "invalid_scope" or len(selected) == len(streams):
            raise
    return sign_in(selected), selected


def _test(tested: Sequence[EnvoyStream], stream: EnvoyStream) -> Verdict:
    if stream not in tested:
        return Verdict(stream, "not tested")
    try:
        total = stream.fetch_page({}).total
    except RunAbortedError:
        raise
    except EnvoyError as error:
        is_forbidden = isinstance(error, ScopeMissingError)
        return Verdict(stream, "forbidden" if is_forbidden else "failed", f": {error}")
    return Verdict(stream, "ok", "" if total is None else f": {count(total, 'row')}")
