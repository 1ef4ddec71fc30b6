"""The floor: a FastAPI route that parses the same JSON, makes an id and answers 202. No queue, nothing is kept.

python -m benchmarks.floor PORT_FILE
"""

from __future__ import annotations

import socket
import sys
import uuid
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Inference(BaseModel):
    model_name: str
    data: str


app = FastAPI()


@app.post("/inference", status_code=202)
async def submit(body: Inference) -> dict[str, str]:
    return {"request_id": uuid.uuid4().hex, "status": "queued"}


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
