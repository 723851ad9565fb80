"""The Airbyte CDK's declarative source, reading the same list."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import (
    ConcurrentDeclarativeSource,
)

MANIFEST: dict[str, Any] = {
    "version": "6.0.0",
    "type": "DeclarativeSource",
    "check": {"type": "CheckStream", "stream_names": ["locations"]},
    "streams": [
        {
            "type": "DeclarativeStream",
            "name": "locations",
            "primary_key": ["id"],
            "schema_loader": {
                "type": "InlineSchemaLoader",
                "schema": {"type": "object", "properties": {}, "additionalProperties": True},
            },
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester",
                    "url_base": os.environ["TAP_ENVOY_API_URL"],
                    "path": "/locations",
                    "http_method": "GET",
                },
                "record_selector": {
                    "type": "RecordSelector",
                    "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
                },
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_token_option": {
                        "type": "RequestOption",
                        "inject_into": "request_parameter",
                        "field_name": "page",
                    },
                    "page_size_option": {
                        "type": "RequestOption",
                        "inject_into": "request_parameter",
                        "field_name": "perPage",
                    },
                    "pagination_strategy": {
                        "type": "PageIncrement",
                        "page_size": 100,
                        "start_from_page": 1,
                        "inject_on_first_request": True,
                    },
                },
            },
        }
    ],
    "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
}


def main() -> None:
    stream = {"name": "locations", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    catalog = {
        "streams": [
            {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
        ]
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("catalog", catalog), ("config", {})):
            Path(folder, f"{name}.json").write_text(json.dumps(value))
        files = ["--config", f"{folder}/config.json", "--catalog", f"{folder}/catalog.json"]
        source: Any = ConcurrentDeclarativeSource(
            catalog=None, config={}, state=None, source_config=MANIFEST
        )
        launch(source, ["read", *files])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
