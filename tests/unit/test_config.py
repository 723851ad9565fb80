"""Settings: parsing, validation, and the sentence for each fault."""

import json
import logging
import math
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
DAYS = "must be an integer from 0 to 3650"
SECONDS = "must be an integer from 1 to 3600"
RATE = "must be a number from 0.01 to 1000"
URL = "must be an https URL, or http on loopback, without user name, query and fragment"
HEADER = "must be printable ASCII without spaces around it, because it is sent in an HTTP header"
DATE = "must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z"
SCOPES = "must be a list of scopes such as `locations.read`"
LIST = "must be a list of strings"
STRING = "must be a string; put it in quotes"
CONTROL = "contains a line break or another control character; remove it"
LINE = "contains a line break, another control character, or a space at its end; remove it"
CREDENTIAL = "contains spaces, line breaks or characters other than ASCII; copy it again"
QUOTED = "is enclosed in quotes; remove them"
NOT_UTF8 = "is not encoded in UTF-8; check the encoding of the variable or file"


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("page_size", 0, INTEGER),
        ("page_size", 101, INTEGER),
        ("page_size", 5.0, INTEGER),
        ("page_size", True, INTEGER),
        ("page_size", "many", INTEGER),
        ("page_size", "50", f"{INTEGER}, without quotes"),
        ("lookback_days", -1, DAYS),
        ("lookahead_days", 3651, DAYS),
        ("request_timeout", 0, SECONDS),
        ("requests_per_second", 1000.5, RATE),
        ("requests_per_second", math.nan, RATE),
        ("requests_per_second", True, RATE),
        ("requests_per_second", "1_0", RATE),
        ("emit_activate_version_messages", 1, "must be true or false"),
        ("emit_activate_version_messages", "true", "must be true or false, without quotes"),
        ("start_date", "last spring", DATE),
        ("start_date", 20240517, STRING),
        ("scopes", "locations.read", LIST),
        ("scopes", '["locations.read"]', f"{LIST}, without quotes"),
        ("scopes", [1], LIST),
        ("scopes", ["a,b"], SCOPES),
        ("scopes", ["a b"], SCOPES),
        ("api_url", "http://api.envoy.com/v1", URL),
        ("api_url", "https://user:secret@api.envoy.com/v1", URL),
        ("api_url", "https://[bad/v1", URL),
        ("api_url", "https://api.envoy.com:99999/v1", URL),
        ("api_url", "https://api.envoy.com/v1?a=b", URL),
        ("api_url", "https://api.en\nvoy.com/v1", URL),
        ("api_url", "https:///v1", URL),
        ("token_url", "http://127.0.0.1.example.com/oauth2/token", URL),
        ("user_agent", "tap\r\nX-Evil: 1", HEADER),
        ("user_agent", "täp", HEADER),
        ("user_agent", " tap", HEADER),
        ("api_key", "Bearer hidden", CREDENTIAL),
        ("api_key", "hidden\n", CREDENTIAL),
        ("api_key", 7, STRING),
        ("client_secret", "hidden ", CREDENTIAL),
        ("password", "hidden\n", CONTROL),
        ("password", "hidden\u2028", CONTROL),
        ("username", "hidden\t", LINE),
        ("token_cache", "/data/tokens.json\r", LINE),  # a line of an environment file from Windows
        ("token_cache", "/data/tokens.json ", LINE),
        ("flattening_max_depth", "2", "must be an integer, without quotes"),
        ("stream_maps", [], "must be an object"),
        ("stream_maps", {"entries": {"fullName": 3}}, "is not valid at `entries.fullName`"),
        ("stream_maps", {"__else__": "hidden"}, "is not valid at `__else__`"),
        ("token_cache", "“/data/tokens.json”", QUOTED),
        ("username", '"hidden"', QUOTED),
        ("api_key", " `hidden` ", QUOTED),
        ("user_agent", "'tap'", QUOTED),
        ("start_date", '"2024-05-17"', QUOTED),
        ("requests_per_second", "'9.5'", QUOTED),
        ("api_url", "'https://api.envoy.com/v1'", QUOTED),
        ("password", os.fsdecode(b"geh\xe4im"), NOT_UTF8),
        ("user_agent", os.fsdecode(b"geh\xe4im"), NOT_UTF8),
    ],
    ids=repr,
)
def test_load_config_bad_value_names_setting_and_requirement(
    name: str, value: Any, requirement: str
) -> None:
    assert fault(**{name: value}) == f"Setting `{name}` {requirement}."


