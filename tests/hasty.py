"""The real program, but for its waits, which are a thousandth as long and soon over."""

from tap_envoy.__main__ import main
from tap_envoy.retry import Retry
from tap_envoy.tap import TapEnvoy

RETRY = Retry(first_wait=0.002, longest_wait=0.06, tries=4)

if __name__ == "__main__":
    TapEnvoy.retry = RETRY
    main()
