"""`tap-envoy --test`: which streams can be read with the given settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from tap_envoy.auth import EnvoyApiKeyAuthenticator, EnvoyAuthenticator, GrantRefusedError
from tap_envoy.client import EnvoyApi, EnvoyStream
from tap_envoy.exceptions import (
    EnvoyError,
    NoConnectionError,
    RunAbortedError,
    ScopeMissingError,
    TransientError,
)
from tap_envoy.prefetch import PrefetchPool

if TYPE_CHECKING:
    from typing import Literal

    Status = Literal["ok", "forbidden", "failed"]

AuthenticatorFactory = Callable[
    [Sequence[EnvoyStream]], EnvoyApiKeyAuthenticator | EnvoyAuthenticator
]

MAX_TIMEOUT = 10
"""Seconds to wait for a response; there are two in a row, for the token and for the streams."""

RUN_ERRORS = (NoConnectionError, RunAbortedError)
"""Errors that concern all streams."""

CREDENTIAL_ERRORS = {"invalid_client", "invalid_grant", "mfa_required", "unauthorized_client"}
"""Codes of a rejected sign-in that other scopes do not help; a repetition may lock the user out."""

COLORS = {"ok": "green", "forbidden": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class ConnectionTestResult:
    """What can be read.

    Attributes:
        lines: To be printed, with colours.
        is_successful: Whether all selected streams can be read.
    """

    lines: Sequence[str]
    is_successful: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of one stream."""

    stream: EnvoyStream
    status: Status
    text: str
    aborts: bool = False

    @property
    def line(self) -> str:
        return _line(self.status, f"{self.stream.name}: {self.text}")


def run(
    streams: Sequence[EnvoyStream], *, api: EnvoyApi, authenticator_for: AuthenticatorFactory
) -> ConnectionTestResult:
    """Sign in and request one row of each stream, without retries.

    Args:
        streams: The streams to test.
        api: What they share; its timeout, retry policy and authenticator are set.
        authenticator_for: Returns an authenticator for some streams.

    Raises:
        ShutdownError: If a signal stopped the test.
    """
    api.retry_policy = replace(api.retry_policy, max_time=0.0)
    api.timeout = min(api.timeout, MAX_TIMEOUT)
    with PrefetchPool[tuple[str, Sequence[EnvoyStream]]](waiting=api.waiting) as pool:
        try:
            sign_in = partial(_sign_in, streams, api, authenticator_for)
            signed_in, tested = pool.result(pool.submit(sign_in))
        except (EnvoyError, TransientError) as error:
            return ConnectionTestResult([_line("failed", str(error))], is_successful=False)
    with PrefetchPool[_Outcome](len(tested), waiting=api.waiting) as workers:
        futures = [workers.submit(partial(_test, stream)) for stream in tested]
        outcomes = [workers.result(future) for future in futures]
    for outcome in outcomes:
        if outcome.aborts:  # the same for all streams
            lines = [signed_in, _line("failed", outcome.text)]
            return ConnectionTestResult(lines, is_successful=False)
    return ConnectionTestResult(
        [signed_in, *_lines(outcomes, untested=len(streams) - len(tested))],
        is_successful=all(x.status == "ok" for x in outcomes if x.stream.selected),
    )


def _sign_in(
    streams: Sequence[EnvoyStream], api: EnvoyApi, authenticator_for: AuthenticatorFactory
) -> tuple[str, Sequence[EnvoyStream]]:
    """Set the authenticator; return a sentence about it, and the streams it has scopes for."""
    selected = [stream for stream in streams if stream.selected]
    api.authenticator = authenticator_for(streams)
    try:
        return api.authenticator.sign_in(), streams
    except GrantRefusedError as error:
        if len(selected) == len(streams) or error.code in CREDENTIAL_ERRORS:
            raise
    # The integration may lack the scopes of streams that are not selected: sign in as a run does.
    api.authenticator = authenticator_for(selected)
    return api.authenticator.sign_in(), selected


def _test(stream: EnvoyStream) -> _Outcome:
    try:
        sample = stream.fetch_sample()
    except ScopeMissingError as error:
        return _Outcome(stream, "forbidden", str(error))
    except (EnvoyError, TransientError) as error:
        return _Outcome(stream, "failed", str(error), isinstance(error, RUN_ERRORS))
    text = "can be read" if sample.total is None else _rows(sample.total)
    return _Outcome(stream, "ok", f"{text}; {sample.warning}" if sample.warning else text)


def _rows(total: int) -> str:
    return "1 row" if total == 1 else f"{total:,} rows"


def _lines(outcomes: Sequence[_Outcome], *, untested: int) -> Iterator[str]:
    """Yield a line for each selected stream, one for all others, and the number of good ones."""
    yield from (outcome.line for outcome in outcomes if outcome.stream.selected)
    others = [outcome for outcome in outcomes if not outcome.stream.selected]
    if others:
        yield f"others     {'; '.join(filter(None, map(partial(_group, others), COLORS)))}"
    elif untested:
        yield "others     not tested: the integration does not have the scopes of all streams"
    readable = sum(outcome.status == "ok" for outcome in outcomes)
    streams = "1 stream" if len(outcomes) == 1 else f"{len(outcomes)} streams"
    yield f"{readable} of {streams} can be read."


def _group(outcomes: Sequence[_Outcome], status: str) -> str:
    """Return the streams with this status, or nothing."""
    names = ", ".join(x.stream.name for x in outcomes if x.status == status)
    return f"{click.style(status, fg=COLORS[status])}: {names}" if names else ""


def _line(status: Status, text: str) -> str:
    return click.style(f"{status:<10}", fg=COLORS[status]) + f" {text}"
