"""The receivers of examples/ take what is signed, once, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx2
import pytest
from tests.scenario.receivers import COMMANDS, Receiver, receiver

from forebay.core.webhook_secret import TOLERANCE_S, new_secret, sign

SECRET, OTHER = new_secret(lambda size: b"a" * size), new_secret(lambda size: b"b" * size)
BODY = json.dumps({"type": "job.succeeded", "timestamp": "2026-11-29T08:30:02.118000Z", "data": {"id": "1-2"}}).encode()

pytestmark = pytest.mark.scenario


@pytest.fixture(scope="module", params=list(COMMANDS))
def receiving(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiver(request.param, SECRET) as running:
        yield running


def post(
    to: Receiver,
    webhook_id: str,
    *secrets: str,
    age_s: float = 0.0,
    signed: bytes = BODY,
    sent: bytes | None = None,
    changed: dict[str, str] | None = None,
) -> httpx2.Response:
    """`sent` and `changed`: the body and headers `webhook-...` that arrive in place of what was signed."""
    stamp = int(time.time() - age_s)
    told = {"id": webhook_id, "timestamp": str(stamp), "signature": sign(secrets, webhook_id, stamp, signed)}
    headers = {
        "content-type": "application/json",
        **{f"webhook-{name}": value for name, value in (told | (changed or {})).items()},
    }
    return httpx2.post(to.url, content=sent or signed, headers=headers, timeout=30)


def test_what_is_signed_is_done_once(receiving: Receiver) -> None:
    assert [post(receiving, "msg_1", SECRET).status_code for _ in range(3)] == [204, 204, 204]
    another = BODY.replace(b"1-2", b"3-4")
    assert post(receiving, "msg_2", SECRET, signed=another).status_code == 204
    assert [receiving.printed.readline() for _ in range(2)] == ["job.succeeded 1-2\n", "job.succeeded 3-4\n"]


def test_while_secrets_change_either_will_do(receiving: Receiver) -> None:
    assert post(receiving, "msg_3", OTHER, SECRET).status_code == 204
    assert receiving.printed.readline() == "job.succeeded 1-2\n"


def test_another_secret_is_refused(receiving: Receiver) -> None:
    assert post(receiving, "msg_4", OTHER).status_code == 400


def test_another_body_is_refused(receiving: Receiver) -> None:
    assert post(receiving, "msg_5", SECRET, sent=BODY.replace(b"1-2", b"3-4")).status_code == 400


@pytest.mark.parametrize(
    "changed",
    [{"signature": ""}, {"signature": "v1"}, {"signature": "v1,!"}, {"timestamp": "soon"}, {"id": "msg_7"}],
    ids=["no-signature", "no-comma", "no-base64", "no-time", "id"],
)
def test_other_headers_are_refused(receiving: Receiver, changed: dict[str, str]) -> None:
    assert post(receiving, "msg_6", SECRET, changed=changed).status_code == 400


@pytest.mark.parametrize("way", [1, -1], ids=["old", "ahead"])
def test_what_was_not_signed_just_now_is_refused(receiving: Receiver, way: int) -> None:
    answer = post(receiving, "msg_8", SECRET, age_s=way * (TOLERANCE_S + 30))
    assert (answer.status_code, "timestamp too" in answer.text) == (400, True)
