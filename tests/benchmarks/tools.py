"""The tools that are compared, each in an environment with nothing else in it."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORK_DIR = ROOT / ".benchmarks"
UV = ("uv", "--quiet")
MSDK_CONFIG = WORK_DIR / "msdk.json"


@dataclass(frozen=True)
class Tool:
    """A program that reads locations and writes them to stdout.

    Attributes:
        name: Its name in the tables.
        packages: What is installed in its environment.
        command: The program, and its arguments.
        row_mark: What each line with a row contains; None if the output ends with `rows N`.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    row_mark: bytes | None = b'"RECORD"'

    @property
    def bin_dir(self) -> Path:
        return WORK_DIR / self.name.replace(" ", "-") / "bin"

    def with_command(self, *command: str) -> "Tool":
        return replace(self, command=command)


LOOP = Tool("hand-written loop", ("requests",), ("python", str(HERE / "handwritten_loop.py")))
TAP = Tool("tap-envoy", (str(ROOT),), ("tap-envoy", "--config=ENV"))
TOOLS = (
    LOOP,
    TAP,
    Tool("SDK template", ("singer-sdk~=0.54.9",), ("python", str(HERE / "sdk_template.py"))),
    Tool(
        "tap-rest-api-msdk",
        ("tap-rest-api-msdk", "setuptools<81"),
        ("tap-rest-api-msdk", "--config", str(MSDK_CONFIG)),
    ),
    Tool(
        "dlt rest_api",
        ("dlt[filesystem]",),
        ("python", str(HERE / "dlt_pipeline.py")),
        row_mark=None,
    ),
    Tool("Airbyte CDK", ("airbyte-cdk",), ("python", str(HERE / "airbyte_source.py"))),
)


def install(tool: Tool) -> None:
    """Install a tool, if that is not done yet; this project is installed each time."""
    folder = tool.bin_dir.parent
    marker = folder / "ready"
    if not marker.exists():
        subprocess.run([*UV, "venv", "--clear", str(folder)], check=True)
    elif tool is not TAP:
        return
    options = ["--compile-bytecode", "--reinstall-package", "tap-envoy"]
    python = ["--python", str(tool.bin_dir / "python")]
    subprocess.run([*UV, "pip", "install", *options, *python, *tool.packages], check=True)
    marker.touch()


def msdk_config(api_url: str) -> dict[str, object]:
    """Return what tap-rest-api-msdk needs to read the same list."""
    return {
        "api_url": api_url,
        "pagination_request_style": "page_number_paginator",
        "pagination_response_style": "page",
        "pagination_initial_offset": 1,
        "pagination_page_size": 100,
        "pagination_limit_per_page_param": "perPage",
        "next_page_token_path": "$.meta.more",
        "streams": [
            {
                "name": "locations",
                "path": "/locations",
                "primary_keys": ["id"],
                "records_path": "$.data[*]",
                "num_inference_records": 50,
            }
        ],
    }
