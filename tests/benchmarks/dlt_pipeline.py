"""dlt with its `rest_api` source, into files of JSON lines; prints how many rows there are."""

import gzip
import os
import tempfile
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = rest_api_source(
            {
                "client": {
                    "base_url": os.environ["TAP_ENVOY_API_URL"],
                    "paginator": {
                        "type": "page_number",
                        "base_page": 1,
                        "total_path": None,
                        "stop_after_empty_page": True,
                    },
                },
                "resources": [
                    {
                        "name": "locations",
                        "endpoint": {
                            "path": "locations",
                            "params": {"perPage": 100},
                            "data_selector": "data",
                        },
                    }
                ],
            },
            max_table_nesting=0,
        )
        pipeline = dlt.pipeline(
            "benchmark",
            destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}/out"),
            dataset_name="envoy",
            pipelines_dir=f"{folder}/work",
        )
        pipeline.run(source, loader_file_format="jsonl")
        rows = 0
        for path in Path(folder, "out", "envoy", "locations").iterdir():
            content = path.read_bytes()
            plain = gzip.decompress(content) if path.suffix == ".gz" else content
            rows += plain.count(b"\n")
        print(f"rows {rows}")  # noqa: T201


if __name__ == "__main__":
    main()
