"""Lists that change while the tap reads them with several requests in flight, over HTTP."""

import random

import pytest

from tests.conftest import Sandbox, read
from tests.random_cases import random_change, rows_of
from tests.sandbox import Quirks, ScriptedResponse
from tests.sandbox.app import list_path
from tests.sandbox.quirks import ChangeSchedule


@pytest.mark.parametrize("stream", ["locations", "entries", "invites", "employees", "spaces"])
@pytest.mark.parametrize("seed", range(3))
def test_list_that_changes_is_read_completely(sandbox: Sandbox, stream: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    envoy = sandbox.envoy
    envoy.rows[stream] = rows_of(stream, 400)
    envoy.changes = ChangeSchedule(random_change(rng, stream) for _ in range(12))
    delays = [ScriptedResponse(delay=rng.random() / 50) for _ in range(20)]
    envoy.script(list_path(stream), *delays)
    envoy.quirks = Quirks(meta=rng.choice(["honest", "missing"]))
    ids = [row["id"] for row in read(sandbox.tap(page_size=50), stream)]
    assert len(ids) == len(set(ids))
    assert envoy.stable_ids(stream) <= set(ids)
