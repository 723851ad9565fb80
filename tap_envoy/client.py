"""The base class of all streams: requests, records, bookmarks."""

from __future__ import annotations

import itertools
import logging
import re
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from singer_sdk import RESTStream
from singer_sdk.helpers._catalog import get_selected_schema
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.helpers.types import Context, Record  # noqa: TC002
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib import RecordMessage
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL
from typing_extensions import override

from tap_envoy.catalog import check_bookmark
from tap_envoy.exceptions import (
    CredentialsRejectedError,
    EnvoyError,
    RunAbortedError,
    describe,
    list_names,
)
from tap_envoy.prefetch import PrefetchPool
from tap_envoy.reader import StreamReader
from tap_envoy.records import (
    ADDITIONAL_FIELDS,
    RecordConformer,
    format_timestamp,
    normalize_timestamp,
    parse_time,
)
from tap_envoy.responses import read_page
from tap_envoy.slices import Slicer, TimeRange
from tap_envoy.summary import StreamProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from singer_sdk import Tap

    from tap_envoy.auth import Authenticator
    from tap_envoy.pagination import Page
    from tap_envoy.session import EnvoySession
    from tap_envoy.writer import BufferedMessageWriter


NUL_PROPERTY = re.compile(rb'"(\w+)"\s*:\s*"(?:[^"\\]|\\.)*?\\u0000')
"""A property whose text contains U+0000, in JSON."""


