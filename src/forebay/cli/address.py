"""Where the service of a data folder answers, left there for the client commands: `<data_dir>/address.json`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

ADDRESS_FILE = "address.json"


class AddressFile:
    """Written once the service is ready, removed when it stops.

    The process holds the file with flock(2), which the kernel releases however the process ends: so a file that was
    left behind is known, also where another program has been given the process id since.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ADDRESS_FILE
        self._fd: int | None = None

    def write(self, api_url: str) -> None:
        """All of it or nothing. A service that cannot leave its address works all the same."""
        unfinished = self._path.with_name(f".{ADDRESS_FILE}.{os.getpid()}")
        document = json.dumps({"pid": os.getpid(), "api_url": reachable(api_url)}) + "\n"
        try:
            self._fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(self._fd, document.encode())
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            unfinished.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):  # nobody reads it, and there may be none
                unfinished.unlink()

    def remove(self) -> None:
        """Only our own: another service may have left its own since, where the queue is in memory."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):  # gone already, or not ours to remove
            if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                self._path.unlink()
        os.close(self._fd)
        self._fd = None


def address_in(folder: Path) -> str:
    """Where the service that runs on this data folder answers; "" if none does, or none that we may know of."""
    try:
        with (folder / ADDRESS_FILE).open(encoding="utf-8") as file:
            if not _is_held(file.fileno()):
                return ""
            document = json.load(file)
    except (OSError, ValueError):
        return ""
    return str(document.get("api_url", "")) if isinstance(document, dict) else ""


def reachable(api_url: str) -> str:
    """The address to connect to, where a service listens on all of them."""
    parts = urlsplit(api_url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    return f"{parts.scheme}://{host}:{parts.port}" if host else api_url


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
