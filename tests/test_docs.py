"""README, contributing guide, issue form, and Meltano definitions match the code."""

import ast
import json
import logging
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from meltano.core.plugin.base import PluginDefinition, PluginType

from tap_envoy.auth import REFRESH_ADVICE
from tap_envoy.client import EnvoyStream
from tap_envoy.config import (
    CONFIG_SCHEMA,
    CREDENTIAL_SETS,
    from_environment,
    validate_config,
)
from tap_envoy.tap import TapEnvoy
from tests.conftest import Sandbox
from tests.runner import ROOT
from tests.sandbox import ScriptedResponse

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
EXTRACTOR = PROJECT["plugins"]["extractors"][0]
DEFINITION = yaml.safe_load((ROOT / "tap_envoy/meltano_plugin.yml").read_text(encoding="utf-8"))
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "tap_envoy").glob("*.py"))


def all_settings() -> dict[str, dict[str, Any]]:
    """Return the schema of each setting, including those of the SDK."""
    schema = {"properties": dict(CONFIG_SCHEMA["properties"])}
    TapEnvoy.append_builtin_config(schema)
    return schema["properties"]


def setting_type(definition: dict[str, Any]) -> str:
    if definition.get("format") == "date-time":
        return "date_iso8601"
    (name,) = set(definition["type"]) - {"null"}
    return str(name)


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of each row of the tables in a section, without the heads."""
    rows = [line for line in section(text, heading).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code_blocks(text: str, language: str) -> list[str]:
    """Return the content of the fenced blocks of a language, without their indentation."""
    pattern = rf"^( *)```{language}\n(.*?)\n\1```$"
    blocks = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Meltano


@pytest.mark.parametrize("extractor", [EXTRACTOR, DEFINITION], ids=["project", "definition"])
def test_meltano_settings_match_the_schema(extractor: dict[str, Any]) -> None:
    settings = {setting["name"]: setting for setting in extractor["settings"]}
    assert list(settings) == list(all_settings())
    # Meltano 4.4 cannot pass on a `decimal` from the environment; the tap parses the text.
    kinds = {"number": "string"}
    for name, definition in all_settings().items():
        setting, kind = settings[name], setting_type(definition)
        assert setting["kind"] == kinds.get(kind, kind), name
        assert setting.get("value") == definition.get("default"), name
        assert setting.get("sensitive", False) == definition.get("secret", False), name
        if name in CONFIG_SCHEMA["properties"]:
            assert setting["label"] == definition["title"]
            assert setting["description"] == definition["description"]
        assert setting["label"], name
        assert setting["description"].endswith("."), name
    for names in CREDENTIAL_SETS:
        for name in names:
            assert settings[name]["documentation"].startswith("https://"), name


@pytest.mark.parametrize("extractor", [EXTRACTOR, DEFINITION], ids=["project", "definition"])
def test_meltano_listing_matches_the_code(extractor: dict[str, Any]) -> None:
    assert tuple(map(tuple, extractor["settings_group_validation"])) == CREDENTIAL_SETS
    assert set(extractor["capabilities"]) == {c.value for c in TapEnvoy.capabilities}
    assert extractor["name"] == extractor["executable"] == TapEnvoy.name
    assert extractor["maintenance_status"] == "beta"
    assert "Development Status :: 4 - Beta" in METADATA["classifiers"]
    versions = [
        f"Programming Language :: Python :: {v}" for v in extractor["supported_python_versions"]
    ]
    assert versions == [c for c in METADATA["classifiers"] if " :: 3." in c]


def test_meltano_definition_differs_from_the_project_in_what_is_local() -> None:
    local = ("pip_url", "select", "requires_meltano")
    shared = [{k: v for k, v in e.items() if k not in local} for e in (EXTRACTOR, DEFINITION)]
    assert shared[0] == shared[1]
    assert EXTRACTOR["select"] == ["locations.*"]
    assert EXTRACTOR["pip_url"] == "-e ."
    assert DEFINITION["pip_url"] == METADATA["name"]
    assert DEFINITION["requires_meltano"] == PROJECT["requires_meltano"]


def test_meltano_definition_is_understood_by_meltano() -> None:
    parsed = PluginDefinition.parse({"plugin_type": PluginType.EXTRACTORS, **DEFINITION})
    assert {s.name for s in parsed.variants[0].settings if s.is_redacted} == {
        name for name, definition in all_settings().items() if definition.get("secret")
    }


# README


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 250


def test_readme_test_command_is_what_ci_runs() -> None:
    command = "pip install uv && uv run coverage run -m pytest"
    assert f"\n{command}\n" in README
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert f"\n{command.replace('install', 'install --quiet')}\n" in ci


def test_readme_settings_match_the_schema() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table(README, "Settings")}
    assert list(rows) == list(CONFIG_SCHEMA["properties"])
    for name, definition in CONFIG_SCHEMA["properties"].items():
        shown = {"date_iso8601": "date"}.get(setting_type(definition), setting_type(definition))
        default = str(definition.get("default", ""))
        assert rows[name] == [
            "secret" if definition.get("secret") else shown,
            f"`{default.lower() if shown == 'boolean' else default}`" if default else "",
            definition["description"],
        ]
    for name in all_settings():
        assert f"`{name}`" in README


def test_readme_streams_match_the_code() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table(README, "Streams")}
    streams = TapEnvoy(validate_config=False).discover_streams()
    assert list(rows) == [stream.name for stream in streams]
    for stream in streams:
        assert isinstance(stream, EnvoyStream)
        by = f" by `{stream.replication_key}`" if stream.replication_key else ""
        assert rows[stream.name] == [
            f"{stream.replication_method}{by}",
            ", ".join(f"`{scope}`" for scope in stream.scopes),
            "yes" if "Personal data." in str(stream.schema) else "no",
            ", ".join(stream.schema["properties"]),
        ]
        assert stream.primary_keys == ("id",)
        assert stream.selected == (stream.name == "locations")


def test_readme_settings_files_are_complete() -> None:
    text = section(README, "Getting credentials")
    (password,) = map(json.loads, code_blocks(text, "json"))
    (key,) = (json.loads(found) for found in re.findall(r"`(\{\"api_key\".*?\})`", text))
    (refresh,) = re.findall(r"`(\"refresh_token\".*?)`", text)
    client = {name: password[name] for name in ("client_id", "client_secret")}
    refreshable = client | json.loads(f"{{{refresh}}}".replace("…", "token"))
    for config in (key, password, refreshable):
        assert list(validate_config(config, {"properties": all_settings()})) == []
    assert [set(names) for names in CREDENTIAL_SETS] == [
        set(key),
        set(password),
        set(refreshable) - {"token_cache"},
    ]


def test_readme_quoting_in_dotenv_keeps_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((line, password),) = re.findall(r"`(TAP_ENVOY_PASSWORD=.*)` sets the password `(.*)`", README)
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(f"{line}\n", encoding="utf-8")
    config = from_environment(CONFIG_SCHEMA, logging.getLogger())
    assert config == {"password": password}


def test_readme_catalog_and_stream_maps_work(sandbox: Sandbox) -> None:
    (catalog,) = code_blocks(section(README, "Use in a pipe"), "json")
    ((maps),) = re.findall(r"`(\{\"entries\": \{\"fullName\".*?\}\})`", README)
    path = sandbox.folder / "catalog.json"
    path.write_text(catalog)
    run = sandbox.run_tap("--catalog", str(path), stream_maps=json.loads(maps))
    assert run.code == 0, run.err
    assert len(run.records("locations")) == 250
    originals = {row["id"]: row["email"] for row in sandbox.envoy.rows["entries"]}
    for row in run.records("entries"):
        assert row.get("fullName") is None
        assert row["email"] != originals[row["id"]] or row["email"] is None


def test_readme_test_output_is_what_the_tap_prints(sandbox: Sandbox) -> None:
    (shown,) = code_blocks(section(README, "Getting credentials"), "text")
    sandbox.envoy.integration_scopes = {"locations.read", "companies.read", "flows.read"}
    assert sandbox.run_tap("--test").out == f"{shown}\n"


def test_advice_names_a_heading_of_the_readme() -> None:
    (heading,) = re.findall("README, “(.*)”", REFRESH_ADVICE)
    assert section(README, heading)


# Troubleshooting


@cache
def documented_messages() -> list[str]:
    """Return the messages of the troubleshooting table; `…` stands for any text."""
    cells = [row[0] for row in table(README, "Troubleshooting")]
    found = [re.findall(r"``(.*?)``|`([^`]+)`", cell) for cell in cells]
    return [(a or b).strip() for messages in found for a, b in messages]


@cache
def literals() -> str:
    """Return all texts in the code, one per line."""
    nodes = [n for path in SOURCES for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(value for value in values if isinstance(value, str))


def test_troubleshooting_messages_are_in_the_code() -> None:
    messages = documented_messages()
    assert len(messages) > 40
    parts = [part.strip(" :") for message in messages for part in message.split("…")]
    assert [part for part in parts if part not in literals()] == []


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
def test_troubleshooting_contains_the_cause_of_a_failed_run(
    sandbox: Sandbox, path: str, response: ScriptedResponse | None, config: dict[str, Any]
) -> None:
    if response is not None:
        sandbox.envoy.script(path, *[response] * 100)
    login = sandbox.client if "refresh_token" in config else sandbox.login
    run = sandbox.run_tap(**(login if path == TOKEN else {}), **config)
    assert run.code == 1
    (cause,) = run.errors
    patterns = [".*".join(map(re.escape, m.split("…"))) for m in documented_messages()]
    assert any(re.search(pattern, cause) for pattern in patterns), cause


# Contributing guide


def test_guide_lists_the_modules_in_the_order_of_their_imports() -> None:
    modules = [row[0].strip("`").removesuffix(".py") for row in table(GUIDE, "Modules")]
    assert {f"{name}.py" for name in modules} == {path.name for path in SOURCES} - {
        "__init__.py",
        "__main__.py",
    }
    for module in modules:
        code = (ROOT / f"tap_envoy/{module}.py").read_text(encoding="utf-8")
        imported = set(re.findall(r"^ *from tap_envoy\.(\w+) import", code, re.MULTILINE))
        assert imported <= set(modules[: modules.index(module)]), module


def test_guide_shows_the_stream_as_it_is_in_the_code() -> None:
    shown = code_blocks(section(GUIDE, "Add a stream"), "python")
    code = (ROOT / "tap_envoy/streams.py").read_text(encoding="utf-8")
    assert len(shown) == 1
    assert shown[0] in code


def test_guide_example_of_a_test_passes(sandbox: Sandbox) -> None:
    (example,) = code_blocks(section(GUIDE, "The sandbox"), "python")
    names: dict[str, Any] = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)  # noqa: S102  # our own guide
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test(sandbox)


def test_guide_names_existing_commands_and_folders() -> None:
    for path in re.findall(r"`(\.ci/\w+|tests/[\w/.]+|tap_envoy/[\w.]+)", GUIDE):
        assert (ROOT / path).exists(), path


# All documents


@pytest.mark.parametrize("name", ["README.md", ".github/CONTRIBUTING.md"])
def test_links_lead_to_files_and_headings(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        assert not path or (ROOT / name).parent.joinpath(path).exists(), link
        assert not anchor or anchor in anchors(text), link


def test_issue_form_is_valid_and_asks_for_no_data() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/live_api.yml").read_text("utf-8"))
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert len({item["id"] for item in fields}) == len(fields)
    assert all(item["attributes"]["label"] for item in fields)
    assert "no data" in form["body"][0]["attributes"]["value"]


def test_debug_log_contains_no_personal_data(sandbox: Sandbox) -> None:
    names = list(sandbox.envoy.rows)
    run = sandbox.run_tap(*sandbox.write_catalog(*names), start_date="2024-01-01")
    assert run.code == 0
    personal = {
        value
        for rows in sandbox.envoy.rows.values()
        for row in rows
        for person in (
            row,
            *(row.get(k) for k in ("invitee", "host", "reservedBy", "scheduledFor")),
        )
        if isinstance(person, dict)
        for key in ("fullName", "email", "notes")
        if isinstance(value := person.get(key), str) and len(value) > 5
    }
    assert len(personal) > 100
    assert [value for value in personal if value in run.err] == []


def test_version_is_defined_once() -> None:
    assert METADATA["version"] == TapEnvoy.plugin_version
