"""Parts of prompts."""

import pytest
from tests.unit.pipeline.importer.conversion import imported, refusals, said, steps_of

ASK = "- {name: ask, type: gemini, prompt: x}\n- {name: v, type: test_echo, value: {a: {b: 1}}}\n"


def prompt(parts: str) -> str:
    """The prompt of a step with parts."""
    text = steps_of(f"{ASK}- name: l\n  type: claude\n  prompt:\n{parts}")["l"]["llm"]["prompt"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ("  - {type: static, content: one}\n  - {type: static, content: two}\n", "one\ntwo"),
        ("  - {type: static, content: 7}\n", "7"),
        ("  - just text\n", "just text"),
        ("  - {type: file, path: ./docs/a.md}\n", '${{ file("docs/a.md") }}'),
        ("  - {type: file, path: 'd/{{ name }}.md'}\n", '${{ file("d/" + text(inputs.name) + ".md") }}'),
        ("  - {type: file, path: ./workspace/a.md}\n", '${{ file("a.md") }}'),
        ("  - {type: previous_response, step: ask}\n", "${{ steps.ask.output.text }}"),
        ("  - {type: previous_response, step: ask, extract: content}\n", "${{ steps.ask.output.text }}"),
        ("  - {type: previous_response, step: v, extract: a.b}\n", "${{ steps.v.output.a.b }}"),
        (
            "  - {type: previous_response, step: v, extract: a.b, strict: false}\n",
            '${{ steps.?v.?output.?a.?b.orValue("") }}',
        ),
    ],
)
def test_parts_are_joined_with_one_newline(parts: str, text: str) -> None:
    """As before."""
    assert prompt(parts) == text


def test_parts_of_a_conversation_are_a_session() -> None:
    """They expanded to an empty text, and the new prompt was lost."""
    made = steps_of(
        "- name: l\n  type: claude\n  prompt:\n  - {type: session_context, session_id: s, include_last_n: 4}\n"
        "  - {type: claude_continue, session_id: s, new_prompt: go on}\n"
    )["l"]["llm"]
    assert made["prompt"] == "go on"
    assert made["session"] == {"id": "s", "create": True, "include": "last 4"}


def test_files_outside_are_looked_for_where_the_operator_grants() -> None:
    """The report says what to give."""
    result = imported("- {name: a, type: claude, prompt: [{type: file, path: ../x/y.md}, {type: file, path: /etc/z}]}")
    assert said(result, "W1527") == [
        "`x/y.md` is looked for in the workspace, then below each `--read-root`: give the directory that holds it",
        "an absolute path is read only below a directory given with `--read-root`",
    ]


def test_documented_keys_without_effect_are_reported() -> None:
    """With what to do instead."""
    result = imported(
        f"{ASK}- {{name: l, type: claude, prompt: [{{type: previous_response, step: ask, max_length: 9, odd: 1}}]}}"
    )
    assert said(result, "W1520") == ["`max_length` is dropped: `substring(0, n)` cuts a text"]
    assert said(result, "W1521") == ["`odd` is no key of a `previous_response` part; it is dropped"]


@pytest.mark.parametrize(
    ("prompt_text", "why"),
    [
        ("[]", "E1503 `prompt` is a list, expected a list of parts or text"),
        ("[{type: dream}]", "E1504 no part of a prompt is a `dream`"),
        ("[{type: static}]", "E1502 `content` is missing"),
        ("[{type: previous_response, step: nobody}]", 'E1506 there is no step "nobody" before this'),
        ("[3]", "E1503 a part of a prompt is a map"),
    ],
)
def test_parts_without_a_meaning_are_refused(prompt_text: str, why: str) -> None:
    """At their place."""
    assert why in refusals(f"- {{name: l, type: claude, prompt: {prompt_text}}}")[0]
