"""What a worker and its runner say to each other over their socketpair.

A frame is 4 bytes of length (big-endian) and that many bytes of MessagePack. No pickle: a runner executes model code,
so nothing that it sends may do more to the worker than be a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from forebay.core.errors import ForebayError
from forebay.core.event import JobError
from forebay.core.model import ModelSpec

LENGTH_BYTES = 4
FRAME_MAX_BYTES = 2**32 - 1

CHUNK_MAX_BYTES = 256 * 1024
"""Of one chunk: what a record of the log takes with ease. A larger one is an output and no piece of one."""

EMITTED_MAX_BYTES = 4 * 1024 * 1024
"""Of all chunks of an attempt, some hundred thousand words. They lie in the log, in the store and in the memory of
whoever has yet to send them on; larger things belong into a store of their own, and a chunk can say where."""

CHUNK_COSTS_BYTES = 16
"""What each counts beside its bytes, so that their number is bounded too."""


class Load(Struct, frozen=True, tag="load"):
    """First frame to a runner: the one model it serves. `decode_threads` bounds parallel decoding."""

    spec: ModelSpec
    decode_threads: int


class Item(Struct, frozen=True):
    """One input of a batch. `parameters` is a JSON object, or empty: JSON has numbers that MessagePack has not."""

    job_id: str
    attempt: int
    media_type: str
    data: bytes
    parameters: bytes


class Batch(Struct, frozen=True, tag="batch"):
    """Decode these now; predict them when `Go` with the same number comes."""

    number: int
    items: list[Item]


class Go(Struct, frozen=True, tag="go"):
    """The attempt is on record: predict batch `number`. With `go` false: forget it, nothing is answered."""

    number: int
    go: bool = True


class Cancel(Struct, frozen=True, tag="cancel"):
    """Nobody wants the output of this job, of batch `number`, any more."""

    number: int
    job_id: str


class Ready(Struct, frozen=True, tag="ready"):
    """The model is loaded; `facts` are for the operator."""

    facts: Mapping[str, Any]


class LoadFailed(Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded, for this reason; the runner exits."""

    reason: str


class Outcome(Struct, frozen=True, omit_defaults=True):
    """An output or an error, for one input."""

    media_type: str = ""
    data: bytes = b""
    error: JobError | None = None


class Said(Struct, frozen=True, tag="said"):
    """What the handler says of input `place` of a batch while it runs: how far it is, if it said so, and what it has
    emitted since, each chunk as JSON in one line."""

    number: int
    place: int
    progress: float | None
    chunks: list[bytes]


class Done(Struct, frozen=True, tag="done"):
    """One outcome per input, in order. Seconds are of this batch: decoding, and inference with postprocessing."""

    number: int
    outcomes: list[Outcome]
    decode_s: float
    predict_s: float


class Raised(Struct, frozen=True, tag="raised"):
    """The batch raised as a whole; whose fault it was is not known unless it held one input. `last`: the runner ends
    after this, since it cannot be trusted to be as it was."""

    number: int
    error: JobError
    last: bool = False


ToRunner = Load | Batch | Go | Cancel
FromRunner = Ready | LoadFailed | Said | Done | Raised

_encoder = msgspec.msgpack.Encoder()
decode_to_runner = msgspec.msgpack.Decoder(ToRunner).decode
decode_from_runner = msgspec.msgpack.Decoder(FromRunner).decode


def weight(chunks: Sequence[bytes]) -> int:
    """What they count of EMITTED_MAX_BYTES."""
    return sum(map(len, chunks)) + CHUNK_COSTS_BYTES * len(chunks)


def encode(frame: ToRunner | FromRunner) -> bytes:
    """Length and body. Raises ForebayError (`batch_too_large`) for a body over 4 GiB."""
    body = _encoder.encode(frame)
    if len(body) > FRAME_MAX_BYTES:
        raise ForebayError(f"a batch of {len(body)} bytes does not fit a frame", code="batch_too_large")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
