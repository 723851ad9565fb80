"""A request for a page of a list: sent as who we are, and its answer judged at once."""

from __future__ import annotations

from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any

from tap_envoy.answers import page_of, refusal_of, status_of
from tap_envoy.errors import (
    MESSAGE_KEYS,
    REQUEST_ERRORS,
    EnvoyError,
    decoded,
    out_of_reach,
    quote,
)
from tap_envoy.records import WITHHELD, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from tap_envoy.client import EnvoyStream
    from tap_envoy.pages import Page


class Endpoint:
    """The address at which Envoy has a list."""

    def __init__(self, stream: EnvoyStream) -> None:
        self._stream = stream

    def asking(self, query: Mapping[str, Any], is_wanted: Callable[[], bool]) -> Callable[[], Page]:
        """Return what asks for a page, each time it is called, while that is wanted."""
        tries = count()

        def ask() -> Page:
            if not is_wanted():
                raise EnvoyError("The list is not read any further.")
            self._stream.tally.count_request(again=next(tries) > 0)
            return self.ask(query)

        return ask

    def ask(self, query: Mapping[str, Any]) -> Page:
        """Ask once; and once more with another token if the first is refused.

        Raises:
            EnvoyError: If Envoy refuses, or answers with what is no page.
            TransientError: If that may pass.
        """
        stream, who = self._stream, self._stream.authenticator
        response, payload, status = self._answer_to(query)
        if status == HTTPStatus.UNAUTHORIZED and who.renew(response.request):
            stream.logger.warning("Envoy refused the access token; getting another one.")
            response, payload, status = self._answer_to(query)
        stream.logger.debug("GET %s %s: HTTP %d", stream.path, dict(query), status)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            body = response.content.decode("utf-8", "replace") if payload is None else payload
            said = quote(body, MESSAGE_KEYS, who.secrets)
            raise refusal_of(status, response, said, scopes=stream.scopes, advice=who.advice)
        if any(name.encode() in response.content for name in WITHHELD):
            payload = without_secrets(payload)
        return page_of(payload, query["page"])

    def _answer_to(self, query: Mapping[str, Any]) -> tuple[requests.Response, Any, int]:
        """Return an answer, its body decoded (None if it is not JSON), and what status it means."""
        stream = self._stream
        try:
            response = stream.requests_session.get(
                stream.get_url(None),
                params=query,
                auth=stream.authenticator,
                timeout=stream.timeout,
                allow_redirects=False,
            )
        except REQUEST_ERRORS as error:
            raise out_of_reach(error, where="Envoy (`api_url`)", timeout=stream.timeout) from None
        payload = decoded(response)
        return response, payload, status_of(response, payload)
