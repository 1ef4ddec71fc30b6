"""Names to addresses, by the system's own resolver."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name, as text. Raises OSError if it has none."""

THREADS_MOST = 320
"""Names that are looked up at once. A tenant's own name server may take half a minute for each, twice as long as a
sender waits: so it is more than twice what is under way to receivers that have not answered (`DOUBTFUL_MOST` of the
dispatcher), and silent servers stop nobody else."""


class SystemLookup:
    """`getaddrinfo`, each in a thread of its own.

    Not in a pool: asyncio's and uvloop's have few threads, and a few names whose servers are silent would stop every
    other; a pool's threads are also waited for at the end of the process. These are daemons.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(THREADS_MOST)

    async def __call__(self, host: str) -> Sequence[str]:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def settle(found: Sequence[str] | OSError) -> None:
            self._free.release()  # when the thread ends, not when whoever waited has given up
            if answer.done():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            found = _addresses(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, found)

        try:
            threading.Thread(target=ask, name=f"lookup {host}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started
            self._free.release()
            raise OSError(str(error)) from error
        return await answer


def _addresses(host: str) -> Sequence[str] | OSError:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:  # raised where it is waited for
        return error
    except UnicodeError as error:  # a name that IDNA has no form for
        return OSError(str(error))
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))
