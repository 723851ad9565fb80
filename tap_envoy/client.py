"""The base of all streams: its pages, its bookmark, and what the SDK is told of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from singer_sdk import RESTStream
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.helpers.types import Context, Record  # noqa: TC002
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib import RecordMessage
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL
from typing_extensions import override

from tap_envoy.endpoint import Endpoint
from tap_envoy.errors import EnvoyError, RunEndedError
from tap_envoy.reader import ListReader
from tap_envoy.records import Shape, utc
from tap_envoy.report import Tally
from tap_envoy.slices import DEPTH, Cut, Period, Slice, Uncut, sane_time

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from tap_envoy.auth import ClientApiKey, EnvoyAuthenticator
    from tap_envoy.pages import Page
    from tap_envoy.session import EnvoySession
    from tap_envoy.tap import TapEnvoy


class EnvoyStream(RESTStream[int]):
    """A list of Envoy's v1 API. A subclass says which; how it is read stands here."""

    primary_keys = ("id",)
    scopes: ClassVar[tuple[str, ...]]
    """API scopes without which Envoy refuses the list."""
    query: ClassVar[Mapping[str, str]] = {}
    """Query parameters of each request, beside the page and the slice."""
    cut: ClassVar[Cut] = Uncut()
    """How the list is read in parts."""
    depth: ClassVar[int] = DEPTH
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE
    """Rows are made to match the schema once they are decoded, which costs a tenth."""
    STATE_MSG_FREQUENCY = 1000
    """Rows between STATE messages: a run that is killed has little to read again."""
    selected_by_default = False
    is_complete = False
    """Whether the run has read the list to its end."""

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
    def requests_session(self) -> EnvoySession:
        """The one session of the run, so that connections are used again."""
        return self._tap.session

    @property
    @override
    def timeout(self) -> int:
        return self._tap.timeout

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        """Log a message, but not the SDK's of an "unhandled" error: the tap tells it itself."""
        if level < logging.ERROR:
            super().log(message, *args, level=level, **kwargs)

    @override
    def generate_child_contexts(
        self, record: Record, context: Context | None
    ) -> Iterable[Context | None]:
        """Return none: no stream has children, and the SDK copies each row for them."""
        return ()

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        """Yield the rows of the list, as its schema says.

        Raises:
            EnvoyError: If the list cannot be read to its end.
        """
        _ = self.tally  # from here on
        shape = Shape(self.effective_schema, listed=self.schema["properties"])
        reader = ListReader(
            self.cut,
            self._period(),
            partial(self._fetch, shape),
            page_size=self.config["page_size"],
            depth=self.depth,
            check=self._tap.take_a_breath,
        )
        try:
            with self.get_http_request_counter() as requests_made:
                for progress in reader.read():
                    requests_made.increment()
                    yield from progress.rows
                    self._advance(progress.bookmark)
                    self.tally.count_rows(len(progress.rows), progress.total)
        except EnvoyError as error:
            raise type(error)(f"{self.name}: {error}") from error
        finally:
            self._warn(shape)
        self.is_complete = True
        if self._stream_version is not None:
            super()._write_activate_version_message(self._stream_version)

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[Record, Any, Any]:
        """Read the list; if it cannot be read, say so and let the run go on with the others."""
        try:
            yield from super()._sync_records(context, write_messages=write_messages)
        except RunEndedError:
            raise
        except EnvoyError as error:
            self.logger.error("%s", error)  # noqa: TRY400  # a sentence, not a traceback

    @override
    def _write_activate_version_message(self, full_table_version: int) -> None:
        """Hold the message back, which the SDK sends before the rows, until they are all out.

        A target removes older rows the moment it reads it: sent first, a run that fails half
        way leaves the table half empty.
        """

    @override
    def _increment_stream_state(
        self, latest_record: Record, *, context: Context | None = None
    ) -> None:
        """Leave the bookmark alone: it moves with what is complete, not with each row."""

    @override
    def _generate_record_messages(self, record: Record) -> Generator[RecordMessage, None, None]:
        """Pass a row on as it is, where the SDK would look at each value of it to do the same.

        That look costs over a quarter of a run's processor time. This is a private hook of the SDK:
        should it be called no more, rows go the SDK's longer way, and are the same.
        """
        if not self._is_passed_on:
            yield from super()._generate_record_messages(record)
            return
        yield RecordMessage(
            stream=self.name,
            record=record,
            version=self._stream_version,
            time_extracted=datetime.now(UTC),
        )

    @cached_property
    def _is_passed_on(self) -> bool:
        """Whether all of the stream is selected, and nothing maps or flattens it."""
        (plain, *more) = self.stream_maps
        is_mapped = bool(more) or type(plain) is not SameRecordTransform
        is_flattened = bool(self.config.get("flattening_enabled"))
        return all(self.mask.values()) and not is_mapped and not is_flattened

    def _period(self) -> Period:
        """Return what is to be read: from a while before the bookmark, or from `start_date`."""
        now = self._tap.began
        end = now + timedelta(days=self.config["lookahead_days"])
        if self.replication_method != REPLICATION_INCREMENTAL:
            return Period(None, now, end)
        starts = []
        if start_date := self.config.get("start_date"):
            starts.append(sane_time(start_date))
        if bookmark := self.stream_state.get("replication_key_value"):
            lookback = timedelta(days=self.config["lookback_days"])
            starts.append(sane_time(bookmark) - lookback)
        return Period(max(starts, default=None), now, end)

    def _advance(self, bookmark: str | None) -> None:
        """Move the bookmark on, but never past the moment the run began."""
        if bookmark is None or self.replication_method != REPLICATION_INCREMENTAL:
            return
        now = utc(self._tap.began)
        state = self.stream_state
        state["replication_key_value"] = max(
            min(bookmark, now), state.get("replication_key_value", "")
        )
        state["replication_key"] = self.replication_key

    def _warn(self, shape: Shape) -> None:
        """Tell of what Envoy sends and the schema does not have."""
        if shape.unlisted:
            self.logger.warning(
                "Envoy sends keys for %s that this version of the tap does not know, and which "
                "were left out: %s. Report their names to the maintainers of the tap.",
                self.name,
                ", ".join(sorted(shape.unlisted)),
            )
        if shape.odd:
            self.logger.warning(
                "Envoy sends values for %s that are not of the kind that this version of the tap "
                "expects, and which were left empty: %s.",
                self.name,
                ", ".join(sorted(shape.odd)),
            )

    def _fetch(self, shape: Shape, part: Slice, number: int, is_wanted: Callable[[], bool]) -> Page:
        """Get the page of a number (from 1) of a slice, with patience while it is wanted.

        Raises:
            EnvoyError: If there is no such page to be had.
        """
        query = {
            **self.query,
            **self.cut.query(part),
            "page": number,
            "perPage": self.config["page_size"],
        }
        page = self._tap.patience.call(self._endpoint.asking(query, is_wanted), self.logger)
        for record in page.records:
            shape.fit(record)
        return page

    def peek(self) -> Page:
        """Ask for one row, once.

        Raises:
            EnvoyError: If the list cannot be read.
            TransientError: If that may pass.
        """
        return self._endpoint.ask({**self.query, "page": 1, "perPage": 1})

    @cached_property
    def _endpoint(self) -> Endpoint:
        return Endpoint(self)

    @cached_property
    def tally(self) -> Tally:
        """What the stream takes, counted from the first look at it."""
        return Tally(self.name, self.logger, interval=self._tap.progress_interval)
