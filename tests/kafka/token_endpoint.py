"""Somebody else's server: an OpenID Connect token endpoint that gives unsigned tokens (RFC 7519 section 6)."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from dev.kafka.ports import HOST

LIFE_S = 300


class TokenEndpoint:
    """`asked` holds what clients sent: their Authorization header and the form."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, dict[str, list[str]]]] = []


def token(subject: str) -> str:
    now = int(time.time())
    parts = [{"alg": "none"}, {"sub": subject, "iat": now, "exp": now + LIFE_S, "scope": "kafka"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


@contextmanager
def token_endpoint(subject: str) -> Iterator[TokenEndpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            endpoint.asked.append((self.headers.get("Authorization", ""), form))
            answer = {"access_token": token(subject), "token_type": "Bearer", "expires_in": LIFE_S}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        endpoint = TokenEndpoint(f"http://{HOST}:{server.server_address[1]}/token")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
