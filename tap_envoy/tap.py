"""The tap: its settings checked, its streams on offer, and what one run shares."""

from __future__ import annotations

import logging
import os
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from dotenv import find_dotenv, load_dotenv
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from typing_extensions import override

from tap_envoy import checks, connection, report, settings
from tap_envoy.auth import ClientApiKey, EnvoyAuthenticator
from tap_envoy.client import EnvoyStream
from tap_envoy.errors import EnvoyError
from tap_envoy.pace import Pace
from tap_envoy.program import Program
from tap_envoy.records import canonical_time
from tap_envoy.retry import Retry
from tap_envoy.session import EnvoySession
from tap_envoy.streams import STREAMS
from tap_envoy.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOKEN_TRIES = 5
"""How often the token address is asked: nothing can be read until it answers."""


class TapEnvoy(Program):
    """Reads a company's Envoy (envoy.com), by Envoy's v1 API."""

    name = "tap-envoy"
    package_name = "tap-envoy"
    config_jsonschema: ClassVar[dict[str, Any]] = deepcopy(settings.SCHEMA)  # the SDK adds to it
    # Not BATCH: it would go round selection and stream maps.
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
    retry: ClassVar[Retry] = Retry()
    """How a fault that may pass is waited out."""
    progress_interval: ClassVar[float] = report.INTERVAL
    """Seconds between two lines that say how far a stream is."""

    def __init__(
        self,
        *,
        config: dict[str, Any] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        **kwargs: Any,  # those of the SDK
    ) -> None:
        """Take the settings and check them.

        Args:
            config: The settings by name.
            parse_env_config: Whether `TAP_ENVOY_*`, and a `.env` file in the folder where the
                user is or above it, add to them.
            validate_config: Whether to check them; discovery needs none.
            kwargs: As the SDK's `Tap` has them.

        Raises:
            ConfigValidationError: With a sentence for each setting that is wrong.
        """
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        given = dict(config or {})
        if parse_env_config:
            load_dotenv(find_dotenv(usecwd=True))
            given |= settings.from_environment(schema, os.environ)
        given = settings.without_empty(given)
        if validate_config and (errors := sorted(checks.problems(given, schema))):
            raise ConfigValidationError("The settings are not right.", errors=errors)
        super().__init__(config=given, validate_config=validate_config, **kwargs)

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        """Take the bookmarks over, in the one format in which they compare.

        Raises:
            EnvoyError: If they are not what a run of this tap leaves behind.
        """
        bookmarks = state.get("bookmarks", {})
        for name, bookmark in bookmarks.items() if isinstance(bookmarks, dict) else [("", None)]:
            if not isinstance(bookmark, dict):
                raise EnvoyError("--state: `bookmarks` does not hold an object for each stream.")
            value = bookmark.get("replication_key_value")
            if value is not None and (value := canonical_time(value)) is None:
                raise EnvoyError(f"--state: the bookmark of {name} is not a time.")
            if value is not None:
                bookmark["replication_key_value"] = value
        super().load_state(state)

    @cached_property
    def began(self) -> datetime:
        """When the run began."""
        return datetime.fromtimestamp(self.initialized_at / 1000, UTC)

    @override
    def test_connection(self, *, selected_only: bool) -> tuple[list[str], bool]:
        return connection.run(self, selected_only=selected_only)

    @property
    def selection(self) -> list[EnvoyStream]:
        """The streams that the user wants."""
        return [stream for stream in self.on_offer if stream.selected]

    @property
    @override
    def incomplete(self) -> list[str]:
        return [stream.name for stream in self.selection if not stream.is_complete]

    @property
    def on_offer(self) -> list[EnvoyStream]:
        """All streams."""
        return [stream for stream in self.streams.values() if isinstance(stream, EnvoyStream)]

    @override
    def sum_up(self) -> None:
        selection = self.selection
        for stream in selection:
            bookmark = stream.stream_state.get("replication_key_value")
            self.logger.info(stream.tally.sum_up(bookmark, complete=stream.is_complete))
        tallies = [stream.tally for stream in selection]
        line = report.sum_up(tallies, self.incomplete, len(selection))
        self.logger.log(logging.WARNING if self.incomplete else logging.INFO, line)

    @override
    def discover_streams(self) -> Sequence[EnvoyStream]:
        return [stream(self) for stream in STREAMS]

    @cached_property
    def pace(self) -> Pace:
        """The pace of the run's requests."""
        return Pace(self.config["requests_per_second"])

    @cached_property
    def patience(self) -> Retry:
        """How the run's faults are waited out."""
        return replace(self.retry, hold=self.pace.held)

    @cached_property
    def session(self) -> EnvoySession:
        """The HTTP session of the run; a proxy or CA bundle of the environment holds."""
        session = EnvoySession(self.pace)
        session.headers["User-Agent"] = self.config.get(
            "user_agent", f"{self.name}/{self.plugin_version}"
        )
        return session

    @cached_property
    def timeout(self) -> int:
        """Seconds to wait for an answer."""
        return int(self.config["request_timeout"])

    @cached_property
    def authenticator(self) -> ClientApiKey | EnvoyAuthenticator:
        """Who the run is."""
        return self.authenticator_for(self.selection)

    def authenticator_for(
        self, streams: Iterable[EnvoyStream]
    ) -> ClientApiKey | EnvoyAuthenticator:
        """Return a way to sign in for these streams: the first one that the settings complete."""
        if api_key := self.config.get("api_key"):
            key = ClientApiKey(api_key)
            self.logger.info(key.introduce())
            return key
        has_password = all(self.config.get(name) for name in ("username", "password"))
        # One scope to get refresh tokens, and what the streams need.
        needed = {scope for stream in streams for scope in stream.scopes}
        return EnvoyAuthenticator(
            token_url=self.config["token_url"],
            client_id=self.config["client_id"],
            client_secret=self.config["client_secret"],
            username=self.config["username"] if has_password else None,
            password=self.config["password"] if has_password else None,
            refresh_token=self.config.get("refresh_token"),
            scopes=tuple(self.config.get("scopes") or ("token.refresh", *sorted(needed))),
            session=self.session,
            timeout=self.timeout,
            retry=replace(self.patience, tries=min(TOKEN_TRIES, self.patience.tries)),
            token_cache=self._token_cache,
        )

    @property
    def _token_cache(self) -> TokenCache | None:
        if not (path := self.config.get("token_cache")):
            return None
        # Where no user is named, the refresh token of the settings stands for one.
        user = self.config.get("username") or self.config.get("refresh_token", "")
        owner = (self.config["token_url"], self.config["client_id"], user)
        return TokenCache(path, *owner, logger=self.logger)
