"""Settings of a tap in this process."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from singer_sdk.exceptions import ConfigValidationError

from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox, read

SECRETS = ("api_key", "client_secret", "password", "refresh_token")
BAD_SECRETS = (
    123456789012345,
    1.23456789012345,
    ["hidden-in-a-list"],
    {"hidden": "in-an-object"},
    "hidden\nline-break",
    "hidden\x00zero",
    "hidden\x7fdelete",
)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", BAD_SECRETS, ids=repr)
def test_tap_bad_secret_is_named_and_not_shown(sandbox: Sandbox, name: str, value: Any) -> None:
    with pytest.raises(ConfigValidationError) as caught:
        sandbox.tap(**{**sandbox.login, name: value})
    (sentence,) = caught.value.errors
    assert sentence.startswith(f"Setting `{name}` ")
    for piece in ("123456789", "23456789", "hidden"):
        assert piece not in sentence + str(caught.value)


def test_tap_empty_settings_count_as_unset(sandbox: Sandbox) -> None:
    empty = dict.fromkeys(("client_id", "password", "start_date", "user_agent", "page_size"), "")
    tap = sandbox.tap(**empty, scopes=None)
    assert tap.config["page_size"] == 100
    assert "client_id" not in tap.config
    with pytest.raises(ConfigValidationError) as caught:
        sandbox.tap(api_key="")
    assert caught.value.errors[0].startswith("No credentials")


def test_tap_defaults_apply_to_unset_settings(sandbox: Sandbox) -> None:
    tap = TapEnvoy(config={"api_key": sandbox.envoy.api_key})
    assert tap.config["requests_per_second"] == 9.5
    assert tap.config["api_url"] == "https://api.envoy.com/v1"


def test_tap_fractional_rate_is_accepted(sandbox: Sandbox) -> None:
    assert len(read(sandbox.tap(requests_per_second=999.5))) == 250


def test_tap_schema_of_the_class_is_not_changed_by_settings(sandbox: Sandbox) -> None:
    before = json.dumps(TapEnvoy.config_jsonschema)
    sandbox.tap(page_size=7)
    assert json.dumps(TapEnvoy.config_jsonschema) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    config=st.dictionaries(
        st.sampled_from(sorted(TapEnvoy.config_jsonschema["properties"])) | st.text(), JSON
    )
)
@hypothesis_settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_tap_any_json_as_settings_makes_a_tap_or_sentences(sandbox: Sandbox, config: Any) -> None:
    secret = "so-secret-that-nobody-may-see-it"
    config |= {name: [secret, value] for name, value in config.items() if name in SECRETS}
    errors: list[str] = []
    try:
        sandbox.tap(**config)
    except ConfigValidationError as error:
        errors = error.errors or [""]
    assert "" not in errors
    assert secret not in json.dumps(errors)


def test_tap_any_bytes_as_dotenv_makes_a_tap_or_one_sentence(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAP_ENVOY_API_KEY", sandbox.envoy.api_key)
    (tmp_path / ".env").write_bytes(b"TAP_ENVOY_USERNAME=\xe4")
    with pytest.raises(ConfigValidationError) as caught:
        TapEnvoy(parse_env_config=True)
    assert len(caught.value.errors) == 1
    (tmp_path / ".env").unlink()
    assert TapEnvoy(parse_env_config=True).config["api_key"] == os.environ["TAP_ENVOY_API_KEY"]
