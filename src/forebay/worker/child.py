"""The process of a runner: spawned, watched, ended with all that it forked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping

KEPT_ENVIRONMENT = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH"})
KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")


class Child:
    """A running `forebay.runner_main` with `link` as its only open file besides the standard ones.

    Made inside a running event loop, in the main thread: Linux ends the child with the thread that started it
    (prctl(2), PR_SET_PDEATHSIG). Raises OSError when no process can be had.
    """

    def __init__(self, link: socket.socket) -> None:
        # A session of its own: Ctrl-C at a terminal is for the worker, which lets a running batch end.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forebay.runner_main", str(link.fileno()), str(os.getpid())],
            env=scrubbed(os.environ),
            pass_fds=[link.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a model prints goes to our standard error
            start_new_session=True,
        )
        self._gone = asyncio.Event()
        # By its exit and not only by the end of the link, which a process that it forked may hold open.
        threading.Thread(target=self._watch, args=(asyncio.get_running_loop(),), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def gone(self) -> None:
        """Wait until the process has ended; what else was in its group is ended, too."""
        await self._gone.wait()

    def end(self) -> None:
        """SIGKILL the process and its group, unless it is gone: then its number may be another's."""
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                os.killpg(self._process.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """`exited with status 3`, `was killed by SIGSEGV`; `is gone` while nobody knows."""
        code = self._process.poll()
        if code is None:
            return "is gone"
        if code >= 0:
            return f"exited with status {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        self.end()  # the rest of its group
        self._gone.set()


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """What a model may see of our environment: an allow-list, so that no setting or credential passes."""
    kept = {
        name: value for name, value in environ.items() if name in KEPT_ENVIRONMENT or name.startswith(KEPT_PREFIXES)
    }
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