@pytest.mark.parametrize(
    "config",
    [
        {"page_size": 1, "lookback_days": 0, "lookahead_days": 3650, "request_timeout": 1},
        {"start_date": "2024-05-17"},
        {"start_date": "2024-05-17T08:00:00.5+02:00"},
        {"api_url": "http://127.9.9.9:8080/v1"},
        {"token_url": "http://[::1]:8080/token"},
        {"scopes": []},
        {"user_agent": "tap-envoy/1 (data team)"},
        {"password": " pw-&+%\"'\\ß漢= \u00a0"},
        {"password": "'may be part of it'"},
        {"token_cache": "~/täp tokens.json"},
        {"stream_maps": {"entries": {"email": "md5(email)", "fullName": None}, "__else__": None}},
        {"stream_maps": {"entries": "__NULL__", "spaces": None, "__else__": "__NULL__"}},
        {"stream_map_config": {"hash_seed": "x"}, "flattening_max_depth": 2},
    ],
    ids=repr,
)
def test_load_config_good_value_is_returned(config: dict[str, Any]) -> None:
    assert load(**config) == {"api_key": "key", **config}


def test_load_config_unset_values_are_dropped_and_numbers_parsed() -> None:
    config = load(page_size="", client_id=None, scopes=[], requests_per_second="9.5")
    assert config == {"api_key": "key", "scopes": [], "requests_per_second": 9.5}


def test_load_config_several_faults_are_one_line_with_credentials_last() -> None:
    config = {"page_size": 0, "colour": "blue", "start_date": "soon"}
    assert fault(api_key=None, **config) == (
        f"Unknown setting `colour`; remove it. Setting `start_date` {DATE}. "
        f"Setting `page_size` {INTEGER}. {NO_CREDENTIALS}"
    )


