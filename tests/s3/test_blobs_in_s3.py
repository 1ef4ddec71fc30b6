"""What an object store adds to the contract of blobs: a network, other processes, large objects, keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256

import pytest
from tests.s3.client import raw_objects
from tests.s3.cutter import Cutter

from dev.s3.server import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, S3Server
from forebay.adapters.s3 import S3Blobs
from forebay.core import crash
from forebay.core.errors import BlobDamaged, Misconfigured, Unavailable
from forebay.core.payload import BlobRef

JOB = "0193a5b0-0000-7000-8000-000000000001-0123456789abcdef"
LARGE = os.urandom(1_000_000) * 50
SHORT_S = 1.0


def calls(blobs: S3Blobs, ref: BlobRef) -> list[Callable[[], Awaitable[object]]]:
    return [lambda: blobs.put("default", JOB, b"new"), lambda: blobs.get(ref), lambda: blobs.delete_job("default", JOB)]


def port_of(s3: S3Server) -> int:
    return int(s3.endpoint.rpartition(":")[2])


def names_in(url: str, options: Mapping[str, str]) -> list[str]:
    return sorted(found["path"] for batch in raw_objects(url, options).list() for found in batch)


async def test_a_server_that_is_gone_is_unavailable_and_nothing_else_is_needed_when_it_is_back(
    s3: S3Server, url: str
) -> None:
    blobs = S3Blobs(url, options=s3.options)
    ref = await blobs.put("default", JOB, b"before")
    s3.kill()
    for call in calls(blobs, ref):
        with pytest.raises(Unavailable, match=JOB):
            await call()
    with pytest.raises(Unavailable):
        await blobs.check()
    s3.start()
    assert await blobs.get(ref) == b"before"
    assert await blobs.get(await blobs.put("default", JOB, b"after")) == b"after"


async def test_a_server_that_hangs_is_unavailable(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url, options=s3.options, timeout_s=SHORT_S)
    ref = await S3Blobs(url, options=s3.options).put("default", JOB, b"before")
    s3.send_signal(signal.SIGSTOP)
    try:
        for call in calls(blobs, ref):
            with pytest.raises(Unavailable):
                await call()
    finally:
        s3.send_signal(signal.SIGCONT)
    assert await S3Blobs(url, options=s3.options).get(await blobs.put("default", JOB, b"after")) == b"after"


async def test_a_server_that_is_killed_amid_an_upload_has_the_whole_blob_or_none(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url, options=s3.options)
    data = LARGE[:20_000_000]
    ref = BlobRef(
        name=f"default/{JOB}/{sha256(data).hexdigest()}", size_bytes=len(data), sha256=sha256(data).hexdigest()
    )
    killer = Cutter(port_of(s3), cuts=1, up_bytes=1_000_000, on_cut=s3.kill)
    async with killer.listening() as endpoint:
        with pytest.raises(Unavailable):
            await S3Blobs(url, options={**s3.options, "endpoint": endpoint}).put("default", JOB, data)
    s3.start()
    with pytest.raises(BlobDamaged, match="missing"):
        await blobs.get(ref)
    assert await blobs.put("default", JOB, data) == ref
    assert await blobs.get(ref) == data


async def test_a_connection_that_is_cut_amid_an_upload_is_tried_again(s3: S3Server, url: str) -> None:
    cutter = Cutter(port_of(s3), cuts=2, up_bytes=100_000)
    async with cutter.listening() as endpoint:
        ref = await S3Blobs(url, options={**s3.options, "endpoint": endpoint}).put("default", JOB, LARGE[:1_000_000])
    assert cutter.cut == 2
    assert await S3Blobs(url, options=s3.options).get(ref) == LARGE[:1_000_000]


async def test_an_upload_whose_answer_was_lost_succeeds(s3: S3Server, url: str) -> None:
    """The second try finds its own blob."""
    cutter = Cutter(port_of(s3), cuts=1, down_bytes=0)
    async with cutter.listening() as endpoint:
        ref = await S3Blobs(url, options={**s3.options, "endpoint": endpoint}).put("default", JOB, b"hello")
    assert cutter.cut == 1
    assert await S3Blobs(url, options=s3.options).get(ref) == b"hello"


async def test_a_download_that_is_always_cut_is_unavailable_and_not_damaged(s3: S3Server, url: str) -> None:
    ref = await S3Blobs(url, options=s3.options).put("default", JOB, LARGE[:1_000_000])
    async with Cutter(port_of(s3), cuts=1000, down_bytes=100_000).listening() as endpoint:
        with pytest.raises(Unavailable):
            await S3Blobs(url, options={**s3.options, "endpoint": endpoint}).get(ref)


async def test_an_internal_error_of_the_server_is_unavailable(url: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()) and line != b"\r\n":
            pass
        writer.write(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        options = {"endpoint": f"http://{host}:{port}", "access_key_id": "id", "secret_access_key": "key"}
        blobs = S3Blobs(url, options=options)
        ref = BlobRef(name=f"default/{JOB}/{'ab' * 32}", size_bytes=1, sha256="ab" * 32)
        for call in calls(blobs, ref):
            with pytest.raises(Unavailable, match="503"):
                await call()


async def test_a_large_blob_comes_back(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url, options=s3.options)
    ref = await blobs.put("default", JOB, LARGE)
    assert await blobs.get(ref) == LARGE


@pytest.mark.parametrize("damage", [LARGE[:1_000_000][:-1], LARGE[1:1_000_001]], ids=["truncated", "changed"])
async def test_damage_to_a_blob_of_a_megabyte_is_found(s3: S3Server, url: str, damage: bytes) -> None:
    blobs = S3Blobs(url, options=s3.options)
    ref = await blobs.put("default", JOB, LARGE[:1_000_000])
    raw_objects(url, s3.options).put(ref.name, damage)
    with pytest.raises(BlobDamaged, match=f"{len(damage)} bytes"):
        await blobs.get(ref)


async def test_a_truncated_blob_is_whole_again_once_it_is_put_again(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url, options=s3.options)
    ref = await blobs.put("default", JOB, b"hello")
    raw_objects(url, s3.options).put(ref.name, b"hell")
    await blobs.put("default", JOB, b"hello")
    assert await blobs.get(ref) == b"hello"


async def test_a_blob_that_is_there_is_not_written_again(s3: S3Server, url: str) -> None:
    blobs, objects = S3Blobs(url, options=s3.options), raw_objects(url, s3.options)
    ref = await blobs.put("default", JOB, b"hello")
    objects.put(ref.name, b"olleh")
    await blobs.put("default", JOB, b"hello")
    assert bytes(objects.get(ref.name).bytes()) == b"olleh"


WRITER = """
import asyncio, os, sys
from forebay.adapters.s3 import S3Blobs

