"""Every job tells a receiver that is faulty in its own way, while dispatchers are killed and the secret changes."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.reading import BROKEN_OFF, session
from chaos.receivers import AT_TIMES, FOR_EVER, Heard, Receivers
from chaos.report import Order, Part
from chaos.rules import Least
from dev.kafka.secure import Certificates

BETWEEN_S = (1.0, 4.0)
FOR_EVER_SHARE = 0.02
"""Of the jobs, which tell a receiver that never takes anything: ten tries for each."""

TIMEOUT_S = 0.5
"""So short that receivers which let it pass cost the storm minutes and not hours."""

SETTLED_WITHIN_S = 400.0
POLL_S = 1.0
READERS = 16

LONG = Least(accepted=5_000, faults=20, told=4_500, parked=40)
SHORT = Least(accepted=200, faults=4, told=150, parked=1)


def storm(order: Order) -> Iterator[Part]:
    least = SHORT if order.short else LONG
    certificates = Certificates(order.folder / "certificates")
    certificates.make()
    with _trusted(certificates.ca_file):
        yield _Storm(order, least, certificates).run()


class _Storm:
    def __init__(self, order: Order, least: Least, certificates: Certificates) -> None:
        self._order = order
        self._least = least
        self._random = random.Random(order.seed)
        self._heard = Heard(self._look)
        contexts = _context(certificates, "broker"), _context(certificates, "nobody")
        self._receivers = Receivers(self._heard, self._random, slow_s=TIMEOUT_S + 1.0, tls=contexts)
        self._apis: Sequence[str] = ()
        self._jobs: dict[str, None] = {}
        self._told = self._parked = self._untold = self._wrongly_parked = 0

    def run(self) -> Part:
        settings = {
            "webhook_allow_networks": "127.0.0.0/8",
            "webhook_http_hosts": "127.0.0.1",
            "webhook_ports": ",".join(map(str, self._receivers.ports.values())),
            "webhook_timeout_s": str(TIMEOUT_S),
        }
        shape = Shape(apis=2, workers=2, projectors=2, dispatchers=2, settings=settings, hasty=True)
        plan = Plan(wish=self._wish, waiting_at_most=500, pace_s=0.4 if self._order.short else 0.1)
        frame = Frame(title="faulty receivers, dispatchers killed", shape=shape, plan=plan, least=self._least)
        part = on_kafka(self._order, frame, self._kill, before=self._open, afterwards=self._close)
        verdict = replace(
            part.verdict,
            told=self._told,
            parked=self._parked,
            untold=self._untold,
            wrongly_parked=self._wrongly_parked,
            forged=self._heard.forged,
            unlike=self._heard.unlike,
            early=self._heard.early,
        )
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self._heard.faults.items()))
        return replace(part, verdict=verdict, title=f"{part.title} (failed: {faults})")

    def _wish(self, rng: random.Random) -> Wish:
        kind = rng.choice(list(FOR_EVER)) if rng.random() < FOR_EVER_SHARE else rng.choice(AT_TIMES)
        return Wish({"run_s": 0.0}, webhook=self._receivers.url(kind))

    async def _open(self, nemesis: Nemesis) -> None:
        self._apis = [role.url for role in nemesis.of("api")]
        self._http = session()
        self._heard.secrets.append((await self._get("/v1/webhook-secret"))["secret"])
        await self._receivers.open()

    async def _kill(self, load: Load, nemesis: Nemesis) -> None:
        self._jobs, struck = load.accepted, 0
        async with asyncio.TaskGroup() as tasks:
            while struck < self._least.faults or len(load.accepted) < self._least.accepted:
                # The random moment is the experiment: there is no condition to wait for.
                await asyncio.sleep(self._random.uniform(*BETWEEN_S))
                struck += nemesis.strike(tasks, 0.0, "webhooks")
                if struck >= self._least.faults / 2 and len(self._heard.secrets) == 1:
                    await self._rotate()

    async def _rotate(self) -> None:
        async with self._http.post(f"{self._apis[0]}/v1/webhook-secret/rotate", json={}) as answer:
            answer.raise_for_status()
            self._heard.secrets.append((await answer.json())["secret"])

    async def _close(self, nemesis: Nemesis) -> None:
        """When nothing is pending any more, or has had the time."""
        until, waiting = time.monotonic() + SETTLED_WITHIN_S, list(self._jobs)
        while waiting:
            waiting = [job for job in await self._judge(waiting) if time.monotonic() < until or self._give_up(job)]
            await asyncio.sleep(POLL_S if waiting else 0.0)
        await self._receivers.close()
        await self._http.close()

    def _give_up(self, job: str) -> bool:
        self._untold += 1
        return False

    async def _judge(self, jobs: Sequence[str]) -> list[str]:
        """Those that have a delivery which is pending still."""
        turn = asyncio.Semaphore(READERS)

        async def judge(job: str) -> bool:
            async with turn:
                return self._settled(await self._get(f"/v1/jobs/{job}/deliveries"))

        settled = await asyncio.gather(*map(judge, jobs))
        return [job for job, is_settled in zip(jobs, settled, strict=True) if not is_settled]

    def _settled(self, answer: Mapping[str, Any]) -> bool:
        if len(answer["deliveries"]) != 1:
            return False  # none was made, and none ever will be
        [delivery] = answer["deliveries"]
        kind = delivery["url"].rpartition("/")[2]
        if delivery["status"] == "pending":
            return False
        if kind in FOR_EVER:
            self._parked += 1
            self._wrongly_parked += (delivery["status"], delivery.get("reason")) != ("parked", FOR_EVER[kind])
        elif delivery["status"] == "parked":
            self._wrongly_parked += 1
        else:
            taken = delivery["id"] in self._heard.taken
            self._told += taken
            self._untold += not taken
        return True

    async def _look(self, job: str) -> str:
        answer = await self._get(f"/v1/jobs/{job}")
        return str(answer["status"])

    async def _get(self, path: str) -> Any:
        """From any API that answers: none is hit."""
        while True:
            try:
                async with self._http.get(f"{self._random.choice(self._apis)}{path}") as answer:
                    if answer.status == 200:
                        return await answer.json()
            except BROKEN_OFF:  # it is asked again
                pass
            await asyncio.sleep(POLL_S)


@contextmanager
def _trusted(authority: Path) -> Iterator[None]:
    """By the processes that are started meanwhile, whatever else is on this machine."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(authority)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before


def _context(certificates: Certificates, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.file(name), certificates.file(name, "key"))
    return context
