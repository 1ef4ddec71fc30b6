"""What is written down while a storm runs can be read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.history import Accepted, Invoked, Records
from chaos.ledger import NEVER, Run, read_ledger


def test_a_run_that_was_cut_off_never_ended() -> None:
    text = "begin a 1 10 20 5.0 d\nbegin b 1 10 20 5.0 e\nend a 1 10 20 6.0\n"
    assert read_ledger(text) == [Run("a", 1, 10, 20, 5.0, 6.0, "d"), Run("b", 1, 10, 20, 5.0, NEVER, "e")]


def test_runs_stand_in_the_order_of_their_beginning() -> None:
    text = "begin a 2 10 20 7.0 d\nbegin a 1 11 21 5.0 d\nend a 2 10 20 8.0\nend a 1 11 21 9.0\n"
    assert [(run.attempt, run.ended_at) for run in read_ledger(text)] == [(1, 9.0), (2, 8.0)]


def test_an_attempt_that_one_process_ran_twice_is_two_runs() -> None:
    text = "begin a 1 10 20 5.0 d\nend a 1 10 20 6.0\nbegin a 1 10 20 7.0 d\nend a 1 10 20 8.0\n"
    assert [run.ended_at for run in read_ledger(text)] == [6.0, 8.0]


@pytest.mark.parametrize("line", ["a 1", "begin a 1 10 20 5.0", "end a 1 10 20 5.0 d", "begin a one 10 20 5.0 d"])
def test_a_ledger_that_another_model_wrote_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_ledger(line)


def test_every_entry_is_in_the_file_as_soon_as_it_is_made(tmp_path: Path) -> None:
    records = Records(tmp_path)
    log = records.client("one")
    log.append(Invoked(1.0, "op", "text"))
    records.client("one").append(Accepted(2.0, "op", "job"))
    lines = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["invoke", "ok"]
    assert records.history().clients["one"] == (Invoked(1.0, "op", "text"), Accepted(2.0, "op", "job"))
    records.close()


def test_a_history_does_not_grow_with_its_records() -> None:
    records = Records()
    records.client("one").append(Accepted(2.0, "op", "job"))
    history = records.history()
    records.client("one").append(Accepted(3.0, "op", "other"))
    assert len(history.clients["one"]) == 1
