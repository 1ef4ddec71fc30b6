"""FastAPI + Celery + Redis: late acknowledgement, so that a worker that is killed loses nothing.

Runs in the environment of the peers: `uvicorn celery_app:app`, `celery -A celery_app worker`. PEER_REDIS is the
address.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.result import AsyncResult
from celery.states import READY_STATES
from fastapi import FastAPI, Response
from pydantic import BaseModel

REDIS = os.environ["PEER_REDIS"]

celery = Celery("peer", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
celery.conf.update(task_acks_late=True, worker_prefetch_multiplier=32, result_expires=3600)


@celery.task(name="infer")
def infer(model: str, data: str) -> str:
    return data


class Inference(BaseModel):
    model_name: str
    data: str


app = FastAPI()


@app.post("/inference", status_code=202)
def submit(body: Inference) -> dict[str, str]:  # not async: Celery's client blocks
    return {"request_id": infer.delay(body.model_name, body.data).id, "status": "queued"}


@app.get("/result/{request_id}")
def result(request_id: str, response: Response) -> dict[str, str | None]:
    job = AsyncResult(request_id, app=celery)
    if job.state not in READY_STATES:
        response.status_code = 202
        return {"status": "queued", "output": None}
    return {"status": "succeeded" if job.successful() else "failed", "output": job.result}
