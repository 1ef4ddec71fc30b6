"""The reader's thread when something fails in it. The consumer is a stand-in: no broker fails on demand like this."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from forebay.adapters.kafka import reader
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry, Request
from forebay.adapters.kafka.hand import Hand
from forebay.adapters.kafka.lifeline import CERTAIN_AFTER
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.member import Member
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.reader import Reader
from forebay.core.errors import ForebayError, InvalidRequest, Misconfigured, Unavailable
from forebay.core.message import Message
from forebay.testing.samples import message

WITHIN_S = 20.0
PLACE = ("topic", 0)


class Record:
    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self._offset = offset
        self._error = error

    def topic(self) -> str:
        return "topic"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def headers(self) -> None:
        return None


class Log:
    """A partition of ten records and what a group has committed of it. `trouble` is raised or given by the next polls
    or commits."""

    def __init__(self) -> None:
        self.committed: tuple[int, str] | None = None
        self.commits: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.poll_trouble: list[BaseException | Record] = []
        self.commit_trouble: list[KafkaException | KafkaError] = []
        self.silent = 0  # so many consumers get no answer to what was committed
        self.consumers: list[Consumer] = []
        self.damaged: set[int] = set()
        self.lost: set[int] = set()
        self.bounds = (0, 10)
        self.assigned: queue.SimpleQueue[int] = queue.SimpleQueue()

    def consumer(self, config: dict[str, Any]) -> confluent_kafka.Consumer:
        self.consumers.append(Consumer(self, config))
        return cast("confluent_kafka.Consumer", self.consumers[-1])


class Consumer:
    def __init__(self, log: Log, config: dict[str, Any]) -> None:
        self._log = log
        self.stats_cb: Callable[[str], None] = config["stats_cb"]
        self._next: int | None = None
        self.closed = False

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke

    def poll(self, timeout_s: float) -> Record | None:
        assert not self.closed
        if self._next is None:
            self._on_assign(self, [TopicPartition(*PLACE)])
        if self._log.poll_trouble:
            trouble = self._log.poll_trouble.pop(0)
            if isinstance(trouble, Record):
                return trouble
            raise trouble
        if self._next is None or self._next >= self._log.bounds[1]:
            threading.Event().wait(min(timeout_s, 0.01))
            return None
        self._next += 1
        if self._next - 1 in self._log.lost:
            self._log.lost.clear()
            raise RuntimeError("a bug")
        damaged = self._next - 1 in self._log.damaged
        return Record(self._next - 1, KafkaError(KafkaError._BAD_MSG) if damaged else None)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if len(self._log.consumers) <= self._log.silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        offset, metadata = self._log.committed or (-1001, "")
        return [TopicPartition(*PLACE, offset, metadata)]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._log.assigned.put(partition.offset)
            self._next = max(partition.offset, self._log.bounds[0])

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        [partition] = offsets
        if self._log.commit_trouble:
            trouble = self._log.commit_trouble.pop(0)
            if isinstance(trouble, KafkaException):
                raise trouble
            return [cast("TopicPartition", Answer(trouble))]
        self._log.committed = (partition.offset, partition.metadata or "")
        self._log.commits.put(self._log.committed)
        return [partition]

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        return None

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return self._log.bounds

    def pause(self, partitions: list[TopicPartition]) -> None:
        return None

    def resume(self, partitions: list[TopicPartition]) -> None:
        return None

    def close(self) -> None:
        self.closed = True
        if self._next is not None:
            self._on_revoke(self, [TopicPartition(*PLACE)])


class Answer:
    def __init__(self, error: KafkaError) -> None:
        self.error = error


@pytest.fixture
def log() -> Log:
    return Log()


class Rig:
    """A reader that runs, and the loop's side of its hand."""

    def __init__(self, log: Log, read: Callable[[Record], Message]) -> None:
        self.rung = threading.Event()
        self.hand = Hand(self.rung.set)
        self.unreadable: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self.reader = Reader(
            KafkaLink(bootstrap="127.0.0.1:1"),
            ConsumerPlan(),
            "group",
            ["topic"],
            self.hand,
            read=lambda record, headers: read(cast("Any", record)),
            unreadable=self._unreadable,
            consumer=log.consumer,
        )
        self.reader.start()

    def _unreadable(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.unreadable.put(entry)

    def take(self, count: int) -> dict[int, int]:
        """Receipts by offset."""
        taken: dict[int, int] = {}
        while len(taken) < count:
            self.rung.clear()
            more = self.hand.take(count - len(taken))
            taken.update((entry.offset, entry.receipt) for entry, _ in more)
            assert more or self.rung.wait(WITHIN_S)
        return taken

    def begin(self, *receipts: int, deadline: float = float("inf")) -> ForebayError | None:
        answers: queue.SimpleQueue[ForebayError | None] = queue.SimpleQueue()
        self.hand.ask(Request(receipts=receipts, answer=answers.put, deadline=deadline))
        return answers.get(timeout=WITHIN_S)


@pytest.fixture
def rig(log: Log) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(read: Callable[[Record], Message] = lambda record: message(record.offset())) -> Rig:
        rigs.append(Rig(log, read))
        return rigs[-1]

    yield make
    for one in rigs:
        one.hand.close()
        assert one.reader.join(WITHIN_S)


def test_what_is_acknowledged_is_committed_by_itself_and_the_rest_at_the_end(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    taken = one.take(10)
    one.hand.done([taken[0], taken[2]])
    assert log.commits.get(timeout=WITHIN_S) == (1, "v1;b=1;s=;r=.-")
    one.hand.done([taken[1]])
    one.hand.close()
    assert one.reader.join(WITHIN_S)
    assert log.committed == (3, "")
    assert [consumer.closed for consumer in log.consumers] == [True]


def test_a_fault_in_the_thread_begins_anew_from_what_is_committed(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    before = one.take(10)
    assert one.begin(before[4]) is None
    log.poll_trouble.append(RuntimeError("a bug"))
    again = one.take(10)
    assert sorted(again) == list(range(10))
    assert not any(map(one.hand.holds, before.values()))
    assert [consumer.closed for consumer in log.consumers] == [True, False]
    assert log.committed == (0, "v1;b=0;s=1.0;r=.4A")  # an attempt, and nobody has died


def test_what_was_done_before_a_fault_in_the_thread_is_done(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    taken = one.take(10)
    assert one.begin(taken[9]) is None  # a moment ago, so the next commit is not due
    one.hand.done([taken[0], taken[1], taken[5]])
    log.poll_trouble.append(RuntimeError("a bug"))
    assert sorted(one.take(7)) == [2, 3, 4, 6, 7, 8, 9]


def test_nothing_is_read_between_a_fault_in_the_thread_and_the_new_beginning(log: Log, rig: Callable[..., Rig]) -> None:
    """What was lost in the fault would be taken for something that does not exist."""
    seen: set[int] = set()
    log.lost.add(4)
    one = rig()
    while len(log.consumers) == 1 or len(seen) < 10:
        seen |= one.take(1).keys()
    assert seen == set(range(10))


def test_a_fatal_error_of_the_consumer_is_answered_with_another_consumer(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    one.take(10)
    log.poll_trouble.append(Record(0, KafkaError(KafkaError._FATAL, "it is over", fatal=True)))
    assert sorted(one.take(10)) == list(range(10))
    assert len(log.consumers) == 2


def test_a_consumer_that_knows_no_broker_any_more_is_replaced(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    one.take(10)
    for _ in range(CERTAIN_AFTER):
        log.consumers[0].stats_cb('{"brokers":{"GroupCoordinator":{"source":"logical"}}}')
    assert sorted(one.take(10)) == list(range(10))
    assert [consumer.closed for consumer in log.consumers] == [True, False]


def test_a_consumer_that_never_hears_what_was_committed_is_replaced(
    log: Log, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ANSWER_WITHIN_S", 0.0)
    log.silent = 1
    assert sorted(rig().take(10)) == list(range(10))
    assert [consumer.closed for consumer in log.consumers] == [True, False]


def test_a_damaged_record_is_read_again_and_not_passed_over(log: Log, rig: Callable[..., Rig]) -> None:
    one = rig()
    log.damaged.add(4)
    before = one.take(4)
    assert [log.assigned.get(timeout=WITHIN_S) for _ in range(3)] == [OFFSET_BEGINNING, 4, 4]
    log.damaged.clear()
    assert sorted(one.take(6)) == [4, 5, 6, 7, 8, 9]
    assert all(map(one.hand.holds, before.values()))
    assert len(log.consumers) == 1


@pytest.mark.parametrize(("bounds", "left"), [((0, 10), []), ((0, 3), [0, 1, 2]), ((12, 14), [12, 13])])
def test_an_offset_that_the_log_has_not_is_asked_for_again_unless_it_is_gone(
    log: Log, rig: Callable[..., Rig], bounds: tuple[int, int], left: list[int]
) -> None:
    """After a bad checksum the library asks for one that nobody has named."""
    one = rig()
    before = one.take(10)
    log.bounds = bounds
    log.poll_trouble.append(Record(958_373_523_268_707_345, KafkaError(KafkaError._AUTO_OFFSET_RESET)))
    assert log.assigned.get(timeout=WITHIN_S) == OFFSET_BEGINNING
    assert log.assigned.get(timeout=WITHIN_S) == (OFFSET_BEGINNING if left else 10)
    assert sorted(one.take(len(left))) == left
    assert len(log.consumers) == 1
    assert all(map(one.hand.holds, before.values())) == (bounds[1] >= 10)


def test_a_record_that_our_own_code_fails_on_does_not_vanish(log: Log, rig: Callable[..., Rig]) -> None:
    def read(record: Record) -> Message:
        if record.offset() == 3:
            raise ZeroDivisionError
        if record.offset() == 5:
            raise InvalidRequest("nobody can read it", code="malformed_key")
        return message(record.offset())

    one = rig(read)
    assert sorted(one.take(8)) == [0, 1, 2, 4, 6, 7, 8, 9]
    found = [one.unreadable.get(timeout=WITHIN_S) for _ in range(2)]
    codes = {entry.offset: entry.refusal.code for entry in found if entry.refusal}
    assert codes == {3: "malformed_record", 5: "malformed_key"}
    assert all(one.hand.holds(entry.receipt) for entry in found)


@pytest.mark.parametrize("how", ["raised", "of a partition"])
def test_a_commit_that_a_rebalance_refuses_is_tried_again(log: Log, rig: Callable[..., Rig], how: str) -> None:
    error = KafkaError(KafkaError.ILLEGAL_GENERATION)
    log.commit_trouble += [KafkaException(error) if how == "raised" else error] * 3
    one = rig()
    taken = one.take(10)
    assert one.begin(taken[0]) is None
    assert log.committed == (0, "v1;b=0;s=1.0r;r=A")


def test_a_begin_whose_time_is_over_has_not_happened(log: Log, rig: Callable[..., Rig]) -> None:
    log.commit_trouble += [KafkaException(KafkaError(KafkaError._WAIT_COORD))] * 2
    one = rig()
    taken = one.take(10)
    assert isinstance(one.begin(taken[0], deadline=0.0), Unavailable)
    assert one.begin(taken[1]) is None
    assert log.committed == (0, "v1;b=0;s=1.0r;r=.A")


@pytest.mark.anyio
async def test_settings_that_cannot_work_are_told_when_it_joins() -> None:
    """librdkafka wants no session longer than the interval of polls."""
    link = KafkaLink(bootstrap="127.0.0.1:1")
    plan = ConsumerPlan(group_protocol="classic", session_timeout_s=60.0, max_poll_interval_s=10.0)
    dead_letters = cast("DeadLetters", None)
    member = Member(link, plan, "group", ["topic"], dead_letters)
    for _ in range(2):
        with pytest.raises(Misconfigured, match="session"):
            await member.receive(1, 0.0)
    await member.close()
