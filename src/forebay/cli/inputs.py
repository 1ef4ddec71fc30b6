"""What a person gave as input, as bytes with a media type."""

from __future__ import annotations

import json
import mimetypes
import os
import re
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from forebay.core.errors import InvalidRequest

TEXT = "text/plain; charset=utf-8"

MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
)
"""What the bytes say goes before what the name says: cameras and browsers save many a JPEG under another name."""

MAX_PATH_CHARS = 4096


class Input(Struct, frozen=True):
    body: bytes
    media_type: str

    def is_text(self) -> bool:
        """UTF-8, whatever its media type says."""
        try:
            self.body.decode()
        except UnicodeDecodeError:
            return False
        return True


def read_input(argument: str, *, as_text: bool = False) -> Input:
    """`-` is standard input, a path that exists is that file, anything else is text.

    Raises InvalidRequest for what looks like a path and is not there, since sending the path's name would answer a
    question that nobody asked.
    """
    if as_text or not argument:
        return Input(argument.encode(), TEXT)
    if argument == "-":
        body = sys.stdin.buffer.read()
        return Input(body, media_type_of(body, ""))
    path = Path(argument).expanduser()
    if _exists(path):
        return _read_file(path)
    if looks_like_a_path(argument):
        raise InvalidRequest(f"there is no file {argument!r}; to send these words as text, add --text")
    return Input(argument.encode(), TEXT)


def read_json_input(argument: str, *, as_text: bool = False) -> Any:
    """As `read_input`, for a JSON value. Raises InvalidRequest with the place of what is no JSON."""
    path = Path(argument).expanduser()
    if argument == "-":
        given, body = "standard input", sys.stdin.buffer.read()
    elif argument and not as_text and _exists(path):
        given, body = str(path), _read_file(path).body
    elif not as_text and looks_like_a_path(argument):
        raise InvalidRequest(f"there is no file {argument!r}")
    else:
        given, body = "the argument", argument.encode()
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--input-json: {given} is not JSON: {error}") from error


def is_json_document(body: bytes) -> bool:
    """A JSON object or array: nobody writes such a thing and means it as words."""
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _exists(path: Path) -> bool:
    try:
        return len(str(path)) < MAX_PATH_CHARS and path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _read_file(path: Path) -> Input:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    return Input(body, media_type_of(body, path.name))


def looks_like_a_path(argument: str) -> bool:
    """One word with a folder in it or a suffix at its end: `photos/cat`, `cat.jpg`; not `Great.`, `and/or so`, `[]`."""
    if re.search(r"\s", argument) or argument.startswith(("{", "[")):
        return False
    return os.sep in argument or bool(re.search(r"\w\.[A-Za-z][A-Za-z0-9]{1,4}$", argument))


def media_type_of(body: bytes, name: str) -> str:
    """From the first bytes, else from the name's suffix, else text if it is UTF-8."""
    for pattern, media_type in MAGIC:
        if pattern.match(body):
            return media_type
    guessed, encoding = mimetypes.guess_type(name)
    if guessed and not encoding:
        return TEXT if guessed == "text/plain" else guessed
    try:
        body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return TEXT
