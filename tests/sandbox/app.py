"""Envoy's token endpoint and the lists of its v1 API, as an ASGI app."""

import asyncio
import base64
import random
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.sandbox import data
from tests.sandbox.quirks import ChangeSchedule, Quirks, Row
from tests.sandbox.resources import RESOURCES, emitted_id, respond

if TYPE_CHECKING:
    from tests.sandbox.rate_limits import RateLimit


@dataclass(frozen=True)
class Request:
    """A request that the sandbox received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ScriptedResponse:
    """A response sent instead of the real one.

    Attributes:
        status: The status; 200 without a body sends the real response, after `delay`.
        body: Bytes, or a value to send as JSON.
        cut: Whether the connection breaks in the middle of the body.
        delay: Seconds before the response.
        effect: Whether the request has its effect (a grant spends its refresh token) although
            its response is replaced.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    delay: float = 0
    effect: bool = False


def status_in_body(status: int | str) -> ScriptedResponse:
    """Return a response with HTTP status 200 and another status in its body."""
    return ScriptedResponse(200, {"status": status, "message": "See status"})


def random_delays(longest: float, seed: int = 0) -> Callable[[Request], float]:
    """Return a `response_delay` of up to `longest` seconds, so that responses change places."""
    rng = random.Random(seed)  # noqa: S311
    return lambda _: rng.uniform(0, longest)


