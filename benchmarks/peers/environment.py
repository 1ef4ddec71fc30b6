"""The environment of the peers: .peers, from requirements/peers.txt, made at the first need and when that file changes.

`make bench-peers`, or `python -m benchmarks.peers.environment`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
LOCK = ROOT / "requirements" / "peers.txt"
BIN = FOLDER / "bin"
SHOWN = ("celery", "fastapi", "hiredis", "kombu", "redis", "taskiq", "taskiq-redis", "uvicorn", "uvloop")


class PeersUnavailable(Exception):
    """The peers cannot run here; the message says what to do."""


def ready() -> None:
    """Make the environment unless it is there. Raises PeersUnavailable."""
    if shutil.which("redis-server") is None:
        raise PeersUnavailable(
            "the peers need redis-server: apt-get install redis-server (Debian, Ubuntu), brew install redis (macOS)"
        )
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    installed = FOLDER / "installed"
    if installed.exists() and installed.read_text() == wanted:
        return
    uv = _run([str(ROOT / "dev" / "setup.sh"), "uv"]).strip()
    shutil.rmtree(FOLDER, ignore_errors=True)
    _run([uv, "venv", "--quiet", "--python", str(ROOT / ".venv" / "bin" / "python"), str(FOLDER)])
    _run([uv, "pip", "install", "--quiet", "--python", str(BIN / "python"), "--require-hashes", "-r", str(LOCK)])
    installed.write_text(wanted)


def versions() -> str:
    """What is measured, on one line."""
    site = next((FOLDER / "lib").glob("python*/site-packages"))
    found = {one.metadata["Name"].lower(): one.version for one in distributions(path=[str(site)])}
    redis = _run(["redis-server", "--version"]).split("v=")[1].split()[0]
    return " ".join([*(f"{name} {found[name]}" for name in SHOWN), f"redis-server {redis}"])


def _run(command: list[str]) -> str:
    environ = {"UV_SYSTEM_CERTS": "true", **os.environ}
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout
    except subprocess.CalledProcessError as error:
        raise PeersUnavailable(f"{' '.join(command)} failed:\n{error.stderr[-2000:]}") from error


if __name__ == "__main__":
    try:
        ready()
    except PeersUnavailable as error:
        sys.exit(f"peers: {error}")
    print(f"peers: {versions()}")
