"""The old formulas as CEL: how they are written, what they give, and where the old evaluator gave something else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.expressions import compile_expression, evaluate_condition
from headrace.pipeline.importer.formula import DEPTH_MAX, SOURCE_CHARS_MAX, FormulaError, parse
from headrace.pipeline.importer.ids import fields
from headrace.pipeline.importer.outputs import Read

NOT_SPACED = "a comparison without spaces around it was not understood: false"
LOGIC = "`and` and `or` inside text were not understood: false"
HYPHEN = "a `-` in a step's name was read as minus: false"


def read(path: tuple[str | int, ...]) -> Read:
    """Every name is an input; one that ends in `text` is known to be text."""
    return Read(fields("inputs", path), is_text=path[-1] == "text")


def cel(source: str, *odd_names: str) -> str:
    """The formula as CEL."""
    return parse(source, read, odd_names).cel.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("step.field.sub", "inputs.step.field.sub"),
        ("review.score >= 8", "inputs.review.score >= 8"),
        ("a.text contains 'x'", 'inputs.a.text.contains("x")'),
        (
            ("a.tags contains 'x'"),
            'type(inputs.a.tags) == list ? "x" in inputs.a.tags : text(inputs.a.tags).contains("x")',
        ),
        ("a.text matches '^v[0-9]'", 'inputs.a.text.matches("^v[0-9]")'),
        ("a.n between 1 and 5", "inputs.a.n >= 1 && inputs.a.n <= 5"),
        ("a.text starts_with 'x'", 'inputs.a.text.startsWith("x")'),
        ("a.text ends_with 'x'", 'inputs.a.text.endsWith("x")'),
        ("a.x in ['p', 'q']", 'inputs.a.x in ["p", "q"]'),
        ("a.x not_in [1, 2]", "!(inputs.a.x in [1, 2])"),
        ("a.x not in [1, 2]", "!(inputs.a.x in [1, 2])"),
        ("a.x.y exists", "has(inputs.a.x.y)"),
        ("a exists", "inputs.a != null"),
        ("a.x is empty", 'inputs.a.x in [null, "", [], {}]'),
        ("a and b", '!(inputs.a in [null, false, "", [], {}]) && !(inputs.b in [null, false, "", [], {}])'),
        ("not a == 1", "!(inputs.a == 1)"),
        ("a == 1 or b == 2 and c == 3", "inputs.a == 1 || inputs.b == 2 && inputs.c == 3"),
        ("(a == 1 or b == 2) and c == 3", "(inputs.a == 1 || inputs.b == 2) && inputs.c == 3"),
        ("n * 100 + 5", "inputs.n * 100 + 5"),
        ("n - (m - 1)", "inputs.n - (inputs.m - 1)"),
        ("length(a.text) > 10", "size(inputs.a.text) > 10"),
        ("toUpperCase(a.text) == 'X'", 'upper(inputs.a.text) == "X"'),
        ("contains(a.text, 'x')", 'inputs.a.text.contains("x")'),
        ("startsWith(a.text, 'x')", 'inputs.a.text.startsWith("x")'),
        ("isEmpty(a.x)", '(inputs.a.x in [null, "", [], {}])'),
        ("between(a.n, 1, 2)", "inputs.a.n >= 1 && inputs.a.n <= 2"),
        ("any(issues, 'severity == \"high\"') == false", 'inputs.issues.exists(it, it.severity == "high") == false'),
        ("all(rows, 'n > 1')", "inputs.rows.all(it, it.n > 1)"),
        ("count(rows, 'ok')", 'size(inputs.rows.filter(it, !(it.ok in [null, false, "", [], {}])))'),
        ("count(rows) > 2", "size(inputs.rows) > 2"),
        ("sum(rows, 'total') > 5.5", "sum(inputs.rows.map(it, it.total)) > 5.5"),
        ("average(a.scores) >= 7", "avg(inputs.a.scores) >= 7.0"),
        ("max(1, n)", "max([1, inputs.n])"),
        ("ts > now() - days(7)", 'timestamp(inputs.ts) > now() - duration(text(7 * 24) + "h")'),
        ("round(a.x) == 3", "int(math.round(double(inputs.a.x))) == 3"),
        ("multiply(n, m)", "inputs.n * inputs.m"),
        ("add(multiply(n, m), 1)", "(inputs.n * inputs.m) + 1"),
        ("a ? 1 : 2", '!(inputs.a in [null, false, "", [], {}]) ? 1 : 2'),
        ("a[0].b", "inputs.a[0].b"),
        ("a.0.b", "inputs.a[0].b"),
        ("a['odd key'].b", 'inputs.a["odd key"].b'),
        ("my-step.score > 3", 'inputs["my-step"].score > 3'),
        ("a-b", "inputs.a - inputs.b"),
        ("x == nil", "inputs.x == null"),
    ],
)
def test_documented_forms_are_written_as_cel(old: str, new: str) -> None:
    """Every documented operator and function has a counterpart, and the library accepts it."""
    assert cel(old, "my-step") == new
    compile_expression(new)


@pytest.mark.parametrize(
    ("source", "quirk"),
    [
        ("a>1", NOT_SPACED),
        ("a ==1", NOT_SPACED),
        ("a == 1 and b == 2", LOGIC),
        ("a == 1 or b == 2", LOGIC),
        ("not a", "`not` inside text was not understood: false"),
        ("steps.a.b == 1", "`steps.` at the front of a condition was not understood: false"),
        ("state.x", "`state.` was not understood in a condition: false"),
        ("a.b starts_with 'x'", "`starts_with` was not understood: false"),
        ("a.b exists", "`exists` was not understood: false"),
        ("my-step.ok", HYPHEN),
        ("a / b == 1", "a division by 0 gave 0"),
        ("any(i, 'a == 1') == false", "a function compared with `false` was true whatever the data"),
    ],
)
def test_what_the_old_evaluator_misread_is_said(source: str, quirk: str) -> None:
    """The report can show both values."""
    assert quirk in parse(source, read, ["my-step"]).quirks


@pytest.mark.parametrize("source", ["a.b > 1", "a.b == 'x'", "a.b contains 'x'", "a.b matches 'x'", "a.ok"])
def test_what_it_understood_is_not_said(source: str) -> None:
    """No note where nothing changes."""
    assert parse(source, read, []).quirks == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        (False, False),
        ("", False),
        ([], False),
        ({}, False),
        (0, True),
        ("x", True),
        ([0], True),
        (1.5, True),
    ],
)
def test_a_bare_name_is_true_as_it_was(value: Any, expected: bool) -> None:
    """nil, false, "", [] and {} are false, and 0 is true."""
    condition = compile_expression(parse("x", read, []).cel.condition().text)
    assert evaluate_condition(condition, {"inputs": {"x": value}}) is expected


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("score >= 8", {"score": 8.5}, True),
        ("score >= 8", {"score": 7}, False),
        ("tags contains 'a'", {"tags": ["a"]}, True),
        ("tags contains 'a'", {"tags": "cat"}, True),
        ("tags contains 'a'", {"tags": ["cat"]}, False),
        ("any(rows, 'n > 1') == false", {"rows": [{"n": 1}]}, True),
        ("any(rows, 'n > 1') == false", {"rows": [{"n": 2}]}, False),
        ("n between 1 and 3 and ok", {"n": 2, "ok": True}, True),
        ("n between 1 and 3 and ok", {"n": 2, "ok": ""}, False),
        ("ts > now() - days(1)", {"ts": "2999-01-01T00:00:00Z"}, True),
        ("count(rows, 'ok') == 1", {"rows": [{"ok": True}, {"ok": None}]}, True),
    ],
)
def test_conditions_have_the_documented_value(source: str, values: dict[str, Any], expected: bool) -> None:
    """Evaluated by our own evaluator over the data."""
    text = parse(source, read, []).cel.condition().text.replace("now()", 'timestamp("2026-01-01T00:00:00Z")')
    assert evaluate_condition(compile_expression(text), {"inputs": values}) is expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "it is empty"),
        ("a ==", "it ends too early"),
        ("a b", "`b` is not expected here"),
        ("x | upper", "`| upper` is not understood"),
        ("foo(1)", "there is no function `foo`"),
        ("multiply(1)", "`multiply` takes 2 arguments, got 1"),
        ("a.", "it ends too early"),
        ("a[b]", "only a number or a text can stand in `[…]`"),
        ("99999999999999999999", "outside the 64-bit range"),
        ("(" * (DEPTH_MAX + 1) + "1" + ")" * (DEPTH_MAX + 1), "brackets in brackets"),
        ("a" * (SOURCE_CHARS_MAX + 1), "are allowed"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(source: str, why: str) -> None:
    """Never false, 0 or an empty text."""
    with pytest.raises(FormulaError) as caught:
        parse(source, read, [])
    assert why in str(caught.value)


WORDS = st.sampled_from(
    [
        "a",
        "b.c",
        "steps.x",
        "1",
        "2.5",
        "'t'",
        '"u"',
        "==",
        ">",
        "and",
        "or",
        "not",
        "in",
        "(",
        ")",
        "[",
        "]",
        ",",
        "+",
        "-",
        "*",
        "/",
        "?",
        ":",
        "contains",
        "between",
        "exists",
        "any",
        "count",
        "now()",
        "my-step",
        ".",
        " ",
    ]
)


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_is_an_expression_or_a_refusal(source: str) -> None:
    """Whatever stands in a file: no other exception, and brackets that match."""
    try:
        text = parse(source, read, ["my-step"]).cel.condition().text
    except FormulaError:
        return
    assert json.dumps(text)
    assert text.count("(") == text.count(")") or '"' in text
