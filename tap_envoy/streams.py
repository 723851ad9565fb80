"""The streams: one short declarative class for each list endpoint of Envoy's v1 API.

Properties, scopes and filters are those of Envoy's documentation, or were seen in other clients
(envoy-api, sections 1.5, 2 and 3). All properties but `id` may be null. Fields that are not
declared are in `additionalFields`; therefore declared objects are closed, but for those in arrays.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from singer_sdk import typing as th

from tap_envoy.client import EnvoyStream
from tap_envoy.records import ADDITIONAL_FIELDS
from tap_envoy.slices import OVERLAP, Slicer

CREATED_AT = th.Property("createdAt", th.DateTimeType, description="When it was created.")
UPDATED_AT = th.Property("updatedAt", th.DateTimeType, description="When it was last changed.")
LOCATION_ID = th.Property("locationId", th.StringType, description="Id of the location.")
FLOW_ID = th.Property("flowId", th.StringType, description="Id of the sign-in flow.")
ARRIVAL = th.Property(
    "expectedArrivalAt", th.DateTimeType, description="When the person is expected."
)
DEPARTURE = th.Property(
    "expectedDepartureAt", th.DateTimeType, description="When the person is expected to leave."
)
PERSON = (
    th.Property("name", th.StringType, description="Name. Personal data."),
    th.Property("email", th.StringType, description="Email address. Personal data."),
)
CUSTOM_FIELDS = th.Property(
    "customFields",
    th.ArrayType(
        th.ObjectType(
            th.Property("field", th.StringType, description="The question."),
            th.Property("value", th.StringType, description="The answer. Personal data."),
            additional_properties=True,
        )
    ),
    description="Answers to the company's questions. Personal data.",
)

ADDITIONAL = th.Property(
    ADDITIONAL_FIELDS,
    # Without `properties`: flattening would make no column of it.
    th.CustomType({"type": ["object", "null"], "additionalProperties": True}),
    description=(
        "What Envoy sent beyond the other properties, under its own names, and values of an "
        "unexpected type. Null if there is nothing. May hold personal data."
    ),
)


def _object(*properties: th.Property[Any]) -> th.ObjectType:
    """Return a closed object: what it does not declare is in `additionalFields`."""
    return th.ObjectType(*properties, additional_properties=False)


def _schema(*properties: th.Property[Any]) -> dict[str, Any]:
    """Return a stream's schema: these properties and `additionalFields`."""
    return th.PropertiesList(*properties, ADDITIONAL).to_dict()


class LocationsStream(EnvoyStream):
    """The company's workplaces."""

    name = "locations"
    path = "/locations"
    scopes = ("locations.read",)
    selected_by_default = True
    sort_params: ClassVar = {"sort": "createdAt", "order": "ASC"}
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the location."),
        th.Property("name", th.StringType, description="Name that visitors see."),
        th.Property("enabled", th.BooleanType, description="Whether the location is in use."),
        th.Property("companyId", th.StringType, description="Id of the company."),
        th.Property("locale", th.StringType, description="Language, such as `en`."),
        th.Property("timezone", th.StringType, description="IANA name of the time zone."),
        th.Property("logoUrl", th.StringType, description="URL of the logo."),
        th.Property("capacityLimit", th.IntegerType, description="People allowed in at once."),
        th.Property(
            "scheduleAheadLimit",
            th.NumberType,
            description="How far ahead people may register; the unit is unknown.",
        ),
        CREATED_AT,
        UPDATED_AT,
        th.Property(
            "address",
            _object(
                th.Property("line1", th.StringType, description="First line of the address."),
                th.Property("line2", th.StringType, description="Second line of the address."),
                th.Property("city", th.StringType, description="City."),
                th.Property("state", th.StringType, description="State or region."),
                th.Property("postalCode", th.StringType, description="Postal code."),
                th.Property("country", th.StringType, description="Country."),
                th.Property("latitude", th.NumberType, description="Degrees north."),
                th.Property("longitude", th.NumberType, description="Degrees east."),
            ),
            description="Postal address and position.",
        ),
    )


