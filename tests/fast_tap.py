"""The real program, but with retries after milliseconds instead of seconds."""

from tap_envoy.__main__ import main
from tap_envoy.session import RetryPolicy
from tap_envoy.tap import TapEnvoy

RETRY_POLICY = RetryPolicy(initial_wait=0.002, max_wait=0.06, max_time=0.3)

if __name__ == "__main__":
    TapEnvoy.retry_policy = RETRY_POLICY
    main()
