"""`forebay webhooks test`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest
from tests.unit.cli.conftest import FakeService, Ran

import forebay as package
from forebay.core.webhook_secret import new_secret

Forebay = Callable[..., Ran]

SECRET, OTHER = new_secret(lambda size: b"a" * size), new_secret(lambda size: b"b" * size)


class Receiver:
    """On this machine, which a service that only this machine can reach may send to. It answers with `status`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hooks"
        self.status = 204
        self.got: list[tuple[bytes, Mapping[str, str]]] = []


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.got.append((body, dict(self.headers.items())))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        made = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_a_message_that_names_itself_is_delivered(receiver: Receiver, forebay: Forebay, secret_file: str) -> None:
    ran = forebay("webhooks", "test", receiver.url, "--secret-file", secret_file)
    [(body, headers)] = receiver.got
    message = package.verify_webhook(body, headers, SECRET)
    assert (message["type"], message["data"]) == ("webhook.test", {})
    assert re.fullmatch(r"msg_\w{32} is delivered: 204 No Content after \d\.\d{3} s\n", ran.out), ran
    assert ran.code == 0


def test_it_is_signed_with_the_secrets_of_the_tenant(fake: FakeService, receiver: Receiver, forebay: Forebay) -> None:
    until = "2026-11-23T19:00:00.000000Z"
    fake.answers("GET /v1/webhook-secret", {"secret": OTHER, "previous": {"secret": SECRET, "until": until}})
    assert forebay("webhooks", "test", receiver.url, "--json").json["status"] == 204
    [(body, headers)] = receiver.got
    assert len([package.verify_webhook(body, headers, one) for one in (SECRET, OTHER)]) == 2


def test_an_answer_that_is_none_of_success_is_told(receiver: Receiver, forebay: Forebay, secret_file: str) -> None:
    receiver.status = 302
    ran = forebay("webhooks", "test", receiver.url, "--secret-file", secret_file)
    assert (ran.code, "is not delivered: 302 Found after" in ran.err) == (1, True)
    told = forebay("webhooks", "test", receiver.url, "--secret-file", secret_file, "--json")
    assert (told.code, told.json["code"], told.json["status"]) == (1, "status", 302)


@pytest.mark.parametrize(
    ("address", "why"),
    [("https://10.0.0.1/", "private"), ("http://one.example/", "https"), ("https://one.example:22/", "port 22")],
)
def test_where_nothing_may_be_sent_is_told_with_the_reason(
    forebay: Forebay, secret_file: str, address: str, why: str
) -> None:
    ran = forebay("webhooks", "test", address, "--secret-file", secret_file)
    assert (ran.code, why in ran.err) == (1, True)


def test_what_the_settings_say_of_the_service_holds(
    receiver: Receiver, forebay: Forebay, secret_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_HOST", "0.0.0.0")
    ran = forebay("webhooks", "test", receiver.url, "--secret-file", secret_file, "--json")
    assert (ran.code, ran.json["code"], receiver.got) == (1, "egress_refused", [])
    monkeypatch.setenv("FOREBAY_WEBHOOK_HTTP_HOSTS", "127.0.0.1")
    monkeypatch.setenv("FOREBAY_WEBHOOK_ALLOW_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("FOREBAY_WEBHOOK_PORTS", str(httpx2.URL(receiver.url).port))
    assert forebay("webhooks", "test", receiver.url, "--secret-file", secret_file).code == 0


def test_a_secret_that_is_none_is_refused(receiver: Receiver, forebay: Forebay, secret_file: str) -> None:
    Path(secret_file).write_text("s3cret")
    ran = forebay("webhooks", "test", receiver.url, "--secret-file", secret_file)
    assert (ran.code, "begins with whsec_" in ran.err, receiver.got) == (1, True, [])
