"""`tap-envoy --test`: which streams can be read with the given settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tap_envoy.exceptions import EnvoyError, RunAbortedError, ScopeMissingError
from tap_envoy.prefetch import PrefetchPool
from tap_envoy.summary import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_envoy.auth import Authenticator
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
    streams: Sequence[EnvoyStream], authenticator: Authenticator
) -> tuple[list[str], bool]:
    """Sign in, and request each stream once.

    Returns:
        Lines to print, and whether all selected streams can be read.
    """
    verdicts: list[Verdict] = []
    try:
        sentence = authenticator.sign_in()
        with PrefetchPool() as pool:
            verdicts = [verdict for _, verdict in pool.ahead(_test, streams)]
        lines = [sentence, *map(str, verdicts)]
    except EnvoyError as error:  # the same for all streams
        lines = [f"{'failed':<10} {error}"]
    good = [verdict.stream for verdict in verdicts if verdict.status == "ok"]
    skipped = sum(verdict.status == "not tested" for verdict in verdicts)
    others = f"; {skipped:,} not tested" if skipped else ""
    lines.append(f"{len(good)} of {count(len(streams), 'stream')} can be read{others}.")
    return lines, all(stream in good for stream in streams if stream.selected)


def _test(stream: EnvoyStream) -> Verdict:
    if not stream.authenticator.covers(stream.scopes):
        return Verdict(stream, "not tested", ": `scopes` lacks a scope that it needs; add it.")
    try:
        total = stream.fetch_page({}).total
    except RunAbortedError:
        raise
    except EnvoyError as error:
        is_forbidden = isinstance(error, ScopeMissingError)
        return Verdict(stream, "forbidden" if is_forbidden else "failed", f": {error}")
    return Verdict(stream, "ok", "" if total is None else f": {count(total, 'row')}")
