"""Made-up rows. Nothing in them is anybody's."""

from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any

CITIES = (
    ("Zürich", "CH", "Europe/Zurich", 47.3769, 8.5417),
    ("São Paulo", "BR", "America/Sao_Paulo", -23.5505, -46.6333),
    ("東京", "JP", "Asia/Tokyo", 35.6762, 139.6503),
    ("Oakland", "US", "America/Los_Angeles", 37.8044, -122.2712),
    ("Αθήνα", "GR", "Europe/Athens", 37.9838, 23.7275),
    ("Kraków “Rynek”", "PL", "Europe/Warsaw", 50.0647, 19.945),
)


def moment(value: datetime) -> str:
    """Write a time as Envoy does: ISO-8601, UTC, milliseconds."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"


def locations(count: int = 250) -> list[dict[str, Any]]:
    """Make `count` locations, oldest first, with nulls, unlisted keys and letters of all kinds."""
    first = datetime(2021, 3, 1, 9, 30, 0, 185000, tzinfo=UTC)
    return [
        _location(number, city, first + timedelta(hours=7 * number))
        for number, city in enumerate(islice(cycle(CITIES), count), start=1)
    ]


def _location(
    number: int, city: tuple[str, str, str, float, float], made: datetime
) -> dict[str, Any]:
    name, country, timezone, latitude, longitude = city
    row: dict[str, Any] = {
        "id": str(1000 + number),
        "name": f"{name} {number}",
        "enabled": number % 11 != 0,
        "companyId": "10000",
        "locale": "en",
        "timezone": timezone,
        "logoUrl": None if number % 3 else f"https://example.com/logo/{number}.png",
        "capacityLimit": None if number % 4 else number,
        "scheduleAheadLimit": 1.5 if number % 5 == 0 else 30,
        "createdAt": moment(made),
        "updatedAt": moment(made + timedelta(days=1)),
        "address": {
            "line1": f"{number} Example Street",
            "line2": None,
            "city": name,
            "state": None,
            "postalCode": f"{number:05d}",
            "country": country,
            "latitude": latitude,
            "longitude": longitude,
        },
    }
    if number % 50 == 7:
        row["address"] = None
    if number % 50 == 8:
        del row["locale"], row["capacityLimit"]
    if number % 50 == 9:
        row["printerIds"] = ["p-1"]  # keys that the documentation does not list
        row["address"]["plusCode"] = "8FVC9G8F+6X"
    return row
