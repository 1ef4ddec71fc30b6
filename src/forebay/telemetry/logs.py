"""How logs are set up: one line per event on standard error, the same for our events and those of libraries.

    log.info("job.succeeded", job=..., model=...)      a dotted event in the past tense, fields instead of prose

No payload is ever logged: neither an input nor an output, nor a variable of a traceback's frames, which may hold one.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "json", "console"]

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure_logs(level: str, format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process. Call it once, before the first event.

    `level` is the least severe that is written: debug, info, warning or error. `auto` writes for people when `stream`
    (standard error by default) is a terminal, else JSON. Repeating it replaces what was set up before.
    """
    stream = sys.stderr if stream is None else stream
    console = format == "console" or (format == "auto" and stream.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console, key="time"),
    ]
    last: list[Processor] = [_console(stream)] if console else [structlog.processors.format_exc_info, _json_line]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,  # about a third of an event's cost
    )
    _adopt_standard_logging(max(least, logging.INFO), stream, first, last)


def _adopt_standard_logging(least: int, stream: TextIO, first: list[Processor], last: list[Processor]) -> None:
    """Libraries log through us. Their DEBUG stays off, since it may hold payloads."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*first, structlog.stdlib.ExtraAdder(), structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # uvicorn brings handlers of its own
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it starts and stops is told by our own events
    logging.captureWarnings(True)


def _console(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        timestamp_key="time",
        exception_formatter=structlog.dev.plain_traceback,
    )


def _json_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Time, level and event first, so that a line can be read from its left edge."""
    head: dict[str, Any] = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    return _encode({**head, **event}).decode()
