"""A receiver of webhooks with FastAPI: it answers 204 to what your service has signed, and 400 to anything else.

    pip install fastapi uvicorn standardwebhooks
    WEBHOOK_SECRET=whsec_... uvicorn --app-dir examples webhook_receiver_fastapi:app --port 9000

`forebay webhooks secret [ENDPOINT]` shows the secret; docs/webhooks.md says what arrives. Where forebay is installed,
`forebay.verify_webhook(body, headers, secret)` does what the package does, and raises `forebay.WebhookNotVerified`.
"""

import os

from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

KNOWN_MOST = 100_000

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
done = {}  # Ids of messages. In earnest a table of your database, written in the transaction that does the work.


def handle(message):
    """Your work. What takes longer than a second belongs into a queue: the service waits 15 s for an answer."""
    print(message["type"], message["data"].get("id", ""), flush=True)


@app.post("/", status_code=204)
async def receive(request: Request):
    body = await request.body()  # as it came: other bytes have another signature
    try:
        message = webhook.verify(body, dict(request.headers))
    except (WebhookVerificationError, ValueError) as error:  # ValueError: headers or a body that nobody could read
        raise HTTPException(400, str(error)) from error
    webhook_id = request.headers["webhook-id"]
    if webhook_id not in done:  # else a copy: its answer got lost, or it was sent again
        handle(message)  # Without `await`, so two copies cannot both come here; else let the database decide.
        done[webhook_id] = True  # not before: what fails is to come again
        if len(done) > KNOWN_MOST:
            del done[next(iter(done))]