class EnvoyStream(RESTStream[int]):
    """A list endpoint of Envoy's v1 API. Subclasses declare what it is."""

    primary_keys = ("id",)
    scopes: ClassVar[tuple[str, ...]]
    """API scopes that the endpoint requires."""
    sort_params: ClassVar[Mapping[str, str]] = {}
    """Query parameters that ask for ascending order."""
    slicer: ClassVar[Slicer] = Slicer()
    """How the endpoint is divided into slices."""
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE
    """`RecordConformer` makes records match the schema, at a tenth of the SDK's cost."""
    STATE_MSG_FREQUENCY = 1000
    """Records between two STATE messages."""
    selected_by_default = False

    def __init__(
        self,
        tap: Tap,
        *,
        session: EnvoySession,
        authenticator: Callable[[], Authenticator],
        writer: BufferedMessageWriter,
    ) -> None:
        super().__init__(tap)
        self._session = session
        self._get_authenticator = authenticator
        self._writer = writer
        self._run_start = datetime.fromtimestamp(tap.initialized_at / 1000, UTC)
        self._envelope: dict[str, Any] = {}  # of the RECORD messages of a batch
        self._cleaned: set[str] = set()  # properties from which U+0000 was removed
        self.progress = StreamProgress(self.name, self.logger)

    @property
    @override
    def url_base(self) -> str:
        return cast("str", self.config["api_url"]).rstrip("/")

    @property
    @override
    def authenticator(self) -> Authenticator:
        return self._get_authenticator()

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        """Do nothing with the SDK's messages: the tap reports progress and errors itself."""

    @override
    def generate_child_contexts(self, record: Record, context: Context | None) -> tuple[()]:
        """Return nothing: no stream has children, for which the SDK would copy each record."""
        return ()

    # Reading

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        """Yield the records of the stream; log an error of it, and let the run continue."""
        try:
            yield from self.request_records(context)
        except RunAbortedError:
            raise
        except Exception as error:  # noqa: BLE001
            self._writer.discard_versions()
            self.progress.error = describe(error)
            self.logger.error("%s: %s", self.name, self.progress.error)  # noqa: TRY400  # no traceback
        else:
            self.progress.is_complete = True
            self._writer.release_versions()
        finally:
            self.progress.log_summary(self._bookmark)

    @override
    def request_records(self, context: Context | None) -> Iterable[Record]:
        """Yield the records of the stream, as its schema says.

        Raises:
            EnvoyError: If the stream cannot be read completely.
        """
        self.progress.begin()
        conformer = RecordConformer(
            get_selected_schema(self.name, self.effective_schema, self.mask),
            declared=[self.schema, self.effective_schema],
            complete_levels=self._complete_levels,
        )
        try:
            with PrefetchPool() as pool, self.get_http_request_counter() as requests_made:
                reader = StreamReader(
                    self.slicer,
                    self.sort_params,
                    int(self.config["page_size"]),
                    self.fetch_page,
                    pool,
                    partial(self.logger.warning, "%s: %s", self.name),
                )
                for batch in reader.read(self._time_range()):
                    envelope = RecordMessage(self.name, {}, self._stream_version, datetime.now(UTC))
                    self._envelope = envelope.to_dict()
                    yield from map(conformer.conform, batch.records)
                    self._writer.flush()
                    if self._writer.record_error:
                        raise self._writer.record_error
                    self._advance_bookmark(batch.bookmark)
                    self.progress.count_rows(len(batch.records), batch.total)
                    requests_made.increment(self.progress.requests - requests_made.value)
        finally:
            self._log_fields(conformer)

    def fetch_page(self, params: Mapping[str, Any]) -> Page:
        """Request a page, with retries.

        Raises:
            RequestRejectedError: If Envoy rejects the request, perhaps for a parameter.
            EnvoyError: If there is no page for another reason.
        """
        attempts = itertools.count()

        def attempt() -> Page:
            if self.progress.error:  # in a request ahead of the reader
                raise EnvoyError(f"{self.name} is not read any further.")
            self.progress.count_request(is_retry=next(attempts) > 0)
            return self._request_page(params)

        return self._session.retry(attempt, self.logger)

    def _request_page(self, params: Mapping[str, Any], *, is_resend: bool = False) -> Page:
        """Request a page once, and again with another token where the token is rejected."""
        url, authenticator = self.get_url(None), self.authenticator
        response = self._session.get(url, params=params, auth=authenticator)
        self.logger.debug("GET %s %s: HTTP %d", self.path, params, response.status_code)
        if b"\\u0000" in response.content:
            self._cleaned.update(name.decode() for name in NUL_PROPERTY.findall(response.content))
        try:
            return read_page(response, self.path, self.scopes, authenticator)
        except CredentialsRejectedError:
            if is_resend or not authenticator.invalidate(response.request):
                raise
        self.logger.warning("Envoy rejected the access token; requesting another one.")
        return self._request_page(params, is_resend=True)

    def _log_fields(self, conformer: RecordConformer) -> None:
        """Log what Envoy sends and the schema does not declare."""
        fate = f"{'kept in' if conformer.keeps_rest else 'dropped without'} `{ADDITIONAL_FIELDS}`"
        if names := conformer.unknown_properties:
            self.logger.info("%s: undeclared fields, %s: %s.", self.name, fate, list_names(names))
        if names := conformer.mismatched_properties:
            text = "set values of an unexpected type to null"
            self.logger.warning("%s: %s, %s: %s.", self.name, text, fate, list_names(names))
        if names := self._cleaned:
            self.logger.warning("%s: removed U+0000 from: %s.", self.name, list_names(names))

    # Bookmarks

    @property
    def _is_incremental(self) -> bool:
        return self.replication_method == REPLICATION_INCREMENTAL

    @property
    def _bookmark(self) -> str | None:
        return normalize_timestamp(self.stream_state.get("replication_key_value"))

    def _time_range(self) -> TimeRange:
        """Return what to read, and log it."""
        starts: list[tuple[datetime | None, str]] = []
        if self._is_incremental:
            if start_date := self.config.get("start_date"):
                starts.append((parse_time(start_date), "`start_date`"))
            if bookmark := check_bookmark(self.stream_state, self.replication_key, self._run_start):
                days = self.config["lookback_days"]
                text = f"bookmark {bookmark[:10]} minus {days} days"
                starts.append((parse_time(bookmark) - timedelta(days=days), text))
        start, text = max(starts, default=(None, "all rows"))
        if start:
            text = f"from {start:%Y-%m-%d} ({text})"
        self.logger.info("%s: reading %s.", self.name, text)
        return TimeRange(start, self._run_start + timedelta(days=self.config["lookahead_days"]))

    def _advance_bookmark(self, bookmark: str | None) -> None:
        """Move the bookmark forward, but never past the start of the run."""
        if bookmark and self._is_incremental:
            newest = max(bookmark, self._bookmark or "")
            newest = min(newest, format_timestamp(self._run_start))
            self.stream_state.update(
                replication_key=self.replication_key, replication_key_value=newest
            )

    @override
    def compare_start_date(self, value: str, start_date_value: str) -> str:
        """Return the bookmark as it is: one that is not a time fails later, with a sentence."""
        return value

    @override
    def _increment_stream_state(
        self, latest_record: Record, *, context: Context | None = None
    ) -> None:
        """Do nothing: bookmarks advance with what is complete, not with each record."""

    # Messages

    @override
    def _write_record_message(self, record: Record) -> None:
        """Let an error of a stream map end the stream; raised here, it would end the run.

        A record that nothing maps is passed on as it is, which saves a fifth of the processor time.
        """
        self.state_manager.is_flushed = False  # a STATE message is due
        try:
            if self._is_passed_on:
                self._writer.write_record({**self._envelope, "record": record})
            else:
                super()._write_record_message(record)
        except EnvoyError as error:
            self._writer.record_error = error

    @cached_property
    def _complete_levels(self) -> int:
        """Levels of objects that stream maps or flattening read: a name must not be missing."""
        if self.config.get("flattening_enabled"):
            return 1 + int(self.config["flattening_max_depth"])
        return int([type(x) for x in self.stream_maps] != [SameRecordTransform])

    @cached_property
    def _is_passed_on(self) -> bool:
        """Whether all properties are selected, and nothing maps or flattens the stream."""
        return all(self.mask.values()) and not self._complete_levels