class CutResponse(Response):
    """Announces more bytes than it sends, so that the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-length", str(len(self.body) + 1000).encode())]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body[:10], "more_body": True})


class Envoy:
    """The state of a sandbox, for a test to arrange and inspect."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        self.rows: dict[str, list[Row]] = data.all_rows()
        """The rows of each list as they are now, by the name of its stream."""
        self.quirks = quirks or Quirks()
        self.resource_quirks: dict[str, Quirks] = {}
        """Quirks of single streams, instead of `quirks`."""
        self.changes = ChangeSchedule()
        self.response_delay: Callable[[Request], float] = lambda _: 0.0
        """Seconds between reading a page from the list and sending it."""
        self.limit: RateLimit | None = None
        self.rng = random.Random(0)  # noqa: S311
        self.api_key = "key-" + secrets.token_hex(16)
        self.client_id = "client-" + secrets.token_hex(8)
        self.client_secret = "cs-" + secrets.token_hex(16)
        self.username = "api.user@example.com"
        self.password = "pw-&+%\"'\\ß漢=" + secrets.token_hex(8)
        self.integration_scopes = {"token.refresh"}.union(*(x.scopes for x in RESOURCES.values()))
        self.token_response: dict[str, Any] = {}
        """Overrides fields of each token response."""
        self.on_token_request: Callable[[], None] = lambda: None
        """Called before each token response."""
        self.requests: list[Request] = []
        self.issued: set[str] = set()
        """All access and refresh tokens issued so far."""
        self.access_tokens: dict[str, frozenset[str]] = {}
        self.refresh_tokens: dict[str, frozenset[str]] = {}
        self._scripts: defaultdict[str, deque[ScriptedResponse]] = defaultdict(deque)
        self.app = Starlette(
            routes=[
                Route("/oauth2/token", self._token, methods=["POST"]),
                Route("/v1/{name:path}", self._list, methods=["GET"]),
            ]
        )

    def script(self, path: str, *responses: ScriptedResponse) -> None:
        """Send these responses to the next requests for `path`, then real ones again."""
        self._scripts[path].extend(responses)

    def requests_for(self, path: str) -> list[Request]:
        """Return the requests for `path` so far."""
        return [request for request in self.requests if request.path == path]

    def new_refresh_token(self, *scopes: str) -> str:
        """Issue a refresh token, as an earlier sign-in would have."""
        return self._issue(self.refresh_tokens, frozenset({"token.refresh", *scopes}))

    def revoke_access_tokens(self) -> None:
        """Make every access token invalid."""
        self.access_tokens.clear()

    def quirks_of(self, stream: str) -> Quirks:
        """Return the quirks that apply to the list of `stream`."""
        return self.resource_quirks.get(stream, self.quirks)

    def stable_ids(self, stream: str) -> set[str]:
        """Return the ids, as the tap emits them, of the rows that existed throughout."""
        stable = self.changes.stable_rows(self.rows[stream])
        return {emitted_id(row, self.quirks_of(stream)) for row in stable}

    @property
    def secrets(self) -> set[str]:
        """All values that must never appear in output or logs."""
        basic = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return {
            self.api_key,
            self.client_secret,
            self.password,
            self.password[-16:],
            basic,
            *self.issued,
        }

    # The token endpoint

    async def _token(self, http: HttpRequest) -> Response:
        form: dict[str, str] = {}
        if http.headers.get("content-type", "").startswith("multipart/form-data;"):
            async with http.form() as parts:
                form = {name: value for name, value in parts.items() if isinstance(value, str)}
        scripted = await self._scripted(self._record(http, form))
        self.on_token_request()
        if scripted is None:
            return self._grant(http, form)
        if scripted.effect:
            self._grant(http, form)
        return _scripted_response(scripted)

    def _grant(self, http: HttpRequest, form: dict[str, str]) -> Response:
        if form.get("grant_type") == "password":
            return self._password_grant(http, form)
        if form.get("grant_type") == "refresh_token":
            return self._refresh_grant(http, form)
        return _refused(400, "unsupported_grant_type")

    def _password_grant(self, http: HttpRequest, form: dict[str, str]) -> Response:
        if form.keys() != {"grant_type", "username", "password", "scope"}:
            return _refused(400, "invalid_request", "exactly four fields are expected")
        expected = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if http.headers.get("authorization") != f"Basic {expected}":
            return _refused(401, "invalid_client")
        if (form["username"], form["password"]) != (self.username, self.password):
            return _refused(401, "invalid_grant", "The user or the password is wrong.")
        scopes = frozenset(form["scope"].split(","))
        if not scopes <= self.integration_scopes:
            return _refused(400, "invalid_scope")
        return self._tokens(scopes)

    def _refresh_grant(self, http: HttpRequest, form: dict[str, str]) -> Response:
        if form.keys() != {"grant_type", "client_id", "client_secret", "refresh_token"}:
            return _refused(400, "invalid_request", "exactly four fields are expected")
        if "authorization" in http.headers:
            return _refused(400, "invalid_request", "the client belongs in the body")
        if (form["client_id"], form["client_secret"]) != (self.client_id, self.client_secret):
            return _refused(401, "invalid_client")
        scopes = self.refresh_tokens.pop(form["refresh_token"], None)  # valid once
        if scopes is None:
            return _refused(401, "invalid_grant", "The refresh token is not valid.")
        return self._tokens(scopes)

    def _tokens(self, scopes: frozenset[str]) -> Response:
        refreshable = "token.refresh" in scopes
        body = {
            "token_type": "Bearer",
            "access_token": self._issue(self.access_tokens, scopes),
            "expires_in": 86400,
            "refresh_token": self._issue(self.refresh_tokens, scopes) if refreshable else None,
            "refresh_token_expires_in": 2592000 if refreshable else None,
            "state": None,
            "company_id": "10000",
        }
        return JSONResponse(body | self.token_response)

    def _issue(self, tokens: dict[str, frozenset[str]], scopes: frozenset[str]) -> str:
        token = "tok-" + secrets.token_urlsafe(24)
        self.issued.add(token)
        tokens[token] = scopes
        return token

    # The lists

    async def _list(self, http: HttpRequest) -> Response:
        request = self._record(http)
        scripted = await self._scripted(request)
        if scripted is not None:
            return _scripted_response(scripted)
        stream = http.path_params["name"].replace("-", "_")
        if stream not in RESOURCES or request.path != list_path(stream):
            return JSONResponse({"message": "Not found"}, 404)
        if refusal := self._authorize(http, RESOURCES[stream].scopes) or self._throttle():
            return refusal
        rows, quirks = self.rows[stream], self.quirks_of(stream)
        status, body = respond(RESOURCES[stream], rows, request.query, quirks, self.rng)
        self.changes.after_request(stream, rows)
        response = JSONResponse(body, status)
        if delay := self.response_delay(request):
            await asyncio.sleep(delay)
        return response

    def _authorize(self, http: HttpRequest, needed: frozenset[str]) -> Response | None:
        key, bearer = http.headers.get("x-api-key"), http.headers.get("authorization", "")
        if key is not None:
            if bearer:
                return JSONResponse({"message": "Use one authentication method"}, 400)
            if key != self.api_key:
                return JSONResponse({"status": 401, "message": "Unauthorized"}, 200)
            granted: frozenset[str] | set[str] = self.integration_scopes
        else:
            token = bearer.removeprefix("Bearer ")
            if token not in self.access_tokens:
                return JSONResponse({"message": "Unauthorized"}, 401)
            granted = self.access_tokens[token]
        return None if needed <= granted else JSONResponse({"message": "Forbidden"}, 403)

    def _throttle(self) -> Response | None:
        if self.limit is None or self.limit.allows():
            return None
        wait = self.limit.retry_after
        headers = None if wait is None else {"Retry-After": wait}
        return JSONResponse({"message": "Too many requests"}, 429, headers)

    # Scripts

    def _record(self, http: HttpRequest, form: dict[str, str] | None = None) -> Request:
        query, headers = dict(http.query_params), dict(http.headers)
        request = Request(http.method, http.url.path, query, headers, form or {})
        self.requests.append(request)
        return request

    async def _scripted(self, request: Request) -> ScriptedResponse | None:
        scripts = self._scripts[request.path]
        if not scripts:
            return None
        scripted = scripts.popleft()
        await asyncio.sleep(scripted.delay)
        is_real = scripted.status == 200 and scripted.body is None and not scripted.cut
        return None if is_real else scripted


def list_path(stream: str) -> str:
    """Return the path of a stream's list, such as /v1/work-schedules."""
    return f"/v1/{stream.replace('_', '-')}"


def _scripted_response(scripted: ScriptedResponse) -> Response:
    headers = dict(scripted.headers)
    if scripted.cut:
        return CutResponse(b'{"data": [{"id": "1"}]}', scripted.status)
    if isinstance(scripted.body, bytes):
        return Response(scripted.body, scripted.status, headers)
    return JSONResponse(scripted.body, scripted.status, headers)


def _refused(status: int, error: str, description: str | None = None) -> Response:
    body = {"error": error} | ({"error_description": description} if description else {})
    return JSONResponse(body, status)
