"""`TapEnvoy`: its settings, its streams, what one run shares, the command line, the exit code."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Tap
from singer_sdk.cli import plugin_cli
from singer_sdk.exceptions import (
    ConfigValidationError,
    MapExpressionError,
    StreamMapConfigError,
)
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from singer_sdk.metrics import METRICS_LOGGER_NAME
from singer_sdk.plugin_base import PluginBase
from singer_sdk.singerlib import Catalog
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_envoy import connection_test, inputs
from tap_envoy.auth import EnvoyApiKeyAuthenticator, EnvoyAuthenticator
from tap_envoy.client import EnvoyApi, EnvoyStream
from tap_envoy.config import (
    CONFIG_SCHEMA,
    drop_unset,
    from_environment,
    load_dotenv_file,
    parse_numbers,
    validate_config,
)
from tap_envoy.exceptions import EnvoyError, list_names, printable
from tap_envoy.http import RetryPolicy
from tap_envoy.prefetch import PrefetchPool
from tap_envoy.progress import RunSummary, log_summary
from tap_envoy.records import format_timestamp
from tap_envoy.stream_maps import check_stream_maps, guard_expressions
from tap_envoy.streams import STREAMS
from tap_envoy.token_cache import NullTokenCache, TokenCache
from tap_envoy.writer import BufferedMessageWriter, ShutdownError, ShutdownRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType
    from typing import Self

Authenticator = EnvoyApiKeyAuthenticator | EnvoyAuthenticator

TEST_HELP = (
    "Sign in, request one row of each stream, and print which streams can be read; nothing is "
    "written. With --catalog, only the selected streams. --test=schema prints SCHEMA messages."
)

SDK_DETAILS = (
    "Beginning sync of '%s' in %s mode",
    "Skipping deselected stream '%s'.",
    "Skipping parse of env var settings...",
    "Starting incremental sync of '%s' with bookmark value: %s",
)
"""Messages of the SDK that the tap's own lines replace, or that mislead."""

MAX_MAP_ERROR = 300
"""Characters of the SDK's message about a stream map that are repeated."""


