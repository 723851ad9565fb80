"""Settings: parsing, validation, and the sentence for each fault."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.plugin_base import JSONSchemaValidator

from tap_envoy.config import (
    CONFIG_SCHEMA,
    CREDENTIAL_SETS,
    drop_unset,
    from_environment,
    load_dotenv_file,
    parse_numbers,
    validate_config,
)
from tap_envoy.tap import TapEnvoy

SCHEMA = deepcopy(CONFIG_SCHEMA)
TapEnvoy.append_builtin_config(SCHEMA)
SETTINGS = SCHEMA["properties"]
SECRETS = [name for name, definition in SETTINGS.items() if definition.get("secret")]

DEFAULTS = {
    "api_url": "https://api.envoy.com/v1",
    "token_url": "https://api.envoy.com/oauth2/token",
    "lookback_days": 7,
    "lookahead_days": 60,
    "page_size": 100,
    "requests_per_second": 9.5,
    "request_timeout": 60,
    "emit_activate_version_messages": False,
}

INTEGER_1_TO_100 = "must be an integer from 1 to 100"
URL = "must be an https URL, or http on loopback, without user name, query and fragment"
HEADER = "must be printable ASCII without spaces around it, because it is sent in an HTTP header"
DATE = "must be a date such as 2024-05-17 or 2024-05-17T08:00:00Z"
RATE = "must be a number from 0.01 to 1000"
SCOPES = "must be a list of scopes such as `locations.read`"
LIST = "must be a list of strings"
STRING = "must be a string; put it in quotes"
LINE = "contains a line break or another control character; remove it"
ASCII = "contains characters other than printable ASCII; copy it again"
QUOTED = "is enclosed in quotes; remove them"
NOT_A_VARIABLE = "contains a character or name that environment variables cannot have; remove it"
SPACES = "contains spaces or line breaks; remove them"
BEARER = "starts with `Bearer`; remove that word"


def faults(**config: Any) -> list[str]:
    return list(validate_config({"api_key": "key", **config}, SCHEMA))


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("page_size", 0, INTEGER_1_TO_100),
        ("page_size", 101, INTEGER_1_TO_100),
        ("page_size", 2.5, INTEGER_1_TO_100),
        ("page_size", 5.0, INTEGER_1_TO_100),
        ("page_size", True, INTEGER_1_TO_100),
        ("page_size", "many", INTEGER_1_TO_100),
        ("page_size", "50", f"{INTEGER_1_TO_100}, without quotes"),
        ("page_size", [50], INTEGER_1_TO_100),
        ("lookback_days", -1, "must be an integer from 0 to 3650"),
        ("lookback_days", 3651, "must be an integer from 0 to 3650"),
        ("lookahead_days", -1, "must be an integer from 0 to 3650"),
        ("lookahead_days", 3651, "must be an integer from 0 to 3650"),
        ("request_timeout", 0, "must be an integer from 1 to 3600"),
        ("request_timeout", 3601, "must be an integer from 1 to 3600"),
        ("requests_per_second", 0, RATE),
        ("requests_per_second", -9.5, RATE),
        ("requests_per_second", 1000.5, RATE),
        ("requests_per_second", math.nan, RATE),
        ("requests_per_second", math.inf, RATE),
        ("requests_per_second", True, RATE),
        ("requests_per_second", Decimal(0), RATE),
        ("requests_per_second", Decimal("NaN"), RATE),
        ("page_size", Decimal("5.0"), INTEGER_1_TO_100),
        ("requests_per_second", "9.5", f"{RATE}, without quotes"),
        ("emit_activate_version_messages", 1, "must be true or false"),
        ("emit_activate_version_messages", "maybe", "must be true or false"),
        ("emit_activate_version_messages", "true", "must be true or false, without quotes"),
        ("start_date", "last spring", DATE),
        ("start_date", "2024-13-01", DATE),
        ("start_date", 20240517, STRING),
        ("scopes", "locations.read", LIST),
        ("scopes", [1], LIST),
        ("scopes", ["a,b"], SCOPES),
        ("scopes", ["a b"], SCOPES),
        ("scopes", [""], SCOPES),
        ("scopes", ["locations.read", "ä"], SCOPES),
        ("api_url", "http://api.envoy.com/v1", URL),
        ("api_url", "ftp://127.0.0.1/v1", URL),
        ("api_url", "https://user:secret@api.envoy.com/v1", URL),
        ("api_url", "https://@api.envoy.com/v1", URL),
        ("api_url", "https://[bad/v1", URL),
        ("api_url", "https://api.envoy.com:port/v1", URL),
        ("api_url", "https://api.envoy.com:99999/v1", URL),
        ("api_url", "https://api.envoy.com/v1?", URL),
        ("api_url", "https://api.envoy.com/v1?a=b", URL),
        ("api_url", "https://api.envoy.com/v1#", URL),
        ("api_url", "https://api.envoy.com\\v1", URL),
        ("api_url", "https://api.en voy.com/v1", URL),
        ("api_url", "https://api.en\nvoy.com/v1", URL),
        ("api_url", "https:///v1", URL),
        ("api_url", "api.envoy.com/v1", URL),
        ("token_url", "http://envoy.com/oauth2/token", URL),
        ("token_url", "http://127.0.0.1.example.com/oauth2/token", URL),
        ("token_url", 7, STRING),
        ("user_agent", "tap\r\nX-Evil: 1", HEADER),
        ("user_agent", "täp", HEADER),
        ("user_agent", " tap", HEADER),
        ("user_agent", "tap ", HEADER),
        ("user_agent", 7, STRING),
        ("api_key", '"hidden"', QUOTED),
        ("api_key", "'hidden", QUOTED),
        ("api_key", "hidden\u201d", QUOTED),
        ("api_key", " 'hidden' ", QUOTED),
        ("api_key", "Bearer hidden", BEARER),
        ("api_key", " bearer hidden", BEARER),
        ("api_key", "hidden ", SPACES),
        ("api_key", "hid den", SPACES),
        ("api_key", "hidden\n", SPACES),
        ("api_key", " ", SPACES),
        ("api_key", "hidden-ä", ASCII),
        ("api_key", "hidden\x00", ASCII),
        ("api_key", "hidden\x7f", ASCII),
        ("api_key", 7, STRING),
        ("client_id", '"hidden"', QUOTED),
        ("client_secret", "hidden ", SPACES),
        ("refresh_token", "Bearer hidden", BEARER),
        ("password", "hidden\n", LINE),
        ("password", "hidden\x00", LINE),
        ("password", "hidden\u2028", LINE),
        ("password", "hidden\u2029", LINE),
        ("password", "hidden\ud800", LINE),
        ("password", 7, STRING),
        ("username", "hidden\t", LINE),
        ("token_cache", "hidden\x00", LINE),
        ("flattening_enabled", "hidden", "must be true or false"),
        ("flattening_max_depth", "hidden", "must be an integer"),
        ("flattening_max_depth", "2", "must be an integer, without quotes"),
        ("stream_maps", [], "must be an object"),
        ("stream_maps", {"entries": 3}, "is not valid at `entries`"),
        ("stream_maps", {"entries": {"fullName": 3}}, "is not valid at `entries.fullName`"),
        ("stream_maps", {"__else__": "hidden"}, "is not valid at `__else__`"),
        ("stream_map_config", "hidden", "must be an object"),
    ],
    ids=repr,
)
def test_validate_config_bad_value_names_setting_and_requirement(
    name: str, value: Any, requirement: str
) -> None:
    assert faults(**{name: value}) == [f"Setting `{name}` {requirement}."]


@pytest.mark.parametrize(
    "config",
    [
        {"page_size": 1},
        {"page_size": 100},
        {"lookback_days": 0, "lookahead_days": 3650, "request_timeout": 1},
        {"requests_per_second": 0.01},
        {"requests_per_second": 1000},
        {"requests_per_second": Decimal("9.5")},
        {"faker_config": {"seed": Decimal("1.5")}},
        {"start_date": "2024-05-17"},
        {"start_date": "2024-05-17T08:00:00Z"},
        {"start_date": "2024-05-17T08:00:00.5+02:00"},
        {"api_url": "http://127.0.0.1:8080/v1"},
        {"api_url": "http://127.9.9.9/v1"},
        {"api_url": "http://localhost/v1"},
        {"token_url": "http://[::1]:8080/token"},
        {"token_url": "https://gateway.example.com/envoy/token"},
        {"scopes": []},
        {"scopes": ["locations.read", "token.refresh"]},
        {"user_agent": "tap-envoy/1 (data team)"},
        {"api_key": "bearer-of-keys"},
        {"api_key": "X-key-X"},
        {"password": "pw-&+%\"'\\ß漢= \u00a0"},
        {"username": "ä@example.com"},
        {"token_cache": "~/täp tokens.json"},
        {"emit_activate_version_messages": True},
        {"stream_maps": {"entries": {"email": "md5(email)", "fullName": None}, "__else__": None}},
        {"stream_maps": {"entries": "__NULL__", "spaces": None, "__else__": "__NULL__"}},
        {"stream_map_config": {"hash_seed": "x"}, "flattening_max_depth": 2},
    ],
    ids=repr,
)
def test_validate_config_good_value_has_no_fault(config: dict[str, Any]) -> None:
    assert faults(**config) == []


def test_config_schema_defaults_and_secrets_are_as_documented() -> None:
    assert {name: d["default"] for name, d in SETTINGS.items() if "default" in d} == DEFAULTS
    assert SECRETS == ["api_key", "client_secret", "password", "refresh_token"]
    assert CONFIG_SCHEMA["additionalProperties"] is False
    assert faults(**DEFAULTS) == []


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("page_siez", "; did you mean `page_size`?"),
        ("pageSize", "; did you mean `page_size`?"),
        ("page-size", "; did you mean `page_size`?"),
        ("client_api_key", "; did you mean `api_key`?"),
        ("apikey", "; did you mean `api_key`?"),
        ("X-Api-Key", "; did you mean `api_key`?"),
        ("token", "; did you mean `api_key`?"),
        ("email", "; did you mean `username`?"),
        ("user", "; did you mean `username`?"),
        ("auth_url", "; did you mean `token_url`?"),
        ("rate_limit", "; did you mean `requests_per_second`?"),
        ("base_url", "; did you mean `api_url`?"),
        ("stream_map", "; did you mean `stream_maps`?"),
        ("TAP_ENVOY_PAGE_SIEZ", "; did you mean `TAP_ENVOY_PAGE_SIZE`?"),
        ("TAP_ENVOY_EMAIL", "; did you mean `TAP_ENVOY_USERNAME`?"),
        ("TAP_ENVOY_API_KEY", "; did you mean `api_key`?"),
        ("unheard_of", "; remove it."),
        ("TAP_ENVOY_XYZ", "; remove it."),
        ("", "; remove it."),
    ],
)
def test_validate_config_unknown_name_suggests_setting(name: str, end: str) -> None:
    assert faults(**{name: "hidden"}) == [f"Unknown setting `{name}`{end}"]


def test_validate_config_long_or_unprintable_name_is_shortened() -> None:
    assert faults(**{"\n\x1b" + 60 * "é": 1}) == [f"Unknown setting `{50 * 'é'}`; remove it."]


@pytest.mark.parametrize("name", ["batch_config", "TAP_ENVOY_BATCH_CONFIG"])
def test_validate_config_batch_config_is_not_supported(name: str) -> None:
    assert faults(**{name: {"encoding": {}}}) == [
        f"Setting `{name}` is not available: BATCH is not supported."
    ]


FAKER = "Stream maps with `fake` need the package Faker: install `tap-envoy[faker]`."
WITH_FAKER: list[dict[str, Any]] = [
    {"faker_config": {"seed": 1}},
    {"stream_maps": {"entries": {"fullName": "fake.name()"}}},
]


@pytest.mark.parametrize("config", WITH_FAKER, ids=repr)
def test_validate_config_without_faker_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "faker", None)
    assert faults(**config) == [FAKER]
    assert faults(stream_maps={"entries": {"fakeName": "md5(fake_name)"}}) == []
    assert faults(stream_maps={"entries": None}) == []


@pytest.mark.parametrize("config", WITH_FAKER, ids=repr)
def test_validate_config_with_faker_has_no_fault(config: dict[str, Any]) -> None:
    assert faults(**config) == []


NO_CREDENTIALS = (
    "No credentials: set `api_key`, or `client_id`, `client_secret`, `username` and `password`, "
    "or `client_id`, `client_secret` and `refresh_token`."
)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("", NO_CREDENTIALS),
        ("token_cache", NO_CREDENTIALS),
        ("client_id", "also set `client_secret` and `refresh_token`."),
        ("client_id client_secret", "also set `refresh_token`."),
        ("client_id client_secret username", "also set `password`, or `refresh_token`."),
        ("username password", "also set `client_id` and `client_secret`."),
        ("refresh_token", "also set `client_id` and `client_secret`."),
        ("username", "also set `client_id`, `client_secret` and `password`."),
    ],
)
def test_validate_config_incomplete_credentials_are_named(names: str, sentence: str) -> None:
    if names not in {"", "token_cache"}:
        sentence = f"Incomplete credentials: {sentence}"
    assert list(validate_config(dict.fromkeys(names.split(), "x"), SCHEMA)) == [sentence]


@pytest.mark.parametrize("names", CREDENTIAL_SETS)
def test_validate_config_complete_credentials_have_no_fault(names: tuple[str, ...]) -> None:
    assert list(validate_config(dict.fromkeys(names, "x"), SCHEMA)) == []


def test_validate_config_misnamed_credential_is_one_fault() -> None:
    assert list(validate_config({"apikey": "x"}, SCHEMA)) == [
        "Unknown setting `apikey`; did you mean `api_key`?"
    ]


def test_validate_config_lists_all_faults_with_credentials_last() -> None:
    config = {"page_size": 0, "colour": "blue", "start_date": "soon"}
    sentences = list(validate_config(config, SCHEMA))
    starts = ["Unknown setting `colour`", "Setting `start_date`", "Setting `page_size`", "No cred"]
    assert len(sentences) == len(starts)
    for sentence, start in zip(sentences, starts, strict=True):
        assert sentence.startswith(start)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(SETTINGS)) | st.text()
MARK = "so-secret-that-nobody-may-see-it"


def check(config: dict[str, Any]) -> None:
    """Check that there are sentences without a value, or the SDK accepts `config` as well."""
    config = drop_unset(config)
    sentences = list(validate_config(config, SCHEMA))
    for sentence in sentences:
        assert sentence.endswith((".", "?"))
        assert sentence.isprintable()
        assert MARK not in sentence
    assert sentences or JSONSchemaValidator(SCHEMA).is_valid(config)


@given(
    config=st.dictionaries(NAMES, JSON),
    marked=st.dictionaries(
        st.sampled_from(sorted(SETTINGS)),
        st.sampled_from(
            [MARK, f" {MARK}", [MARK, 7], {"a": {"b": MARK}}, f"'{MARK}'", f"{MARK}\n"]
        ),
    ),
    has_key=st.booleans(),
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_validate_config_any_json_is_accepted_or_described_without_values(
    config: dict[str, Any], marked: dict[str, Any], *, has_key: bool
) -> None:
    check(({"api_key": "key"} if has_key else {}) | config | marked)


@given(
    texts=st.dictionaries(
        NAMES.map(str.upper),
        st.text()
        | JSON.map(json.dumps)
        | st.sampled_from([MARK, f"[{MARK}", f'{{"a": "{MARK}"}}']),
    )
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_from_environment_any_text_is_accepted_or_described_without_values(
    texts: dict[str, str],
) -> None:
    variables = {f"TAP_ENVOY_{name}": text for name, text in texts.items()}
    check(from_environment(SCHEMA, {"TAP_ENVOY_API_KEY": "key"} | variables))


# From the environment


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PAGE_SIZE", "50", 50),
        ("PAGE_SIZE", "1", 1),
        ("SCOPES", "on", ["on"]),
        ("PAGE_SIZE", "1_0", "1_0"),
        ("PAGE_SIZE", "5.0", 5.0),
        ("PAGE_SIZE", "\u0665", "\u0665"),  # a digit of Arabic script
        ("PAGE_SIZE", "lots", "lots"),
        ("PAGE_SIZE", "true", True),
        ("FLATTENING_MAX_DEPTH", "9007199254740993", 9007199254740993),
        ("FLATTENING_MAX_DEPTH", 5000 * "9", 5000 * "9"),
        ("REQUESTS_PER_SECOND", "9.5", 9.5),
        ("REQUESTS_PER_SECOND", "4", 4),
        ("REQUESTS_PER_SECOND", "1_0.5", "1_0.5"),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "True", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "1", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "yes", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "ON", True),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "FALSE", False),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "0", False),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "No", False),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "off", False),
        ("EMIT_ACTIVATE_VERSION_MESSAGES", "maybe", "maybe"),
        ("SCOPES", "a.read, b.read", ["a.read", "b.read"]),
        ("SCOPES", '["a.read", "b.read"]', ["a.read", "b.read"]),
        ("SCOPES", "a.read", ["a.read"]),
        ("STREAM_MAPS", '{"entries": {"email": null}}', {"entries": {"email": None}}),
        ("STREAM_MAPS", '{"entries":', '{"entries":'),
        ("STREAM_MAPS", 100_000 * "[", 100_000 * "["),
        ("API_KEY", "123", "123"),
        ("PASSWORD", "true", "true"),
        ("START_DATE", "2024", "2024"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_from_environment_parses_text_by_type(name: str, text: str, value: Any) -> None:
    (parsed,) = from_environment(SCHEMA, {f"TAP_ENVOY_{name}": text}).values()
    assert parsed == value
    assert type(parsed) is type(value)


def test_from_environment_keeps_unknown_variables_for_validation() -> None:
    environ = {"TAP_ENVOY_PAGE_SIEZ": "5", "TAP_ENVOY_page_size": "5", "TAP_ENVOY_API_KEY": "key"}
    config = from_environment(SCHEMA, environ)
    assert list(validate_config(config, SCHEMA)) == [
        "Unknown setting `TAP_ENVOY_PAGE_SIEZ`; did you mean `TAP_ENVOY_PAGE_SIZE`?",
        "Unknown setting `TAP_ENVOY_page_size`; did you mean `TAP_ENVOY_PAGE_SIZE`?",
    ]


def test_from_environment_ignores_variables_of_others_and_empty_ones() -> None:
    environ = {
        "TAP_ENVOY_LOGLEVEL": "DEBUG",
        "TAP_ENVOY__SELECT": '["*.*"]',
        "TAP_ENVOY__LOAD_SCHEMA": "envoy",
        "TAP_ENVOY_PAGE_SIZE": "",
        "TAP_ENVOY_MISSPELT": "",
        "ENVOY_API_KEY": "key",
        "MY_TAP_ENVOY_API_KEY": "key",
        "TAP_ENVOY": "key",
    }
    assert from_environment(SCHEMA, environ) == {}


def test_drop_unset_removes_null_and_empty_text_only() -> None:
    config: dict[str, Any] = {"a": None, "b": "", "c": 0, "d": False, "e": [], "f": {}, "g": " "}
    assert drop_unset(config) == {"c": 0, "d": False, "e": [], "f": {}, "g": " "}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9.5", 9.5),
        ("4", 4),
        ("NaN", math.nan),
        ("9,5", "9,5"),
        ("1_0", "1_0"),
        (9.5, 9.5),
        (Decimal("9.5"), 9.5),
        (Decimal("1e400"), math.inf),
        (True, True),
    ],
)
def test_parse_numbers_converts_text_and_decimals_of_number_settings(text: Any, value: Any) -> None:
    config = {"requests_per_second": text, "page_size": "5", "client_id": "5", "unknown": "5"}
    parsed = parse_numbers(config, SCHEMA)
    assert repr(parsed) == repr({**config, "requests_per_second": value})


# From a .env file


@pytest.fixture
def restored_environment() -> Iterator[None]:
    variables = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(variables)


@pytest.fixture
def write_dotenv(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restored_environment: None,  # noqa: ARG001
) -> Callable[[bytes], Path]:
    """Return a function that writes `.env` into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAP_ENVOY_PAGE_SIZE", "60")

    def write(content: bytes) -> Path:
        path = tmp_path / ".env"
        path.write_bytes(content)
        return path

    return write


