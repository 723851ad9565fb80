"""A local Envoy: strict where its documentation is clear, with quirks where it is not."""

from tests.sandbox.app import (
    Envoy,
    Request,
    ScriptedResponse,
    list_path,
    random_delays,
    status_in_body,
)
from tests.sandbox.quirks import Change, ChangeSchedule, Quirks
from tests.sandbox.resources import RESOURCES, respond
from tests.sandbox.server import serve

__all__ = [
    "RESOURCES",
    "Change",
    "ChangeSchedule",
    "Envoy",
    "Quirks",
    "Request",
    "ScriptedResponse",
    "list_path",
    "random_delays",
    "respond",
    "serve",
    "status_in_body",
]
