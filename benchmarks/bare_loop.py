"""What one would write for EfficientNet-Lite0 without a service: one process, open, crop and resize with Pillow,
onnxruntime at the best of several batch sizes and thread counts."""

from __future__ import annotations

import io
import itertools
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = [path.read_bytes() for path in sorted((ROOT / "examples" / "samples").glob("*.jpg"))]
MODEL = ROOT / "models" / "image_classification" / "1" / "model.onnx"
TRIAL_IMAGES = 200
BATCH_SIZES = (1, 4, 8, 16)


def best_loop() -> tuple[int, int]:
    """Batch size and threads of the fastest."""
    cores = len(os.sched_getaffinity(0))
    trials = {
        (size, threads): loop_rate(size, threads, TRIAL_IMAGES)
        for size, threads in itertools.product(BATCH_SIZES, sorted({1, cores}))
    }
    return max(trials, key=trials.__getitem__)


def loop_rate(batch_size: int, threads: int, count: int) -> float:
    """Images per second, loading the model not counted."""
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
