"""A token endpoint with rotating, single-use refresh tokens."""

import random
import threading
import time
from base64 import b64encode
from typing import TYPE_CHECKING

from tests.unit.local_server import Received, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

BASIC = b64encode(b"client:client-secret").decode()


class TokenServer:
    """Issues tokens as Envoy's guide for private apps describes."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.replies: list[Reply | Callable[[], Reply] | None] = []
        """Replies to the next requests, in place of the usual ones; None closes the connection."""
        self.changes: dict[str, object] = {}
        """Properties of token responses that replace the usual ones."""
        self.max_delay = 0.0
        self.live: set[str] = set()
        self.reused: list[str] = []
        self._count = 0
        self._lock = threading.Lock()

    @property
    def grants(self) -> list[str]:
        return [request.form["grant_type"] for request in self.received]

    @property
    def sent_refresh_tokens(self) -> list[str]:
        forms = [request.form for request in self.received]
        return [form["refresh_token"] for form in forms if "refresh_token" in form]

    def new_refresh_token(self, owner: str = "user") -> str:
        with self._lock:
            self._count += 1
            token = f"refresh-{owner}-{self._count}"
            self.live.add(token)
        return token

    def __call__(self, request: Received) -> Reply | None:
        self.received.append(request)
        if self.replies:
            reply = self.replies.pop(0)
            return reply() if callable(reply) else reply
        time.sleep(random.uniform(0, self.max_delay))  # noqa: S311
        form = request.form
        if form["grant_type"] == "password":
            if form["password"] != "password":
                return Reply(401, {"error": "invalid_grant"})
            return self.issue(form["username"])
        with self._lock:
            token = form["refresh_token"]
            if token not in self.live:
                self.reused.append(token)
                return Reply(401, {"error": "invalid_grant", "error_description": "not valid"})
            self.live.remove(token)
        reply = self.issue(token.split("-")[1])
        time.sleep(random.uniform(0, self.max_delay))  # noqa: S311
        return reply

    def issue(self, owner: str) -> Reply:
        refresh_token = self.new_refresh_token(owner)
        return Reply(
            200,
            {
                "token_type": "Bearer",
                "access_token": f"access-{refresh_token}",
                "expires_in": 86400,
                "refresh_token": refresh_token,
                "refresh_token_expires_in": 2592000,
                "state": None,
                "company_id": "10000",
                **self.changes,
            },
        )
