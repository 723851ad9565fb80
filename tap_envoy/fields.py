"""The vocabulary in which `streams.py` writes schemas down: one line for each property."""

from __future__ import annotations

from typing import Any

from singer_sdk import typing as th

PERSONAL = " Personal data."
"""What the description of a property ends with that tells of a person."""


def record(*properties: th.Property[Any]) -> dict[str, Any]:
    """Return the JSON schema of a row; what its properties do not list is not passed on."""
    return th.PropertiesList(*properties).to_dict()


def key(description: str) -> th.Property[Any]:
    """Return the key `id`, the one property that every row has."""
    return th.Property("id", th.StringType, required=True, description=description)


def text(name: str, description: str) -> th.Property[Any]:
    """Return a property that holds text; anything else comes as its JSON."""
    return th.Property(name, th.StringType, description=description)


def flag(name: str, description: str) -> th.Property[Any]:
    """Return a property that is true or false."""
    return th.Property(name, th.BooleanType, description=description)


def whole(name: str, description: str) -> th.Property[Any]:
    """Return a property that is a whole number."""
    return th.Property(name, th.IntegerType, description=description)


def number(name: str, description: str) -> th.Property[Any]:
    """Return a property that is a number."""
    return th.Property(name, th.NumberType, description=description)


def moment(name: str, description: str) -> th.Property[Any]:
    """Return a property that is a time in UTC, such as 2024-05-17T14:39:44.185Z."""
    return th.Property(name, th.DateTimeType, description=description)


def texts(name: str, description: str) -> th.Property[Any]:
    """Return a property that is a list of texts."""
    return th.Property(name, th.ArrayType(th.StringType), description=description)


def group(name: str, description: str, *properties: th.Property[Any]) -> th.Property[Any]:
    """Return a property that is an object, open to keys that `properties` do not list."""
    inner = th.ObjectType(*properties, additional_properties=True)
    return th.Property(name, inner, description=description)


def groups(name: str, description: str, *properties: th.Property[Any]) -> th.Property[Any]:
    """Return a property that is a list of such objects; a single one comes as a list of one."""
    inner = th.ObjectType(*properties, additional_properties=True)
    return th.Property(name, th.ArrayType(inner), description=description)
