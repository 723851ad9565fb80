"""`TapEnvoy`: its settings, its streams, what one run shares, the command line, the exit code."""

from __future__ import annotations

import logging
import os
import sys
import time
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Tap
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.plugin_base import PluginBase
from singer_sdk.singerlib import StateMessage
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_envoy.auth import Authenticator, create_authenticator
from tap_envoy.catalog import parse_catalog, unwrap_state
from tap_envoy.client import EnvoyStream
from tap_envoy.config import CONFIG_SCHEMA, load_config, read_json
from tap_envoy.connection import run_connection_test
from tap_envoy.exceptions import describe, list_names
from tap_envoy.session import EnvoySession, RateLimiter, RetryPolicy
from tap_envoy.stream_maps import check_stream_maps, register_streams
from tap_envoy.streams import STREAMS
from tap_envoy.summary import log_summary
from tap_envoy.writer import BufferedMessageWriter, ShutdownError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from singer_sdk.singerlib import Catalog

STREAM_LIST = "Streams:" + "".join(
    f"\n  {vars(stream)['name']:<16}{str(stream.__doc__).splitlines()[0]}" for stream in STREAMS
)
"""The streams with their descriptions, for `--help` and `--about`."""

TEST_HELP = "Sign in, request each stream once (or those of --catalog), and print what can be read."

TEST_TIMEOUT = 10.0
"""Seconds that `--test` waits for a response."""

SDK_DETAILS = (
    "Skipping deselected stream '%s'.",
    "Skipping parse of env var settings...",
    "Starting incremental sync of '%s' with bookmark value: %s",
)
"""Messages of the SDK that the tap's own lines replace, or that mislead."""


