"""dlt with its `rest_api` source, into files of JSON lines, which are then copied to stdout."""

import gzip
import os
import sys
import tempfile
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source

PAGINATOR = {"type": "page_number", "base_page": 1, "total_path": None}
ENDPOINT = {"path": "locations", "params": {"perPage": 100}, "data_selector": "data"}

with tempfile.TemporaryDirectory() as folder:
    client = {"base_url": os.environ["TAP_ENVOY_API_URL"], "paginator": PAGINATOR}
    resource = {"name": "locations", "endpoint": ENDPOINT}
    config = {"client": client, "resources": [resource]}
    source = rest_api_source(config, max_table_nesting=0)
    files = dlt.destinations.filesystem(bucket_url=f"file://{folder}/out")
    pipeline = dlt.pipeline("benchmark", pipelines_dir=f"{folder}/work", destination=files)
    pipeline.run(source, loader_file_format="jsonl")
    for path in Path(folder, "out").glob("*/locations/*"):
        sys.stdout.buffer.write(gzip.decompress(path.read_bytes()))
