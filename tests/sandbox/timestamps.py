"""Timestamps, in every format that Envoy may send."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any


def parse_time(value: Any) -> datetime | None:
    """Return the time that a stored value or a parameter means; None if it is not a time."""
    return _parse_time(value) if isinstance(value, str | int | float) else None


@lru_cache(maxsize=500_000)
def _parse_time(value: str | float) -> datetime | None:
    try:
        if not isinstance(value, str):
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
        time = datetime.fromisoformat(value.upper().replace(" UTC", "Z"))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def format_time(time: datetime) -> str:
    """Format a time as Envoy does: ISO-8601, UTC, milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


FORMATS: dict[str, Callable[[datetime], str | int]] = {
    "iso_ms": format_time,
    "space_utc": lambda time: time.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "seconds": lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "microseconds": lambda time: time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    "offset": lambda time: time.astimezone(timezone(timedelta(hours=2))).isoformat(
        timespec="milliseconds"
    ),
    "lower_case": lambda time: format_time(time).lower(),
    "epoch_seconds": lambda time: int(time.timestamp()),
    "epoch_milliseconds": lambda time: round(time.timestamp() * 1000),
}


@lru_cache(maxsize=500_000)
def reformat(value: str | float, style: str) -> Any:
    """Return a stored time in one of `FORMATS`; a value that is not a time stays as it is."""
    time = _parse_time(value)
    return value if time is None else FORMATS[style](time)
