"""The two addresses of Envoy: the token address and the v1 lists."""

import asyncio
import base64
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
from tests.sandbox.lists import LISTINGS, Habits, Listing, RefusedError, Row, select

if TYPE_CHECKING:
    from tests.sandbox.bucket import LeakyBucket


@dataclass(frozen=True)
class Request:
    """What the sandbox was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answer:
    """A scripted answer, given instead of the real one.

    Attributes:
        status: The status; 200 with no body lets the real answer pass, after `delay`.
        body: Bytes, or what is sent as JSON.
        cut: Breaks the connection in the middle of the body.
        delay: Seconds before it.
        effect: Whether the request takes its effect all the same, only its answer is replaced.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    delay: float = 0
    effect: bool = False


class CutResponse(Response):
    """Promises more than it sends; the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-length", str(len(self.body) + 1000).encode())]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body[:10], "more_body": True})


class Envoy:
    """The state of a sandbox, for a test to set up and to look at."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = data.company()
        """The rows of each list, by the name that its stream has."""
        self.habits = Habits()
        self.api_key = "key-" + secrets.token_hex(16)
        self.client_id = "client-" + secrets.token_hex(8)
        self.client_secret = "cs-" + secrets.token_hex(16)
        self.username = "api.user@example.com"
        self.password = "pw-&+%\"'\\ß漢=" + secrets.token_hex(8)
        self.integration_scopes = {"token.refresh"}.union(*(x.scopes for x in LISTINGS.values()))
        self.largest_page = 100
        self.meta_keys: tuple[str, ...] | None = ("page", "perPage", "total")
        self.ignores_page = False
        self.limit: LeakyBucket | None = None
        """What there is no room for in it is answered with 429."""
        self.token_answer: dict[str, Any] = {}
        """Overrides what a token answer says."""
        self.before_token: Callable[[], None] = lambda: None
        """Called before each token answer."""
        self.requests: list[Request] = []
        self.issued: set[str] = set()
        """Every access and refresh token ever handed out."""
        self.access_tokens: dict[str, frozenset[str]] = {}
        self.refresh_tokens: dict[str, frozenset[str]] = {}
        self._selected: dict[tuple[Any, ...], list[Row]] = {}
        self._scripts: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.app = Starlette(
            routes=[
                Route("/oauth2/token", self._token, methods=["POST"]),
                Route("/v1/{name:path}", self._list, methods=["GET"]),
            ]
        )

    # What tests say and ask

    def script(self, path: str, *answers: Answer) -> None:
        """Give these answers to the next requests for `path`, then the real ones again."""
        self._scripts[path].extend(answers)

    def asked(self, path: str) -> list[Request]:
        """Return the requests for `path` so far."""
        return [request for request in self.requests if request.path == path]

    def new_refresh_token(self, *scopes: str) -> str:
        """Hand out a refresh token, as an earlier login would have."""
        return self._issue(self.refresh_tokens, frozenset({"token.refresh", *scopes}))

    def revoke(self) -> None:
        """Make every access token invalid."""
        self.access_tokens.clear()

    @property
    def secrets(self) -> set[str]:
        """Everything that nobody may see."""
        basic = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return {
            self.api_key,
            self.client_secret,
            self.password,
            self.password[-16:],
            basic,
            *self.issued,
        }

    # The token address

    async def _token(self, http: HttpRequest) -> Response:
        form: dict[str, str] = {}
        if http.headers.get("content-type", "").startswith("multipart/form-data;"):
            async with http.form() as parts:
                form = {name: value for name, value in parts.items() if isinstance(value, str)}
        scripted = await self._record(http, form)
        self.before_token()
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
        wanted = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if http.headers.get("authorization") != f"Basic {wanted}":
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
        scopes = self.refresh_tokens.pop(form["refresh_token"], None)  # good for one use
        if scopes is None:
            return _refused(401, "invalid_grant", "The refresh token is not valid.")
        return self._tokens(scopes)

    def _tokens(self, scopes: frozenset[str]) -> Response:
        refreshable = "token.refresh" in scopes
        answer = {
            "token_type": "Bearer",
            "access_token": self._issue(self.access_tokens, scopes),
            "expires_in": 86400,
            "refresh_token": self._issue(self.refresh_tokens, scopes) if refreshable else None,
            "refresh_token_expires_in": 2592000 if refreshable else None,
            "state": None,
            "company_id": "10000",
        }
        return JSONResponse(answer | self.token_answer)

    def _issue(self, tokens: dict[str, frozenset[str]], scopes: frozenset[str]) -> str:
        token = "tok-" + secrets.token_urlsafe(24)
        self.issued.add(token)
        tokens[token] = scopes
        return token

    # The lists

    async def _list(self, http: HttpRequest) -> Response:
        scripted = await self._record(http)
        if scripted is not None:
            return _scripted_response(scripted)
        listing = LISTINGS.get(http.path_params["name"])
        if listing is None:
            return JSONResponse({"message": "Not found"}, 404)
        if refusal := self._refuse(http, listing.scopes) or self._hold_back():
            return refusal
        rows = self.rows[http.path_params["name"].replace("-", "_")]
        try:
            return self._page(listing, rows, dict(http.query_params))
        except (RefusedError, ValueError) as error:
            return JSONResponse({"message": str(error)}, 400)

    def _refuse(self, http: HttpRequest, needed: frozenset[str]) -> Response | None:
        key, bearer = http.headers.get("x-api-key"), http.headers.get("authorization", "")
        if key is not None:
            if bearer:
                return JSONResponse({"message": "one way in at a time"}, 400)
            if key != self.api_key:
                return JSONResponse({"status": 401, "message": "Unauthorized"}, 200)
            granted: frozenset[str] | set[str] = self.integration_scopes
        else:
            token = bearer.removeprefix("Bearer ")
            if token not in self.access_tokens:
                return JSONResponse({"message": "Unauthorized"}, 401)
            granted = self.access_tokens[token]
        if needed <= granted:
            return None
        return JSONResponse({"message": "Forbidden"}, 403)

    def _hold_back(self) -> Response | None:
        """Refuse what is too much."""
        if self.limit is None or self.limit.takes():
            return None
        return JSONResponse({"message": "Too many requests"}, 429)

    def _page(
        self, listing: Listing, rows: list[dict[str, Any]], query: dict[str, str]
    ) -> Response:
        number, asked = int(query.get("page", "1")), int(query.get("perPage", listing.size))
        if number < 1 or asked < 1:
            raise RefusedError("bad page")
        if number * asked > self.habits.depth:
            raise RefusedError("page * perPage is too deep")
        size = min(asked, self.largest_page)
        # Later pages are of the list as it was when the first one was asked for.
        which = (id(rows), *sorted((k, v) for k, v in query.items() if k != "page"))
        if number == 1 or which not in self._selected:
            self._selected[which] = select(listing, rows, query, self.habits)
        rows = self._selected[which]
        start = 0 if self.ignores_page else (number - 1) * size
        body: dict[str, Any] = {"data": rows[start : start + size]}
        meta = {"page": number, "perPage": size, "total": len(rows), "relationships": []}
        if self.meta_keys is not None:
            body["meta"] = {key: meta[key] for key in self.meta_keys}
        return JSONResponse(body)

    async def _record(self, http: HttpRequest, form: dict[str, str] | None = None) -> Answer | None:
        path = http.url.path
        self.requests.append(
            Request(http.method, path, dict(http.query_params), dict(http.headers), form or {})
        )
        scripts = self._scripts[path]
        if not scripts:
            return None
        answer = scripts.popleft()
        await asyncio.sleep(answer.delay)
        passes = answer.status == 200 and answer.body is None and not answer.cut
        return None if passes else answer


def _scripted_response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if answer.cut:
        return CutResponse(b'{"data": [{"id": "1"}]}', answer.status)
    if isinstance(answer.body, bytes):
        return Response(answer.body, answer.status, headers)
    return JSONResponse(answer.body, answer.status, headers)


def _refused(status: int, error: str, description: str | None = None) -> Response:
    body = {"error": error} | ({"error_description": description} if description else {})
    return JSONResponse(body, status)
