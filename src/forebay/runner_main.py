"""The runner child process: one model, one task, one socket. Started by `worker/runner.py`, never by hand.

Two threads: the reader receives batches and decodes them, so that the next batch's decoding overlaps this one's
inference; the main thread predicts, since some frameworks want the main thread. A third sends what a handler says
meanwhile, if it does. The runner holds no setting and no credential, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import re
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import structlog

from forebay.core.errors import ForebayError, InvalidRequest, Misconfigured, ModelFailed
from forebay.core.event import JobError
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.runtime import ItemContext, Model
from forebay.ports.task import Codec
from forebay.runtimes import runtime
from forebay.tasks import task
from forebay.telemetry.logs import configure_logs
from forebay.worker import frames
from forebay.worker.telling import Teller

PARALLEL_DECODE_BYTES = 32 * 1024
"""Below this a batch is decoded by the reader itself: handing an item to a thread costs about 40 microseconds."""

MODEL_ERROR_CHARS = 500
OUTPUT_MAX_BYTES = 64 * 1024 * 1024
"""Of one output. A larger one would pass through the service's memory several times; it belongs into a store of its
own."""

OUT_OF_MEMORY = JobError(
    code="out_of_memory", message="it took more memory than its model may have (limits.memory_bytes)"
)
GOOD_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""An error code of a model becomes a label of metrics: a word, not a text."""

_object = msgspec.json.Decoder(dict[str, Any]).decode

log = structlog.get_logger()


class Decoded:
    """A batch after decoding: for each input its parameters, and an item or the error that it fails with.

    `out_of_memory`: decoding met the limit of the process, and whose doing that was is not known.
    """

    def __init__(self, batch: frames.Batch) -> None:
        self.batch = batch
        self.parameters = [_object(item.parameters) if item.parameters else {} for item in batch.items]
        self.items: list[Any] = []
        self.decode_s = 0.0
        self.out_of_memory = False
        self.canceled = {item.job_id: threading.Event() for item in batch.items}


