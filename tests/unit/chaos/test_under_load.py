"""What the judge is handed is read when it can be complete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos import under_load
from chaos.cluster import ServiceCluster, Shape
from chaos.facts import Facts
from chaos.history import Seen


@pytest.fixture
def cluster(tmp_path: Path) -> ServiceCluster:
    """Nothing of it is started."""
    return ServiceCluster(tmp_path, queue="kafka://none:1", store="sqlite://", prefix="storm", shape=Shape())


@pytest.mark.parametrize(
    ("states", "within_s", "readings"),
    [({"a": "failed"}, 60.0, 3), ({"a": "failed", "b": "failed"}, 0.0, 1), ({"a": "succeeded"}, 60.0, 1)],
    ids=["it comes", "it never comes", "none is due"],
)
async def test_dead_letters_are_waited_for_as_long_as_they_may_take(
    states: dict[str, str], within_s: float, readings: int, cluster: ServiceCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters: list[Sequence[str]] = [(), (), ("a",)]
    read: list[Facts] = []

    def read_facts(bootstrap: str, prefix: str) -> Facts:
        read.append(Facts({}, {}, letters[len(read)]))
        return read[-1]

    monkeypatch.setattr(under_load, "read_facts", read_facts)
    monkeypatch.setattr(under_load, "LETTERS_WITHIN_S", within_s)
    monkeypatch.setattr(under_load, "LETTERS_POLL_S", 0.0)
    finals = {job_id: Seen(1.0, 1.0, job_id, 200, state) for job_id, state in states.items()}
    assert await under_load._read_log(cluster, "none:1", finals) is read[-1]
    assert len(read) == readings
