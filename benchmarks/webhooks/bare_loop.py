"""What one would write without an outbox: some workers over one aiohttp session, each message signed and sent once.

python -m benchmarks.webhooks.bare_loop MESSAGES_FILE URL: sends them all and stays, so that its costs can be read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import uvloop

KEY = bytes(32)
AT_ONCE = 32
"""As many as our dispatcher has under way to one receiver."""

Messages = list[tuple[str, bytes]]
"""Ids and bodies, in MessagePack."""


async def _send(messages: Iterator[tuple[str, bytes]], session: aiohttp.ClientSession, url: str) -> None:
    for message_id, body in messages:
        timestamp = str(int(time.time()))
        digest = hmac.digest(KEY, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            response.raise_for_status()


async def _main(messages: Iterator[tuple[str, bytes]], url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(_send(messages, session, url) for _ in range(AT_ONCE)))
        await asyncio.Event().wait()


if __name__ == "__main__":
    held = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Messages)
    uvloop.run(_main(iter(held), sys.argv[2]))
