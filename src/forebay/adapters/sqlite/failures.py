"""SQLite's errors as ours, with the numbers that help."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn

import apsw

from forebay.core.errors import ForebayError, Misconfigured, Unavailable


class CommitUnclear(Unavailable):
    """COMMIT itself failed with an I/O error: the rows may or may not be there after the next start."""


def translate(error: BaseException, path: Path) -> BaseException:
    """What a caller may be told about `error`. Errors that are not SQLite's are returned as they are."""
    if not isinstance(error, apsw.Error):
        return error
    translated: ForebayError
    if isinstance(error, (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.NoMemError, apsw.BusyError)):
        translated = Unavailable(f"{path} cannot be written: {error} ({_room(path)})", retry_after_s=5.0)
    elif isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        translated = Misconfigured(f"{path} is damaged: {error}; restore it, or choose another data folder")
    elif isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError)):
        translated = Misconfigured(f"{path} cannot be written: {error}; check its owner and its permissions")
    else:
        return error
    translated.__cause__ = error
    return translated


def reraise(error: BaseException, path: Path) -> NoReturn:
    """Raise `error` translated. Call it in the `except` block."""
    raise translate(error, path)


def _room(path: Path) -> str:
    usage = shutil.disk_usage(path.parent)
    size = path.stat().st_size if path.exists() else 0
    return f"the file has {size} bytes, the disk {usage.free} free of {usage.total}"
