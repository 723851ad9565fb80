"""The HTTP session of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from typing_extensions import override

if TYPE_CHECKING:
    from tap_envoy.pace import Pace


class EnvoySession(requests.Session):
    """A session that keeps one pace, and follows no redirect, nor looks at its target."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace
        self._environment: dict[str, Any] = {}

    @override
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request when it is its turn."""
        self.pace.wait()
        return super().send(request, **kwargs)

    @override
    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Look up a proxy and a CA bundle once for each host: it takes as long as 20 rows."""
        host = urlsplit(url).netloc
        if host not in self._environment:
            self._environment[host] = super().merge_environment_settings(
                url, proxies, stream, verify, cert
            )
        return dict(self._environment[host])

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Tell that there is none: credentials never go to another host."""