class CompaniesStream(EnvoyStream):
    """The company."""

    name = "companies"
    path = "/companies"
    scopes = ("companies.read",)
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the company."),
        th.Property("name", th.StringType, description="Name of the company."),
        th.Property(
            "locationIds", th.ArrayType(th.StringType), description="Ids of its locations."
        ),
        th.Property(
            "subscriptions",
            th.ArrayType(th.ObjectType(additional_properties=True)),
            description="What it subscribes to; the shape is not documented.",
        ),
        CREATED_AT,
        UPDATED_AT,
    )


class EmployeesStream(EnvoyStream):
    """The employee directory."""

    name = "employees"
    path = "/employees"
    scopes = ("employees.read", "locations.read")
    sort_params: ClassVar = {"sort": "NAME", "order": "ASC"}
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the employee."),
        *PERSON,
        th.Property(
            "locationIds",
            th.ArrayType(th.StringType),
            description="Ids of the locations where the person works.",
        ),
        CREATED_AT,
        UPDATED_AT,
    )


class FlowsStream(EnvoyStream):
    """Sign-in flows of visitors and employees."""

    name = "flows"
    path = "/flows"
    scopes = ("flows.read",)
    sort_params: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the flow."),
        th.Property("name", th.StringType, description="Name of the flow."),
        th.Property(
            "type", th.StringType, description="Who signs in, such as `VISITOR` or `EMPLOYEE`."
        ),
        th.Property("enabled", th.BooleanType, description="Whether the flow is in use."),
        LOCATION_ID,
        CREATED_AT,
        UPDATED_AT,
    )


class EntriesStream(EnvoyStream):
    """Visitors who signed in."""

    name = "entries"
    path = "/entries"
    scopes = ("entries.read",)
    replication_key = "signedInAt"
    sort_params: ClassVar = {"sort": "SIGNED_IN_AT", "order": "ASC"}
    slicer = Slicer("signedInAt", "signedInAtAfter", "signedInAtBefore")
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the entry."),
        th.Property("fullName", th.StringType, description="Name of the visitor. Personal data."),
        th.Property(
            "email", th.StringType, description="Email address of the visitor. Personal data."
        ),
        th.Property(
            "isDelivery", th.BooleanType, description="Whether a delivery was made, not a visit."
        ),
        th.Property(
            "agreementsStatus",
            th.StringType,
            description="Whether the visitor signed the agreements.",
        ),
        CUSTOM_FIELDS,
        FLOW_ID,
        LOCATION_ID,
        th.Property("signedInAt", th.DateTimeType, description="When the visitor signed in."),
        th.Property(
            "signedInVia",
            th.StringType,
            description="Where the visitor signed in, such as a kiosk.",
        ),
        th.Property(
            "signedOutAt",
            th.DateTimeType,
            description="When the visitor signed out; null while on site.",
        ),
        th.Property("signedOutVia", th.StringType, description="Where the visitor signed out."),
        CREATED_AT,
    )


class InvitesStream(EnvoyStream):
    """Visitors who are, or were, expected."""

    name = "invites"
    path = "/invites"
    scopes = ("invites.read", "employees.read")
    replication_key = "createdAt"
    sort_params: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    slicer = Slicer("createdAt", "createdAtAfter", "createdAtBefore")
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the invite."),
        th.Property("type", th.StringType, description="Type of invite."),
        ARRIVAL,
        DEPARTURE,
        th.Property("approvalStatus", th.StringType, description="Whether the visit was approved."),
        FLOW_ID,
        LOCATION_ID,
        th.Property("notes", th.StringType, description="Notes of the host. Personal data."),
        th.Property(
            "invitee",
            _object(*PERSON),
            description="Who is invited. Personal data.",
        ),
        th.Property(
            "host",
            _object(*PERSON),
            description="Who invites. Personal data.",
        ),
        CUSTOM_FIELDS,
        th.Property(
            "sendEmailToInvitee", th.BooleanType, description="Whether the invitee gets an email."
        ),
        th.Property(
            "photoUrl", th.StringType, description="URL of the invitee's picture. Personal data."
        ),
        th.Property(
            "recurringInviteId", th.StringType, description="Id that the invites of a series share."
        ),
        CREATED_AT,
        UPDATED_AT,
    )


