"""Steps that ask a model: options, presets, retries, sessions, schemas."""

from typing import Any

import pytest
from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of


def step(body: str, *, above: str = "") -> dict[str, Any]:
    """The new step `a`."""
    made = steps_of(f"- name: a\n{body}", above=above)["a"]
    assert isinstance(made, dict)
    return made


def test_claude_options_become_settings() -> None:
    """Models in order, prompts joined, tools by their new names, turns as rounds."""
    made = step(
        "  type: claude\n  prompt: hi\n  claude_options:\n    model: opus\n    fallback_model: claude-3-haiku\n"
        "    max_turns: 7\n    allowed_tools: [Read, Edit, Write, Grep, Bash, mcp__git__log, Task]\n"
        "    disallowed_tools: [Grep]\n    system_prompt: You are {{ who }}.\n    append_system_prompt: Be brief.\n"
        "    cwd: ./workspace/sub\n    temperature: 0.5\n"
    )
    assert made == {
        "llm": {
            "model": ["anthropic/claude-opus-4-1", "anthropic/claude-3-haiku"],
            "system": "You are ${{ inputs.who }}.\nBe brief.\nWork in the directory sub: "
            "paths are relative to the one above it.",
            "prompt": "hi",
            "tools": ["fs.read", "fs.write", "mcp.git.log"],
            "max_rounds": 7,
            "temperature": 0.5,
        }
    }


def test_what_steered_the_program_is_reported() -> None:
    """Tools without counterpart, tools that are off, settings of the program, directories outside."""
    result = imported(
        "- name: a\n  type: claude\n  prompt: hi\n  claude_options:\n    allowed_tools: [Bash, Task]\n"
        "    permission_mode: plan\n    cwd: /somewhere\n    verbose: true\n    nonsense: 1\n"
    )
    assert said(result, "W1523") == [
        "`Bash` is left out: `shell.run` is off until the operator enables it, then add it to `llm.tools`"
    ]
    assert said(result, "W1522") == ["no tool does what `Task` did; it is left out"]
    assert len(said(result, "W1528")) == 1
    assert len(said(result, "W1527")) == 1
    assert said(result, "W1521") == ["`nonsense` is no key of `claude_options`; it is dropped"]


@pytest.mark.parametrize(
    ("preset", "model", "timeout", "attempts", "tools"),
    [
        ("development", "anthropic/claude-sonnet-4-5", "5m", 4, ["fs.write", "fs.read", "fs.grep", "fs.glob"]),
        ("production", ["anthropic/claude-opus-4-1", "anthropic/claude-sonnet-4-5"], "2m", 3, ["fs.read"]),
        ("analysis", "anthropic/claude-opus-4-1", "3m", 3, ["fs.read", "fs.glob", "fs.grep"]),
        ("chat", "anthropic/claude-sonnet-4-5", "1m", 2, None),
        ("test", "anthropic/claude-sonnet-4-5", "30s", 1, ["fs.read"]),
        ("unheard_of", "anthropic/claude-sonnet-4-5", "5m", 4, ["fs.write", "fs.read", "fs.grep", "fs.glob"]),
    ],
)
def test_presets_are_written_out(preset: str, model: Any, timeout: str, attempts: int, tools: Any) -> None:
    """`max_retries` of a preset are the attempts after the first."""
    made = step(f"  type: claude_smart\n  preset: {preset}\n  prompt: hi\n")
    assert (made["llm"]["model"], made["timeout"], made["retry"]) == (model, timeout, {"attempts": attempts})
    assert made["llm"].get("tools") == tools


def test_the_files_own_values_win_over_a_preset() -> None:
    """Four presets replaced the file's tools."""
    body = (
        "  type: claude_smart\n  preset: analysis\n  prompt: hi\n"
        "  options: {allowed_tools: [Write], timeout_ms: 9000}\n"
    )
    made = step(body)
    assert (made["llm"]["tools"], made["timeout"]) == (["fs.write"], "9s")
    result = imported(f"- name: a\n{body}")
    assert said(result, "N1546") == ["the file's own tools count"]
    assert said(result, "N1564") == ["a prompt may be plain text", "`options` is read as `claude_options`"]


def test_defaults_are_really_applied_and_the_report_names_the_steps() -> None:
    """They were merged by a function that nobody called."""
    above = (
        "defaults:\n  gemini_model: gemini-x\n  gemini_token_budget: {max_output_tokens: 9, top_k: 3}\n"
        "  claude_options: {model: haiku, verbose: true}\n  claude_preset: chat\n"
    )
    steps = (
        "- {name: g, type: gemini, prompt: x}\n"
        "- {name: own, type: gemini, model: y, prompt: x, token_budget: {max_output_tokens: 5, top_k: 1}}\n"
        "- {name: c, type: claude, prompt: x}\n- {name: s, type: claude_smart, prompt: x}\n"
    )
    made = steps_of(steps, above=above)
    assert made["g"]["llm"] == {
        "model": "google/gemini-x",
        "prompt": "x",
        "max_tokens": 9,
        "options": {"top_k": 3},
        "allow_unpriced": True,
    }
    assert made["own"]["llm"] == {
        "model": "google/y",
        "prompt": "x",
        "max_tokens": 5,
        "options": {"top_k": 1},
        "allow_unpriced": True,
    }
    assert made["c"]["llm"]["model"] == "anthropic/claude-haiku-4-5"
    assert made["s"]["timeout"] == "1m"
    applied = said(imported(steps, above=above), "N1554")
    assert applied == [
        "`gemini_model` applies to g",
        "`gemini_token_budget` applies to g",
        "`claude_options.model` applies to c, s",
    ]


