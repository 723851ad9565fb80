"""The hand-written loop that others are compared with: `requests` and the standard `json`."""

import json
import os
import sys

import requests

stream = os.environ["BENCHMARK_STREAM"]
address = f"{os.environ['TAP_ENVOY_API_URL']}/{stream}"
session = requests.Session()
session.headers["X-Api-Key"] = os.environ["TAP_ENVOY_API_KEY"]
page, seen, total = 1, 0, 1
while seen < total:
    response = session.get(address, params={"page": page, "perPage": 100}, timeout=60)
    response.raise_for_status()
    body = json.loads(response.content)
    for row in body["data"]:
        sys.stdout.write(json.dumps({"type": "RECORD", "stream": stream, "record": row}) + "\n")
    seen += len(body["data"])
    total = body["meta"]["total"]
    page += 1
