"""A tap as the SDK's template makes it: what others would write in an hour."""

import os
from typing import Any, ClassVar

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import APIKeyAuthenticator
from singer_sdk.pagination import BasePageNumberPaginator

TEXTS = ("id", "name", "companyId", "locale", "timezone", "logoUrl")
ADDRESS = th.ObjectType(
    *(th.Property(name, th.StringType) for name in ("line1", "line2", "city")),
    th.Property("latitude", th.NumberType),
)


class Pages(BasePageNumberPaginator):
    def has_more(self, response: Any) -> bool:
        meta = response.json()["meta"]
        return bool(meta["page"] * meta["perPage"] < meta["total"])


class Locations(RESTStream[int]):
    name = "locations"
    path = "/locations"
    primary_keys: ClassVar[list[str]] = ["id"]
    records_jsonpath = "$.data[*]"
    url_base = os.environ["TAP_ENVOY_API_URL"]
    authenticator = APIKeyAuthenticator(key="X-Api-Key", value="key")
    schema = th.PropertiesList(
        *(th.Property(name, th.StringType) for name in TEXTS),
        *(th.Property(name, th.DateTimeType) for name in ("createdAt", "updatedAt")),
        th.Property("enabled", th.BooleanType),
        th.Property("capacityLimit", th.IntegerType),
        th.Property("scheduleAheadLimit", th.NumberType),
        th.Property("address", ADDRESS),
    ).to_dict()

    def get_new_paginator(self) -> Pages:
        return Pages(start_value=1)

    def get_url_params(self, context: Any, next_page_token: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"page": next_page_token, "perPage": 100}


class Template(Tap):
    name = "tap-template"
    config_jsonschema: ClassVar[dict[str, Any]] = {"properties": {}}

    def discover_streams(self) -> list[Locations]:
        return [Locations(self)]


Template.cli()
