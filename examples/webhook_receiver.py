"""A receiver of webhooks in plain Python: it answers 204 to what your service has signed, and 400 to anything else.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... python examples/webhook_receiver.py [PORT]

`forebay webhooks secret [ENDPOINT]` shows the secret; docs/webhooks.md says what arrives. Where forebay is installed,
`forebay.verify_webhook(body, headers, secret)` does what the package does, and raises `forebay.WebhookNotVerified`.
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
BODY_MOST_BYTES = 2 * 1024 * 1024
KNOWN_MOST = 100_000

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
one_at_a_time = threading.Lock()
done = {}  # Ids of messages. In earnest a table of your database, written in the transaction that does the work.


def handle(message):
    """Your work. What takes longer than a second belongs into a queue: the service waits 15 s for an answer."""
    print(message["type"], message["data"].get("id", ""), flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    timeout = 60

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_MOST_BYTES:
            self.close_connection = True  # there is a body that nobody reads
            return self.answer(413, "a body of at most 2 MiB, with its length")
        body = self.rfile.read(int(length))  # as it came: other bytes have another signature
        try:
            message = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError) as error:  # ValueError: headers or a body that nobody could read
            return self.answer(400, str(error))
        with one_at_a_time:
            if self.headers["webhook-id"] not in done:  # else a copy: its answer got lost, or it was sent again
                handle(message)
                done[self.headers["webhook-id"]] = True  # not before: what fails is to come again
                if len(done) > KNOWN_MOST:
                    del done[next(iter(done))]
        return self.answer(204)

    def answer(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode("ascii", "replace"))

    def log_message(self, *_):
        pass


with ThreadingHTTPServer(("127.0.0.1", PORT), Receiver) as server:
    print(f"receiving at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
