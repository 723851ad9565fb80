"""Writes what follows from the code into meltano.yml, meltano_plugin.yml and the README.

    uv run .ci/generate.py

A test fails while a file differs from what this writes.
"""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from tap_envoy.client import EnvoyStream
from tap_envoy.config import CONFIG_SCHEMA
from tap_envoy.tap import TapEnvoy

ROOT = Path(__file__).parent.parent

# Meltano 4.4 fails on a `decimal` from the environment; the tap parses the text.
KINDS = {"number": "string"}

LOCAL = ("pip_url", "select")
"""What the project's own definition of the tap has besides that for other projects."""


def main() -> None:
    for path, text in render().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def render() -> dict[str, str]:
    """Return the text of each file by its path."""
    project = (ROOT / "meltano.yml").read_text(encoding="utf-8")
    head, rest = project.split("      settings:\n", maxsplit=1)
    tail = rest[rest.index("      select:\n") :]
    project = f"{head}{textwrap.indent(dump({'settings': meltano_settings()}), '      ')}{tail}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, table in {
        "streams": streams_table(),
        "columns": columns_table(),
        "settings": settings_table(),
    }.items():
        before, rest = readme.split(f"<!-- {name} -->\n", maxsplit=1)
        after = rest.partition(f"<!-- end of {name} -->\n")[2]
        readme = f"{before}<!-- {name} -->\n{table}<!-- end of {name} -->\n{after}"
    return {
        "meltano.yml": project,
        "tap_envoy/meltano_plugin.yml": plugin_definition(yaml.safe_load(project)),
        "README.md": readme,
    }


def plugin_definition(project: dict[str, Any]) -> str:
    """Return the definition of the tap for `meltano add --from-ref`."""
    (extractor,) = project["plugins"]["extractors"]
    shared = {name: value for name, value in extractor.items() if name not in LOCAL}
    local = {"pip_url": "tap-envoy", "requires_meltano": project["requires_meltano"]}
    use = "For `meltano add tap-envoy --from-ref FILE`, once the package is on the index"
    return f"# {use}. Written by .ci/generate.py.\n{dump({**shared, **local})}"


def all_settings() -> dict[str, dict[str, Any]]:
    """Return the schema of each setting, including those of the SDK."""
    schema = {"properties": dict(CONFIG_SCHEMA["properties"])}
    TapEnvoy.append_builtin_config(schema)
    return schema["properties"]


def kind(definition: dict[str, Any]) -> str:
    """Return the type of a setting in Meltano's words."""
    if definition.get("format") == "date-time":
        return "date_iso8601"
    (name,) = set(definition["type"]) - {"null"}
    return str(name)


def meltano_settings() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": KINDS.get(kind(definition), kind(definition)),
            **({"sensitive": True} if definition.get("secret") else {}),
            **({"value": definition["default"]} if "default" in definition else {}),
            "label": definition.get("title", name.replace("_", " ").capitalize()),
            **({"description": definition["description"]} if "description" in definition else {}),
        }
        for name, definition in all_settings().items()
    ]


def settings_table() -> str:
    rows = []
    for name, definition in CONFIG_SCHEMA["properties"].items():
        shown = {"date_iso8601": "date"}.get(kind(definition), kind(definition))
        default = definition.get("default", "")
        default = f"`{str(default).lower()}`" if default != "" else ""
        shown = "secret" if definition.get("secret") else shown
        rows.append((f"`{name}`", shown, default, definition["description"]))
    return table(("setting", "type", "default", "description"), rows)


def streams() -> list[EnvoyStream]:
    tap = TapEnvoy(validate_config=False)
    return [stream for stream in tap.discover_streams() if isinstance(stream, EnvoyStream)]


def streams_table() -> str:
    rows = []
    for stream in streams():
        key = stream.replication_key
        rows.append(
            (
                f"`{stream.name}`",
                (type(stream).__doc__ or "").splitlines()[0],
                f"incremental by `{key}`" if key else "full table",
                ", ".join(f"`{scope}`" for scope in stream.scopes),
                "yes" if "Personal data." in str(stream.schema["properties"]) else "no",
            )
        )
    return table(("stream", "content", "replication", "scopes", "personal data"), rows)


def columns_table() -> str:
    rows = [(f"`{x.name}`", ", ".join(x.schema["properties"])) for x in streams()]
    return table(("stream", "columns"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def dump(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))


if __name__ == "__main__":
    main()
