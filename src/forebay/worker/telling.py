"""What handlers say while they run, on its way out of the runner.

They speak at any rate, from any thread, and never wait: what comes is put together, and one thread, started when
somebody first speaks, sends it every FLUSH_EVERY_S. What is left goes out before the batch is answered.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from typing import Any

from forebay.core.errors import ModelFailed
from forebay.ports.runtime import Listener
from forebay.tasks.json_values import encode_json_output
from forebay.worker import frames

FLUSH_EVERY_S = 0.05
"""Few frames, however many words a handler makes; and nobody sees a word come so much later."""


class Teller:
    """One for the process. The batch that is predicted has the word, from `open` to `close`.

    `send` is called by one thread at a time, and by none but the caller's own between `close` and the next `open`.
    """

    def __init__(self, send: Callable[[frames.Said], None]) -> None:
        self._send = send
        self._words = threading.Condition()  # guards all that follows
        self._number = 0
        self._open = False
        self._unsent: dict[int, Voice] = {}
        self._thread: threading.Thread | None = None
        self._sending = threading.Lock()  # so that frames leave in the order in which their words were taken

    def open(self, number: int) -> None:
        """Batch `number` has the word."""
        with self._words:
            self._number, self._open = number, True

    def voice(self, place: int) -> Voice:
        """Of that input of the batch which has the word."""
        return Voice(self, self._number, place)

    def close(self) -> None:
        """Nothing more may be said of the batch, and all that was is sent."""
        with self._words:
            self._open = False
        self._flush()

    def say(self, voice: Voice, progress: float | None, chunk: bytes | None) -> None:
        """Raises ModelFailed for too much, RuntimeError for a batch that has the word no more."""
        with self._words:
            if not self._open or voice.number != self._number:
                raise RuntimeError("this input has been answered: nothing more can be said of it")
            voice.add(progress, chunk)
            self._unsent[voice.place] = voice
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
                self._thread.start()
            self._words.notify()

    def _run(self) -> None:
        while True:
            with self._words:
                self._words.wait_for(lambda: self._unsent)
            try:
                self._flush()
            except OSError:  # the worker is gone, and this process is about to be
                return
            time.sleep(FLUSH_EVERY_S)

    def _flush(self) -> None:
        with self._sending:
            with self._words:
                said = [voice.take() for voice in self._unsent.values()]
                self._unsent.clear()
            for frame in said:
                self._send(frame)


class Voice(Listener):
    """What was said of one input and is not sent yet."""

    __slots__ = ("_chunks", "_progress", "_teller", "_weight", "number", "place")  # one is made for each input

    def __init__(self, teller: Teller, number: int, place: int) -> None:
        self.number = number
        self.place = place
        self._teller = teller
        self._progress: float | None = None
        self._chunks: list[bytes] = []
        self._weight = 0

    def progress(self, fraction: float) -> None:
        self._teller.say(self, fraction, None)

    def emit(self, chunk: Any) -> None:
        encoded = encode_json_output(
            {"base64": base64.b64encode(chunk).decode()} if isinstance(chunk, (bytes, bytearray, memoryview)) else chunk
        )
        if len(encoded) > frames.CHUNK_MAX_BYTES:
            text = f"a chunk has {len(encoded)} bytes as JSON, more than {frames.CHUNK_MAX_BYTES}"
            raise ModelFailed(text, code="chunk_too_large")
        self._teller.say(self, None, encoded)

    def add(self, progress: float | None, chunk: bytes | None) -> None:
        """Called by the teller only, as is `take`. Raises ModelFailed."""
        if progress is not None:
            self._progress = progress
        if chunk is not None:
            weight = self._weight + frames.weight([chunk])
            if weight > frames.EMITTED_MAX_BYTES:
                text = f"the chunks of an attempt may have {frames.EMITTED_MAX_BYTES} bytes, and this one is beyond"
                raise ModelFailed(text, code="too_much_emitted")
            self._weight = weight
            self._chunks.append(chunk)

    def take(self) -> frames.Said:
        said = frames.Said(self.number, self.place, self._progress, self._chunks)
        self._progress, self._chunks = None, []
        return said
