"""What the tests built on real brokers take for granted of each kind."""

from __future__ import annotations

from pathlib import Path

from tests.kafka.client import consume, create_topic, produce

VALUES = [f"{number}: µ\x00".encode() for number in range(100)]

LOOPBACK = {"0100007F"}
"""127.0.0.1, as `listening_addresses` has it."""


def arrives_with_its_headers(bootstrap: str, group_protocol: str) -> None:
    topic = create_topic(bootstrap)

    assert produce(bootstrap, topic, VALUES) == [None] * len(VALUES)
    messages = consume(bootstrap, topic, len(VALUES), group_protocol=group_protocol)

    assert [message.value() for message in messages] == VALUES
    assert [message.key() for message in messages] == [value[:1] for value in VALUES]
    assert [message.headers() for message in messages] == [
        [("ce_id", value), ("empty", b""), ("none", None)] for value in VALUES
    ]


def listening_addresses(pid: int) -> set[str]:
    """The local addresses, in hexadecimal as the kernel prints them, on which the process listens."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            address, state, inode = columns[1], columns[3], columns[9]
            if state == "0A" and f"socket:[{inode}]" in sockets:  # 0A: listening
                found.add(address.partition(":")[0])
    return found
