"""The settings of the service itself, whatever stands behind it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from forebay.core.clocks import MIN_RUN_TIMEOUT_S
from forebay.core.ids import SECRET_MIN_BYTES
from forebay.core.quota import Quota
from forebay.settings.meaning import KIB, MIB, Bytes, Limit, Meaning, Name, Port, Seconds, Secret

HOSTS = r"[^\s/@,:]+(:[0-9]+)?(,[^\s/@,:]+(:[0-9]+)?)*"


def _worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class ServiceSettings(BaseModel):
    """Those that hold for every backend."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    host: Annotated[
        Name,
        Meaning(
            "Address that the API listens on.",
            "Nobody beyond this machine, until you say so: another address takes an API key, `forebay keys create`.",
            "a host name or an IP address",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        Port,
        Meaning("TCP port of the API; 0 takes any free one.", "What uvicorn listens on.", "a whole number, 0 to 65535"),
    ] = 8000
    allow_unauthenticated: Annotated[
        bool,
        Meaning(
            "Let `host` be an address that other machines can reach, though there is no API key.",
            "A service that runs models for whoever finds it must be meant: something in front asks who calls.",
            "true or false",
        ),
    ] = False
    api_key_file: Annotated[
        str,
        Meaning(
            "File with the first API key: a secret of 32 characters or more, as from `openssl rand -hex 32`. It is "
            "taken in at the start, for the tenant `default` and with every scope. Empty for none.",
            "Keys are made with `forebay keys create`; a container has no shell to type that in.",
            "a file's path, relative to where the command is run",
        ),
    ] = ""
    admin_host: Annotated[
        Name,
        Meaning(
            "Address that `/metrics` and the admin pages listen on.",
            "They tell more than callers should know; open it to your monitoring network only.",
            "a host name or an IP address",
        ),
    ] = "127.0.0.1"
    admin_port: Annotated[
        Port,
        Meaning(
            "TCP port of `/metrics` and the admin pages; 0 takes any free one.",
            "The port that OpenTelemetry reserves for a Prometheus exporter.",
            "a whole number, 0 to 65535",
        ),
    ] = 9464
    data_dir: Annotated[
        Path,
        Meaning(
            "Folder of everything that outlives the process. One process at a time.",
            "Beside the project it belongs to, where it is easily found and deleted.",
            "a folder's path, relative to where the command is run",
        ),
    ] = Path(".forebay")
    models_dir: Annotated[
        Path,
        Meaning(
            "Folder of the models: one folder each, with one folder per version.",
            "Kept with the code that uses them.",
            "a folder's path, relative to where the command is run",
        ),
    ] = Path("models")
    trusted_models: Annotated[
        tuple[Name, ...],
        Meaning(
            "Models that may run code of their own (Python handlers). Others must be data, such as ONNX.",
            "A file dropped into a folder must not become code that runs.",
            "model names, separated by commas",
        ),
    ] = ()
    models: Annotated[
        tuple[Name, ...],
        Meaning(
            "Models that this worker serves; empty for all in `models_dir`.",
            "One machine serves everything until there are several.",
            "model names, separated by commas",
        ),
    ] = ()
    queue: Annotated[
        Annotated[str, Field(pattern=rf"^(sqlite://|memory://|kafka://{HOSTS})$")],
        Meaning(
            "Where accepted jobs wait: `sqlite://` (a file in `data_dir`), `kafka://HOST:PORT,...` (the brokers that "
            "are asked first) or `memory://` (lost at exit, for tests).",
            "Durable without installing anything.",
            "sqlite://, kafka://HOST:PORT[,HOST:PORT...] or memory://",
        ),
    ] = "sqlite://"
    store: Annotated[
        Annotated[str, Field(pattern=r"^(sqlite://|memory://|postgresql://\S+)$")],
        Meaning(
            "Where states and results are read from: `sqlite://` (a file in `data_dir`: for one process), "
            "`postgresql://USER@HOST/DATABASE` or `memory://` (for tests). Give a password by libpq's means "
            "(`PGPASSWORD`, a password file) or in the address, in the environment or the file.",
            "Durable without installing anything.",
            "sqlite://, postgresql://USER@HOST:PORT/DATABASE or memory://",
        ),
    ] = "sqlite://"
    blobs: Annotated[
        Annotated[str, Field(pattern=r"^(files://(/\S*)?|memory://|(s3|gs|az)://\S+)$")],
        Meaning(
            "Where payloads above `inline_limit_bytes` lie: `files://` (a folder in `data_dir`), `files:///FOLDER` "
            "(that folder), `s3://BUCKET/PREFIX`, `gs://...`, `az://...` or `memory://` (for tests). Credentials and "
            "endpoint come from the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).",
            "Durable without installing anything.",
            "files://, files:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory://",
        ),
    ] = "files://"
    blobs_shared: Annotated[
        bool,
        Meaning(
            "Say that the folder of `blobs` is the same one on every machine that runs a role (NFS or such).",
            "With Kafka the roles are on several machines; a folder that only one of them sees would lose inputs.",
            "true or false",
        ),
    ] = False
    synchronous: Annotated[
        Literal["normal", "full"],
        Meaning(
            "What an accepted job survives: `normal` any death of the process (durability class `process`), "
            "`full` a power cut too (`flushed`): every commit then waits for the disk.",
            "Submitting is several times faster; the class is shown in `/health` and in every job.",
            "normal or full",
        ),
    ] = "normal"
    inline_limit_bytes: Annotated[
        Bytes,
        Meaning(
            "Inputs and results above this go to `blobs`; below it they travel with the job.",
            "256 KiB: most inputs need one write only, and the queue's records stay small.",
            "a whole number of bytes, 0 or more",
        ),
    ] = 256 * KIB
    max_body_bytes: Annotated[
        Bytes,
        Meaning(
            "Largest request body; more is answered with 413 before it is parsed.",
            "32 MiB: a photo of 24 MB fits, also in base64; a body is held in memory whole.",
            "a whole number of bytes, 0 or more",
        ),
    ] = 32 * MIB
    max_queue_length: Annotated[
        Limit,
        Meaning(
            "How many jobs may wait in one lane of one model; more are answered with 429 until it has drained. "
            "`max_queue_length` in a model's `[limits]` goes before it.",
            "Two million: twice what was measured to wait while every process keeps its memory; it stops a producer "
            "that runs away before the disk does.",
            "a whole number, 0 for no limit",
        ),
    ] = 2_000_000
    quota_jobs_per_minute: Annotated[
        Limit,
        Meaning(
            "How many jobs a tenant may have accepted in any minute; more are answered with 429. `forebay quotas` sets "
            "other limits for one tenant.",
            "0, no limit: who shares a service with nobody needs none.",
            "a whole number, 0 for no limit",
        ),
    ] = 0
    quota_jobs_per_day: Annotated[
        Limit,
        Meaning(
            "How many jobs a tenant may have accepted from midnight to midnight UTC.",
            "0, no limit, as above.",
            "a whole number, 0 for no limit",
        ),
    ] = 0
    quota_jobs_outstanding: Annotated[
        Limit,
        Meaning(
            "How many jobs of a tenant may be accepted and not final yet.",
            "0, no limit, as above.",
            "a whole number, 0 for no limit",
        ),
    ] = 0
    max_life_s: Annotated[
        Seconds,
        Meaning(
            "Within so long after its acceptance every job has ended; one that has not by then fails with `deadline`. "
            "At most a third of `kafka_retention_s`.",
            "A day: nothing waits for ever, and a night's outage fails nothing.",
            "seconds, more than 0",
        ),
    ] = 86_400.0
    max_start_within_s: Annotated[
        Seconds,
        Meaning(
            "Most that a job may ask for as `start_within_s`; `max_life_s` bounds it too.",
            "As long as a job lives.",
            "seconds, more than 0",
        ),
    ] = 86_400.0
    max_run_timeout_s: Annotated[
        float,
        Field(ge=MIN_RUN_TIMEOUT_S, allow_inf_nan=False),
        Meaning(
            "Most that a job may ask for as `run_timeout_s`; its model's own limit bounds it too.",
            "As long as a job lives: the models' own limits are narrower.",
            f"seconds, {MIN_RUN_TIMEOUT_S:g} or more",
        ),
    ] = 86_400.0
    retain_s: Annotated[
        Seconds,
        Meaning(
            "How long a final job is kept, with its output, if neither the job nor its model says. Then it is deleted.",
            "A day: whoever was away overnight still finds it, and no disk fills.",
            "seconds, 60 or more",
        ),
    ] = 86_400.0
    max_retain_s: Annotated[
        Seconds,
        Meaning(
            "Most that a job may ask for as `retain_s`. With Kafka it is never more than `kafka_retention_s` less "
            "`max_life_s`: what was visible must be in the log until it is deleted.",
            "Six days, which is what the default retention of topics leaves.",
            "seconds, 60 or more",
        ),
    ] = 6 * 86_400.0
    min_retain_s: Annotated[
        Seconds,
        Meaning(
            "Least that a job may ask for as `retain_s`. For tests.",
            "A minute: whoever asks for the result has time for it.",
            "seconds, more than 0",
            hidden=True,
        ),
    ] = 60.0
    secrets: Annotated[
        tuple[Secret, ...],
        Meaning(
            "Secrets that sign job ids, the same for all replicas. The first signs, all verify: rotate them so.",
            "`forebay up` makes one and keeps it in `data_dir`; roles run apart must be given one.",
            f"secrets of {SECRET_MIN_BYTES} characters or more, separated by commas",
            secret=True,
        ),
    ] = ()
    worker_id: Annotated[
        Name,
        Meaning(
            "Name of this worker in events and logs.",
            "Unique among running processes, and it says where to look.",
            "a name",
            shown_default="host name and process id, such as `ada-4711`",
        ),
    ] = Field(default_factory=_worker_id)
    load_timeout_s: Annotated[
        Seconds,
        Meaning(
            "How long a runner may take to load its model before it is killed and the model is called unavailable.",
            "Two minutes: a model of several GB from a slow disk.",
            "seconds, more than 0",
        ),
    ] = 120.0
    shutdown_grace_s: Annotated[
        Seconds,
        Meaning(
            "How long a stop waits for work in hand; what is unfinished then runs again at the next start.",
            "Less than the 30 s after which Kubernetes kills.",
            "seconds, more than 0",
        ),
    ] = 25.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(_lower),
        Meaning(
            "Least severe log event that is written. `debug` tells of every job, `info` of every batch.",
            "One line per batch can be read; one per job costs more than the job.",
            "debug, info, warning or error, in any case",
        ),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meaning(
            "`json` writes one object per line, `console` is for people; `auto` takes `console` on a terminal.",
            "Right in a container and at a desk.",
            "auto, json or console",
        ),
    ] = "auto"
    crash_at: Annotated[
        Annotated[str, Field(pattern=r"^([a-z_.]+:[1-9][0-9]*)?$")],
        Meaning(
            "Kill this process the n-th time it reaches a crash point: `point:n`. For tests.",
            "Nothing is armed.",
            "a crash point and a count, such as worker.begun:3",
            hidden=True,
        ),
    ] = ""

    @property
    def default_quota(self) -> Quota:
        """Of a tenant for whom nothing else was said."""
        return Quota(
            jobs_per_minute=self.quota_jobs_per_minute or None,
            jobs_per_day=self.quota_jobs_per_day or None,
            jobs_outstanding=self.quota_jobs_outstanding or None,
        )

    @property
    def on_kafka(self) -> bool:
        return self.queue.startswith("kafka://")

    @property
    def secret_bytes(self) -> tuple[bytes, ...]:
        """The secrets as `IdMint` takes them."""
        return tuple(secret.get_secret_value().encode() for secret in self.secrets)