class Link:
    """Blocking frames over the socket. `send` is used by one thread at a time (worker.telling), `receive` by the reader
    only."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, frame: frames.FromRunner) -> None:
        self._sock.sendall(frames.encode(frame))

    def receive(self) -> frames.ToRunner | None:
        """The next frame; None when the worker has closed its end or is gone."""
        head = self._read(frames.LENGTH_BYTES)
        if head is None:
            return None
        body = self._read(int.from_bytes(head, "big"))
        return None if body is None else frames.decode_to_runner(body)

    def _read(self, count: int) -> bytearray | None:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                got = self._sock.recv_into(view)
            except ConnectionResetError:
                return None
            if got == 0:
                return None
            view = view[got:]
        return data


def main() -> None:
    """`runner_main FD PARENT_PID`"""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    configure_logs("info", "auto")
    link = Link(socket.socket(fileno=fd))
    load = link.receive()
    if not isinstance(load, frames.Load):
        return
    structlog.contextvars.bind_contextvars(model=load.spec.name)
    limit_memory(load.spec.limits.memory_bytes)
    try:
        codec = task(load.spec.task).codec(load.spec)
        model = runtime(load.spec.runtime).load(load.spec)
    except Misconfigured as error:
        link.send(frames.LoadFailed(error.message))
        return
    except Exception as error:  # model code may raise anything; the worker shows it as the model's state
        log.exception("model.load_failed")
        link.send(frames.LoadFailed(f"{type(error).__name__}: {error}"[:MODEL_ERROR_CHARS]))
        return
    link.send(frames.Ready(dict(model.describe())))
    try:
        serve(link, codec, model, load.spec, load.decode_threads)
    finally:
        model.close()


def serve(link: Link, codec: Codec, model: Model, spec: ModelSpec, decode_threads: int) -> None:
    """Predict batch after batch until the worker closes the link."""
    decoded: queue.Queue[Decoded | frames.Go | None] = queue.Queue()
    reader = threading.Thread(
        target=read_and_decode, args=(link, codec, decode_threads, decoded), name="reader", daemon=True
    )
    reader.start()
    teller = Teller(link.send)
    waiting: dict[int, Decoded] = {}
    while (arrived := decoded.get()) is not None:
        if isinstance(arrived, Decoded):
            waiting[arrived.batch.number] = arrived
            continue
        batch = waiting.pop(arrived.number)
        if not arrived.go:
            continue
        teller.open(arrived.number)
        reply = answer(batch, codec, model, teller)
        teller.close()
        link.send(reply)
        if isinstance(reply, frames.Raised) and reply.last:
            return


def read_and_decode(
    link: Link, codec: Codec, decode_threads: int, decoded: queue.Queue[Decoded | frames.Go | None]
) -> None:
    """Forward every frame in order, batches decoded; but a cancellation is for whom it concerns, at once. Ends with
    None, whatever happens."""
    under_way: WeakValueDictionary[int, Decoded] = WeakValueDictionary()
    try:
        with ThreadPoolExecutor(decode_threads, "decode") as pool:
            while (frame := link.receive()) is not None:
                if isinstance(frame, frames.Go):
                    decoded.put(frame)
                elif isinstance(frame, frames.Batch):
                    batch = under_way[frame.number] = decode_batch(frame, codec, pool, decode_threads)
                    decoded.put(batch)
                    del batch
                elif isinstance(frame, frames.Cancel):
                    cancel(under_way.get(frame.number), frame.job_id)
    finally:
        decoded.put(None)


def cancel(batch: Decoded | None, job_id: str) -> None:
    """Tell whoever runs it. Of a batch that was answered there is nothing to tell."""
    if batch is not None and job_id in batch.canceled:
        batch.canceled[job_id].set()


def decode_batch(batch: frames.Batch, codec: Codec, pool: ThreadPoolExecutor, decode_threads: int) -> Decoded:
    begun = time.perf_counter()
    decoded = Decoded(batch)
    work = list(zip(batch.items, decoded.parameters, strict=True))
    parallel = decode_threads > 1 and len(work) > 1
    try:
        if parallel and sum(len(item.data) for item in batch.items) >= PARALLEL_DECODE_BYTES:
            futures: list[Future[Any]] = [pool.submit(decode_item, codec, *one) for one in work]
            decoded.items = [future.result() for future in futures]
        else:
            decoded.items = [decode_item(codec, *one) for one in work]
    except MemoryError:
        decoded.out_of_memory = True
    decoded.decode_s = time.perf_counter() - begun
    return decoded


def decode_item(codec: Codec, item: frames.Item, parameters: Mapping[str, Any]) -> Any:
    """What the codec makes of it, or the JobError that this input alone fails with. Raises MemoryError."""
    try:
        return codec.decode(item.data, item.media_type, parameters)
    except InvalidRequest as error:
        return JobError(code=error.code, message=error.message)
    except MemoryError:
        raise
    except Exception as error:  # a decoder bug must fail its own input only
        log.exception("input.decode_failed", job=item.job_id)
        return JobError(code="decode_failed", message=f"the input cannot be decoded ({type(error).__name__})")


def answer(decoded: Decoded, codec: Codec, model: Model, teller: Teller) -> frames.Done | frames.Raised:
    """Predict each bucket of the batch; inputs that did not decode keep their own error."""
    begun = time.perf_counter()
    number = decoded.batch.number
    if decoded.out_of_memory:
        return frames.Raised(number, OUT_OF_MEMORY, last=True)
    outcomes: list[frames.Outcome | None] = [
        frames.Outcome(error=item) if isinstance(item, JobError) else None for item in decoded.items
    ]
    buckets: dict[Hashable, list[int]] = {}
    for index, item in enumerate(decoded.items):
        if outcomes[index] is None:
            buckets.setdefault(codec.bucket(item), []).append(index)
    try:
        for members in buckets.values():
            payloads = predict(decoded, members, codec, model, teller)
            for index, payload in zip(members, payloads, strict=True):
                outcomes[index] = payload
    except MemoryError:  # the model may have kept what it took: a new process starts without it
        return frames.Raised(number, OUT_OF_MEMORY, last=True)
    except ForebayError as error:
        return frames.Raised(number, job_error(error))
    except Exception as error:  # model code may raise anything
        log.exception("model.raised", jobs=[item.job_id for item in decoded.batch.items])
        return frames.Raised(number, model_error(error))
    return frames.Done(
        number,
        [outcome for outcome in outcomes if outcome is not None],
        decoded.decode_s,
        time.perf_counter() - begun,
    )


def predict(decoded: Decoded, members: list[int], codec: Codec, model: Model, teller: Teller) -> list[frames.Outcome]:
    items = [decoded.items[index] for index in members]
    contexts = [
        ItemContext(
            job_id=decoded.batch.items[index].job_id,
            attempt=decoded.batch.items[index].attempt,
            parameters=decoded.parameters[index],
            canceled=decoded.canceled[decoded.batch.items[index].job_id],
            listener=teller.voice(index),
        )
        for index in members
    ]
    encoded = codec.encode(model.predict(codec.collate(items), contexts), items)
    if len(encoded) != len(items):
        raise ModelFailed(f"the model gave {len(encoded)} outputs for {len(items)} inputs", code="wrong_output_count")
    return [outcome_of(one) for one in encoded]


def outcome_of(encoded: Payload | ModelFailed) -> frames.Outcome:
    if isinstance(encoded, ModelFailed):
        return frames.Outcome(error=job_error(encoded))
    if encoded.size_bytes > OUTPUT_MAX_BYTES:
        text = f"the output has {encoded.size_bytes} bytes, more than {OUTPUT_MAX_BYTES}"
        return frames.Outcome(error=JobError(code="result_too_large", message=text))
    return frames.Outcome(media_type=encoded.media_type, data=encoded.data or b"")


def job_error(error: ForebayError) -> JobError:
    """As the model said it, within bounds."""
    code = error.code if GOOD_CODE.fullmatch(error.code) else "model_error"
    return JobError(code=code, message=error.message[:MODEL_ERROR_CHARS], retryable=error.retryable)


def model_error(error: Exception) -> JobError:
    """The type only: what a model's exception says may hold inputs of others in its batch, paths or secrets."""
    return JobError(code="model_error", message=f"the model raised {type(error).__name__}; its log has the details")


def limit_memory(limit_bytes: int) -> None:
    """A model that allocates without end gets MemoryError instead of taking the machine down.

    RLIMIT_DATA counts private writable memory, not the address space that frameworks reserve (Linux >= 4.7,
    getrlimit(2)).
    Where the kernel kills first, it is told to choose the runner.
    """
    with contextlib.suppress(ValueError):  # a hard limit below ours already holds
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    # An error: no /proc here, or no right to it; then the kernel chooses by itself.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("900")


def die_with(parent: int) -> None:
    """Be killed when the worker dies, however it dies (prctl(2), PR_SET_PDEATHSIG; Linux only).

    Elsewhere the end of the link ends the runner once its batch is done.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
        prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


if __name__ == "__main__":
    main()
