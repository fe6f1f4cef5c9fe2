"""Loops: items in order with the documented bound, variables from turn to turn."""

from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of

ROWS = "- {name: init, type: set_variable, variables: {rows: [1, 2], n: 0, path: a.md}}\n"


def test_a_for_loop_is_a_bounded_map_over_a_group() -> None:
    """One at a time unless `parallel`; loop variables work in the body."""
    steps = (
        ROWS + "- name: each\n  type: for_loop\n  iterator: row\n  data_source: rows\n  steps:\n"
        "  - {name: echo, type: test_echo, value: '{{loop.index}} {{loop.item}} {{row}}'}\n"
    )
    assert steps_of(steps)["each"] == {
        "needs": ["init"],
        "foreach": "${{ steps.init.output.rows }}",
        "as": "row",
        "max_parallel": 1,
        "on_item_error": "fail",
        "steps": {"echo": {"transform": "${{ index }} ${{ row }} ${{ row }}"}},
        "outputs": {"echo": "${{ steps.echo.output }}"},
    }
    assert "a failed item fails the step" in said(imported(steps), "N1557")


def test_max_parallel_has_its_documented_meaning() -> None:
    """It was the size of a chunk: 1 gave 20 at once."""
    steps = (
        ROWS
        + "- name: each\n  type: for_loop\n  iterator: item\n  data_source: rows\n  parallel: true\n  max_parallel: 3\n"
        "  break_on_error: false\n  batch_size: 9\n  timeout_seconds: 7\n  break_condition: x\n  steps:\n"
        "  - {name: e, type: gemini, prompt: '{{ item.name }}', condition: 'item.n > 1'}\n"
    )
    made = steps_of(steps)["each"]
    assert (made["max_parallel"], made["on_item_error"], made["deadline"]) == (3, "continue", "7s")
    assert "as" not in made
    assert made["steps"]["e"]["when"] == "item.n > 1"
    assert made["steps"]["e"]["llm"]["prompt"] == "${{ item.name }}"
    result = imported(steps)
    assert [found.line for found in result.differences if found.code == "W1530"] == [14]
    assert any("1 gave 20 at once" in found.old_behaviour for found in result.differences)


def test_loops_in_loops_see_their_parents_item() -> None:
    """Also when both call it the same."""
    made = steps_of(
        ROWS
        + "- name: o\n  type: for_loop\n  iterator: x\n  data_source: rows\n  steps:\n  - name: i\n    type: for_loop\n"
        "    iterator: x\n    data_source: 'x:cells'\n    steps:\n"
        "    - {name: e, type: test_echo, value: '{{loop.item}} {{loop.parent.item}} {{x}}'}\n"
    )
    inner = made["o"]["steps"]["i"]
    assert (inner["foreach"], inner["as"]) == ("${{ x.cells }}", "x_inner")
    assert inner["steps"]["e"]["transform"] == "${{ x_inner }} ${{ x }} ${{ x_inner }}"


def test_results_of_a_loop_are_read_by_their_old_names() -> None:
    """Iterations, success, counts."""
    steps = (
        ROWS + "- name: each\n  type: for_loop\n  iterator: row\n  data_source: rows\n  steps:\n"
        "  - {name: ask, type: gemini, prompt: x}\n"
        "- {name: l, type: test_echo, value: '{{each.success}} "
        "{{each.total_items}} {{each.iterations.0.results.ask.text}}'}\n"
    )
    assert steps_of(steps)["l"]["transform"] == (
        "${{ size(steps.each.output.failed) == 0 }} ${{ size(steps.each.output.items) }} "
        "${{ steps.each.output.items[0].ask }}"
    )


def test_a_while_loop_carries_what_its_body_sets() -> None:
    """The condition is asked at each turn, and the variables are known after the loop."""
    steps = (
        ROWS + "- name: w\n  type: while_loop\n  condition: 'n < 3'\n  max_iterations: 5\n  steps:\n"
        "  - {name: draft, type: gemini, prompt: [{type: file, path: '{{ path }}'}], output_to_file: 'd_{{ n }}.md'}\n"
        "  - {name: next, type: set_variable, variables: {n: '{{ n + 1 }}', path: 'd_{{ n }}.md'}}\n"
        "- {name: l, type: test_echo, value: '{{ n }}'}\n"
    )
    made = steps_of(steps)
    loop = made["w"]
    assert (loop["while"], loop["max_iterations"]) == ("carry.n < 3", 5)
    assert loop["carry"] == {"n": "${{ steps.init.output.n }}", "path": "${{ steps.init.output.path }}"}
    assert loop["steps"]["draft"]["llm"]["prompt"] == "${{ file(carry.path) }}"
    assert loop["steps"]["draft_file"]["with"]["path"] == "d_${{ carry.n }}.md"
    assert loop["steps"]["next"]["transform"] == {"n": "${{ carry.n + 1 }}", "path": "d_${{ carry.n }}.md"}
    assert loop["outputs"]["n"] == "${{ steps.next.output.n }}"
    assert made["l"]["transform"] == "${{ steps.w.output.n }}"
    assert "reaching 5 turns fails, unless `on_limit: ok`" in said(imported(steps), "N1557")


def test_a_condition_on_the_bodys_own_results_is_asked_after_a_turn() -> None:
    """It was asked before the first turn, was false, and the body never ran."""
    steps = (
        "- name: w\n  type: while_loop\n  condition: 'judge.score < 8'\n"
        "  steps:\n  - {name: judge, type: gemini, prompt: x}\n"
    )
    made = steps_of(steps)["w"]
    assert (made["until"], made["max_iterations"]) == ("!(carry.judge.score < 8)", 100)
    assert made["steps"]["judge"]["llm"]["output_schema"]["required"] == ["score"]


def test_a_loop_without_a_list_or_body_is_refused() -> None:
    """At the loop."""
    assert refusals("- {name: a, type: for_loop, iterator: x, steps: [{name: b, type: test_echo}]}") == [
        "4:7: E1502 `data_source` is missing"
    ]
    assert refusals("- {name: a, type: while_loop, condition: 'true'}") == ["4:7: E1502 step `a` has no `steps`"]


def test_bodies_nested_without_end_are_refused() -> None:
    """Ten levels are the limit of both systems."""
    steps = "- name: s0\n  type: while_loop\n  condition: 'true'\n  steps:\n"
    for depth in range(1, 13):
        indent = "  " * depth
        steps += (
            f"{indent}- name: s{depth}\n{indent}  type: while_loop\n{indent}  condition: 'true'\n{indent}  steps:\n"
        )
    steps += "  " * 13 + "- {name: e, type: test_echo}\n"
    assert any("E1514 steps nested deeper than 10" in found for found in refusals(steps))
