"""Settings: parsing, validation, and the sentence for each fault."""

import json
import logging
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from singer_sdk.plugin_base import JSONSchemaValidator

from tap_envoy.config import CONFIG_SCHEMA, CREDENTIAL_SETS, load_config, read_json
from tap_envoy.exceptions import EnvoyError, RunAbortedError
from tap_envoy.tap import TapEnvoy

SCHEMA = deepcopy(CONFIG_SCHEMA)
TapEnvoy.append_builtin_config(SCHEMA)
SETTINGS = SCHEMA["properties"]
LOGGER = logging.getLogger("tap-envoy")


def load(**config: Any) -> dict[str, Any]:
    return load_config({"api_key": "key", **config}, SCHEMA, LOGGER, parse_env=False)


def fault(**config: Any) -> str:
    with pytest.raises(RunAbortedError) as caught:
        load(**config)
    return str(caught.value)


INTEGER = "must be an integer from 1 to 100"
RATE = "must be a number from 0.01 to 1000"
URL = "must be an https URL, or http on loopback, without user name, query and fragment"
HEADER = "must be printable ASCII without spaces around it, because it is sent in an HTTP header"
DATE = "must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z"
LIST = "must be an array"
STRING = "must be a string"
CONTROL = "contains a line break or another control character; remove it"
CREDENTIAL = "contains spaces, line breaks or characters other than ASCII; copy it again"
QUOTED = "is enclosed in quotes; remove them"
NOT_UTF8 = "is not encoded in UTF-8; check the encoding of the variable or file"


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("page_size", 0, INTEGER),
        ("page_size", True, INTEGER),
        ("requests_per_second", "1_0", RATE),
        ("emit_activate_version_messages", 1, "must be a boolean"),
        ("start_date", "last spring", DATE),
        ("start_date", 20240517, STRING),
        ("scopes", [1], LIST),
        ("api_url", "http://api.envoy.com/v1", URL),
        ("api_url", "https://user:secret@api.envoy.com/v1", URL),
        ("api_url", 7, STRING),
        ("api_url", "https://[bad/v1", URL),
        ("api_url", "https://api.envoy.com/v1?a=b", URL),
        ("api_url", "https://api.en\nvoy.com/v1", URL),
        ("token_url", "http://127.0.0.1.example.com/oauth2/token", URL),
        ("token_url", "http://localhost:80.example.com/oauth2/token", URL),
        ("user_agent", "tap\r\nX-Evil: 1", HEADER),
        ("user_agent", "täp", HEADER),
        ("api_key", "Bearer hidden", CREDENTIAL),
        ("client_secret", "hidden\n", CREDENTIAL),
        ("api_key", 7, STRING),
        ("password", "hidden\n", CONTROL),
        ("username", "hidden\t", CONTROL),
        ("token_cache", "/data/tokens.json\r", CONTROL),  # an environment file from Windows
        ("stream_maps", "[" * 100_000, "must be an object"),
        ("stream_maps", {"entries": {"fullName": 3}}, "is not valid at `entries.fullName`"),
        ("stream_maps", {"__else__": "hidden"}, "must have `__NULL__` as `__else__`, or none"),
        ("token_cache", "“/data/tokens.json”", QUOTED),
        ("api_key", " `hidden` ", QUOTED),
        ("scopes", "'a.read,b.read'", QUOTED),
        ("password", os.fsdecode(b"geh\xe4im"), NOT_UTF8),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_load_config_bad_value_names_setting_and_requirement(
    name: str, value: Any, requirement: str
) -> None:
    assert fault(**{name: value}) == f"Setting `{name}` {requirement}."


@pytest.mark.parametrize(
    "config",
    [
        {"page_size": 1, "lookback_days": 0, "lookahead_days": 3650, "request_timeout": 1},
        {"start_date": "2024-05-17T08:00:00.5+02:00"},
        {"api_url": "http://127.0.0.1:8080/v1", "token_url": "http://[::1]:8080/token"},
        {"scopes": [], "user_agent": "tap-envoy/1 (data team)", "token_cache": "~/täp tokens.json"},
        {"password": " pw-&+%\"'\\ß漢= \u00a0"},
        {"password": "'may be part of it'"},
        {"stream_maps": {"entries": {"email": "md5(email)", "fullName": None}, "__else__": None}},
        {"stream_maps": {"entries": "__NULL__", "spaces": None, "__else__": "__NULL__"}},
        {"stream_map_config": {"hash_seed": "x"}, "flattening_max_depth": 2},
        *(dict.fromkeys(names, "x") for names in CREDENTIAL_SETS),
    ],
    ids=repr,
)
def test_load_config_good_value_is_returned(config: dict[str, Any]) -> None:
    if "client_id" not in config:
        config = {"api_key": "key", **config}
    assert load_config(config, SCHEMA, LOGGER, parse_env=False) == config


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("page_size", "50", 50),
        ("requests_per_second", "9.5", 9.5),
        ("emit_activate_version_messages", "True", True),
        ("scopes", "a.read, b.read", ["a.read", "b.read"]),
        ("scopes", '["a.read", "b.read"]', ["a.read", "b.read"]),
        ("stream_maps", '{"entries": {"email": null}}', {"entries": {"email": None}}),
        ("password", "123", "123"),
    ],
)
def test_load_config_text_is_parsed_by_type(name: str, text: str, value: Any) -> None:
    assert load(**{name: text})[name] == value


def test_load_config_unset_values_are_dropped() -> None:
    assert load(page_size="", flattening_separator="", client_id=None) == {"api_key": "key"}


