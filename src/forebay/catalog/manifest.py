"""`model.toml`: what an operator may write about a model."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from forebay.catalog.options import Count, Name
from forebay.catalog.tables import expected, read_table
from forebay.core.batching import BatchPolicy
from forebay.core.model import ModelLimits
from forebay.core.retry import RetryPolicy

MANIFEST = "model.toml"
MAX_BYTES = 1024 * 1024
"""A model.toml with 1000 labels in it has 30 KB; what is larger than this is not one."""
MAX_SIZE = 2**62
"""No machine has so many bytes, and it fits wherever a spec is written (msgspec) or set as a limit (RLIM_INFINITY)."""

Delay = Annotated[float, Meta(ge=0, le=3600, description="seconds from 0 to 3600")]
Duration = Annotated[float, Meta(gt=0, le=30 * 24 * 3600, description="seconds, more than 0 and at most 30 days")]
Retention = Annotated[float, Meta(ge=60, le=365 * 24 * 3600, description="seconds from 60 to a year")]
Size = Annotated[
    Annotated[int, Meta(ge=1, le=MAX_SIZE)]
    | Annotated[str, Meta(pattern=r"^\s*\d{1,19}(\.\d{1,9})?\s*([KMGT]i?)?B?\s*$")],
    Meta(description='bytes as a number, or text such as "4GiB" or "512MB"; 1 to 2**62 of them'),
]
QueueLength = Annotated[int, Meta(ge=1, le=2**53)]
QueueLengths = Annotated[
    QueueLength | dict[Annotated[str, Meta(pattern="^(high|normal|low)$")], QueueLength],
    Meta(description="a whole number of at least 1, or one for each lane such as { high = 100, low = 100000 }"),
]
Attempts = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
BatchSize = Annotated[int, Meta(ge=1, le=4096, description="a whole number from 1 to 4096")]
Replicas = Annotated[int, Meta(ge=1, le=256, description="a whole number from 1 to 256")]
Factor = Annotated[float, Meta(ge=1, le=100, description="a number from 1 to 100")]
Labels = Annotated[
    tuple[str, ...] | str,
    Meta(description='a list of names, or the name of a file with one label a line such as "labels.txt"'),
]
Table = Annotated[dict[str, Any], Meta(description="a table")]


class Batching(Struct, frozen=True, kw_only=True):
    """`[batching]`; meanings and reasons stand at `core.batching.BatchPolicy`."""

    max_batch_size: BatchSize = BatchPolicy().max_batch_size
    max_queue_delay_s: Delay = BatchPolicy().max_queue_delay_s


class Limits(Struct, frozen=True, kw_only=True):
    """`[limits]`; meanings stand at `core.model.ModelLimits`."""

    run_timeout_s: Duration = ModelLimits().run_timeout_s
    start_within_s: Duration | None = ModelLimits().start_within_s
    retain_s: Retention | None = ModelLimits().retain_s
    cancel_grace_s: Delay = ModelLimits().cancel_grace_s
    memory_bytes: Size = ModelLimits().memory_bytes
    max_pixels: Count = ModelLimits().max_pixels
    max_queue_length: QueueLengths | None = None


class Retry(Struct, frozen=True, kw_only=True):
    """`[retry]`; meanings stand at `core.retry.RetryPolicy`."""

    max_attempts: Attempts = RetryPolicy().max_attempts
    first_delay_s: Delay = RetryPolicy().first_delay_s
    factor: Factor = RetryPolicy().factor
    max_delay_s: Duration = RetryPolicy().max_delay_s


class Manifest(Struct, frozen=True, kw_only=True):
    """The whole file. `task` and `runtime` None: to be told from the model's files. The tables `onnx`, `python` and
    `options` are checked once task and runtime are known."""

    task: Name | None = None
    runtime: Name | None = None
    description: Annotated[str, Meta(max_length=2000, description="text of at most 2000 characters")] = ""
    labels: Labels | None = None
    replicas: Replicas = 1
    batching: Batching = Batching()
    limits: Limits = Limits()
    retry: Retry = Retry()
    onnx: Table = {}
    python: Table = {}
    options: Table = {}

    def batch_policy(self) -> BatchPolicy:
        return BatchPolicy(
            max_batch_size=self.batching.max_batch_size, max_queue_delay_s=self.batching.max_queue_delay_s
        )

    def model_limits(self) -> ModelLimits:
        return ModelLimits(
            run_timeout_s=self.limits.run_timeout_s,
            start_within_s=self.limits.start_within_s,
            retain_s=self.limits.retain_s,
            cancel_grace_s=self.limits.cancel_grace_s,
            memory_bytes=byte_count(self.limits.memory_bytes),
            max_pixels=self.limits.max_pixels,
            max_queue_length=self.limits.max_queue_length,
        )

    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=self.retry.max_attempts,
            first_delay_s=self.retry.first_delay_s,
            factor=self.retry.factor,
            max_delay_s=self.retry.max_delay_s,
        )


def read_manifest(path: Path, mistakes: list[str]) -> Manifest:
    """The file's contents, an empty manifest if there is none. Adds a line to `mistakes` for everything wrong in it."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        mistakes.append(f"cannot be read ({error.strerror}); give the service's user the right to read it")
        return Manifest()
    if len(raw) > MAX_BYTES:
        mistakes.append(f"larger than {MAX_BYTES} bytes; put long lists of labels into a file and name it with labels")
        return Manifest()
    try:
        table = tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        mistakes.append(f"byte {error.start} is not UTF-8; save the file as UTF-8")
        return Manifest()
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"is not TOML: {error}")
        return Manifest()
    except RecursionError:
        mistakes.append("is nested too deep; no key takes more than a table of lists")
        return Manifest()
    manifest = read_table(table, Manifest, mistakes)
    size = manifest.limits.memory_bytes
    if not 1 <= byte_count(size) <= MAX_SIZE:
        mistakes.append(f"limits.memory_bytes: found {size!r}; write {expected(Size)}")
    return manifest


def byte_count(size: int | str) -> int:
    """512 -> 512, "4GiB" -> 4 * 2**30, "512MB" -> 512 * 10**6 (IEC 80000-13 prefixes)."""
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?\s*", size)
    if found is None:
        raise ValueError(f"not a size: {size!r}")
    number, prefix, binary = found.groups()
    power = " KMGT".index(prefix) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)
