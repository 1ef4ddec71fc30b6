"""A process that is killed at a crash point has kept what it promised, and left nothing half done."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from forebay.adapters.files import FilesBlobs
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core.event import JobEvent, JobRequest
from forebay.core.fact import JobFact
from forebay.core.job import Job, JobStatus, apply
from forebay.core.message import Channel
from forebay.core.payload import BlobRef
from forebay.ports.event_log import START

CHANNEL = Channel("sample", "normal")
WRITER = Path(__file__).with_name("dying_writer.py")
COMMITS_OF_A_ROUND = 5  # publish, begin, events, ack, projection


def die(folder: Path, point: str, number: int) -> dict[str, list[str]]:
    """What was promised before the death, by kind."""
    dead = subprocess.run(
        [sys.executable, str(WRITER), str(folder), point, str(number)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    promised: dict[str, list[str]] = {}
    for line in dead.stdout.splitlines():
        what, *names = line.split()
        promised.setdefault(what, []).extend(names)
    return promised


async def whole_log(log: SqliteEventLog, up_to: str | None = None) -> list[JobRequest | JobEvent]:
    if up_to == START:
        return []
    batches = await log.read({"log": START}, 10_000 if up_to is None else int(up_to), 0.0)
    return [fact for batch in batches for fact in batch.facts if isinstance(fact, JobFact)]


@pytest.mark.parametrize("point", ["sqlite.before_commit", "sqlite.after_commit"])
@pytest.mark.parametrize("number", range(1, COMMITS_OF_A_ROUND + 2))
async def test_what_was_promised_before_a_kill_is_kept(tmp_path: Path, point: str, number: int) -> None:
    promised = await asyncio.to_thread(die, tmp_path, point, number)

    database = Database(tmp_path).open()
    assert database.read("PRAGMA integrity_check") == [("ok",)]
    queue, log, store = SqliteQueue(database), SqliteEventLog(database), SqliteStore(database)
    facts = await whole_log(log)
    requested = [fact.job_id for fact in facts if isinstance(fact, JobRequest)]
    decided = [fact.job_id for fact in facts if isinstance(fact, JobEvent) and fact.output is not None]

    # Publishing: what was answered is there, and each pair as a whole.
    assert set(promised.get("published", [])) <= set(requested)
    assert len(requested) % 2 == 0

    # The queue: what was acknowledged is gone, all else waits, with the attempts that were begun.
    depth = await queue.depth(CHANNEL)
    received = await queue.consumer(CHANNEL).receive(1000, 0.0)
    waiting = {one.message.job_id: one.attempt for one in received}
    acknowledged = set(promised.get("acknowledged", []))
    assert depth == len(waiting)
    assert not acknowledged & set(waiting)
    assert set(requested) - set(waiting) <= set(decided)
    for begun in set(promised.get("begun", [])) & set(waiting):
        assert waiting[begun] == 1

    # Events: all of a call or none of it.
    assert set(promised.get("decided", [])) <= set(decided)
    assert sum(isinstance(fact, JobEvent) for fact in facts) == 2 * len(decided)

    # The store: exactly what the log says up to its position.
    position = await store.position("log")
    if "projected" in promised:
        assert int(position) >= int(promised["projected"][-1])
    rows: dict[str, Job] = {}
    for fact in await whole_log(log, position):
        rows[fact.job_id] = apply(rows.get(fact.job_id), fact)
    for name in requested:
        assert await store.get("default", name) == rows.get(name)
    assert all(job.status in (JobStatus.QUEUED, JobStatus.SUCCEEDED) for job in rows.values())
    await database.close()


@pytest.mark.parametrize("point", ["files.before_rename", "files.after_rename"])
async def test_a_blob_is_whole_or_absent_after_a_kill(tmp_path: Path, point: str) -> None:
    promised = await asyncio.to_thread(die, tmp_path, point, 3)
    assert len(promised["stored"]) == 2
    blobs = FilesBlobs(tmp_path / "blobs")
    found = [path for path in await asyncio.to_thread(list, (tmp_path / "blobs").rglob("*")) if len(path.name) == 64]
    assert len(found) == (3 if point == "files.after_rename" else 2)
    for path in found:
        name = str(path.relative_to(tmp_path / "blobs"))
        data = await blobs.get(BlobRef(name=name, size_bytes=path.stat().st_size, sha256=path.name))
        assert sha256(data).hexdigest() == path.name
