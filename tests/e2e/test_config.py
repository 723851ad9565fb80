"""Settings of the program: what only a run of the program shows."""

import sys
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.runner import clean_environment, run, run_tap
from tests.sandbox.server import environment


def test_settings_faults_are_one_line_before_any_request(sandbox: Sandbox) -> None:
    run = sandbox.run_tap(page_size=0, start_date="soon", colour="blue")
    run.assert_failed("Unknown setting `colour`", "Setting `start_date`", "Setting `page_size`")
    assert run.err.splitlines()[-1].endswith(run.errors[-1])
    assert sandbox.envoy.requests == []


def test_settings_are_read_from_the_environment_and_a_file(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    file = environment(sandbox.envoy, sandbox.address) | {"TAP_ENVOY_PAGE_SIZE": "20"}
    (tmp_path / ".env").write_text("\n".join(f"{name}={text}" for name, text in file.items()))
    variables = {
        "TAP_ENVOY_PAGE_SIZE": "50",
        "TAP_ENVOY_EMIT_ACTIVATE_VERSION_MESSAGES": "True",
        "TAP_ENVOY_REQUEST_TIMEOUT": "",
        "TAP_ENVOY_REQUESTS_PER_SECOND": "99.5",
        "TAP_ENVOY_STREAM_MAPS": '{"locations": {"name": "name.upper()"}}',
        "TAP_ENVOY_PORT": "tcp://10.0.0.1:80",  # Kubernetes, for a service `tap-envoy`
    }
    hidden = sandbox.envoy.secrets
    run = run_tap("--config=ENV", environment=variables, cwd=tmp_path, hidden=hidden)
    assert run.code == 0, run.err
    assert sandbox.envoy.requests[0].query["perPage"] == "50"
    assert run.messages[-2]["type"] == "ACTIVATE_VERSION"
    assert run.records()[0]["name"] == "ZÜRICH 1"
    assert run.warnings == ["Ignoring variables that are not settings: TAP_ENVOY_PORT."]


def test_settings_password_in_quotes_that_is_rejected_gets_a_hint(sandbox: Sandbox) -> None:
    login = sandbox.login | {"password": f"'{sandbox.envoy.password}'"}
    run = sandbox.run_tap(**login)
    run.assert_failed("`password` (no quotes around it)")


@pytest.mark.parametrize("option", ["--config", "--catalog", "--state"])
def test_missing_file_is_named(sandbox: Sandbox, option: str) -> None:
    run = sandbox.run_tap(option, str(sandbox.folder / "gone.json"))
    run.assert_failed(f"{option}: cannot read ", "gone.json (No such file or directory).")
    assert run.code == 1


@pytest.mark.parametrize("level", ["", "verbose"])
def test_settings_of_other_programs_do_not_stop_a_run(sandbox: Sandbox, level: str) -> None:
    others = {"LOGLEVEL": level, "TAP_ENVOY_LOGLEVEL": "", "SINGER_SDK_LOG_CONFIG": ""}
    done = sandbox.run_tap(environment=others)
    assert done.code == 0, done.err
    assert done.errors == []


def test_output_that_the_encoding_lacks_is_escaped(sandbox: Sandbox) -> None:
    sandbox.envoy.integration_scopes -= {"locations.read"}
    done = run(
        [sys.executable, "-m", "tests.fast_tap", *sandbox.write_config(), "--test"],
        environment=clean_environment(PYTHONIOENCODING="latin-1"),
    )
    assert "locations: Envoy denied access (HTTP 403: \\u201c" in done.out
    assert "Traceback" not in done.err
