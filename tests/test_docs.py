"""README, contributing guide, issue form and generated files match the code."""

import ast
import json
import re
import runpy
from functools import cache
from typing import Any

import pytest
import yaml
from meltano.core.plugin.base import PluginDefinition, PluginType

from tap_envoy.config import CREDENTIAL_SETS
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox
from tests.readme import GUIDE, block, blocks, section
from tests.runner import ROOT
from tests.sandbox import ScriptedResponse

GENERATE = runpy.run_path(str(ROOT / ".ci/generate.py"))
SOURCES = sorted((ROOT / "tap_envoy").glob("*.py"))


# Generated files


@pytest.mark.parametrize("path", ["meltano.yml", "tap_envoy/meltano_plugin.yml", "README.md"])
def test_generated_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text("utf-8") == GENERATE["render"]()[path], "run .ci/generate.py"


def test_plugin_definition_is_understood_by_meltano() -> None:
    text = (ROOT / "tap_envoy/meltano_plugin.yml").read_text("utf-8")
    definition = yaml.safe_load(text)
    parsed = PluginDefinition.parse({"plugin_type": PluginType.EXTRACTORS, **definition})
    secret = {name for name, x in GENERATE["all_settings"]().items() if x.get("secret")}
    assert {s.name for s in parsed.variants[0].settings if s.is_redacted} == secret
    assert set(definition["capabilities"]) == {c.value for c in TapEnvoy.capabilities}
    assert definition["settings_group_validation"] == [list(names) for names in CREDENTIAL_SETS]


# README


@pytest.mark.parametrize("title", ["Try it without an account", "Contributing"])
def test_readme_command_is_what_ci_runs(title: str) -> None:
    command = block(title, "sh").replace("pip install", "pip install --quiet")
    assert f"\n{command}" in (ROOT / ".ci/run").read_text("utf-8")


def test_readme_settings_files_are_valid_and_of_each_authentication_method() -> None:
    files = [json.loads(text) for text in blocks("Getting credentials", "json")]
    key = json.loads(blocks("Into a spreadsheet", "json")[0])
    assert [set(names) for names in CREDENTIAL_SETS] == [
        key.keys() & {"api_key"},
        *(config.keys() - {"token_cache"} for config in files),
    ]
    for config in (key, *files):
        TapEnvoy(config=config)


def test_readme_spreadsheet_files_bring_flat_rows(sandbox: Sandbox) -> None:
    settings, catalog = (json.loads(text) for text in blocks("Into a spreadsheet", "json"))
    path = sandbox.folder / "catalog.json"
    path.write_text(json.dumps(catalog))
    run = sandbox.run_tap("--catalog", str(path), **settings | {"api_key": sandbox.envoy.api_key})
    assert run.code == 0, run.err
    assert len(run.records("locations")) == 250
    assert {"id", "address__city"} <= run.records("locations")[0].keys()
    assert {message["stream"] for message in run.messages if "stream" in message} == {
        "locations",
        "entries",
    }


def test_readme_catalog_leaves_out_a_property(sandbox: Sandbox) -> None:
    path = sandbox.folder / "catalog.json"
    path.write_text(block("Personal data", "json"))
    rows = sandbox.run_tap("--catalog", str(path)).records("entries")
    assert rows
    assert all("email" in row and "fullName" not in row for row in rows)


def test_readme_test_output_is_what_the_tap_prints(sandbox: Sandbox) -> None:
    sandbox.envoy.integration_scopes = {"locations.read"}
    path = sandbox.folder / "catalog.json"
    path.write_text(blocks("Into a spreadsheet", "json")[1])
    run = sandbox.run_tap("--test", "--catalog", str(path))
    assert run.out == block("Something failed", "text") + "\n"


# Troubleshooting


@cache
def documented_messages() -> list[str]:
    """Return the messages of the troubleshooting table; `…` stands for any text."""
    rows = [line for line in section("Troubleshooting").splitlines() if line.startswith("| `")]
    found = [re.findall(r"``(.*?)``|`([^`]+)`", row.split(" | ")[0]) for row in rows]
    return [(a or b).strip() for messages in found for a, b in messages]


@cache
def literals() -> str:
    """Return all texts in the code, one per line."""
    nodes = [n for path in SOURCES for n in ast.walk(ast.parse(path.read_text("utf-8")))]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(value for value in values if isinstance(value, str))


