"""Settings of the program: files, environment variables and `.env`."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sandbox
from tests.runner import run_tap
from tests.sandbox.server import environment


def test_settings_all_faults_are_reported_at_once(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(page_size=0, start_date="soon", colour="blue")
    assert run.code == 1
    assert "Traceback" not in run.err
    sentences = [line for line in run.errors if line.startswith(("Setting", "Unknown setting"))]
    assert [sentence.split("`")[1] for sentence in sentences] == [
        "colour",
        "start_date",
        "page_size",
    ]
    assert sandbox.envoy.requests == []


# From the environment


def test_settings_are_read_from_the_environment(sandbox: Sandbox) -> None:
    more = {
        "TAP_ENVOY_PAGE_SIZE": "50",
        "TAP_ENVOY_EMIT_ACTIVATE_VERSION_MESSAGES": "True",
        "TAP_ENVOY_FLATTENING_ENABLED": "no",
        "TAP_ENVOY_START_DATE": "",
        "TAP_ENVOY_REQUEST_TIMEOUT": "",
        "TAP_ENVOY_REQUESTS_PER_SECOND": "99.5",
        "TAP_ENVOY_STREAM_MAPS": '{"locations": {"name": "name.upper()"}}',
    }
    variables = environment(sandbox.envoy, sandbox.address)
    run = run_tap("--config=ENV", environment={**variables, **more}, hidden=sandbox.envoy.secrets)
    assert run.code == 0, run.err
    assert sandbox.envoy.requests[0].query["perPage"] == "50"
    assert run.messages[-2]["type"] == "ACTIVATE_VERSION"
    assert run.records()[0]["name"] == "ZÜRICH 1"


@pytest.mark.parametrize(
    "text", ["locations.read,token.refresh", '["locations.read", "token.refresh"]']
)
def test_settings_scopes_from_the_environment_are_a_list(sandbox: Sandbox, text: str) -> None:
    login = {f"TAP_ENVOY_{name.upper()}": value for name, value in sandbox.login.items()}
    variables = environment(sandbox.envoy, sandbox.address) | login | {"TAP_ENVOY_API_KEY": ""}
    run = run_tap("--config=ENV", environment={**variables, "TAP_ENVOY_SCOPES": text})
    assert run.code == 0, run.err
    assert sandbox.envoy.requests[0].form["scope"] == "locations.read,token.refresh"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TAP_ENVOY_PAGE_SIZE", "lots", "Setting `page_size` must be an integer from 1 to 100."),
        ("TAP_ENVOY_PAGE_SIEZ", "5", "did you mean `TAP_ENVOY_PAGE_SIZE`?"),
        ("TAP_ENVOY_STREAM_MAP", "{}", "did you mean `TAP_ENVOY_STREAM_MAPS`?"),
        ("TAP_ENVOY_USER_AGENT", "täp", "Setting `user_agent` must be printable ASCII"),
    ],
)
def test_settings_fault_in_the_environment_is_named(
    sandbox: Sandbox, variable: str, value: str, sentence: str
) -> None:
    variables = environment(sandbox.envoy, sandbox.address)
    run = run_tap("--config=ENV", environment={**variables, variable: value})
    run.assert_failed(sentence)
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize("format_key", ['"{}"', "{} ", "Bearer {}"])
def test_settings_pasted_key_is_reported_before_any_request(
    sandbox: Sandbox, format_key: str
) -> None:
    run = sandbox.run_tap(api_key=format_key.format(sandbox.envoy.api_key))
    run.assert_failed("Setting `api_key`", "remove")
    assert sandbox.envoy.requests == []


@pytest.mark.parametrize("rate", [99.5, "99.5", 100])
def test_settings_rate_from_a_file_is_a_number(sandbox: Sandbox, rate: Any) -> None:
    assert sandbox.run_tap(requests_per_second=rate).code == 0
    assert len(sandbox.envoy.requests) > 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TAP_ENVOY_LOGLEVEL", "LOUD"),
        ("TAP_ENVOY_LOGLEVEL", "10"),
        ("SINGER_SDK_LOG_CONFIG", "gone.yaml"),
        ("SINGER_SDK_LOG_CONFIG", "."),
        ("SINGER_SDK_LOG_CONFIG", "broken.yaml"),
        ("SINGER_SDK_LOG_CONFIG", "empty.yaml"),
    ],
)
def test_settings_of_logging_that_are_not_valid_are_one_sentence(
    tmp_path: Path, variable: str, value: str
) -> None:
    (tmp_path / "broken.yaml").write_text("handlers: [")
    (tmp_path / "empty.yaml").touch()
    run = run_tap("--discover", cwd=tmp_path, environment={variable: value})
    assert run.code == 1
    (sentence,) = run.err.splitlines()
    assert variable in sentence
    assert "Unexpected" not in sentence


# From a .env file


def test_settings_dotenv_in_the_current_folder_yields_to_the_environment(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    variables = environment(sandbox.envoy, sandbox.address)
    lines = [f"{name}={value}" for name, value in variables.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "TAP_ENVOY_PAGE_SIZE=7"]))
    run = run_tap("--config=ENV", cwd=tmp_path, environment={"TAP_ENVOY_PAGE_SIZE": "60"})
    assert run.code == 0, run.err
    assert len(run.records()) == 250
    assert sandbox.envoy.requests[0].query["perPage"] == "60"


def test_settings_dotenv_not_in_utf_8_is_one_sentence(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"TAP_ENVOY_PASSWORD=so-secret-\xe4")
    variables = environment(sandbox.envoy, sandbox.address)
    run = run_tap("--config=ENV", cwd=tmp_path, environment=variables, hidden=["so-secret"])
    run.assert_failed(str(tmp_path / ".env"), "is not encoded in UTF-8; save it as UTF-8.")


# From files


def test_settings_missing_file_is_named(tmp_path: Path) -> None:
    run = run_tap("--config", str(tmp_path / "gone.json"))
    run.assert_failed("--config: cannot read", "gone.json", "No such file")


# Stream maps with Faker


def test_settings_faker_config_makes_fake_values(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(
        stream_maps={"locations": {"name": "fake.name()"}}, faker_config={"seed": 7, "locale": "de"}
    )
    assert run.code == 0, run.err
    names = {record["name"] for record in run.records()}
    assert names.isdisjoint(row["name"] for row in sandbox.envoy.rows["locations"])
