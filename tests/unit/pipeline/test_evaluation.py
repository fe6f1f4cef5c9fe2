"""The golden suite: what expressions give. Another version of the library, or another library, has to give the same."""

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

SCOPE: dict[str, Any] = {
    "inputs": {
        "a": 1,
        "b": [1, 2, {"c": 2.5}],
        "n": None,
        "t": "Grüße 😀",
        "f": 2.5,
        "m": {"z": 1, "a": 2},
        "big": 9007199254740993,
        "rows": [
            {"k": "x", "v": 3, "d": {"e": 1}},
            {"k": "y", "v": 1, "d": {"e": 3}},
            {"k": "x", "v": 2, "d": {"e": 2}},
        ],
        "e": [],
        "j": '{"p": [1, 2.0, null]}',
        "bad": '{"a": NaN}',
        "words": ["b", "a", "b"],
    },
    "vars": {"limit": 10},
    "steps.one.output": {"x": 1, "ok": True},
    "steps.one.status": "succeeded",
    "steps.one.attempts": 2,
    "steps.my-step.output": 3,
    "item": {"p": "f.py"},
    "index": 3,
    "run": {"id": "r1", "labels": {"team": "core"}},
    "event": {"data": {"branch": "main"}},
}

VALUES: list[tuple[str, Any]] = [
    ("inputs.a", 1),
    ("inputs.b", [1, 2, {"c": 2.5}]),
    ("inputs.b[2].c", 2.5),
    ("inputs.n", None),
    ("inputs.t", "Grüße 😀"),
    ('inputs.m["z"]', 1),
    ('inputs["a"]', 1),
    ("inputs.big", 9007199254740993),
    ("vars.limit", 10),
    ("steps.one.output", {"x": 1, "ok": True}),
    ("steps.one.output.x", 1),
    ('steps["my-step"].output', 3),
    ('steps.one.status == "succeeded"', True),
    ("steps.one.attempts + 1", 3),
    ("item.p", "f.py"),
    ("index", 3),
    ("run.labels.team", "core"),
    ('event.data.branch == "main"', True),
    ("1 + 2 * 3", 7),
    ("7 / 2", 3),
    ("7 % 3", 1),
    ("-inputs.a", -1),
    ("7.0 / 2.0", 3.5),
    ("double(inputs.a) * inputs.f", 2.5),
    ("int(inputs.f)", 2),
    ("string(inputs.f)", "2.5"),
    ("inputs.a == 1", True),
    ("inputs.a == 1.0", True),
    ("inputs.f > 2", True),
    ("inputs.a > 0 && inputs.f < 3.0", True),
    ("false || inputs.a == 1", True),
    ("!(inputs.a == 2)", True),
    ('inputs.a == 1 ? "yes" : "no"', "yes"),
    ('"a" in inputs.m', True),
    ("2 in inputs.b", True),
    ("has(inputs.a)", True),
    ("has(inputs.zz)", False),
    ("size(inputs.t)", 7),
    ("size(inputs.b)", 3),
    ('inputs.t.contains("üß")', True),
    ('inputs.t.startsWith("Gr")', True),
    ('inputs.t.matches("^Gr.*[0-9]?")', True),
    ('matches("abc", "b")', True),
    ('"a" + "b"', "ab"),
    ("[1] + [2]", [1, 2]),
    ("inputs.b + [4]", [1, 2, {"c": 2.5}, 4]),
    ('{"k": [inputs.a, "x"]}', {"k": [1, "x"]}),
    ("[1, 2, 3].filter(x, x > 1)", [2, 3]),
    ("[1, 2, 3].map(x, x * x)", [1, 4, 9]),
    ("[1, 2, 3].map(x, x > 1, x * 10)", [20, 30]),
    ("[1, 2].map(x, [3, 4].map(y, x * y))", [[3, 4], [6, 8]]),
    ("inputs.rows.all(r, r.v > 0)", True),
    ("inputs.rows.exists(r, r.v == 3)", True),
    ('inputs.rows.exists_one(r, r.k == "y")', True),
    ("inputs.m.map(k, k)", ["a", "z"]),
    ("inputs.m.map(k, inputs.m[k])", [2, 1]),
    ("inputs.m.filter(k, inputs.m[k] > 1)", ["a"]),
    ("inputs.?zz.orValue(7)", 7),
    ("inputs.?m.?a.orValue(7)", 2),
    ('inputs.?b[?9].orValue("none")', "none"),
    ("steps.?gone.?output.orValue(null)", None),
    ("steps.?gone.?output.hasValue()", False),
    ("has(steps.gone.output) ? 1 : 2", 2),
    ("steps.?one.?output.optMap(o, o.x + 1).orValue(0)", 2),
    ("sum([1, 2, 3])", 6),
    ("sum([1, 2.5])", 3.5),
    ("sum(inputs.e)", 0),
    ("inputs.rows.map(r, r.v).sum()", 6),
    ("avg([1, 2])", 1.5),
    ("min([3, 1, 2])", 1),
    ('max(["a", "c", "b"])', "c"),
    ("max([1, 2.5])", 2.5),
    ('sort_by(inputs.rows, "v").map(r, r.v)', [1, 2, 3]),
    ('sort_by(inputs.rows, "-d.e").map(r, r.d.e)', [3, 2, 1]),
    ('sort_by(inputs.words, "")', ["a", "b", "b"]),
    ('group_by(inputs.rows, "k").map(g, size(g.items))', [2, 1]),
    ('group_by(inputs.rows, "k")[0].key', "x"),
    ("unique(inputs.words)", ["b", "a"]),
    ("unique([1, 1.0, 1])", [1, 1.0]),
    ("flatten([[1], [2, [3]], 4])", [1, 2, [3], 4]),
    ("keys(inputs.m)", ["a", "z"]),
    ("values(inputs.m)", [2, 1]),
    ('merge(inputs.m, {"a": 9, "q": 1})', {"a": 9, "q": 1, "z": 1}),
    ('coalesce(inputs.n, "d")', "d"),
    ("coalesce(inputs.n, inputs.n, 3)", 3),
    ("json(inputs.j)", {"p": [1, 2.0, None]}),
    ('json("[1]")[0]', 1),
    ("text(inputs.m)", '{"a":2,"z":1}'),
    ('text("as is")', "as is"),
    ("text(1.0)", "1.0"),
    ('join(["a", 1, null], "-")', "a-1-null"),
    ('["a", "b"].join()', "ab"),
    ('split("a,b,,c", ",")', ["a", "b", "", "c"]),
    ('"abc".split("")', ["a", "b", "c"]),
    ('lower("ÄB") + upper("äb")', "äbÄB"),
    ('"ab".upper()', "AB"),
    ('replace("aXbX", "X", "-")', "a-b-"),
    ('"  x ".trim()', "x"),
    ('substring("héllo", 1, 3)', "él"),
    ('"héllo".substring(3)', "lo"),
    ('sha256("abc")', "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ('duration("1h30m")', "5400s"),
    ('duration("1.5s")', "1.5s"),
    ('duration("90m") == duration("1h30m")', True),
    ('timestamp("2024-02-29T12:00:00Z")', "2024-02-29T12:00:00Z"),
    ('timestamp("2024-01-01T00:00:00Z") + duration("36h")', "2024-01-02T12:00:00Z"),
    ('timestamp("2024-01-01T00:00:00+02:00").getFullYear()', 2023),
    ("math.greatest(1, 5)", 5),
    ("math.round(2.5)", 3.0),
    ("type(inputs.t) == string", True),
    ('file("f.py")', "<f.py>"),
    ("9223372036854775807", 9223372036854775807),
    ("0x1F", 31),
    ("1u", 1),
    ('b"x" == b"x"', True),
    ('r"\\d" == "\\\\d"', True),
    ('"""tri"ple"""', 'tri"ple'),
]

FAILURES: list[tuple[str, str, str]] = [
    ("inputs.zz", "expr_eval", "there is no `zz`; there are a, b, bad, big, e, f, j, m, n, rows"),
    ("inputs.a.b", "expr_eval", "`b` looked for in an integer, which has no fields"),
    ("inputs.b[9]", "expr_eval", "Index error: index=9 size=3"),
    ("1 / inputs.e.size()", "expr_eval", "divide by zero"),
    ("inputs.big * inputs.big", "expr_eval", "integer overflow"),
    (
        "inputs.a * inputs.f",
        "expr_eval",
        "No matching overloads found : _*_(int64, double); integers and doubles don't mix: write `double(x)`",
    ),
    ("inputs.t + 1", "expr_eval", "No matching overloads found : _+_(string, int64)"),
    ("size(inputs.a)", "expr_eval", "No matching overloads found : size(int64)"),
    ("min(inputs.e)", "expr_eval", "min() of an empty list has no value"),
    ("avg(inputs.e)", "expr_eval", "avg() of an empty list has no value"),
    ("sum(inputs.m)", "expr_eval", "sum() takes a list, got a map"),
    ('sort_by(inputs.rows, "zz")', "expr_eval", 'sort_by(): an item has no `zz` on the path "zz"'),
    ("json(inputs.bad)", "expr_eval", "json(): NaN is not JSON"),
    ("json(inputs.t)", "expr_eval", "json(): Expecting value at line 1, column 1"),
    ("keys(inputs.b)", "expr_eval", "keys() takes a map, got a list"),
    ("inputs.rows.map(r, r.zz)", "expr_eval", 'Key not found in map : "zz"'),
    ("inputs.rows.filter(r, r.v)", "expr_eval", "a condition inside it is not true or false"),
    ("double(inputs.a) / 0.0", "expr_eval", "the result is not a finite number"),
    ("{1: inputs.a}", "type_mismatch", "the result has an integer as a key; keys are text"),
    ('[b"x", inputs.a]', "type_mismatch", "the result holds bytearray, which JSON has no form for"),
    ("inputs.m.zz", "expr_eval", "there is no `zz`; there are a, z"),
    ("inputs.n.x", "expr_eval", "`x` looked for in null, which has no fields"),
    ("inputs.t[0]", "expr_eval", "Invalid container type: 'string'"),
    ('duration("x" + inputs.t)', "expr_eval", "String to Duration conversion failed"),
    ('inputs.t.matches("(")', "expr_eval", "invalid regular expression: missing ): ("),
    ("inputs.a ? 1 : 2", "expr_eval", "a condition inside it is not true or false"),
]

REFUSED: list[tuple[str, str]] = [
    (
        'max([1, "a"])',
        "1:1: this never has a value: max() compares numbers or texts, got an integer, text",
    ),
    ('sum(["a"])', "1:1: this never has a value: sum() takes numbers, got text at index 0"),
    (
        'sort_by([1, "a"], "")',
        "1:1: this never has a value: sort_by() compares numbers or texts, got an integer, text",
    ),
    ('substring("abc", 2, 9)', "1:1: this never has a value: substring(2, 9) lies outside of a text of 3 characters"),
    ('replace("a", "", "b")', "1:1: this never has a value: replace() needs something to look for"),
    ('int("x")', "1:1: this never has a value: cannot convert string to int"),
    ('timestamp("x")', "1:1: this never has a value: String to Timestamp conversion failed"),
    ("range(100)", "1:1: unknown name `range`; did you mean `merge`?"),
    (
        "nope",
        "1:1: unknown name `nope`; known are inputs, vars, steps, item, index, carry, iteration, run, event, secrets",
    ),
    ("input.a", "1:1: unknown name `input`; did you mean `inputs`?"),
    ("inputs.a +", "1:11: Syntax error: mismatched input end of the expression"),
    ("steps", "1:1: `steps` alone cannot be checked; name one step: `steps.<id>.output`"),
    ("steps.one", "1:1: `steps.one` needs an attribute; one of output, status, attempts, error, usage, items"),
    (
        "steps[inputs.t].output",
        "1:1: `steps[…]` with a computed id cannot be checked; name one step: `steps.<id>.output`",
    ),
    ("steps.one.outptu", "1:11: a step has no `outptu`; did you mean `output`?"),
    ("steps.my-step.output", '1:10: `-step` is a subtraction here; write `steps["my-step"]` for ids with `-`'),
    ("index.x", "1:6: expression of type 'int' cannot be the operand of a select operation"),
    ('1 + "a"', "1:3: found no matching overload for '_+_' applied to '(int, string)'"),
    (
        "1.5 * 2",
        "1:5: found no matching overload for '_*_' applied to '(double, int)'; "
        "integers and doubles don't mix: write `double(x)`",
    ),
    ("1 / 0", "1:1: this never has a value: divide by zero"),
    ("9223372036854775808", "1:1: invalid int literal"),
    ("().__class__", "1:2: Syntax error: extraneous input ')'"),
    ("inputs.?zz", "1:1: the result is an optional value; end it with `.orValue(…)`"),
    ('"unclosed', "1:1: Syntax error: token recognition error at: '\"unclosed'"),
    ("[1, 2", "1:6: Syntax error: mismatched input end of the expression"),
    ("file()", "1:1: `file` does not take these arguments"),
    ("size(1)", "1:5: found no matching overload for 'size' applied to '(int)'"),
]


def reading(path: str) -> str:
    return f"<{path}>"


@pytest.mark.parametrize(("source", "expected"), VALUES, ids=[source for source, _ in VALUES])
def test_an_expression_gives_its_value(source: str, expected: Any) -> None:
    """Value and type: 1 is not 1.0, and true is not 1."""
    value = evaluate(compile_expression(source), SCOPE, files=reading)
    assert value == expected
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(("source", "code", "message"), FAILURES, ids=[source for source, _, _ in FAILURES])
def test_an_expression_without_a_value_is_an_error(source: str, code: str, message: str) -> None:
    """Never false, 0 or an empty text instead."""
    expression = compile_expression(source)
    with pytest.raises(ExpressionError) as caught:
        evaluate(expression, SCOPE, files=reading)
    assert caught.value.failure().code == code
    assert str(caught.value) == f"`{source}`: {message}"


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[source for source, _ in REFUSED])
def test_an_expression_is_refused_when_it_is_compiled(source: str, message: str) -> None:
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
