"""Settings of the program: what only a run of the program shows."""

from pathlib import Path

from tests.conftest import Sandbox
from tests.runner import run_tap
from tests.sandbox.server import environment


def test_settings_are_read_from_the_environment_and_a_file(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    file = environment(sandbox.envoy, sandbox.address) | {"TAP_ENVOY_PAGE_SIZE": "20"}
    # As some editors write it: with a byte order mark, and the line ends of Windows.
    text = "".join(f"export {name}='{value}'\r\n" for name, value in file.items())
    (tmp_path / ".env").write_bytes(text.encode("utf-8-sig"))
    variables = {
        "TAP_ENVOY_PAGE_SIZE": "50",
        "TAP_ENVOY_EMIT_ACTIVATE_VERSION_MESSAGES": "True",
        "TAP_ENVOY_REQUEST_TIMEOUT": "",
        "TAP_ENVOY_REQUESTS_PER_SECOND": "99.5",
        "TAP_ENVOY_STREAM_MAPS": '{"locations": {"name": "name.upper()"}}',
    }
    run = run_tap("--config=ENV", environment=variables, cwd=tmp_path)
    run.without(sandbox.envoy.secrets)
    assert run.code == 0, run.err
    assert sandbox.envoy.requests[0].query["perPage"] == "50"
    assert run.messages[-2]["type"] == "ACTIVATE_VERSION"
    assert run.records()[0]["name"] == "ZÜRICH 1"
    assert run.warnings == []


def test_settings_password_in_quotes_that_is_rejected_gets_a_hint(sandbox: Sandbox) -> None:
    login = sandbox.login | {"password": f"'{sandbox.envoy.password}'"}
    run = sandbox.run_tap(**login)
    run.assert_failed("`password` (no quotes around it)")
