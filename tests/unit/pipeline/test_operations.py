"""Operations over items: what they give, in a fixed order, and what is an error."""

from typing import Any

import pytest

from headrace.contracts.errors import ExpressionError
from headrace.pipeline.bundle import load_text
from headrace.pipeline.expressions import Template, compile_template, render

PEOPLE = [
    {"name": "ann", "team": "a", "age": 30, "lead": None},
    {"name": "bob", "team": "b", "age": 20, "lead": "ann"},
    {"name": "cid", "team": "a", "age": 40, "lead": "bob"},
    {"name": "dan", "team": "b", "age": 20, "lead": "ann"},
]
VALUES: dict[str, Any] = {"inputs": {"people": PEOPLE, "n": 2, "teams": [{"team": "a", "floor": 1}]}}
INPUTS = "inputs: {people: {type: array}, n: {type: integer}, teams: {type: array}}"


def spec(operations: str, step: str = "") -> Template:
    text = f"pipeline: p\n{INPUTS}\nsteps:\n  s: {{{step}transform: {{from: inputs.people, {operations}}}}}\n"
    return load_text(text).plan.by_id["s"].spec


def done(operations: str) -> Any:
    """The value, the same from the stored form, which is what executors get."""
    template = spec(operations)
    value = render(template, VALUES)
    assert render(compile_template(template.source), VALUES) == value
    return value


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ("where: item.age < 30, select: '${{ item.name }}'", ["bob", "dan"]),
        ("where: index < inputs.n, select: '${{ index }}: ${{ item.name }}'", ["0: ann", "1: bob"]),
        ("select: '${{ item.name }}', where: '${{ index > 1 }}'", ["cid", "dan"]),
        ("sort_by: a, select: {n: '${{ item.name }}', a: '${{ item.age }}'}, limit: 1", [{"n": "bob", "a": 20}]),
        ("unique: team, select: '${{ item }}', limit: 1", PEOPLE[:1]),
        ("group_by: team, aggregate: {n: {count: ''}, led: {count: lead}, old: {max: age}}, sort_by: -key",
         [{"key": "b", "n": 2, "led": 2, "old": 20}, {"key": "a", "n": 2, "led": 1, "old": 40}]),
        ("aggregate: {years: {sum: age}, mean: {avg: age}, first: {min: name}}",
         {"years": 110, "mean": 27.5, "first": "ann"}),
        ("join: {with: inputs.teams, on: team}, select: '${{ item.joined[0].floor }}'", [1, 1]),
        ("join: {with: inputs.teams, on: team, as: t, kind: left}, select: '${{ size(item.t) }}'", [1, 0, 1, 0]),
        ("limit: '${{ inputs.n }}', select: '${{ item.age }}'", [30, 20]),
        ("limit: 0", []),
        ("where: 'false', aggregate: {n: {count: ''}}", {"n": 0}),
    ],
)  # fmt: skip
def test_operations_give_their_value(operations: str, expected: Any) -> None:
    """Whatever their order in the file."""
    assert done(operations) == expected


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ("where: item.age", "a condition is true or false, got an integer"),
        ("sort_by: height", 'sort_by\\(\\): an item has no `height` on the path "height"'),
        ("group_by: team.x", 'group_by\\(\\): "team.x" looks for `x` in text'),
        ("aggregate: {n: {sum: name}}", "sum\\(\\) takes numbers, got text at index 0"),
        ("where: 'false', aggregate: {n: {avg: age}}", "avg\\(\\) of an empty list has no value"),
        ("limit: '${{ inputs.people[0].name }}'", "`limit` takes a whole number from 0, got text"),
        ("join: {with: inputs.n, on: team}", "`join` takes a list, got an integer"),
        ("join: {with: inputs.teams, on: floor}", "join\\(\\): an item has no `floor`"),
    ],
)
def test_what_has_no_value_is_an_error(operations: str, message: str) -> None:
    """With what was found, never an empty list instead."""
    with pytest.raises(ExpressionError, match=message):
        render(spec(operations), VALUES)


def test_an_operations_item_is_its_own_and_the_loops_around_keep_theirs() -> None:
    """Inside a `foreach` the item of the loop needs a name of its own to be seen; what is bound is not read outside."""
    template = spec("where: item.age > one, select: '${{ one + item.age + index }}'", "foreach: '[25, 35]', as: one, ")
    assert template.reads == {"inputs", "item"}
    assert render(template, VALUES | {"item": 35}) == [35 + 40 + 2]
    assert render(compile_template(template.source), VALUES | {"item": 35}) == [35 + 40 + 2]


def test_a_hundred_thousand_items_take_linear_time() -> None:
    """Ten times the nine thousand at which comprehensions stop, and the same function of the data."""
    template = spec("where: item % 2 == 0, select: '${{ item + 1 }}', limit: 3")
    assert render(template, {"inputs": {"people": list(range(100_000)), "n": 0}}) == [1, 3, 5]
