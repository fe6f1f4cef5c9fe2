"""The fuzzer itself: a few inputs of each kind go well, the same number is the same input, and a crash is a finding."""

import faulthandler
from typing import Any

import pytest

from tests.fuzz import inputs, run


@pytest.mark.parametrize("kind", list(run.KINDS))
def test_a_few_inputs_of_each_kind_find_nothing(kind: str) -> None:
    """In a process of their own, as a million are tried; and there is more than one result."""
    results, found, slowest_s, used = run.try_piece(kind, 1_000_000, 150)
    assert found == []
    assert sum(results.values()) == 150
    assert len(results) > 1
    assert 0 < slowest_s < run.SECONDS_MAX
    assert 0 < used < run.MEMORY_BYTES_MAX


def test_the_same_number_is_the_same_input() -> None:
    """So that what is found can be repeated."""
    for make in (inputs.expression, inputs.raw, inputs.document, inputs.changed):
        assert [make(number) for number in range(50)] == [make(number) for number in range(50)]
        assert len({make(number) for number in range(50)}) > 40


def test_a_process_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of the input that it was at."""
    assert run.try_piece("no such kind", 7, 1)[1] == ["no such kind 7: the process ended with 1"]


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception, an input that takes too long, and too much memory."""
    told: list[Any] = []

    class Told:
        def send(self, answer: Any) -> None:
            told.append(answer)

    class At:
        value = 0

    def work(number: int) -> str:
        if number == 3:
            raise ValueError(number)
        return "value"

    monkeypatch.setitem(run.KINDS, "broken", (1.0, work))
    monkeypatch.setattr(run, "MEMORY_BYTES_MAX", 1)
    monkeypatch.setattr(run, "SECONDS_MAX", -1.0)
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)
    run.piece("broken", 3, 2, At(), Told())
    ((results, found, _, used),) = told
    assert results == {"value": 1}
    assert found[0] == "broken 3: ValueError: 3"
    assert found[1].startswith("broken 3: 0.00 s") and found[2].startswith("broken 4: 0.00 s")
    assert found[3].startswith("broken 3 to 4: ") and used > 1
