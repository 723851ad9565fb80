"""The Airbyte CDK's declarative source."""

import json
import os
from pathlib import Path

import yaml
from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative import concurrent_declarative_source

MANIFEST = """
version: 6.0.0
type: DeclarativeSource
check: {type: CheckStream, stream_names: [locations]}
spec: {type: Spec, connection_specification: {type: object, properties: {}}}
streams:
- type: DeclarativeStream
  name: locations
  primary_key: [id]
  schema_loader: {type: InlineSchemaLoader, schema: {type: object, properties: {}}}
  retriever:
    type: SimpleRetriever
    requester: {type: HttpRequester, url_base: API_URL, path: /locations}
    record_selector:
      type: RecordSelector
      extractor: {type: DpathExtractor, field_path: [data]}
    paginator:
      type: DefaultPaginator
      page_token_option: {type: RequestOption, inject_into: request_parameter, field_name: page}
      page_size_option: {type: RequestOption, inject_into: request_parameter, field_name: perPage}
      pagination_strategy:
        {type: PageIncrement, page_size: 100, start_from_page: 1, inject_on_first_request: true}
"""
STREAM = {"name": "locations", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
SYNC = {"stream": STREAM, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}

manifest = yaml.safe_load(MANIFEST.replace("API_URL", os.environ["TAP_ENVOY_API_URL"]))
config, catalog = Path("airbyte_config.json"), Path("airbyte_catalog.json")
config.write_text("{}")
catalog.write_text(json.dumps({"streams": [SYNC]}))
source = concurrent_declarative_source.ConcurrentDeclarativeSource(
    catalog=None, config={}, state=None, source_config=manifest
)
launch(source, ["read", f"--config={config}", f"--catalog={catalog}"])
