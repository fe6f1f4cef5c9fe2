"""The golden suite: what expressions give. Another version of the library, or another library, has to give the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts.errors import AttemptError, ExpressionError
from headrace.pipeline.evaluation import (
    compile_expression,
    constant_expression,
    evaluate,
    evaluate_condition,
)
from headrace.pipeline.expression_faults import RefusedExpressionError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "expressions.json").read_text(encoding="utf-8"))
"""Dotted names → values; expressions with their value; with code and message of the step's failure; with what is said
when the file is loaded. Written by hand: a difference is a decision, not a new recording."""
SCOPE: dict[str, Any] = GOLDEN["scope"]
VALUES: list[tuple[str, Any]] = GOLDEN["values"]
FAILURES: list[tuple[str, str, str]] = GOLDEN["failures"]
REFUSED: list[tuple[str, str]] = GOLDEN["refused"]


def reading(path: str) -> str:
    return f"<{path}>"


def test_otp_n6_the_table_is_the_contract_with_the_library() -> None:
    """At least 250 expressions, none twice."""
    sources = [row[0] for row in (*VALUES, *FAILURES, *REFUSED)]
    assert len(sources) >= 250
    assert sorted(set(sources)) == sorted(sources)


@pytest.mark.parametrize(("source", "expected"), VALUES, ids=[source for source, _ in VALUES])
def test_otp_n6_an_expression_gives_its_value(source: str, expected: Any) -> None:
    """Value and type: 1 is not 1.0, and true is not 1."""
    value = evaluate(compile_expression(source), SCOPE, files=reading)
    assert value == expected
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(("source", "code", "message"), FAILURES, ids=[source for source, _, _ in FAILURES])
def test_otp_n6_an_expression_without_a_value_is_an_error(source: str, code: str, message: str) -> None:
    """Never false, 0 or an empty text instead."""
    expression = compile_expression(source)
    with pytest.raises(ExpressionError) as caught:
        evaluate(expression, SCOPE, files=reading)
    assert caught.value.failure().code == code
    assert str(caught.value) == f"`{source}`: {message}"


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[source for source, _ in REFUSED])
def test_otp_n6_an_expression_is_refused_when_it_is_compiled(source: str, message: str) -> None:
    """With line and column inside the source, and a caret below the place."""
    with pytest.raises(RefusedExpressionError) as caught:
        compile_expression(source)
    lines = str(caught.value).split("\n")
    assert lines[0] == message
    assert lines[2].strip() == "^"


@pytest.mark.parametrize(
    ("source", "reads", "optional"),
    [
        ("inputs.a + vars.b", {"inputs", "vars"}, set()),
        ("steps.a.output.x", {"steps.a.output"}, set()),
        ('steps["a-b"].output', {"steps.a-b.output"}, set()),
        ("steps.?a.?output.orValue(1)", {"steps.a.output"}, {"steps.a.output"}),
        ("steps.a.?output.orValue(1)", {"steps.a.output"}, {"steps.a.output"}),
        ("has(steps.a.output)", {"steps.a.output"}, {"steps.a.output"}),
        ("has(steps.a.output.x)", {"steps.a.output"}, set()),
        ("has(steps.a.output) ? steps.a.output : 1", {"steps.a.output"}, set()),
        ("steps.a.status + steps.b.error.code", {"steps.a.status", "steps.b.error"}, set()),
        ("[1].map(steps, steps)", set(), set()),
        ("[inputs].map(i, i.x + item)", {"inputs", "item"}, set()),
        ("inputs.a[index].b[item]", {"inputs", "index", "item"}, set()),
    ],
)
def test_what_is_read_is_known_before_it_is_evaluated(source: str, reads: set[str], optional: set[str]) -> None:
    """Variables of comprehensions are not read from outside; optional is what every use can do without."""
    expression = compile_expression(source)
    assert expression.reads == reads
    assert expression.optional == optional


def test_a_needed_name_that_is_absent_is_an_error() -> None:
    """The caller forgot it, or the step has no such value."""
    for source in ("steps.a.output", "steps.a.output + 1"):
        with pytest.raises(ExpressionError, match=r"`steps\.a\.output` has no value here"):
            evaluate(compile_expression(source), {"inputs": {}})


def test_only_named_paths_are_handed_to_the_library() -> None:
    """A value that the library could not take does not matter beside the one that is read."""
    scope = {"inputs": {"n": 1, "unreadable": object()}}
    assert evaluate(compile_expression("inputs.n + 1"), scope) == 2


def test_a_plain_path_gives_the_very_object() -> None:
    """No conversion: order of keys and identity are kept."""
    value = {"z": 1, "a": [1]}
    assert evaluate(compile_expression("steps.s.output.v"), {"steps.s.output": {"v": value}}) is value


def test_nested_all_stops_at_the_budget() -> None:
    """A hundred million steps end after ten thousand, as an error with its own code."""
    expression = compile_expression("inputs.x.all(a, inputs.x.all(b, inputs.x.all(c, inputs.x.all(d, true))))")
    with pytest.raises(ExpressionError, match="more than 9,999 steps") as caught:
        evaluate(expression, {"inputs": {"x": list(range(100))}})
    assert caught.value.failure().code == "expr_cost"


@pytest.mark.parametrize(
    "source",
    [
        "[inputs.a]" + ".map(v, v + v)" * 20 + "[0]",
        "[inputs.a]" + ".map(v, [v, v])" * 20,
        "optional.of(inputs.a)" + ".optMap(v, v + v)" * 20 + ".orValue('')",
        "inputs.a" + " + inputs.a" * 20 + "".join(f" + inputs.b{i}" for i in range(300)),
        "[" + ",".join(f"inputs.b{i}" for i in range(400)) + "]",
        "a" * 20_000,
    ],
)
def test_an_expression_that_would_grow_without_bound_is_refused(source: str) -> None:
    """Doubling twenty times is a megabyte of a character, and thirty times the end of the process."""
    with pytest.raises(RefusedExpressionError):
        compile_expression(source)


def test_lists_of_copies_stop_at_the_size_of_a_value() -> None:
    """9,000 times 64 KB are 600 MB."""
    expression = compile_expression("inputs.l.map(x, inputs.t)")
    with pytest.raises(ExpressionError, match="larger than") as caught:
        evaluate(expression, {"inputs": {"l": list(range(9000)), "t": "x" * 65_000}})
    assert caught.value.failure().code == "expr_cost"


def test_lone_surrogates_and_oversized_integers_in_data_are_errors() -> None:
    """The library cannot hold them; the run fails and says so."""
    for value in ("\ud800", 2**70):
        with pytest.raises(ExpressionError):
            evaluate(compile_expression("[inputs.v]"), {"inputs": {"v": value}})


def test_file_needs_a_reader_and_its_errors_keep_their_code() -> None:
    """The library would keep only the text of what the reader raised."""
    expression = compile_expression("file(item) + '!'")
    assert expression.uses_files
    with pytest.raises(ExpressionError, match="can only be read by an executor"):
        evaluate(expression, {"item": "a"})

    def denied(path: str) -> str:
        code = "path_denied"
        raise AttemptError(code, path, retryable=False)

    with pytest.raises(AttemptError) as caught:
        evaluate(expression, {"item": "a"}, files=denied)
    assert caught.value.failure().code == "path_denied"


def test_input_27_a_condition_is_a_boolean_or_an_error() -> None:
    """There is no truthiness."""
    assert evaluate_condition(compile_expression("inputs.a == 1"), SCOPE) is True
    for source in ("inputs.a", "inputs.e", "inputs.n", "inputs.t"):
        with pytest.raises(ExpressionError) as caught:
            evaluate_condition(compile_expression(source), SCOPE)
        assert caught.value.failure().code == "type_mismatch"


def test_a_constant_expression_is_its_value() -> None:
    """A literal list of a `foreach` is one; its source compiles to the same value."""
    for value in ([1, "a", None, {"b": 2.5}], True, 'x"y'):
        expression = constant_expression(value)
        assert evaluate(expression, {}) == value
        assert evaluate(compile_expression(expression.source), {}) == value


def test_half_of_a_surrogate_pair_is_refused_at_its_place() -> None:
    """No file can hold one, and the library raises on it: found by the fuzzer."""
    with pytest.raises(RefusedExpressionError) as caught:
        compile_expression("inputs.a + 'x\ud800'")
    (fault,) = caught.value.faults
    assert (fault.offset, fault.text) == (13, "half of a surrogate pair is no character")
    str(caught.value).encode()