async def main():
    blobs = S3Blobs(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(50):
        ref = await blobs.put("default", sys.argv[2], bytes([n]) * 10_000)
        assert await blobs.get(ref) == bytes([n]) * 10_000

asyncio.run(main())
"""


async def test_two_processes_write_the_same_blobs_at_once(s3: S3Server, url: str) -> None:
    """They know the server from the environment, as the service does."""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    }
    command, pipe = [sys.executable, "-c", WRITER, url, JOB], asyncio.subprocess.PIPE
    writers = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    await asyncio.gather(*(writer.communicate(b"go\n") for writer in writers))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(names_in(url, s3.options)) == 50


async def test_the_names_of_objects_are_those_of_the_blobs(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url, options=s3.options)
    refs = [await blobs.put("ten=ant", job, b"hello") for job in (JOB, "a@b+c:d-e_f.g")]
    assert names_in(url, s3.options) == sorted(ref.name for ref in refs)
    for job in (JOB, "a@b+c:d-e_f.g"):
        await blobs.delete_job("ten=ant", job)
    assert names_in(url, s3.options) == []


async def test_a_good_place_passes_the_check(s3: S3Server, url: str) -> None:
    await S3Blobs(url, options=s3.options).check()


async def test_a_wrong_key_is_for_the_operator_at_the_start_and_waits_later(s3: S3Server, url: str) -> None:
    ref = await S3Blobs(url, options=s3.options).put("default", JOB, b"hello")
    blobs = S3Blobs(url, options={**s3.options, "secret_access_key": "wrong-secret"})
    with pytest.raises(Misconfigured, match="may not") as refusal:
        await blobs.check()
    assert "wrong-secret" not in str(refusal.value)
    for call in calls(blobs, ref):
        with pytest.raises(Unavailable):
            await call()


async def test_a_bucket_that_is_not_there_damages_no_blob(s3: S3Server, url: str) -> None:
    blobs = S3Blobs(url.replace(BUCKET, "nowhere"), options=s3.options)
    ref = BlobRef(name=f"default/{JOB}/{'ab' * 32}", size_bytes=1, sha256="ab" * 32)
    with pytest.raises(Misconfigured, match="no such bucket"):
        await blobs.check()
    for call in (lambda: blobs.put("default", JOB, b"new"), lambda: blobs.get(ref)):
        with pytest.raises(Unavailable, match="no such bucket"):
            await call()


async def test_a_test_can_kill_before_and_after_each_step(
    s3: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    monkeypatch.setattr(crash, "_armed", reached.append)
    blobs = S3Blobs(url, options=s3.options)
    await blobs.get(await blobs.put("tenant", "job", b"data"))
    assert reached == ["s3.before_put", "s3.after_put", "s3.before_get", "s3.after_get"]
