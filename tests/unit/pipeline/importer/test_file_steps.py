"""Files: tools that stay in the workspace, and results that are written."""

import pytest
from tests.unit.pipeline.importer.conversion import document, imported, refusals, said, steps_of

from headrace.pipeline.importer.file_steps import as_glob


@pytest.mark.parametrize(
    ("keys", "tool", "arguments"),
    [
        (("operation: copy, source: "
            "workspace/a.txt, destination: ./b/c.txt"), "fs.copy", {"from": "a.txt", "to": "b/c.txt"}),
        ("operation: stream_copy, source: a, destination: b", "fs.copy", {"from": "a", "to": "b"}),
        ("operation: move, source: a, destination: 'x_{{ date }}'", "fs.move",
         {"from": "a", "to": "x_${{ run.started_at.substring(0, 10) }}"}),
        ("operation: delete, path: a", "fs.delete", {"path": "a"}),
        ("operation: list, path: docs", "fs.glob", {"pattern": "*", "dir": "docs"}),
        ("operation: list, path: docs, pattern: '.*\\.md$'", "fs.glob", {"pattern": "*.md", "dir": "docs"}),
        ("operation: convert, source: a.csv, destination: a.json, format: csv_to_json", "fs.convert",
         {"from": "a.csv", "to": "a.json", "from_format": "csv", "to_format": "json"}),
    ],
)  # fmt: skip
def test_operations_are_tools(keys: str, tool: str, arguments: dict[str, str]) -> None:
    """Paths are relative to the workspace, which the file asks for."""
    made = document(f"- {{name: a, type: file_ops, {keys}}}")
    assert made["workspace"] is True
    assert (made["steps"]["a"]["tool"], made["steps"]["a"]["with"]) == (tool, arguments)


@pytest.mark.parametrize(
    ("pattern", "glob"),
    [
        (r".*\.md$", "*.md"),
        (r"^report\.md$", "report.md"),
        (r"\.md$", None),
        (r"a|b", None),
        (r".*\.md", None),
        (r".*\.(md|txt)$", None),
    ],
)
def test_a_pattern_is_a_glob_only_where_both_mean_the_same(pattern: str, glob: str | None) -> None:
    """Else the listing is filtered."""
    assert as_glob(pattern) == glob


def test_other_patterns_filter_the_listing() -> None:
    """By the regular expression itself."""
    made = steps_of("- {name: a, type: file_ops, operation: list, path: docs, pattern: 'x|y'}")
    assert made["a"]["transform"] == '${{ steps.a_all.output.paths.filter(p, p.matches("x|y")) }}'


def test_a_check_of_files_fails_its_step() -> None:
    """One `fs.stat` a file, and an expression without a value when a check fails."""
    made = steps_of(
        "- name: v\n  type: file_ops\n  operation: validate\n  files:\n  - {path: a, min_size: 3, must_be_file: true}\n"
        "  - {path: b, must_exist: false}\n"
    )["v"]
    assert list(made["steps"]) == ["v_stat_1", "v_stat_2", "v_check"]
    assert made["steps"]["v_check"]["transform"] == (
        '${{ {"true": true}[text(steps.v_stat_1.output.exists && steps.v_stat_1.output.kind == "file" '
        "&& steps.v_stat_1.output.bytes >= 3)] }}"
    )


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("operation: copy, source: a, destination: ../b", "E1511 a file outside of the run's workspace"),
        ("operation: copy, source: a, destination: /etc/b", "E1511"),
        ("operation: delete, path: '~/x'", "E1511"),
        ("operation: convert, source: a, destination: b, format: xml_to_json", "E1510 no conversion `xml_to_json`"),
        ("operation: burn", "E1510 no file operation `burn`"),
        ("source: a", "E1502 `operation` is missing"),
    ],
)
def test_what_leaves_the_workspace_or_is_not_there_is_refused(keys: str, why: str) -> None:
    """Absolute paths and `..` were followed."""
    assert why in refusals(f"- {{name: a, type: file_ops, {keys}}}")[0]


def test_a_result_is_written_by_a_step_of_its_own() -> None:
    """Below the output directory of the defaults, with text as text and values as JSON."""
    steps = (
        "- {name: a, type: gemini, prompt: x, output_to_file: 'r_{{ timestamp }}.md'}\n"
        "- {name: b, type: gemini, prompt: x, output_schema: {type: object}, output_to_file: b.json}\n"
    )
    made = steps_of(steps, above="defaults: {output_dir: ./out}")
    assert made["a_file"]["with"] == {
        "path": "out/r_${{ run.started_at }}.md",
        "text": "${{ steps.a.output.text }}",
    }
    assert made["b_file"]["with"] == {"path": "out/b.json", "json": "${{ steps.b.output }}"}
    assert len(said(imported(steps), "N1550")) == 2
    assert "E1511" in refusals("- {name: a, type: gemini, prompt: x, output_to_file: ../x}")[0]


def test_a_line_by_line_change_is_left_out_and_its_readers_are_refused() -> None:
    """Dropped with a message, never in silence."""
    step = "- {name: a, type: file_ops, operation: stream_process, source: x, processor: uppercase}\n"
    result = imported(step + "- {name: b, type: test_echo, value: 1}\n")
    assert not result.refused
    assert len(said(result, "W1524")) == 1
    assert "E1506" in refusals(step + "- {name: b, type: test_echo, value: '{{steps.a.x}}'}\n")[0]
