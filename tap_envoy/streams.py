"""The lists on offer, one short class for each: what it is, not how it is read.

Properties, scopes and filters are those of Envoy's documentation, or were seen in other clients.
All but `id` may be null, and objects are open: Envoy adds keys as it pleases.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from tap_envoy.client import EnvoyStream
from tap_envoy.fields import (
    PERSONAL,
    flag,
    group,
    groups,
    key,
    moment,
    number,
    record,
    text,
    texts,
    whole,
)
from tap_envoy.slices import InOrder, InWindows

MADE = moment("createdAt", "When it was made.")
CHANGED = moment("updatedAt", "When it last changed.")
LOCATION = text("locationId", "Key of the location.")
FLOW = text("flowId", "Key of the sign-in flow.")
ARRIVAL = moment("expectedArrivalAt", "When the person is expected.")
DEPARTURE = moment("expectedDepartureAt", "When the person is expected to leave.")
PERSON = (text("name", f"Name.{PERSONAL}"), text("email", f"E-mail address.{PERSONAL}"))
ANSWERS = groups(
    "customFields",
    f"Answers to the company's own questions.{PERSONAL}",
    text("field", "The question."),
    text("value", f"The answer.{PERSONAL}"),
)


class LocationsStream(EnvoyStream):
    """The company's workplaces."""

    name = "locations"
    path = "/locations"
    scopes = ("locations.read",)
    selected_by_default = True
    query: ClassVar = {"sort": "createdAt", "order": "ASC"}
    cut = InOrder(by="createdAt", after="createdAtAfter")
    schema = record(
        key("Key of the location."),
        text("name", "Name that visitors see."),
        flag("enabled", "Whether the location is in use."),
        text("companyId", "Key of the company it belongs to."),
        text("locale", "Language, such as `en`."),
        text("timezone", "IANA name of its time zone."),
        text("logoUrl", "Address of the logo."),
        whole("capacityLimit", "People allowed in at once."),
        number("scheduleAheadLimit", "How far ahead people may register; the unit is unknown."),
        MADE,
        CHANGED,
        group(
            "address",
            "Postal address and position.",
            text("line1", "First line of the address."),
            text("line2", "Second line of the address."),
            text("city", "City."),
            text("state", "State or region."),
            text("postalCode", "Postal code."),
            text("country", "Country."),
            number("latitude", "Degrees north."),
            number("longitude", "Degrees east."),
        ),
    )


class CompaniesStream(EnvoyStream):
    """The company itself."""

    name = "companies"
    path = "/companies"
    scopes = ("companies.read",)
    schema = record(
        key("Key of the company."),
        text("name", "Name of the company."),
        texts("locationIds", "Keys of its locations."),
        groups("subscriptions", "What it subscribes to; the shape is not documented."),
        MADE,
        CHANGED,
    )


class EmployeesStream(EnvoyStream):
    """The employee directory."""

    name = "employees"
    path = "/employees"
    scopes = ("employees.read", "locations.read")
    query: ClassVar = {"sort": "NAME", "order": "ASC"}
    schema = record(
        key("Key of the employee."),
        *PERSON,
        texts("locationIds", "Keys of the locations where the person works."),
        MADE,
        CHANGED,
    )


class FlowsStream(EnvoyStream):
    """Sign-in flows: the ways in which visitors and employees register."""

    name = "flows"
    path = "/flows"
    scopes = ("flows.read",)
    query: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    schema = record(
        key("Key of the flow."),
        text("name", "Name of the flow."),
        text("type", "For whom it is, such as `VISITOR` or `EMPLOYEE`."),
        flag("enabled", "Whether the flow is in use."),
        LOCATION,
        MADE,
        CHANGED,
    )


