"""What one consumer has, against dictionaries: partitions come and go, commits fail, anything ends in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Struct

from forebay.adapters.kafka.entries import Entry, Place, Request
from forebay.adapters.kafka.hand import MOST_UNREADABLE, Hand
from forebay.adapters.kafka.tracker import Mark, Tracker
from forebay.core.errors import ForebayError, InvalidRequest, Revoked, Unavailable
from forebay.testing.samples import message

PARTITIONS: Sequence[Place] = [("topic", number) for number in range(3)]
NAMED = ("topic", 7)
NO_RECORD = cast("Any", None)


def entry(place: Place, offset: int, *, known: Mark | None = None) -> Entry:
    return Entry(place=place, offset=offset, record=NO_RECORD, message=message(offset), known=known or Mark())


def unreadable(place: Place, offset: int) -> Entry:
    refusal = InvalidRequest("nobody can read it")
    return Entry(place=place, offset=offset, record=NO_RECORD, message=None, refusal=refusal)


class Answers:
    """What became of a request."""

    def __init__(self) -> None:
        self.given: list[ForebayError | None] = []

    def request(self, *receipts: int, deadline: float = 10.0) -> Request:
        return Request(receipts=receipts, answer=self.given.append, deadline=deadline)


class Fact(Struct):
    """One message, as the tests know it."""

    mark: Mark = Mark()
    done: bool = False
    receipt: int = 0  # 0: in nobody's hand

    def copy(self) -> Fact:
        return Fact(self.mark, self.done)


Partition = dict[int, Fact]


class HandMachine(RuleBasedStateMachine):
    """One group, one member at a time; what it commits is all that the next one knows."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[Place, Partition] = {place: {} for place in PARTITIONS}
        self.committed: dict[Place, tuple[int, str, Partition]] = {}
        self.position: dict[Place, int] = {}  # of those that are assigned
        self.trackers: dict[Place, Tracker] = {}
        self.hand = Hand(lambda: None)

    @property
    def held(self) -> list[Fact]:
        return [fact for place in self.position for fact in self.facts[place].values() if fact.receipt]

    # ------------------------------------------------------------------------------------------------------ partitions

    @precondition(lambda self: len(self.position) < len(PARTITIONS))
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from([one for one in PARTITIONS if one not in self.position]))
        watermark, metadata, remembered = self.committed.get(place, (0, "", {}))
        self.trackers[place] = Tracker.load(watermark, metadata)
        self.hand.assigned(place, self.trackers[place])
        self.position[place] = watermark
        for offset in self.facts[place]:
            was = remembered.get(offset, Fact())
            self.facts[place][offset] = Fact(was.mark.cut_off(), was.done)

    @precondition(lambda self: self.position)
    @rule(data=st.data(), count=st.integers(1, 20))
    def feed(self, data: st.DataObject, count: int) -> None:
        place = data.draw(st.sampled_from(sorted(self.position)))
        first = self.position[place]
        self.hand.feed([entry(place, offset) for offset in range(first, first + count)])
        self.position[place] += count
        for offset in range(first, first + count):
            self.facts[place].setdefault(offset, Fact())

    @precondition(lambda self: self.position)
    @rule(data=st.data(), how=st.sampled_from(["revoked", "lost"]))
    def a_partition_goes(self, data: st.DataObject, how: str) -> None:
        place = data.draw(st.sampled_from(sorted(self.position)))
        if how == "revoked":
            self.hand.leaving([place])
            for fact in self.facts[place].values():
                assert not fact.receipt or self.hand.holds(fact.receipt) == (fact.mark.running or False)
                if fact.receipt:
                    fact.mark = fact.mark.ended()
            self.hand.let_run_elsewhere([place])
            self.commit(works=True)
        self.hand.gone([place])
        self.let_go([place])
        del self.position[place]

    @precondition(lambda self: len(self.held) > 5)
    @rule()
    def the_member_dies(self) -> None:
        self.die()

    def die(self) -> None:
        self.hand = Hand(lambda: None)
        self.let_go(PARTITIONS)
        self.position.clear()

    def let_go(self, places: Sequence[Place]) -> None:
        for place in places:
            for fact in self.facts[place].values():
                assert not self.hand.holds(fact.receipt)
                fact.receipt = 0

    # -------------------------------------------------------------------------------------------------------- messages

    @rule(most=st.integers(1, 15))
    def take(self, most: int) -> None:
        for taken, mark in self.hand.take(most):
            fact = self.facts[taken.place][taken.offset]
            assert not fact.done
            assert not fact.receipt
            assert mark == fact.mark
            fact.receipt = taken.receipt

    @precondition(lambda self: self.held)
    @rule(data=st.data(), works=st.booleans(), in_time=st.booleans(), stale=st.booleans())
    def begin(self, data: st.DataObject, works: bool, in_time: bool, stale: bool) -> None:
        chosen = self.choose(data)
        answers = Answers()
        receipts = [fact.receipt for fact in chosen] + [999_999] * stale
        self.hand.ask(answers.request(*receipts, deadline=2.0 if in_time else 0.0))
        self.commit(works=works)
        if stale:
            assert [type(answer) for answer in answers.given] == [Revoked]
            return
        if not works and in_time:
            assert answers.given == []
            self.commit(works=True)
        elif not works:
            assert [type(answer) for answer in answers.given] == [Unavailable]
            return
        assert answers.given == [None]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        chosen = self.choose(data)
        self.hand.retract(fact.receipt for fact in chosen)
        for fact in chosen:
            if fact.mark.running:
                fact.mark = Mark(fact.mark.attempt - 1, fact.mark.interruptions)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        chosen = self.choose(data)
        self.hand.done(fact.receipt for fact in chosen)
        for fact in chosen:
            assert not self.hand.holds(fact.receipt)
            fact.receipt, fact.done, fact.mark = 0, True, Mark()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        chosen = self.choose(data)
        ran = self.hand.give_back([fact.receipt for fact in chosen])
        assert ran == any(fact.mark.running for fact in chosen)
        for fact in chosen:
            fact.receipt, fact.mark = 0, fact.mark.ended()

    @rule(works=st.booleans())
    def commit(self, works: bool) -> None:
        """What the reader does; a begun attempt counts if it was committed."""
        commit = self.hand.prepare()
        if commit is None:
            return
        begun = {entry.receipt for request in commit.requests for entry, _ in request.before}
        self.hand.settle(commit, None if works else "BROKEN", now=1.0)
        if not works:
            return
        for fact in self.held:
            if fact.receipt in begun:
                fact.mark = fact.mark.begun()
        for place, watermark, metadata in commit.offsets:
            facts = {offset: fact.copy() for offset, fact in self.facts[place].items()}
            self.committed[place] = (watermark, metadata, facts)

    def choose(self, data: st.DataObject) -> list[Fact]:
        indexes = st.lists(st.integers(0, len(self.held) - 1), min_size=1, max_size=8, unique=True)
        return [self.held[index] for index in data.draw(indexes)]

    @invariant()
    def hands_agree(self) -> None:
        assert all(self.hand.holds(fact.receipt) for fact in self.held)

    @invariant()
    def marks_agree(self) -> None:
        for place in self.position:
            for offset, fact in self.facts[place].items():
                assert (self.trackers[place].mark(offset) or Mark()) == fact.mark

    @invariant()
    def nothing_below_a_committed_watermark_is_undone(self) -> None:
        for place, (watermark, _, _) in self.committed.items():
            assert all(fact.done for offset, fact in self.facts[place].items() if offset < watermark)

    def teardown(self) -> None:
        """All that is not done comes to whoever is there in the end."""
        self.die()
        left: dict[Place, set[int]] = {}
        for place in PARTITIONS:
            watermark, metadata, remembered = self.committed.get(place, (0, "", {}))
            self.hand.assigned(place, Tracker.load(watermark, metadata) if place in self.committed else None)
            self.hand.feed([entry(place, offset) for offset in range(watermark, len(self.facts[place]))])
            left[place] = {offset for offset in self.facts[place] if not remembered.get(offset, Fact()).done}
        came: dict[Place, set[int]] = {place: set() for place in PARTITIONS}
        for taken, _ in self.hand.take(100_000):
            came[taken.place].add(taken.offset)
        assert came == left


