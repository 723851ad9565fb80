"""`tap-envoy --test`: which streams can be read with the given settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from tap_envoy.exceptions import (
    EnvoyError,
    GrantRefusedError,
    RunAbortedError,
    ScopeMissingError,
)
from tap_envoy.prefetch import PrefetchPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tap_envoy.client import EnvoyStream

CREDENTIAL_ERRORS = {"invalid_client", "invalid_grant", "mfa_required", "unauthorized_client"}
"""Codes of a rejected sign-in that other scopes do not help; a repetition may lock the user out."""

COLORS = {"ok": "green", "forbidden": "yellow", "failed": "red"}
"""The colour of each status."""


class Verdict(NamedTuple):
    """Whether a stream can be read: `ok`, `forbidden` or `failed`, and a text."""

    stream: EnvoyStream
    status: str
    text: str


def run_connection_test(
    streams: Sequence[EnvoyStream], sign_in: Callable[[Sequence[EnvoyStream]], str]
) -> tuple[list[str], bool]:
    """Sign in, and request each stream once.

    Args:
        streams: The streams to test.
        sign_in: Signs in with the scopes of some streams; returns a sentence about it.

    Returns:
        Lines to print, with colours, and whether all selected streams can be read.
    """
    try:
        sentence, tested = _sign_in(streams, sign_in)
        with PrefetchPool() as pool:
            verdicts = [verdict for _, verdict in pool.ahead(_test, tested)]
    except EnvoyError as error:  # the same for all streams
        return [_line("failed", str(error))], False
    lines = list(_lines(verdicts, untested=len(streams) - len(tested)))
    return [sentence, *lines], all(x.status == "ok" for x in verdicts if x.stream.selected)


def _sign_in(
    streams: Sequence[EnvoyStream], sign_in: Callable[[Sequence[EnvoyStream]], str]
) -> tuple[str, Sequence[EnvoyStream]]:
    """Return a sentence, and the streams for which there are scopes."""
    selected = [stream for stream in streams if stream.selected]
    try:
        return sign_in(streams), streams
    except GrantRefusedError as error:
        if len(selected) == len(streams) or error.code in CREDENTIAL_ERRORS:
            raise
    # The integration may lack the scopes of streams that are not selected: sign in as a run does.
    return sign_in(selected), selected


def _test(stream: EnvoyStream) -> Verdict:
    try:
        total = stream.fetch_page({}).total
    except ScopeMissingError as error:
        return Verdict(stream, "forbidden", str(error))
    except RunAbortedError:
        raise
    except EnvoyError as error:
        return Verdict(stream, "failed", str(error))
    if total is None:
        return Verdict(stream, "ok", "can be read")
    return Verdict(stream, "ok", "1 row" if total == 1 else f"{total:,} rows")


def _lines(verdicts: Sequence[Verdict], *, untested: int) -> Iterator[str]:
    """Yield a line for each selected stream, one for all others, and the number of good ones."""
    yield from (
        _line(x.status, f"{x.stream.name}: {x.text}") for x in verdicts if x.stream.selected
    )
    if groups := list(_groups(x for x in verdicts if not x.stream.selected)):
        yield f"others     {'; '.join(groups)}"
    elif untested:
        yield "others     not tested: the integration does not have the scopes of all streams"
    good = sum(x.status == "ok" for x in verdicts)
    yield f"{good} of {len(verdicts)} stream{'s' if len(verdicts) > 1 else ''} can be read."


def _groups(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield the names of the streams with the same status."""
    names = {status: list[str]() for status in COLORS}
    for verdict in verdicts:
        names[verdict.status].append(verdict.stream.name)
    for status, streams in names.items():
        if streams:
            yield f"{click.style(status, fg=COLORS[status])}: {', '.join(streams)}"


def _line(status: str, text: str) -> str:
    return click.style(f"{status:<10}", fg=COLORS[status]) + f" {text}"
