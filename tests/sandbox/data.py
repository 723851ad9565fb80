"""Rows of a made-up company."""

from datetime import UTC, datetime, timedelta

from tests.sandbox.quirks import Row
from tests.sandbox.timestamps import format_time

START = datetime(2024, 3, 1, 8, 0, 0, 185000, UTC)
NAMES = ("Ada Example", "Çağla Örnek", "例 太郎", "Zoë Muster", "Łukasz Wzór", "O'Neill, Pat")
CITIES = (
    ("Zürich", "CH", "Europe/Zurich", 47.3769, 8.5417),
    ("São Paulo", "BR", "America/Sao_Paulo", -23.5505, -46.6333),
    ("東京", "JP", "Asia/Tokyo", 35.6762, 139.6503),
    ("Oakland", "US", "America/Los_Angeles", 37.8044, -122.2712),
    ("Αθήνα", "GR", "Europe/Athens", 37.9838, 23.7275),
    ("Kraków “Rynek”", "PL", "Europe/Warsaw", 50.0647, 19.945),
)


def all_rows() -> dict[str, list[Row]]:
    """Return the rows of each list, by the name of its stream."""
    company = {"id": "10000", "name": "Example & Söhne", "locationIds": ["1001", "1002"]}
    subscriptions = [{"id": "s-1", "plan": "premium", "seats": 250}]
    created = {"createdAt": "2020-01-01T00:00:00.000Z", "updatedAt": None}
    return {
        "locations": locations(),
        "companies": [{**company, "subscriptions": subscriptions, **created}],
        "employees": [
            person(n, "e") | {"locationIds": ["1001"] * (n % 3), **created_fields(START, hours=n)}
            for n in range(130)
        ],
        "flows": [
            {"id": f"f-{n}", "name": f"Flow {n}", "type": "EMPLOYEE" if n % 2 else "VISITOR"}
            | {"enabled": n != 3, "locationId": str(1001 + n % 3), **created_fields(START, days=n)}
            for n in range(12)
        ],
        "entries": entries(320),
        "invites": invites(230),
        "work_schedules": work_schedules(210),
        "reservations": reservations(160),
        "spaces": spaces(260, 20),
        "desks": desks(260),
    }


def created_fields(first: datetime, **later: float) -> Row:
    time = first + timedelta(**later)
    return {"createdAt": format_time(time), "updatedAt": format_time(time + timedelta(days=1))}


def person(number: int, prefix: str) -> Row:
    name = NAMES[number % len(NAMES)]
    return {"id": f"{prefix}-{number}", "name": name, "email": f"{prefix}{number}@example.com"}


def locations(count: int = 250) -> list[Row]:
    """Return `count` locations, oldest first, with nulls, unlisted keys and many scripts."""
    return [_location(number, CITIES[(number - 1) % 6]) for number in range(1, count + 1)]


def _location(number: int, city: tuple[str, str, str, float, float]) -> Row:
    created = datetime(2021, 3, 1, 9, 30, 0, 185000, UTC) + timedelta(hours=7 * number)
    name, country, timezone, latitude, longitude = city
    row: Row = {"id": str(1000 + number), "name": f"{name} {number}", "enabled": number % 11 != 0}
    row |= {"companyId": "10000", "locale": "en", "timezone": timezone}
    row |= {"logoUrl": None if number % 3 else f"https://example.com/logo/{number}.png"}
    row |= {"capacityLimit": None if number % 4 else number, **created_fields(created)}
    row |= {"scheduleAheadLimit": 1.5 if number % 5 == 0 else 30}
    street = {"line1": f"{number} Example Street", "line2": None, "city": name, "state": None}
    place = {"postalCode": f"{number:05d}", "country": country}
    row["address"] = {**street, **place, "latitude": latitude, "longitude": longitude}
    if number % 50 == 7:
        row["address"] = None
    if number % 50 == 8:
        del row["locale"], row["capacityLimit"]
    if number % 50 == 9:
        row["printerIds"] = ["p-1"]  # keys that the documentation does not list
        row["address"]["plusCode"] = "8FVC9G8F+6X"
    return row


def _mixed(count: int) -> list[int]:
    """Return numbers in no order."""
    return sorted(range(count), key=lambda number: number * 7919 % 1009)