TestHand = HandMachine.TestCase
TestHand.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def hand_with(count: int, **settings: Any) -> Hand:
    hand = Hand(lambda: None, **settings)
    hand.assigned(NAMED, Tracker(0))
    hand.feed([entry(NAMED, offset) for offset in range(count)])
    return hand


def receipts(hand: Hand, most: int) -> list[int]:
    return [taken.receipt for taken, _ in hand.take(most)]


def commit(hand: Hand) -> list[tuple[Place, int, str]]:
    prepared = hand.prepare()
    assert prepared is not None
    hand.settle(prepared, None, now=0.0)
    return prepared.offsets


def test_a_receipt_is_of_one_time_in_hand() -> None:
    hand = hand_with(1)
    [before] = receipts(hand, 1)
    hand.give_back([before])
    [now] = receipts(hand, 1)
    hand.done([before])
    assert (hand.holds(before), hand.holds(now)) == (False, True)


def test_a_log_that_goes_on_below_what_was_read_begins_anew() -> None:
    """Skipping it as done would lose what was accepted since the topic was made anew."""
    hand = hand_with(10)
    taken = receipts(hand, 10)
    hand.done(taken[:5])
    hand.feed([entry(NAMED, offset) for offset in range(3)])
    assert not any(map(hand.holds, taken))
    assert [taken.offset for taken, _ in hand.take(10)] == [0, 1, 2]
    assert commit(hand) == [(NAMED, 0, "")]


