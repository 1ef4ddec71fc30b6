"""Images per second through the service, against a bare loop in one process over the same JPEG files on the same cores.

The loop is what one would write without a service: open, crop and resize with Pillow, onnxruntime at the best of
several batch sizes and thread counts. The service is measured from the first submit to the last result.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import uvloop
from numpy.typing import NDArray
from PIL import Image

from benchmarks.client import Connection, Load
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = [path.read_bytes() for path in sorted((ROOT / "examples" / "samples").glob("*.jpg"))]
MODEL = ROOT / "models" / "image_classification" / "1" / "model.onnx"
IMAGES = 1500
ROUNDS = 3
TRIAL_IMAGES = 200
BATCH_SIZES = (1, 4, 8, 16)


def measure() -> list[Figure]:
    settings = {"models": "image_classification", "log_level": "warning"}
    cores = len(os.sched_getaffinity(0))
    trials = {
        (size, threads): _loop_rate(size, threads, TRIAL_IMAGES)
        for size, threads in itertools.product(BATCH_SIZES, sorted({1, cores}))
    }
    size, threads = max(trials, key=trials.__getitem__)
    print(f"  best bare loop: batches of {size}, {threads} threads")
    loop, service = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningService(Path(folder), ROOT / "models", settings=settings) as running,
    ):
        uvloop.run(_service_rate(running.url, 100))
        for _ in range(ROUNDS):
            loop.append(_loop_rate(size, threads, IMAGES))
            service.append(uvloop.run(_service_rate(running.url, IMAGES)))
    print(f"  bare loop {spread(loop)} images/s, service {spread(service)} images/s")
    return [
        Figure(
            question="EfficientNet-Lite0 images/s of the bare loop",
            measured=statistics.median(service) / statistics.median(loop),
            goal=0.9,
            at_least=True,
        )
    ]


def _loop_rate(batch_size: int, threads: int, count: int) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    photos = itertools.islice(itertools.cycle(PHOTOS), count)
    began = time.perf_counter()
    while batch := list(itertools.islice(photos, batch_size)):
        pixels = np.stack([_pixels(photo) for photo in batch])
        (logits,) = session.run(["logits"], {"pixel_values": pixels})
        np.argmax(logits, axis=1)
    return count / (time.perf_counter() - began)


def _pixels(photo: bytes) -> NDArray[np.float32]:
    """The preprocessing that models/README.md states."""
    with Image.open(io.BytesIO(photo)) as opened:
        image = opened.convert("RGB")
    side = round(0.875 * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return ((np.asarray(small, dtype=np.float32) - np.float32(127)) / np.float32(128)).transpose(2, 0, 1)


async def _service_rate(url: str, count: int) -> float:
    ids = [""] * count
    async with Load(url, 8) as load:
        requests = [load.post("/v1/models/image_classification/jobs", photo, "image/jpeg") for photo in PHOTOS]

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(requests[number % len(requests)])
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")
            ids[number] = json.loads(body)["id"]

        async def see(connection: Connection, number: int) -> None:
            while True:
                _, body = await connection.ask(load.get(f"/v1/jobs/{ids[number]}?wait=60"))
                if b'"succeeded"' in body:
                    return
                if b'"failed"' in body:
                    raise RuntimeError(body[:300])

        began = time.perf_counter()
        await load.each(count, submit)
        await load.each(count, see)
        return count / (time.perf_counter() - began)
