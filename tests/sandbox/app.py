"""Envoy's token endpoint and the lists of its v1 API, as an ASGI app."""

import asyncio
import base64
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.sandbox import data
from tests.sandbox.quirks import ChangeSchedule, Quirks, Row
from tests.sandbox.resources import RESOURCES, respond

if TYPE_CHECKING:
    from tests.sandbox.rate_limits import LeakyBucket


@dataclass(frozen=True)
class Request:
    """A request that the sandbox received."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    time: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ScriptedResponse:
    """A response sent instead of the real one.

    Attributes:
        status: The status; 200 without a body sends the real response, after `delay`.
        body: Bytes, or a value to send as JSON.
        cut: Whether the connection breaks in the middle of the body.
        delay: Seconds before the response.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    delay: float = 0


class Envoy:
    """The state of a sandbox, for a test to arrange and inspect."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        self.rows: dict[str, list[Row]] = data.all_rows()
        """The rows of each list as they are now, by the name of its stream."""
        self.quirks = quirks or Quirks()
        self.resource_quirks: dict[str, Quirks] = {}
        """Quirks of single streams, instead of `quirks`."""
        self.changes = ChangeSchedule()
        self.limit: LeakyBucket | None = None
        self.api_key = "key-" + secrets.token_hex(16)
        self.client_id = "client-" + secrets.token_hex(8)
        self.client_secret = "cs-" + secrets.token_hex(16)
        pair = f"{self.client_id}:{self.client_secret}"
        self._basic = base64.b64encode(pair.encode()).decode()
        self.username = "api.user@example.com"
        self.password = "pw-&+%\"'\\ß漢=" + secrets.token_hex(8)
        scopes = (scope for x in RESOURCES.values() for scope in x.scopes.split(","))
        self.integration_scopes: AbstractSet[str] = {"token.refresh", *scopes}
        self.requests: list[Request] = []
        self.issued: set[str] = set()
        """All access and refresh tokens issued so far."""
        self.access_tokens: dict[str, AbstractSet[str]] = {}
        self.refresh_tokens: dict[str, AbstractSet[str]] = {}
        self._scripts: defaultdict[str, deque[ScriptedResponse]] = defaultdict(deque)
        token = Route("/oauth2/token", self._token, methods=["POST"])
        self.app = Starlette(routes=[token, Route("/v1/{name:path}", self._list)])

    def script(self, path: str, *responses: ScriptedResponse) -> None:
        """Send these responses to the next requests for `path`, then real ones again."""
        self._scripts[path].extend(responses)

    def requests_for(self, path: str) -> list[Request]:
        """Return the requests for `path` so far."""
        return [request for request in self.requests if request.path == path]

    def new_refresh_token(self, *scopes: str) -> str:
        """Issue a refresh token, as an earlier sign-in would have."""
        return self._issue(self.refresh_tokens, frozenset({"token.refresh", *scopes}))

    def stable_ids(self, stream: str) -> set[str]:
        """Return the ids of the rows that existed throughout and are not hidden."""
        quirks = self.resource_quirks.get(stream, self.quirks)
        stable = self.changes.stable_rows(self.rows[stream])
        return {row["id"] for row in stable if not quirks.hides(row)}

    @property
    def secrets(self) -> set[str]:
        """All values that must never appear in output or logs."""
        password = {self.password, self.password[-16:]}
        return {self.api_key, self.client_secret, self._basic, *password, *self.issued}

    async def _token(self, http: HttpRequest) -> Response:
        form: dict[str, str] = {}
        if http.headers.get("content-type", "").startswith("multipart/form-data;"):
            async with http.form() as parts:
                form = {name: value for name, value in parts.items() if isinstance(value, str)}
        if scripted := await self._scripted(self._record(http, form)):
            return scripted
        authorization = http.headers.get("authorization")
        match form:
            case {"grant_type": "password", "scope": scope, **user} if len(user) == 2:
                is_client = authorization == f"Basic {self._basic}"
                is_user = user == {"username": self.username, "password": self.password}
                scopes: AbstractSet[str] | None = set(scope.split(",")) if is_user else None
            case {"grant_type": "refresh_token", "refresh_token": token, **client} if (
                len(client) == 2 and authorization is None
            ):
                known = {"client_id": self.client_id, "client_secret": self.client_secret}
                is_client = client == known
                scopes = self.refresh_tokens.pop(token, None) if is_client else None  # valid once
            case _:
                return JSONResponse({"error": "invalid_request"}, 400)
        if not is_client or scopes is None:
            return JSONResponse({"error": "invalid_grant" if is_client else "invalid_client"}, 401)
        if not scopes <= self.integration_scopes:
            return JSONResponse({"error": "invalid_scope"}, 400)
        return self._tokens(scopes)

    def _tokens(self, scopes: AbstractSet[str]) -> Response:
        access = {"access_token": self._issue(self.access_tokens, scopes), "expires_in": 86400}
        token = self._issue(self.refresh_tokens, scopes) if "token.refresh" in scopes else None
        refresh = {"refresh_token": token, "refresh_token_expires_in": token and 2592000}
        more = {"token_type": "Bearer", "state": None, "company_id": "10000"}
        return JSONResponse({**access, **refresh, **more})

    def _issue(self, tokens: dict[str, AbstractSet[str]], scopes: AbstractSet[str]) -> str:
        token = "tok-" + secrets.token_urlsafe(24)
        self.issued.add(token)
        tokens[token] = scopes
        return token

    async def _list(self, http: HttpRequest) -> Response:
        request = self._record(http, {})
        if scripted := await self._scripted(request):
            return scripted
        stream = http.path_params["name"].replace("-", "_")
        if stream not in RESOURCES or request.path != list_path(stream):
            return JSONResponse({"message": "Not found"}, 404)
        if refusal := self._authorize(http, {*RESOURCES[stream].scopes.split(",")}):
            return JSONResponse(*refusal)
        if self.limit and not self.limit.allows():
            return JSONResponse({"message": "Too many requests"}, 429)
        rows, quirks = self.rows[stream], self.resource_quirks.get(stream, self.quirks)
        status, body = respond(RESOURCES[stream], rows, request.query, quirks)
        self.changes.after_request(stream, rows)
        return JSONResponse(body, status)

    def _authorize(self, http: HttpRequest, needed: AbstractSet[str]) -> tuple[Any, int] | None:
        """Return body and status of a refusal."""
        key, bearer = http.headers.get("x-api-key"), http.headers.get("authorization", "")
        if key and bearer:
            return {"message": "Use one authentication method"}, 400
        if key and key != self.api_key:
            return {"status": 401, "message": "Unauthorized"}, 200
        tokens = self.access_tokens
        granted = self.integration_scopes if key else tokens.get(bearer.removeprefix("Bearer "))
        if granted is None:
            return {"message": "Unauthorized"}, 401
        return None if needed <= granted else ({"message": "Forbidden"}, 403)

    def _record(self, http: HttpRequest, form: dict[str, str]) -> Request:
        request = Request(http.url.path, dict(http.query_params), dict(http.headers), form)
        self.requests.append(request)
        return request

    async def _scripted(self, request: Request) -> Response | None:
        """Return the next scripted response; None: the real one."""
        if not (scripts := self._scripts[request.path]):
            return None
        script = scripts.popleft()
        await asyncio.sleep(script.delay)
        if script.cut:
            return Response(b'{"data": [', script.status, {"Content-Length": "1000"})
        if script.status == 200 and script.body is None:
            return None
        kind = Response if isinstance(script.body, bytes) else JSONResponse
        return kind(script.body, script.status, dict(script.headers))


def list_path(stream: str) -> str:
    """Return the path of a stream's list, such as /v1/work-schedules."""
    return f"/v1/{stream.replace('_', '-')}"
