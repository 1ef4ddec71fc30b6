"""Records that no well-meant client sends, written with librdkafka itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import confluent_kafka.cimpl

TOPIC, PARTITION, VALUE, KEY, MSGFLAGS, HEADERS = 1, 3, 4, 5, 7, 10
COPY = 0x2
PRODUCER = 0
WITHIN_MS = 30_000


class _Memory(ctypes.Structure):
    _fields_: ClassVar = [("at", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class _Given(ctypes.Union):
    _fields_: ClassVar = [
        ("text", ctypes.c_char_p),
        ("number", ctypes.c_int),
        ("memory", _Memory),
        ("headers", ctypes.c_void_p),
        ("room", ctypes.c_char * 64),
    ]


class _Argument(ctypes.Structure):
    """`rd_kafka_vu_t`"""

    _fields_: ClassVar = [("kind", ctypes.c_int), ("given", _Given)]


def _library() -> Any:
    """The librdkafka that confluent-kafka brings, whose symbols are found through the module that is linked with it."""
    library: Any = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    for name in ("conf_new", "new", "headers_new", "produceva"):
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    return library


def produce_raw(
    bootstrap: str, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[bytes, bytes]], *, partition: int = 0
) -> None:
    """One record whose header names are any bytes. Returns when it is written."""
    library = _library()
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), None, ctypes.c_size_t(0))
    producer = ctypes.c_void_p(library.rd_kafka_new(PRODUCER, conf, None, ctypes.c_size_t(0)))
    assert producer.value
    given = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(len(headers))))
    for name, text in headers:
        sizes = ctypes.c_ssize_t(len(name)), ctypes.c_ssize_t(len(text))
        assert library.rd_kafka_header_add(given, name, sizes[0], text, sizes[1]) == 0
    arguments = (_Argument * 6)(
        _Argument(TOPIC, _Given(text=topic.encode())),
        _Argument(PARTITION, _Given(number=partition)),
        _Argument(KEY, _Given(memory=_Memory(key, len(key)))),
        _Argument(VALUE, _Given(memory=_Memory(value, len(value)))),
        _Argument(MSGFLAGS, _Given(number=COPY)),
        _Argument(HEADERS, _Given(headers=given.value)),  # the library frees them
    )
    try:
        assert library.rd_kafka_produceva(producer, arguments, ctypes.c_size_t(len(arguments))) is None
        assert library.rd_kafka_flush(producer, WITHIN_MS) == 0
    finally:
        library.rd_kafka_destroy(producer)
