"""Singer tap for Envoy, the workplace platform."""
