"""The lists on offer, one short class for each: what it is, not how it is read."""

from __future__ import annotations

from typing import ClassVar

from singer_sdk import typing as th

from tap_envoy.client import EnvoyStream


class LocationsStream(EnvoyStream):
    """The company's workplaces: `GET /locations`."""

    name = "locations"
    path = "/locations"
    scopes = ("locations.read",)
    # Rows that are made while the list is read come last, so that no page shifts.
    query: ClassVar = {"sort": "createdAt", "order": "ASC"}
    schema = th.PropertiesList(
        th.Property("id", th.StringType, required=True, description="Key of the location."),
        th.Property("name", th.StringType, description="Name that visitors see."),
        th.Property("enabled", th.BooleanType, description="Whether the location is in use."),
        th.Property("companyId", th.StringType, description="Key of the company it belongs to."),
        th.Property("locale", th.StringType, description="Language, such as `en`."),
        th.Property("timezone", th.StringType, description="IANA name of its time zone."),
        th.Property("logoUrl", th.StringType, description="Address of the logo."),
        th.Property("capacityLimit", th.IntegerType, description="People allowed in at once."),
        th.Property(
            "scheduleAheadLimit",
            th.NumberType,
            description="How far ahead employees may register; the unit is not documented.",
        ),
        th.Property("createdAt", th.DateTimeType, description="When it was made, in UTC."),
        th.Property("updatedAt", th.DateTimeType, description="When it last changed, in UTC."),
        th.Property(
            "address",
            th.ObjectType(
                th.Property("line1", th.StringType, description="First line of the address."),
                th.Property("line2", th.StringType, description="Second line of the address."),
                th.Property("city", th.StringType, description="City."),
                th.Property("state", th.StringType, description="State or region."),
                th.Property("postalCode", th.StringType, description="Postal code."),
                th.Property("country", th.StringType, description="Country."),
                th.Property("latitude", th.NumberType, description="Degrees north."),
                th.Property("longitude", th.NumberType, description="Degrees east."),
                additional_properties=True,
            ),
            description="Postal address and position.",
        ),
    ).to_dict()
