"""`make kafka`: one broker for a person, until Ctrl-C. Its data stays in .kafka/data."""

from __future__ import annotations

import os
import sys
import time

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker
from dev.kafka.install import INSTALLED, KAFKA, KafkaUnavailable
from dev.kafka.ports import HOST, is_free
from dev.process import ServerFailed, interrupt_by_signals, until_interrupted

DATA = INSTALLED / "data"
PORT = 9092

READY = """\
Kafka {version} answers on {bootstrap} (ready after {took_s:.1f} s): reachable from this machine only, no TLS, no passwords.
  stop     Ctrl-C; what is in it stays
  data     {folder}, with the log of the broker; delete the folder to start afresh
  topics   are not created by themselves
  look     {python} -c 'from confluent_kafka.admin import AdminClient as A; print(*A({{"bootstrap.servers": "{bootstrap}"}}).list_topics(timeout=5).topics)'
"""  # noqa: E501  (a line to copy)


def main() -> int:
    interrupt_by_signals()
    try:
        return run(int(os.environ.get("KAFKA_PORT") or PORT))
    except KeyboardInterrupt:
        return 0
    except (KafkaUnavailable, ServerFailed) as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1


def run(port: int) -> int:
    if not KAFKA.folder.exists():
        print(f"kafka: bringing Kafka {KAFKA.version} (about 45 MB, once) ...", file=sys.stderr)
    install_with_archive()
    if not is_free(port):
        print(f"kafka: {HOST}:{port} is in use; another port: make kafka KAFKA_PORT={port + 1}", file=sys.stderr)
        return 1
    broker = Broker(DATA, port=port)
    broker.log_file.unlink(missing_ok=True)
    began = time.monotonic()
    with broker:
        took_s = time.monotonic() - began
        facts = {"version": KAFKA.version, "bootstrap": broker.bootstrap, "folder": DATA, "took_s": took_s}
        print(READY.format(python=os.path.relpath(sys.executable), **facts), flush=True)
        until_interrupted(broker, "kafka")
    return 0


if __name__ == "__main__":
    sys.exit(main())