class WorkSchedulesStream(EnvoyStream):
    """Employees who registered to come in."""

    name = "work_schedules"
    path = "/work-schedules"
    scopes = ("work-schedules.read", "employees.read")
    replication_key = "createdAt"
    # That these filters work as query parameters is inferred: if not, the list is read as a whole.
    slicer = Slicer("createdAt", start_param="createdAtAfter", end_param="createdAtBefore")
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the work schedule."),
        ARRIVAL,
        DEPARTURE,
        th.Property("arrivedAt", th.DateTimeType, description="When the person arrived."),
        th.Property("departedAt", th.DateTimeType, description="When the person left."),
        FLOW_ID,
        LOCATION_ID,
        th.Property("status", th.StringType, description="Status of the registration."),
        th.Property(
            "reservations",
            th.ArrayType(th.ObjectType(additional_properties=True)),
            description="What is booked for the day; the shape is not documented.",
        ),
        th.Property(
            "scheduledFor",
            _object(
                th.Property("id", th.StringType, description="Id of the person."),
                th.Property(
                    "type", th.StringType, description="Type of person, such as an employee."
                ),
                *PERSON,
            ),
            description="Who comes in. Personal data.",
        ),
        CREATED_AT,
        UPDATED_AT,
    )


class ReservationsStream(EnvoyStream):
    """Desks and other spaces that are, or were, booked."""

    name = "reservations"
    path = "/reservations"
    scopes = ("reservations.read", "spaces.read")
    replication_key = "startTime"
    needs_filter = True
    # Envoy rejects windows of more than 30 days (documented). Whether a window holds what begins in
    # it, overlaps it, or lies within it is unknown: windows that begin 15 days apart hold every
    # reservation of up to 15 days in each case.
    slicer = Slicer(
        "startTime",
        start_param="startTime",
        end_param="endTime",
        end_field="endTime",
        max_window=timedelta(days=30) - 2 * OVERLAP,
    )
    schema = _schema(
        th.Property(
            "id",
            th.StringType,
            required=True,
            description="Id of the reservation, such as `d-508579`.",
        ),
        th.Property(
            "reservedBy",
            _object(*PERSON),
            description="Who booked it. Personal data.",
        ),
        th.Property(
            "space",
            _object(
                th.Property("id", th.StringType, description="Id of the space."),
                th.Property("name", th.StringType, description="Name of the space."),
                th.Property("floorId", th.StringType, description="Id of the floor."),
            ),
            description="What is booked.",
        ),
        th.Property("startTime", th.DateTimeType, description="When it begins."),
        th.Property("endTime", th.DateTimeType, description="When it ends."),
    )


class SpacesStream(EnvoyStream):
    """Desks and rooms that can be booked."""

    name = "spaces"
    path = "/spaces"
    scopes = ("spaces.read",)
    # Without `type` only desks are returned (seen in a client).
    slicer = Slicer(variants=({}, {"type": "ROOM"}))
    schema = _schema(
        th.Property(
            "id", th.StringType, required=True, description="Id of the space, such as `d-4953139`."
        ),
        th.Property("name", th.StringType, description="Name of the space."),
        LOCATION_ID,
        th.Property("floorId", th.StringType, description="Id of the floor."),
        th.Property("isAvailable", th.BooleanType, description="Whether it can be booked."),
        th.Property(
            "assignedTo",
            th.StringType,
            description="Who it is assigned to; an object is given as its JSON. Personal data.",
        ),
    )


class DesksStream(EnvoyStream):
    """Desks, as the endpoint that Envoy added in 2023 lists them."""

    name = "desks"
    path = "/desks"
    scopes = ("spaces.read",)  # inferred: creating a desk needs it
    schema = _schema(
        th.Property("id", th.StringType, required=True, description="Id of the desk."),
        th.Property("name", th.StringType, description="Name of the desk."),
    )


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
