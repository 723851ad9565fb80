"""The program: `tap-envoy`, or `python -m tap_envoy`."""

from __future__ import annotations

import gc
import sys

from singer_sdk.exceptions import ConfigValidationError

from tap_envoy.errors import EnvoyError
from tap_envoy.tap import TapEnvoy


def main() -> None:
    """Run the tap; an error that a user can cause is one line on stderr, and exit code 1."""
    # What was imported stays: looking through it for garbage again and again is a loss.
    gc.freeze()
    try:
        TapEnvoy.cli()
    except ConfigValidationError as error:
        # The SDK reports those of a run itself, but not those that come up before it begins.
        for sentence in error.errors:
            TapEnvoy.logger.error(sentence)
    except EnvoyError as error:
        TapEnvoy.logger.error(str(error))
    sys.exit(1)


if __name__ == "__main__":
    main()