def test_load_config_several_faults_are_one_line_with_credentials_last() -> None:
    config = {"page_size": 0, "colour": "blue", "start_date": "soon"}
    assert fault(api_key=None, **config) == (
        f"Unknown setting `colour`; remove it. Setting `start_date` {DATE}. "
        f"Setting `page_size` {INTEGER}. {NO_CREDENTIALS}"
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pageSize", "did you mean `page_size`?"),
        ("client_api_key", "did you mean `api_key`?"),
        ("email", "did you mean `username`?"),
        ("TAP_ENVOY_PAGE_SIZE", "did you mean `page_size`?"),
        ("unheard_of", "remove it."),
    ],
)
def test_load_config_unknown_name_suggests_setting(name: str, advice: str) -> None:
    assert fault(**{name: "hidden"}) == f"Unknown setting `{name}`; {advice}"


NO_CREDENTIALS = (
    "No credentials: set `api_key`, or `client_id` and `client_secret` and `username` and "
    "`password`, or `client_id` and `client_secret` and `refresh_token`."
)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("token_cache", NO_CREDENTIALS),
        ("client_id", "also set `client_secret` and `refresh_token`."),
        ("client_id client_secret username", "also set `password`, or `refresh_token`."),
        ("username password", "also set `client_id` and `client_secret`."),
        ("apikey", "Unknown setting `apikey`; did you mean `api_key`?"),
    ],
)
def test_load_config_incomplete_credentials_are_named(names: str, sentence: str) -> None:
    start = "Incomplete credentials: " if sentence.startswith("also") else ""
    assert fault(api_key=None, **dict.fromkeys(names.split(), "x")) == f"{start}{sentence}"


def test_config_schema_names_secrets_and_refuses_unknown_settings() -> None:
    secrets = [name for name, definition in SETTINGS.items() if definition.get("secret")]
    assert secrets == ["api_key", "client_secret", "password", "refresh_token"]
    assert CONFIG_SCHEMA["additionalProperties"] is False


# No value in any message

MARK = "so-secret-that-nobody-may-see-it"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(MARK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(SETTINGS)) | st.text()
MARKED = st.sampled_from([MARK, f" {MARK}", f"'{MARK}'", f"{MARK}\n", f"{MARK}\udce4", f"[{MARK}"])


@given(config=st.dictionaries(NAMES, JSON | JSON.map(json.dumps) | MARKED))
@hypothesis_settings(deadline=None)
def test_load_config_any_json_is_valid_or_described_without_values(
    config: dict[str, Any],
) -> None:
    sentence = "."
    try:
        config = load(**config)
    except RunAbortedError as error:
        sentence = str(error)
    else:
        assert JSONSchemaValidator(SCHEMA).is_valid(config)
    assert sentence.endswith((".", "?"))
    assert sentence.isprintable()
    assert MARK not in sentence


# The environment


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    """Return the settings from these variables."""
    for name, text in {"API_KEY": "key", **variables}.items():
        monkeypatch.setenv(f"TAP_ENVOY_{name}", text)
    config = load_config({}, SCHEMA, LOGGER, parse_env=True)
    assert config.pop("api_key") == "key"
    return config


def test_environment_variable_that_resembles_a_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentence = "^Unknown setting `TAP_ENVOY_page_size`; did you mean `page_size`[?]$"
    with pytest.raises(RunAbortedError, match=sentence):
        load_variables(monkeypatch, page_size="5")


def test_environment_variables_of_a_service_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    of_kubernetes = {"PORT": "tcp://10.0.0.1:80", "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "80"}
    of_others = {"_SELECT": '["*.*"]', "LOGLEVEL": "DEBUG", "PAGE_SIZE": "", "MISSPELT": ""}
    assert load_variables(monkeypatch, **of_kubernetes, **of_others) == {}
    (warning,) = caplog.messages
    assert warning == (
        "Ignoring variables that are not settings: TAP_ENVOY_PORT, TAP_ENVOY_SERVICE_HOST, "
        "TAP_ENVOY_SERVICE_PORT."
    )


def test_empty_variable_does_not_hide_a_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("TAP_ENVOY_PAGE_SIZE=5\nTAP_ENVOY_API_KEY=")
    assert load_variables(monkeypatch, PAGE_SIZE="") == {"page_size": 5}
    monkeypatch.setenv("TAP_ENVOY_API_KEY", "")
    assert load_config({"api_key": "key"}, SCHEMA, LOGGER, parse_env=True)["api_key"] == "key"


def test_dotenv_that_is_not_a_text_file_is_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(folder / ".env")
    assert load_variables(monkeypatch) == {}
    (folder / ".env").unlink()
    (folder / ".env").write_bytes("A=1".encode("utf-16"))
    assert load_variables(monkeypatch) == {}
    assert caplog.messages == ["Ignoring `.env`, which is not a readable file of UTF-8 text."]


# JSON files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a" "secret"}', "Expecting ':' delimiter: line 1 column 6 (char 5)"),
        (b"[" * 100_000, "not UTF-8, or too deep"),
        (b'{"password": "\xff"}', "not UTF-8, or too deep"),
    ],
    ids=["syntax", "depth", "encoding"],
)
def test_read_json_of_anything_else_is_described(
    folder: Path, content: bytes, problem: str
) -> None:
    path = folder / "state.json"
    path.write_bytes(content)
    with pytest.raises(EnvoyError) as caught:
        read_json("--state", str(path))
    assert str(caught.value) == f"--state: {path} is not valid JSON ({problem})."
