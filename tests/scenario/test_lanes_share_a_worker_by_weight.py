"""Where every lane has work each gets its share, and `low` is never starved; on both backends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenario.conftest import Begin, Client, until

from forebay.core.lanes import WEIGHTS, Lane
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

RUN_S = 0.1
"""So the turns of `low` are more than a second apart: on Kafka its partitions are paused meanwhile
(adapters/kafka/flow.py), and what comes of them after a turn comes late."""

ROUNDS = 4
SHARE = {lane: ROUNDS * turns for lane, turns in WEIGHTS.items()}

SLOW = f"""
import time

class Model:
    def load(self, folder):
        self.folder = folder

    def predict(self, inputs):
        while (self.folder / "hold").exists():
            time.sleep(0.01)
        with open(self.folder / "ledger", "a") as ledger:
            ledger.writelines(f"{{one}}\\n" for one in inputs)
        time.sleep({RUN_S})
        return inputs
"""
TOML = 'task = "json"\nruntime = "python"\n[batching]\nmax_batch_size = 1\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of `slow`, which has one runner, writes each input into its `ledger`, and begins none while there is a `hold`."""
    model = tmp_path / "models" / "slow"
    (model / "1").mkdir(parents=True)
    (model / "model.toml").write_text(TOML)
    (model / "1" / "model.py").write_text(SLOW)
    return model / "1"


def test_low_starts_long_before_high_is_drained(begin: Begin, folder: Path, client_of: ClientOf) -> None:
    api = client_of(begin("slow", models_dir=folder.parents[1]))
    for job_id in [api.submit("slow", "nobody waits yet", lane=lane) for lane in Lane]:
        assert api.final(job_id)["status"] == "succeeded"  # so the worker is in every lane
    (folder / "hold").touch()
    busy = api.submit("slow", "the only runner is busy")
    until(lambda: api.job(busy)["status"] == "running", "the only runner is busy")
    for lane in Lane:
        lines = f"{json.dumps({'input': lane})}\n" * SHARE[Lane.HIGH]
        query, media_type = {"model": "slow", "lane": lane}, {"content-type": "application/x-ndjson"}
        assert api.http.post("/v1/batches", params=query, content=lines, headers=media_type).status_code == 202
    (folder / "hold").unlink()

    def started() -> list[str]:
        return [line for line in (folder / "ledger").read_text().split("\n") if line in set(Lane)]

    until(lambda: started().count(Lane.HIGH) == SHARE[Lane.HIGH], "high is drained")
    order = started()
    order = order[: len(order) - order[::-1].index(Lane.HIGH)]  # the worker goes on with the others
    assert Lane.LOW in order[: 2 * sum(WEIGHTS.values())]
    # Roughly: what waits in the worker's hand came before it had a choice, and a lane's records may come late.
    had = Counter(order)
    for lane in (Lane.NORMAL, Lane.LOW):
        assert SHARE[lane] / 2 <= had[lane] <= 2 * SHARE[lane], order
