"""Optional values where a value is needed: refused at load, because the library ends the process over them."""

import pytest

from headrace.pipeline.evaluation import compile_expression, evaluate
from headrace.pipeline.expression_faults import RefusedExpressionError

SCOPE = {"inputs": {"a": {"b": 2}, "l": [1, 2]}, "item": {"x": 1}}
NO_VALUES = [
    ("text(optional.of(1))", 16),
    ("text(optional.none())", 18),
    ("text(inputs.?a)", 11),
    ("inputs.?a.text()", 6),
    ("1 + size(keys(inputs.?a))", 20),
    ("text(steps.?gone.?output)", 16),
    ("join(inputs.?a, ',')", 11),
    ("coalesce(inputs.?a, 1)", 15),
    ("text([inputs.?a])", 12),
    ("text({'k': optional.of(1)})", 22),
    ("inputs.l.map(x, optional.of(x))[0].orValue(1)", 27),
    ("text(dyn(optional.of(1)))", 20),
    ("text(inputs.l == [] ? optional.of(1) : inputs.a)", 33),
    ("text(inputs.?a.optMap(v, v))", 21),
    ("inputs.l.all(x, text(optional.of(x)) == '1')", 32),
    ("optional.of(optional.of(1)).orValue(optional.of(2)).orValue(3)", 23),
    ("type(inputs.?a) == type(1)", 11),
]


@pytest.mark.parametrize(("source", "offset"), NO_VALUES, ids=[source for source, _ in NO_VALUES])
def test_an_optional_value_is_refused_where_a_value_is_needed(source: str, offset: int) -> None:
    """At its place, with what to write; nothing of it is evaluated."""
    with pytest.raises(RefusedExpressionError) as caught:
        compile_expression(source)
    (fault,) = caught.value.faults
    assert fault.text == "an optional value stands where a value is needed"
    assert fault.hint == "end it with `.orValue(…)`"
    assert fault.offset == offset


VALUES = [
    ("inputs.?a.orValue(1)", {"b": 2}),
    ("text(inputs.?a.?b.orValue(1))", "2"),
    ("inputs.?zz.or(inputs.?a).orValue({}).b", 2),
    ("inputs.?a.b.orValue(1)", 2),
    ("inputs[?'a'].?b.orValue(1)", 2),
    ("inputs.?a.optMap(v, text(v.b)).orValue('')", "2"),
    ("inputs.?a.optFlatMap(v, v.?b).orValue(0)", 2),
    ("inputs.?a.hasValue() && !inputs.?zz.hasValue()", True),
    ("[?inputs.?a.?b, ?inputs.?zz]", [2]),
    ("{?'k': inputs.?a.?b, ?'z': inputs.?zz}", {"k": 2}),
    ("(inputs.l == [] ? inputs.?zz : inputs.?a).orValue(1).b", 2),
    ("inputs.l.map(x, item.?x.orValue(0) + x)", [2, 3]),
    ("inputs.?a == optional.none()", False),
    ("inputs.?a.value().b", 2),
]


@pytest.mark.parametrize(("source", "expected"), VALUES, ids=[source for source, _ in VALUES])
def test_an_optional_value_is_fine_where_it_is_taken_as_one(source: str, expected: object) -> None:
    """Made a value by `orValue` and its like, passed on, compared, or left out of a list or map."""
    assert evaluate(compile_expression(source), SCOPE) == expected
