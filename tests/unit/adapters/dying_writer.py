"""Run by `test_dying`: works through the SQLite adapter until it kills itself at a crash point.

usage: dying_writer.py FOLDER POINT NUMBER; dies when POINT is reached for the NUMBER-th time. Says on stdout what was
promised to it, in the instant after the promise.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from forebay.adapters.files import FilesBlobs
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core import crash
from forebay.core.event import EventKind
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.ports.event_log import START
from forebay.testing.samples import event, job_id, message, succeeded

CHANNEL = Channel("sample", "normal")
ROUNDS = 20


def say(what: str, *names: str) -> None:
    os.write(1, f"{what} {' '.join(names)}\n".encode())


def die_at(point: str, number: int) -> None:
    reached = 0

    def reach(name: str) -> None:
        nonlocal reached
        reached += name == point
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    crash.arm(reach)


async def work(folder: Path) -> None:
    database = Database(folder).open()
    queue, log, store = SqliteQueue(database), SqliteEventLog(database), SqliteStore(database)
    blobs = FilesBlobs(folder / "blobs")
    consumer = queue.consumer(CHANNEL)
    position = START
    for n in range(0, 2 * ROUNDS, 2):
        blob = await blobs.put("default", job_id(n), b"blob %d" % n)
        say("stored", blob.name)
        await queue.publish(CHANNEL, [message(n), message(n + 1)])
        say("published", job_id(n), job_id(n + 1))
        received = await consumer.receive(1, 5.0)
        done = received[0].message.job_id
        await consumer.begin(received)
        say("begun", done)
        number = int(done.split("-")[4])
        output = Payload(media_type=JSON, data=done.encode())
        await log.publish([event(number, EventKind.STARTED), succeeded(number, output)])
        say("decided", done)
        await consumer.ack(received)
        say("acknowledged", done)
        batches = await log.read({"log": position}, 100, 5.0)
        await store.project(batches)
        position = batches[0].end
        say("projected", position)
    say("survived")


if __name__ == "__main__":
    die_at(sys.argv[2], int(sys.argv[3]))
    asyncio.run(work(Path(sys.argv[1])))
