"""One process per data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from forebay.core.errors import FolderInUse, Misconfigured


class FolderLock:
    """Holds `<folder>/lock` with flock(2), which the kernel releases however the process ends.

    flock and not POSIX record locks: those vanish when anything in the process closes any descriptor of the file, and
    do not keep a second opener in the same process out (fcntl(2), "advisory record locking").
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises FolderInUse, naming the holder, at once if it is held; Misconfigured if the folder cannot be used."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            why = "a file is in its place" if isinstance(exc, FileExistsError | NotADirectoryError) else exc.strerror
            raise Misconfigured(
                f"the data folder {self._path.parent} cannot be used: {why}; let this user write to it, or "
                "name another folder with data_dir (FOREBAY_DATA_DIR, --data-dir)"
            ) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise FolderInUse(
                f"the data folder {self._path.parent} is in use by process {holder}; stop that process, or give this "
                "one another folder (FOREBAY_DATA_DIR)"
            ) from exc
        except OSError as exc:
            os.close(fd)
            raise Misconfigured(f"{self._path} cannot be locked: {exc.strerror}") from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Repeating it is harmless. The file stays: removing it would let two processes lock two different files."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
