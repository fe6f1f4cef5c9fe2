"""The compiler's complaints in our words, at their place."""

import pytest

from headrace.pipeline.evaluation import compile_expression
from headrace.pipeline.expression_faults import RefusedExpressionError


def message(source: str) -> str:
    with pytest.raises(RefusedExpressionError) as caught:
        compile_expression(source)
    return str(caught.value)


def test_the_caret_stands_below_the_place() -> None:
    """On the line that is wrong."""
    assert message("inputs.a +\n  nope") == (
        "2:3: unknown name `nope`; known are inputs, vars, steps, item, index, carry, iteration, run, event, secrets\n"
        "    nope\n    ^"
    )


def test_a_long_line_is_cut_around_the_place() -> None:
    """So that a terminal shows it."""
    line = message(" + ".join(["inputs.a"] * 15) + " + nope + " + " + ".join(["inputs.b"] * 15)).split("\n")
    assert line[0].startswith("1:166: unknown name `nope`")
    assert len(line[1]) <= 122
    assert line[1][len(line[2]) - 1 :].startswith("nope")


def test_every_complaint_is_there() -> None:
    """Not only the first."""
    assert [line.split(":")[1] for line in message("nope + other").split("\n") if "unknown" in line] == ["1", "8"]
