"""Whatever the wall clocks of a service are set to while jobs wait: none is lost, none ends early or late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.scenario.conftest import Client, Start, StartRoles, until

from forebay.core.times import from_rfc3339
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

JUMP_S = 30 * 86_400.0
"""Beyond every limit of a job's clocks, in either direction."""

CLOCKS = {"start_within_s": 3600.0, "run_timeout_s": 60.0, "retain_s": 3600.0}


class WrongClock:
    """The wall clock of one process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entry = (str(Path(__file__).with_name("wrong_clock.py")), str(file))
        self.set(0.0)

    def set(self, offset_s: float) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(repr(offset_s))
        new.replace(self._file)  # whoever reads it finds the whole of one


Begin = Callable[[], tuple[RunningService, Sequence[WrongClock]]]


@pytest.fixture(params=["embedded", "kafka"])
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Begin:
    """On Kafka each role has a process, and a wall clock, of its own."""
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")

        def embedded() -> tuple[RunningService, Sequence[WrongClock]]:
            clock = WrongClock(tmp_path / "clock")
            return start("talker", entry=clock.entry), [clock]

        return embedded
    roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")

    def kafka() -> tuple[RunningService, Sequence[WrongClock]]:
        roles = roles_on_kafka("talker")
        clocks = {role: WrongClock(tmp_path / f"clock-{role}") for role in ("api", "worker", "scheduler", "projector")}
        services = {role: roles.start(role, entry=clock.entry) for role, clock in clocks.items()}
        return services["api"], list(clocks.values())

    return kafka


def jump(clocks: Sequence[WrongClock], offset_s: float) -> None:
    """Every other one by as much in the other direction."""
    for number, clock in enumerate(clocks):
        clock.set(offset_s if number % 2 == 0 else -offset_s)


def test_clocks_jump_while_jobs_wait_and_run(begin: Begin, client_of: ClientOf) -> None:
    service, clocks = begin()
    api = client_of(service)
    held = api.submit("talker", {"chunks": 1, "hold_at": 0})
    until(lambda: api.job(held)["status"] == "running", "the only runner is busy")

    asked: dict[str, int] = {}
    for offset_s in (0.0, JUMP_S, -JUMP_S, 0.0):
        jump(clocks, offset_s)
        for _ in range(2):  # in all too few for a full batch, which would be handed to the runner already
            chunks = len(asked) + 1
            asked[api.submit("talker", {"chunks": chunks, "hold_at": -1}, **CLOCKS)] = chunks
        accepted_at = from_rfc3339(api.job(list(asked)[-1])["created_at"])
        assert accepted_at - time.time() == pytest.approx(offset_s, abs=60), "the API's clock has jumped"
        late = api.submit("talker", {"chunks": 1, "hold_at": -1}, start_within_s=0.5)
        assert api.final(late)["status"] == "expired"
        assert {api.job(job_id)["status"] for job_id in asked} == {"queued"}

    assert api.http.post(f"/v1/jobs/{held}/cancel").json()["status"] == "canceled"
    for offset_s in (JUMP_S, -JUMP_S, 0.0):
        jump(clocks, offset_s)
        for job_id, chunks in asked.items():
            job = api.final(job_id)
            assert (job["status"], job["attempts"], job["output"]) == ("succeeded", 1, chunks)
