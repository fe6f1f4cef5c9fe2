"""Several questions at once: groups, and bounded maps over tasks."""

from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of


def test_parallel_tasks_are_a_group_whose_results_have_their_names() -> None:
    """A later step reads them by the task's id."""
    made = steps_of(
        "- name: p\n  type: parallel_claude\n  parallel_tasks:\n  - {id: doc, prompt: x, output_to_file: d.md}\n"
        "  - {id: test, prompt: y}\n- {name: l, type: gemini, prompt: '{{steps.p.test.content}} {{p.doc}}'}\n"
    )
    assert list(made["p"]["steps"]) == ["doc", "doc_file", "test"]
    assert made["p"]["outputs"] == {"doc": "${{ steps.doc.output.text }}", "test": "${{ steps.test.output.text }}"}
    assert made["l"]["llm"]["prompt"] == "${{ steps.p.output.test }} ${{ steps.p.output.doc }}"


def test_a_task_twice_is_refused() -> None:
    """The later result replaced the earlier."""
    steps = "- name: p\n  type: parallel_claude\n  parallel_tasks:\n  - {id: a, prompt: x}\n  - {id: a, prompt: y}\n"
    assert refusals(steps) == ["8:9: E1505 two tasks are called `a`"]


BATCH = "- name: b\n  type: claude_batch\n  preset: chat\n  batch_config: {max_parallel: 2, timeout_per_task: 8000}\n"


def test_tasks_that_differ_in_text_only_are_a_bounded_map() -> None:
    """In order, with the documented bound, the step's prompt before each task's."""
    steps = BATCH + "  prompt: Common.\n  tasks:\n  - {task_id: x, prompt: one}\n  - {id: y, prompt: two}\n"
    made = steps_of(steps + "- {name: l, type: gemini, prompt: '{{b.y.content}}'}\n")
    assert made["b"] == {
        "foreach": [{"id": "x", "prompt": "one"}, {"id": "y", "prompt": "two"}],
        "as": "task",
        "max_parallel": 2,
        "on_item_error": "fail",
        "timeout": "8s",
        "retry": {"attempts": 2},
        "llm": {"model": "anthropic/claude-sonnet-4-5", "prompt": "Common.\n${{ task.prompt }}"},
    }
    assert made["l"]["llm"]["prompt"] == "${{ steps.b.output.items[1].text }}"
    assert "`id` names the task" in said(imported(steps), "N1564")


def test_tasks_with_templates_and_files_are_one_expression() -> None:
    """Text stays text: what a file holds is not evaluated."""
    made = steps_of(BATCH + "  tasks:\n  - {task_id: x, prompt: 'see {{ who }} ${{ y }}', file: a.txt}\n")
    assert made["b"]["foreach"] == (
        '${{ [{"id": "x", "prompt": "see " + text(inputs.who) + " ${{ y }}\\n" + text(file("a.txt"))}] }}'
    )


def test_tasks_that_differ_otherwise_are_a_group() -> None:
    """And the report says what bounds it."""
    steps = (
        BATCH
        + "  tasks:\n  - {task_id: x, prompt: one, claude_options: {model: haiku}}\n  - {task_id: y, prompt: two}\n"
    )
    made = steps_of(steps)["b"]
    assert [inner["llm"]["model"] for inner in made["steps"].values()] == [
        "anthropic/claude-haiku-4-5",
        "anthropic/claude-sonnet-4-5",
    ]
    assert any("`limits.max_parallel` bounds it" in text for text in said(imported(steps), "N1551"))


def test_tasks_below_batch_config_are_read() -> None:
    """As the documents had it."""
    assert (
        len(steps_of("- {name: b, type: claude_batch, batch_config: {tasks: [{id: x, prompt: y}]}}")["b"]["foreach"])
        == 1
    )
