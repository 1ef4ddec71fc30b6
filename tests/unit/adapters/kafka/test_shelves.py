"""What is put on the shelves comes off whole, in order and in fair shares, whatever moves meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay.adapters.kafka.shelves import FULL_BYTES, FULL_RECORDS, TAKE_BYTES, Entry, Shelves
from forebay.core.event import EventKind
from forebay.ports.event_log import START, LogBatch
from forebay.testing.samples import event

FACT = event(1, EventKind.STARTED)


def entry(offset: int, size_bytes: int = 1) -> Entry:
    return Entry(offset, FACT, size_bytes)


def standing(**positions: str) -> Shelves:
    """Shelves of these sources, empty."""
    shelves = Shelves()
    shelves.look(positions, 0)
    assert shelves.moves(list(positions)) == positions
    return shelves


def taken(shelves: Shelves, positions: dict[str, str], limit: int = 1000) -> list[LogBatch]:
    """And go on from there."""
    batches, _ = shelves.look(positions, limit)
    positions.update((batch.source, batch.end) for batch in batches)
    return batches


def test_a_batch_begins_where_the_caller_stands_and_ends_after_its_last_record() -> None:
    shelves = standing(a="5")
    for offset in (5, 6, 9):  # compaction or a mark of a transaction between
        shelves.put("a", entry(offset))
    [batch] = taken(shelves, {"a": "5"})
    assert batch == LogBatch(source="a", start="5", end="10", facts=(FACT,) * 3)


def test_the_start_stays_the_start_until_something_was_read() -> None:
    shelves = standing(a=START)
    shelves.put("a", entry(1000))  # retention has taken the rest
    [batch] = taken(shelves, {"a": START})
    assert (batch.start, batch.end) == (START, "1001")


def test_what_nobody_can_read_is_counted() -> None:
    shelves = standing(a="0")
    shelves.put("a", Entry(0, None, 1))
    shelves.put("a", entry(1))
    [batch] = taken(shelves, {"a": "0"})
    assert (batch.malformed, batch.facts, batch.end) == (1, (FACT,), "2")


def test_a_caller_who_stands_elsewhere_moves_the_source() -> None:
    shelves = standing(a="0")
    shelves.put("a", entry(0))
    assert taken(shelves, {"a": "7"}) == []
    assert shelves.moves(["a"]) == {"a": "7"}
    shelves.put("a", entry(7))
    [batch] = taken(shelves, {"a": "7"})
    assert (batch.start, batch.end) == ("7", "8")


def test_until_it_was_moved_nothing_is_taken_from_the_old_place() -> None:
    shelves = standing(a="0")
    taken(shelves, {"a": "7"})
    shelves.put("a", entry(0))
    assert taken(shelves, {"a": "0"}) == []


def test_a_source_that_is_not_ours_is_not_moved_and_can_be_asked_for_again() -> None:
    shelves = Shelves()
    shelves.look({"a": "3"}, 1)
    assert shelves.moves([]) == {}
    shelves.look({"a": "3"}, 1)
    assert shelves.moves(["a"]) == {"a": "3"}


def test_a_source_that_went_to_another_is_forgotten() -> None:
    shelves = standing(a="0", b="0")
    shelves.put("a", entry(0))
    shelves.keep_only(["b"])
    shelves.put("a", entry(1))
    assert taken(shelves, {"a": "0", "b": "0"}) == []
    assert shelves.moves(["a", "b"]) == {"a": "0"}


def test_after_a_failure_all_is_asked_for_again() -> None:
    shelves = standing(a="4")
    shelves.put("a", entry(4))
    shelves.forget(["a"])
    assert taken(shelves, {"a": "4"}) == []
    assert shelves.moves(["a"]) == {"a": "4"}


def test_an_end_beyond_the_last_record_is_passed_over_once() -> None:
    shelves = standing(a="3")
    shelves.put("a", entry(3))
    shelves.end("a", 5)
    positions = {"a": "3"}
    assert [batch.end for batch in taken(shelves, positions)] == ["5"]
    assert taken(shelves, positions) == []
    shelves.end("a", 6)
    [batch] = taken(shelves, positions)
    assert (batch.start, batch.end, batch.facts) == ("5", "6", ())


def test_an_empty_source_gives_nothing() -> None:
    shelves = standing(a=START)
    shelves.end("a", 0)
    assert taken(shelves, {"a": START}) == []


def test_the_end_of_all_is_known_when_each_was_met() -> None:
    shelves = standing(a="0", b="0")
    shelves.end("a", 0)
    assert shelves.look({"a": "0", "b": "0"}, 1) == ([], False)
    shelves.end("b", 0)
    assert shelves.look({"a": "0", "b": "0"}, 1) == ([], True)
    assert shelves.look({"a": "0", "b": "0", "c": "0"}, 1) == ([], False)


def test_a_source_with_many_records_leaves_room_for_the_others() -> None:
    shelves = standing(many="0", few="0", some="0")
    for offset in range(100):
        shelves.put("many", entry(offset))
    shelves.put("few", entry(0))
    for offset in range(6):
        shelves.put("some", entry(offset))
    shares = {batch.source: len(batch.facts) for batch in taken(shelves, {"many": "0", "few": "0", "some": "0"}, 12)}
    assert shares == {"few": 1, "some": 6, "many": 5}


def test_a_source_with_large_records_leaves_room_for_the_others() -> None:
    shelves = standing(large="0", small="0")
    for offset in range(10):
        shelves.put("large", entry(offset, TAKE_BYTES))
        shelves.put("small", entry(offset))
    shares = {batch.source: len(batch.facts) for batch in taken(shelves, {"large": "0", "small": "0"})}
    assert shares == {"large": 1, "small": 10}


def test_it_is_full_by_count_and_by_bytes_until_something_is_taken() -> None:
    for size_bytes, count in ((1, FULL_RECORDS), (FULL_BYTES // 2, 2)):
        shelves = standing(a="0")
        for offset in range(count):
            assert not shelves.full
            shelves.put("a", entry(offset, size_bytes))
        assert shelves.full
        taken(shelves, {"a": "0"})
        assert not shelves.full


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 9)), max_size=60),
    limit=st.integers(1, 7),
)
def test_nothing_is_lost_doubled_or_out_of_order(steps: list[tuple[str, int, int]], limit: int) -> None:
    """Against a log for each source; every step writes some records to one and then takes, or goes back and reads
    again."""
    positions = dict.fromkeys("abc", "0")
    logs: dict[str, int] = dict.fromkeys("abc", 0)
    shelves = standing(**positions)
    for source, action, count in steps:
        if action == 0:  # back to an earlier position, as after a lost transaction
            positions[source] = str(max(0, int(positions[source]) - count))
        for offset in range(logs[source], logs[source] + count):
            shelves.put(source, entry(offset))
        logs[source] += count
        batches, _ = shelves.look(positions, limit)
        assert sum(len(batch.facts) for batch in batches) <= limit
        for batch in batches:
            assert batch.start == positions[batch.source]
            assert len(batch.facts) == int(batch.end) - int(batch.start) > 0
            positions[batch.source] = batch.end
        for moved, position in shelves.moves(list(positions)).items():
            for offset in range(int(position), logs[moved]):
                shelves.put(moved, entry(offset))
    while batches := taken(shelves, positions, limit):
        assert sum(len(batch.facts) for batch in batches) <= limit
    assert {source: int(position) for source, position in positions.items()} == logs
