"""Timestamps: stored rows have them as documented, `iso_ms`."""

from datetime import UTC, datetime, timedelta, timezone


def format_time(time: datetime, style: str = "iso_ms") -> str:
    """Format a time as a value of the quirk `timestamps` says."""
    if style == "space_utc":
        return time.strftime("%Y-%m-%d %H:%M:%S UTC")
    if style == "offset":
        return time.astimezone(timezone(timedelta(hours=2))).isoformat()
    return f"{time.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def parse_time(text: str) -> datetime | None:
    """Return the time that a text means; None if it is not a time."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
