"""meltano.yml, the README and the code say the same."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from meltano.core.plugin.base import PluginDefinition, PluginType

from tap_envoy.client import EnvoyStream
from tap_envoy.config import CONFIG_SCHEMA, CREDENTIAL_SETS
from tap_envoy.slices import InOrder, InWindows, Uncut
from tap_envoy.tap import TapEnvoy
from tests.program import HERE

README = (HERE / "README.md").read_text(encoding="utf-8")
PROJECT = yaml.safe_load((HERE / "meltano.yml").read_text(encoding="utf-8"))
EXTRACTOR = PROJECT["plugins"]["extractors"][0]
DEFINITION = yaml.safe_load((HERE / "tap_envoy/meltano_plugin.yml").read_text(encoding="utf-8"))
METADATA = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def all_settings() -> dict[str, dict[str, Any]]:
    """Return the settings as `--about` has them, those of the SDK included."""
    schema = {"properties": dict(CONFIG_SCHEMA["properties"])}
    TapEnvoy.append_builtin_config(schema)
    return schema["properties"]


def kind(definition: dict[str, Any]) -> str:
    if definition.get("format") == "date-time":
        return "date_iso8601"
    (name,) = set(definition["type"]) - {"null"}
    return str(name)


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below a heading of the README, by their first cell."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.mark.parametrize("extractor", [EXTRACTOR, DEFINITION], ids=["project", "definition"])
def test_meltano_settings_match_the_schema(extractor: dict[str, Any]) -> None:
    settings = {setting["name"]: setting for setting in extractor["settings"]}
    assert list(settings) == list(all_settings())
    # Meltano 4.4 cannot pass on a `decimal` from the environment; the tap parses the text.
    kinds = {"number": "string"}
    for name, definition in all_settings().items():
        setting = settings[name]
        assert setting["kind"] == kinds.get(kind(definition), kind(definition)), name
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


def test_the_readme_lists_each_setting_as_the_code_has_it() -> None:
    rows = table("Settings")
    assert list(rows) == list(CONFIG_SCHEMA["properties"])
    names = {"string": "text", "array": "list", "date_iso8601": "date"}
    for name, definition in CONFIG_SCHEMA["properties"].items():
        expected = names.get(kind(definition), kind(definition))
        assert rows[name][0] == ("secret" if definition.get("secret") else expected)
        if "default" in definition:
            assert rows[name][1].strip("`") == str(definition["default"]).lower()
    for name in all_settings():
        assert f"`{name}`" in README


def test_the_readme_lists_each_stream() -> None:
    rows = table("Streams")
    streams = TapEnvoy(validate_config=False).streams
    assert sorted(rows) == sorted(streams)
    for stream in streams.values():
        assert isinstance(stream, EnvoyStream)
        path, scopes, replication, read, personal = rows[stream.name]
        assert path.strip("`") == stream.path
        assert re.findall(r"`([^`]+)`", scopes) == list(stream.scopes)
        by = f" by `{stream.replication_key}`" if stream.replication_key else ""
        assert replication == stream.replication_method + by
        ways = {InOrder: "sorted", InWindows: "in windows", Uncut: "in one"}
        assert read == ways[type(stream.cut)]
        assert (personal == "yes") == ("Personal data." in str(stream.schema))
        assert stream.primary_keys == ("id",)


def test_the_readme_has_the_test_command_that_ci_runs() -> None:
    command = "pip install uv && uv run coverage run -m pytest"
    assert f"\n{command}\n" in README
    assert f"\n{command.replace('install', 'install --quiet')}\n" in (HERE / ".ci/run").read_text()


def test_the_readme_tells_of_each_file_of_the_tap() -> None:
    files = {path.name for path in (HERE / "tap_envoy").glob("*.py")}
    assert set(table("How it works")) == files - {"__init__.py", "__main__.py"}


def test_the_stream_that_the_readme_shows_is_the_one_of_the_code() -> None:
    shown = README.split("`spaces` is this:\n\n```python\n")[1].split("```")[0]
    code = (HERE / "tap_envoy/streams.py").read_text(encoding="utf-8")
    documented = code.replace('    """Desks and other spaces that can be booked."""\n\n', "")
    assert shown in documented


def test_the_messages_of_the_troubleshooting_are_in_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (HERE / "tap_envoy").glob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code).replace("{grant}", "password")
    rows = [*table("Troubleshooting")]
    assert len(rows) > 10
    for row in rows:
        message = row.split("`")[0].replace("refresh grant", "password grant")
        assert message in code, message


def test_the_version_stands_in_one_place() -> None:
    assert METADATA["version"] == TapEnvoy.plugin_version
