"""A local Envoy: strict where its documentation is clear, with quirks where it is not."""

from tests.sandbox.app import Envoy, ScriptedResponse, list_path
from tests.sandbox.quirks import Change, ChangeSchedule, Quirks
from tests.sandbox.resources import RESOURCES, Resource, respond
from tests.sandbox.server import serve

__all__ = [
    "RESOURCES",
    "Change",
    "ChangeSchedule",
    "Envoy",
    "Quirks",
    "Resource",
    "ScriptedResponse",
    "list_path",
    "respond",
    "serve",
]
