"""What a run is started with."""

from typing import Any

import pytest

from headrace.pipeline.bundle import load_text
from headrace.pipeline.inputs import check_inputs, with_defaults

PLAN = load_text(
    "pipeline: p\ninputs:\n  dir: {type: string, default: '.'}\n  n: {type: integer, minimum: 1, maximum: 9}\n"
    "  tags: {type: array, items: {type: string}, default: []}\nsteps: {w: {wait: {for: 1s}}}\n"
).plan


def test_defaults_are_filled_in_and_nothing_given_is_replaced() -> None:
    """Null is given, too."""
    assert with_defaults(PLAN, {"n": 3}) == {"dir": ".", "n": 3, "tags": []}
    assert with_defaults(PLAN, {"dir": None, "x": 1}) == {"dir": None, "tags": [], "x": 1}


@pytest.mark.parametrize(
    ("inputs", "messages"),
    [
        ({"n": 3}, []),
        ({}, ["the input `n` is required"]),
        ({"n": 0}, ["the input `n`: 0 is less than the minimum of 1"]),
        ({"n": "3"}, ['the input `n`: "3" is not of type "integer"']),
        ({"n": 3, "dri": "x"}, ["no input `dri`; did you mean `dir`?"]),
        ({"n": 3, "tags": ["a", 1]}, ['the input `tags.1`: 1 is not of type "string"']),
        ({"zz": 1}, ["no input `zz`", "the input `n` is required"]),
    ],
)
def test_inputs_are_checked_all_at_once(inputs: dict[str, Any], messages: list[str]) -> None:
    """Each failure with its code, none of them retryable."""
    failures = check_inputs(PLAN, with_defaults(PLAN, inputs))
    assert [failure.message for failure in failures] == messages
    assert all(failure.code == "inputs_invalid" and not failure.retryable for failure in failures)
