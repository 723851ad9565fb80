"""The streams: one short declarative class for each list endpoint of Envoy's v1 API.

Properties, scopes and filters are those of Envoy's documentation, or were seen in other clients.
All properties but `id` may be null. Fields that are not declared are in `additionalFields`;
therefore declared objects are closed, but for those in arrays.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import typing as th

from tap_envoy.client import EnvoyStream
from tap_envoy.records import ADDITIONAL_FIELDS
from tap_envoy.slices import OVERLAP, Slicer

if TYPE_CHECKING:
    from collections.abc import Callable


def _of(kind: Any) -> Callable[[str, str], th.Property[Any]]:
    """Return a function that declares a property of a type by its name and description."""
    return lambda name, description: th.Property(name, kind, description=description)


_string, _boolean, _integer = _of(th.StringType), _of(th.BooleanType), _of(th.IntegerType)
_number, _timestamp = _of(th.NumberType), _of(th.DateTimeType)
_strings = _of(th.ArrayType(th.StringType))


def _object(name: str, description: str, *properties: th.Property[Any]) -> th.Property[Any]:
    return _of(th.ObjectType(*properties, additional_properties=False))(name, description)


def _objects(name: str, description: str, *properties: th.Property[Any]) -> th.Property[Any]:
    item = th.ObjectType(*properties, additional_properties=True)
    return _of(th.ArrayType(item))(name, description)


def _schema(id_description: str, *properties: th.Property[Any]) -> dict[str, Any]:
    """Return the schema of a stream: `id`, these properties, and `additionalFields`."""
    key = th.Property("id", th.StringType, required=True, description=id_description)
    return th.PropertiesList(key, *properties, ADDITIONAL).to_dict()


# Without `properties`: flattening would make no column of it.
ADDITIONAL = _of(th.CustomType({"type": ["object", "null"], "additionalProperties": True}))(
    ADDITIONAL_FIELDS,
    "What Envoy sent beyond the other properties, under its own names, and values of an "
    "unexpected type. Null if there is nothing. May hold personal data.",
)
PERSON = _string("name", "Name. Personal data."), _string("email", "Email. Personal data.")
CUSTOM_FIELDS = _objects(
    "customFields",
    "Answers to the company's questions. Personal data.",
    _string("field", "The question."),
    _string("value", "The answer. Personal data."),
)
LOCATION_ID = _string("locationId", "Id of the location.")
FLOW_ID = _string("flowId", "Id of the sign-in flow.")
EXPECTED = (
    _timestamp("expectedArrivalAt", "When the person is expected."),
    _timestamp("expectedDepartureAt", "When the person is expected to leave."),
)
CREATED_AT = _timestamp("createdAt", "When it was created.")
CHANGES = (CREATED_AT, _timestamp("updatedAt", "When it was last changed."))


class LocationsStream(EnvoyStream):
    """The company's workplaces, with their addresses."""

    name = "locations"
    path = "/locations"
    scopes = ("locations.read",)
    selected_by_default = True
    sort_params: ClassVar = {"sort": "createdAt", "order": "ASC"}
    schema = _schema(
        "Id of the location.",
        _string("name", "Name that visitors see."),
        _boolean("enabled", "Whether the location is in use."),
        _string("companyId", "Id of the company."),
        _string("locale", "Language, such as `en`."),
        _string("timezone", "IANA name of the time zone."),
        _string("logoUrl", "URL of the logo."),
        _integer("capacityLimit", "People allowed in at once."),
        _number("scheduleAheadLimit", "How far ahead people may register; the unit is unknown."),
        *CHANGES,
        _object(
            "address",
            "Postal address and position.",
            _string("line1", "First line of the address."),
            _string("line2", "Second line of the address."),
            _string("city", "City."),
            _string("state", "State or region."),
            _string("postalCode", "Postal code."),
            _string("country", "Country."),
            _number("latitude", "Degrees north."),
            _number("longitude", "Degrees east."),
        ),
    )


class CompaniesStream(EnvoyStream):
    """The company and its subscriptions."""

    name = "companies"
    path = "/companies"
    scopes = ("companies.read",)
    schema = _schema(
        "Id of the company.",
        _string("name", "Name of the company."),
        _strings("locationIds", "Ids of its locations."),
        _objects("subscriptions", "What it subscribes to; the shape is not documented."),
        *CHANGES,
    )


class EmployeesStream(EnvoyStream):
    """The employee directory: names, email addresses, locations. Personal data."""

    name = "employees"
    path = "/employees"
    scopes = ("employees.read", "locations.read")
    sort_params: ClassVar = {"sort": "NAME", "order": "ASC"}
    schema = _schema(
        "Id of the employee.",
        *PERSON,
        _strings("locationIds", "Ids of the locations where the person works."),
        *CHANGES,
    )


class FlowsStream(EnvoyStream):
    """Sign-in flows for visitors and employees."""

    name = "flows"
    path = "/flows"
    scopes = ("flows.read",)
    sort_params: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    schema = _schema(
        "Id of the flow.",
        _string("name", "Name of the flow."),
        _string("type", "Who signs in, such as `VISITOR` or `EMPLOYEE`."),
        _boolean("enabled", "Whether the flow is in use."),
        LOCATION_ID,
        *CHANGES,
    )