def test_troubleshooting_messages_are_in_the_code() -> None:
    messages = documented_messages()
    assert len(messages) > 30
    parts = [part.strip(" :") for message in messages for part in message.split("…")]
    assert [part for part in parts if part.lower() not in literals().lower()] == []


def test_advice_names_a_heading_of_the_readme() -> None:
    headings = re.findall("README, “(.*?)”", literals().replace("\n", " "))
    assert headings
    assert all(section(heading) for heading in headings)


REDIRECT = ScriptedResponse(302, b"", headers={"Location": "https://sso.example/"})
TOKEN, LOCATIONS = "/oauth2/token", "/v1/locations"


@pytest.mark.parametrize(
    ("path", "response", "config"),
    [
        ("", None, {"api_key": None}),
        ("", None, {"client_id": "a"}),
        ("", None, {"page_size": 0}),
        ("", None, {"page_siez": 5}),
        ("", None, {"stream_maps": {"entires": {}}}),
        ("", None, {"api_key": "not-the-key-of-this-integration"}),
        ("", None, {"api_url": "http://127.0.0.1:9/v1"}),
        ("", None, {"api_url": "https://no-such-host.invalid/v1"}),
        (LOCATIONS, ScriptedResponse(403, {"message": "Forbidden"}), {}),
        (LOCATIONS, ScriptedResponse(404, {}), {}),
        (LOCATIONS, ScriptedResponse(503, b"busy"), {}),
        (LOCATIONS, REDIRECT, {}),
        (TOKEN, REDIRECT, {}),
        (TOKEN, ScriptedResponse(200, b"<html>Sign in</html>"), {}),
        (TOKEN, ScriptedResponse(401, {"error": "invalid_client"}), {}),
        (TOKEN, ScriptedResponse(401, {"error": "invalid_grant"}), {}),
        (TOKEN, ScriptedResponse(400, {"error": "invalid_scope"}), {}),
        (TOKEN, ScriptedResponse(403, {"error": "mfa_required"}), {}),
        (TOKEN, ScriptedResponse(401, {"error": "invalid_grant"}), {"refresh_token": "used"}),
        (TOKEN, None, {"token_cache": "/dev/null/tokens.json"}),
    ],
)
def test_troubleshooting_contains_the_last_line_of_a_failed_run(
    sandbox: Sandbox, path: str, response: ScriptedResponse | None, config: dict[str, Any]
) -> None:
    if response is not None:
        sandbox.envoy.script(path, *[response] * 100)
    login = sandbox.client if "refresh_token" in config else sandbox.login
    run = sandbox.run_tap(**(login if path == TOKEN else {}), **config)
    assert run.code == 1
    last = run.log()[-1]
    assert run.errors[-1] == last
    patterns = [".*".join(map(re.escape, m.split("…"))) for m in documented_messages()]
    assert any(re.search(pattern, last) for pattern in patterns), last


# Contributing guide


def test_guide_lists_each_module() -> None:
    modules = re.findall(r"^\| `(\w+\.py)` \|", section("Modules", GUIDE), re.MULTILINE)
    assert sorted([*modules, "__init__.py"]) == [path.name for path in SOURCES]


def test_guide_shows_the_stream_as_it_is_in_the_code() -> None:
    assert block("Add a stream", "python", GUIDE) in (ROOT / "tap_envoy/streams.py").read_text()


def test_guide_example_of_a_test_passes(sandbox: Sandbox) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("The sandbox", "python", GUIDE), "CONTRIBUTING.md", "exec"), names)  # noqa: S102
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test(sandbox)


def test_guide_names_existing_files() -> None:
    for path in re.findall(r"`(\.ci/[\w.]+|tests/[\w/.]+|tap_envoy/[\w.]+)", GUIDE):
        assert (ROOT / path).exists(), path


# All documents


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", ".github/CONTRIBUTING.md"])
def test_links_lead_to_files_and_headings(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if not path.startswith("https://"):
            assert not path or (ROOT / name).parent.joinpath(path).exists(), link
            assert not anchor or anchor in anchors(text), link


def test_issue_form_asks_for_undeclared_fields_and_no_data() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/live_api.yml").read_text("utf-8"))
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields)
    assert "no data" in form["body"][0]["attributes"]["value"]
    assert "additionalFields" in str(fields)
