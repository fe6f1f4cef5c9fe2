"""Differences as data and as text."""

import pytest

from headrace.pipeline.importer.report import CODES, DIFFERENCES_MAX, Difference, Notes, RefusedError
from headrace.pipeline.positions import Positions
from headrace.pipeline.problems import CODES as PROBLEMS


def test_a_code_is_allotted_once() -> None:
    """Over all letters, and beside those of the language."""
    numbers = [code[1:] for code in CODES] + [code[1:] for code in PROBLEMS]
    assert len(set(numbers)) == len(numbers)
    assert {code[0] for code in CODES} == {"E", "W", "N"}


def test_a_difference_says_where_what_and_what_before() -> None:
    """As a line and as JSON."""
    one = Difference("a.yaml", 3, 5, "N1541", "skipped", "crashed")
    assert str(one) == "a.yaml:3:5: N1541 skipped; before: crashed"
    assert one.as_json() == {
        "severity": "note",
        "file": "a.yaml",
        "line": 3,
        "column": 5,
        "code": "N1541",
        "old_behaviour": "crashed",
        "new_behaviour": "skipped",
    }


def test_a_report_has_a_bound() -> None:
    """One mistake shown many times is refused as such."""
    notes = Notes("a.yaml", Positions())
    for index in range(DIFFERENCES_MAX):
        notes.add("N1541", (), f"{index}", "")
    with pytest.raises(RefusedError):
        notes.add("N1541", (), "one more", "")
    assert notes.refused
    assert len(notes.found) == DIFFERENCES_MAX + 2
