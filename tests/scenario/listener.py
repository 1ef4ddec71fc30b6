"""A receiver of webhooks in the test's own process, which answers as it is told and keeps what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

WITHIN_S = 60.0


class Message(NamedTuple):
    """`shown`: what could be read of the job or batch while the message was there and not answered."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    shown: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["type"])


class Listener:
    """`look` gives what can be read at a path of the service; `statuses` are answered in turn, then 204."""

    def __init__(self, look: Callable[[str], Mapping[str, Any]], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.statuses: list[int] = []
        self._look = look
        self._messages: list[Message] = []
        self._came = threading.Condition()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        shown = self._look(json.loads(body)["data"]["urls"]["self"])
        with self._came:
            self._messages.append(Message(path, headers, body, shown))
            self._came.notify_all()
            return self.statuses.pop(0) if self.statuses else 204

    def messages(self, count: int, path: str = "/") -> list[Message]:
        """The first so many at `path`, once they are there."""
        with self._came:
            there = self._came.wait_for(lambda: len(self.all(path)) >= count, WITHIN_S)
            assert there, (
                f"not {count} messages after {WITHIN_S:g} s: {[(one.path, one.type) for one in self._messages]}"
            )
            return self.all(path)[:count]

    def all(self, path: str) -> list[Message]:
        """Those that came so far."""
        return [one for one in self._messages if one.path == path]


@contextmanager
def listener(look: Callable[[str], Mapping[str, Any]]) -> Iterator[Listener]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = WITHIN_S

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(made.take(self.path, headers, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        server.block_on_close = False  # connections are kept by whoever sends
        made = Listener(look, server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
