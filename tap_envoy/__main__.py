"""The command `tap-envoy`, or `python -m tap_envoy`."""

from __future__ import annotations

import gc
import logging
import sys

from tap_envoy.exceptions import EnvoyError
from tap_envoy.tap import TapEnvoy


def main() -> None:
    """Run the tap; an error that a user can fix is one line on stderr, with exit code 1."""
    gc.freeze()  # imported modules stay: scanning them again for garbage is wasted time
    try:
        TapEnvoy.cli()
    except EnvoyError as error:
        TapEnvoy.logger.error("%s", error)
        sys.exit(1)
    finally:
        _stop_logging()


def _stop_logging() -> None:
    """Keep daemon threads, which may still wait for a response, from logging during shutdown.

    A thread that holds the lock of stderr while the interpreter exits makes it abort.
    """
    logging.disable()
    for handler in logging.root.handlers:
        handler.acquire()  # for the rest of the process


if __name__ == "__main__":
    main()