def test_retries_of_a_robust_step_are_attempts_and_its_failure_is_a_failure() -> None:
    """Every unknown fallback was a success with an apology."""
    made = step(
        "  type: claude_robust\n  prompt: hi\n"
        "  retry_config: {max_retries: 2, base_delay_ms: 1500, backoff_strategy: fixed,"
        " retry_conditions: [timeout, rate_limit, weather]}\n"
    )
    assert made["retry"] == {"attempts": 3, "initial": "1500ms", "on": ["timeout", "rate_limited"]}
    assert "fallback" not in made


@pytest.mark.parametrize(
    ("action", "key", "code"),
    [
        ("graceful_degradation", "fallback", "N1549"),
        ("skip", "on_error", "N1549"),
        ("fail", "", "N1549"),
        ("cached_response", "", "W1520"),
        ("mock_response", "", "W1520"),
    ],
)
def test_each_fallback_policy_is_explicit(action: str, key: str, code: str) -> None:
    """Degraded, failed and tolerated, or failed; and the report says which."""
    body = f"  type: claude_robust\n  prompt: hi\n  retry_config: {{fallback_action: {action}}}\n"
    made = step(body)
    assert [name for name in ("fallback", "on_error") if name in made] == ([key] if key else [])
    assert any(found.code == code and found.line == 7 for found in imported(f"- name: a\n{body}").differences)


def test_a_session_goes_on_in_later_steps() -> None:
    """A named session never continued live."""
    steps = (
        "- {name: a, type: claude_session, prompt: x, session_config: "
        "{session_name: Math Tutor, max_turns: 5, persist: true}}\n"
        "- {name: b, type: gemini, prompt: y}\n- {name: c, type: claude_session, session_name: Math Tutor, prompt: z}\n"
    )
    made = steps_of(steps)
    assert made["a"]["llm"]["session"] == {"id": "math_tutor", "create": True, "max_turns": 5}
    assert made["c"]["llm"]["session"] == {"id": "math_tutor", "create": True}


def test_turns_of_a_conversation_are_a_group_in_order() -> None:
    """`conversation` was ignored."""
    made = step(
        "  type: claude_session\n  session_config: {session_id: s}\n  conversation:\n  - {turn: 1, prompt: one}\n"
        "  - {turn: 2, prompt: two, claude_options: {model: haiku}}\n"
    )
    assert [(name, inner.get("needs"), inner["llm"]["prompt"]) for name, inner in made["steps"].items()] == [
        ("a_turn_1", None, "one"),
        ("a_turn_2", ["a_turn_1"], "two"),
    ]
    assert made["outputs"] == {"text": "${{ steps.a_turn_2.output.text }}"}


def test_an_extraction_is_a_schema_and_tools() -> None:
    """A shorthand schema is written in full, blocks of code are a step of their own, the rest is reported."""
    steps = (
        "- name: a\n  type: claude_extract\n  prompt: x\n"
        "  schema: {title: string, items: [{n: integer}], more: {any: array}}\n"
        "- name: b\n  type: claude_extract\n  prompt: x\n"
        "  extraction_config: {format: text, post_processing: [extract_links, shine]}\n"
    )
    made = steps_of(steps)
    assert made["a"]["llm"]["output_schema"] == {
        "type": "object",
        "required": ["title", "items", "more"],
        "properties": {
            "title": {"type": "string"},
            "items": {
                "type": "array",
                "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
            },
            "more": {"type": "object", "required": ["any"], "properties": {"any": {"type": "array"}}},
        },
    }
    assert made["b_links"] == {"tool": "text.extract_links", "with": {"text": "${{ steps.b.output.text }}"}}
    assert said(imported(steps), "W1520") == ["`shine` is dropped: ask for it in the prompt"]


def test_functions_become_the_schema_of_the_answer() -> None:
    """They were checked and never sent; both ways out are named."""
    above = "gemini_functions:\n  f: {description: d, parameters: {type: object, properties: {n: {type: integer}}}}\n"
    body = "  type: gemini\n  prompt: x\n  functions: [f]\n"
    assert step(body, above=above)["llm"]["output_schema"] == {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
    }
    assert "or register tools" in said(imported(f"- name: a\n{body}", above=above), "W1525")[0]
    assert refusals("- {name: a, type: gemini, prompt: x, functions: [g]}") == [
        "4:54: E1506 function `g` is not in `gemini_functions`"
    ]


def test_the_instructors_fixed_schema_is_written_out() -> None:
    """Unless the file has one, which was ignored."""
    fixed = step("  type: gemini_instructor\n  prompt: x\n")["llm"]["output_schema"]
    assert list(fixed["properties"]) == ["text", "analysis", "summary"]
    own = step("  type: gemini_instructor\n  prompt: x\n  output_schema: {type: object, required: [n]}\n")
    assert own["llm"]["output_schema"] == {"type": "object", "required": ["n"]}


def test_a_schema_that_is_none_is_refused_at_its_key() -> None:
    """It was never looked at."""
    found = refusals("- {name: a, type: claude, prompt: x, output_schema: {type: 7}}")
    assert found[0].startswith("4:42: E1503 not a JSON Schema")
