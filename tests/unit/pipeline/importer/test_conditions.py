"""Conditions in every old form, and what they decide."""

import pytest
from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of

ABOVE = """
- {name: a, type: test_echo, value: {n: 3, ok: true, text: hello}}
- {name: my-step, type: test_echo, value: {n: 1}}
"""


def when(condition: str) -> str:
    """The `when` of a step with a condition."""
    made = steps_of(f"{ABOVE}\n- {{name: last, type: test_echo, value: 1, condition: {condition}}}\n")
    text = made["last"]["when"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a.n > 2", "steps.a.output.n > 2"),
        ("'{{ a.n }} > 2'", "steps.a.output.n > 2"),
        ("'{{ a.n > 2 }}'", "steps.a.output.n > 2"),
        ("steps.a.result.n > 2", "steps.a.output.n > 2"),
        ("my-step.n == 1", 'steps["my-step"].output.n == 1'),
        ("[a.n > 2, a.ok]", 'steps.a.output.n > 2 && !(steps.a.output.ok in [null, false, "", [], {}])'),
        ("{and: [a.n > 2, a.n < 5]}", "steps.a.output.n > 2 && steps.a.output.n < 5"),
        ("{or: [a.n > 2, {not: a.n < 5}]}", "steps.a.output.n > 2 || !(steps.a.output.n < 5)"),
        ("{not: {and: [a.n > 2, a.n < 5]}}", "!(steps.a.output.n > 2 && steps.a.output.n < 5)"),
        ("'true'", "true"),
        ("true", "true"),
        ("a.n > limit", "steps.a.output.n > inputs.limit"),
    ],
)
def test_every_form_is_one_expression(old: str, new: str) -> None:
    """Text, list and map; with or without `steps.` and braces."""
    assert when(old) == new


def test_a_condition_that_worked_gets_no_note_and_others_show_both_values() -> None:
    """The old value is said where it differed."""
    plain = imported(f"{ABOVE}\n- {{name: last, type: test_echo, value: 1, condition: a.n > 2}}\n")
    assert said(plain, "N1542") == []
    quirky = imported(f"{ABOVE}\n- {{name: last, type: test_echo, value: 1, condition: steps.a.n>2}}\n")
    before = [found.old_behaviour for found in quirky.differences if found.code == "N1542"]
    assert before == [
        "`steps.` at the front of a condition was not understood: false",
        "a comparison without spaces around it was not understood: false",
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("nobody.x == 1", '7:47: E1508 "nobody.x == 1": nothing defines `nobody.x`'),
        ("a.n >", 'E1509 "a.n >": it ends too early'),
        ("{xor: [a.n > 1]}", "E1509 a map is no condition"),
        ("{and: []}", "E1509 a map is no condition"),
        ("3", "E1509 3 is no condition"),
        ("last.x", 'E1506 "last.x": step "last": it reads itself'),
    ],
)
def test_what_was_false_for_want_of_a_meaning_is_refused(condition: str, expected: str) -> None:
    """At its place, with the reason."""
    found = refusals(f"{ABOVE}\n- {{name: last, type: test_echo, value: 1, condition: {condition}}}\n")
    assert len(found) == 1
    assert expected in found[0]


def test_conditions_nested_without_end_are_refused() -> None:
    """A bound instead of the interpreter's stack."""
    deep = "{not: " * 21 + "a.n > 1" + "}" * 21
    assert (
        "conditions in each other"
        in refusals(f"{ABOVE}\n- {{name: z, type: test_echo, value: 1, condition: {deep}}}\n")[0]
    )