class EntriesStream(EnvoyStream):
    """Visitors who signed in."""

    name = "entries"
    path = "/entries"
    scopes = ("entries.read",)
    replication_key = "signedInAt"
    query: ClassVar = {"sort": "SIGNED_IN_AT", "order": "ASC"}
    cut = InOrder(by="signedInAt", after="signedInAtAfter")
    schema = record(
        key("Key of the entry."),
        text("fullName", f"Name of the visitor.{PERSONAL}"),
        text("email", f"E-mail address of the visitor.{PERSONAL}"),
        flag("isDelivery", "Whether a delivery was made, not a visit."),
        text("agreementsStatus", "Whether the visitor signed the agreements."),
        ANSWERS,
        FLOW,
        LOCATION,
        moment("signedInAt", "When the visitor signed in."),
        text("signedInVia", "Where the visitor signed in, such as a kiosk."),
        moment("signedOutAt", "When the visitor signed out; null while on site."),
        text("signedOutVia", "Where the visitor signed out."),
        MADE,
    )


class InvitesStream(EnvoyStream):
    """Visitors who are, or were, expected."""

    name = "invites"
    path = "/invites"
    scopes = ("invites.read", "employees.read")
    replication_key = "createdAt"
    query: ClassVar = {"sort": "CREATED_AT", "order": "ASC"}
    cut = InOrder(by="createdAt", after="createdAtAfter")
    schema = record(
        key("Key of the invite."),
        text("type", "Kind of invite."),
        ARRIVAL,
        DEPARTURE,
        text("approvalStatus", "Whether the visit was approved."),
        FLOW,
        LOCATION,
        text("notes", f"Notes of the host.{PERSONAL}"),
        group("invitee", f"Who is invited.{PERSONAL}", *PERSON),
        group("host", f"Who invites.{PERSONAL}", *PERSON),
        ANSWERS,
        flag("sendEmailToInvitee", "Whether the invitee gets an e-mail."),
        text("photoUrl", f"Address of the invitee's picture.{PERSONAL}"),
        text("recurringInviteId", "Key that the invites of a series share."),
        MADE,
        CHANGED,
    )


class WorkSchedulesStream(EnvoyStream):
    """Employees who registered to come in."""

    name = "work_schedules"
    path = "/work-schedules"
    scopes = ("work-schedules.read", "employees.read")
    replication_key = "createdAt"
    cut = InWindows(by="createdAt", after="createdAtAfter", before="createdAtBefore")
    schema = record(
        key("Key of the work schedule."),
        ARRIVAL,
        DEPARTURE,
        moment("arrivedAt", "When the person came."),
        moment("departedAt", "When the person left."),
        FLOW,
        LOCATION,
        text("status", "Where the registration stands."),
        groups("reservations", "What is booked for the day; the shape is not documented."),
        group(
            "scheduledFor",
            f"Who comes in.{PERSONAL}",
            text("id", "Key of the person."),
            text("type", "Kind of person, such as an employee."),
            *PERSON,
        ),
        MADE,
        CHANGED,
    )


class ReservationsStream(EnvoyStream):
    """Desks and other spaces that are, or were, booked."""

    name = "reservations"
    path = "/reservations"
    scopes = ("reservations.read", "spaces.read")
    replication_key = "startTime"
    # Envoy refuses more than 30 days. It is not known whether a window has what begins in it or
    # what lies within it: windows that overlap by a day also find what reaches over an edge.
    cut = InWindows(
        by="startTime",
        after="startTime",
        before="endTime",
        widest=timedelta(days=28),
        overlap=timedelta(days=1),
        looks_ahead=True,
    )
    schema = record(
        key("Key of the reservation, such as `d-508579`."),
        group("reservedBy", f"Who booked it.{PERSONAL}", *PERSON),
        group(
            "space",
            "What is booked.",
            text("id", "Key of the space."),
            text("name", "Name of the space."),
            text("floorId", "Key of the floor."),
        ),
        moment("startTime", "When it begins."),
        moment("endTime", "When it ends."),
    )


class SpacesStream(EnvoyStream):
    """Desks and other spaces that can be booked."""

    name = "spaces"
    path = "/spaces"
    scopes = ("spaces.read",)
    schema = record(
        key("Key of the space, such as `d-4953139`."),
        text("name", "Name of the space."),
        LOCATION,
        text("floorId", "Key of the floor."),
        flag("isAvailable", "Whether it can be booked."),
        text("assignedTo", f"Whom it belongs to; an object comes as its JSON.{PERSONAL}"),
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
)
