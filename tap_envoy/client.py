"""One request to a list: sent, judged, decoded once; its faults told apart."""

from __future__ import annotations

import logging
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, cast

from singer_sdk import RESTStream
from singer_sdk.helpers.types import Context, Record  # noqa: TC002
from typing_extensions import override
from urllib3 import Retry as RetryAfter
from urllib3.exceptions import InvalidHeader

from tap_envoy.errors import (
    MESSAGE_KEYS,
    REQUEST_ERRORS,
    EnvoyError,
    TransientError,
    decoded,
    out_of_reach,
    quote,
)
from tap_envoy.pages import Page, read_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import requests

    from tap_envoy.auth import ClientApiKey, EnvoyAuthenticator
    from tap_envoy.tap import TapEnvoy

TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Answers below 500 after which waiting helps."""


class EnvoyStream(RESTStream[int]):
    """A list of Envoy's v1 API. A subclass says which; how it is read stands here."""

    primary_keys = ("id",)
    scopes: ClassVar[tuple[str, ...]]
    """API scopes without which Envoy refuses the list."""
    query: ClassVar[Mapping[str, str]] = {}
    """Query parameters of each request, beside the page."""

    _tap: TapEnvoy

    @property
    @override
    def url_base(self) -> str:
        return cast("str", self.config["api_url"]).rstrip("/")

    @property
    @override
    def authenticator(self) -> ClientApiKey | EnvoyAuthenticator:
        """The one authenticator of the run, so that there is one login."""
        return self._tap.authenticator

    @property
    @override
    def requests_session(self) -> requests.Session:
        """The one session of the run, so that connections are used again."""
        return self._tap.session

    @property
    @override
    def timeout(self) -> int:
        return cast("int", self.config["request_timeout"])

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        """Log a message, but not the SDK's of an "unhandled" error: the tap tells it itself."""
        if level < logging.ERROR:
            super().log(message, *args, level=level, **kwargs)

    @override
    def request_records(self, context: Context | None) -> Iterable[Record]:
        """Yield the rows of the list, page by page.

        Raises:
            EnvoyError: If the list cannot be read to its end.
        """
        try:
            with self.get_http_request_counter() as requests_made:
                for page in read_pages(self._fetch, self.config["page_size"]):
                    requests_made.increment()
                    yield from page.records
        except EnvoyError as error:
            raise EnvoyError(f"{self.name}: {error}") from error
        finally:
            self._name_unlisted_keys()
        if self._stream_version is not None:
            super()._write_activate_version_message(self._stream_version)

    @override
    def _write_activate_version_message(self, full_table_version: int) -> None:
        """Hold the message back, which the SDK sends before the rows, until they are all out.

        A target removes older rows the moment it reads it: sent first, a run that fails half
        way leaves the table half empty.
        """

    @override
    def post_process(self, row: Record, context: Context | None = None) -> Record | None:
        """Drop the root keys that the schema does not list, and remember their names."""
        unlisted = row.keys() - self._listed
        for key in unlisted:
            del row[key]
        self._unlisted |= unlisted
        return row

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.schema["properties"])

    @cached_property
    def _unlisted(self) -> set[str]:
        return set()

    def _name_unlisted_keys(self) -> None:
        if self._unlisted:
            self.logger.warning(
                "Envoy sends keys for %s that this version of the tap does not know, and which "
                "were left out: %s.",
                self.name,
                ", ".join(sorted(self._unlisted)),
            )
            self._unlisted.clear()

    def _fetch(self, number: int) -> Page:
        """Get the page of a number (from 1), with patience.

        Raises:
            EnvoyError: If there is no such page to be had.
        """
        query = {**self.query, "page": number, "perPage": self.config["page_size"]}
        return self._tap.retry.call(lambda: self._ask(query), self.logger)

    def _ask(self, query: Mapping[str, Any]) -> Page:
        """Ask once; and once more with another token if the first is refused."""
        response = self._send(query)
        payload = decoded(response)
        status = _status(response, payload)
        if status == HTTPStatus.UNAUTHORIZED and self.authenticator.renew(response.request):
            self.logger.warning("Envoy refused the access token; getting another one.")
            response = self._send(query)
            payload = decoded(response)
            status = _status(response, payload)
        self.logger.debug("GET %s %s: HTTP %d", self.path, dict(query), status)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            body = response.content.decode("utf-8", "replace") if payload is None else payload
            said = quote(body, MESSAGE_KEYS, self.authenticator.secrets)
            raise self._refusal(status, response, said)
        return _page(payload, query["page"])

    def _send(self, query: Mapping[str, Any]) -> requests.Response:
        try:
            return self.requests_session.get(
                self.get_url(None),
                params=query,
                auth=self.authenticator,
                timeout=self.timeout,
                allow_redirects=False,
            )
        except REQUEST_ERRORS as error:
            raise out_of_reach(error, where="Envoy (`api_url`)", timeout=self.timeout) from None

    def _refusal(
        self, status: int, response: requests.Response, said: str
    ) -> EnvoyError | TransientError:
        """Tell what a status other than 2xx means, and what to do about it."""
        if status in TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TransientError(f"Envoy answered HTTP {status}{said}.", wait=_wait(response))
        if status == HTTPStatus.UNAUTHORIZED:
            return EnvoyError(
                f"Envoy refused the credentials (HTTP {status}){said}; {self.authenticator.advice}."
            )
        if status == HTTPStatus.FORBIDDEN:
            names = " and ".join(f"`{scope}`" for scope in self.scopes)
            return EnvoyError(
                f"Envoy refused the list (HTTP {status}){said}; give the integration the scope "
                f"{names} in Envoy's Dev Dashboard, and name it in `scopes` if you set that."
            )
        if status == HTTPStatus.NOT_FOUND:
            return EnvoyError(f"Envoy has no such list (HTTP {status}){said}; check `api_url`.")
        if status < HTTPStatus.BAD_REQUEST:
            return EnvoyError(
                f"Envoy answered with a redirect (HTTP {status}), which is not followed, so that "
                "credentials go nowhere else; check `api_url`."
            )
        return EnvoyError(f"Envoy refused the request (HTTP {status}){said}.")


def _status(response: requests.Response, payload: Any) -> int:
    """Return the status of an answer: a refusal may come as 200 with the status in the body."""
    said = _number(payload.get("status")) if response.ok and isinstance(payload, dict) else None
    refused = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return said if said is not None and said in refused else response.status_code


def _page(payload: Any, number: int) -> Page:
    """Check a successful answer and return it as a page; what is odd is never an empty list."""
    if payload is None:
        raise TransientError(f"Envoy answered page {number} with something that is not JSON.")
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list):
        raise EnvoyError(f"Envoy answered page {number} without a list of rows (`data`).")
    for record in data:
        if not isinstance(record, dict):
            raise EnvoyError(f"Envoy sent something on page {number} that is no row.")
        if not isinstance(record.get("id"), str) or not record["id"]:
            raise EnvoyError(f"Envoy sent a row without `id` on page {number}.")
    meta = payload.get("meta")
    if not isinstance(meta, dict):
        meta = {}
    return Page(data, _number(meta.get("total")), _number(meta.get("perPage")) or None)


def _number(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_number else None


def _wait(response: requests.Response) -> float | None:
    """Return the seconds of a `Retry-After`, which may also be a date; None without one."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        return RetryAfter().parse_retry_after(header)
    except (InvalidHeader, OverflowError, ValueError):
        return None