def test_records_of_a_partition_that_went_are_nobodys() -> None:
    hand = hand_with(0)
    hand.gone([NAMED])
    hand.feed([entry(NAMED, 0)])
    assert hand.take(10) == []
    hand.assigned(NAMED, Tracker(0))
    hand.feed([entry(NAMED, 0)])
    assert len(hand.take(10)) == 1


def test_what_has_begun_stays_in_hand_when_its_partition_is_leaving_and_the_rest_does_not() -> None:
    hand, answers = hand_with(3), Answers()
    begun, resting = receipts(hand, 2)
    hand.ask(answers.request(begun))
    assert commit(hand) == [(NAMED, 0, "v1;b=0;s=1.0r;r=A")]
    assert answers.given == [None]
    hand.leaving([NAMED])
    assert (hand.holds(begun), hand.holds(resting)) == (True, False)
    assert hand.take(10) == []


def test_what_still_runs_when_its_partition_goes_has_ended_and_was_not_cut_off() -> None:
    hand, answers = hand_with(3), Answers()
    begun, other = receipts(hand, 2)
    hand.ask(answers.request(begun))
    commit(hand)
    hand.keep([other])  # about to be published elsewhere: it has no attempt that could end
    hand.leaving([NAMED])
    hand.let_run_elsewhere([NAMED])
    assert commit(hand) == [(NAMED, 0, "v1;b=0;s=1.0;r=A")]
    hand.gone([NAMED])
    hand.assigned(NAMED, Tracker.load(0, "v1;b=0;s=1.0;r=A"))
    hand.feed([entry(NAMED, 0)])
    assert [mark for _, mark in hand.take(1)] == [Mark(attempt=1)]


def test_what_was_given_back_does_not_stay_when_its_partition_is_leaving() -> None:
    hand, answers = hand_with(1), Answers()
    [begun] = receipts(hand, 1)
    hand.ask(answers.request(begun))
    commit(hand)
    hand.give_back([begun])
    hand.leaving([NAMED])
    assert hand.take(10) == []


