"""The tap as a program: its command line, its signals, its exit code."""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from typing import IO, TYPE_CHECKING, Any

import click
from singer_sdk import Tap
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_envoy.errors import EnvoyError
from tap_envoy.output import LineWriter, Stop, StoppedError

if TYPE_CHECKING:
    from types import FrameType


class Program(Tap):
    """A tap whose exit code tells how its run ended, and that stops between two lines."""

    def __init__(self, **kwargs: Any) -> None:
        """Take what the SDK's `Tap` takes."""
        self.stop = Stop()
        self.writer = LineWriter(self.stop.check)
        super().__init__(message_writer=self.writer, **kwargs)

    @property
    @abstractmethod
    def incomplete(self) -> list[str]:
        """Names of the selected streams that have not been read to their end."""

    @abstractmethod
    def sum_up(self) -> None:
        """Say how the run ended: a line for each stream, and the last one for the run."""

    @abstractmethod
    def test_connection(self, *, selected_only: bool) -> tuple[list[str], bool]:
        """Return lines that say what can be read, and whether that is all that is selected."""

    @classmethod
    @override
    def cb_config(cls, ctx: Any, param: Any, value: tuple[str, ...]) -> Any:
        try:
            return super().cb_config(ctx, param, value)
        except FileNotFoundError as error:
            raise EnvoyError(f"--config: {error}") from None
        except (OSError, TypeError, ValueError, RecursionError):
            raise EnvoyError(
                "--config: one of the files cannot be read as a JSON object of settings."
            ) from None

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
        """Run the tap as the command line says.

        Raises:
            SystemExit: With a code other than 0, if not all that was selected came whole, or
                if a signal stopped the run.
            EnvoyError: If the run ended early, or could not begin.
        """
        super(Tap, cls).invoke(**about)
        cls.print_version(print_fn=cls.logger.info)
        tap = cls(
            **_given(config),
            state=_json_object("--state", state),
            catalog=_json_object("--catalog", catalog),
        )
        try:
            tap.sync_all()
            tap.stop.check()
        except StoppedError:
            tap.state_writer.write_state(tap.state)
            cls.logger.warning("Stopped by a signal; run again to go on from the last STATE.")
            raise
        finally:
            tap.writer.flush()
            tap.sum_up()
        if tap.incomplete:
            sys.exit(1)

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        command = super().get_singer_command()
        for option in command.params:
            # The catalogue says what `--test` has to test, wherever it stands in the line.
            option.is_eager = option.is_eager or option.name == "catalog"
        return command

    @classmethod
    @override
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Print what can be read, for a person; the SDK's own test prints records."""
        if value != CliTestOptionValue.All.value:
            super().cb_test(ctx, param, value)
            return
        catalog = _json_object("--catalog", ctx.params.get("catalog"))
        tap = cls(**_given(ctx.params.get("config")), catalog=catalog)
        lines, is_good = tap.test_connection(selected_only=catalog is not None)
        click.echo("\n".join(lines))
        ctx.exit(0 if is_good else 1)

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        """Stop between two lines, instead of here, where the SDK would write STATE into one."""
        self.stop.ask(signum)

    def take_a_breath(self) -> None:
        """Do what is to be done while an answer is awaited.

        Raises:
            StoppedError: If a signal asked for it.
            RunEndedError: If the output is closed.
        """
        self.stop.check()
        self.writer.flush()


def _given(config: Any) -> dict[str, Any]:
    """Return what `--config` says as arguments of the tap."""
    return {"config": config.config, "parse_env_config": config.parse_env} if config else {}


def _json_object(option: str, file: IO[str] | None) -> dict[str, Any] | None:
    """Return what the file of an option holds.

    Raises:
        EnvoyError: If that is not a JSON object.
    """
    if file is None:
        return None
    try:
        value = json.loads(file.read())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EnvoyError(f"{option}: the file does not hold a JSON object.")
    return value
