"""What is done of a partition and which attempts were begun: against a dictionary, through commits and crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from forebay.adapters.kafka.tracker import LIMIT_BYTES, Mark, Tracker, decode


class Known(Struct):
    """One offset of the log, as the tests see it."""

    mark: Mark = Mark()
    done: bool = False
    in_hand: bool = False


class TrackerMachine(RuleBasedStateMachine):
    """A log without end is read, worked on in any order, and handed from owner to owner, cleanly or by a crash."""

    limit_bytes = LIMIT_BYTES

    @initialize(start=st.sampled_from([0, 7, 10**6, 2**62]))
    def begin_log(self, start: int) -> None:
        self.log: dict[int, Known] = {}
        self.tracker = Tracker(start, limit_bytes=self.limit_bytes)
        self.position = start
        self.absent: set[int] = set()
        self.commit()

    @property
    def in_hand(self) -> list[int]:
        return [offset for offset, known in self.log.items() if known.in_hand]

    @rule(count=st.integers(1, 40))
    def admit(self, count: int) -> None:
        for _ in range(min(count, self.tracker.room)):
            known = self.log.setdefault(self.position, Known())
            if self.position not in self.absent:
                assert self.tracker.admit(self.position) == (not known.done)
                known.in_hand = not known.done
            self.position += 1

    @rule(count=st.integers(1, 5))
    def some_do_not_exist(self, count: int) -> None:
        """Those that nobody has read yet."""
        for offset in range(self.position, self.position + count):
            if offset not in self.log:
                self.log[offset] = Known(done=True)
                self.absent.add(offset)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), count=st.integers(1, 20))
    def begin(self, data: st.DataObject, count: int) -> None:
        """As the reader does it: what cannot be committed is taken back."""
        chosen = self.choose(data, count)
        before = {offset: self.tracker.mark(offset) for offset in chosen}
        for offset in chosen:
            self.tracker.begin(offset, Mark())
        if self.tracker.metadata() is None:
            for offset, mark in before.items():
                self.tracker.restore(offset, mark)
            return
        for offset in chosen:
            self.log[offset].mark = self.log[offset].mark.begun()
        self.commit()

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), count=st.integers(1, 20), again=st.booleans())
    def done(self, data: st.DataObject, count: int, again: bool) -> None:
        for offset in self.choose(data, count):
            for _ in range(1 + again):
                self.tracker.done(offset)
            self.log[offset] = Known(done=True)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), count=st.integers(1, 20))
    def end(self, data: st.DataObject, count: int) -> None:
        for offset in self.choose(data, count):
            self.tracker.end(offset)
            self.log[offset].mark = self.log[offset].mark.ended()

    @rule()
    def commit(self) -> None:
        metadata = self.tracker.metadata()
        assert metadata is not None
        assert len(metadata) <= self.limit_bytes
        self.committed = (self.tracker.watermark, metadata, {k: Known(v.mark, v.done) for k, v in self.log.items()})

    @rule(clean=st.booleans())
    def another_takes_over(self, clean: bool) -> None:
        """After a last commit, or with what was committed before."""
        if clean:
            self.commit()
        watermark, metadata, remembered = self.committed
        self.tracker = Tracker.load(watermark, metadata, limit_bytes=self.limit_bytes)
        self.position = watermark
        for offset, known in self.log.items():
            if offset in self.absent:
                continue
            was = remembered.get(offset, Known())
            self.log[offset] = Known(was.mark.cut_off(), was.done)
            assert known.done or not was.done

    def choose(self, data: st.DataObject, count: int) -> list[int]:
        return data.draw(st.lists(st.sampled_from(self.in_hand), min_size=1, max_size=count, unique=True))

    @invariant()
    def the_watermark_is_the_first_that_is_not_done(self) -> None:
        """What does not exist is known to be so once something behind it was read."""
        at_least = at_most = min(self.log, default=self.position)
        while at_least < self.tracker.next_offset and self.log[at_least].done:
            at_least += 1
        while at_most in self.log and self.log[at_most].done:
            at_most += 1
        assert at_least <= self.tracker.watermark <= at_most

    @invariant()
    def the_marks_are_those_of_the_attempts(self) -> None:
        for offset, known in self.log.items():
            expected = None if known.done or known.mark == Mark() else known.mark
            if offset not in self.absent:
                assert self.tracker.mark(offset) == expected

    @invariant()
    def what_is_unfinished_is_counted(self) -> None:
        assert self.tracker.unfinished == len(self.in_hand)


class CrampedMachine(TrackerMachine):
    """So little space that `room` and the marks run into its end."""

    limit_bytes = 200


TestTracker = TrackerMachine.TestCase
TestCrampedTracker = CrampedMachine.TestCase
TestTracker.settings = TestCrampedTracker.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@given(st.integers(0, 2**62), st.one_of(st.text(), st.from_regex(r"v1;b=5;s=(\d\.\dr?,?)*;r=[-.A-C0-9a-z()]*")))
def test_no_metadata_stops_a_new_owner(offset: int, metadata: str) -> None:
    tracker = Tracker.load(offset, metadata)
    assert tracker.watermark >= offset
    assert tracker.admit(offset) == (tracker.mark(offset) is not None or tracker.watermark == offset)


@pytest.mark.parametrize("damage", ["cut", "base", "version", "state", "length", "none"])
def test_damaged_metadata_is_taken_for_none(damage: str) -> None:
    tracker = busy_tracker()
    text = tracker.metadata()
    assert text
    harmed: Any = {
        "cut": text[: text.index("r=") + 2],
        "base": text.replace(f"b={tracker.watermark}", f"b={tracker.watermark + 1}"),
        "version": text.replace("v1", "v2"),
        "state": text.replace("r=", "r=Z"),
        "length": text + "-zzzzzzzzzzzzzzz",
        "none": None,
    }[damage]
    found = Tracker.load(tracker.watermark, harmed)
    assert (found.watermark, found.metadata()) == (tracker.watermark, "")


def test_metadata_of_another_offset_is_not_believed() -> None:
    """MirrorMaker translates offsets and copies the metadata; an operator resets offsets."""
    tracker = busy_tracker()
    assert Tracker.load(tracker.watermark + 1, tracker.metadata()).metadata() == ""


def test_the_metadata_reads_as_documented() -> None:
    runs = decode(40, "v1;b=40;s=1.0r,2.1;r=A3-B.2-5")
    assert runs == [
        (40, 43, Mark(1, 0, True)),
        (43, 44, None),
        (44, 45, Mark(2, 1, False)),
        (47, 52, None),
    ]
    tracker = Tracker(40)
    for offset in range(40, 52):
        assert tracker.admit(offset)
    for offset in (40, 41, 42):
        tracker.begin(offset, Mark())
    tracker.begin(44, Mark(1, 1))
    tracker.end(44)
    for offset in (43, *range(47, 52)):
        tracker.done(offset)
    assert tracker.metadata() == "v1;b=40;s=1.0r,2.1;r=A3-B.2-5"


def test_a_stuck_head_costs_two_runs_however_much_is_done_behind_it() -> None:
    tracker = Tracker(0)
    for offset in range(50_000):
        assert tracker.room > 100
        tracker.admit(offset)
        if offset:
            tracker.done(offset)
    assert tracker.metadata() == "v1;b=0;s=;r=.-12kv"
    assert tracker.watermark == 0
    tracker.done(0)
    assert (tracker.watermark, tracker.metadata()) == (50_000, "")


def test_the_metadata_keeps_within_its_limit_however_the_admitted_end() -> None:
    """Each in another state than the one before, and many done between them: the worst that can become of them."""
    tracker = Tracker(10**12)
    offset = 10**12
    while tracker.room:
        tracker.admit(offset)
        if offset % 40:
            tracker.done(offset)
        else:
            tracker.begin(offset, Mark(offset // 40 % 4, offset // 80 % 2))
        offset += 1
    assert tracker.unfinished > 500
    metadata = tracker.metadata()
    assert metadata is not None
    assert LIMIT_BYTES * 0.6 < len(metadata) <= LIMIT_BYTES
    assert "-" in metadata


def test_marks_go_before_what_is_done_when_space_is_short() -> None:
    tracker = Tracker(0, limit_bytes=150)
    for offset in range(200):
        tracker.admit(offset)
        if offset % 2:
            tracker.done(offset)
    tracker.begin(100, Mark())
    metadata = tracker.metadata()
    assert metadata == "v1;b=0;s=1.0r;r=.2sA"
    assert Tracker.load(0, metadata).mark(100) == Mark(1, 1, False)


def test_marks_that_do_not_fit_are_refused_and_fit_again_later() -> None:
    tracker = Tracker(0, limit_bytes=60)
    for offset in range(100):
        tracker.admit(offset)
    for offset in range(0, 100, 2):
        tracker.begin(offset, Mark())
    assert tracker.metadata() is None
    for offset in range(40, 100):
        tracker.done(offset)
    assert tracker.metadata() is not None


def test_an_offset_below_the_next_means_that_the_log_was_cut() -> None:
    tracker = Tracker(5)
    tracker.admit(5)
    with pytest.raises(ValueError, match="below 6"):
        tracker.admit(5)


def test_what_the_record_says_of_earlier_attempts_is_counted_on() -> None:
    tracker = Tracker(0)
    tracker.admit(0)
    tracker.begin(0, Mark(2, 1))
    assert tracker.mark(0) == Mark(3, 1, True)
    tracker.begin(0, Mark(2, 1))
    assert tracker.mark(0) == Mark(4, 1, True)


def busy_tracker() -> Tracker:
    tracker = Tracker(1000)
    for offset in range(1000, 1020):
        tracker.admit(offset)
    for offset in (1001, 1002, 1007):
        tracker.done(offset)
    tracker.begin(1004, Mark())
    return tracker