def entries(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` entries, `step` apart (default: an hour), the newest still on site."""
    times = [first + n * timedelta(**step or {"hours": 1}) for n in range(count)]
    left = [format_time(time + timedelta(minutes=30)) for time in times[:-5]] + [None] * 5
    return [
        {"id": f"v-{n}", "fullName": NAMES[n % 6], "isDelivery": n % 20 == 0, "flowId": "f-1"}
        | {"email": None if n % 7 == 0 else f"visitor{n}@example.com"}
        | {"agreementsStatus": "signed", "locationId": str(1001 + n % 3)}
        | {"customFields": [{"field": "Company", "value": "ACME „GmbH“"}] * (n % 3)}
        | {"signedInAt": format_time(time), "signedInVia": "kiosk", "createdAt": format_time(time)}
        | {"signedOutAt": left[n], "signedOutVia": left[n] and "kiosk"}
        for n, time in enumerate(times)
    ]


def invites(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` invites, created `step` apart (default: two hours)."""
    times = [first + n * timedelta(**step or {"hours": 2}) for n in range(count)]
    approved = {"status": "approved", "report": []}
    host = {"name": NAMES[0], "email": "host@example.com", "secretToken": "nested-token"}
    nothing = {"photoUrl": None, "recurringInviteId": None, "customFields": None}
    return [
        {"id": f"i-{n}", "type": "visitor", "flowId": "f-2", "locationId": str(1001 + n % 3)}
        | {"expectedArrivalAt": format_time(time + timedelta(days=3)), "expectedDepartureAt": None}
        | {"approvalStatus": "none" if n % 9 else approved, "sendEmailToInvitee": True}
        | {"notes": None if n % 2 else "Needs a parking place", "host": host, **nothing}
        | {"invitee": {"name": NAMES[n % 6], "email": f"guest{n}@example.com"}}
        | {"secretToken": f"invite-secret-{n}", **created_fields(time)}
        for n, time in enumerate(times)
    ]


def work_schedules(count: int, first: datetime = START, **step: float) -> list[Row]:
    """Return `count` work schedules, created `step` apart (default: two hours), in no order."""
    times = [first + n * timedelta(**step or {"hours": 2}) for n in range(count)]
    url = "https://example.com/register?token=registration-secret-"
    return [
        {"id": f"w-{n}", "status": "confirmed", "flowId": "f-1", "locationId": str(1001 + n % 3)}
        | {"expectedArrivalAt": format_time(times[n] + timedelta(days=1)), "arrivedAt": None}
        | {"expectedDepartureAt": format_time(times[n] + timedelta(hours=32)), "departedAt": None}
        | {"registrationURL": f"{url}{n}", "scheduledFor": {"type": "employee", **person(n, "e")}}
        | {"reservations": ({"id": "d-1"}, [{"id": "d-1"}], None)[n % 3]}
        | created_fields(times[n])
        for n in _mixed(count)
    ]


def reservations(count: int, first: datetime | None = None, **step: float) -> list[Row]:
    """Return `count` reservations, `step` apart (default: a day), some in the future."""
    start = first or datetime.now(UTC) - timedelta(days=110)
    times = [start + n * timedelta(**step or {"days": 1}) for n in range(count)]
    return [
        {"id": f"d-{508000 + n}", "reservedBy": person(n, "e")}
        | {"space": {"id": f"d-{n % 50}", "name": f"Desk {n % 50}", "floorId": 7}}
        | {
            "startTime": format_time(times[n]),
            "endTime": format_time(times[n] + timedelta(hours=9)),
        }
        for n in _mixed(count)
    ]


def spaces(desk_count: int, room_count: int) -> list[Row]:
    """Return spaces of the type DESK, then of the type ROOM: only ids distinguish them."""
    desk_ids = [(n, f"d-{n}", f"Desk {n}") for n in range(desk_count)]
    room_ids = [(n, f"r-{100_000 + n}", f"Room {n}") for n in range(room_count)]
    return [
        {"id": key, "name": name, "isAvailable": n % 4 != 0}
        | {"locationId": str(1001 + n % 3), "floorId": f"fl-{n % 3}"}
        | {"assignedTo": None if n % 5 or key[0] == "r" else {"id": f"e-{n}", "name": NAMES[0]}}
        for n, key, name in desk_ids + room_ids
    ]


def desks(count: int) -> list[Row]:
    """Return `count` desks; of their properties only `id` and `name` are known."""
    return [
        {"id": f"d-{n}", "name": f"Desk {n}", "deskType": "hot", "floor": {"id": f"fl-{n % 3}"}}
        for n in range(count)
    ]
