"""Whatever one input does to its model, the others in its batch succeed and the guilty job says what happened; on both
backends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.scenario.conftest import Begin, Client

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

CODES = {
    "die": "runner_died",
    "crash": "runner_died",
    "leave": "runner_died",
    "hang": "run_timeout",
    "raise_error": "model_error",
    "miscount": "wrong_output_count",
    "allocate": "out_of_memory",
    "hoard": "out_of_memory",
    "fork": "runner_died",
    "refuse": "model_error",
}
ON_KAFKA = ("hang", "raise_error")
"""One that costs the runner and one that does not: what else a model does, its worker hears of in one of these ways."""

NEIGHBOURS = 7


@pytest.mark.parametrize(
    ("begin", "harm"),
    [("embedded", harm) for harm in CODES] + [("kafka", harm) for harm in ON_KAFKA],
    indirect=["begin"],
)
def test_neighbours_succeed_and_the_guilty_job_fails_with_a_stable_code(
    harm: str, begin: Begin, client_of: ClientOf
) -> None:
    client = client_of(begin("troublesome"))
    harms = ["none"] * NEIGHBOURS
    harms.insert(3, harm)
    ids = [client.submit("troublesome", {"harm": one, "number": number}) for number, one in enumerate(harms)]
    jobs = [client.final(job_id) for job_id in ids]
    guilty = jobs.pop(3)

    assert [job["status"] for job in jobs] == ["succeeded"] * NEIGHBOURS
    assert [job["output"]["number"] for job in jobs] == [0, 1, 2, 4, 5, 6, 7]
    assert guilty["status"] == "failed"
    assert guilty["error"]["code"] == CODES[harm]
    assert guilty["attempts"] >= 1
    assert "secret" not in str(guilty)
    assert client.http.get("/readyz").status_code == 200
    after = client.final(client.submit("troublesome", {"harm": "none", "number": 9}))
    assert after["status"] == "succeeded"


def test_a_job_that_kills_its_runner_alone_fails_after_exactly_the_attempts_that_its_model_allows(
    begin: Begin, client_of: ClientOf
) -> None:
    client = client_of(begin("troublesome"))
    job = client.final(client.submit("troublesome", {"harm": "die"}))
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "runner_died", 3)
