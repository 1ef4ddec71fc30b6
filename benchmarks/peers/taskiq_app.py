"""FastAPI + Taskiq on a Redis stream, acknowledged after the result is saved; results in Redis.

Runs in the environment of the peers: `uvicorn taskiq_app:app`, `taskiq worker taskiq_app:broker`. PEER_REDIS is the
address.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from pydantic import BaseModel
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker
from taskiq_redis.exceptions import ResultIsMissingError

REDIS = os.environ["PEER_REDIS"]

results = RedisAsyncResultBackend(f"{REDIS}/3", result_ex_time=3600)
broker = RedisStreamBroker(f"{REDIS}/2").with_result_backend(results)


@broker.task(task_name="infer")
async def infer(model: str, data: str) -> str:
    return data


class Inference(BaseModel):
    model_name: str
    data: str


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=connected)


@app.post("/inference", status_code=202)
async def submit(body: Inference) -> dict[str, str]:
    task = await infer.kiq(body.model_name, body.data)
    return {"request_id": task.task_id, "status": "queued"}


@app.get("/result/{request_id}")
async def result(request_id: str, response: Response) -> dict[str, str | None]:
    try:
        task = await results.get_result(request_id)
    except ResultIsMissingError:
        response.status_code = 202
        return {"status": "queued", "output": None}
    return {"status": "failed" if task.is_err else "succeeded", "output": task.return_value}