class TapEnvoy(Tap):
    """Singer tap for Envoy (envoy.com), reading its v1 API."""

    name = "tap-envoy"
    package_name = "tap-envoy"
    config_jsonschema: ClassVar[dict[str, Any]] = deepcopy(CONFIG_SCHEMA)  # the SDK adds to it
    # Without BATCH, which bypasses selection and stream maps.
    capabilities: ClassVar = [x for x in Tap.capabilities if x != PluginCapabilities.BATCH]
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
        self._catalog_file = catalog
        self.writer = BufferedMessageWriter()
        self.logger.addFilter(_is_relevant)
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        if validate_config:  # discovery needs no settings
            config = load_config(config or {}, schema, self.logger, parse_env=parse_env_config)
        super().__init__(
            config=config if validate_config else {},
            validate_config=validate_config,
            message_writer=self.writer,
            **kwargs,
        )
        if "SINGER_SDK_LOG_CONFIG" not in os.environ:  # metrics are for programs such as Meltano
            self.metrics_logger.setLevel(logging.WARNING)

    # What one run shares

    @cached_property
    def session(self) -> EnvoySession:
        """The HTTP session of the run."""
        return EnvoySession(
            RateLimiter(self.config["requests_per_second"]),
            timeout=self.config["request_timeout"],
            user_agent=self.config.get("user_agent", f"{self.name}/{self.plugin_version}"),
            retry_policy=self.retry_policy,
        )

    @cached_property
    def authenticator(self) -> Authenticator:
        """The authenticator of the run, with the scopes of the selected streams."""
        scopes = [scope for stream in self.selected_streams for scope in stream.scopes]
        return create_authenticator(self.config, scopes, self.session)

    # Streams, catalog, state

    @override
    def discover_streams(self) -> Sequence[EnvoyStream]:
        streams = [
            stream(
                self,
                session=self.session,
                authenticator=lambda: self.authenticator,
                writer=self.writer,
            )
            for stream in STREAMS
        ]
        for stream in streams:
            stream.logger.addFilter(_is_relevant)
        return streams

    @cached_property
    def _discovered(self) -> dict[str, EnvoyStream]:
        """The streams by name, before a catalog is applied to them."""
        return {stream.name: stream for stream in self.discover_streams()}

    @cached_property
    @override
    def input_catalog(self) -> Catalog | None:
        """The catalog of `--catalog`."""
        file = self._catalog_file
        return None if file is None else parse_catalog(file, self._discovered, self.logger)

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
        properties = {name: x.schema["properties"] for name, x in self._discovered.items()}
        check_stream_maps(self.config.get("stream_maps", {}), properties)
        PluginBase.setup_mapper(self)
        register_streams(self.mapper, self._discovered.values(), self.catalog)

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        """Load the bookmarks of a Singer state, also as a STATE message or from Meltano.

        Raises:
            EnvoyError: If it is not one.
        """
        bookmarks = unwrap_state(state)
        if unknown := bookmarks.keys() - self._discovered.keys():
            names = list_names(unknown)
            self.logger.warning("--state: ignoring bookmarks of unknown streams: %s.", names)
        super().load_state({"bookmarks": {x: bookmarks[x] for x in bookmarks.keys() - unknown}})

    # A run

    def run(self) -> int:
        """Sign in, read the selected streams, log a summary, and return the exit code.

        Returns:
            0 if all selected streams are complete, 128 + signal if one stopped the run, else 1.
        """
        start, errors = time.monotonic(), list[ShutdownError | Exception]()

        def read() -> None:
            self.logger.info("%s", self.authenticator.sign_in())
            self.sync_all()

        def finish() -> None:
            if errors and self.state:
                self.write_message(StateMessage(self.state))  # the next run continues from here
            self.writer.flush()

        for step in (read, finish):
            try:
                step()
            except (ShutdownError, Exception) as error:  # noqa: BLE001
                errors.append(error)
        stop = next((x for x in errors if isinstance(x, ShutdownError)), None)
        progress = [stream.progress for stream in self.selected_streams]
        log_summary(
            progress,
            self.logger,
            time.monotonic() - start,
            stopped_by=stop.signal_name if stop else "",
            cause=describe(errors[0]) if errors else "",
        )
        is_complete = not errors and all(stream.is_complete for stream in progress)
        return stop.exit_code if stop else int(not is_complete)

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        """End the run; the SDK would exit with 0, and write STATE into another line."""
        self.writer.shut_down(signum)

    # The command line

    @classmethod
    @override
    def invoke(
        cls,
        *,
        config: Any = None,
        state: Any = None,
        catalog: Any = None,
        test: str = CliTestOptionValue.Disabled.value,
        **about: Any,
    ) -> None:
        """Run or test the tap, and exit with the exit code."""
        super(Tap, cls).invoke(**about)
        tap = cls(
            config=config.config,
            parse_env_config=config.parse_env,
            state=None if state is None else read_json("--state", state),
            catalog=None if catalog is None else read_json("--catalog", catalog),
        )
        if test == CliTestOptionValue.Schema.value:
            tap.write_schemas()
        elif test == CliTestOptionValue.Disabled.value:
            cls.print_version(print_fn=cls.logger.info)
            sys.exit(tap.run())
        else:
            sys.exit(tap.test(tap.selected_streams if catalog else tap.envoy_streams))

    def test(self, streams: Sequence[EnvoyStream]) -> int:
        """Print which streams can be read, and return the exit code; no record is written."""
        self.session.timeout = min(self.session.timeout, TEST_TIMEOUT)
        self.session.retry_policy = RetryPolicy(max_time=0)
        lines, is_successful = run_connection_test(streams, self.authenticator)
        click.echo("\n".join(lines))
        return int(not is_successful)

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        """Read settings; the SDK's errors about a file are tracebacks."""
        given = super().cb_config(ctx, param, tuple(path for path in value if path == "ENV"))
        for path in value:
            if path != "ENV":
                given.config.update(read_json("--config", path))
        return given

    @classmethod
    @override
    def print_about(cls, output_format: str | None = None) -> None:
        """Print the SDK's information, followed by the streams where it is text."""
        super().print_about(output_format)
        if output_format is None:
            click.echo(STREAM_LIST)

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        """Return the command, with our help and options."""
        command = super().get_singer_command()
        command.help = "Write the data of an Envoy company to stdout as Singer messages."
        command.epilog = f"\b\n{STREAM_LIST}"
        for option in command.params:
            if option.name in {"catalog", "state"}:
                option.type = click.Path()  # a missing file is an error like others
            elif option.name == "test" and isinstance(option, click.Option):
                option.help = TEST_HELP
                option.type = click.Choice([kind.value for kind in CliTestOptionValue])
                # `invoke` gets it: a callback might be called before `--catalog` is read.
                option.callback, option.expose_value = None, True
        return command


def _is_relevant(record: logging.LogRecord) -> bool:
    return record.msg not in SDK_DETAILS
