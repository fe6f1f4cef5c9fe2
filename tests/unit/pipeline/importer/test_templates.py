"""`{{ … }}` as `${{ … }}`: in prompts, values and paths."""

import pytest
from tests.unit.pipeline.importer.conversion import document, imported, refusals, said, steps_of

ABOVE = """
- {name: ask, type: gemini, prompt: hello}
- {name: a, type: test_echo, value: {n: 3, list: [1, 2]}}
- {name: Odd Name, type: test_echo, value: {n: 1}}
- {name: set, type: set_variable, variables: {v: {x: 1}}}
"""


def value(template: str) -> object:
    """What a template becomes."""
    return steps_of(f"{ABOVE}\n- {{name: last, type: test_echo, value: {template}}}\n", above="global_vars: {g: 1}")[
        "last"
    ]["transform"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'{{steps.a.n}}'", "${{ steps.a.output.n }}"),
        ("'{{ steps.a.result.n }}'", "${{ steps.a.output.n }}"),
        ("'{{a.n}}'", "${{ steps.a.output.n }}"),
        ("'{{steps.a.list.0}}'", "${{ steps.a.output.list[0] }}"),
        ("'{{steps.Odd Name.n}}'", "${{ steps.odd_name.output.n }}"),
        ("'{{steps.ask.result}}'", "${{ steps.ask.output.text }}"),
        ("'{{ask.content}}'", "${{ steps.ask.output.text }}"),
        ("'{{previous_response:a.n}}'", "${{ steps.a.output.n }}"),
        ("'{{previous_response:a}}'", "${{ steps.a.output }}"),
        ("'{{file:notes.md}}'", '${{ file("notes.md") }}'),
        ("'{{v.x}}'", "${{ steps.set.output.v.x }}"),
        ("'{{state.v.x}}'", "${{ steps.set.output.v.x }}"),
        ("'{{global_vars.g}}'", "${{ vars.g }}"),
        ("'{{g}}'", "${{ vars.g }}"),
        ("'{{inputs.q.r}}'", "${{ inputs.q.r }}"),
        ("'{{ who }}'", "${{ inputs.who }}"),
        ("'{{timestamp}}'", "${{ run.started_at }}"),
        ("'{{date}}'", "${{ run.started_at.substring(0, 10) }}"),
        ("'{{execution_id}}'", "${{ run.id }}"),
        ("'{{workflow.name}}'", '${{ "old" }}'),
        ("'n {{a.n + 1}} and {{multiply(a.n, 2)}}'", "n ${{ steps.a.output.n + 1 }} and ${{ steps.a.output.n * 2 }}"),
        ("'${{ matrix.otp-version }}'", '${{ "${{ matrix.otp-version }}" }}'),
        ("'cost ${{steps.a.n}}'", 'cost ${{ "$" + text(steps.a.output.n) }}'),
        ("'no {{ end'", '${{ "no {{ end" }}'),
        ("['{{a.n}}', x]", '${{ [steps.a.output.n, "x"] }}'),
        ("{k: 'n {{a.n}}'}", {"k": "n ${{ steps.a.output.n }}"}),
        ("7", "${{ 7 }}"),
    ],
)
def test_templates_are_evaluated_where_they_are_used(old: str, new: object) -> None:
    """A text that is one template keeps its type."""
    assert value(old) == new


def test_a_literal_of_another_system_is_kept_in_a_prompt() -> None:
    """It was mangled: `$0.0-0`."""
    made = steps_of("- {name: a, type: gemini, prompt: 'run ${{ matrix.otp-version }} now'}")
    assert made["a"]["llm"]["prompt"] == "run $${{ matrix.otp-version }} now"


def test_a_name_that_nothing_defines_is_an_input_and_the_place_is_said() -> None:
    """Once, although it is used twice, at the character where it stands first."""
    steps = "- name: last\n  type: gemini\n  prompt: |\n    about\n    see {{ who }} and {{ who }}\n"
    assert document(steps)["inputs"] == {"who": {"type": "string"}}
    found = [found for found in imported(steps).differences if found.code == "N1544"]
    assert [(one.line, one.column, one.old_behaviour) for one in found] == [
        (8, 13, "a name that nothing defined became an empty text")
    ]


def test_a_field_that_nothing_promises_is_asked_for_by_a_schema() -> None:
    """Whole reads of the same answer are then the value."""
    steps = (
        "- {name: ask, type: gemini, prompt: hello}\n- {name: b, type: gemini, prompt: 'all {{steps.ask.result}}'}\n"
        "- {name: c, type: gemini, prompt: '{{ask.score.deep}}'}\n"
    )
    made = steps_of(steps)
    assert made["ask"]["llm"]["output_schema"] == {
        "type": "object",
        "required": ["score"],
        "properties": {"score": {"type": "object"}},
    }
    assert made["b"]["llm"]["prompt"] == "all ${{ steps.ask.output }}"
    assert said(imported(steps), "W1526") == [
        "`ask.score.deep`: nothing in the old file promises this field; the model is asked for it by `output_schema`"
    ]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{steps.nobody.x}}", 'E1506 {{steps.nobody.x}}: there is no step "nobody" before this; steps are '),
        ("{{steps.later.x}}", 'E1507 {{steps.later.x}}: step "later" has not run here'),
        ("{{nobody.x}}", "E1508 {{nobody.x}}: nothing defines `nobody.x`"),
        ("{{loop.item}}", "E1508 {{loop.item}}: `loop.item` stands outside of a loop"),
        ("{{a | upper}}", "E1508 {{a | upper}}: `| upper` is not understood"),
        ("{{workflow.x}}", "E1508 {{workflow.x}}: nothing defines `workflow.x`; known are name"),
        ("{{}}", "E1508 {{}}: it is empty"),
        ("{{ask.cost}}", 'E1506 {{ask.cost}}: step "ask": `cost` is a fact about the call'),
        ("{{set.w}}", 'E1506 {{set.w}}: step "set": it has no `w`; it has v'),
    ],
)
def test_what_was_an_empty_text_is_refused_at_its_place(template: str, why: str) -> None:
    """With line and column inside the text."""
    steps = (
        f"{ABOVE}\n- name: last\n  type: gemini\n  prompt: |\n    one\n"
        f"    two {template}\n- {{name: later, type: gemini, prompt: x}}\n"
    )
    found = refusals(steps)
    assert len(found) == 1
    assert found[0].startswith(f"13:13: {why}")