class TapEnvoy(Tap):
    """Singer tap for Envoy (envoy.com), reading its v1 API."""

    name = "tap-envoy"
    package_name = "tap-envoy"
    config_jsonschema: ClassVar[dict[str, Any]] = deepcopy(CONFIG_SCHEMA)  # the SDK adds to it
    # Without BATCH, which bypasses selection and stream maps.
    capabilities: ClassVar = [
        TapCapabilities.CATALOG,
        TapCapabilities.STATE,
        TapCapabilities.DISCOVER,
        TapCapabilities.ACTIVATE_VERSION,
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]
    retry_policy: ClassVar[RetryPolicy] = RetryPolicy()

    def __init__(
        self,
        *,
        config: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        **kwargs: Any,  # those of the SDK
    ) -> None:
        """Create a tap.

        Args:
            config: The settings by name.
            catalog: A Singer catalog.
            parse_env_config: Whether to add settings from `TAP_ENVOY_*` variables and `.env`.
            validate_config: Whether to check the settings; discovery needs none.
            kwargs: Other arguments of the SDK's `Tap`.

        Raises:
            ConfigValidationError: If settings are not valid; one sentence for each.
            EnvoyError: If the catalog, the state or `stream_maps` is not valid.
        """
        self.shutdown = ShutdownRequest(self.logger)
        self.writer = BufferedMessageWriter(self.shutdown.check)
        super().__init__(
            config=self._complete_config(
                config or {}, parse_env_config=parse_env_config, validate=validate_config
            ),
            catalog=None if catalog is None else inputs.parse_catalog(catalog),
            validate_config=validate_config,
            message_writer=self.writer,
            **kwargs,
        )

    def _complete_config(
        self, config: dict[str, Any], *, parse_env_config: bool, validate: bool
    ) -> dict[str, Any]:
        """Return the settings, with those of the environment, checked."""
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        if parse_env_config:
            load_dotenv_file()
            config = config | from_environment(schema, os.environ)
        config = parse_numbers(drop_unset(config), schema)
        if validate and (errors := _validate(config, schema)):
            raise ConfigValidationError("Invalid settings", errors=errors)
        now = datetime.now(UTC)
        if validate and inputs.is_in_future(config.get("start_date"), now):
            self.logger.warning("Setting `start_date` is in the future; reading from now.")
            config["start_date"] = format_timestamp(now)
        if maps := config.get("stream_maps"):
            config["stream_maps"] = dict(maps)  # the SDK removes `__else__`
        return config

    @cached_property
    def api(self) -> EnvoyApi:
        """What all streams share: one session, one rate limiter, one authenticator."""
        return EnvoyApi(
            self.config,
            authenticator=lambda: self.authenticator_for(self.selected_streams),
            retry_policy=self.retry_policy,
            waiting=self.waiting,
            run_start=self.run_start,
            user_agent=self.config.get("user_agent", f"{self.name}/{self.plugin_version}"),
        )

    @cached_property
    def run_start(self) -> datetime:
        """When the run began, in UTC."""
        return datetime.fromtimestamp(self.initialized_at / 1000, UTC)

    @override
    def discover_streams(self) -> Sequence[EnvoyStream]:
        return [stream(self, api=self.api, writer=self.writer) for stream in STREAMS]

    @cached_property
    def _discovered(self) -> dict[str, EnvoyStream]:
        """The streams by name, before a catalog is applied to them."""
        return {stream.name: stream for stream in self.discover_streams()}

    @property
    def envoy_streams(self) -> list[EnvoyStream]:
        """All streams."""
        return [stream for stream in self.streams.values() if isinstance(stream, EnvoyStream)]

    @property
    def selected_streams(self) -> list[EnvoyStream]:
        """The selected streams."""
        return [stream for stream in self.envoy_streams if stream.selected]

    @override
    def setup_mapper(self) -> None:
        """Set up stream maps, after checks of the catalog and of `stream_maps`.

        Raises:
            EnvoyError: If one of them is not valid.
        """
        if self.input_catalog is not None:
            for warning in inputs.check_catalog(self.input_catalog, self._discovered):
                self.logger.warning("%s", warning)
        properties = {
            name: stream.schema["properties"] for name, stream in self._discovered.items()
        }
        check_stream_maps(self.config.get("stream_maps", {}), properties)
        PluginBase.setup_mapper(self)
        try:
            self._register_streams()
        except (MapExpressionError, StreamMapConfigError) as error:
            raise EnvoyError(f"`stream_maps`: {printable(error, MAX_MAP_ERROR)}") from None
        except Exception as error:  # noqa: BLE001  # `__alias__` may be an expression
            place = "`stream_maps`: an `__alias__`"
            if "flattening_max_key_length" in self.config:
                place = f"`flattening_max_key_length`, or in {place},"
            raise EnvoyError(f"{place} is not valid ({type(error).__name__}).") from None
        guard_expressions(self.mapper)

    def _register_streams(self) -> None:
        """Register all streams for stream maps, which the SDK refuses to apply to a deselected one.

        It would apply them to what is selected of its schema, where the primary key is missing.
        """
        for stream in self._discovered.values():
            self.mapper.register_raw_stream_schema(stream.name, stream.schema, stream.primary_keys)
        selected = {
            name: entry
            for name, entry in self.catalog.items()
            if entry.metadata.resolve_selection()[()]
        }
        self.mapper.register_raw_streams_from_catalog(Catalog(selected))

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        """Load the bookmarks of the tap's streams.

        Args:
            state: A Singer state, also as a STATE message or as Meltano stores it.

        Raises:
            EnvoyError: If it is not one, or a bookmark is not a time.
        """
        bookmarks = inputs.unwrap_state(state)
        if unknown := bookmarks.keys() - self._discovered.keys():
            names = list_names(unknown)
            self.logger.warning("--state: ignoring bookmarks of unknown streams: %s.", names)
        checked = {}
        for stream in self._discovered.values():
            if stream.name in bookmarks:
                bookmark = inputs.check_bookmark(stream, bookmarks[stream.name], self.run_start)
                checked[stream.name] = bookmark
        super().load_state({"bookmarks": checked})

    def authenticator_for(self, streams: Iterable[EnvoyStream]) -> Authenticator:
        """Return an authenticator with the scopes that `streams` need; it has not signed in.

        The first complete set of credentials is used, see `config.CREDENTIAL_SETS`.
        """
        config = self.config
        if api_key := config.get("api_key"):
            return EnvoyApiKeyAuthenticator(api_key)
        has_password = all(config.get(name) for name in ("username", "password"))
        # `token.refresh` grants refresh tokens.
        needed = {scope for stream in streams for scope in stream.scopes}
        return EnvoyAuthenticator(
            token_url=config["token_url"],
            client_id=config["client_id"],
            client_secret=config["client_secret"],
            username=config["username"] if has_password else None,
            password=config["password"] if has_password else None,
            refresh_token=config.get("refresh_token"),
            scopes=tuple(config.get("scopes") or ("token.refresh", *sorted(needed))),
            session=self.api.session,
            timeout=self.api.timeout,
            retry_policy=self.api.retry_policy,
            token_cache=self._token_cache(),
        )

    def _token_cache(self) -> TokenCache | NullTokenCache:
        config = self.config
        if "token_cache" not in config:
            if "password" not in config:
                self.logger.warning(
                    "Without `token_cache` the next run cannot sign in: Envoy replaces a refresh "
                    "token when it is used, and the new one is not stored."
                )
            return NullTokenCache()
        # Without a username, the refresh token identifies the user.
        user = config.get("username") or config.get("refresh_token", "")
        owner = (config["token_url"], config["client_id"], user)
        return TokenCache(config["token_cache"], *owner, logger=self.logger)

    # A run

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Flush the output, then let a signal interrupt what is done here, such as a request.

        Raises:
            ShutdownError: If a signal requested a shutdown.
            RunAbortedError: If stdout is closed or full.
        """
        self.shutdown.check()
        self.writer.flush()
        with self.shutdown.interrupting():
            yield

    def run(self) -> int:
        """Sign in, read the selected streams, log a summary, and return the exit code.

        Returns:
            0 if all selected streams are complete, 128 + signal if one stopped the run, else 1.
        """
        stopped_by, start = None, time.monotonic()
        try:
            self.logger.info("%s", self._sign_in())
            self.sync_all()
            self.shutdown.check()
        except ShutdownError as error:
            stopped_by = error
        except EnvoyError as error:
            self.logger.error("%s", error)  # noqa: TRY400  # a sentence, not a traceback
        finally:
            self._write_last_state()
            is_complete = self._log_summary(stopped_by, time.monotonic() - start)
        if stopped_by:
            return stopped_by.exit_code
        return 0 if is_complete else 1

    def _sign_in(self) -> str:
        with PrefetchPool[str](waiting=self.waiting) as pool:
            return pool.result(pool.submit(self.api.authenticator.sign_in))

    def _write_last_state(self) -> None:
        """Write a last STATE message, so that the next run does not repeat what is sent."""
        try:
            if any(stream.is_started for stream in self.selected_streams):
                self.state_writer.write_state(self.state)
        except EnvoyError as error:
            self.logger.error("%s", error)  # noqa: TRY400  # a sentence, not a traceback

    def _log_summary(self, stopped_by: ShutdownError | None, seconds: float) -> bool:
        """Log the last lines of a run; return whether all selected streams are complete."""
        selected = self.selected_streams
        started = [stream for stream in selected if stream.is_started]
        for stream in started:
            bookmark = stream.stream_state.get("replication_key_value")
            stream.progress.log_summary(bookmark, complete=stream.is_complete)
        summary = RunSummary(
            progress=[stream.progress for stream in started],
            incomplete=[stream.name for stream in started if not stream.is_complete],
            not_started=[stream.name for stream in selected if not stream.is_started],
            seconds=seconds,
            stopped_by=stopped_by.signal_name if stopped_by else None,
        )
        log_summary(summary, self.logger)
        return all(stream.is_complete for stream in selected)

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        """Request a shutdown; the SDK would exit with 0, and write STATE into another line."""
        self.shutdown.request(signum)

    def test_connection(self, *, selected_only: bool) -> bool:
        """Print which streams can be read; return whether all selected ones can.

        Args:
            selected_only: Whether to leave out the streams that are not selected.
        """
        streams = self.selected_streams if selected_only else self.envoy_streams
        result = connection_test.run(
            streams,
            api=self.api,
            authenticator_for=self.authenticator_for,
        )
        color = False if os.environ.get("NO_COLOR") else None  # None: on a terminal only
        for line in result.lines:
            click.echo(line, color=color)
        return result.is_successful

    # The command line

    @classmethod
    def _create(
        cls,
        config: Any,
        *,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
    ) -> Self:
        """Create the tap from command line options; exit if settings are not valid.

        Raises:
            EnvoyError: If a file is not valid.
        """
        _hide_sdk_details()
        options = {"config": config.config, "parse_env_config": config.parse_env} if config else {}
        try:
            return cls(
                **options,
                state=inputs.read_json_object("--state", state) if state else None,
                catalog=inputs.read_json_object("--catalog", catalog) if catalog else None,
            )
        except ConfigValidationError as error:
            # Left to the SDK, the last line would not be the cause, which is all Meltano shows.
            for sentence in error.errors:
                cls.logger.error("%s", sentence)  # noqa: TRY400  # sentences, not a traceback
            sys.exit(1)

    @classmethod
    @override
    def invoke(
        cls,
        *,
        config: Any = None,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
        **about: Any,
    ) -> None:
        """Run the tap.

        Raises:
            SystemExit: With the exit code, see `run`.
            EnvoyError: If a file is not valid.
        """
        super(Tap, cls).invoke(**about)
        cls.print_version(print_fn=cls.logger.info)
        sys.exit(cls._create(config, state=state, catalog=catalog).run())

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        given = super().cb_config(ctx, param, tuple(path for path in value if path == "ENV"))
        for path in value:
            if path != "ENV":
                given.config.update(inputs.read_settings(Path(path)))
        return given

    @classmethod
    @override
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Print which streams can be read; the SDK's own test writes records."""
        if value == CliTestOptionValue.Disabled.value:
            return
        catalog = ctx.params.get("catalog")
        tap = cls._create(ctx.params.get("config"), catalog=catalog)
        if value == CliTestOptionValue.Schema.value:
            tap.write_schemas()
            ctx.exit()
        try:
            is_successful = tap.test_connection(selected_only=catalog is not None)
        except ShutdownError as error:
            cls.logger.warning("Stopped by %s.", error.signal_name)
            raise
        ctx.exit(0 if is_successful else 1)

    @plugin_cli
    def cli(cls) -> click.Command:  # noqa: N805
        """The command, once logging is set up.

        Raises:
            EnvoyError: If it cannot be set up, or stdout is closed.
        """
        path = os.environ.get("SINGER_SDK_LOG_CONFIG")
        try:
            if path is not None:
                Path(path).stat()  # the SDK only warns if it does not exist
            command = super().cli
        except Exception as error:  # noqa: BLE001  # of `logging`, YAML, or an imported handler
            raise _logging_error(error) from None
        if sys.stdout is None:
            raise EnvoyError("stdout is closed; redirect it to a target or to a file.")
        return command

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        command = super().get_singer_command()
        command.help = "Write the data of an Envoy company to stdout as Singer messages."
        for option in command.params:
            if isinstance(option.type, click.File):
                option.type = click.File(encoding="utf-8-sig")
            if option.name == "catalog":
                option.is_eager = True  # `--test` needs it, wherever it is on the command line
            elif option.name == "test" and isinstance(option, click.Option):
                option.help = TEST_HELP
                option.metavar = "[=all|schema]"
        return command


def _validate(config: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    try:
        return list(validate_config(config, schema))
    except RecursionError:
        return ["The settings are nested too deeply."]


def _logging_error(error: Exception) -> EnvoyError:
    """Return an error that names the variable by which logging cannot be set up."""
    names = (name for name in ("TAP_ENVOY_LOGLEVEL", "LOGLEVEL") if os.environ.get(name))
    level = next(names, None)
    if level and os.environ[level].upper() not in logging.getLevelNamesMapping():
        return EnvoyError(f"{level} must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    return EnvoyError(
        "SINGER_SDK_LOG_CONFIG: the file is not a logging configuration that can be read "
        f"({type(error).__name__}); correct it, or unset the variable."
    )


def _hide_sdk_details() -> None:
    """Hide details of the SDK on the console; a log that SINGER_SDK_LOG_CONFIG sets up has them."""
    if "SINGER_SDK_LOG_CONFIG" in os.environ or logging.root.isEnabledFor(logging.DEBUG):
        return
    for handler in logging.root.handlers:
        handler.addFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    is_detail = record.name == METRICS_LOGGER_NAME or record.msg in SDK_DETAILS
    return not is_detail or record.levelno > logging.INFO
