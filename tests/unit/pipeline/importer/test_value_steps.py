"""Variables, constants, and operations over lists."""

import pytest
from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of

from headrace.pipeline.expressions import compile_template, render

DATA = "- {name: data, type: test_echo, value: {rows: [{n: 2, t: a}, {n: 1, t: b}], users: []}}\n"


def transforms(operations: str, source: str = "data.rows", more: str = "") -> list[object]:
    """The transforms that come of operations."""
    steps = f"{DATA}- {{name: tf, type: data_transform, input_source: '{source}', operations: [{operations}]{more}}}\n"
    return [body["transform"] for name, body in steps_of(steps).items() if name != "data"]


def test_variables_are_a_map_that_later_steps_read() -> None:
    """A number stays a number."""
    made = steps_of(
        "- {name: a, type: set_variable, variables: {n: 1, Big Name: x}}\n"
        "- {name: b, type: set_variable, variable: m, value: '{{ n + 1 }}'}\n"
        "- {name: c, type: test_echo, value: '{{ m }}'}\n"
    )
    assert made["a"]["transform"] == {"n": 1, "big_name": "x"}
    assert made["b"]["transform"] == {"m": "${{ steps.a.output.n + 1 }}"}
    assert made["c"]["transform"] == "${{ steps.b.output.m }}"


@pytest.mark.parametrize(
    "source",
    [
        "data:rows", "data.rows", "previous_response:data:rows", "previous_response:data.rows", "steps.data.rows",
        "{{ data.rows }}", "{{steps.data.result.rows}}",
    ],
)  # fmt: skip
def test_a_list_is_found_by_every_spelling(source: str) -> None:
    """Seven of them are one expression."""
    assert transforms("{operation: sort, field: n}", source) == [
        {"from": "${{ steps.data.output.rows }}", "sort_by": "n"}
    ]


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        (
            "{operation: filter, field: n, condition: 'n > 1'}, {operation: filter, condition: \"t == 'a'\"}, "
            "{operation: sort, field: n, order: desc}",
            [{"from": "${{ steps.data.output.rows }}", "where": 'item.n > 1 && item.t == "a"', "sort_by": "-n"}],
        ),
        (
            "{operation: sort, field: n}, {operation: filter, condition: n == -1}",
            [
                {"from": "${{ steps.data.output.rows }}", "sort_by": "n"},
                {"from": "${{ steps.tf_1.output }}", "where": "item.n == -1"},
            ],
        ),
        (
            "{operation: map, field: t, mapping: {a: x}}",
            [
                {
                    "from": "${{ steps.data.output.rows }}",
                    "select": '${{ merge(item, {"t": {"a": "x"}[?text(item.t)].orValue(item.t)}) }}',
                }
            ],
        ),
        ("{operation: aggregate, field: n, function: average}", ["${{ avg(steps.data.output.rows.map(row, row.n)) }}"]),
        ("{operation: aggregate, function: count}", ["${{ size(steps.data.output.rows) }}"]),
        ("{operation: group_by, field: t}", [{"from": "${{ steps.data.output.rows }}", "group_by": "t"}]),
        ("{operation: unique}", ["${{ unique(steps.data.output.rows) }}"]),
    ],
)
def test_operations_are_passes_over_the_list(operations: str, expected: list[object]) -> None:
    """As many as the fixed order of one pass needs."""
    assert transforms(operations) == expected


def test_a_join_takes_the_first_match_and_keeps_rows_without() -> None:
    """Evaluated by our own evaluator."""
    made = transforms("{operation: join, left_field: t, right_source: 'data.users', join_key: id}")
    template = compile_template(made[0])
    data = {"rows": [{"t": "a"}, {"t": "z"}], "users": [{"id": "a", "x": 1}, {"id": "a", "x": 2}]}
    assert render(template, {"steps.data.output": data}) == [{"id": "a", "t": "a", "x": 1}, {"t": "z"}]


def test_a_group_is_read_by_its_key_and_by_the_steps_output_field() -> None:
    """The old result was a map of lists."""
    steps = (
        f"{DATA}- {{name: g, type: data_transform, input_source: "
        f"data.rows, operations: [{{operation: group_by, field: t}}], "
        "output_field: by_t}\n- {name: l, type: test_echo, value: '{{steps.g.a}}'}\n"
        "- {name: m, type: data_transform, input_source: "
        "'previous_response:by_t.b', operations: [{operation: unique}]}\n"
    )
    made = steps_of(steps)
    template = compile_template(made["l"]["transform"])
    groups = [{"key": "a", "items": [1]}, {"key": "b", "items": [2]}]
    assert render(template, {"steps.g.output": groups}) == [1]
    assert "steps.g.output" in made["m"]["transform"]
    assert "`by_t` is what step `g` gives" in said(imported(steps), "N1564")


def test_a_list_of_a_models_answer_is_asked_for() -> None:
    """Text that holds JSON becomes a value by a schema."""
    made = steps_of(
        "- {name: ask, type: gemini, prompt: x}\n"
        "- {name: tf, type: data_transform, input_source: "
        "'previous_response:ask.orders', operations: [{operation: unique}]}\n"
    )
    assert made["ask"]["llm"]["output_schema"]["properties"] == {"orders": {"type": "array"}}


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("{operation: query}", "E1510 no operation `query`"),
        ("{operation: filter, condition: 'a >'}", "E1509 a >: it ends too early"),
        ("{operation: map, field: a}", "E1510 a `map` needs `mapping`"),
        ("{operation: map, field: a.b, expression: uppercase}", "E1510 `a.b`: a `map` of a nested field"),
        ("{operation: aggregate, function: std_dev}", "E1510 no function `std_dev`"),
        ("{operation: group_by, field: a}, {operation: filter, condition: a == 1}", "E1510 `filter` after `group_by`"),
    ],
)
def test_operations_without_counterpart_are_refused(operation: str, why: str) -> None:
    """At the operation, with what there is."""
    steps = f"{DATA}- {{name: tf, type: data_transform, input_source: data.rows, operations: [{operation}]}}\n"
    assert any(why in found for found in refusals(steps))


def test_an_output_format_is_a_last_step() -> None:
    """Text or a number of what came before."""
    assert (
        transforms("{operation: sort, field: n}", more=", output_format: count")[1]
        == "${{ size(steps.tf_all.output) }}"
    )


def test_a_step_that_fails_on_purpose_is_reported() -> None:
    """`fail` was for the old system's own tests."""
    assert said(imported("- {name: a, type: test_echo, value: 1, fail: true, error_message: x}"), "W1520") == [
        "`fail` is dropped: a step that always fails has no counterpart"
    ]
