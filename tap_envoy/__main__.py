"""The command `tap-envoy`, or `python -m tap_envoy`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the tap; an error that a user can fix is one line on stderr, with exit code 1."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit_at_once)  # until `TapEnvoy` handles them
    gc.disable()  # until all is imported: looking through it for garbage takes a tenth of the start
    from tap_envoy.exceptions import EnvoyError  # noqa: PLC0415
    from tap_envoy.tap import TapEnvoy  # noqa: PLC0415
    from tap_envoy.writer import output_error  # noqa: PLC0415

    gc.enable()
    gc.freeze()  # imported modules stay: scanning them again for garbage is wasted time
    try:
        try:
            TapEnvoy.cli()
        finally:
            print(end="", flush=True)  # noqa: T201  # at exit it would be too late for a sentence
    except EnvoyError as error:
        TapEnvoy.logger.error("%s", error)
        sys.exit(1)
    except OSError as error:  # printing, as `--discover` does; all others are caught where raised
        TapEnvoy.logger.error("%s", output_error(error))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # its text may hold a record's value
        TapEnvoy.logger.error("%s", _describe(error))
        sys.exit(1)
    finally:
        _stop_logging()


def _exit_at_once(signum: int, _frame: FrameType | None) -> None:
    os._exit(128 + signum)


def _describe(error: Exception) -> str:
    """Return a sentence that shows where in the tap an unexpected error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = Path(__file__).parent
    *_, frame = [frame for frame in frames if Path(frame.filename).parent == folder] or frames
    return (
        f"Unexpected error ({type(error).__name__} at {Path(frame.filename).name}, line "
        f"{frame.lineno}); report this to the maintainers of the tap."
    )


def _stop_logging() -> None:
    """Keep daemon threads, which may still wait for a response, from logging during shutdown.

    A thread that holds the lock of stderr while the interpreter exits makes it abort.
    """
    logging.disable()
    for handler in logging.root.handlers:
        handler.acquire()  # for the rest of the process


if __name__ == "__main__":
    main()
