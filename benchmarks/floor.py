"""The floor: a FastAPI route that parses the same JSON, makes an id and answers 202. No queue, nothing is kept.

python -m benchmarks.floor PORT_FILE
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Inference(BaseModel):
    model_name: str
    data: str


class Job(BaseModel):
    model: str
    input: Any


app = FastAPI()


@app.post("/inference", status_code=202)
async def submit(body: Inference) -> dict[str, str]:
    return {"request_id": uuid.uuid4().hex, "status": "queued"}


@app.post("/v1/jobs", status_code=202)
async def submit_job(body: Job) -> dict[str, str]:
    return {"id": uuid.uuid4().hex, "status": "queued"}


@contextlib.contextmanager
def running_floor() -> Iterator[tuple[str, int]]:
    """Its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.floor", str(port_file)])
        try:
            while not (port_file.exists() and port_file.read_text()):
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port_file.read_text()}", process.pid
        finally:
            process.kill()
            process.wait()


def main() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)  # before the port is told, so that whoever reads it can connect
        Path(sys.argv[1]).write_text(str(sock.getsockname()[1]))
        # The server and the settings that the service itself runs with.
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
        )
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