def test_what_does_not_exist_at_the_head_is_committed_as_done() -> None:
    hand = hand_with(0)
    hand.feed([entry(NAMED, 5)])
    assert commit(hand) == [(NAMED, 5, "")]


def test_a_partition_that_is_leaving_takes_nothing_in() -> None:
    hand = hand_with(1)
    [receipt] = receipts(hand, 1)
    hand.keep([receipt])
    hand.leaving([NAMED])
    hand.feed([entry(NAMED, 1)])
    hand.give_back([receipt])
    assert hand.take(10) == []


def test_a_partition_without_a_commit_begins_where_its_first_record_is() -> None:
    hand = Hand(lambda: None)
    hand.assigned(NAMED, None)
    hand.feed([entry(NAMED, 40), entry(NAMED, 41)])
    hand.done(receipts(hand, 2))
    assert commit(hand) == [(NAMED, 42, "")]


def test_what_is_about_to_be_published_elsewhere_holds_up_a_revocation() -> None:
    hand = hand_with(3)
    taken = receipts(hand, 3)
    hand.keep(taken[:1])
    hand.leaving([NAMED])
    assert [hand.holds(receipt) for receipt in taken] == [True, False, False]
    assert hand.busy_in([NAMED])
    hand.done(taken[:1])
    assert not hand.busy_in([NAMED])
    assert commit(hand) == [(NAMED, 1, "")]


def test_a_request_that_waits_for_a_partition_that_goes_is_refused_at_once() -> None:
    hand, answers = hand_with(2), Answers()
    hand.ask(answers.request(*receipts(hand, 2)))
    hand.leaving([NAMED])
    assert [type(answer) for answer in answers.given] == [Revoked]
    assert hand.prepare() is None


def test_a_request_that_was_withdrawn_has_not_happened_even_if_its_commit_succeeds() -> None:
    hand, answers = hand_with(1), Answers()
    request = answers.request(*receipts(hand, 1))
    hand.ask(request)
    prepared = hand.prepare()
    assert prepared is not None
    assert prepared.offsets == [(NAMED, 0, "v1;b=0;s=1.0r;r=A")]
    assert hand.withdraw(request)
    hand.settle(prepared, None, now=0.0)
    assert answers.given == []
    assert commit(hand) == [(NAMED, 0, "")]


@pytest.mark.parametrize("error", [None, "BROKEN"])
def test_what_is_given_back_while_nobody_answers_its_begin_never_ran(error: str | None) -> None:
    """The caller of `begin` has given up; the commit is still under way."""
    hand, answers = hand_with(1), Answers()
    [receipt] = receipts(hand, 1)
    request = answers.request(receipt, deadline=0.0)
    hand.ask(request)
    prepared = hand.prepare()
    assert prepared is not None
    assert hand.withdraw(request)
    hand.give_back([receipt])
    hand.settle(prepared, error, now=1.0)
    assert [mark for _, mark in hand.take(1)] == [Mark()]
    assert answers.given == []
    assert commit(hand) == [(NAMED, 0, "")]


@pytest.mark.parametrize("error", [None, "BROKEN"])
def test_what_leaves_while_nobody_answers_its_begin_takes_no_attempt_along(error: str | None) -> None:
    """As into a retry topic, whose record carries the counts."""
    hand, answers = hand_with(1), Answers()
    [receipt] = receipts(hand, 1)
    request = answers.request(receipt, deadline=0.0)
    hand.ask(request)
    prepared = hand.prepare()
    assert prepared is not None
    assert hand.withdraw(request)
    assert [mark for _, mark in hand.keep([receipt])] == [Mark()]
    hand.settle(prepared, error, now=1.0)
    assert [mark for _, mark in hand.keep([receipt])] == [Mark()]
    assert hand.requested  # so that the brokers know soon
    hand.done([receipt])
    assert commit(hand) == [(NAMED, 1, "")]


