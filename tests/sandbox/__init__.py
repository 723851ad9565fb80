"""An Envoy on loopback, as strict as Envoy's v1 API is known to be."""

from tests.sandbox.envoy import Answer, Envoy, Request
from tests.sandbox.server import serve

__all__ = ["Answer", "Envoy", "Request", "serve"]
