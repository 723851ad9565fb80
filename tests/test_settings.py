"""Settings: what is accepted, and the sentence for each thing that is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from singer_sdk.exceptions import ConfigValidationError

from tap_envoy.tap import TapEnvoy
from tests.conftest import Scene
from tests.program import run_tap
from tests.sandbox.server import environment


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"start_date": "last spring"}, "`start_date` must be a date"),
        ({"start_date": 20240517}, "`start_date` must be text"),
        ({"api_url": "http://api.envoy.com/v1"}, "`api_url` must be an https address"),
        ({"api_url": "ftp://127.0.0.1/v1"}, "`api_url` must be an https address"),
        ({"api_url": "https://user:pass@api.envoy.com/v1"}, "`api_url` must be an https address"),
        ({"api_url": "https://[bad/v1"}, "`api_url` must be an https address"),
        ({"api_url": "https://api.envoy.com:port/v1"}, "`api_url` must be an https address"),
        ({"token_url": "http://envoy.com/oauth2/token"}, "`token_url` must be an https address"),
        ({"page_size": 0}, "`page_size` must be a whole number from 1 to 100"),
        ({"page_size": 101}, "`page_size` must be a whole number from 1 to 100"),
        ({"page_size": 2.5}, "`page_size` must be a whole number from 1 to 100"),
        ({"page_size": True}, "`page_size` must be a whole number from 1 to 100"),
        ({"page_size": "many"}, "`page_size` must be a whole number from 1 to 100"),
        ({"request_timeout": 0}, "`request_timeout` must be a whole number from 1"),
        ({"scopes": "locations.read"}, "`scopes` must be a list"),
        ({"scopes": ["a,b"]}, "`scopes` must be a list"),
        ({"scopes": [1]}, "`scopes` must be a list"),
        ({"emit_activate_version_messages": "yes"}, "must be true or false"),
        ({"user_agent": "tap\r\nX-Evil: 1"}, "`user_agent` holds a line break"),
        ({"user_agent": "täp"}, "`user_agent` is sent in a header"),
        ({"page_siez": 5}, "no setting `page_siez`; did you mean `page_size`?"),
        ({"unheard_of": 5}, "no setting `unheard_of`."),
        ({"flattening_max_depth": "deep"}, "flattening_max_depth"),
    ],
    ids=repr,
)
def test_a_bad_setting_is_named(scene: Scene, config: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigValidationError) as caught:
        scene.tap(**config)
    assert len(caught.value.errors) == 1
    assert part.rstrip("?") in caught.value.errors[0]


SECRETS = ("api_key", "client_secret", "password", "refresh_token")
ODD = (
    123456789012345,
    1.23456789012345,
    ["hidden-in-a-list"],
    {"hidden": "in-an-object"},
    "hidden\nline-break",
    "hidden\x00zero",
    "hidden\x7fdelete",
)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_bad_secret_is_named_and_never_shown(scene: Scene, name: str, value: Any) -> None:
    with pytest.raises(ConfigValidationError) as caught:
        scene.tap(**{**scene.login, name: value})
    (sentence,) = caught.value.errors
    assert f"`{name}`" in sentence
    for piece in ("123456789", "23456789", "hidden"):
        assert piece not in sentence + str(caught.value)


@pytest.mark.parametrize(
    ("given_names", "parts"),
    [
        ("", ["No credentials", "`api_key`", "`refresh_token`"]),
        ("client_id", ["`client_secret` and `refresh_token`"]),
        ("client_id client_secret", ["also set `refresh_token`"]),
        ("client_id client_secret username", ["`password`", "or `refresh_token`"]),
        ("username password", ["`client_id` and `client_secret`"]),
        ("refresh_token", ["`client_id` and `client_secret`"]),
    ],
)
def test_missing_credentials_are_named(given_names: str, parts: list[str]) -> None:
    with pytest.raises(ConfigValidationError) as caught:
        TapEnvoy(config=dict.fromkeys(given_names.split(), "x"))
    (sentence,) = caught.value.errors
    for part in parts:
        assert part in sentence


def test_every_bad_setting_is_told_at_once_and_the_exit_code_is_not_0(scene: Scene) -> None:
    run = scene.run(page_size=0, start_date="soon", colour="blue")
    assert run.code == 1
    assert "Traceback" not in run.err
    assert sum("setting `" in line for line in run.errors) == 3
    assert scene.envoy.requests == []


@pytest.mark.parametrize("option", ["--test", "--test=schema"])
def test_the_connection_test_names_bad_settings_too(scene: Scene, option: str) -> None:
    run = scene.run(option, page_size=0)
    assert run.code == 1
    run.failed_with("`page_size`")


def test_empty_texts_count_as_unset(scene: Scene) -> None:
    empty = dict.fromkeys(("client_id", "password", "start_date", "user_agent", "page_size"), "")
    tap = scene.tap(**empty, scopes=None)
    assert tap.config["page_size"] == 100
    assert "client_id" not in tap.config
    with pytest.raises(ConfigValidationError, match="not right"):
        scene.tap(api_key="")


@pytest.mark.parametrize(
    "value", ["2024-05-17", "2024-05-17T08:00:00Z", "2024-05-17T08:00:00.5+02:00"]
)
def test_dates_and_moments_are_start_dates(scene: Scene, value: str) -> None:
    assert scene.tap(start_date=value).config["start_date"] == value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_plain_http_is_for_loopback(scene: Scene, host: str) -> None:
    assert scene.tap(api_url=f"http://{host}:8080/v1")


# From the environment


def test_settings_come_from_the_environment(scene: Scene) -> None:
    more = {
        "TAP_ENVOY_PAGE_SIZE": "50",
        "TAP_ENVOY_EMIT_ACTIVATE_VERSION_MESSAGES": "True",
        "TAP_ENVOY_FLATTENING_ENABLED": "no",
        "TAP_ENVOY_START_DATE": "",
        "TAP_ENVOY_REQUEST_TIMEOUT": "",
        "TAP_ENVOY_STREAM_MAPS": '{"locations": {"name": "name.upper()"}}',
    }
    there = environment(scene.envoy, scene.address)
    run = run_tap("--config=ENV", environment={**there, **more}, hidden=scene.envoy.secrets)
    assert run.code == 0, run.err
    assert scene.envoy.requests[0].query["perPage"] == "50"
    assert run.messages[-2]["type"] == "ACTIVATE_VERSION"
    assert run.records()[0]["name"] == "ZÜRICH 1"


@pytest.mark.parametrize(
    "text", ["locations.read,token.refresh", '["locations.read", "token.refresh"]']
)
def test_scopes_of_the_environment_are_a_list_in_either_way(scene: Scene, text: str) -> None:
    ways = {f"TAP_ENVOY_{name.upper()}": value for name, value in scene.login.items()}
    there = environment(scene.envoy, scene.address) | ways
    del there["TAP_ENVOY_API_KEY"]
    run = run_tap("--config=ENV", environment={**there, "TAP_ENVOY_SCOPES": text})
    assert run.code == 0, run.err
    assert scene.envoy.requests[0].form["scope"] == "locations.read,token.refresh"


def test_a_bad_number_of_the_environment_is_named(scene: Scene) -> None:
    there = environment(scene.envoy, scene.address)
    run = run_tap("--config=ENV", environment={**there, "TAP_ENVOY_PAGE_SIZE": "lots"})
    run.failed_with("`page_size` must be a whole number")


def test_a_dotenv_file_where_the_user_is_counts_but_yields_to_the_environment(
    scene: Scene, tmp_path: Path
) -> None:
    there = environment(scene.envoy, scene.address)
    lines = [f"{name}={value}" for name, value in there.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "TAP_ENVOY_PAGE_SIZE=7"]))
    run = run_tap("--config=ENV", cwd=tmp_path, environment={"TAP_ENVOY_PAGE_SIZE": "60"})
    assert run.code == 0, run.err
    assert len(run.records()) == 250
    assert scene.envoy.requests[0].query["perPage"] == "60"


# Files


@pytest.mark.parametrize("text", ["{nope", "[1]", '"text"', "7"])
def test_a_settings_file_that_is_no_object_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    run_tap("--config", str(path)).failed_with("--config", "JSON object")


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    run = run_tap("--config", str(tmp_path / "gone.json"))
    run.failed_with("gone.json", "not found")


@pytest.mark.parametrize("option", ["--catalog", "--state"])
@pytest.mark.parametrize("text", ["{nope", "[]"])
def test_a_catalog_or_state_that_is_no_object_is_a_sentence(
    scene: Scene, option: str, text: str
) -> None:
    path = scene.folder / "input.json"
    path.write_text(text)
    scene.run(option, str(path)).failed_with(option, "JSON object")
    assert scene.envoy.requests == []


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
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_as_settings_makes_a_tap_or_sentences(scene: Scene, config: Any) -> None:
    secret = "so-secret-that-nobody-may-see-it"
    config |= {name: [secret, value] for name, value in config.items() if name in SECRETS}
    errors: list[str] = []
    try:
        scene.tap(**config)
    except ConfigValidationError as error:
        errors = error.errors or [""]
    assert "" not in errors
    assert secret not in json.dumps(errors)


# What needs no settings


@pytest.mark.parametrize(
    "arguments",
    [["--discover"], ["--about"], ["--about", "--format=json"], ["--version"], ["--help"]],
)
def test_looking_at_the_tap_needs_no_settings(scene: Scene, arguments: list[str]) -> None:
    run = run_tap(*arguments, module="tap_envoy")
    assert run.code == 0
    assert run.out
    assert "Traceback" not in run.err
    # Nor does it ask Envoy, even if it could.
    there = environment(scene.envoy, scene.address)
    assert run_tap(*arguments, "--config=ENV", environment=there, module="tap_envoy").code == 0
    assert scene.envoy.requests == []