def test_load_config_start_date_in_the_future_becomes_the_present(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert load(start_date="9999-12-31T23:59:59-14:00")["start_date"] < "9999"
    assert caplog.messages == ["Setting `start_date` is in the future; reading from now."]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("page_siez", "did you mean `page_size`?"),
        ("pageSize", "did you mean `page_size`?"),
        ("client_api_key", "did you mean `api_key`?"),
        ("apikey", "did you mean `api_key`?"),
        ("email", "did you mean `username`?"),
        ("TAP_ENVOY_PAGE_SIEZ", "did you mean `TAP_ENVOY_PAGE_SIZE`?"),
        ("TAP_ENVOY_PAGE_SIZE", "did you mean `page_size`?"),
        ("unheard_of", "remove it."),
        ("", "remove it."),
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
        ("", NO_CREDENTIALS),
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


@pytest.mark.parametrize("names", CREDENTIAL_SETS)
def test_load_config_complete_credentials_are_accepted(names: tuple[str, ...]) -> None:
    config = dict.fromkeys(names, "x")
    assert load(api_key=config.pop("api_key", None), **config).keys() == set(names)


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


def check_messages(config: dict[str, Any], *, parse_env: bool = False) -> None:
    """Check that there is a sentence without a value, or the SDK accepts the settings as well."""
    sentence = "."
    try:
        config = load_config(config, SCHEMA, LOGGER, parse_env=parse_env)
    except RunAbortedError as error:
        sentence = str(error)
    else:
        assert JSONSchemaValidator(SCHEMA).is_valid(config)
    assert sentence.endswith((".", "?"))
    assert sentence.isprintable()
    assert MARK not in sentence


@given(config=st.dictionaries(NAMES, JSON | MARKED), has_key=st.booleans())
@hypothesis_settings(deadline=None, max_examples=100)
def test_load_config_any_json_is_valid_or_described_without_values(
    config: dict[str, Any], *, has_key: bool
) -> None:
    check_messages(({"api_key": "key"} if has_key else {}) | config)


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
    texts=st.dictionaries(
        NAMES.map(lambda name: f"TAP_ENVOY_{name.upper()}".encode(errors="replace")),
        (VALUES | JSON.map(json.dumps)).map(str.encode) | MARKED.map(os.fsencode),
    )
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_load_config_any_environment_is_valid_or_described_without_values(
    texts: dict[bytes, bytes],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**texts, b"TAP_ENVOY_API_KEY": b"key"}.items():
            if b"\0" not in name + value and b"=" not in name:
                patch.setenv(os.fsdecode(name), os.fsdecode(value))
        check_messages({}, parse_env=True)


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


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PAGE_SIZE", "50", 50),
        ("REQUESTS_PER_SECOND", "9.5", 9.5),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "True", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "1", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "off", False),
        ("SCOPES", "a.read, b.read", ["a.read", "b.read"]),
        ("SCOPES", '["a.read", "b.read"]', ["a.read", "b.read"]),
        ("STREAM_MAPS", '{"entries": {"email": null}}', {"entries": {"email": None}}),
        ("PASSWORD", "123", "123"),
    ],
)
def test_environment_text_is_parsed_by_type(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    assert load_variables(monkeypatch, **{name: text}) == {name.lower(): value}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("PAGE_SIZE", "lots", f"Setting `page_size` {INTEGER}."),
        ("SCOPES", "'a.read,b.read'", f"Setting `scopes` {QUOTED}."),
        ("STREAM_MAPS", "'{}'", f"Setting `stream_maps` {QUOTED}."),
        ("STREAM_MAPS", 100_000 * "[", "Setting `stream_maps` must be an object."),
        ("STREAM_MAPS", os.fsdecode(b'{"a": "\xe4"}'), f"Setting `stream_maps` {NOT_UTF8}."),
        (
            "page_size",
            "5",
            "Unknown setting `TAP_ENVOY_page_size`; did you mean `TAP_ENVOY_PAGE_SIZE`?",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_environment_fault_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, sentence: str
) -> None:
    with pytest.raises(RunAbortedError) as caught:
        load_variables(monkeypatch, **{name: text})
    assert str(caught.value) == sentence


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


# A .env file


def test_dotenv_is_read_below_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As some editors write it: with a byte order mark, and the line ends of Windows.
    lines = "\ufeffexport TAP_ENVOY_USERNAME='ä b'\r\nTAP_ENVOY_PAGE_SIZE=7\r\nTAP_ENVOY_X\r\n"
    (folder / ".env").write_bytes(lines.encode())
    assert load_variables(monkeypatch, PAGE_SIZE="60") == {"username": "ä b", "page_size": 60}


@pytest.mark.parametrize("content", [b"TAP_ENVOY_PAGE_SIZE=7 \xe4", "A=1".encode("utf-16"), None])
def test_dotenv_that_cannot_be_read_is_one_warning(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes | None,
) -> None:
    os.mkfifo(folder / ".env") if content is None else (folder / ".env").write_bytes(content)
    assert load_variables(monkeypatch) == {}
    assert caplog.messages == ["Ignoring `.env`, which is not a readable file of UTF-8 text."]


def test_dotenv_that_is_a_directory_is_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".env").mkdir()  # such as a virtual environment
    assert load_variables(monkeypatch) == {}
    assert caplog.messages == []


# JSON files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (
            b'{"a":\n "secret" 1}',
            "is not valid JSON (Expecting ',' delimiter: line 2 column 11 (char 16))",
        ),
        (b"[1]", "does not contain a JSON object"),
        (b"[" * 100_000, "is not valid JSON (not UTF-8, or too deep)"),
        (b'{"password": "\xff"}', "is not valid JSON (not UTF-8, or too deep)"),
    ],
    ids=range(5),
)
def test_read_json_of_anything_else_is_described(
    folder: Path, content: bytes, problem: str
) -> None:
    path = folder / "state.json"
    path.write_bytes(content)
    with pytest.raises(EnvoyError) as caught:
        read_json("--state", str(path))
    assert str(caught.value) == f"--state: {path} {problem}."
