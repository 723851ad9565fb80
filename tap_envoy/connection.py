"""`tap-envoy --test`: what can be read with these settings, in one line for each stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tap_envoy.ahead import Workers
from tap_envoy.errors import EnvoyError, ScopeMissingError, TransientError
from tap_envoy.grants import GrantFailedError
from tap_envoy.retry import Retry
from tap_envoy.slices import InWindows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_envoy.client import EnvoyStream
    from tap_envoy.tap import TapEnvoy

LONGEST_WAIT = 10
"""Seconds for an answer, of which there are two in a row at the most: the login's and a list's."""


def run(tap: TapEnvoy, *, selected_only: bool) -> tuple[list[str], bool]:
    """Ask for one row of each stream.

    Args:
        tap: The tap.
        selected_only: Whether only the selected streams are asked for, not all on offer.

    Returns:
        The lines that say what came of it, and whether the selected streams can be read.
    """
    tap.patience = Retry(tries=1)
    tap.timeout = min(tap.timeout, LONGEST_WAIT)
    streams = tap.selection if selected_only else tap.on_offer
    try:
        who = _sign_in(tap, streams)
    except EnvoyError as error:
        return [f"failed     {error}"], False
    with Workers[str](len(streams) or 1) as workers:
        answers = [workers.submit(partial(_peek, stream)) for stream in streams]
        lines = [workers.result(answer, tap.stop.check) for answer in answers]
    good = {s.name for s, line in zip(streams, lines, strict=True) if line.startswith("ok")}
    last = f"{len(good)} of {len(streams)} streams can be read."
    return [who, *lines, last], {stream.name for stream in tap.selection} <= good


def _sign_in(tap: TapEnvoy, streams: Sequence[EnvoyStream]) -> str:
    """Return a line that says who we are."""
    authenticator = tap.authenticator_for(streams)
    try:
        who = authenticator.introduce()
    except GrantFailedError:
        if {*streams} == {*tap.selection}:
            raise
        # Perhaps not everything on offer was granted: then as a run would.
        authenticator = tap.authenticator_for(tap.selection)
        who = authenticator.introduce()
    tap.authenticator = authenticator
    return who


def _peek(stream: EnvoyStream) -> str:
    try:
        total = stream.peek().total
    except ScopeMissingError as error:
        return f"forbidden  {stream.name}: {error}"
    except (EnvoyError, TransientError) as error:
        return f"failed     {stream.name}: {error}"
    # What a list in windows tells without one is not how many there are in all.
    is_known = total is not None and not isinstance(stream.cut, InWindows)
    return f"ok         {stream.name}: " + (f"{total:,} rows" if is_known else "can be read")
