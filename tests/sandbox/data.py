"""Rows of a made-up company."""

from datetime import UTC, datetime, timedelta
from itertools import cycle, islice

from tests.sandbox.quirks import Row
from tests.sandbox.timestamps import format_time

CITIES = (
    ("Zürich", "CH", "Europe/Zurich", 47.3769, 8.5417),
    ("São Paulo", "BR", "America/Sao_Paulo", -23.5505, -46.6333),
    ("東京", "JP", "Asia/Tokyo", 35.6762, 139.6503),
    ("Oakland", "US", "America/Los_Angeles", 37.8044, -122.2712),
    ("Αθήνα", "GR", "Europe/Athens", 37.9838, 23.7275),
    ("Kraków “Rynek”", "PL", "Europe/Warsaw", 50.0647, 19.945),
)


def locations(count: int = 250) -> list[Row]:
    """Return `count` locations, oldest first, with nulls, unlisted keys and many scripts."""
    first = datetime(2021, 3, 1, 9, 30, 0, 185000, tzinfo=UTC)
    return [
        _location(number, city, first + timedelta(hours=7 * number))
        for number, city in enumerate(islice(cycle(CITIES), count), start=1)
    ]


def _location(number: int, city: tuple[str, str, str, float, float], created: datetime) -> Row:
    name, country, timezone, latitude, longitude = city
    row: Row = {
        "id": str(1000 + number),
        "name": f"{name} {number}",
        "enabled": number % 11 != 0,
        "companyId": "10000",
        "locale": "en",
        "timezone": timezone,
        "logoUrl": None if number % 3 else f"https://example.com/logo/{number}.png",
        "capacityLimit": None if number % 4 else number,
        "scheduleAheadLimit": 1.5 if number % 5 == 0 else 30,
        "createdAt": format_time(created),
        "updatedAt": format_time(created + timedelta(days=1)),
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


NAMES = ("Ada Example", "Çağla Örnek", "例 太郎", "Zoë Muster", "Łukasz Wzór", "O'Neill, Pat")


def all_rows() -> dict[str, list[Row]]:
    """Return the rows of each list, by the name of its stream."""
    return {
        "locations": locations(),
        "companies": [
            {
                "id": "10000",
                "name": "Example & Söhne",
                "locationIds": ["1001", "1002"],
                "subscriptions": [{"id": "s-1", "plan": "premium", "seats": 250}],
                "createdAt": "2020-01-01T00:00:00.000Z",
                "updatedAt": None,
            }
        ],
        "employees": [
            person(number, "e")
            | {"locationIds": ["1001"] * (number % 3), **created_fields(START, hours=number)}
            for number in range(130)
        ],
        "flows": [
            {
                "id": f"f-{number}",
                "name": f"Flow {number}",
                "type": "EMPLOYEE" if number % 2 else "VISITOR",
                "enabled": number != 3,
                "locationId": str(1001 + number % 3),
                **created_fields(START, days=number),
            }
            for number in range(12)
        ],
        "entries": entries(320),
        "invites": invites(230),
        "work_schedules": work_schedules(210),
        "reservations": reservations(160),
        "spaces": desks(260) + rooms(20),
    }


START = datetime(2024, 3, 1, 8, 0, 0, 185000, tzinfo=UTC)


def created_fields(first: datetime, **later: float) -> Row:
    created = first + timedelta(**later)
    return {
        "createdAt": format_time(created),
        "updatedAt": format_time(created + timedelta(days=1)),
    }


def person(number: int, prefix: str) -> Row:
    name = NAMES[number % len(NAMES)]
    return {"id": f"{prefix}-{number}", "name": name, "email": f"{prefix}{number}@example.com"}


def entries(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` entries, `step` apart (default: an hour), the newest still on site."""
    apart = timedelta(**step or {"hours": 1})
    return [
        {
            "id": f"v-{number}",
            "fullName": NAMES[number % len(NAMES)],
            "email": None if number % 7 == 0 else f"visitor{number}@example.com",
            "isDelivery": number % 20 == 0,
            "agreementsStatus": "signed",
            "customFields": [{"field": "Company", "value": "ACME „GmbH“"}] * (number % 3),
            "flowId": "f-1",
            "locationId": str(1001 + number % 3),
            "signedInAt": format_time(first + number * apart),
            "signedInVia": "kiosk",
            "signedOutAt": format_time(first + number * apart + timedelta(minutes=30))
            if number < count - 5
            else None,
            "signedOutVia": "kiosk" if number < count - 5 else None,
            "createdAt": format_time(first + number * apart),
        }
        for number in range(count)
    ]


def invites(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` invites, created `step` apart (default: two hours)."""
    apart = timedelta(**step or {"hours": 2})
    return [
        {
            "id": f"i-{number}",
            "type": "visitor",
            "expectedArrivalAt": format_time(first + number * apart + timedelta(days=3)),
            "expectedDepartureAt": None,
            "approvalStatus": {"status": "approved", "report": []} if number % 9 == 0 else "none",
            "flowId": "f-2",
            "locationId": str(1001 + number % 3),
            "notes": None if number % 2 else "Needs a parking place",
            "invitee": {"name": NAMES[number % 6], "email": f"guest{number}@example.com"},
            "host": {"name": NAMES[0], "email": "host@example.com", "secretToken": "nested-token"},
            "customFields": None,
            "sendEmailToInvitee": True,
            "photoUrl": None,
            "recurringInviteId": None,
            "secretToken": f"invite-secret-{number}",
            **created_fields(first, seconds=(number * apart).total_seconds()),
        }
        for number in range(count)
    ]


def work_schedules(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` work schedules, created `step` apart (default: two hours), in no order."""
    apart = timedelta(**step or {"hours": 2})
    return [
        {
            "id": f"w-{number}",
            "expectedArrivalAt": format_time(first + number * apart + timedelta(days=1)),
            "expectedDepartureAt": format_time(first + number * apart + timedelta(days=1, hours=8)),
            "arrivedAt": None,
            "departedAt": None,
            "flowId": "f-1",
            "locationId": str(1001 + number % 3),
            "status": "confirmed",
            "registrationURL": f"https://example.com/register?token=registration-secret-{number}",
            "reservations": ({"id": "d-1"}, [{"id": "d-1"}], None)[number % 3],
            "scheduledFor": {"type": "employee", **person(number, "e")},
            **created_fields(first, seconds=(number * apart).total_seconds()),
        }
        for number in sorted(range(count), key=lambda number: number * 7919 % 1009)
    ]


def reservations(count: int, first: datetime | None = None, **step: float) -> list[Row]:
    """Return `count` reservations, `step` apart (default: a day), some in the future."""
    apart = timedelta(**step or {"days": 1})
    first = first or datetime.now(UTC) - timedelta(days=110)
    return [
        {
            "id": f"d-{508000 + number}",
            "reservedBy": person(number, "e"),
            "space": {"id": f"d-{number % 50}", "name": f"Desk {number % 50}", "floorId": 7},
            "startTime": format_time(first + number * apart),
            "endTime": format_time(first + number * apart + timedelta(hours=9)),
        }
        for number in sorted(range(count), key=lambda number: number * 7919 % 1009)
    ]


def desks(count: int) -> list[Row]:
    """Return `count` spaces of the type DESK."""
    return [
        {
            "id": f"d-{number}",
            "name": f"Desk {number}",
            "locationId": str(1001 + number % 3),
            "floorId": f"fl-{number % 3}",
            "isAvailable": number % 4 != 0,
            "assignedTo": None if number % 5 else {"id": f"e-{number}", "name": NAMES[0]},
        }
        for number in range(count)
    ]


def rooms(count: int) -> list[Row]:
    """Return `count` spaces of the type ROOM, which only their ids distinguish from desks."""
    return [
        {**desk, "id": f"r-{100_000 + number}", "name": f"Room {number}", "assignedTo": None}
        for number, desk in enumerate(desks(count))
    ]
