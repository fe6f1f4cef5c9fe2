"""The keys of a file: its root, inputs, variables, and what has no counterpart."""

import pytest
from tests.unit.pipeline.importer.conversion import document, imported, said

from headrace.pipeline.importer.files import import_text

ECHO = "- {name: a, type: test_echo, value: 1}"


@pytest.mark.parametrize(
    "text",
    [
        "workflow: {name: old, steps: [{name: a, type: test_echo, value: 1}]}",
        "pipeline: {name: old}\nsteps: [{name: a, type: test_echo, value: 1}]",
        "name: old\nsteps: [{name: a, type: test_echo, value: 1}]",
        '{"workflow": {"name": "old", "steps": [{"name": "a", "type": "test_echo", "value": 1}]}}',
    ],
)
def test_every_root_is_understood(text: str) -> None:
    """The loader wanted `workflow:`."""
    result = import_text(text)
    assert not result.refused
    assert "pipeline: old" in result.texts["old.yaml"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: E1001 empty definition"),
        ("- a", "1:1: E1501 not a pipeline_ex file: a map with `workflow` is expected, this is a list"),
        ("a: 1", "1:1: E1501 not a pipeline_ex file: no `workflow`, and no `steps` at the top"),
        ("a: 1\nb: {steps: []}", "2:1: E1501"),
        ("pipeline: p\nsteps: {a: {wait: {for: 1s}}}", "1:1: E1501 this is a Headrace pipeline already"),
        ("workflow: {steps: [{name: a, type: test_echo}]}", "1:1: E1502 `name` is missing"),
        ("workflow: {name: a, steps: []}", "1:21: E1502 `steps` is empty or missing"),
        ("workflow: {name: a, steps: {}}", "1:21: E1503 `steps` is a map, expected a list"),
        ("workflow: {name: a, name: b}", "1:21: E1010"),
        ("a: &x 1", "1:4: E1007"),
        ("\tworkflow: x", "1:1: E1005"),
    ],
)
def test_what_is_no_old_file_is_refused_with_its_line(text: str, expected: str) -> None:
    """Nothing is guessed."""
    result = import_text(text)
    assert result.refused
    assert not result.texts
    assert str(result.differences[0]).removeprefix("old.yaml:").startswith(expected)


def test_names_descriptions_and_labels() -> None:
    """What was ignored describes the pipeline."""
    text = (
        "workflow:\n  name: My Flow\n  description: does it\n  version: 1.0\n"
        "  metadata: {author: me, tags: [a]}\n  steps: [{name: a, type: test_echo}]\n"
    )
    result = import_text(text)
    made = result.texts["old.yaml"]
    assert "pipeline: my_flow\ndescription: My Flow – does it\n" in made
    assert 'labels:\n  version: "1.0"\n  author: me\n' in made
    assert said(result, "W1520") == ["`tags` is dropped: labels are short texts"]


def test_inputs_with_values_are_defaults() -> None:
    """`input` was ignored, and its templates became empty texts."""
    made = document(
        "- {name: a, type: test_echo, value: '{{ who }} {{ n }}'}", above="input: {who: me, n: 3, Big Name: [1]}"
    )
    assert made["inputs"] == {
        "who": {"type": "string", "default": "me"},
        "n": {"type": "integer", "default": 3},
        "big_name": {"type": "array", "default": [1]},
    }


def test_variables_of_a_file_are_vars() -> None:
    """Also those that were documented and never read."""
    made = document(
        "- {name: a, type: test_echo, value: '{{global_vars.x}} {{y}}'}", above="global_vars: {x: 1}\nvariables: {y: 2}"
    )
    assert made["vars"] == {"x": 1, "y": 2}
    assert made["steps"]["a"]["transform"] == "${{ vars.x }} ${{ vars.y }}"


def test_what_had_no_code_is_reported_with_what_takes_its_place() -> None:
    """Documented keys, keys of the program, and keys that nobody knows."""
    above = (
        "claude_auth: {key: sk-secret}\nresource_limits: {max_memory: 1}\n"
        "hooks: {PreToolUse: []}\nmcp_servers: {a: {}}\n"
        "checkpoint_enabled: true\nworkspace_dir: ./w\nfoo: 1\nenvironment: {mode: production, debug_level: x}\n"
    )
    result = imported(ECHO, above=above)
    dropped = "\n".join(said(result, "W1520"))
    for key in ("claude_auth", "resource_limits", "debug_level"):
        assert f"`{key}` is dropped" in dropped
    assert len(said(result, "W1528")) == 2
    assert said(result, "W1521") == ["`foo` is no key of a pipeline; it is dropped"]
    assert len(said(result, "N1555")) == 1
    assert "sk-secret" not in "\n".join(map(str, result.differences)) + result.texts["old.yaml"]
    assert "workspace: true" in result.texts["old.yaml"]


def test_an_environment_aware_step_takes_the_mode_of_the_file() -> None:
    """Resolved at the import."""
    made = document(
        "- {name: a, type: claude_smart, environment_aware: true, prompt: x}", above="environment: {mode: test}"
    )
    assert made["steps"]["a"]["timeout"] == "30s"
