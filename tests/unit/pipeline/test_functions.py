"""Functions beyond CEL's own, as plain Python: order, bounds, errors that say what was found."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline import functions

NUMBERS = st.lists(st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6), max_size=20)


@given(NUMBERS)
def test_a_sum_is_an_integer_unless_a_double_is_in_it(numbers: list[Any]) -> None:
    """As the types of CEL have it; nothing sums to integer 0."""
    total = functions.total(numbers)
    assert total == sum(numbers)
    assert isinstance(total, float) == any(isinstance(number, float) for number in numbers)


@given(st.lists(st.fixed_dictionaries({"k": st.integers(0, 3), "i": st.integers()}), max_size=20))
def test_sorting_and_grouping_keep_the_order_of_equals(rows: list[dict[str, Any]]) -> None:
    """Stable both ways; groups come as their keys first appear and lose nothing."""
    ascending = functions.sort_by(rows, "k")
    descending = functions.sort_by(rows, "-k")
    for key in range(4):
        of_key = [row for row in rows if row["k"] == key]
        assert [row for row in ascending if row["k"] == key] == of_key
        assert [row for row in descending if row["k"] == key] == of_key
    groups = functions.group_by(rows, "k")
    assert [group["key"] for group in groups] == list(dict.fromkeys(row["k"] for row in rows))
    assert sum(len(group["items"]) for group in groups) == len(rows)


def test_booleans_are_no_numbers() -> None:
    """Python would add them up."""
    with pytest.raises(ValueError, match="got a boolean at index 1"):
        functions.total([1, True])
    with pytest.raises(ValueError, match="got a boolean, an integer"):
        functions.greatest([1, True])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functions.total([2**63 - 1, 1]), "64-bit"),
        (lambda: functions.total([1e308, 1e308]), "not finite"),
        (lambda: functions.replace("x" * 10_000, "x", "y" * 10_000), "more than 16777216 characters"),
        (lambda: functions.join(["x" * 10_000_000] * 2, ""), "more than 16777216 characters"),
        (lambda: functions.parse_json("[" * 200 + "]" * 200), "nested deeper than 100"),
        (lambda: functions.parse_json("[" * 100_000), "nested too deep"),
        (lambda: functions.parse_json('{"a": 1, "a": 2}'), "occurs twice"),
        (lambda: functions.parse_json("9" * 5000), "64-bit"),
        (lambda: functions.parse_json("1e999"), "not finite"),
        (lambda: functions.parse_json("Infinity"), "not JSON"),
        (lambda: functions.sort_by([{"a": 1}], "a.b"), "looks for `b` in an integer"),
        (lambda: functions.keys([1]), "keys\\(\\) takes a map, got a list"),
    ],
)
def test_what_has_no_value_says_why(call: Any, message: str) -> None:
    """Never a wrong value, never an exhausted memory."""
    with pytest.raises(ValueError, match=message):
        call()


def test_text_is_as_it_is_and_everything_else_is_json() -> None:
    """With sorted keys, so that it is the same in every process."""
    assert functions.as_text("a\n") == "a\n"
    assert functions.as_text({"b": 1.0, "a": [None, True, "é"]}) == '{"a":[null,true,"é"],"b":1.0}'
