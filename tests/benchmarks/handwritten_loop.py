"""The hand-written loop that others are compared with: `requests` and the standard `json`."""

import json
import os
import sys

import requests


def main() -> None:
    stream = os.environ.get("BENCHMARK_STREAM", "locations")
    session = requests.Session()
    session.headers["X-Api-Key"] = os.environ["TAP_ENVOY_API_KEY"]
    address = f"{os.environ['TAP_ENVOY_API_URL']}/{stream}"
    page, seen, total = 1, 0, 1
    while seen < total:
        answer = session.get(address, params={"page": page, "perPage": 100}, timeout=60)
        answer.raise_for_status()
        body = json.loads(answer.content)
        for row in body["data"]:
            message = {"type": "RECORD", "stream": stream, "record": row}
            sys.stdout.write(json.dumps(message) + "\n")
        seen += len(body["data"])
        total = body["meta"]["total"]
        page += 1


if __name__ == "__main__":
    main()
