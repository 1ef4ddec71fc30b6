"""The receivers of examples/, each as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]

UVICORN = ("-m", "uvicorn", "--app-dir", "examples", "webhook_receiver_fastapi:app", "--no-access-log", "--port", "0")
COMMANDS: dict[str, Sequence[str]] = {"plain": ("examples/webhook_receiver.py", "0"), "fastapi": UVICORN}
"""Python's arguments."""

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Receiver:
    """`printed`: what it has to say of messages."""

    def __init__(self, url: str, printed: IO[str]) -> None:
        self.url = url
        self.printed = printed


@contextmanager
def receiver(name: str, secret: str) -> Iterator[Receiver]:
    """One of COMMANDS, while it runs."""
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[name]],
        cwd=ROOT,
        env={**os.environ, "WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if name == "fastapi" else None,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stderr or process.stdout:
            if found := _ADDRESS.search(line):
                break
        else:
            raise AssertionError(f"the receiver ended with {process.wait()}")
        yield Receiver(found.group(), process.stdout)
    finally:
        process.kill()
        process.communicate()