def test_load_dotenv_file_adds_to_the_environment(write_dotenv: Callable[[bytes], Path]) -> None:
    write_dotenv("TAP_ENVOY_USERNAME='ä b'\nTAP_ENVOY_PAGE_SIZE=7\n".encode())
    load_dotenv_file()
    assert os.environ["TAP_ENVOY_USERNAME"] == "ä b"
    assert os.environ["TAP_ENVOY_PAGE_SIZE"] == "60"


def test_load_dotenv_file_searches_parent_folders(
    write_dotenv: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dotenv(b"TAP_ENVOY_USERNAME=parent\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    load_dotenv_file()
    assert os.environ["TAP_ENVOY_USERNAME"] == "parent"


def test_load_dotenv_file_byte_order_mark_is_ignored(
    write_dotenv: Callable[[bytes], Path],
) -> None:
    write_dotenv(b"\xef\xbb\xbfTAP_ENVOY_USERNAME=first\n")
    load_dotenv_file()
    assert os.environ["TAP_ENVOY_USERNAME"] == "first"


def test_load_dotenv_file_warning_about_quotes_names_the_file(
    write_dotenv: Callable[[bytes], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dotenv(b"TAP_ENVOY_PASSWORD='so-secret\nTAP_ENVOY_USERNAME=second\n")
    load_dotenv_file()
    assert caplog.messages == [
        f"{path}: python-dotenv could not parse statement starting at line 1"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"TAP_ENVOY_PASSWORD=so-secret-\xe4", "is not encoded in UTF-8; save it as UTF-8"),
        (
            "TAP_ENVOY_PASSWORD=so-secret".encode("utf-16"),
            "is not encoded in UTF-8; save it as UTF-8",
        ),
        (b"TAP_ENVOY_PASSWORD=so-secret-\0", NOT_A_VARIABLE),
        (b"'so-secret=x'=1", NOT_A_VARIABLE),
    ],
)
def test_load_dotenv_file_unusable_content_is_one_sentence(
    write_dotenv: Callable[[bytes], Path], content: bytes, reason: str
) -> None:
    path = write_dotenv(content)
    with pytest.raises(ConfigValidationError, match=r"^Invalid \.env file$") as caught:
        load_dotenv_file()
    (sentence,) = caught.value.errors
    assert sentence == f"The file {path} {reason}."
    assert "so-secret" not in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_load_dotenv_file_without_permission_is_one_sentence(
    write_dotenv: Callable[[bytes], Path],
) -> None:
    path = write_dotenv(b"")
    path.chmod(0)
    with pytest.raises(ConfigValidationError) as caught:
        load_dotenv_file()
    assert caught.value.errors == [
        f"The file {path} cannot be read (Permission denied); check that it exists and is readable."
    ]


def test_load_dotenv_file_in_a_deleted_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigValidationError) as caught:
        load_dotenv_file()
    (sentence,) = caught.value.errors
    assert sentence.startswith("The file .env cannot be read (No such file or directory); check")


@given(content=st.binary(max_size=100) | st.text(max_size=50).map("TAP_ENVOY_X=".__add__))
@hypothesis_settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_load_dotenv_file_any_content_is_read_or_one_sentence(
    write_dotenv: Callable[[bytes], Path], content: bytes | str
) -> None:
    write_dotenv(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        load_dotenv_file()
    except ConfigValidationError as error:
        (sentence,) = error.errors
        assert sentence.startswith("The file")