def test_an_acknowledgement_during_a_commit_is_in_the_next_one() -> None:
    hand = hand_with(2)
    one, two = receipts(hand, 2)
    hand.done([two])
    prepared = hand.prepare()
    hand.done([one])
    assert prepared is not None
    hand.settle(prepared, None, now=0.0)
    assert hand.dirty
    assert commit(hand) == [(NAMED, 2, "")]
    assert not hand.dirty


def test_more_running_attempts_than_a_commit_has_room_for_are_refused_and_the_rest_is_not() -> None:
    hand = Hand(lambda: None)
    hand.assigned(NAMED, Tracker(0, limit_bytes=140))
    hand.assigned(("topic", 8), Tracker(0))
    hand.feed([entry(NAMED, 0, known=Mark(0, 0)), entry(("topic", 8), 0)])
    answers, fine = Answers(), Answers()
    by_place = {taken.place: taken.receipt for taken, _ in hand.take(10)}
    hand.ask(answers.request(by_place[NAMED]))
    hand.ask(fine.request(by_place["topic", 8]))
    refuse_all(hand)
    assert sorted(place for place, _, _ in commit(hand)) == [NAMED, ("topic", 8)]
    assert [type(answer) for answer in answers.given] == [Unavailable]
    assert fine.given == [None]


def refuse_all(hand: Hand) -> None:
    """As if there were no room at all."""
    part: Any = hand._parts[NAMED]
    part.tracker._limit_bytes = 3


def test_what_nobody_can_read_is_in_hand_until_somebody_lets_go() -> None:
    hand = hand_with(0)
    found = hand.feed([unreadable(NAMED, 0), entry(NAMED, 1)])
    assert [(one.offset, hand.holds(one.receipt)) for one in found] == [(0, True)]
    assert [taken.offset for taken, _ in hand.take(10)] == [1]
    hand.done([found[0].receipt])
    assert commit(hand) == [(NAMED, 1, "")]


def test_no_more_than_so_many_that_nobody_can_read_are_in_hand_and_their_partitions_wait() -> None:
    hand = hand_with(0)
    hand.assigned(("topic", 8), Tracker(0))
    found = hand.feed([unreadable(NAMED, offset) for offset in range(MOST_UNREADABLE + 10)])
    found += hand.feed([entry(("topic", 8), 0), unreadable(("topic", 8), 1), entry(("topic", 8), 2)])
    assert len(found) == MOST_UNREADABLE
    assert hand.stashing() == {NAMED, ("topic", 8)}
    assert [taken.offset for taken, _ in hand.take(10)] == [0]
    hand.done(one.receipt for one in found)
    rest = hand.unstash()
    assert [one.place for one in rest] == [NAMED] * 10 + [("topic", 8)]
    assert [taken.offset for taken, _ in hand.take(10)] == [2]
    hand.leaving([NAMED])
    hand.gone([NAMED])
    hand.done(one.receipt for one in rest)
    assert hand.stashing() == set()


def test_a_part_takes_in_no_more_than_its_bound_and_goes_on_when_half_is_done() -> None:
    hand = hand_with(10, most_of_a_part=4)
    taken = receipts(hand, 10)
    assert len(taken) == 4
    assert hand.stashing() == {NAMED}
    hand.done(taken[:1])
    hand.unstash()
    assert len(receipts(hand, 10)) == 1
    assert hand.stashing() == {NAMED}


def test_somebody_who_waits_is_rung_for_by_what_comes_and_by_what_is_given_back() -> None:
    rung: list[str] = []
    hand = Hand(lambda: rung.append("rung"))
    hand.assigned(NAMED, Tracker(0))
    hand.feed([entry(NAMED, 0)])
    assert rung == []  # nobody waits
    taken = receipts(hand, 1)
    assert hand.take(1) == []
    hand.give_back(taken)
    assert rung == ["rung"]
    hand.take(1)
    assert hand.take(1) == []
    hand.feed([entry(NAMED, 1), entry(NAMED, 2)])
    assert rung == ["rung", "rung"]