class EntriesStream(EnvoyStream):
    """Visitors who signed in, and when they signed out. Personal data."""

    name = "entries"
    path = "/entries"
    scopes = ("entries.read",)
    replication_key = "signedInAt"
    sort_params: ClassVar = {"sort": "SIGNED_IN_AT", "order": "ASC"}
    slicer = Slicer("signedInAt", "signedInAtAfter", "signedInAtBefore")
    schema = _schema(
        "Id of the entry.",
        _string("fullName", "Name of the visitor. Personal data."),
        _string("email", "Email address of the visitor. Personal data."),
        _boolean("isDelivery", "Whether a delivery was made, not a visit."),
        _string("agreementsStatus", "Whether the visitor signed the agreements."),
        CUSTOM_FIELDS,
        FLOW_ID,
        LOCATION_ID,
        _timestamp("signedInAt", "When the visitor signed in."),
        _string("signedInVia", "Where the visitor signed in, such as a kiosk."),
        _timestamp("signedOutAt", "When the visitor signed out; null while on site."),
        _string("signedOutVia", "Where the visitor signed out."),
        CREATED_AT,
    )


class InvitesStream(EnvoyStream):
    """Visitors who are or were expected, and their hosts. Personal data."""

    name = "invites"
    path = "/invites"
    scopes = ("invites.read", "employees.read")
    replication_key = "createdAt"
    sort_params: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    slicer = Slicer("createdAt", "createdAtAfter", "createdAtBefore")
    schema = _schema(
        "Id of the invite.",
        _string("type", "Type of invite."),
        *EXPECTED,
        _string("approvalStatus", "Whether the visit was approved."),
        FLOW_ID,
        LOCATION_ID,
        _string("notes", "Notes of the host. Personal data."),
        _object("invitee", "Who is invited. Personal data.", *PERSON),
        _object("host", "Who invites. Personal data.", *PERSON),
        CUSTOM_FIELDS,
        _boolean("sendEmailToInvitee", "Whether the invitee gets an email."),
        _string("photoUrl", "URL of the invitee's picture. Personal data."),
        _string("recurringInviteId", "Id that the invites of a series share."),
        *CHANGES,
    )


class WorkSchedulesStream(EnvoyStream):
    """Employees who registered to come in, and when they came. Personal data."""

    name = "work_schedules"
    path = "/work-schedules"
    scopes = ("work-schedules.read", "employees.read")
    replication_key = "createdAt"
    slicer = Slicer("createdAt", "createdAtAfter", "createdAtBefore")
    schema = _schema(
        "Id of the work schedule.",
        *EXPECTED,
        _timestamp("arrivedAt", "When the person arrived."),
        _timestamp("departedAt", "When the person left."),
        FLOW_ID,
        LOCATION_ID,
        _string("status", "Status of the registration."),
        _objects("reservations", "What is booked for the day; the shape is not documented."),
        _object(
            "scheduledFor",
            "Who comes in. Personal data.",
            _string("id", "Id of the person."),
            _string("type", "Type of person, such as an employee."),
            *PERSON,
        ),
        *CHANGES,
    )


class ReservationsStream(EnvoyStream):
    """Bookings of desks and other spaces, past and future. Personal data."""

    name = "reservations"
    path = "/reservations"
    scopes = ("reservations.read", "spaces.read")
    replication_key = "startTime"
    # Envoy rejects more than 30 days. Whether a window holds what begins in it, overlaps it or lies
    # within it is unknown: windows that begin 15 days apart hold rows of up to 15 days in any case.
    slicer = Slicer(
        "startTime",
        start_param="startTime",
        end_param="endTime",
        end_field="endTime",
        max_window=timedelta(days=30) - 2 * OVERLAP,
    )
    schema = _schema(
        "Id of the reservation, such as `d-508579`.",
        _object("reservedBy", "Who booked it. Personal data.", *PERSON),
        _object(
            "space",
            "What is booked.",
            _string("id", "Id of the space."),
            _string("name", "Name of the space."),
            _string("floorId", "Id of the floor."),
        ),
        _timestamp("startTime", "When it begins."),
        _timestamp("endTime", "When it ends."),
    )


class SpacesStream(EnvoyStream):
    """Desks and rooms, and who they are assigned to. Personal data."""

    name = "spaces"
    path = "/spaces"
    scopes = ("spaces.read",)
    slicer = Slicer(variants=({}, {"type": "ROOM"}))  # without `type` only desks are returned
    schema = _schema(
        "Id of the space, such as `d-4953139`.",
        _string("name", "Name of the space."),
        LOCATION_ID,
        _string("floorId", "Id of the floor."),
        _boolean("isAvailable", "Whether it can be booked."),
        _string("assignedTo", "Who it is assigned to; an object is given as JSON. Personal data."),
    )


class DesksStream(EnvoyStream):
    """Desks, from an endpoint that Envoy added in 2023; most of it is in `additionalFields`."""

    name = "desks"
    path = "/desks"
    scopes = ("spaces.read",)  # inferred: creating a desk needs it
    schema = _schema("Id of the desk.", _string("name", "Name of the desk."))


STREAMS: tuple[type[EnvoyStream], ...] = (
    LocationsStream,
    CompaniesStream,
    EmployeesStream,
    FlowsStream,
    EntriesStream,
    InvitesStream,
    WorkSchedulesStream,
    ReservationsStream,
    SpacesStream,
    DesksStream,
)
