"""`make kafka`: one broker for a person, until Ctrl-C. Its data stays in .kafka/data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker
from dev.kafka.install import INSTALLED, KAFKA, KafkaUnavailable
from dev.kafka.java_process import BrokerFailed
from dev.kafka.ports import HOST, is_free

DATA = INSTALLED / "data"
PORT = 9092
STOP_WITHIN_S = 30.0

READY = """\
Kafka {version} answers on {bootstrap} (ready after {took_s:.1f} s): reachable from this machine only, no TLS, no passwords.
  stop     Ctrl-C; what is in it stays
  data     {folder}, with the log of the broker; delete the folder to start afresh
  topics   are not created by themselves
  look     {python} -c 'from confluent_kafka.admin import AdminClient as A; print(*A({{"bootstrap.servers": "{bootstrap}"}}).list_topics(timeout=5).topics)'
"""  # noqa: E501  (a line to copy)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return run(int(os.environ.get("KAFKA_PORT") or PORT))
    except KeyboardInterrupt:
        return 0
    except (KafkaUnavailable, BrokerFailed) as error:
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
        try:
            status = broker.wait()
        except KeyboardInterrupt:
            stop(broker)
            return 0
        raise BrokerFailed(f"it ended by itself with status {status}:\n{broker.log_tail()}")


def stop(broker: Broker) -> None:
    print("kafka: stopping ...", file=sys.stderr)
    try:
        broker.stop(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        broker.kill()


if __name__ == "__main__":
    sys.exit(main())
